"""One participant of a room: its identity, its description for others, and its parts.

A participant outlives its WebSocket: sockets come and go while the media transports go on.
"""

from contextlib import ExitStack
from functools import partial
from typing import assert_never

import structlog
from livekit.protocol.models import (
    CLIENT_INITIATED,
    CONNECTION_TIMEOUT,
    JOIN_FAILURE,
    SIGNAL_CLOSE,
    STATE_MISMATCH,
    DisconnectReason,
    ParticipantInfo,
    ParticipantPermission,
)
from livekit.protocol.rtc import (
    LeaveRequest,
    ParticipantUpdate,
    RequestResponse,
    SignalResponse,
    SyncState,
)

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
from signaling import identifiers
from signaling.allowance import Allowance
from signaling.errors import RequestRefused, SessionEnded
from signaling.http.connection import CLOSE_NORMAL, Broadcast, SignalConnection
from signaling.http.shares import Share
from signaling.http.tokens import Claims
from signaling.limits import MAX_UPDATE_BYTES_PER_S, UPDATE_BURST_BYTES
from signaling.participants import data
from signaling.participants.data_blobs import DataBlobs
from signaling.participants.data_tracks import DataTracks
from signaling.participants.description import describe, set_texts
from signaling.participants.offered_once import OfferedOnce
from signaling.participants.presence import Presence
from signaling.participants.publishing import Publishing
from signaling.participants.renegotiation import DualConnection, Renegotiation, SingleConnection
from signaling.participants.sockets import CLOSE_RECONNECT, Sockets
from signaling.participants.subscriptions import Subscriptions
from signaling.participants.token_refresh import TokenRefresh
from signaling.profile import ClientSettings, Profile
from signaling.rooms.access import SubscriptionAccess
from signaling.rooms.capacity import Needs
from signaling.rooms.events import ParticipantActive, ParticipantJoined
from signaling.rooms.node import Node
from signaling.rooms.room import Room

JOIN_TIMEOUT_S = 60.0
"""The time in which media must connect after the join, as in livekit-server."""
CLOSED_BY_PEER = "closed by peer"
"""The engine's reason when the client ended DTLS in order."""
FIRST_PROTOCOL_WITH_LEAVE_ACTION = 13
"""Older clients read `can_reconnect` instead of `action`."""
FIRST_PROTOCOL_WITH_SUBSCRIBER_PRIMARY = 3

log = structlog.get_logger("signaling.participant")


