"""What clients are told of a room itself: its settings, metadata, counts, and whether it is being recorded.

Who calls it: `Room`, which tells its members when something of it has changed.
"""

import time
from dataclasses import replace

from livekit.protocol import models

from signaling import identifiers
from signaling.config.configuration import RoomOptions
from signaling.config.media_options import playout_limits
from signaling.records.kept_bytes import KeptBytesOfRoom
from signaling.records.settings import RoomSettings
from signaling.rooms.headcount import Headcount
from signaling.rooms.member import Member
from signaling.rooms.tracks import enabled_codecs


class Description:
    """The description of one room."""

    def __init__(self, name: str, options: RoomOptions, headcount: Headcount, kept: KeptBytesOfRoom) -> None:
        """Describe a room that begins now.

        Args:
            name: the name that tokens carry.
            options: what the operator chose for rooms.
            headcount: counts who is in it.
            kept: counts the bytes of its metadata.
        """
        now = time.time()
        self.options = options
        """The operator's options, as far as `configure` did not change them."""
        self._headcount = headcount
        self._kept = kept
        self._counts = (0, 0)
        self._recorders: set[str] = set()
        """The sids of participants that record."""
        self._info = models.Room(
            sid=identifiers.room_sid(),
            name=name,
            creation_time=int(now),
            creation_time_ms=int(now * 1000),
            enabled_codecs=enabled_codecs(options.enabled_codecs),
        )
        self._note_options()

    @property
    def name(self) -> str:
        """The name that tokens carry."""
        return self._info.name

    @property
    def info(self) -> models.Room:
        """The description that clients are sent."""
        self._info.num_participants, self._info.num_publishers = self._headcount.count()
        return self._info

    def configure(self, settings: RoomSettings) -> bool:
        """Take over the settings that are set; return whether that concerns the members.

        Raises:
            TooMuchKept: rooms keep too much metadata already. Nothing is changed then.
        """
        metadata = settings.metadata or self._info.metadata
        self._keep_metadata(metadata)
        now, delays = self.options, (settings.min_playout_delay, settings.max_playout_delay)
        self.options = replace(
            now,
            playout_delay_ms=playout_limits(*delays) if any(delays) else now.playout_delay_ms,
            empty_timeout_s=settings.empty_timeout or now.empty_timeout_s,
            departure_timeout_s=settings.departure_timeout or now.departure_timeout_s,
            max_participants=settings.max_participants or now.max_participants,
            sync_streams=settings.sync_streams or now.sync_streams,
        )
        self._note_options()
        changed = metadata != self._info.metadata
        self._info.metadata = metadata
        return changed

    def set_metadata(self, metadata: str) -> None:
        """Set the room's metadata.

        Raises:
            TooMuchKept: rooms keep too much already. The metadata stay as they were.
        """
        self._keep_metadata(metadata)
        self._info.metadata = metadata

    def note_recorder(self, member: Member) -> bool:
        """Note whether a participant records; return whether a recording of the room begins or ends by that."""
        if member.records and not member.removed:
            self._recorders.add(member.sid)
        else:
            self._recorders.discard(member.sid)
        changed = self._info.active_recording != bool(self._recorders)
        self._info.active_recording = bool(self._recorders)
        return changed

    def counts_changed(self) -> bool:
        """Tell whether the counts of participants are others than when this was last asked."""
        before, self._counts = self._counts, self._headcount.count()
        return self._counts != before

    def _keep_metadata(self, metadata: str) -> None:
        self._kept.replace(len(self._info.metadata.encode()), len(metadata.encode()))

    def _note_options(self) -> None:
        self._info.empty_timeout = self.options.empty_timeout_s
        self._info.departure_timeout = self.options.departure_timeout_s
        self._info.max_participants = self.options.max_participants
