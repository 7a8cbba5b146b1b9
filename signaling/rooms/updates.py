"""What a room is told of its participants: gathered for a turn of the event loop, and so many bytes a second.

Who calls it: `Room`, for each change of a participant. A change sends everything that is known of the participant to
everybody, so what is bounded is how often that happens, never how large it may be. Only the newest state counts: what
changes while it waits is told once. A departure is told at once, if need be without what nobody needs of who has left.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator

from livekit.protocol.models import ParticipantInfo

from signaling.limits import (
    MAX_ROOM_UPDATE_BYTES_PER_S,
    MAX_UPDATE_BYTES,
    MAX_UPDATE_PARTICIPANTS,
    ROOM_UPDATE_BURST_BYTES,
)
from signaling.rooms.allowance import Allowance
from signaling.rooms.member import Member
from signaling.rooms.tracks import Publisher

Told = list[tuple[Member, ParticipantInfo]]
Tell = Callable[[Told], None]
INTERVAL_S = 1.0
"""Between updates about participants who only watch, in a large room."""


def without_texts(info: ParticipantInfo) -> ParticipantInfo:
    """Who it is and how it is, without what it says about itself and what it published."""
    short = ParticipantInfo()
    short.CopyFrom(info)
    short.ClearField("metadata")
    short.ClearField("attributes")
    short.ClearField("tracks")
    return short


def batches(infos: list[ParticipantInfo]) -> Iterator[list[ParticipantInfo]]:
    """What goes into one message: few enough participants, and not many bytes unless it is one."""
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
    """The changes of one room's participants that were not told yet."""

    def __init__(self, clock: Callable[[], float], tell: Tell, dropped: Counter[str]) -> None:
        """clock: seconds, monotonic. tell: sends what is due, in order. dropped: counts what had to wait."""
        self._clock = clock
        self._tell = tell
        self._dropped = dropped
        self._waiting: dict[str, Member] = {}
        self._allowance = Allowance(MAX_ROOM_UPDATE_BYTES_PER_S, ROOM_UPDATE_BURST_BYTES, clock())
        self._handle: asyncio.Handle | None = None
        self._late = False
        """Something waits for its allowance."""
        self._flushed_at = clock()

    def note(self, participant: Member, soon: bool) -> None:
        """Something of a participant changed. soon: it is told in this turn of the event loop, else with the others."""
        self._waiting.pop(participant.sid, None)
        self._waiting[participant.sid] = participant
        if soon and self._handle is None:
            self._handle = asyncio.get_running_loop().call_soon(self.flush)

    def forget(self, participant: Member) -> None:
        """Nobody has to be told of a participant's changes any more."""
        self._waiting.pop(participant.sid, None)

    def waits(self, participant: Publisher) -> bool:
        """Whether something of a participant was not told yet."""
        return participant.sid in self._waiting

    def tick(self, now: float) -> None:
        """Tell what is due; called some times a second."""
        if self._late or now - self._flushed_at >= INTERVAL_S:
            self.flush()

    def before_description(self) -> None:
        """Tell at once what would be told in this turn: a session description that depends on it goes out now."""
        if self._handle is not None:
            self.flush()

    def flush(self) -> None:
        """Tell everything whose allowance is not used up."""
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
        """The room ends."""
        self._waiting.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
