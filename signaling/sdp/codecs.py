"""Payload formats: which codec an SDP payload type is, which of two formats can decode what the other encodes.

Pure functions, and the table of our own payload types. Who calls it: `negotiation` and `peer_connection`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache

from sfu.parameters import NO_CODECS, Codec, Encoding, Kind, PayloadType
from signaling.sdp.parsing import MAX_CACHED_PROFILES, format_parameters
from signaling.sdp.session_description import Profile, RtpMap

RTCP_CONFLICT = range(64, 96)
"""Payload types that look like RTCP behind rtcp-mux (RFC 5761 section 4)."""
OPUS_FMTP = "minptime=10;useinbandfec=1"
"""We accept frames of 10 ms, and in-band FEC (RFC 7587 section 6.1)."""
STEREO_FMTP = ";stereo=1;maxaveragebitrate=510000"
"""The parameters that LiveKit adds for music. Without them libwebrtc sends Opus at the bit rates of speech."""

_CODECS: dict[tuple[Kind, str, int], Codec] = {
    (Kind.AUDIO, "opus", 48_000): Codec.OPUS,
    (Kind.AUDIO, "red", 48_000): Codec.RED,
    (Kind.AUDIO, "pcmu", 8_000): Codec.AUDIO,
    (Kind.AUDIO, "pcma", 8_000): Codec.AUDIO,
    (Kind.AUDIO, "g722", 8_000): Codec.AUDIO,
    (Kind.VIDEO, "vp8", 90_000): Codec.VP8,
    (Kind.VIDEO, "h264", 90_000): Codec.H264,
    (Kind.VIDEO, "vp9", 90_000): Codec.VP9,
    (Kind.VIDEO, "av1", 90_000): Codec.AV1,
    (Kind.VIDEO, "rtx", 90_000): Codec.RTX,
}
"""The codecs that we forward. Video RED, ULPFEC and FlexFEC are left out, because browsers then wrap all video
in RED, and no layer could be read."""

_STATIC = {0: RtpMap(0, "PCMU", 8_000), 8: RtpMap(8, "PCMA", 8_000), 9: RtpMap(9, "G722", 8_000)}
"""Payload types that need no a=rtpmap (RFC 3551 section 6)."""

SVC_CODECS = frozenset({Codec.VP9, Codec.AV1})
"""Codecs of which one stream carries several spatial layers, unless there are several streams (simulcast)."""
PRIMARY = frozenset({Codec.OPUS, Codec.AUDIO, Codec.VP8, Codec.H264, Codec.VP9, Codec.AV1})
"""Codecs that carry media themselves; RTX and RED carry another payload type."""
MAX_CACHED_FMTPS = 1_024
"""Different format parameters that are remembered: browsers together have some thirty."""
_VP9_PROFILES = ("0", "2")
_COMPANIONS = (Codec.RTX, Codec.RED)
AUDIO_FEEDBACK = ("transport-cc", "goog-remb")
"""RTCP feedback that audio may have. Not `nack`: without RTX a packet that is sent again has the SRTP index of the
first one and other header extensions, which gives GCM's key away. The repair of audio is RED."""


@dataclass(frozen=True, slots=True)
class Format:
    """One payload type that the peer offered and we can forward."""

    rtpmap: RtpMap
    codec: Codec
    fmtp: str = ""
    feedback: tuple[str, ...] = ()
    """Values of `a=rtcp-fb`, in order."""
    associated: int = -1
    """For RTX and RED: the payload type inside."""

    @property
    def payload_type(self) -> int:
        """The number in the RTP header."""
        return self.rtpmap.payload_type

    @property
    def description(self) -> str:
        """What a track keeps of its format: the fmtp, or for `Codec.AUDIO` the name and clock rate of its rtpmap."""
        return f"{self.rtpmap.name}/{self.rtpmap.clock_rate}" if self.codec is Codec.AUDIO else self.fmtp

    def parameters(self) -> PayloadType:
        """Return the engine's parameters of this payload type."""
        return PayloadType(self.codec, self.rtpmap.clock_rate, self.associated, "nack" in self.feedback)


