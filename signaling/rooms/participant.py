"""One participant of a room: who it is, what others see of it, and the parts that act for it.

A participant outlives its WebSocket: `connection` comes and goes while the media transports go on.
"""

import asyncio
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from livekit.protocol.models import DisconnectReason, ParticipantInfo, ParticipantPermission
from livekit.protocol.rtc import LeaveRequest, ParticipantUpdate, RequestResponse, SignalResponse

from signaling import identifiers
from signaling.errors import RequestRefused
from signaling.http.join import MAX_ATTRIBUTES_BYTES, MAX_METADATA_BYTES, MAX_NAME_LENGTH, JoinParameters
from signaling.http.shares import Share
from signaling.http.tokens import Claims, TokenTooLong, refresh
from signaling.limits import MAX_CAPABILITIES
from signaling.rooms.access import SubscriptionAccess
from signaling.rooms.publishing import Publishing
from signaling.rooms.renegotiation import DualConnection, Renegotiation, SingleConnection
from signaling.rooms.subscriptions import Subscriptions
from signaling.rooms.updates import participant_allowance

if TYPE_CHECKING:
    from signaling.http.connection import Broadcast, SignalConnection
    from signaling.rooms.node import Node
    from signaling.rooms.room import Room

FIRST_PROTOCOL_WITH_LEAVE_ACTION = 13
"""Older clients look at `can_reconnect` alone."""
FIRST_PROTOCOL_WITH_SUBSCRIBER_PRIMARY = 3
TOKEN_INTERVAL_S = 300.0
"""Between two refreshed tokens when nothing changes; they live for ten minutes."""
TOKEN_PACE_S = 1.0
"""Between two refreshed tokens at least: of a burst of changes the first and the last state are sent."""
CLOSE_NORMAL = 1000
CLOSE_RECONNECT = 4000
"""Any code but 1000: livekit-client tries again only then (RFC 6455 section 7.4.2: 4000 and up are private)."""


