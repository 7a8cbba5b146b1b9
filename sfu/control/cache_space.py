"""Which pieces of a media thread's arena hold packet caches."""

from sfu.schema.capacities import ARENA_BYTES, CACHE_BYTES, MAX_CACHE_BYTES, MIN_CACHE_BYTES
from sfu.schema.codes import MediaKind

SHARED_BYTES = ARENA_BYTES // 2
"""Packet caches of all transports together, up to which whoever sends more gets larger ones."""
CACHE_SHARE_BYTES = 16 << 20
"""Once all packet caches take more than SHARED_BYTES, those of one transport grow up to this: a camera and a screen in
all their layers, twice."""
GROWING_BYTES = ARENA_BYTES // 8 * 7
"""No packet cache grows once all together take more than this: the rest is for streams that begin."""


class CacheSpace:
    """Hands out pieces of the arena for packet caches, in powers of two; control thread only.

    A piece begins at a multiple of its size, so two free halves of a larger one are joined again.
    """

    def __init__(self) -> None:
        self._next = 0
        """Where what was never handed out begins, a multiple of the largest size."""
        self._free: dict[int, dict[int, None]] = {}
        """Offsets of free caches by size; the one that came back last is used first."""
        size = MIN_CACHE_BYTES
        while size <= MAX_CACHE_BYTES:
            self._free[size] = {}
            size *= 2
        self.used_bytes = 0

    @staticmethod
    def size_for(kind: int, layer: int, layer_count: int) -> int:
        """Bytes that one stream begins with: the highest layer of a video track gets most."""
        if kind != MediaKind.VIDEO:
            return CACHE_BYTES["audio"]
        return CACHE_BYTES[("high", "mid", "low")[min(layer_count - 1 - layer, 2)]]

    def take(self, size: int) -> int:
        """Offset of a free cache of exactly `size` bytes, or -1 when the arena is used up."""
        start = self._find(size)
        if start >= 0:
            self.used_bytes += size
        return start

    def _find(self, size: int) -> int:
        if self._free[size]:
            return self._free[size].popitem()[0]
        if size < MAX_CACHE_BYTES:
            larger = self._find(2 * size)
            if larger >= 0:
                self._free[size][larger + size] = None
            return larger
        if self._next + size > ARENA_BYTES:
            return -1
        start, self._next = self._next, self._next + size
        return start

    def give_back(self, start: int, size: int) -> None:
        """Take back a cache that `take(size)` gave."""
        self.used_bytes -= size
        while size < MAX_CACHE_BYTES and start ^ size in self._free[size]:
            del self._free[size][start ^ size]
            start &= ~size
            size *= 2
        self._free[size][start] = None

    def may_grow(self, size: int, in_use: int) -> bool:
        """Whether a stream may have a cache of `size` bytes, which is more than it has. in_use: bytes of all caches of
        its transport."""
        used = self.used_bytes + size
        return used <= SHARED_BYTES or (used <= GROWING_BYTES and in_use + size <= CACHE_SHARE_BYTES)
