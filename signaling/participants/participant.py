"""One participant of a room: who it is, what others see of it, and the parts that act for it.

A participant outlives its WebSocket: `connection` comes and goes while the media transports go on.
"""

from collections.abc import Iterator
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
    TrackSubscribed,
)

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
from sfu.parameters import SubscriptionId, TrackId, TransportId
from signaling import identifiers
from signaling.errors import RequestRefused, SessionEnded
from signaling.http.connection import Broadcast, SignalConnection
from signaling.http.shares import Share
from signaling.http.tokens import Claims
from signaling.participants import data
from signaling.participants.description import describe, set_texts
from signaling.participants.publishing import Publishing
from signaling.participants.renegotiation import DualConnection, Renegotiation, SingleConnection
from signaling.participants.subscriptions import Subscriptions
from signaling.participants.token_refresh import TokenRefresh
from signaling.profile import ClientSettings, Profile
from signaling.rooms.access import SubscriptionAccess
from signaling.rooms.allowance import participant_allowance
from signaling.rooms.capacity import Needs
from signaling.rooms.events import ParticipantActive, ParticipantJoined
from signaling.rooms.node import Node
from signaling.rooms.room import Room

JOIN_TIMEOUT_S = 60.0
"""From joining to connected media; LiveKit's."""
CLOSED_BY_PEER = "closed by peer"
"""The engine's reason when the client ended DTLS in order."""
SILENT_S = 10.0
"""Clients ping every five seconds: after two missed pings a socket tells nothing about its client."""
PING_TIMEOUT_S = 15.0
"""What clients are told, and after which a silent socket is closed."""
FAILED_GRACE_S = 5.0
"""How long a participant whose media failed is kept, so that its full reconnect looks like one."""
FIRST_PROTOCOL_WITH_LEAVE_ACTION = 13
"""Older clients look at `can_reconnect` alone."""
FIRST_PROTOCOL_WITH_SUBSCRIBER_PRIMARY = 3
CLOSE_NORMAL = 1000
CLOSE_RECONNECT = 4000
"""Any code but 1000: livekit-client tries again only then (RFC 6455 section 7.4.2: 4000 and up are private)."""

log = structlog.get_logger("signaling.participant")


