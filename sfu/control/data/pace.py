"""How fast data leave that wait beside video for which the path is too narrow.

SCTP fills the queue of a path until it loses packets (RFC 9260 section 7), before which video, whose rate follows the
queue, gives way until nothing of it is left. So data that wait have a rate while bandwidth denies video something: what
video may have of the estimate. That is what data leave of the path, so both come to half of it. Data begin with a part
of their rate and come to it slowly, because the estimate follows in steps.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

MIN_BPS = 20_000
"""Data have so much in any case."""
FIRST_SHARE = 0.125
"""The part of their share with which data begin."""
RISES_S, FALLS_S = 8.0, 0.5
"""Time constants with which the rate follows a share that grows or falls: the estimate takes so long to see what data
leave of the path, and what data take from video must be given back at once."""
SAVED_S = 0.02
"""What was not used for so long may be used at once."""
SHORTEST_WAIT_S = 0.005
IDLE_S = 2.0
"""Who asks for nothing for so long has nothing that waits."""


class Share(NamedTuple):
    """What a path carries, as its media know it."""

    is_short: bool
    """Whether bandwidth denies media something."""
    bps: int
    """What data may take then, bit/s; negative: nobody knows of a limit."""


AMPLE = Share(False, -1)


def share_of(transport: Any) -> Share:
    """Return what data may take beside the media of a transport, a row of that table."""
    estimate = int(transport["estimate_bps"])
    if estimate == 0:
        return AMPLE
    return Share(bool(transport["limited"]), max(estimate - int(transport["audio_bps"]), 0))


class Pace:
    """The budget of one association's data, in bytes. Times are seconds of any clock."""

    def __init__(self, share: Callable[[], Share]) -> None:
        """share: what the path carries at present."""
        self._share = share
        self._limits = False
        self._counted = self._credit = self._bps = 0.0

    def credit(self, now: float) -> float | None:
        """Return the bytes that may leave now of what waits, and its last packet beyond them; None: nothing limits it.

        Once limited, data are so until nothing waits: they may be all that denied media something. Without an estimate,
        as after a change of paths, nothing is known that denies anything.
        """
        share = self._share()
        if share.bps < 0:
            self._limits = False
            return None
        if not self._limits or now - self._counted > IDLE_S:
            self._limits = share.is_short
            if not self._limits:
                return None
            self._counted = now
            self._credit, self._bps = 0.0, FIRST_SHARE * share.bps
        rate = self._follow(now - self._counted, share.bps)
        self._credit = min(self._credit + rate * (now - self._counted), max(rate * SAVED_S, 1.0))
        self._counted = now
        return self._credit

    def spend(self, size: int) -> None:
        """Count bytes that have left."""
        self._credit -= size

    def wait_s(self) -> float:
        """Return the seconds until something may leave again."""
        return max((1.0 - self._credit) * 8 / max(self._bps, MIN_BPS), SHORTEST_WAIT_S)

    def _follow(self, elapsed: float, share: int) -> float:
        """Move the rate towards the share. Returns it in bytes per second."""
        constant = RISES_S if share > self._bps else FALLS_S
        self._bps += (share - self._bps) * (1 - math.exp(-elapsed / constant))
        return max(self._bps, MIN_BPS) / 8
