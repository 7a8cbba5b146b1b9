"""The session of one WebSocket: join or resume, then requests until it ends. The participant outlives it.

A client without a WebSocket is admitted here as well, and then served by what admitted it.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import count

import structlog
from livekit.protocol.models import (
    ENABLED,
    JOIN_FAILURE,
    PARTICIPANT_REMOVED,
    ROOM_DELETED,
    STATE_MISMATCH,
    ClientConfiguration,
    ServerInfo,
)
from livekit.protocol.rtc import (
    JoinResponse,
    LeaveRequest,
    ParticipantUpdate,
    ReconnectResponse,
    RequestResponse,
    RoomUpdate,
    SignalRequest,
    SignalResponse,
)

from sfu.engine import EngineError
from signaling.errors import SessionEnded
from signaling.http.connection import CLOSE_NORMAL, BadMessage, SignalConnection
from signaling.http.join import JoinError, JoinParameters
from signaling.http.shares import ExcessiveUse
from signaling.limits import MAX_BAD_MESSAGES
from signaling.participants import handlers
from signaling.participants.participant import Participant
from signaling.participants.presence import PING_TIMEOUT_S
from signaling.participants.sockets import CLOSE_RECONNECT
from signaling.records.fallbacks import Way
from signaling.rooms.capacity import SERVER_FULL
from signaling.rooms.departures import RETOLD_S
from signaling.rooms.node import Node
from signaling.rooms.room import Room

PROTOCOL_VERSION = 17
"""The version of LiveKit's signalling protocol that is implemented here."""
COMPATIBLE_VERSION = "1.13.5"
"""The livekit-server whose behaviour clients may expect; they compare it to decide what to use."""
PING_INTERVAL_S = 5
REVOKED, ROOM_FULL = "the token was revoked", "room is full"
"""Why a join is refused."""

log = structlog.get_logger("signaling.session")


class Session:
    """A session, which `Rooms.admit` makes and the HTTP server runs."""

    def __init__(self, room: Room | None, join: JoinParameters, resumed: Participant | None) -> None:
        """`room` is None only for a resume that cannot succeed."""
        self._room = room
        self._join = join
        self._resumed = resumed
        self._expected = not join.reconnect

    def abandon(self) -> None:
        """Take back the admission, because the upgrade did not happen."""
        if self._expected and self._room is not None:
            self._expected = False
            self._room.occupancy.arrive(self._join.is_person)

    async def run(self, connection: SignalConnection) -> None:
        """Serve the client until its socket ends. Whatever it sends, this returns."""
        room = self._room
        if room is not None:
            try:
                await self._wait(room.node)
            except ExcessiveUse:
                await _refuse(connection, LeaveRequest(reason=STATE_MISMATCH, action=LeaveRequest.DISCONNECT))
                return
        self.abandon()
        participant = self._resumed
        if room is not None:
            room.node.shares.note()
        if self._join.reconnect:
            if room is None or participant is None or participant.removed or participant.expires_at is not None:
                await _refuse(connection, LeaveRequest(reason=STATE_MISMATCH, action=LeaveRequest.RECONNECT))
                return
            resumed = participant
            began = room.node.clock()
            room.guard(resumed, partial(_resume, resumed, self._join, connection))
            room.node.entrances.charge(resumed.who, room.node.clock() - began)
            if resumed.disconnect_on_resume:
                resumed.disconnect_on_resume = False
                room.node.spawn(connection.close(CLOSE_RECONNECT))
        else:
            assert room is not None, "only a resume comes without a room"
            if self._is_revoked(room):
                await _refuse(connection, LeaveRequest(reason=PARTICIPANT_REMOVED, action=LeaveRequest.DISCONNECT))
                return
            if room.closed:
                await _refuse(connection, LeaveRequest(reason=ROOM_DELETED, action=LeaveRequest.DISCONNECT))
                return
            began = room.node.clock()
            participant = _join(room, self._join, connection)
            room.node.entrances.charge(self._join.claims.who, room.node.clock() - began)
            if participant is None:
                await _refuse(connection, LeaveRequest(reason=JOIN_FAILURE, action=LeaveRequest.DISCONNECT))
                return
        try:
            await _serve(participant, connection)
        finally:
            participant.socket_ended(connection)

    async def enter(self) -> Participant:
        """Make the participant of a client that has no socket. It is not yet a member of its room, and pays for itself.

        Raises:
            JoinError: 401: the token was revoked while the client waited; 429: the client joins too often; 503: the
                room or the server is full, or the room was closed.
        """
        room, join = self._room, self._join
        assert room is not None, "only a resume comes without a room"
        try:
            await self._wait(room.node)
        except ExcessiveUse as error:
            raise JoinError(429, "too many joins") from error
        self.abandon()
        room.node.shares.note()
        if self._is_revoked(room):
            raise JoinError(401, REVOKED)
        if room.closed:
            raise JoinError(503, "the room was closed")
        if room.is_full(join.claims.identity, join.is_person):
            raise JoinError(503, ROOM_FULL)
        began = room.node.clock()
        try:
            return Participant(room.node, room, join.profile, replace(join.settings, signals=False), join.claims)
        except EngineError as error:
            raise JoinError(503, SERVER_FULL) from error
        finally:
            room.node.entrances.charge(join.claims.who, room.node.clock() - began)

    async def _wait(self, node: Node) -> None:
        """Let a client that joins again and again wait.

        Raises:
            ExcessiveUse: that would take too long. It is counted.
        """
        try:
            await node.entrances.wait(self._join.claims.who)
        except BaseException as error:
            self.abandon()
            if isinstance(error, ExcessiveUse):
                node.dropped["entrances_beyond_their_share"] += 1
            raise

    def _is_revoked(self, room: Room) -> bool:
        """Tell whether the token was revoked after the admission, while this client waited."""
        claims = self._join.claims
        return room.node.revocations.covers(room.name, claims.identity, claims.not_before)


