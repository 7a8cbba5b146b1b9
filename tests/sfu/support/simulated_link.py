"""A bottleneck in simulated time: a rate that changes, a queue that drops what does not fit, a delay, loss, jitter."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

SECOND = 1_000_000_000
MS = 1_000_000
ENDLESS_BPS = 1_000_000_000

Trace = Sequence[tuple[float, int]]
"""(seconds from the beginning, bit/s from then on), in order."""


@dataclass
class Link:
    """One direction. Times are ns of the simulation's clock, which begins at `start`."""

    start: int
    trace: Trace = ((0.0, ENDLESS_BPS),)
    delay_ns: int = 20 * MS
    queue_ns: int = 300 * MS
    """How long a packet may wait at most; one that would wait longer is dropped."""
    loss: float = 0.0
    jitter_ns: int = 0
    cuts: Sequence[tuple[float, float]] = ()
    """(seconds from the beginning, seconds of the end) of times in which nothing gets through."""
    random: Random = field(default_factory=lambda: Random(1))
    free_ns: int = 0
    """When all that waits has been sent."""
    sent: int = 0
    dropped: int = 0

    def rate(self, now: int) -> int:
        """The capacity at `now`, bit/s."""
        passed = (now - self.start) / SECOND
        return max((each for each in self.trace if each[0] <= passed), default=self.trace[0])[1]

    def waits_ns(self, now: int) -> int:
        """How long a packet that comes now waits for others."""
        return max(self.free_ns - now, 0)

    def carry(self, now: int, size: int) -> int | None:
        """When a packet of `size` bytes on the wire, sent now, arrives; None: it does not."""
        self.sent += 1
        passed = (now - self.start) / SECOND
        if any(begin <= passed < end for begin, end in self.cuts):
            self.dropped += 1
            return None
        if self.waits_ns(now) > self.queue_ns:
            self.dropped += 1
            return None
        begin = max(now, self.free_ns)
        self.free_ns = begin + size * 8 * SECOND // self.rate(begin)
        if self.loss and self.random.random() < self.loss:
            self.dropped += 1
            return None
        return self.free_ns + self.delay_ns + (self.random.randrange(self.jitter_ns) if self.jitter_ns else 0)