class Participant:
    """Made by a session when a client joins; ends by `Room.remove`."""

    def __init__(self, node: "Node", room: "Room", join: JoinParameters) -> None:
        """Open the media transports. Raises EngineError when the engine is full."""
        self.node = node
        self.room = room
        self.claims: Claims = join.claims
        self.client = join.client_info
        self.permission: ParticipantPermission = join.video.permission()
        self.access = SubscriptionAccess()
        self.connection: SignalConnection | None = None
        self.share = Share(node.shares)
        """What its requests may take of the control thread."""
        self.joined = False
        """The client has its join response, so it can make sense of everything else."""
        self.removed = False

        now = time.time()
        self._info = ParticipantInfo(
            sid=identifiers.participant_sid(),
            identity=join.claims.identity,
            name=join.claims.name,
            metadata=join.metadata,
            attributes=join.attributes,
            kind=join.claims.kind,
            permission=self.permission,
            joined_at=int(now),
            joined_at_ms=int(now * 1000),
            client_protocol=join.client_info.client_protocol,
            capabilities=list(dict.fromkeys(join.client_info.capabilities))[:MAX_CAPABILITIES],
            version=1,
        )
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
        self.refresh_at = self.joined_at
        """When the next token is due."""
        self._refreshed_at = -TOKEN_PACE_S
        """When the last one was sent."""
        self._token_handle: asyncio.Handle | None = None
        """One will be sent in this turn of the event loop."""
        self.expires_at: float | None = None
        """When to give up on a client whose media failed."""

        # media
        self.last_sequence = 0
        """Of reliable data packets from this participant."""
        self.active = False
        """Media has been connected once."""
        self.disconnect_on_resume = False
        """A simulated fault: the next resumed socket is closed at once."""
        self.subscriber_primary = (
            not join.single_pc
            and join.client_info.protocol >= FIRST_PROTOCOL_WITH_SUBSCRIBER_PRIMARY
            and self.permission.can_subscribe
        )
        self.publishing = Publishing(self)
        self.subscriptions = Subscriptions(self, join.auto_subscribe, join.adaptive_stream)
        self.renegotiation: Renegotiation = SingleConnection(self) if join.single_pc else DualConnection(self)
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

    def send(self, response: "SignalResponse | Broadcast") -> None:
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

    def set_disconnected(self, reason: DisconnectReason) -> None:
        """Enter the last state, without telling anybody."""
        self.removed = True
        self._stale = True
        self._info.state = ParticipantInfo.DISCONNECTED
        self._info.disconnect_reason = reason

    def update(self, name: str, metadata: str, attributes: dict[str, str]) -> None:
        """Change what the participant says about itself; empty texts are left alone, empty attributes deleted.

        Raises:
            RequestRefused: LIMIT_EXCEEDED; nothing was changed.
        """
        merged = {**self._info.attributes, **attributes}
        merged = {key: value for key, value in merged.items() if value}
        if (
            len(name.encode()) > MAX_NAME_LENGTH
            or len(metadata.encode()) > MAX_METADATA_BYTES
            or sum(len(key.encode()) + len(value.encode()) for key, value in merged.items()) > MAX_ATTRIBUTES_BYTES
        ):
            raise RequestRefused(RequestResponse.LIMIT_EXCEEDED, "name, metadata or attributes are too long")
        self._info.name = name or self._info.name
        self._info.metadata = metadata or self._info.metadata
        self._info.attributes.clear()
        self._info.attributes.update(merged)
        self.changed()
        self._tell_itself()
        self._renew_token()

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

    def send_token(self) -> None:
        """Send a fresh token, so that a full reconnect in an hour still works, and as who the participant is then."""
        if self._token_handle is not None:
            self._token_handle.cancel()
            self._token_handle = None
        self._refreshed_at = self.node.clock()
        self.refresh_at = self._refreshed_at + TOKEN_INTERVAL_S
        if token := self._fresh_token():
            self.send(SignalResponse(refresh_token=token))

    def send_due_token(self) -> None:
        """Send a fresh token later than in the request that made it due: to sign half a MiB takes ten milliseconds, and
        those are the client's."""
        began = self.share.clock()
        self.send_token()
        self.share.spend(self.share.clock() - began)

    def _fresh_token(self) -> str:
        """Sign what the participant is now; where that is more than a client can bring back, its former metadata and
        attributes; empty if even those are too much. Text of control characters alone is so long."""
        info, keys = self._info, self.node.config.keys
        whole = partial(refresh, self.claims, keys, name=info.name, permission=self.permission)
        for sign in (partial(whole, metadata=info.metadata, attributes=dict(info.attributes)), whole):
            try:
                return sign()
            except TokenTooLong:
                self.node.dropped["token too long"] += 1
        return ""

    def _renew_token(self) -> None:
        """The token says something else now: send it when the requests of this turn of the event loop are handled, or
        after the pace. Until then a reconnect loses it."""
        due = self._refreshed_at + TOKEN_PACE_S
        if self.node.clock() < due:
            self.refresh_at = min(self.refresh_at, due)
        elif self._token_handle is None:
            send = partial(self.room.guard, self, self.send_due_token)
            self._token_handle = asyncio.get_running_loop().call_soon(send)

    def attach(self, connection: "SignalConnection") -> None:
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
        del self.publishing, self.subscriptions, self.renegotiation

    def close(self) -> None:
        """End everything of this participant in the engine and in the node's maps, each part even if another fails."""
        if self._token_handle is not None:
            self._token_handle.cancel()
        with ExitStack() as last_first:
            for transport in self.renegotiation.transports:
                last_first.callback(self.node.participants.pop, transport, None)
            last_first.callback(self.renegotiation.close)
            last_first.callback(self.subscriptions.close)
            last_first.callback(self.publishing.close)
