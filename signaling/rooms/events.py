"""Events of rooms, for the log and for whatever else reports about rooms.

Who calls it: rooms and participants emit events; listeners subscribe to the node's `Events` before the first room. A
listener is called in the control thread, in the order of the events, and must return soon; it queues what takes long.
The rooms, participants and tracks in an event go on changing, so a listener copies what it keeps.
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
"""Events that wait while listeners are told of another. More, which only an endless chain of listeners that cause
events can make, are dropped and counted as `room_events`."""

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
    """A room was created, by a join or without one."""

    room: EventRoom


@dataclass(frozen=True, slots=True)
class RoomFinished:
    """A room has ended, after everybody left."""

    room: EventRoom
    reason: DisconnectReason
    """What members were told, if there were any."""


@dataclass(frozen=True, slots=True)
class ParticipantJoined:
    """A participant has joined. Its media need not be connected yet."""

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
    """Distributes the events of all rooms to listeners."""

    def __init__(self, dropped: Counter[str]) -> None:
        """`dropped` counts events that were dropped."""
        self._dropped = dropped
        self._listeners: list[Listener] = []
        self._waiting: deque[RoomEvent] = deque()
        self._telling = False

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` with every event from now on. An exception of it is logged and has no other effect."""
        self._listeners.append(listener)

    def emit(self, event: RoomEvent) -> None:
        """Tell all listeners before this returns. An event that a listener causes comes after they know its cause."""
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
