"""Numbers that are looked at once a second and shown as histograms, because a scrape sees only one moment.

Who calls it: `listener.py` runs `Samples.keep` while the server runs; `collector.py` shows the histograms.
"""

import asyncio
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

import structlog

SAMPLE_S = 1.0
RATE_BOUNDS_BPS = (
    50_000,
    100_000,
    150_000,
    300_000,
    600_000,
    1_000_000,
    1_500_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
)
DELAY_BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

log = structlog.get_logger("signaling.metrics")


def buckets(bounds: Iterable[float], counts: Iterable[int]) -> list[tuple[str, float]]:
    """Return (bound, values up to it) as Prometheus writes them; the last count is of what is beyond all bounds."""
    names = (*(str(float(bound)) for bound in bounds), "+Inf")
    return list(zip(names, map(float, accumulate(counts)), strict=True))


class Histogram:
    """How many values were at most each of several bounds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds` are ascending; a last one without end is added."""
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        """The sum of all values."""

    def observe(self, values: Iterable[float]) -> None:
        """Add values."""
        for value in values:
            self._counts[bisect_left(self._bounds, value)] += 1
            self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Return (bound, values up to it) as Prometheus writes them."""
        return buckets(self._bounds, self._counts)


class Samples:
    """The histograms that grow once a second."""

    def __init__(self, estimates: Callable[[], list[tuple[int, int]]]) -> None:
        """`estimates` gives what each client's path is believed to carry and what is allocated, in bits a second."""
        self._estimates = estimates
        self.estimate_bps = Histogram(RATE_BOUNDS_BPS)
        self.target_bps = Histogram(RATE_BOUNDS_BPS)
        self.loop_delay_s = Histogram(DELAY_BOUNDS_S)

    def take(self, late_s: float) -> None:
        """Take a sample; the control thread came to it `late_s` seconds after it was due."""
        self.loop_delay_s.observe((max(0.0, late_s),))
        told = self._estimates()
        self.estimate_bps.observe(estimate for estimate, _ in told)
        self.target_bps.observe(target for _, target in told)

    async def keep(self) -> None:
        """Take samples until cancelled."""
        while True:
            due = time.perf_counter() + SAMPLE_S
            await asyncio.sleep(SAMPLE_S)
            try:
                self.take(time.perf_counter() - due)
            except Exception:
                log.exception("a sample for metrics failed")
