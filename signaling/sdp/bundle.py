"""The numbers of a bundle: which payload type and which extension id means what, in all of its m-sections."""

from collections.abc import Iterable
from dataclasses import replace

from sfu.parameters import EXTENSION_URIS, Kind, MediaParameters, PayloadType
from signaling.sdp.codecs import Format
from signaling.sdp.negotiation import reports_arrivals
from signaling.sdp.offered import kind_of
from signaling.sdp.session_description import Extmap, Section


class Bundle:
    """The meaning of payload types and extension ids, of which each has one in a bundle (RFC 9143 section 9.1).

    The first m-section that uses a number decides; what contradicts it is not accepted.
    """

    def __init__(self) -> None:
        """Start without definitions."""
        self._payload_types: dict[int, PayloadType] = {}
        self._uris: dict[int, str] = {}
        self._ids: dict[str, int] = {}
        self._admitted: dict[int, tuple[tuple[Format, ...], tuple[Format, ...]]] = {}
        """Id of a tuple -> (the tuple, its admitted formats). Most m-sections share one tuple."""

    def admit_formats(self, formats: tuple[Format, ...]) -> tuple[Format, ...]:
        """Define the payload types; return those without contradiction, or `formats` itself if that is all."""
        if id(formats) not in self._admitted:
            kept = [f for f in formats if self._admit(f)]
            numbers = {f.payload_type for f in kept}
            admitted = tuple(f for f in kept if f.associated < 0 or f.associated in numbers)
            self._admitted[id(formats)] = formats, formats if len(admitted) == len(formats) else admitted
        return self._admitted[id(formats)][1]

    def _admit(self, offered: Format) -> bool:
        new = offered.parameters()
        known = self._payload_types.setdefault(offered.payload_type, new)
        if new.nack and not known.nack and replace(known, nack=True) == new:
            self._payload_types[offered.payload_type] = new
            return True
        return known == new or known == replace(new, nack=True)

    def admit_extensions(self, extensions: tuple[Extmap, ...]) -> tuple[Extmap, ...]:
        """Define the extension ids; return those without contradiction, or `extensions` itself if that is all."""
        kept = []
        for offered in extensions:
            same_id = self._uris.get(offered.id, offered.uri) == offered.uri
            if same_id and self._ids.get(offered.uri, offered.id) == offered.id:
                self._uris[offered.id] = offered.uri
                self._ids[offered.uri] = offered.id
                kept.append(offered)
        return extensions if len(kept) == len(extensions) else tuple(kept)

    def parameters(self, mixed: bool, receiving: Iterable[Section] = ()) -> MediaParameters:
        """Return the engine's parameters for all numbers of the bundle.

        `receiving` are the m-sections on which the client receives.
        """
        unnumbered = {kind_of(section) for section in receiving if not reports_arrivals(section.profile)}
        extensions = {number: EXTENSION_URIS[uri] for number, uri in self._uris.items() if uri in EXTENSION_URIS}
        return MediaParameters(
            dict(self._payload_types), extensions, mixed, frozenset(k for k in Kind if k in unnumbered)
        )