class Participant:
    """One participant. A session makes it when a client joins; `Room.remove` ends it."""

    def __init__(
        self,
        node: Node,
        room: Room,
        profile: Profile,
        settings: ClientSettings | None = None,
        claims: Claims | None = None,
    ) -> None:
        """Open the media transports.

        Args:
            node: what all rooms share.
            room: its room, which it enters by `Room.add`.
            profile: who it is.
            settings: how its client takes part.
            claims: those of its token; None if it has no token to refresh.

        Raises:
            EngineError: the engine is full.
        """
        self.node = node
        self.room = room
        self.claims = claims
        self.settings = settings or ClientSettings()
        self.client = self.settings.info
        self.permission: ParticipantPermission = profile.permission
        self._permission_is_ours = False
        """The server API set it."""
        self.access = SubscriptionAccess()
        self.sockets = Sockets(node.spawn)
        self.share = Share(node.shares)
        """The share of the control thread that its requests may use."""
        self.joined = False
        """The client has its join response, before which it understands nothing else."""
        self.removed = False

        self._info = describe(profile, self.client)
        self._stale = False
        self._alias = ""
        """The sid that stands for a hidden participant, once one is needed."""

        # Times of the node's clock, in seconds.
        self.joined_at = node.clock()
        self.update_allowance = Allowance(MAX_UPDATE_BYTES_PER_S, UPDATE_BURST_BYTES, self.joined_at)
        """Bounds the bytes that the room is told of it."""
        self._own_allowance = Allowance(MAX_UPDATE_BYTES_PER_S, UPDATE_BURST_BYTES, self.joined_at)
        """Bounds the bytes that it is told of itself at once."""
        self._told_version = 0
        """The version of `info` that it was told of itself at once."""
        self.presence = Presence(node, self.sockets)
        """Whether its client is still there."""

        # Media.
        self.last_sequence = 0
        """The number of its last reliable data packet; 0: none had one yet."""
        self.active = False
        """Media has been connected once."""
        self.disconnect_on_resume = False
        """A simulated fault: the next resumed socket is closed at once."""
        self.allow_pause = self.settings.may_pause(node.config.media.allow_pause)
        """Whether the videos that it receives may be paused for lack of bandwidth."""
        self.way = node.fallbacks.way(room.name, self.identity)
        self.path_memory = node.paths.recall(room.name, self.identity, room.participants.get(self.identity))
        self.subscriber_primary = (
            not self.settings.single_pc
            and self.client.protocol >= FIRST_PROTOCOL_WITH_SUBSCRIBER_PRIMARY
            and self.permission.can_subscribe
        )
        self.token = TokenRefresh(self, self._info)
        self.publishing = Publishing(self)
        self.subscriptions = Subscriptions(self, self.settings.auto_subscribe, self.settings.adaptive_stream)
        self.data_tracks = DataTracks(self, self.settings.auto_subscribe_data)
        self.data_blobs = DataBlobs(node)
        self.renegotiation: Renegotiation = _negotiation(self.settings)(self, self.publishing, self.subscriptions)
        self.data_transport = self.renegotiation.data_transport
        """The transport over which data packets for it go."""
        for transport in self.renegotiation.transports:
            node.participants[transport] = self
        node.turn.admit(self.sid, room.name, self.who)

    @property
    def sid(self) -> str:
        """The sid, which is new for each stay in a room."""
        return self._info.sid

    @property
    def identity(self) -> str:
        """The identity in the token, which stays the same after a full reconnect."""
        return self._info.identity

    @property
    def state(self) -> ParticipantInfo.State:
        """JOINING, JOINED, ACTIVE or DISCONNECTED."""
        return self._info.state

    @property
    def kind(self) -> ParticipantInfo.Kind:
        """Whether it is a person's client, an agent, or another kind."""
        return self._info.kind

    @property
    def records(self) -> bool:
        """Whether it is a recorder, so that the room is being recorded."""
        return self.permission.recorder or self.kind == ParticipantInfo.EGRESS

    @property
    def connection(self) -> SignalConnection | None:
        """The WebSocket of its client; None while it has none."""
        return self.sockets.current

    @property
    def expires_at(self) -> float | None:
        """When it is removed because its media failed, in seconds of the node's clock; None: they have not."""
        return self.presence.expires_at

    @property
    def who(self) -> tuple[str, str]:
        """The API key and identity to which its joins are charged. Without a token the API key is empty."""
        return self.claims.who if self.claims is not None else ("", self.identity)

    @property
    def room_name(self) -> str:
        """The name of its room."""
        return self.room.name

    @property
    def hidden(self) -> bool:
        """Whether it is hidden, so that others are not told of it."""
        return self.permission.hidden

    @property
    def public_sid(self) -> str:
        """The sid that SDP and RTCP give for its media. While it is hidden, this is a sid that nobody has."""
        if not self.hidden:
            return self.sid
        self._alias = self._alias or identifiers.participant_sid()
        return self._alias

    @property
    def info(self) -> ParticipantInfo:
        """The description that clients are sent. Callers must not change it."""
        if self._stale:
            self._stale = False
            del self._info.tracks[:]
            self._info.tracks.extend(track.info for track in self.publishing.tracks.values() if track.announced)
            del self._info.data_tracks[:]
            self._info.data_tracks.extend(track.info for track in self.data_tracks.published.values())
            self._info.is_publisher |= bool(self._info.tracks or self._info.data_tracks)
            self._info.version += 1
        return self._info

    @property
    def knows_itself(self) -> bool:
        """Whether the client was already told the newest state of its own participant."""
        return not self._stale and self._told_version == self._info.version

    def needs(self, tracks: int) -> Needs:
        """Return the rows of the engine's tables that it has or wants, in a room with `tracks` tracks."""
        mine = self.subscriptions
        wanted = tracks - self.publishing.count if mine.takes_all else len(mine.active)
        transports = len(self.renegotiation.transports)
        return self.publishing.needs()._replace(transports=transports, subscriptions=wanted)

    def send(self, response: SignalResponse | Broadcast) -> None:
        """Send to the client if it has a socket now."""
        self.sockets.send(response)

    def changed(self) -> None:
        """Note that `info` or a track changed: `info` gets a new version, and the room is told."""
        self._stale = True
        self.room.participant_changed(self)

    def set_state(self, state: ParticipantInfo.State) -> None:
        """Enter a state and tell the room."""
        self._info.state = state
        self.changed()

    def set_joined(self) -> None:
        """Note that the client has its join response, and tell the others."""
        self.joined = True
        self.set_state(ParticipantInfo.JOINED)
        self.node.events.emit(ParticipantJoined(self.room, self, self.settings))

    def set_disconnected(self, reason: DisconnectReason) -> None:
        """Enter the state DISCONNECTED, without telling anybody."""
        self.removed = True
        self._stale = True
        self._info.state = ParticipantInfo.DISCONNECTED
        self._info.disconnect_reason = reason

    # What it, or somebody on its behalf, requests.

    def update(
        self, name: str, metadata: str, attributes: dict[str, str], permission: ParticipantPermission | None = None
    ) -> None:
        """Change name, metadata and attributes. Empty texts change nothing; empty attributes are deleted.

        A permission replaces all of the former one, and holds until the participant leaves, whatever the token of a
        resume says.

        Raises:
            RequestRefused: LIMIT_EXCEEDED; nothing was changed.
        """
        set_texts(self._info, name, metadata, attributes, self.node.config.limits)
        if permission is not None:
            self._permit(permission)
            self._permission_is_ours = True
        self._stale = True
        self.room.participant_changed(self, at_once=permission is not None)
        self._tell_itself()
        self.token.renew()

    def update_itself(self, name: str, metadata: str, attributes: dict[str, str]) -> None:
        """Do what `update` does, if the participant may change itself.

        Raises:
            RequestRefused: NOT_ALLOWED or LIMIT_EXCEEDED; nothing was changed.
        """
        if not self.permission.can_update_metadata:
            raise RequestRefused(RequestResponse.NOT_ALLOWED, "the token does not allow updating own metadata")
        self.update(name, metadata, attributes)

    def set_access(self, access: SubscriptionAccess) -> None:
        """Set who may subscribe to what it publishes."""
        self.access = access
        self.room.access_changed(self)

    def synchronize(self, state: SyncState) -> None:
        """Take over the state that a resuming client has.

        Raises:
            SessionEnded: it publishes tracks that are not known here, so it has to start again.
            RequestRefused: it has chosen too many tracks.
        """
        known = self.publishing.tracks.keys() | self.publishing.pending.keys()
        unknown = [entry.track.sid for entry in state.publish_tracks if entry.track.sid not in known]
        known_data = {track.info.sid for track in self.data_tracks.published.values()}
        unknown += [entry.info.sid for entry in state.publish_data_tracks if entry.info.sid not in known_data]
        if unknown:
            raise SessionEnded(STATE_MISMATCH, LeaveRequest.RECONNECT, f"client publishes unknown tracks {unknown[:5]}")
        if state.HasField("subscription"):
            self.subscriptions.update(state.subscription)
        self.data_tracks.update(state.data_subscription)
        self.subscriptions.disable(state.track_sids_disabled)

    def leave_room(self) -> None:
        """Leave the room on the client's request."""
        self.room.remove(self, CLIENT_INITIATED)

    def _tell_itself(self) -> None:
        """Send the participant its own new state, before the answer to the request that changed it.

        LiveKit's Rust client sends name and metadata, as far as it knows them, with each change of something else. If
        it got the answer before its new name, it would set the old name again.
        """
        if not self._own_allowance.allows(self.node.clock()):
            self.node.dropped["own_updates_delayed"] += 1
            return
        self._own_allowance.charge(self.info.ByteSize())
        self._told_version = self.info.version
        self.send(SignalResponse(update=ParticipantUpdate(participants=[self.info])))

    def set_claims(self, claims: Claims, permission: ParticipantPermission) -> None:
        """Take over the token of a resumed session, and end what it no longer allows."""
        self.claims = claims
        if not self._permission_is_ours:
            self._permit(permission)

    def _permit(self, permission: ParticipantPermission) -> None:
        """Replace the permission: end what it no longer allows, and subscribe to what it allows again."""
        if permission == self.permission:
            return
        was_hidden = self.hidden
        self.permission = ParticipantPermission()
        self.permission.CopyFrom(permission)
        self._info.permission.CopyFrom(permission)
        self.publishing.revoke_forbidden()
        self.data_tracks.revoke_forbidden()
        if permission.hidden and not was_hidden:
            self.room.participant_hidden(self)
        self.changed()
        self.room.subscribe_all(self)
        self.room.data_tracks.consider(self)

    # What happens to it.

    def handle(self, event: Event) -> None:
        """Take what the engine tells of its transports, tracks and subscriptions."""
        self.share.note()
        self.room.guard(self, partial(self._deliver, event))

    def _deliver(self, event: Event) -> None:
        match event:
            case DataReceived():
                data.forward(self, event)
            case TransportConnected():
                if event.transport == self.renegotiation.transports[0]:
                    self._media_connected()
            case TransportFailed():
                self._transport_failed(event.reason)
            case StreamStarted():
                self.publishing.stream_started(event)
            case SubscriptionStarted():
                self.subscriptions.started(event)
            case SubscriptionPaused():
                self.subscriptions.paused(event)
            case LayersChanged() | ChannelOpened():
                # The engine selects among live layers and queues until a channel opens; nobody has to be told.
                return
            case _:
                assert_never(event)

    def _media_connected(self) -> None:
        if not self.active:
            self.active = True
            self.set_state(ParticipantInfo.ACTIVE)
            self.node.events.emit(ParticipantActive(self.room, self))

    def _transport_failed(self, reason: str) -> None:
        """React to the loss of a transport.

        A client that still sends messages is told to reconnect. One that is silent is removed. One that closed the
        transport itself is about to send `leave` or to close its socket. It has some time for that, and must not be
        told to reconnect.
        """
        closes = reason == CLOSED_BY_PEER
        if closes:
            # An ordinary goodbye of native clients, which must not read like a fault.
            log.info("transport closed", room=self.room.name, identity=self.identity)
        else:
            log.info("transport failed", room=self.room.name, identity=self.identity, reason=reason)
        if self.connection is None:
            self.room.remove(self, SIGNAL_CLOSE if closes else CONNECTION_TIMEOUT, LeaveRequest.RECONNECT)
        elif closes:
            self.presence.expire_soon()
        elif self.presence.is_silent:
            self.room.remove(self, CONNECTION_TIMEOUT, LeaveRequest.RECONNECT)
        else:
            self.presence.expire_soon()
            self.node.fallbacks.failed(self)
            self.leave(CONNECTION_TIMEOUT, LeaveRequest.RECONNECT)

    def socket_ended(self, connection: SignalConnection) -> None:
        """Note that a socket ended without a `leave`. Media may go on, and the client may resume."""
        if not self.presence.note_end(connection):
            return
        if self.connection is None and (not self.active or self.expires_at is not None):
            self.room.remove(self, SIGNAL_CLOSE)

    def tick(self, now: float) -> None:
        """Check its timeouts. `now` is the node's clock, in seconds.

        Raises:
            SessionEnded: one has passed.
        """
        if self.expires_at is not None and now >= self.expires_at:
            self.room.remove(self, CONNECTION_TIMEOUT, LeaveRequest.RECONNECT)
            return
        if not self.active and now - self.joined_at > JOIN_TIMEOUT_S:
            raise SessionEnded(JOIN_FAILURE, LeaveRequest.DISCONNECT, "media did not connect in time")
        if self.connection is not None:
            self.presence.tick(now)
            self.token.tick(now)
        self.data_tracks.tick()
        self.renegotiation.tick(now)

    def leave(self, reason: DisconnectReason, action: LeaveRequest.Action) -> None:
        """Send `leave` and close the socket, with a code that fits the action."""
        again = action != LeaveRequest.DISCONNECT
        leave = LeaveRequest(reason=reason, action=action)
        if self.client.protocol < FIRST_PROTOCOL_WITH_LEAVE_ACTION:
            leave.can_reconnect = again
        self.send(SignalResponse(leave=leave))
        self.sockets.close(CLOSE_RECONNECT if again else CLOSE_NORMAL)
        self.sockets.forget()

    def release_parts(self) -> None:
        """Drop the parts, after everything has ended and `info` is final. `Room.remove` calls this last.

        The parts refer to this participant. Such a circle of references would live until Python's collector visits old
        objects, which is seldom; without it the memory is free at once.
        """
        self._info = self.info
        del self.token, self.publishing, self.subscriptions, self.data_tracks, self.renegotiation

    def close(self) -> None:
        """Remove everything of this participant from the engine and from the node's maps, even if one part fails."""
        self.token.cancel()
        self.node.paths.note(self)
        if self.settings.signals:  # those of WHIP and WHEP know nothing but UDP, as far as anybody can tell
            self.node.fallbacks.ended(self)
        with ExitStack() as last_first:
            last_first.callback(self.node.turn.expel, self.sid)
            for transport in self.renegotiation.transports:
                last_first.callback(self.node.participants.pop, transport, None)
            last_first.callback(self.renegotiation.close)
            last_first.callback(self.data_tracks.close)
            last_first.callback(self.subscriptions.close)
            last_first.callback(self.publishing.close)


def _negotiation(client: ClientSettings) -> type[OfferedOnce | SingleConnection | DualConnection]:
    """Return how SDP is exchanged with a client."""
    if not client.signals:
        return OfferedOnce
    return SingleConnection if client.single_pc else DualConnection
