"""A bound on how much there may be in a second: of bytes that are sent, of requests that are answered."""


class Allowance:
    """So much a second, and more at once after a silence."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        """Begin with a whole burst.

        Args:
            rate: how much there may be in a second.
            burst: how much there may be at once.
            now: the time in seconds, of a clock that only goes forward, as everywhere here.
        """
        self._rate, self._burst = rate, burst
        self._left, self._at = burst, now

    def allows(self, now: float) -> bool:
        """Tell whether anything is left at `now`. What then comes may be more than that, and is charged afterwards."""
        self._refill(now)
        return self._left > 0

    def charge(self, amount: float) -> None:
        """Charge what there was."""
        self._left -= amount

    def take(self, now: float) -> bool:
        """Tell whether there may be one more at `now`, and charge it."""
        self._refill(now)
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def _refill(self, now: float) -> None:
        self._left = min(self._burst, self._left + self._rate * (now - self._at))
        self._at = now
