"""Checks an offer of WHIP or WHEP, and says which tracks it announces.

These are pure functions. WHIP answers an offer as a whole or not at all (RFC 9725 section 4.4.3). So everything for
which an m-section would be rejected is looked for here, before anybody joins.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from livekit.protocol.models import (
    AUDIO,
    CAMERA,
    HIGH,
    LOW,
    MEDIUM,
    MICROPHONE,
    SCREEN_SHARE,
    SCREEN_SHARE_AUDIO,
    VIDEO,
    TrackSource,
    VideoLayer,
)
from livekit.protocol.rtc import AddTrackRequest

from sfu.parameters import Codec, Kind
from signaling.sdp.bundle import Bundle
from signaling.sdp.codecs import PRIMARY, supported_formats
from signaling.sdp.negotiation import RID_URI, remote_transport
from signaling.sdp.offered import bundled_mids, encodings_of, is_acceptable, is_data, kind_of, track_id
from signaling.sdp.parsing import SdpError, format_parameters, parse
from signaling.sdp.session_description import Section, SessionDescription, Transport
from signaling.whip.problems import Problem

SOUND_OF = {CAMERA: MICROPHONE, SCREEN_SHARE: SCREEN_SHARE_AUDIO}
"""Source of a picture -> source of the sound that belongs to it."""
NOMINAL_SIZE = 1280, 720
"""The width and height that a picture is believed to have if the client does not say them, since SDP does not. Viewers
who show a track small are sent a lower layer by them, and recorders make files of this size."""
_QUALITIES = (LOW, MEDIUM, HIGH)


@dataclass(frozen=True, slots=True)
class Publication:
    """What a client publishes, beyond what its offer says."""

    source: TrackSource = CAMERA
    """The source of the picture. Sound has the source that belongs to it."""
    size: tuple[int, int] = NOMINAL_SIZE
    """Width and height of the picture, in pixels."""


@dataclass(frozen=True, slots=True)
class Offer:
    """An offer that can be answered as a whole."""

    session: SessionDescription
    media: tuple[Section, ...]
    """The m-sections of audio and video, at most one of each."""

    @property
    def sdp(self) -> str:
        """The offer as the text of SDP."""
        return self.session.serialize()

    @property
    def transport(self) -> Transport:
        """The client's ICE and DTLS attributes."""
        return self.session.transport_of(_bundle(self.session)[0])

    def restarted(self, ufrag: str, password: str) -> "Offer":
        """Return the same offer with other ICE credentials."""
        sections = tuple(
            replace(each, transport=replace(each.transport, ufrag="", password="")) for each in self.session.sections
        )
        transport = replace(self.session.transport, ufrag=ufrag, password=password)
        return replace(self, session=replace(self.session, transport=transport, sections=sections))


def read_offer(text: str, *, publishes: bool) -> Offer:
    """Read the offer of a client that publishes (WHIP) or plays (WHEP).

    Raises:
        Problem: 400: it is no session description; 422: it cannot be answered as a whole.
    """
    try:
        session = parse(text)
    except SdpError as error:
        raise Problem(400, f"the offer cannot be read: {error}") from error
    session = _with_inherited(session)
    bundle = _bundle(session)
    bundled = {section.mid for section in bundle}
    for section in session.sections:
        _check(session, section, bundled, publishes)
    _check_payload_types(bundle)
    media = tuple(section for section in session.sections if kind_of(section) is not None)
    if not media:
        raise Problem(422, "the offer has neither audio nor video")
    if len({each.kind for each in session.sections}) != len(session.sections):
        raise Problem(422, "the offer has more than one m-section of a kind")
    try:
        remote_transport(session, bundle, None)
    except SdpError as error:
        raise Problem(422, str(error)) from error
    return Offer(session, media)


def _with_inherited(session: SessionDescription) -> SessionDescription:
    """Return the description with what bundle-only m-sections leave out because the first one has it.

    RFC 9429 section 5.2.1 puts `a=rtcp-mux` into the m-section that carries the transport only.
    """
    first, *others = session.sections or (Section(""),)
    if not first.rtcp_mux or not others:
        return session
    inheriting = (replace(each, rtcp_mux=True) if each.bundle_only else each for each in others)
    return replace(session, sections=(first, *inheriting))


def _bundle(session: SessionDescription) -> tuple[Section, ...]:
    """Return the bundled m-sections, in the order of their group: the first one has the transport."""
    by_mid = {section.mid: section for section in session.sections}
    return tuple(by_mid[mid] for mid in bundled_mids(session) if mid in by_mid)


def _check(session: SessionDescription, section: Section, bundled: set[str], publishes: bool) -> None:
    """Raise a `Problem` if an m-section would be rejected, or its media would go the wrong way."""
    if not is_acceptable(section) or section.mid not in bundled:
        raise Problem(422, f'm-section "{section.mid}" cannot be used: BUNDLE with rtcp-mux over DTLS is needed')
    if is_data(section):
        return
    direction, kind = session.direction_of(section), kind_of(section)
    if not (direction.sends if publishes else direction.receives):
        raise Problem(422, f'm-section "{section.mid}" is {direction.value}')
    if kind is None or not any(each.codec in PRIMARY for each in supported_formats(section.profile, kind)):
        raise Problem(422, f'm-section "{section.mid}" has no codec that this server forwards')


def _check_payload_types(bundle: tuple[Section, ...]) -> None:
    """Raise a `Problem` if a payload type means different things in two m-sections (RFC 9143 section 9.1)."""
    meanings = Bundle()
    for section in bundle:
        kind = kind_of(section)
        formats = supported_formats(section.profile, kind) if kind is not None else ()
        if meanings.admit_formats(formats) != formats:
            raise Problem(422, f'm-section "{section.mid}" uses a payload type that means something else in the bundle')


def codecs_of(section: Section) -> frozenset[Codec]:
    """Return the codecs of an m-section that carry media themselves."""
    kind = kind_of(section)
    formats = supported_formats(section.profile, kind) if kind is not None else ()
    return frozenset(each.codec for each in formats) & PRIMARY


def announcement(section: Section, what: Publication) -> AddTrackRequest:
    """Return what a client with a WebSocket would have announced for a sending m-section."""
    kind = kind_of(section)
    cid = track_id(section) or section.kind
    if kind is Kind.AUDIO:
        stereo = _is_stereo(fmtp for _, fmtp in section.profile.fmtps)
        source = SOUND_OF.get(what.source, MICROPHONE)
        return AddTrackRequest(cid=cid, type=AUDIO, source=source, stereo=stereo, disable_dtx=stereo)
    has_rids = any(each.uri == RID_URI for each in section.profile.extensions)
    layers = _layers(len(encodings_of(section, has_rids)), what.size)
    width, height = what.size
    return AddTrackRequest(cid=cid, type=VIDEO, source=what.source, width=width, height=height, layers=layers)


def _is_stereo(fmtps: Iterable[str]) -> bool:
    """Tell whether a client says that it sends stereo (RFC 7587 section 6.1)."""
    return any(format_parameters(each).get("sprop-stereo") == "1" for each in fmtps)


def _layers(count: int, size: tuple[int, int]) -> list[VideoLayer]:
    """Describe simulcast layers, lowest first, each half as wide as the next one. A single one is not described."""
    if count < 2:
        return []
    halvings = range(count - 1, -1, -1)
    sizes = [(size[0] >> halving, size[1] >> halving) for halving in halvings]
    return [
        VideoLayer(quality=quality, width=width, height=height)
        for quality, (width, height) in zip(_QUALITIES, sizes, strict=False)
    ]
