"""What the parts of a participant need of it and of each other. `participant.py` puts the parts together."""

from collections.abc import Mapping
from typing import Protocol

from livekit.protocol.models import ClientInfo, ParticipantInfo, ParticipantPermission

from signaling.http.connection import SignalConnection
from signaling.http.shares import Share
from signaling.http.tokens import Claims
from signaling.records.fallbacks import Way
from signaling.rooms.member import Member
from signaling.rooms.node import Node
from signaling.rooms.room import Room
from signaling.sdp.forwarding import Forwarding
from signaling.sdp.peer_connection import WantedTrack


class Forwarder(Protocol):
    """The part of the renegotiation that subscriptions use: it brings wanted tracks to the client."""

    def want(self, track: WantedTrack) -> None:
        """Forward a track, from the next negotiation on."""

    def unwant(self, track_sid: str) -> None:
        """Stop forwarding a track."""

    @property
    def forwardings(self) -> Mapping[str, Forwarding]:
        """The wanted tracks as they are forwarded, by sid."""

    def unsupported(self) -> frozenset[str]:
        """Return the sids of wanted tracks that the client has no codec for."""


class Owner(Member, Protocol):
    """The participant to which a part belongs."""

    last_sequence: int
    """The number of its last reliable data packet."""

    @property
    def node(self) -> Node:
        """What all rooms share."""

    @property
    def room(self) -> Room:
        """The room that it is in."""

    @property
    def allow_pause(self) -> bool:
        """Whether its videos may be paused for lack of bandwidth."""

    @property
    def path_memory(self) -> int:
        """What the engine knew of the path to it when it was here a moment ago; 0: nothing."""

    @property
    def way(self) -> Way:
        """How it is told to connect."""

    @property
    def permission(self) -> ParticipantPermission:
        """What it may do."""

    @property
    def claims(self) -> Claims | None:
        """The claims of its token; None if it has no token to refresh."""

    @property
    def kind(self) -> ParticipantInfo.Kind:
        """Whether it is a person's client, an agent, or another kind."""

    @property
    def client(self) -> ClientInfo:
        """The client's SDK and version."""

    @property
    def who(self) -> tuple[str, str]:
        """The API key and identity to which its joins are charged."""

    @property
    def share(self) -> Share:
        """The share of the control thread that its requests may use."""

    @property
    def connection(self) -> SignalConnection | None:
        """The client's WebSocket; None while there is none."""

    @property
    def subscriber_primary(self) -> bool:
        """Whether, of two connections, the one on which it receives decides that its media is connected."""

    @property
    def renegotiation(self) -> Forwarder:
        """The renegotiation that brings it the tracks that it wants."""