@lru_cache(MAX_CACHED_PROFILES)
def supported_formats(profile: Profile, kind: Kind) -> tuple[Format, ...]:
    """Return the formats of an m-section that we can forward, in its order; RTX and RED only with what they carry."""
    rtpmaps = {rtpmap.payload_type: rtpmap for rtpmap in profile.rtpmaps}
    fmtps = dict(profile.fmtps)
    found: dict[int, Format] = {}
    for number in dict.fromkeys(profile.formats):
        if not number.isascii() or not number.isdigit() or len(number) > 3:
            continue
        payload_type = int(number)
        rtpmap = rtpmaps.get(payload_type) or _STATIC.get(payload_type)
        if rtpmap is None or payload_type in RTCP_CONFLICT:
            continue
        codec = _CODECS.get((kind, rtpmap.name.lower(), rtpmap.clock_rate), Codec.NONE)
        fmtp = fmtps.get(payload_type, "")
        if codec is Codec.NONE or (codec is Codec.VP9 and _vp9_profile(fmtp) not in _VP9_PROFILES):
            continue
        feedback = tuple(f.value for f in profile.feedback if f.payload_type in (payload_type, -1))
        associated = _associated(codec, fmtp)
        if kind is Kind.AUDIO:
            feedback = tuple(value for value in feedback if value in AUDIO_FEEDBACK)
        found[payload_type] = Format(rtpmap, codec, fmtp, () if codec in _COMPANIONS else feedback, associated)
    return tuple(f for f in found.values() if f.codec in PRIMARY or _carries(f, found))


def _associated(codec: Codec, fmtp: str) -> int:
    if codec is Codec.RTX:
        inner = format_parameters(fmtp).get("apt", "")
    elif codec is Codec.RED:
        inner = fmtp.partition("/")[0].strip()
    else:
        return -1
    return int(inner) if inner.isascii() and inner.isdigit() and len(inner) <= 3 else -1


def _carries(companion: Format, formats: dict[int, Format]) -> bool:
    inner = formats.get(companion.associated)
    if inner is None:
        return False
    return inner.codec is Codec.OPUS if companion.codec is Codec.RED else inner.codec in PRIMARY


def companions(of: Format, formats: Iterable[Format], codec: Codec) -> tuple[Format, ...]:
    """Return the RTX (or RED) format of a format, at most one: a second one for a payload type is not used."""
    return tuple(f for f in formats if f.codec is codec and f.associated == of.payload_type)[:1]


def without(formats: Sequence[Format], barred: frozenset[Codec]) -> Sequence[Format]:
    """Return the formats but those of `barred` codecs and their companions; all, if no codec would be left."""
    if not barred:
        return formats
    kept = {f.payload_type for f in formats if f.codec in PRIMARY and f.codec not in barred}
    left = [f for f in formats if f.payload_type in kept or (f.associated in kept and f.codec not in barred)]
    return left or formats


def opus_fmtp(*, dtx: bool, stereo: bool) -> str:
    """Return the Opus parameters of an answer to a publisher, which say how it should encode."""
    return OPUS_FMTP + ";usedtx=1" * dtx + STEREO_FMTP * stereo


def descriptions(formats: Iterable[Format]) -> tuple[tuple[int, Codec, str], ...]:
    """Return (payload type, codec, `Format.description`) of each format, RTX left out."""
    return tuple((f.payload_type, f.codec, f.description) for f in formats if f.codec is not Codec.RTX)


def sent_codecs(formats: Iterable[Format], barred: frozenset[Codec]) -> frozenset[Codec]:
    """Return the codecs that a publisher with these formats may send, RTX and barred ones left out. If none is left it
    may send nothing, which the engine does not take an empty set for."""
    return frozenset(f.codec for f in formats if f.codec is not Codec.RTX) - barred or NO_CODECS


class H264Profile(Enum):
    """Sets of coding tools (RFC 6184 section 8.1) that WebRTC endpoints use."""

    CONSTRAINED_BASELINE = "constrained baseline"
    BASELINE = "baseline"
    MAIN = "main"
    CONSTRAINED_HIGH = "constrained high"
    HIGH = "high"


