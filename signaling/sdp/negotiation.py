"""Negotiation: what is agreed on of an m-section, how it is written, and the engine's parameters.

These are pure functions on m-sections; the state of a connection is in `peer_connection` and `offering`. They follow
RFC 9429 (JSEP) for answers and RFC 9143 for BUNDLE. What an offered m-section says is read by `offered`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from sfu.parameters import (
    EXTENSION_URIS,
    MAX_SPATIAL,
    MAX_TEMPORAL,
    Codec,
    DtlsRole,
    Extension,
    IceCredentials,
    Kind,
    LocalSubscription,
    LocalTransport,
    RemoteTransport,
    SubscribeParameters,
    TrackId,
)
from signaling.sdp.codecs import PRIMARY, SVC_CODECS, Format, companions, most_compatible, sent_codecs, without
from signaling.sdp.offered import is_data
from signaling.sdp.parsing import MAX_CACHED_PROFILES, SdpError
from signaling.sdp.session_description import (
    Direction,
    Extmap,
    Feedback,
    Profile,
    Section,
    SessionDescription,
    Setup,
    SsrcAttribute,
    SsrcGroup,
    Transport,
)

MAX_ONE_BYTE_ID = 14
"""Largest extension id of the one-byte form (RFC 8285 section 4.2)."""
SCTP_PORT = 5_000
MAX_MESSAGE_SIZE = 262_144
"""Bytes of one data channel message that we accept; what browsers offer."""
MAX_REMOTE_MESSAGE_SIZE, DEFAULT_REMOTE_MESSAGE_SIZE = 1 << 30, 65_536
"""The largest size of a peer's, which also stands for 0 (any size); the size if it gives none (RFC 8841 section 6)."""
MIN_PASSWORD, MAX_PASSWORD = 22, 256
"""Characters (RFC 8839 section 5.4)."""
MIN_UFRAG = 4
"""Characters (RFC 8839 section 5.4); the upper bound is that of any token."""

_URI = {extension: uri for uri, extension in EXTENSION_URIS.items()}
TRANSPORT_CC_URI = _URI[Extension.TRANSPORT_CC]
RID_URI = _URI[Extension.RID]
DEPENDENCY_URI = _URI[Extension.DEPENDENCY]

TRANSPORT_CC = "transport-cc"
FEEDBACK = (TRANSPORT_CC, "goog-remb", "ccm fir", "nack", "nack pli")
"""RTCP feedback that we act on."""
_MIRRORED = {Direction.SENDONLY: Direction.RECVONLY, Direction.RECVONLY: Direction.SENDONLY}

Source = tuple[Codec, str, TrackId]
"""(codec, `Format.description`, engine track): one form in which a track can be had."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """The settings with which the forwarding of a track to a client begins."""

    spatial: int = MAX_SPATIAL
    temporal: int = MAX_TEMPORAL
    """The highest layers that the client wants."""
    priority: int = 0
    pixels: int = 0  # as `playout_delay_ms`: see `SubscribeParameters`
    silence: bool = False
    blocked: bool = False
    """Send silence: the track is muted, and the client waits for its first packet. Send nothing."""
    playout_delay_ms: tuple[int, int] | None = None


EVERYTHING = Beginning()


@dataclass(frozen=True, slots=True)
class WantedTrack:
    """One track to be forwarded to a client."""

    track_sid: str
    publisher_sid: str
    kind: Kind
    sources: tuple[Source, ...]
    """The track's engine tracks, best first. With a backup codec there are more than one."""
    cname: str
    stereo: bool = False
    begin: Callable[[], Beginning] = field(default=Beginning, compare=False)
    """Called when forwarding starts. Until then the client may change what it shows, and the publisher may mute."""
    in_step: str = ""
    """What of the publisher's the client plays in step with it."""


@dataclass(frozen=True, slots=True)
class PublishDecision:
    """The publisher's decision about a new sending m-section."""

    codec: Codec | None
    """The codec to prefer. None, or one that was not offered, stands for the first supported one in the offer."""
    track_sid: str
    dtx: bool
    stereo: bool
    red: bool
    voices: tuple[int, int] = (0, 0)
    """The group of voices of which only the loudest are forwarded, and how many; (0, 0): it is always forwarded."""
    screen: bool = False
    """Whether the track is a shared screen or the sound of one."""
    barred: frozenset[Codec] = frozenset()
    """Codecs that may not be published in this room."""
    bitrates: tuple[int, ...] = ()
    """The bit rates in bit/s that the client announced of its layers, lowest first."""

    def admitted(self, formats: Iterable[Format]) -> frozenset[Codec]:
        """Return the codecs that the publisher may send when `formats` are accepted."""
        return sent_codecs(formats, self.barred)


