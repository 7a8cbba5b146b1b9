"""What payload types and extension ids mean on a transport, handed to the media thread without a lock.

A transport has a few rows of `media` that take turns: the one in use and those on their way are never written.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from sfu.control.rows import Tables, check_media
from sfu.parameters import MediaParameters
from sfu.schema.capacities import MEDIA_PER_TRANSPORT


class MediaMaps:
    """The number maps of one transport row."""

    def __init__(self, tables: Tables, row: int, record: Any, send: Callable[[int], None]) -> None:
        """record: the transport's row. send: makes the media thread use the `media` row with this number."""
        self._tables = tables
        self._record = record
        self._send = send
        self._first = row * MEDIA_PER_TRANSPORT
        self._next = self._first + 1
        self._sent: deque[int] = deque()
        self._waiting: MediaParameters | None = None
        self._handed = MediaParameters()
        tables.write_media(self._first, self._handed)

    @property
    def newest(self) -> MediaParameters:
        """The parameters that were set last."""
        return self._waiting or self._handed

    def set(self, media: MediaParameters) -> None:
        """Use these from now on.

        Raises:
            EngineError: a number is out of range.
        """
        check_media(media)
        if media != self.newest:
            self._waiting = media
            self.settle()

    def settle(self) -> bool:
        """Hand over what waits, if there is a row for it. True: nothing waits any more."""
        if self._waiting is not None and self._has_free_row():
            self._handed, self._waiting = self._waiting, None
            self._tables.write_media(self._next, self._handed)
            self._send(self._next)
            self._sent.append(self._next)
            self._next = self._first + (self._next + 1 - self._first) % MEDIA_PER_TRANSPORT
        return self._waiting is None

    def _has_free_row(self) -> bool:
        """Whether the next row is neither in use nor on its way: the oldest one sent that is not passed is in use."""
        in_use = int(self._record["media"])
        if in_use in self._sent:
            while self._sent.popleft() != in_use:
                pass
        return len(self._sent) < MEDIA_PER_TRANSPORT - 1
