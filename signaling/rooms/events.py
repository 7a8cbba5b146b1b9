"""What happens in rooms, told to whoever listens: the log, and whatever else reports about rooms.

Who calls it: rooms and participants emit; listeners subscribe to the node's `Events` before the first room. A listener
is called in the control thread, in the order in which things happened, and must return soon: what takes long it keeps
in a queue of its own. Rooms, participants and tracks in an event are the live ones: what is to be kept is copied.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog
from livekit.protocol import models
from livekit.protocol.models import DisconnectReason

from signaling.profile import ClientSettings
from signaling.rooms.member import Member
from signaling.rooms.tracks import Track

MAX_WAITING_EVENTS = 10_000
"""Events that listeners may cause by what they do while they are told of another. Of an endless chain the rest is
dropped, and counted as `room_events`."""

log = structlog.get_logger("signaling.events")


class EventRoom(Protocol):
    """The room of an event."""

    @property
    def name(self) -> str:
        """The name that tokens carry."""

    @property
    def info(self) -> models.Room:
        """What clients are told about the room."""


@dataclass(frozen=True, slots=True)
class RoomStarted:
    """A room was made, by a join or without one."""

    room: EventRoom


@dataclass(frozen=True, slots=True)
class RoomFinished:
    """A room ended; everybody has left."""

    room: EventRoom


@dataclass(frozen=True, slots=True)
class ParticipantJoined:
    """A participant is in the room; its media need not be connected."""

    room: EventRoom
    participant: Member
    client: ClientSettings


@dataclass(frozen=True, slots=True)
class ParticipantActive:
    """A participant's media is connected for the first time."""

    room: EventRoom
    participant: Member


@dataclass(frozen=True, slots=True)
class ParticipantLeft:
    """A participant that had joined is gone, and all its tracks have ended."""

    room: EventRoom
    participant: Member
    reason: DisconnectReason


@dataclass(frozen=True, slots=True)
class TrackPublished:
    """A track is negotiated, and others can subscribe to it."""

    room: EventRoom
    track: Track


@dataclass(frozen=True, slots=True)
class TrackUnpublished:
    """A published track has ended."""

    room: EventRoom
    track: Track


RoomEvent = (
    RoomStarted
    | RoomFinished
    | ParticipantJoined
    | ParticipantActive
    | ParticipantLeft
    | TrackPublished
    | TrackUnpublished
)
Listener = Callable[[RoomEvent], None]


class Events:
    """Brings what happens in the rooms of a process to everybody who listens."""

    def __init__(self, dropped: Counter[str]) -> None:
        """dropped: counts events that found no place."""
        self._dropped = dropped
        self._listeners: list[Listener] = []
        self._waiting: deque[RoomEvent] = deque()
        self._telling = False

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` with every event from now on. What it raises is logged, and costs nobody anything."""
        self._listeners.append(listener)

    def emit(self, event: RoomEvent) -> None:
        """Tell everybody, before this returns; what a listener causes is told when all have heard of its cause."""
        if len(self._waiting) >= MAX_WAITING_EVENTS:
            self._dropped["room_events"] += 1
            return
        self._waiting.append(event)
        if self._telling:
            return
        self._telling = True
        try:
            while self._waiting:
                self._tell(self._waiting.popleft())
        finally:
            self._telling = False

    def _tell(self, event: RoomEvent) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception:
                log.exception("a listener failed", room_event=type(event).__name__)
