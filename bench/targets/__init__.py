"""What can be measured: one file per system, each with a class that does what `Target` says."""

import socket
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Layer:
    """One encoding of a published track."""

    rid: str
    """Empty: the only one."""
    packets_per_second: int
    packet_bytes: int
    """Plaintext RTP packet."""


@dataclass(frozen=True, slots=True)
class TrackPlan:
    """What a participant publishes."""

    kind: str
    """`audio` (Opus, 50 packets a second) or `video` (VP8)."""
    layers: tuple[Layer, ...]
    frames_per_second: int = 30
    """Packets of one frame leave back to back; 0: evenly spread."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One participant."""

    room: str
    identity: str
    publish: tuple[TrackPlan, ...] = ()
    subscribe: bool = True
    data: bool = False
    """It has data channels. Then it has no media."""
    messages_per_second: float = 0.0
    """That it sends; it receives those of the others in its room."""


@dataclass(slots=True)
class SendStream:
    """One SSRC that a connected participant sends."""

    ssrc: int
    payload_type: int
    kind: str
    layer: Layer
    frames_per_second: int
    extensions: bytes = b""
    """Constant one-byte header extension elements (mid, rid), without padding, as negotiated."""
    transport_cc_id: int = 0
    """Header extension id of the transport-wide sequence number; 0: not negotiated."""


@dataclass(slots=True)
class Connected:
    """A participant whose transport is up: what the generator's kernel needs to know of it."""

    plan: Plan
    socket: socket.socket
    """Connected to the server, non-blocking."""
    incoming: int
    """srtp_t address for unprotect; 0: packets come in the clear."""
    outgoing: int
    """srtp_t address for protect; 0: packets go in the clear."""
    sends: list[SendStream] = field(default_factory=list)
    owner: object = None
    """Whatever must live as long as the addresses above."""
    check: bytes = b""
    """Datagram that the generator sends every few seconds, as it is (the STUN request that keeps consent)."""
    receive_transport_cc_id: int = 0
    """Header extension id of the transport-wide sequence numbers in what arrives; 0: none, no feedback is sent."""


@runtime_checkable
class MayBeMissing(Protocol):
    """A target that needs something which not every machine has."""

    def missing(self) -> str:
        """Why it cannot be started here; empty: it can."""


class Target(Protocol):
    """A system under test."""

    name: str
    profile: str
    """SRTP protection profile."""

    async def start(self, cores: tuple[int, ...]) -> None:
        """Start it (or find it), confined to these cores where that is ours to do."""

    def pid(self) -> int:
        """Root of its process tree."""

    async def join(self, plan: Plan) -> Connected:
        """Bring one participant in: signalling, ICE, DTLS. Subscribers get everything published in their room, also
        what is published after they joined."""

    async def settle(self) -> None:
        """Wait until everybody who joined is subscribed to everything that is there."""

    async def leave(self, participant: Connected) -> None:
        """Take a participant out and close its socket."""

    def drops(self) -> dict[str, int]:
        """What it says it dropped, by reason; empty when it does not say."""

    def versions(self) -> dict[str, str]:
        """Of the system and what matters in it, by name."""

    async def stop(self) -> None:
        """End what `start` began."""
