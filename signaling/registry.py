"""All rooms of this process: it admits clients, passes the engine's events to participants, and keeps time.

Who calls it: the HTTP side (`admit`, `validate`) and the program's start and stop.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import reduce
from typing import assert_never

import structlog
from livekit.protocol import models
from livekit.protocol.models import ROOM_CLOSED, ROOM_DELETED, SERVER_SHUTDOWN
from livekit.protocol.rtc import LeaveRequest
from starlette.routing import BaseRoute

from sfu.engine import Engine
from sfu.events import (
    ChannelOpened,
    DataReceived,
    Event,
    LayersChanged,
    StreamStarted,
    SubscriptionPaused,
    SubscriptionStarted,
    TransportConnected,
    TransportFailed,
)
from sfu.parameters import Kind
from signaling.api.routes import api_routes
from signaling.api.statistics import Statistics
from signaling.config.configuration import Config, RoomOptions
from signaling.errors import TooManyRooms, TooMuchKept
from signaling.http.join import JoinError, JoinParameters
from signaling.metrics.numbers import Census
from signaling.participants.participant import Participant
from signaling.participants.session import REVOKED, ROOM_FULL, Session
from signaling.records.settings import RoomSettings, UnknownPreset, with_preset
from signaling.rooms import quality, room_log
from signaling.rooms.capacity import BEYOND_LIMITS, SERVER_FULL, Load, Needs
from signaling.rooms.node import Node
from signaling.rooms.quality import QUALITY_INTERVAL_S
from signaling.rooms.room import Room
from signaling.rooms.tracks import Publisher
from signaling.turn.service import TurnService
from signaling.webhooks.notifier import Webhooks
from signaling.whip.endpoint import routes as whip_routes
from signaling.whip.sessions import Sessions

TICK_S = 0.4
"""The time between ticks of rooms, which is the engine's window for audio levels. Other periods are multiples."""
NO_ROOM = "requested room does not exist"
"""The answer to a join that may not create its room. Clients know it, and do not try another route."""
MAX_ROOMS = 10_000
"""Rooms at a time. Those that nobody has joined yet count too, so refused upgrades cannot create more."""

log = structlog.get_logger("signaling.rooms")


