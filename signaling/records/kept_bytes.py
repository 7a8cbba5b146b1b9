"""The bytes that rooms keep because applications said so: their metadata, and the agents that are dispatched to them.

Who calls it: a room and its dispatches, before they keep something. Who may create rooms could otherwise fill the
memory with rooms that nobody joins.
"""

from collections import Counter

from signaling.errors import TooMuchKept
from signaling.held_bytes import HeldBytes, Holder
from signaling.limits import MAX_KEPT_BYTES, MAX_KEPT_BYTES_OF_A_ROOM, SMALL_KEPT_BYTES


class KeptBytes(HeldBytes):
    """What all rooms keep together, without the first `SMALL_KEPT_BYTES` of each."""

    def __init__(self, dropped: Counter[str]) -> None:
        """`dropped` counts what was refused, as `room_bytes`."""
        super().__init__()
        self.dropped = dropped


class KeptBytesOfRoom:
    """What one room keeps."""

    def __init__(self, everything: KeptBytes) -> None:
        """`everything` is the node's."""
        self._everything = everything
        self._holder = Holder(everything)

    def replace(self, before: int, after: int) -> None:
        """Keep `after` bytes in the place of `before` bytes.

        Raises:
            TooMuchKept: the room, or all rooms together, would keep too much. Fewer bytes are never refused.
        """
        size = self._holder.size - before + after
        too_many = after > before and size > MAX_KEPT_BYTES_OF_A_ROOM
        if too_many or not self._holder.resize(size, free=SMALL_KEPT_BYTES, most=MAX_KEPT_BYTES):
            self._everything.dropped["room_bytes"] += 1
            raise TooMuchKept

    def release(self) -> None:
        """Keep nothing any more."""
        self._holder.release()
