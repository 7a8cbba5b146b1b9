"""Writes the drop counters into the log, for operators who do not read metrics.

Who calls it: `listener.py`, while the server runs.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping

import structlog

TELL_S = 60.0
"""The time between two lines of the log."""

log = structlog.get_logger("signaling.drops")

Count = Callable[[], Mapping[str, int]]
"""A function that returns how much was dropped since the start, by reason."""


class DropLog:
    """Logs how much each counter grew since the last line."""

    def __init__(self, *counts: Count) -> None:
        """Each of `counts` is called once for every line."""
        self._counts = counts
        self._told: Counter[str] = Counter()

    def tell(self) -> None:
        """Write one line with the counters that grew, or no line if none did."""
        total: Counter[str] = Counter()
        for count in self._counts:
            total.update(count())
        if added := total - self._told:
            log.info("dropped", drops=dict(sorted(added.items())))
        self._told = total


@contextlib.asynccontextmanager
async def telling_drops(*counts: Count) -> AsyncIterator[None]:
    """Write a line every minute while the block lasts, and one at its end."""
    drops = DropLog(*counts)

    async def tell() -> None:
        while True:
            await asyncio.sleep(TELL_S)
            drops.tell()

    task = asyncio.create_task(tell(), name="drops")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        drops.tell()