@dataclass(frozen=True, slots=True)
class Selection:
    """The formats with which one engine track is forwarded to one client."""

    source: Source
    media: Format
    rtx: Format | None = None
    red: Format | None = None

    def parameters(self, mid: str, cname: str, *, paused: bool, begin: Beginning = EVERYTHING) -> SubscribeParameters:
        """Return the engine's parameters of this subscription."""
        return SubscribeParameters(
            mid=mid,
            payload_type=self.media.payload_type,
            rtx_payload_type=self.rtx.payload_type if self.rtx else -1,
            red_payload_type=self.red.payload_type if self.red else -1,
            cname=cname,
            paused=paused or begin.blocked,
            spatial=begin.spatial,
            temporal=begin.temporal,
            priority=begin.priority,
            pixels=begin.pixels,
            silence=begin.silence,
            playout_delay_ms=begin.playout_delay_ms,
            codec=self.media.codec,
        )

    @property
    def engine_track(self) -> TrackId:
        """The engine track that is forwarded."""
        return self.source[2]

    @property
    def formats(self) -> tuple[Format, ...]:
        """All its formats, that of the media first."""
        return tuple(f for f in (self.media, self.rtx, self.red) if f is not None)


# Which header extensions and formats are used.


@lru_cache(MAX_CACHED_PROFILES)
def accepted_extensions(profile: Profile, mixed: bool) -> tuple[Extmap, ...]:
    """Return the offered header extensions that the answer accepts."""
    highest = 255 if mixed else MAX_ONE_BYTE_ID
    found: dict[str, Extmap] = {}
    ids: set[int] = set()
    for offered in profile.extensions:
        usable = offered.id <= highest and offered.id != MAX_ONE_BYTE_ID + 1 and offered.direction != Direction.INACTIVE
        if usable and offered.uri in EXTENSION_URIS and offered.uri not in found and offered.id not in ids:
            ids.add(offered.id)
            # RFC 8285 section 6: a sendonly offer is answered with recvonly and the other way round.
            way = _MIRRORED.get(offered.direction) if offered.direction else None
            found[offered.uri] = Extmap(offered.id, offered.uri, way)
    return tuple(found.values())


def publish_extensions(extensions: tuple[Extmap, ...], codec: Codec) -> tuple[Extmap, ...]:
    """Return the header extensions of a publisher of `codec`: the dependency descriptor for scalable codecs only.

    With it libwebrtc shrinks the payload descriptor of VP8 to one byte, and picture ids and temporal layers are gone.
    """
    if codec in SVC_CODECS:
        return extensions
    return tuple(extension for extension in extensions if extension.uri != DEPENDENCY_URI)


def publish_formats(formats: Sequence[Format], decision: PublishDecision) -> tuple[Format, ...]:
    """Return the formats on which a client may publish, the one that it should send first: browsers send that.

    The others stay in the answer, because pion can never send what its connection's first answers left out. RED comes
    first if it is wanted, and is left out otherwise.
    """
    formats = without(formats, decision.barred)
    wanted = most_compatible(decision.codec, formats) if decision.codec is not None else None
    if wanted is None:
        wanted = most_compatible(next(f.codec for f in formats if f.codec in PRIMARY), formats)
    assert wanted is not None, "formats always hold a primary codec"
    red = companions(wanted, formats, Codec.RED) if decision.red else ()
    first = (*red, wanted, *companions(wanted, formats, Codec.RTX))
    return first + tuple(f for f in formats if f not in first and f.codec is not Codec.RED)


def used_first(formats: tuple[Format, ...], selection: Selection) -> tuple[Format, ...]:
    """Return all formats, those of the selection first, because the first one is what we send."""
    return selection.formats + tuple(f for f in formats if f not in selection.formats)


# M-sections that we write.


def reports_arrivals(profile: Profile) -> bool:
    """Tell whether an m-section has the header extension and the feedback of transport-cc."""
    extension = any(each.uri == TRANSPORT_CC_URI for each in profile.extensions)
    return extension and any(each.value == TRANSPORT_CC for each in profile.feedback)


def answered_feedback(formats: Iterable[Format], extensions: Iterable[Extmap], *, sends: bool) -> tuple[Format, ...]:
    """Return the formats with the feedback that we accept.

    transport-cc needs its header extension. goog-remb is accepted for streams that we send, and only without the more
    exact transport-cc.
    """
    congestion = any(e.uri == TRANSPORT_CC_URI for e in extensions)
    answered = []
    for each in formats:
        transport_cc = congestion and TRANSPORT_CC in each.feedback
        left_out = set() if sends and not transport_cc else {"goog-remb"}
        left_out |= set() if transport_cc else {TRANSPORT_CC}
        answered.append(replace(each, feedback=tuple(v for v in each.feedback if v not in left_out)))
    return tuple(answered)