async def _serve(participant: Participant, connection: SignalConnection) -> None:
    """Handle the client's requests until the socket ends. Only who closes it chooses the close code."""
    handle, reject = partial(_handle, participant, connection), partial(_reject, participant, connection, count(1))
    while True:
        try:
            await connection.serve(handle, reject, participant.share)
        except ExcessiveUse:
            if participant.sockets.has(connection):
                participant.node.dropped["clients_beyond_their_share"] += 1
                log.warning("client wants too much of the server for too long", identity=participant.identity)
                participant.room.remove(participant, STATE_MISMATCH)
        else:
            return


def _handle(participant: Participant, connection: SignalConnection, request: SignalRequest) -> None:
    if participant.presence.note_message(connection):
        participant.room.guard(participant, partial(handlers.dispatch, participant, request))


def _reject(participant: Participant, connection: SignalConnection, counter: Iterator[int], what: BadMessage) -> None:
    bad = next(counter)
    if not participant.sockets.has(connection):
        return
    participant.node.dropped["malformed_messages"] += 1
    connection.send(
        SignalResponse(request_response=RequestResponse(reason=RequestResponse.INVALID_REQUEST, message=str(what)))
    )
    if bad >= MAX_BAD_MESSAGES:
        log.info("too many malformed messages", identity=participant.identity)
        participant.room.remove(participant, STATE_MISMATCH)


async def _refuse(connection: SignalConnection, leave: LeaveRequest) -> None:
    leave.can_reconnect = leave.action != LeaveRequest.DISCONNECT
    connection.send(SignalResponse(leave=leave))
    await connection.close(CLOSE_RECONNECT if leave.can_reconnect else CLOSE_NORMAL)


def _join(room: Room, join: JoinParameters, connection: SignalConnection) -> Participant | None:
    """Make the participant and send the messages that answer a join; None if the room or the engine is full."""
    try:
        if room.is_full(join.claims.identity, join.is_person):
            raise JoinError(503, ROOM_FULL)
        participant = Participant(room.node, room, join.profile, join.settings, join.claims)
    except Exception:
        log.exception("join failed", room=room.name, identity=join.claims.identity)
        return None
    room.add(participant)
    participant.presence.attach(connection)
    room.guard(participant, partial(_answer_join, participant, join))
    return participant


def _answer_join(participant: Participant, join: JoinParameters) -> None:
    room = participant.room
    participant.send(SignalResponse(join=_join_response(participant)))
    participant.set_joined()
    for request in join.add_track_requests:
        handlers.answer(participant, "add_track", request)
    # Tracks that are here already go into the first answer or offer.
    room.subscribe_all(participant)
    if join.publisher_offer is not None:
        participant.renegotiation.answer(join.publisher_offer)
    participant.renegotiation.start()
    participant.token.send()
    room.tell_speakers(participant, since=participant.joined_at)


def _resume(participant: Participant, join: JoinParameters, connection: SignalConnection) -> None:
    last_message_at = participant.presence.last_message_at
    missed = participant.room.departures_since(last_message_at)
    participant.presence.attach(connection)
    if missed is None:
        raise SessionEnded(STATE_MISMATCH, LeaveRequest.RECONNECT, "too much happened while the client was away")
    reconnect = ReconnectResponse(
        ice_servers=participant.node.ice_servers(participant.sid),
        client_configuration=_client_configuration(participant),
        server_info=_server_info(participant.node),
        last_message_seq=participant.last_sequence,
    )
    connection.send(SignalResponse(reconnect=reconnect))
    participant.set_claims(join.claims, join.video.permission())
    participant.publishing.repeat_mutes()
    participant.room.tell_speakers(participant, since=last_message_at - RETOLD_S)
    everybody = [*missed, *participant.room.visible_to(participant), participant.info]
    connection.send(SignalResponse(update=ParticipantUpdate(participants=everybody)))
    connection.send(SignalResponse(room_update=RoomUpdate(room=participant.room.info)))
    participant.token.send()
    if join.sync_state is not None:
        handlers.answer(participant, "sync_state", join.sync_state)
    participant.renegotiation.resume()
    if join.publisher_offer is not None:
        participant.renegotiation.answer(join.publisher_offer)
    participant.room.repeat_to(participant)


def _join_response(participant: Participant) -> JoinResponse:
    room = participant.room
    return JoinResponse(
        room=room.info,
        participant=participant.info,
        other_participants=room.visible_to(participant),
        server_version=COMPATIBLE_VERSION,
        server_info=_server_info(participant.node),
        ice_servers=participant.node.ice_servers(participant.sid),
        client_configuration=_client_configuration(participant),
        subscriber_primary=participant.subscriber_primary,
        ping_interval=PING_INTERVAL_S,
        ping_timeout=int(PING_TIMEOUT_S),
        enabled_publish_codecs=room.info.enabled_codecs,
        # The client may offer what it publishes before it was asked to.
        fast_publish=participant.permission.can_publish,
    )


def _client_configuration(participant: Participant) -> ClientConfiguration | None:
    return ClientConfiguration(force_relay=ENABLED) if participant.way is Way.RELAY else None


def _server_info(node: Node) -> ServerInfo:
    return ServerInfo(
        edition=ServerInfo.Standard,
        version=COMPATIBLE_VERSION,
        protocol=PROTOCOL_VERSION,
        node_id=node.id,
        region=node.config.region,
    )
