"""All rooms of this process: the way in for clients, the engine's events on their way to participants, and the clock.

Who calls it: the HTTP side (`admit`, `validate`) and the program's start and stop.
"""

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, assert_never

import structlog
from livekit.protocol.models import SERVER_SHUTDOWN, STATE_MISMATCH
from livekit.protocol.rtc import LeaveRequest, SignalResponse, TrackSubscribed

from sfu.events import (
    ChannelOpened,
    DataReceived,
    Event,
    LayersChanged,
    StreamStarted,
    SubscriptionStarted,
    TransportConnected,
    TransportFailed,
)
from signaling.http.join import JoinError, JoinParameters
from signaling.rooms import data
from signaling.rooms.capacity import SERVER_FULL, Needs
from signaling.rooms.node import Node
from signaling.rooms.participant import Participant
from signaling.rooms.room import Room
from signaling.rooms.session import Session

if TYPE_CHECKING:
    from sfu.engine import Engine
    from signaling.config.configuration import Config, RoomOptions

TICK_S = 0.4
"""The engine's audio windows; everything else that is periodic is a multiple of it."""
MAX_ROOMS = 10_000
"""Rooms that nobody joined yet count too, so this bounds what refused upgrades can leave behind."""

log = structlog.get_logger("signaling.rooms")


class Rooms:
    """The registry of rooms."""

    def __init__(self, config: "Config", engine: "Engine", options: "RoomOptions | None" = None) -> None:
        """`options`: how rooms behave that a join creates."""
        self.node = Node(config, engine)
        self.rooms: dict[str, Room] = {}
        self.node.capacity.rooms = self.rooms.values
        self._options = options or config.room
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to take the engine's events and to keep time."""
        self._tasks = [
            asyncio.create_task(self._pump(), name="engine-events"),
            asyncio.create_task(self._keep_time(), name="room-timer"),
        ]

    async def stop(self) -> None:
        """Send everybody away and wait until their sockets are flushed."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks = []
        for room in self.rooms.values():
            # Whoever comes back finds the server that takes our place, or us again.
            room.close(SERVER_SHUTDOWN, LeaveRequest.RECONNECT)
        self.rooms.clear()
        await self.node.finish()

    def validate(self, join: JoinParameters) -> None:
        """Tell whether `admit` would succeed, without creating anything.

        Raises:
            JoinError: 503 when the room or the server is full.
        """
        self._check(join)

    def drops(self) -> dict[str, int]:
        """Messages and requests of clients that were dropped since the start, by reason."""
        return dict(self.node.dropped)

    def _check(self, join: JoinParameters) -> Needs:
        """As `validate`; returns what the join will take of the engine's tables."""
        room = self.rooms.get(join.room)
        if room is None:
            if len(self.rooms) >= MAX_ROOMS:
                raise JoinError(503, "too many rooms")
        elif room.is_full(join.claims.identity):
            raise JoinError(503, "room is full")
        transports = 1 if join.single_pc else 2
        if room is None:
            needs = Needs(transports=transports)
        else:
            takes_all = join.auto_subscribe and join.video.permission().can_subscribe
            needs = room.needs_of_join(join.claims.identity, transports, takes_all)
        if not self.node.capacity.has_room(needs):
            self.node.dropped["joins_beyond_capacity"] += 1
            raise JoinError(503, SERVER_FULL)
        return needs

    def admit(self, join: JoinParameters) -> Session:
        """Let a client in, or find the participant that it resumes. A missing room is created.

        Raises:
            JoinError: as `validate`.
        """
        room = self.rooms.get(join.room)
        if join.reconnect:
            # A resume never creates anything; a participant that is gone is told over the socket to start again.
            participant = room.participants.get(join.claims.identity) if room is not None else None
            # Older SDKs name no sid. One that is named must still be that of this stay.
            if participant is not None and join.participant_sid not in ("", participant.sid):
                participant = None
            return Session(room, join, participant)
        self.node.capacity.promise(self._check(join))
        if room is None:
            room = self.rooms[join.room] = Room(self.node, join.room, self._options)
            log.info("room created", room=room.name)
        room.expected += 1
        return Session(room, join, None)

    def tick(self, now: float) -> None:
        """Do what is due at `now`, in seconds of the node's clock."""
        levels: dict[str, dict[str, float]] = {}
        for receiver, level in self.node.engine.audio_levels():
            track = self.node.tracks.get(receiver)
            if track is not None and not track.info.muted and not track.publisher.hidden:
                of_room = levels.setdefault(track.publisher.room.name, {})
                sid = track.publisher.sid
                of_room[sid] = max(level, of_room.get(sid, 0.0))
        for room in tuple(self.rooms.values()):
            room.tick(now, levels.get(room.name, {}))
            if room.is_over(now):
                log.info("room ended", room=room.name)
                room.close(STATE_MISMATCH, LeaveRequest.RECONNECT)
                del self.rooms[room.name]

    def handle(self, event: Event) -> None:
        """Bring one event of the engine to the participant that it concerns; nobody's events are dropped."""
        participant = self._owner(event)
        if participant is not None:
            participant.share.note()
            participant.room.guard(participant, partial(self._deliver, event, participant))

    def _owner(self, event: Event) -> Participant | None:
        node = self.node
        match event:
            case TransportConnected() | TransportFailed() | DataReceived() | ChannelOpened():
                return node.participants.get(event.transport)
            case StreamStarted() | LayersChanged():
                track = node.tracks.get(event.receiver)
                return track.publisher if track is not None else None
            case SubscriptionStarted():
                subscriber = node.subscribers.get(event.subscription)
                return subscriber[0] if subscriber is not None else None
        assert_never(event)

    def _deliver(self, event: Event, participant: Participant) -> None:
        match event:
            case DataReceived():
                data.forward(participant, event)
            case TransportConnected():
                primary = event.transport == participant.renegotiation.transports[0]
                participant.room.transport_connected(participant, primary)
            case TransportFailed():
                participant.room.transport_failed(participant, event.reason)
            case StreamStarted():
                participant.publishing.stream_started(event)
            case SubscriptionStarted():
                self._heard(participant, event)
            case LayersChanged() | ChannelOpened():
                # The engine selects among live layers and queues until a channel opens; nobody has to be told.
                return
            case _:
                assert_never(event)

    def _heard(self, participant: Participant, event: SubscriptionStarted) -> None:
        track = participant.room.tracks.get(self.node.subscribers[event.subscription][1])
        if track is not None and not track.heard:
            track.heard = True
            track.publisher.send(SignalResponse(track_subscribed=TrackSubscribed(track_sid=track.sid)))

    async def _pump(self) -> None:
        while True:
            event = await self.node.engine.next_event()
            try:
                self.handle(event)
            except Exception:
                log.exception("engine event could not be handled", engine_event=type(event).__name__)

    async def _keep_time(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                self.tick(self.node.clock())
            except Exception:
                log.exception("periodic work failed")
