"""What this server carries, against the operator's `limit.num_tracks` and `limit.bytes_per_sec`.

Who calls it: the registry of rooms, at its ticks and for each join.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from signaling.config.options import LimitOptions

if TYPE_CHECKING:
    from sfu.engine import Totals

MEASURE_S = 2.0
"""The time between two measurements, as livekit-server updates its statistics."""
BEYOND_LIMITS = "node has exceeded its configured limit"


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

    def is_beyond(self, limits: LimitOptions) -> bool:
        """Tell whether a limit is reached."""
        too_many = 0 < limits.tracks <= self.tracks
        return too_many or 0 < limits.bytes_per_s <= self.bytes_per_s

    def tick(self, now: float, limits: LimitOptions) -> None:
        """Measure if it is time and there are limits. `now` is the node's clock, in seconds."""
        if now - self._measured_at < MEASURE_S or not (limits.tracks or limits.bytes_per_s):
            return
        totals = self._totals()
        counted = totals.traffic.bytes_received + totals.traffic.bytes_sent
        if math.isfinite(self._measured_at):
            self.bytes_per_s = (counted - self._bytes) / (now - self._measured_at)
        self._measured_at, self._bytes = now, counted
        self.tracks = self._published() + sum(totals.subscriptions.values())
