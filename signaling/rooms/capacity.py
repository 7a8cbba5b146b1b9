"""Checks whether the media engine has rows for a join or a publication before it is admitted, and whether the
operator's limits allow a join.

The size of the engine's tables is fixed. It is not enough to count the rows in use: a track that was just announced
gets its subscriptions with the next negotiations, and a client that was just admitted opens its transports later. So
rooms count what all their members have and want, and every later admission is added. Nothing is subtracted; when the
sum reaches a limit, everything is counted anew.
"""

import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sfu.engine import Engine, Totals
    from signaling.config.options import LimitOptions


class Needs(NamedTuple):
    """Rows of the engine's tables."""

    transports: int = 0
    tracks: int = 0
    """Published m-sections: a track has one for each codec."""
    streams: int = 0
    """Layers of tracks."""
    subscriptions: int = 0

    def plus(self, other: "Needs") -> "Needs":
        """Return the sum of both."""
        return Needs(*map(operator.add, self, other))

    def beyond(self, other: "Needs") -> "Needs":
        """Return what is needed beyond `other`, at least zero of each."""
        return Needs(*(max(0, mine - theirs) for mine, theirs in zip(self, other, strict=True)))

    def fits(self, limits: "Needs") -> bool:
        """Tell whether no number is above its limit."""
        return all(map(operator.le, self, limits))


SERVER_FULL = "the server is full"
MEASURE_INTERVAL_S = 0.4
"""The least time between two counts of everything."""
LOAD_INTERVAL_S = 2.0
"""The time between two measurements, as livekit-server updates its statistics."""
BEYOND_LIMITS = "node has exceeded its configured limit"


class Capacity:
    """The rows that the engine has, and those that are taken or promised."""

    def __init__(self, engine: "Engine", clock: Callable[[], float]) -> None:
        """Start with nothing promised. `clock` gives seconds, monotonic."""
        self.limits = Needs(**engine.limits())
        self.promised = Needs()
        """The rows that are taken or promised, or more: they are counted anew only when a limit seems to be reached."""
        self.count: Callable[[], Needs] = Needs
        """Counts what all rooms have and want. The registry of rooms sets it."""
        self._clock = clock
        self._measured_at = -math.inf

    def has_room(self, needs: Needs) -> bool:
        """Tell whether `needs` can be promised as well."""
        if self.promised.plus(needs).fits(self.limits):
            return True
        now = self._clock()
        if now - self._measured_at < MEASURE_INTERVAL_S:
            return False
        self._measured_at = now
        self.promised = self.count()
        return self.promised.plus(needs).fits(self.limits)

    def promise(self, needs: Needs) -> bool:
        """Promise `needs` if there is room for them; return whether there was."""
        if not self.has_room(needs):
            return False
        self.promised = self.promised.plus(needs)
        return True


class Load:
    """The tracks and bytes a second of this server, measured only if there is a limit on them."""

    def __init__(self, totals: "Callable[[], Totals]", published: Callable[[], int]) -> None:
        """`totals` returns what the engine counted since the start, `published` how many tracks there are."""
        self._totals = totals
        self._published = published
        self._measured_at = -math.inf
        self._bytes = 0
        self.tracks = 0
        """Tracks that are received and forwarded."""
        self.bytes_per_s = 0.0
        """Bytes a second that were received and sent between the last two measurements."""

    def is_beyond(self, limits: "LimitOptions") -> bool:
        """Tell whether a limit is reached."""
        too_many = 0 < limits.tracks <= self.tracks
        return too_many or 0 < limits.bytes_per_s <= self.bytes_per_s

    def tick(self, now: float, limits: "LimitOptions") -> None:
        """Measure if it is time and there are limits. `now` is the node's clock, in seconds."""
        if now - self._measured_at < LOAD_INTERVAL_S or not (limits.tracks or limits.bytes_per_s):
            return
        totals = self._totals()
        counted = totals.traffic.bytes_received + totals.traffic.bytes_sent
        if math.isfinite(self._measured_at):
            self.bytes_per_s = (counted - self._bytes) / (now - self._measured_at)
        self._measured_at, self._bytes = now, counted
        self.tracks = self._published() + sum(totals.subscriptions.values())
