"""Counts bytes that many hold together under one bound, where a small part of each is free.

So a few large ones keep nobody's ordinary ones out. Who calls it: what holds bodies and answers of the server API, and
what rooms keep.
"""


class HeldBytes:
    """The bytes that all holders have together."""

    def __init__(self) -> None:
        self.counted = 0
        """The bytes of all, without the free ones of each."""


class Holder:
    """What one of them holds."""

    def __init__(self, everything: HeldBytes) -> None:
        """`everything` is shared by all holders."""
        self._everything = everything
        self._counted = 0
        self.size = 0
        """Bytes that it holds."""

    def resize(self, size: int, *, free: int, most: int) -> bool:
        """Hold `size` bytes from now on; return False, and change nothing, if all together would have too many.

        Args:
            size: in bytes. Fewer than before are never refused.
            free: how many of them do not count.
            most: how many all holders may have together, without the free ones.
        """
        counted = max(0, size - free)
        more = counted - self._counted
        if more > 0 and self._everything.counted + more > most:
            return False
        self.size, self._counted = size, counted
        self._everything.counted += more
        return True

    def release(self) -> None:
        """Hold nothing any more."""
        self._everything.counted -= self._counted
        self.size = self._counted = 0