class Rooms:
    """The registry of rooms."""

    def __init__(self, config: Config, engine: Engine, options: RoomOptions | None = None) -> None:
        """`options` are those of rooms that a join creates."""
        self.node = Node(config, engine)
        self.rooms: dict[str, Room] = {}
        self.node.capacity.count = self._needs
        self.node.events.subscribe(room_log.tell)
        self._webhooks = Webhooks(self.node)
        self._sessions = Sessions(self)
        self._load = Load(engine.totals, lambda: sum(len(room.tracks) for room in self.rooms.values()))
        self._options = options or config.room
        self._tasks: list[asyncio.Task[None]] = []
        self._quality_at = 0.0
        """When the qualities of connections were measured last, or the first of the present rooms was made."""

    @property
    def turn(self) -> TurnService:
        """The TURN server, of which participants are told."""
        return self.node.turn

    async def start(self) -> None:
        """Start the tasks that take the engine's events and keep time."""
        self._webhooks.prepare()
        self._tasks = [
            asyncio.create_task(self._pump(), name="engine-events"),
            asyncio.create_task(self._keep_time(), name="room-timer"),
        ]

    async def stop(self) -> None:
        """End all rooms, remove everybody and wait until their sockets are flushed and webhooks are posted."""
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
        await asyncio.gather(self.node.finish(), self._webhooks.stop())

    def renew(self, config: Config) -> None:
        """Use another configuration from now on: its keys, limits and webhooks. Options of rooms stay as they were."""
        self.node.config = config
        self._webhooks.prepare()

    def validate(self, join: JoinParameters) -> None:
        """Tell whether `admit` would succeed, without creating anything.

        Raises:
            JoinError: 401 when the token is revoked, 503 when the room or the server is full.
        """
        self._check_token(join)
        self._settings(join)
        self._check(join)

    def create(self, name: str, options: RoomOptions | None = None, settings: RoomSettings | None = None) -> Room:
        """Return the room of this name. A missing one is created, and ends after its empty timeout if nobody joins.

        Args:
            name: as tokens carry it.
            options: those of a new room; None: as for one that a join creates.
            settings: what is set of them changes the room, whether it is new or not. Agents are for a new one only.

        Raises:
            TooManyRooms: there are `MAX_ROOMS`.
            TooMuchKept: rooms keep too much metadata, or too many agents, already. Nothing is changed then.
            ValueError: the name is longer than the operator's limit.
        """
        room = self.rooms.get(name)
        if room is not None:
            if settings is not None:
                room.configure(settings)
            return room
        if not self.node.config.limits.hold_room_name(name):
            raise ValueError(f"a room's name has at most {self.node.config.limits.room_name_bytes} bytes")
        if len(self.rooms) >= MAX_ROOMS:
            raise TooManyRooms
        return self._make(name, options or self._options, settings)

    def list(self, names: Collection[str] = ()) -> Iterator[models.Room]:
        """Yield the descriptions of the rooms with these names, or of all, oldest first.

        Each is that of the moment when it is asked for. Rooms that have ended by then are left out.
        """
        wanted = [room for name, room in self.rooms.items() if not names or name in names]
        return (room.info for room in wanted if not room.closed)

    def close(self, name: str) -> bool:
        """End a room and remove everybody for good; return False if there is no room of this name.

        A client that was admitted and has not joined yet is told that the room was deleted.
        """
        room = self.rooms.get(name)
        if room is None:
            return False
        self._end(room, ROOM_DELETED, LeaveRequest.DISCONNECT)
        return True

    def routes(self) -> Sequence[BaseRoute]:
        """Return the routes of the server API, of statistics, and of WHIP and WHEP."""
        return [*api_routes(self), *Statistics(self).routes(), *whip_routes(self.node, self._sessions)]

    def _make(self, name: str, options: RoomOptions, settings: RoomSettings | None) -> Room:
        if not self.rooms:
            self._quality_at = self.node.clock()
        room = self.rooms[name] = Room(self.node, name, options, settings)
        return room

    def _end(self, room: Room, reason: models.DisconnectReason, action: LeaveRequest.Action) -> None:
        del self.rooms[room.name]
        room.close(reason, action)

    def _needs(self) -> Needs:
        return reduce(Needs.plus, (room.needs() for room in self.rooms.values()), Needs())

    def drops(self) -> dict[str, int]:
        """Return the number of clients' messages and requests dropped since the start, by reason."""
        return {**self.node.dropped, **self.node.turn.drops()}

    def census(self) -> Census:
        """Count rooms, participants, published tracks and calls of the server API."""
        tracks = Counter(track.kind for room in self.rooms.values() for track in room.tracks.values())
        participants = sum(len(room.participants) for room in self.rooms.values())
        return Census(len(self.rooms), participants, {kind: tracks[kind] for kind in Kind}, self.node.api_calls)

    def _check_token(self, join: JoinParameters) -> None:
        """Refuse a token that is older than the removal of its bearer.

        Raises:
            JoinError: 401.
        """
        if self.node.revocations.covers(join.room, join.claims.identity, join.claims.not_before):
            raise JoinError(401, REVOKED)

    def _settings(self, join: JoinParameters) -> RoomSettings | None:
        """Return what the token says about the room.

        Raises:
            JoinError: 400: it names a preset that is not configured.
        """
        try:
            return with_preset(join.room_config, join.claims.room_preset, self.node.config.room_presets)
        except UnknownPreset as error:
            raise JoinError(400, "unknown room configuration in the token") from error

    def _check(self, join: JoinParameters) -> Needs:
        """Return the rows of the engine's tables that the join will take.

        Raises:
            JoinError: 404: there is no such room, and a join may not create it; 503: the room or the server is full.
        """
        room = self.rooms.get(join.room)
        if room is None:
            if not self.node.config.auto_create and not join.video.room_create:
                raise JoinError(404, NO_ROOM)
            if len(self.rooms) >= MAX_ROOMS:
                raise JoinError(503, "too many rooms")
        elif room.is_full(join.claims.identity, join.is_person):
            raise JoinError(503, ROOM_FULL)
        if self._load.is_beyond(self.node.config.limits) and not (room and join.claims.identity in room.participants):
            self.node.dropped["joins_beyond_limits"] += 1
            raise JoinError(503, BEYOND_LIMITS)
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
        """Admit a client, or find the participant that it resumes. A missing room is created.

        Raises:
            JoinError: 401: the token is revoked; 503: the room or the server is full.
        """
        self._check_token(join)
        room = self.rooms.get(join.room)
        if join.reconnect:
            # A resume never creates anything; a participant that is gone is told over the socket to start again.
            member = room.participants.get(join.claims.identity) if room is not None else None
            resumable = isinstance(member, Participant) and member.settings.signals
            # Older SDKs name no sid. One that is named must still be that of this stay.
            if isinstance(member, Participant) and resumable and join.participant_sid in ("", member.sid):
                return Session(room, join, member)
            return Session(room, join, None)
        settings = self._settings(join)
        self.node.capacity.promise(self._check(join))
        try:
            if room is None:
                room = self._make(join.room, self._options, settings)
            elif settings is not None:
                room.configure(settings)
        except TooMuchKept as error:
            raise JoinError(503, "rooms keep too much") from error
        room.occupancy.expect(join.is_person)
        return Session(room, join, None)

    def tick(self, now: float) -> None:
        """Let all rooms do what is due at `now`, in seconds of the node's clock."""
        self._load.tick(now, self.node.config.limits)
        levels: dict[str, dict[str, float]] = {}
        for engine_track, level in self.node.engine.audio_levels():
            track = self.node.tracks.get(engine_track)
            if track is not None and not track.info.muted and not track.publisher.hidden:
                of_room = levels.setdefault(track.publisher.room_name, {})
                sid = track.publisher.sid
                of_room[sid] = max(level, of_room.get(sid, 0.0))
        if self.rooms and now - self._quality_at >= QUALITY_INTERVAL_S:
            self._quality_at = now
            self._report_quality()
        uses = self.node.engine.layer_uses()
        for room in tuple(self.rooms.values()):
            room.tick(now, levels.get(room.name, {}), uses)
            if room.is_over(now):
                self._end(room, ROOM_CLOSED, LeaveRequest.DISCONNECT)
        self._sessions.tick(now)
        self.node.turn.tick()

    def _report_quality(self) -> None:
        scores = quality.measure(self.node)
        for room in self.rooms.values():
            room.report_quality(scores)

    def handle(self, event: Event) -> None:
        """Pass an event of the engine to the participant that it concerns. It is ignored if that has left."""
        owner = self._owner(event)
        if owner is not None:
            owner.handle(event)

    def _owner(self, event: Event) -> Publisher | None:
        node = self.node
        match event:
            case TransportConnected() | TransportFailed() | DataReceived() | ChannelOpened():
                return node.participants.get(event.transport)
            case StreamStarted() | LayersChanged():
                track = node.tracks.get(event.track)
                return track.publisher if track is not None else None
            case SubscriptionStarted() | SubscriptionPaused():
                subscriber = node.subscribers.get(event.subscription)
                return subscriber[0] if subscriber is not None else None
        assert_never(event)

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
