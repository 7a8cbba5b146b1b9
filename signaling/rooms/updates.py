"""Updates to a room about its participants: collected for a turn of the event loop, with a bound on bytes per second.

Who calls it: `Room`, for each change of a participant. An update has the participant's whole state, so the bound is on
how often it is sent and not on its size. Only the newest state is sent: several changes while an update waits become
one. A departure is told at once, and if the bound is reached, without texts and tracks.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator

from livekit.protocol.models import ParticipantInfo

from signaling.allowance import Allowance
from signaling.limits import (
    MAX_ROOM_UPDATE_BYTES_PER_S,
    MAX_UPDATE_BYTES,
    MAX_UPDATE_PARTICIPANTS,
    ROOM_UPDATE_BURST_BYTES,
)
from signaling.rooms.member import Member
from signaling.rooms.tracks import Publisher

Told = list[tuple[Member, ParticipantInfo]]
Tell = Callable[[Told], None]
INTERVAL_S = 1.0
"""The time between updates about participants who do not publish, in a large room."""


def without_texts(info: ParticipantInfo) -> ParticipantInfo:
    """Return a copy of `info` without metadata, attributes, tracks and data tracks."""
    short = ParticipantInfo()
    short.CopyFrom(info)
    short.ClearField("metadata")
    short.ClearField("attributes")
    short.ClearField("tracks")
    short.ClearField("data_tracks")
    return short


def batches(infos: list[ParticipantInfo]) -> Iterator[list[ParticipantInfo]]:
    """Split `infos` into messages, each with few participants and few bytes, or with one participant."""
    batch: list[ParticipantInfo] = []
    size = 0
    for info in infos:
        if batch and (len(batch) >= MAX_UPDATE_PARTICIPANTS or size + info.ByteSize() > MAX_UPDATE_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(info)
        size += info.ByteSize()
    if batch:
        yield batch


class Updates:
    """The changes of one room's participants of which the room was not told yet."""

    def __init__(self, clock: Callable[[], float], tell: Tell, dropped: Counter[str]) -> None:
        """`clock` gives seconds, monotonic. `tell` sends updates, in order. `dropped` counts those that had to wait."""
        self._clock = clock
        self._tell = tell
        self._dropped = dropped
        self._waiting: dict[str, Member] = {}
        self._allowance = Allowance(MAX_ROOM_UPDATE_BYTES_PER_S, ROOM_UPDATE_BURST_BYTES, clock())
        self._handle: asyncio.Handle | None = None
        self._late = False
        """An update waits for its allowance."""
        self._flushed_at = clock()

    def note(self, participant: Member, soon: bool) -> None:
        """Note a participant's change. `soon`: tell it in this turn of the event loop, else with the next updates."""
        self._waiting.pop(participant.sid, None)
        self._waiting[participant.sid] = participant
        if soon and self._handle is None:
            self._handle = asyncio.get_running_loop().call_soon(self.flush)

    def forget(self, participant: Member) -> None:
        """Forget a participant's changes that were not told yet."""
        self._waiting.pop(participant.sid, None)

    def waits(self, participant: Publisher) -> bool:
        """Tell whether a change of a participant was not told yet."""
        return participant.sid in self._waiting

    def tick(self, now: float) -> None:
        """Send updates that are due. This is called a few times a second."""
        if self._late or now - self._flushed_at >= INTERVAL_S:
            self.flush()

    def before_description(self) -> None:
        """Send now what would be sent in this turn, because a session description that depends on it is sent now."""
        if self._handle is not None:
            self.flush()

    def flush(self) -> None:
        """Send all updates whose allowance is not used up."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        now = self._flushed_at = self._clock()
        waiting, self._waiting = self._waiting, {}
        self._late = False
        told: Told = []
        for sid, participant in waiting.items():
            info, own = participant.info, participant.update_allowance
            allowed = own.allows(now) and self._allowance.allows(now)
            if not allowed and not participant.removed:
                self._waiting[sid] = participant
                self._late = True
                self._dropped["updates_delayed"] += 1
                continue
            if not allowed:
                info = without_texts(info)
            size = info.ByteSize()
            own.charge(size)
            self._allowance.charge(size)
            told.append((participant, info))
        self._tell(told)

    def close(self) -> None:
        """Drop everything that waits, because the room ends."""
        self._waiting.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
