"""What the control thread does later: actions by name, and again what a media thread had no room for."""

import asyncio
from collections.abc import Callable, Sequence

from sfu.control.shards import Shard
from sfu.control.transports import Transport

RETRY_S = 0.005
"""How soon what the media thread had no room for is tried again."""


class Deferred:
    """Actions that come later, each once however often it is asked for in between."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop
        self._handles: dict[str, asyncio.Handle] = {}

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Use this loop; to be called before the first action."""
        self._loop = loop

    def __call__(self, name: str, seconds: float, action: Callable[[], None]) -> None:
        """Call `action` after some time, unless an action of this name is still to come."""
        if name in self._handles:
            return

        def run() -> None:
            del self._handles[name]
            action()

        self._handles[name] = self._loop.call_later(seconds, run) if seconds else self._loop.call_soon(run)

    def cancel(self) -> None:
        """Forget all that is still to come."""
        for handle in self._handles.values():
            handle.cancel()
        self._handles.clear()


class Retries:
    """Commands that wait for room in a queue, and transports whose settings wait for a row, until none is left."""

    def __init__(self, shards: Sequence[Shard], later: Deferred) -> None:
        """`later` calls when it is time to try again."""
        self._shards = shards
        self._later = later
        self._unsettled: set[Transport] = set()

    def watch(self, transport: Transport) -> None:
        """Settle a transport, whose settings have changed: now, or as soon as that is possible."""
        if not transport.settle():
            self._unsettled.add(transport)
        self.schedule()

    def forget(self, transport: Transport) -> None:
        """Settle a transport no more, because it closes."""
        self._unsettled.discard(transport)

    def schedule(self) -> None:
        """Try again soon if anything waits. To be called after whatever may have made it wait."""
        if self._unsettled or any(shard.mailbox.waiting for shard in self._shards):
            self._later("retry", RETRY_S, self._retry)

    def _retry(self) -> None:
        for shard in self._shards:
            shard.mailbox.flush()
        self._unsettled = {transport for transport in self._unsettled if not transport.settle()}
        self.schedule()
