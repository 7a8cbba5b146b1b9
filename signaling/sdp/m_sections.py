"""What a client's m-section is used for, and what an offer makes of it: values that reading and answering share."""

from dataclasses import dataclass, field

from sfu.parameters import Codec, Kind, TrackId
from signaling.sdp.bundle import Bundle
from signaling.sdp.codecs import Format
from signaling.sdp.forwarding import Forwarding
from signaling.sdp.negotiation import RID_URI, PublishDecision
from signaling.sdp.session_description import Direction, Extmap, Section, SessionDescription


@dataclass(frozen=True, slots=True)
class Published:
    """An engine track that an offer started or stopped."""

    mid: str
    track_sid: str
    cid: str
    engine_track: TrackId
    kind: Kind
    codec: Codec
    """The preferred codec. The engine tells which one the client really sends."""
    fmtp: str
    """The format's description, for `WantedTrack.sources`."""
    formats: tuple[tuple[int, Codec, str], ...] = ()
    """(payload type, codec, `Format.description`) of what was accepted, in this order; without RTX."""
    streams: int = 1
    """How many streams there are: more than one is simulcast."""


@dataclass(slots=True)
class MSection:
    """One bundled audio or video m-section."""

    section: Section
    kind: Kind
    direction: Direction
    """The direction as the client sees it."""
    formats: tuple[Format, ...] = ()
    """The client's formats that we support and the bundle admits."""
    extensions: tuple[Extmap, ...] = ()
    decision: PublishDecision | None = None
    published: Published | None = None
    forwarding: Forwarding | None = None
    """The track that we send here, or sent until it was no longer wanted."""
    resting: bool = False
    """The last answer took the track away. Clients announce a track on an m-section only if it was inactive before."""
    answered: tuple[object, str] = (None, "")
    """(what its text in the last answer depended on, that text)."""

    @property
    def mid(self) -> str:
        """The name of the m-section."""
        return self.section.mid

    @property
    def free(self) -> bool:
        """Whether the client would receive here, and nothing is sent."""
        return self.direction.receives and self.published is None and self.forwarding is None

    @property
    def has_rids(self) -> bool:
        """Whether the client may name its encodings by rids."""
        return any(extension.uri == RID_URI for extension in self.extensions)


@dataclass(slots=True)
class Layout:
    """The m-sections of an offer, with what each can be used for."""

    session: SessionDescription
    bundle: tuple[Section, ...]
    """Accepted m-sections in the order of the group; the first one carries the transport."""
    m_sections: dict[str, MSection]
    mixed: bool
    registry: Bundle = field(default_factory=Bundle)
