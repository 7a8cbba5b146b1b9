"""The SSRCs of one transport: the peer's and ours, all different, and ours never the same twice."""

import secrets
from collections.abc import Iterable

SSRC_BITS = 32
_MASK = (1 << SSRC_BITS) - 1


class Ssrcs:
    """Which are taken, and the next of ours.

    Ours are not drawn each for itself: one that came a second time under the same key, with sequence numbers that
    begin anew, would repeat indices that were used (RFC 3711 section 9.1). A random start and a random odd step
    (RFC 3550 section 8.1 asks for random ones) go through all 2^32 before the first comes again.
    """

    def __init__(self) -> None:
        """No SSRC is taken yet."""
        self.taken: set[int] = set()
        self._last = secrets.randbits(SSRC_BITS)
        self._step = secrets.randbits(SSRC_BITS) | 1

    def take(self) -> int:
        """Take an SSRC for us; it is not 0."""
        while True:
            self._last = (self._last + self._step) & _MASK
            if self._last and self._last not in self.taken:
                self.taken.add(self._last)
                return self._last

    def claim(self, announced: Iterable[int]) -> frozenset[int]:
        """Take those of the peer's SSRCs that are free, and return them."""
        free = frozenset(announced) - self.taken
        self.taken |= free
        return free

    def give_back(self, ssrcs: Iterable[int]) -> None:
        """Free SSRCs that are no longer in use."""
        self.taken.difference_update(ssrcs)
