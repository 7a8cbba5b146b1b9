"""A bound on the bytes of updates per second, about one participant or about a whole room."""

from signaling.limits import MAX_UPDATE_BYTES_PER_S, UPDATE_BURST_BYTES


class Allowance:
    """Bytes that may be sent now. An update is sent whole if any are left, and charged afterwards."""

    def __init__(self, bytes_per_s: int, burst: int, now: float) -> None:
        """Begin with a full burst. `now` is in seconds."""
        self._rate = bytes_per_s
        self._burst = burst
        self._left: float = burst
        self._at = now

    def allows(self, now: float) -> bool:
        """Tell whether something may be sent at `now`."""
        self._left = min(self._burst, self._left + self._rate * (now - self._at))
        self._at = now
        return self._left > 0

    def charge(self, size: int) -> None:
        """Charge `size` bytes that are sent."""
        self._left -= size


def participant_allowance(now: float) -> Allowance:
    """Return the allowance for updates about one participant."""
    return Allowance(MAX_UPDATE_BYTES_PER_S, UPDATE_BURST_BYTES, now)