def build_profile(formats: Sequence[Format], extensions: Iterable[Extmap], *, opus: str) -> Profile:
    """Build the codec and extension lines, with the feedback that we know.

    `opus` is the fmtp of Opus; VP8's, if there is one, is the peer's own limit and not repeated.
    """
    fmtps = {f.payload_type: {Codec.OPUS: opus, Codec.VP8: ""}.get(f.codec, f.fmtp) for f in formats}
    return Profile(
        formats=tuple(str(f.payload_type) for f in formats),
        rtpmaps=tuple(f.rtpmap for f in formats),
        fmtps=tuple((payload_type, fmtp) for payload_type, fmtp in fmtps.items() if fmtp),
        feedback=tuple(Feedback(f.payload_type, v) for f in formats for v in FEEDBACK if v in f.feedback),
        extensions=tuple(extensions),
    )


def with_track(answer: Section, track: WantedTrack, local: LocalSubscription) -> Section:
    """Return the m-section with the names and SSRCs of the track that we send on it."""
    stream = f"{track.publisher_sid}|{track.in_step or track.track_sid}"
    ssrcs = [local.ssrc, local.rtx_ssrc] if local.rtx_ssrc else [local.ssrc]
    values = (("cname", track.cname), ("msid", f"{stream} {track.track_sid}"))
    return replace(
        answer,
        msids=((stream, track.track_sid),),
        ssrcs=tuple(SsrcAttribute(ssrc, name, value) for ssrc in ssrcs for name, value in values),
        ssrc_groups=(SsrcGroup("FID", tuple(ssrcs)),) if local.rtx_ssrc else (),
    )


def rejected_section(offered: Section) -> Section:
    """Return the answer that rejects an m-section (RFC 3264 section 6)."""
    return Section(offered.kind, 0, offered.protocol, Profile(offered.profile.formats), offered.mid)


def data_section(mid: str, transport: Transport, protocol: str = "UDP/DTLS/SCTP") -> Section:
    """Return the m-section of the data channels, for offers and answers."""
    return Section(
        kind="application",
        protocol=protocol,
        profile=Profile(("webrtc-datachannel",)),
        mid=mid,
        transport=transport,
        sctp_port=SCTP_PORT,
        max_message_size=MAX_MESSAGE_SIZE,
    )


def local_transport(local: LocalTransport, setup: Setup) -> Transport:
    """Return our ICE and DTLS attributes, with the hash name in its usual spelling."""
    return Transport(local.ice.ufrag, local.ice.password, (), (local.fingerprint,), setup)


# The peer's half of the transport.


def remote_transport(
    session: SessionDescription, bundle: Sequence[Section], before: RemoteTransport | None
) -> RemoteTransport:
    """Return the peer's ICE and DTLS parameters from the accepted m-sections, of which the first is the tagged one.

    `before` are its earlier parameters: roles and certificates stay for the life of a connection.

    Raises:
        SdpError: the parameters are missing, or do not fit.
    """
    remote = session.transport_of(bundle[0])
    if len(remote.ufrag) < MIN_UFRAG or not MIN_PASSWORD <= len(remote.password) <= MAX_PASSWORD:
        raise SdpError(f'm-section "{bundle[0].mid}" has no usable a=ice-ufrag and a=ice-pwd')
    if not (remote.ufrag.isascii() and remote.password.isascii()):
        raise SdpError("a=ice-ufrag and a=ice-pwd are not ASCII")
    if not remote.fingerprints:
        raise SdpError(f'm-section "{bundle[0].mid}" has no usable a=fingerprint')
    if before is not None and set(remote.fingerprints) != set(before.fingerprints):
        raise SdpError("the a=fingerprint of a connection cannot change")
    role = DtlsRole.CLIENT if remote.setup is Setup.PASSIVE else DtlsRole.SERVER
    data = next((section for section in bundle if is_data(section)), None)
    size = DEFAULT_REMOTE_MESSAGE_SIZE
    if data is not None and data.max_message_size is not None:
        size = min(data.max_message_size or MAX_REMOTE_MESSAGE_SIZE, MAX_REMOTE_MESSAGE_SIZE)
    return RemoteTransport(
        ice=IceCredentials(remote.ufrag, remote.password),
        fingerprints=remote.fingerprints,
        role=role if before is None else before.role,
        sctp_port=(SCTP_PORT if data.sctp_port is None else data.sctp_port) if data is not None else None,
        max_message_size=size,
    )
