"""Whether the media engine has room for what a join or a publication will need, asked before anybody is promised it.

The engine's tables are fixed. What participants already have is not enough to count: a track that was announced a
moment ago gets its subscriptions with the next negotiations, and a client that was admitted opens its transports later.
So the rooms are asked what all their members have and want, and what is admitted afterwards is added. Nothing is
subtracted: when the sum reaches a limit, everything is counted anew.
"""

import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sfu.engine import Engine


class Needs(NamedTuple):
    """Rows of the engine's tables."""

    transports: int = 0
    tracks: int = 0
    """Published m-sections: a track has one for each codec."""
    streams: int = 0
    """Layers of tracks."""
    subscriptions: int = 0

    def plus(self, other: "Needs") -> "Needs":
        """Both together."""
        return Needs(*map(operator.add, self, other))

    def beyond(self, other: "Needs") -> "Needs":
        """What is left when `other` becomes free, nothing below zero."""
        return Needs(*(max(0, mine - theirs) for mine, theirs in zip(self, other, strict=True)))

    def fits(self, limits: "Needs") -> bool:
        """Whether no number is above its limit."""
        return all(map(operator.le, self, limits))


SERVER_FULL = "the server is full"
MEASURE_INTERVAL_S = 0.4
"""Between two counts of everything, while the server is full."""


class Capacity:
    """What the engine's tables hold, and what of it is taken or promised."""

    def __init__(self, engine: "Engine", clock: Callable[[], float]) -> None:
        """Nothing is taken yet. clock: seconds, monotonic."""
        self.limits = Needs(**engine.limits())
        self.promised = Needs()
        """At least what is taken: it is counted anew only when the limit seems to be reached."""
        self.count: Callable[[], Needs] = Needs
        """What all rooms have and want; the registry of rooms sets it."""
        self._clock = clock
        self._measured_at = -math.inf

    def has_room(self, needs: Needs) -> bool:
        """Whether this much more can be promised."""
        if self.promised.plus(needs).fits(self.limits):
            return True
        now = self._clock()
        if now - self._measured_at < MEASURE_INTERVAL_S:
            return False
        self._measured_at = now
        self.promised = self.count()
        return self.promised.plus(needs).fits(self.limits)

    def promise(self, needs: Needs) -> bool:
        """Promise this much if there is room; says whether there was."""
        if not self.has_room(needs):
            return False
        self.promised = self.promised.plus(needs)
        return True