_ALSO_DECODES: dict[H264Profile, frozenset[H264Profile]] = {
    H264Profile.CONSTRAINED_BASELINE: frozenset({H264Profile.BASELINE}),
    H264Profile.BASELINE: frozenset({H264Profile.CONSTRAINED_BASELINE}),
    H264Profile.MAIN: frozenset({H264Profile.CONSTRAINED_BASELINE, H264Profile.BASELINE}),
    H264Profile.CONSTRAINED_HIGH: frozenset(set(H264Profile) - {H264Profile.HIGH}),
    H264Profile.HIGH: frozenset(H264Profile),
}
"""Encoders that announce baseline do not use what it has beyond constrained baseline, so every decoder takes it."""


@lru_cache(MAX_CACHED_FMTPS)
def h264_profile(fmtp: str) -> tuple[H264Profile | None, int]:
    """Return (profile, packetization mode) of an H.264 fmtp; None: a profile that WebRTC endpoints do not use.

    Without profile-level-id it is constrained baseline, as libwebrtc has it: RFC 6184's default, baseline level 1,
    is what no endpoint means.
    """
    parameters = format_parameters(fmtp)
    mode = 1 if parameters.get("packetization-mode") == "1" else 0
    text = parameters.get("profile-level-id", "42e01f")
    try:
        number = int(text, 16)
    except ValueError:
        return None, mode
    if len(text) != 6:
        return None, mode
    idc, constraints = number >> 16, number >> 8 & 0xFF
    if idc == 0x42:
        return (H264Profile.CONSTRAINED_BASELINE if constraints & 0x40 else H264Profile.BASELINE), mode
    if idc == 0x4D:
        return (H264Profile.CONSTRAINED_BASELINE if constraints & 0x80 else H264Profile.MAIN), mode
    if idc == 0x64:
        return (H264Profile.CONSTRAINED_HIGH if constraints & 0x0C == 0x0C else H264Profile.HIGH), mode
    return None, mode


def _decodes_h264(published: str, offered: str) -> int | None:
    source, source_mode = h264_profile(published)
    sink, sink_mode = h264_profile(offered)
    # RFC 6184 section 6.2: a receiver of mode 0 takes single NAL units only, one of mode 1 takes both.
    if source is None or sink is None or sink_mode < source_mode:
        return None
    if source is not sink and source not in _ALSO_DECODES[sink]:
        return None
    return 2 * (source is not sink) + (source_mode != sink_mode)


@lru_cache(MAX_CACHED_FMTPS)
def _vp9_profile(fmtp: str) -> str:
    return format_parameters(fmtp).get("profile-id", "0")


@lru_cache(MAX_CACHED_FMTPS)
def _av1_profile(fmtp: str) -> str:
    return format_parameters(fmtp).get("profile", "0")


def decodes(codec: Codec, description: str, offered: Format) -> int | None:
    """Rank how well a peer that offered a format can decode a track with this codec and `Format.description`.

    0 is best, larger numbers are worse, None is not at all.
    """
    if offered.codec is not codec:
        return None
    match codec:
        case Codec.H264:
            return _decodes_h264(description, offered.fmtp)
        case Codec.VP9:
            return 0 if _vp9_profile(description) == _vp9_profile(offered.fmtp) else None
        case Codec.AV1:
            return 0 if _av1_profile(description) == _av1_profile(offered.fmtp) else None
        case Codec.AUDIO:
            return 0 if description.lower() in ("", offered.description.lower()) else None
        case _:
            return 0


def stream_kind(codec: Codec, description: str) -> str:
    """Return what decides who can decode a track: tracks of one codec with equal values fit equal formats."""
    match codec:
        case Codec.H264:
            profile, mode = h264_profile(description)
            return f"{profile.value if profile else ''} {mode}"
        case Codec.VP9:
            return _vp9_profile(description)
        case Codec.AV1:
            return _av1_profile(description)
        case Codec.AUDIO:
            return description.lower()
        case _:
            return ""


def decoders(codec: Codec, description: str, offered: Sequence[Format]) -> list[Format]:
    """Return the offered formats that can decode a track, best first, and of equal ones the first offered."""
    ranked = [(rank, i) for i, f in enumerate(offered) if (rank := decodes(codec, description, f)) is not None]
    return [offered[i] for _, i in sorted(ranked)]


