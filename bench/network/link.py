"""One direction of a bottleneck as arithmetic: when a packet that comes now arrives, or that it never does.

A packet waits for those before it, is sent at the link's rate, and is then on its way for a constant time and a random
one. It is dropped when it would have to wait longer than the queue is long, and lost by chance after it was sent. There
is no clock here: `now` is an argument, in seconds, and everything random comes from a seed.
"""

import random
from bisect import bisect_right
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import NamedTuple

Steps = tuple[tuple[float, float], ...]
"""Pairs of seconds after the begin and a value, ascending. Each value holds until the next one, and the first one also
before its time."""
STEPPED = ("rate", "jitter_ms", "loss")
"""Properties of Conditions that may change."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """The properties of one direction of a link."""

    rate: Steps = ((0.0, inf),)
    """Bits of IP packets per second. 0: nothing is sent."""
    queue_ms: float = 300.0
    """A packet that would have to wait longer is dropped."""
    delay_ms: float = 0.0
    jitter_ms: Steps = ((0.0, 0.0),)
    """The delay of each packet grows by a random time of up to so much."""
    reorder: bool = False
    """Whether jitter may change the order of packets. Otherwise a late packet delays those behind it."""
    loss: Steps = ((0.0, 0.0),)
    """The share of packets that are lost at random, 0 to 1."""


class Outcome(Enum):
    """What happens to a packet."""

    ARRIVES = "arrives"
    DROPPED = "dropped"
    LOST = "lost"


class Fate(NamedTuple):
    """What happens to one packet."""

    outcome: Outcome
    arrives: float
    """When it arrives, on the clock of `now`. Infinite for a packet that never does."""
    waited: float
    """Seconds in the queue. For a dropped packet, the time that it would have waited."""


def _place(steps: Steps, at: float) -> int:
    """Return the index of the value that holds so many seconds after the begin."""
    return max(0, bisect_right(steps, at, key=lambda step: step[0]) - 1)


def value_at(steps: Steps, at: float) -> float:
    """Return the value that holds so many seconds after the begin."""
    return steps[_place(steps, at)][1]


class Link:
    """The state of one direction of a link."""

    def __init__(self, conditions: Conditions, seed: int) -> None:
        """Make an empty link. Its losses and jitter depend on `seed` and the order of the packets alone."""
        self._conditions = conditions
        self._random = random.Random(seed)
        self._begin = inf
        self._free = -inf
        """When the last packet of the queue will have been sent."""
        self._last = -inf
        """When the latest packet arrives."""

    def begin(self, now: float) -> None:
        """Start the time of the steps of rate, jitter and loss. Until then their first values hold."""
        self._begin = now

    def rate(self, now: float) -> float:
        """Return the rate now, in bits per second."""
        return value_at(self._conditions.rate, now - self._begin)

    def send(self, now: float, size: int) -> Fate:
        """Return what happens to a packet of `size` bytes that comes now. `now` must not decrease from call to call."""
        conditions = self._conditions
        starts, ends = self._sending(max(now, self._free), 8 * size)
        waited = starts - now
        if waited > conditions.queue_ms / 1000:
            return Fate(Outcome.DROPPED, inf, waited)
        self._free = ends
        passed = now - self._begin
        if self._random.random() < value_at(conditions.loss, passed):
            return Fate(Outcome.LOST, inf, waited)
        jitter_ms = self._random.random() * value_at(conditions.jitter_ms, passed)
        arrives = ends + (conditions.delay_ms + jitter_ms) / 1000
        if not conditions.reorder:
            self._last = arrives = max(arrives, self._last)
        return Fate(Outcome.ARRIVES, arrives, waited)

    def _sending(self, at: float, bits: float) -> tuple[float, float]:
        """Return when the first and the last bit are sent if the link is free from `at` on. Infinite: never."""
        steps = self._conditions.rate
        begin = at if self._begin == inf else self._begin  # before the begin the first value holds for ever
        rest = (steps[0],) if self._begin == inf else steps[_place(steps, at - begin) :]
        at, starts = at - begin, inf
        for place, (_, rate) in enumerate(rest):
            until = rest[place + 1][0] if place + 1 < len(rest) else inf
            if rate > 0:
                starts = min(starts, begin + at)
                if at + bits / rate <= until:
                    return starts, begin + at + bits / rate
                bits -= (until - at) * rate
            at = until
        return starts, inf
