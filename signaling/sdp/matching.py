"""Finds which m-section takes which track, without trying every pair.

Who calls it: the two kinds of peer connection, with new objects for each pass over their m-sections. A description of
a thousand m-sections has few different sets of formats, and a thousand tracks are few different kinds of stream.
"""

from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from sfu.parameters import Codec, Kind
from signaling.sdp.codecs import Format, best_decoder, companions, stream_kind
from signaling.sdp.negotiation import Selection, WantedTrack

Match = tuple[Format, Format | None, Format | None]
"""The format of the media, of its RTX and of its RED."""


class Matching:
    """Finds the best formats for streams. Each pair of a set of formats and a kind of stream is compared once."""

    def __init__(self) -> None:
        """Start without results."""
        self._formats: dict[int, tuple[Format, ...]] = {}
        """Id of a tuple of formats -> the tuple, which m-sections with equal formats share. It is held here so that its
        id cannot become that of another tuple."""
        self._found: dict[tuple[int, Codec, str], Match | None] = {}

    def select(self, track: WantedTrack, formats: tuple[Format, ...]) -> Selection | None:
        """Return the best engine track of a track that a client with these formats can decode, and its formats."""
        for source in track.sources:
            match = self._match(source[0], source[1], formats)
            if match is not None:
                return Selection(source, *match)
        return None

    def takes(self, track: WantedTrack, formats: tuple[Format, ...]) -> bool:
        """Tell whether a client with these formats can decode a track."""
        return any(self._match(codec, description, formats) for codec, description, _ in track.sources)

    def _match(self, codec: Codec, description: str, formats: tuple[Format, ...]) -> Match | None:
        key = id(formats), codec, stream_kind(codec, description)
        if key not in self._found:
            self._formats[id(formats)] = formats
            self._found[key] = _match(codec, description, formats)
        return self._found[key]


def _match(codec: Codec, description: str, formats: tuple[Format, ...]) -> Match | None:
    media = best_decoder(codec, description, formats)
    if media is None:
        return None
    rtx, red = (next(iter(companions(media, formats, kind)), None) for kind in (Codec.RTX, Codec.RED))
    return media, rtx, red


class MSection(Protocol):
    """An m-section for media."""

    @property
    def kind(self) -> Kind:
        """Audio or video."""

    @property
    def formats(self) -> tuple[Format, ...]:
        """The formats that the client accepts there."""


AnySection = TypeVar("AnySection", bound=MSection)


class FreeSections(Generic[AnySection]):
    """Free m-sections in their order. Each is compared once with each kind of track, and is assigned once."""

    def __init__(self, m_sections: Iterable[AnySection], matching: Matching) -> None:
        """Start with these m-sections, which are all free."""
        self._m_sections: dict[Kind, list[AnySection]] = {kind: [] for kind in Kind}
        for m_section in m_sections:
            self._m_sections[m_section.kind].append(m_section)
        self._matching = matching
        self._taken: set[int] = set()
        self._first: dict[tuple[object, ...], int] = {}
        """Kind of track -> index before which no m-section is both free and fit for it."""

    def find(self, track: WantedTrack) -> AnySection | None:
        """Return the first free m-section that takes a track; None if there is none."""
        key = track.kind, *(kind_of_source(source) for source in track.sources)
        m_sections, index = self._m_sections[track.kind], self._first.get(key, 0)
        while index < len(m_sections) and not self._fits(m_sections[index], track):
            index += 1
        self._first[key] = index
        return m_sections[index] if index < len(m_sections) else None

    def take(self, m_section: AnySection) -> None:
        """Note that an m-section is no longer free."""
        self._taken.add(id(m_section))

    def _fits(self, m_section: AnySection, track: WantedTrack) -> bool:
        return id(m_section) not in self._taken and self._matching.takes(track, m_section.formats)


def kind_of_source(source: tuple[Codec, str, object]) -> tuple[Codec, str]:
    """Return what decides whether a client can decode one of a track's engine tracks."""
    codec, description, _ = source
    return codec, stream_kind(codec, description)
