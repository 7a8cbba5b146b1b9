"""What the parts of a participant need of it and of each other. `participant.py` puts the parts together."""

from collections.abc import Mapping
from typing import Protocol

from livekit.protocol.models import ClientInfo, ParticipantInfo, ParticipantPermission

from signaling.http.connection import SignalConnection
from signaling.http.shares import Share
from signaling.http.tokens import Claims
from signaling.rooms.member import Member
from signaling.rooms.node import Node
from signaling.rooms.room import Room
from signaling.sdp.forwarding import Forwarding
from signaling.sdp.peer_connection import WantedTrack


class Forwarder(Protocol):
    """Brings wanted tracks to the client: the renegotiation, as the subscriptions see it."""

    def want(self, track: WantedTrack) -> None:
        """Forward a track, from the next negotiation on."""

    def unwant(self, track_sid: str) -> None:
        """Stop forwarding a track."""

    @property
    def forwardings(self) -> Mapping[str, Forwarding]:
        """The ways of wanted tracks, by sid."""

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
        """Where it is."""

    @property
    def permission(self) -> ParticipantPermission:
        """What it may do."""

    @property
    def claims(self) -> Claims | None:
        """What its token says, if it has one that is to be refreshed."""

    @property
    def kind(self) -> ParticipantInfo.Kind:
        """A person's client, an agent, and so on."""

    @property
    def client(self) -> ClientInfo:
        """Its SDK and version."""

    @property
    def who(self) -> tuple[str, str]:
        """To whom its joins are charged."""

    @property
    def share(self) -> Share:
        """What its requests may take of the control thread."""

    @property
    def connection(self) -> SignalConnection | None:
        """Its socket, while it has one."""

    @property
    def subscriber_primary(self) -> bool:
        """Whether the connection on which it receives, of two, decides that its media is connected."""

    @property
    def renegotiation(self) -> Forwarder:
        """What brings it the tracks that it wants."""