def best_decoder(codec: Codec, description: str, offered: Sequence[Format]) -> Format | None:
    """Return the offered format that can decode a track best; None: there is none."""
    return next(iter(decoders(codec, description, offered)), None)


def most_compatible(codec: Codec, offered: Sequence[Format]) -> Format | None:
    """Return the format of a codec that a publisher should use so that most others can decode it."""
    ours = [f for f in offered if f.codec is codec]
    if codec is Codec.H264:
        return min(ours, key=_h264_rarity, default=None)
    if codec is Codec.VP9:
        return min(ours, key=lambda f: _vp9_profile(f.fmtp), default=None)
    return next(iter(ours), None)


def _h264_rarity(offered: Format) -> tuple[bool, bool, int]:
    """Rank an H.264 format: all can decode baseline, and all offer packetization mode 1, which is cheaper to send."""
    profile, mode = h264_profile(offered.fmtp)
    place = list(H264Profile).index(profile) if profile is not None else len(H264Profile)
    return place > list(H264Profile).index(H264Profile.BASELINE), mode == 0, place


_H264 = "level-asymmetry-allowed=1;packetization-mode={};profile-level-id={}"
BASELINE_FMTP = _H264.format(1, "42e01f")
"""The H.264 that all who have H.264 can decode: constrained baseline, packetization mode 1 (RFC 7742 section 6.2)."""

OWN_FORMATS: dict[Kind, tuple[Format, ...]] = {
    Kind.AUDIO: (
        Format(RtpMap(111, "opus", 48_000, 2), Codec.OPUS, OPUS_FMTP),
        Format(RtpMap(63, "red", 48_000, 2), Codec.RED, "111/111", (), 111),
        Format(_STATIC[0], Codec.AUDIO),
        Format(_STATIC[8], Codec.AUDIO),
        Format(_STATIC[9], Codec.AUDIO),
    ),
    Kind.VIDEO: tuple(
        member
        for payload_type, rtx, name, codec, fmtp in (
            (96, 97, "VP8", Codec.VP8, ""),
            (108, 109, "H264", Codec.H264, BASELINE_FMTP),
            (114, 115, "H264", Codec.H264, _H264.format(0, "42e01f")),
            (102, 103, "H264", Codec.H264, _H264.format(1, "42001f")),
            (104, 105, "H264", Codec.H264, _H264.format(0, "42001f")),
            (116, 117, "H264", Codec.H264, _H264.format(1, "4d001f")),
            (39, 40, "H264", Codec.H264, _H264.format(0, "4d001f")),
            (112, 113, "H264", Codec.H264, _H264.format(1, "640c1f")),
            (41, 42, "H264", Codec.H264, _H264.format(0, "640c1f")),
            (118, 119, "H264", Codec.H264, _H264.format(1, "64001f")),
            (120, 121, "H264", Codec.H264, _H264.format(0, "64001f")),
            (98, 99, "VP9", Codec.VP9, "profile-id=0"),
            (100, 101, "VP9", Codec.VP9, "profile-id=2"),
            (45, 46, "AV1", Codec.AV1, "level-idx=5;profile=0;tier=0"),
        )
        for member in (
            Format(RtpMap(payload_type, name, 90_000), codec, fmtp),
            Format(RtpMap(rtx, "rtx", 90_000), Codec.RTX, f"apt={payload_type}", (), payload_type),
        )
    ),
}
"""The formats of our own offers. Payload types are Chromium's, where it has one."""


def announced(encodings: tuple[Encoding, ...], bitrates: Sequence[int], codec: Codec) -> tuple[Encoding, ...]:
    """Return the layers with what the client announced that each will take.

    A single encoding of a scalable codec begins with its lowest layer; that of another codec is the highest one.
    """
    if len(encodings) == 1 and bitrates:
        bitrates = bitrates[:1] if codec in SVC_CODECS else bitrates[-1:]
    known = (*bitrates, *(len(encodings) * (0,)))
    return tuple(replace(each, bitrate_bps=bps) for each, bps in zip(encodings, known, strict=False))
