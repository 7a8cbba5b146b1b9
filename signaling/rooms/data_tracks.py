"""The data tracks of a room: streams of frames that participants publish, and others subscribe to, over data channels.

Each has one handle in its room, by which packets name it to all its subscribers. So a packet is written anew once, and
not for every subscriber. Who calls it: the data tracks of participants.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Protocol

from livekit.protocol.models import DataTrackInfo
from livekit.protocol.rtc import RequestResponse

from signaling.errors import RequestRefused
from signaling.limits import MAX_DATA_TRACKS_OF_A_ROOM
from signaling.rooms.member import Member
from signaling.rooms.tracks import DataTrack, Publisher

HANDLES = 1 << 16
"""Handles are numbers of two bytes, and 0 is none."""


class Around(Protocol):
    """The part of a room that its data tracks need."""

    def others(self, participant: Publisher) -> list[Member]:
        """Return all other participants, hidden ones included."""

    def guard(self, participant: Member, work: Callable[[], None]) -> None:
        """Run `work` for a participant. An exception removes that participant and nothing else."""


class DataTracksOfRoom:
    """All data tracks of one room."""

    def __init__(self, room: Around, dropped: Counter[str]) -> None:
        """`dropped` counts tracks beyond `MAX_DATA_TRACKS_OF_A_ROOM`, as `data_tracks`."""
        self._room = room
        self._dropped = dropped
        self.tracks: dict[str, DataTrack] = {}
        """The tracks by sid."""
        self._taken: set[int] = set()
        self._last_handle = 0

    def add(self, publisher: Member, info: DataTrackInfo) -> DataTrack:
        """Add a track, to which nobody is subscribed yet.

        Raises:
            RequestRefused: LIMIT_EXCEEDED.
        """
        if len(self.tracks) >= MAX_DATA_TRACKS_OF_A_ROOM:
            self._dropped["data_tracks"] += 1
            raise RequestRefused(RequestResponse.LIMIT_EXCEEDED, "the room has too many data tracks")
        track = self.tracks[info.sid] = DataTrack(publisher, info, self._take_handle())
        return track

    def remove(self, track: DataTrack) -> None:
        """End a track. Its publisher's own update tells the others."""
        del self.tracks[track.info.sid]
        self._taken.discard(track.handle)
        for other in self._room.others(track.publisher):
            self._room.guard(other, partial(other.data_tracks.forget, track))

    def consider(self, publisher: Member) -> None:
        """Subscribe others to a participant's tracks as they want and may, because that has changed."""
        for track in publisher.data_tracks.published.values():
            self._offer(track)

    def announced(self, publisher: Member) -> None:
        """Subscribe others to those of a participant's tracks of which they have just been told."""
        for track in publisher.data_tracks.published.values():
            if not track.announced:
                track.announced = True
                self._offer(track)

    def hide(self, publisher: Member) -> None:
        """Note that nobody knows a participant's tracks any more."""
        for track in publisher.data_tracks.published.values():
            track.announced = False

    def _offer(self, track: DataTrack) -> None:
        for other in self._room.others(track.publisher):
            self._room.guard(other, partial(other.data_tracks.consider, track))

    def _take_handle(self) -> int:
        """Take the next free handle after the last one, so that one is not used again soon after its track ended."""
        while True:
            self._last_handle = self._last_handle % (HANDLES - 1) + 1
            if self._last_handle not in self._taken:
                self._taken.add(self._last_handle)
                return self._last_handle
