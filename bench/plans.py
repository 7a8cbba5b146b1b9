"""Who takes part in a scenario, what they send, and what the generator has to know of a connected participant."""

import socket
from dataclasses import dataclass, field

AUDIO_PAYLOAD_TYPE, VIDEO_PAYLOAD_TYPE, RTX_PAYLOAD_TYPE = 111, 96, 97
"""The payload types in every description of the generator."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One encoding of a published track."""

    rid: str
    """The layer's rid; empty: the track has one layer."""
    packets_per_second: float
    packet_bytes: int
    """Bytes of a plaintext RTP packet; 0: as the pattern says."""
    pattern: str = ""
    """The packets that are sent over and over: `equal` ones, or the name of a recording. Empty: frames as encoders make
    them, with key frames when they are requested."""
    per_burst: int = 0
    """With a pattern: how many packets leave back to back; 0: those of a frame."""
    padded: bool = False
    """With a pattern: add the padding that this server adds, so that packets share UDP_SEGMENT messages."""


@dataclass(frozen=True, slots=True)
class TrackPlan:
    """What a participant publishes."""

    kind: str
    """`audio` (Opus, 50 packets a second) or `video` (VP8)."""
    layers: tuple[Layer, ...]
    frames_per_second: int = 30
    """The packets of one frame leave back to back; 0: packets are evenly spread."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One participant."""

    room: str
    identity: str
    publish: tuple[TrackPlan, ...] = ()
    subscribe: bool = True
    data: bool = False
    """Whether the participant has data channels, and no media."""
    messages_per_second: float = 0.0
    """The rate at which it sends messages. It receives those of all others in its room."""
    reports: bool = False
    """Whether the participant reports with transport-cc what arrives. A server that estimates
    bandwidth then limits what it sends."""


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
    """What the generator's kernel has to know of a participant whose transport is connected."""

    plan: Plan
    socket: socket.socket
    """A socket that is connected to the server, non-blocking."""
    incoming: int
    """srtp_t address for unprotect; 0: packets come in the clear."""
    outgoing: int
    """srtp_t address for protect; 0: packets go in the clear."""
    sends: list[SendStream] = field(default_factory=list)
    owner: object = None
    """The object that keeps the memory at the addresses above."""
    check: bytes = b""
    """The datagram that the generator sends every few seconds: the STUN request that keeps consent."""
    receive_transport_cc_id: int = 0
    """Header extension id of the transport-wide sequence numbers in what arrives; 0: none, no feedback is sent."""
