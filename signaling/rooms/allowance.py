"""How many bytes of updates may be sent in a time, of one participant or of a whole room."""

from signaling.limits import MAX_UPDATE_BYTES_PER_S, UPDATE_BURST_BYTES


class Allowance:
    """Bytes that may be sent now; what is begun is sent whole, and paid for afterwards."""

    def __init__(self, bytes_per_s: int, burst: int, now: float) -> None:
        """Begin with a full burst. now: seconds."""
        self._rate = bytes_per_s
        self._burst = burst
        self._left: float = burst
        self._at = now

    def allows(self, now: float) -> bool:
        """Whether something may be sent."""
        self._left = min(self._burst, self._left + self._rate * (now - self._at))
        self._at = now
        return self._left > 0

    def charge(self, size: int) -> None:
        """So many bytes are sent."""
        self._left -= size


def participant_allowance(now: float) -> Allowance:
    """For the updates about one participant."""
    return Allowance(MAX_UPDATE_BYTES_PER_S, UPDATE_BURST_BYTES, now)
