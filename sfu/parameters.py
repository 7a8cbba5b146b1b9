"""What signalling tells the engine: immutable values with the words of WebRTC, no SDP, no names of users.

Signalling builds these values and `sfu.engine` reads them. Nothing here does any work, and nothing here checks a value:
the call of `Engine` that takes it does.
"""

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import NewType

TransportId = NewType("TransportId", int)
"""One ICE/DTLS/SRTP association with a client (a peer connection). Never reused within a process."""
TrackId = NewType("TrackId", int)
"""One published m-section (one codec of one track; up to three simulcast layers). Never reused."""
SubscriptionId = NewType("SubscriptionId", int)
"""One track forwarded to one transport. Never reused."""


class Kind(Enum):
    """What a media section carries."""

    AUDIO = "audio"
    VIDEO = "video"


class Codec(IntEnum):
    """Codecs as the kernels number them. The names are those of SDP, in upper case."""

    NONE = 0
    OPUS = 1
    RED = 2
    """RFC 2198 redundancy around Opus; its fmtp names the Opus payload type."""
    VP8 = 3
    H264 = 4
    VP9 = 5
    AV1 = 6
    RTX = 7
    AUDIO = 8
    """Any other audio codec (PCMU, PCMA, G722): forwarded without being looked into."""


NO_CODECS = frozenset({Codec.RTX})
"""As the codecs that an m-section may carry: none, because there is nothing that RTX alone could repair."""


class Extension(IntEnum):
    """RTP header extensions as the kernels number them. 1 to 6 are copied from publisher to subscriber."""

    NONE = 0
    AUDIO_LEVEL = 1
    ORIENTATION = 2
    PLAYOUT_DELAY = 3
    COLOR_SPACE = 4
    ABS_CAPTURE_TIME = 5
    DEPENDENCY = 6
    MID = 7
    RID = 8
    REPAIRED_RID = 9
    ABS_SEND_TIME = 10
    TRANSPORT_CC = 11
    VIDEO_LAYERS = 12
    """What the publisher means to send in each layer (video-layers-allocation00 of libwebrtc)."""


EXTENSION_URIS: dict[str, Extension] = {
    "urn:ietf:params:rtp-hdrext:ssrc-audio-level": Extension.AUDIO_LEVEL,
    "urn:3gpp:video-orientation": Extension.ORIENTATION,
    "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay": Extension.PLAYOUT_DELAY,
    "http://www.webrtc.org/experiments/rtp-hdrext/color-space": Extension.COLOR_SPACE,
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time": Extension.ABS_CAPTURE_TIME,
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension": Extension.DEPENDENCY,
    "urn:ietf:params:rtp-hdrext:sdes:mid": Extension.MID,
    "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id": Extension.RID,
    "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id": Extension.REPAIRED_RID,
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time": Extension.ABS_SEND_TIME,
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01": Extension.TRANSPORT_CC,
    "http://www.webrtc.org/experiments/rtp-hdrext/video-layers-allocation00": Extension.VIDEO_LAYERS,
}
"""Meaning by the URI of an `a=extmap` line. Other extensions are not forwarded."""


class DtlsRole(Enum):
    """Our role in the DTLS handshake."""

    CLIENT = "client"
    """We answered or were answered so that we speak first (`a=setup:active` on our side)."""
    SERVER = "server"
    """The peer speaks first (`a=setup:passive` on our side)."""


GROUPS = 4096
"""`PublishParameters.group` is below this number. The groups are numbered from 1, and 0 means no group."""
MAX_SPATIAL = 2
"""The number of the highest spatial layer. Layers are numbered from 0, so a track has at most three."""
MAX_TEMPORAL = 3
"""The number of the highest temporal layer. A subscription with this and MAX_SPATIAL is sent the whole track."""
MAX_THREADS = 16
"""Media threads of one process."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Where the engine is reached."""

    udp_ports: tuple[int, ...] = (7882,)
    """One media thread for each, with a port of its own. 0: any free port."""
    bind: tuple[str, ...] = ()
    """Local addresses to bind; empty: all, IPv4 and IPv6."""
    node_ips: tuple[str, ...] = ()
    """Addresses to advertise as candidates; empty: those bound, or every address of the machine."""
    tcp_port: int | None = None
    """The port for ICE over TCP, one for all media threads; None: there is none. 0: any free port."""
    shared_tcp_port: int | None = None
    """In its place, a port where others accept connections and hand over those of clients (`take_connection`)."""
    limits_bandwidth: bool = True
    """False: everybody is sent what it prefers, whatever its path carries."""
    proxies_loss: bool = False
    """Publishers of audio are told the worst loss among their subscribers as if it were their own."""
    key_frame_retry_ms: tuple[int, int, int] = (0, 0, 0)
    """Least time between two requests for a key frame of a layer, lowest layer first; 0: 500 ms."""


@dataclass(frozen=True, slots=True)
class IceCredentials:
    """RFC 8445 section 5.3: what the peer must put into its checks."""

    ufrag: str
    password: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """One host candidate of ours, ready for an `a=candidate` line."""

    foundation: str
    priority: int
    address: str
    port: int
    tcp: bool = False
    """Over TCP, and the peer connects (RFC 6544: `tcptype passive`); else over UDP."""


