"""Who takes part in a scenario and what they send, and what the generator needs to know of one who is connected."""

import socket
from dataclasses import dataclass, field

AUDIO_PAYLOAD_TYPE, VIDEO_PAYLOAD_TYPE, RTX_PAYLOAD_TYPE = 111, 96, 97
"""In every description that the generator offers or answers."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One encoding of a published track."""

    rid: str
    """Empty: the only one."""
    packets_per_second: float
    packet_bytes: int
    """Plaintext RTP packet; 0: as its pattern says."""
    pattern: str = ""
    """Packets that are sent over and over: `equal` ones, or the name of a recording. Empty: frames as encoders make
    them, with key frames when they are asked for."""
    per_burst: int = 0
    """Of a pattern: packets that leave back to back; 0: a frame."""
    padded: bool = False
    """Of a pattern: with the padding that this server adds, so that packets share UDP_SEGMENT messages."""


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
