"""What the parts of a participant need of it and of each other. `participant.py` puts the parts together."""

from typing import Protocol

from livekit.protocol.models import ClientInfo, ParticipantInfo, ParticipantPermission

from sfu.parameters import SubscriptionId
from signaling.http.connection import SignalConnection
from signaling.http.shares import Share
from signaling.http.tokens import Claims
from signaling.rooms.member import Member
from signaling.rooms.node import Node
from signaling.rooms.room import Room
from signaling.sdp.peer_connection import WantedTrack


class Forwarder(Protocol):
    """Brings wanted tracks to the client: the renegotiation, as the subscriptions see it."""

    def want(self, track: WantedTrack) -> None:
        """Forward a track, from the next negotiation on."""

    def unwant(self, track_sid: str) -> None:
        """Stop forwarding a track."""

    def subscription(self, track_sid: str) -> SubscriptionId | None:
        """Return the engine's subscription of a wanted track; None while it is not negotiated."""

    def answered(self, track_sid: str) -> bool:
        """Whether media of a subscribed track may go out."""

    def unsupported(self) -> frozenset[str]:
        """Return the sids of wanted tracks that the client has no codec for."""


class Owner(Member, Protocol):
    """The participant to which a part belongs."""

    last_sequence: int
    """Of its reliable data packets."""

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
        """Of its token, if it has one that is to be refreshed."""

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
        """Of two peer connections, the one on which it receives decides whether its media is connected."""

    @property
    def renegotiation(self) -> Forwarder:
        """What brings it the tracks that it wants."""