@dataclass(frozen=True, slots=True)
class LocalTransport:
    """Our half of a transport, for the SDP that we send."""

    id: TransportId
    ice: IceCredentials
    fingerprint: tuple[str, str]
    """(hash name, colon-separated upper-case hex), the same certificate for every transport of the process."""
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class RemoteTransport:
    """The peer's half of a transport, from the SDP that it sent."""

    ice: IceCredentials
    fingerprints: tuple[tuple[str, str], ...]
    """(hash name in lower case, hex with colons) of every `a=fingerprint`; one match is enough."""
    role: DtlsRole
    """Our role, as decided by offer and answer."""
    sctp_port: int | None = None
    """`a=sctp-port` when data channels are negotiated."""
    max_message_size: int = 65_536
    """`a=max-message-size`, in bytes."""


@dataclass(frozen=True, slots=True)
class PayloadType:
    """What one payload type number means on a transport."""

    codec: Codec
    clock_rate: int
    """Ticks a second of its RTP timestamps."""
    associated: int = -1
    """RTX: the payload type that it repairs (`apt`); RED: the Opus payload type inside; else -1."""
    nack: bool = False
    """Negotiated `a=rtcp-fb:<pt> nack`."""


@dataclass(frozen=True, slots=True)
class MediaParameters:
    """What was negotiated for all m-sections of one transport (BUNDLE: one meaning per number)."""

    payload_types: dict[int, PayloadType] = field(default_factory=dict)
    extensions: dict[int, Extension] = field(default_factory=dict)
    """Header extension id (1 to 255) -> meaning, both directions."""
    mixed_extensions: bool = False
    """`a=extmap-allow-mixed`: two-byte header extensions may be sent to the peer."""
    unnumbered: frozenset[Kind] = frozenset()
    """The kinds whose m-sections did not negotiate transport-cc. `extensions` joins the m-sections of both kinds, so it
    cannot tell. Packets of these kinds get no transport-wide sequence number, because the peer would not report it."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """One layer that a publisher announces, lowest resolution first in `PublishParameters.encodings`."""

    rid: str = ""
    """`a=rid`; empty when the publisher does not use rids."""
    ssrc: int = 0
    """From `a=ssrc`; 0 when unknown (then found by mid and rid in the packets)."""
    rtx_ssrc: int = 0
    """From `a=ssrc-group:FID`; 0 when unknown or absent."""
    bitrate_bps: int = 0
    """What the publisher announces that the layer will take; 0: unknown. It counts until it is measured."""


@dataclass(frozen=True, slots=True)
class PublishParameters:
    """One m-section on which the peer sends."""

    kind: Kind
    mid: str
    encodings: tuple[Encoding, ...]
    """At least one, at most three."""
    group: int = 0
    """Audio only: the number of the group whose loudest tracks alone are forwarded. 0: the track is in no group."""
    group_limit: int = 0
    """How many tracks of the group are forwarded at a time."""
    codecs: frozenset[Codec] = frozenset()
    """What the answer accepts; packets of other codecs are dropped. Empty: whatever the transport's numbers mean.
    `NO_CODECS`: nothing."""
    screen: bool = False
    """The track is a shared screen or its sound. A screen's video goes before cameras when bandwidth is short, and its
    rate is measured over a longer time because it comes in bursts. Its sound does not count as a microphone, of which
    only the loudest may be sent."""


@dataclass(frozen=True, slots=True)
class SubscribeParameters:
    """How one track is forwarded to one transport."""

    mid: str
    payload_type: int
    """What the track's codec is sent as on the subscriber's transport."""
    rtx_payload_type: int = -1
    """-1: retransmission was not negotiated; NACKs are then not answered."""
    red_payload_type: int = -1
    """Audio only: -1 means RED was not negotiated and is unwrapped to Opus in egress."""
    cname: str = ""
    """All subscriptions to one publisher have one (RFC 3550 section 6.5.1); at most 32 ASCII characters."""
    paused: bool = False
    """Send nothing until `Engine.set_paused` ends the pause. A subscriber must know the SSRCs before packets come."""
    spatial: int = MAX_SPATIAL
    temporal: int = MAX_TEMPORAL
    """Highest layers to forward from the first packet on, until `Engine.set_layers` says otherwise."""
    priority: int = 0
    """How important the track is to the subscriber. 1 is the most important, and 0 means that it did not say. Bandwidth
    goes to important tracks first, and among equals to the one with the most `pixels`."""
    pixels: int = 0
    """Width times height of what the subscriber shows; 0: not known."""
    silence: bool = False
    """Send silent Opus or padding until media come, for at most five seconds. This is for muted tracks, because some
    clients show a track only after its first packet."""
    playout_delay_ms: tuple[int, int] | None = None
    """Video only: the least and the most milliseconds from capture to display that the subscriber is told. None: it is
    told what the publisher says."""
    codec: Codec = Codec.NONE
    """The codec that `payload_type` means. Packets of other codecs are not sent. NONE: packets of every codec
    are sent, which is right only for a track that has one codec."""


@dataclass(frozen=True, slots=True)
class LocalSubscription:
    """What the subscriber's SDP must say about a subscription."""

    id: SubscriptionId
    ssrc: int
    rtx_ssrc: int
    """0 when no RTX was negotiated."""


class Channel(IntEnum):
    """LiveKit's data channels."""

    RELIABLE = 0
    LOSSY = 1
    DATA_TRACK = 2


CHANNEL_LABELS: dict[Channel, str] = {
    Channel.RELIABLE: "_reliable",
    Channel.LOSSY: "_lossy",
    Channel.DATA_TRACK: "_data_track",
}
"""Labels of the channels. Messages on channels with other labels are not read."""
