"""The bytes that rooms keep because applications said so: their metadata, and the agents that are dispatched to them.

Who calls it: a room and its dispatches, before they keep something. Who may create rooms could otherwise fill the
memory with rooms that nobody joins.
"""

from collections import Counter

from signaling.errors import TooMuchKept
from signaling.limits import MAX_KEPT_BYTES, MAX_KEPT_BYTES_OF_A_ROOM, SMALL_KEPT_BYTES


class KeptBytes:
    """What all rooms keep together."""

    def __init__(self, dropped: Counter[str]) -> None:
        """`dropped` counts what was refused, as `room_bytes`."""
        self.dropped = dropped
        self.counted = 0
        """The bytes of all rooms, without the first `SMALL_KEPT_BYTES` of each."""


class KeptBytesOfRoom:
    """What one room keeps."""

    def __init__(self, everything: KeptBytes) -> None:
        """`everything` is the node's."""
        self._everything = everything
        self._bytes = 0

    def replace(self, before: int, after: int) -> None:
        """Keep `after` bytes in the place of `before` bytes.

        Raises:
            TooMuchKept: the room, or all rooms together, would keep too much. Fewer bytes are never refused.
        """
        wanted = self._bytes - before + after
        more = _counted(wanted) - _counted(self._bytes)
        too_much = wanted > MAX_KEPT_BYTES_OF_A_ROOM or self._everything.counted + more > MAX_KEPT_BYTES
        if after > before and more > 0 and too_much:
            self._everything.dropped["room_bytes"] += 1
            raise TooMuchKept
        self._bytes = wanted
        self._everything.counted += more

    def release(self) -> None:
        """Keep nothing any more."""
        self.replace(self._bytes, 0)


def _counted(size: int) -> int:
    return max(0, size - SMALL_KEPT_BYTES)
