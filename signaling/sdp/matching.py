"""Which m-section takes which track, found without trying every pair.

Who calls it: the two kinds of peer connection, with new objects for each pass over their m-sections. A description of
a thousand m-sections has few different sets of formats, and a thousand tracks are few different kinds of stream.
"""

from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from sfu.parameters import Codec, Kind
from signaling.sdp.codecs import Format, best_decoder, companions, stream_kind
from signaling.sdp.negotiation import Selection, WantedTrack

Match = tuple[Format, Format | None, Format | None]
"""The format of the media, and those of its RTX and RED."""


class Matching:
    """The best formats for streams, each different pair of formats and kind of stream looked at once."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._formats: dict[int, tuple[Format, ...]] = {}
        """Id of a tuple of formats -> the tuple. M-sections with equal offers share one. It is held here so that its id
        cannot become another tuple's."""
        self._found: dict[tuple[int, Codec, str], Match | None] = {}

    def select(self, track: WantedTrack, formats: tuple[Format, ...]) -> Selection | None:
        """The best engine track of a track that a client with these formats can decode, and the formats for it."""
        for source in track.sources:
            match = self._match(source[0], source[1], formats)
            if match is not None:
                return Selection(source, *match)
        return None

    def takes(self, track: WantedTrack, formats: tuple[Format, ...]) -> bool:
        """Whether a client with these formats can decode a track."""
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


class Place(Protocol):
    """An m-section for media."""

    @property
    def kind(self) -> Kind:
        """Audio or video."""

    @property
    def formats(self) -> tuple[Format, ...]:
        """What the client takes there."""


P = TypeVar("P", bound=Place)


class Vacancies(Generic[P]):
    """Free m-sections in their order; each is looked at once for each kind of track, and given away once."""

    def __init__(self, places: Iterable[P], matching: Matching) -> None:
        """`places` are all free."""
        self._places: dict[Kind, list[P]] = {kind: [] for kind in Kind}
        for place in places:
            self._places[place.kind].append(place)
        self._matching = matching
        self._taken: set[int] = set()
        self._first: dict[tuple[object, ...], int] = {}
        """Kind of track -> index before which no m-section is both free and fit for it."""

    def find(self, track: WantedTrack) -> P | None:
        """The first free m-section that takes a track."""
        key = track.kind, *(kind_of_source(source) for source in track.sources)
        places, index = self._places[track.kind], self._first.get(key, 0)
        while index < len(places) and not self._fits(places[index], track):
            index += 1
        self._first[key] = index
        return places[index] if index < len(places) else None

    def take(self, place: P) -> None:
        """An m-section is not free any more."""
        self._taken.add(id(place))

    def _fits(self, place: P, track: WantedTrack) -> bool:
        return id(place) not in self._taken and self._matching.takes(track, place.formats)


def kind_of_source(source: tuple[Codec, str, object]) -> tuple[Codec, str]:
    """What decides who can decode one of a track's engine tracks."""
    codec, description, _ = source
    return codec, stream_kind(codec, description)