class Participant:
    """Made by whoever lets it in (a session, when a client joins by WebSocket); ends by `Room.remove`."""

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
            room: where it will be; it enters by `Room.add`.
            profile: who it is.
            settings: how its client takes part.
            claims: of its token, if it has one that is to be refreshed.

        Raises:
            EngineError: the engine is full.
        """
        self.node = node
        self.room = room
        self.claims = claims
        self.settings = settings or ClientSettings()
        self.client = self.settings.info
        self.permission: ParticipantPermission = profile.permission
        self.access = SubscriptionAccess()
        self.connection: SignalConnection | None = None
        self.share = Share(node.shares)
        """What its requests may take of the control thread."""
        self.joined = False
        """The client has its join response, so it can make sense of everything else."""
        self.removed = False

        self._info = describe(profile, self.client)
        self._stale = False
        self._alias = identifiers.participant_sid()

        # times of the node's clock, in seconds
        self.joined_at = node.clock()
        self.update_allowance = participant_allowance(self.joined_at)
        """For what the room is told of it."""
        self._own_allowance = participant_allowance(self.joined_at)
        """For what it is told of itself at once."""
        self.heard_at = self.joined_at
        """Last message from the client."""
        self.pings = False
        """The client pings, so its silence means something."""
        self.expires_at: float | None = None
        """When to give up on a client whose media failed."""

        # media
        self.last_sequence = 0
        """The last sequence number of the participant's reliable data packets; 0: none had one yet."""
        self.active = False
        """Media has been connected once."""
        self.disconnect_on_resume = False
        """A simulated fault: the next resumed socket is closed at once."""
        self.subscriber_primary = (
            not self.settings.single_pc
            and self.client.protocol >= FIRST_PROTOCOL_WITH_SUBSCRIBER_PRIMARY
            and self.permission.can_subscribe
        )
        self.token = TokenRefresh(self, self._info)
        self.publishing = Publishing(self)
        self.subscriptions = Subscriptions(self, self.settings.auto_subscribe, self.settings.adaptive_stream)
        kind = SingleConnection if self.settings.single_pc else DualConnection
        self.renegotiation: Renegotiation = kind(self, self.publishing, self.subscriptions)
        for transport in self.renegotiation.transports:
            node.participants[transport] = self

    @property
    def sid(self) -> str:
        """The name of this stay in the room."""
        return self._info.sid

    @property
    def identity(self) -> str:
        """The name in the token, the same after a full reconnect."""
        return self._info.identity

    @property
    def state(self) -> ParticipantInfo.State:
        """JOINING, JOINED, ACTIVE or DISCONNECTED."""
        return self._info.state

    @property
    def kind(self) -> ParticipantInfo.Kind:
        """A person's client, an agent, and so on."""
        return self._info.kind

    @property
    def who(self) -> tuple[str, str]:
        """To whom its joins are charged: API key and identity of its token, or its identity alone."""
        return self.claims.who if self.claims is not None else ("", self.identity)

    @property
    def room_name(self) -> str:
        """Where it is."""
        return self.room.name

    @property
    def track_count(self) -> int:
        """How many tracks it publishes or has announced."""
        return self.publishing.count

    @property
    def data_transport(self) -> TransportId:
        """Where data packets for it go."""
        return self.renegotiation.data_transport

    @property
    def hidden(self) -> bool:
        """Others are not told of it."""
        return self.permission.hidden

    @property
    def public_sid(self) -> str:
        """What SDP and RTCP call the sender of its media: the sid, or while it is hidden a name that nobody has."""
        return self._alias if self.hidden else self.sid

    @property
    def is_publisher(self) -> bool:
        """It has published in this stay."""
        return self._info.is_publisher

    @property
    def info(self) -> ParticipantInfo:
        """What clients are told; treat it as a constant."""
        if self._stale:
            self._stale = False
            del self._info.tracks[:]
            self._info.tracks.extend(track.info for track in self.publishing.tracks.values() if track.announced)
            self._info.is_publisher = self._info.is_publisher or bool(self._info.tracks)
            self._info.version += 1
        return self._info

    def engine_tracks(self) -> list[TrackId]:
        """Return the engine tracks of everything that it publishes."""
        return [engine_track for track in self.publishing.tracks.values() for engine_track in track.engine_tracks]

    def subscription_ids(self) -> Iterator[SubscriptionId]:
        """Return the subscriptions to everything that is sent to it."""
        return (entry.id for entry in self.subscriptions.active.values() if entry.id is not None)

    def needs(self, tracks: int) -> Needs:
        """What it has or wants of the engine's tables in a room with so many tracks."""
        mine = self.subscriptions
        wanted = tracks - self.publishing.count if mine.takes_all else len(mine.active)
        transports = len(self.renegotiation.transports)
        return self.publishing.needs()._replace(transports=transports, subscriptions=wanted)

    def send(self, response: SignalResponse | Broadcast) -> None:
        """Send to the client if it has a socket now."""
        if self.connection is not None:
            self.connection.send(response)

    def changed(self) -> None:
        """Something in `info` or in a track changed: give it a new version and tell the room."""
        self._stale = True
        self.room.participant_changed(self)

    def set_state(self, state: ParticipantInfo.State) -> None:
        """Enter a state and tell the room."""
        self._info.state = state
        self.changed()

    def set_joined(self) -> None:
        """The client knows that it is here: tell the others."""
        self.joined = True
        self.set_state(ParticipantInfo.JOINED)
        self.node.events.emit(ParticipantJoined(self.room, self, self.settings))

    def set_disconnected(self, reason: DisconnectReason) -> None:
        """Enter the last state, without telling anybody."""
        self.removed = True
        self._stale = True
        self._info.state = ParticipantInfo.DISCONNECTED
        self._info.disconnect_reason = reason

    # what it asks for, or somebody asks for it

    def update(self, name: str, metadata: str, attributes: dict[str, str]) -> None:
        """Change what the participant says about itself; empty texts are left alone, empty attributes deleted.

        Raises:
            RequestRefused: LIMIT_EXCEEDED; nothing was changed.
        """
        set_texts(self._info, name, metadata, attributes)
        self.changed()
        self._tell_itself()
        self.token.renew()

    def update_itself(self, name: str, metadata: str, attributes: dict[str, str]) -> None:
        """Make the participant's own change, as `update`.

        Raises:
            RequestRefused: NOT_ALLOWED, or as `update`.
        """
        if not self.permission.can_update_metadata:
            raise RequestRefused(RequestResponse.NOT_ALLOWED, "the token does not allow updating own metadata")
        self.update(name, metadata, attributes)

    def set_access(self, access: SubscriptionAccess) -> None:
        """Decide who may subscribe to what it publishes."""
        self.access = access
        self.room.access_changed(self)

    def synchronize(self, state: SyncState) -> None:
        """Take over what a resuming client believes.

        Raises:
            SessionEnded: it publishes tracks that are not known here, so it has to start again.
            RequestRefused: it has chosen too many tracks.
        """
        known = self.publishing.tracks.keys() | self.publishing.pending.keys()
        unknown = [entry.track.sid for entry in state.publish_tracks if entry.track.sid not in known]
        if unknown:
            raise SessionEnded(STATE_MISMATCH, LeaveRequest.RECONNECT, f"client publishes unknown tracks {unknown[:5]}")
        if state.HasField("subscription"):
            self.subscriptions.update(state.subscription)
        self.subscriptions.disable(state.track_sids_disabled)

    def note_ping(self) -> None:
        """The client pings, so its silence will mean something."""
        self.pings = True

    def go(self) -> None:
        """Leave the room, by its own wish."""
        self.room.remove(self, CLIENT_INITIATED)

    def _tell_itself(self) -> None:
        """Send the participant its own state now, before the answer to the request that changed it; the room hears of
        it in its turn. LiveKit's Rust client sends name and metadata, as far as it knows them, with each change of
        something else: one that has its answer before its own new name would set the old name again."""
        if not self._own_allowance.allows(self.node.clock()):
            self.node.dropped["own_updates_delayed"] += 1
            return
        self._own_allowance.charge(self.info.ByteSize())
        self.send(SignalResponse(update=ParticipantUpdate(participants=[self.info])))

    def set_claims(self, claims: Claims, permission: ParticipantPermission) -> None:
        """Take over the token of a resumed session; what it no longer allows ends."""
        self.claims = claims
        if permission == self.permission:
            return
        was_hidden = self.hidden
        self.permission = permission
        self._info.permission.CopyFrom(permission)
        self.publishing.revoke_forbidden()
        if permission.hidden and not was_hidden:
            self.room.participant_hidden(self)
        self.changed()
        self.room.subscribe_all(self)

    # what happens to it

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
                self._subscription_started(event)
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

    def _subscription_started(self, event: SubscriptionStarted) -> None:
        track = self.room.tracks.get(self.node.subscribers[event.subscription][1])
        if track is not None and not track.heard:
            track.heard = True
            track.publisher.send(SignalResponse(track_subscribed=TrackSubscribed(track_sid=track.sid)))

    def _transport_failed(self, reason: str) -> None:
        """A transport is lost. A client that still talks to us is asked to start again; one that is silent has gone.
        One that closes its side is alive, however long it was silent: it is about to say `leave` or to close its
        socket, has a while for that, and must not be told to come back."""
        now = self.node.clock()
        closes = reason == CLOSED_BY_PEER
        if closes:
            # An ordinary goodbye of native clients, which must not read like a fault.
            log.info("transport closed", room=self.room.name, identity=self.identity)
        else:
            log.info("transport failed", room=self.room.name, identity=self.identity, reason=reason)
        if self.connection is None:
            self.room.remove(self, SIGNAL_CLOSE if closes else CONNECTION_TIMEOUT, LeaveRequest.RECONNECT)
        elif closes:
            self.expires_at = now + FAILED_GRACE_S
        elif now - self.heard_at > SILENT_S:
            self.room.remove(self, CONNECTION_TIMEOUT, LeaveRequest.RECONNECT)
        else:
            self.expires_at = now + FAILED_GRACE_S
            self.leave(CONNECTION_TIMEOUT, LeaveRequest.RECONNECT)

    def signal_lost(self) -> None:
        """The socket ended without a word: media may go on, or the client comes back."""
        self.connection = None
        if not self.active or self.expires_at is not None:
            self.room.remove(self, SIGNAL_CLOSE)

    def tick(self, now: float) -> None:
        """Look after its timeouts. now: the node's clock, in seconds.

        Raises:
            SessionEnded: one of them is over.
        """
        if self.expires_at is not None and now >= self.expires_at:
            self.room.remove(self, CONNECTION_TIMEOUT, LeaveRequest.RECONNECT)
            return
        if not self.active and now - self.joined_at > JOIN_TIMEOUT_S:
            raise SessionEnded(JOIN_FAILURE, LeaveRequest.DISCONNECT, "media did not connect in time")
        if self.connection is not None:
            if now - self.heard_at > PING_TIMEOUT_S and self.pings:
                self.node.spawn(self.connection.close(CLOSE_RECONNECT))
                self.pings = False
            self.token.tick(now)
        self.renegotiation.tick(now)

    def attach(self, connection: SignalConnection) -> None:
        """Use this socket from now on; the one before is closed."""
        previous, self.connection = self.connection, connection
        self.heard_at = self.node.clock()
        self.pings = False
        if previous is not None:
            self.node.spawn(previous.close(CLOSE_NORMAL))

    def leave(self, reason: DisconnectReason, action: LeaveRequest.Action) -> None:
        """Send `leave` and close the socket, with a code that fits the action."""
        connection, self.connection = self.connection, None
        if connection is None:
            return
        again = action != LeaveRequest.DISCONNECT
        leave = LeaveRequest(reason=reason, action=action)
        if self.client.protocol < FIRST_PROTOCOL_WITH_LEAVE_ACTION:
            leave.can_reconnect = again
        connection.send(SignalResponse(leave=leave))
        self.node.spawn(connection.close(CLOSE_RECONNECT if again else CLOSE_NORMAL))

    def hang_up(self) -> None:
        """Close the socket without a word, so that the client tries to resume (simulated faults only)."""
        if self.connection is not None:
            self.node.spawn(self.connection.close(CLOSE_RECONNECT))

    def let_go(self) -> None:
        """Drop the parts, after everything has ended and `info` is final: the last act of `Room.remove`.

        They refer to this participant, and a circle lives until Python's collector looks at old objects, which is
        seldom. Without it the memory of somebody who left is free at once.
        """
        self._info = self.info
        del self.token, self.publishing, self.subscriptions, self.renegotiation

    def close(self) -> None:
        """End everything of this participant in the engine and in the node's maps, each part even if another fails."""
        self.token.cancel()
        with ExitStack() as last_first:
            for transport in self.renegotiation.transports:
                last_first.callback(self.node.participants.pop, transport, None)
            last_first.callback(self.renegotiation.close)
            last_first.callback(self.subscriptions.close)
            last_first.callback(self.publishing.close)
