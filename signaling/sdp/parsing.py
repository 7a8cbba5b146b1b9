"""Parsing session descriptions (RFC 8866).

Who calls it: `negotiation` and `peer_connection`. The values and their way back to text are in `session_description`;
this file has the grammar, and decides nothing about answers.

Hostile text is normal: whatever exceeds a bound or breaks the grammar of `v=` and `m=` lines is an `SdpError` whose
text can be shown to the peer; an attribute that is odd, unknown or malformed is as if it were absent (RFC 8866 section
5.13: "If an attribute is received that is not understood, it MUST be ignored").
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from hashlib import blake2b
from typing import TypeVar

from signaling.sdp.session_description import (
    Direction,
    Extmap,
    Feedback,
    Profile,
    Rid,
    RtpMap,
    Section,
    SessionDescription,
    Setup,
    Simulcast,
    SsrcAttribute,
    SsrcGroup,
    Transport,
)

MAX_TEXT = 1 << 20
"""Characters in one description; 60 participants with two tracks each need about 600,000."""
MAX_SECTIONS = 1_000
"""m-sections in one description."""
MAX_FORMATS = 128
"""Payload types on one m= line: there are no more numbers."""
MAX_EXTENSIONS = 64
"""a=extmap lines in one m-section; browsers send 13."""
MAX_RIDS = 32
"""a=rid lines in one m-section; three are used."""
MAX_REPEATS = 512
"""Lines of any other attribute in one m-section (a=rtcp-fb is the most frequent: five for each payload type)."""
MAX_NAME = 256
"""Characters of one token (mid, rid, track id, ufrag, ...); ICE allows 256 (RFC 8839 section 5.4)."""
MAX_EXTENSION_ID = 255
"""RFC 8285 section 5: 4096 and above are only placeholders in offers, the packet has one byte."""
MAX_KNOWN_SECTION = 32_768
"""Characters of the longest m-section that is remembered after parsing."""
MAX_PROFILE = 65_536
"""Characters of the codec and extension lines of one m-section; browsers need 7,000."""
MAX_CACHED_PROFILES = 256
"""Different sets of codec and extension lines that are remembered; one kind of client has a handful."""

_FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LINE_START = re.compile(r"\n(?=m=)")


class SdpError(Exception):
    """The peer's description cannot be used; the text says why."""


class KnownSections:
    """The m-sections of the last description that one peer sent, by the digest of their text.

    A peer repeats its whole description in each negotiation, with one m-section changed or added. Only that one is
    parsed. What is remembered belongs to the connection and ends with it.
    """

    def __init__(self) -> None:
        """Start without m-sections."""
        self._before: dict[bytes, Section] = {}
        self._now: dict[bytes, Section] = {}

    def parse(self, text: str) -> Section:
        """Parse one m-section, unless the last description had it too.

        Raises:
            SdpError: it cannot be used.
        """
        if len(text) > MAX_KNOWN_SECTION:
            return _parse_section(text)
        key = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        section = self._before.get(key) or _parse_section(text)
        self._now[key] = section
        return section

    def begin(self) -> None:
        """Begin another description, and forget what the last one did not repeat."""
        self._before, self._now = self._now, {}


def parse(text: str, known: KnownSections | None = None) -> SessionDescription:
    """Parse a description with CRLF or LF line ends.

    `known` belongs to the connection of the description. With it, m-sections that did not change are not parsed again.

    Raises:
        SdpError: the description cannot be used. Nothing else is raised, whatever the text is.
    """
    known = known or KnownSections()
    known.begin()
    if len(text) > MAX_TEXT:
        raise SdpError(f"the session description has more than {MAX_TEXT} characters")
    text = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n") + "\n"
    if not text.startswith("v=0\n"):
        raise SdpError('a session description starts with the line "v=0"')
    head, *bodies = _LINE_START.split(text.rstrip("\n"), maxsplit=MAX_SECTIONS + 1)
    if len(bodies) > MAX_SECTIONS:
        raise SdpError(f"the session description has more than {MAX_SECTIONS} m-sections")
    try:
        session = _parse_session(head)
    except SdpError as error:
        raise SdpError(f"session level: {error}") from None
    sections = []
    for index, body in enumerate(bodies):
        try:
            sections.append(known.parse(body))
        except SdpError as error:
            raise SdpError(f"m-section {index}: {error}") from None
    mids = [section.mid for section in sections if section.mid]
    if len(mids) != len(set(mids)):
        raise SdpError("two m-sections have the same a=mid")
    return replace(session, sections=tuple(sections))


def format_parameters(fmtp: str) -> dict[str, str]:
    """Return the `name=value;...` parameters of an fmtp value, names in lower case; without "=" the value is ""."""
    parameters = {}
    for piece in fmtp.split(";"):
        name, _, value = piece.partition("=")
        if name.strip():
            parameters[name.strip().lower()] = value.strip()
    return parameters


# Parsing: lines are first sorted by attribute name, then each attribute's values become one field.

_Attributes = dict[str, list[str]]


def _lines(text: str) -> list[str]:
    if _FORBIDDEN.search(text):
        raise SdpError("control characters")
    return text.split("\n")


def _attributes(lines: Iterable[str]) -> _Attributes:
    found: _Attributes = {}
    for line in lines:
        if line.startswith("a="):
            name, _, value = line[2:].partition(":")
            found.setdefault(name.strip(), []).append(value.strip())
    for name, limit in (("extmap", MAX_EXTENSIONS), ("rid", MAX_RIDS)):
        if len(found.get(name, ())) > limit:
            raise SdpError(f"more than {limit} a={name} lines")
    for name, values in found.items():
        if len(values) > MAX_REPEATS:
            raise SdpError(f"more than {MAX_REPEATS} a={name[:40]} lines")
    return found


def _parse_session(text: str) -> SessionDescription:
    lines = _lines(text)
    origin = next((line[2:].strip() for line in lines if line.startswith("o=")), "")
    found = _attributes(lines)
    groups = [value.split() for value in found.get("group", ())]
    return SessionDescription(
        origin=origin,
        bundles=tuple(tuple(group[1:]) for group in groups if group and group[0] == "BUNDLE"),
        ice_lite="ice-lite" in found,
        extmap_allow_mixed="extmap-allow-mixed" in found,
        direction=_direction(found),
        transport=_transport(found),
    )


def _parse_section(text: str) -> Section:
    lines = _lines(text)
    kind, port, protocol, formats = _media_line(lines[0])
    found = _attributes(lines)
    return Section(
        kind=kind,
        port=port,
        protocol=protocol,
        profile=_profile(formats, found),
        mid=_token(found, "mid"),
        direction=_direction(found),
        msids=_msids(found.get("msid", ())),
        bundle_only="bundle-only" in found,
        rtcp_mux="rtcp-mux" in found,
        rtcp_rsize="rtcp-rsize" in found,
        extmap_allow_mixed="extmap-allow-mixed" in found,
        transport=_transport(found),
        rids=_rids(found.get("rid", ())),
        simulcast=_simulcast(found.get("simulcast", ())),
        ssrcs=_ssrcs(found.get("ssrc", ())),
        ssrc_groups=_ssrc_groups(found.get("ssrc-group", ())),
        sctp_port=_first_number(found, "sctp-port", 0xFFFF),
        max_message_size=_first_number(found, "max-message-size", (1 << 62)),
        candidates=tuple(value for value in found.get("candidate", ()) if value),
        end_of_candidates="end-of-candidates" in found,
    )


def _media_line(line: str) -> tuple[str, int, str, tuple[str, ...]]:
    parts = line[2:].split()
    if len(parts) < 4:
        raise SdpError(f'"{line[:80]}" is not an m= line')
    port = _number(parts[1].partition("/")[0], 0xFFFF)
    if port is None:
        raise SdpError(f'"{parts[1][:40]}" is not a port')
    if len(parts) > 3 + MAX_FORMATS:
        raise SdpError(f"more than {MAX_FORMATS} formats")
    return parts[0], port, parts[2], tuple(parts[3:])


def _number(text: str, highest: int) -> int | None:
    """Read a decimal number from 0 to `highest`; None: it is none. `int` would take signs and other digits too."""
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        return None
    value = int(text)
    return value if value <= highest else None


def _first_number(found: _Attributes, name: str, highest: int) -> int | None:
    return _number(found[name][0], highest) if name in found else None


_SPACE = re.compile(r"\s")


def _is_token(text: str) -> bool:
    return 0 < len(text) <= MAX_NAME and _SPACE.search(text) is None


def _token(found: _Attributes, name: str) -> str:
    value = found.get(name, ("",))[0]
    return value if _is_token(value) else ""


_DIRECTIONS = {direction.value: direction for direction in Direction}
_SETUPS = {setup.value: setup for setup in Setup}
_HEX_PAIRS = re.compile(r"[0-9A-F]{2}(:[0-9A-F]{2})+")


def _direction(found: _Attributes) -> Direction | None:
    return next((direction for name, direction in _DIRECTIONS.items() if name in found), None)


def _transport(found: _Attributes) -> Transport:
    fingerprints = []
    for value in found.get("fingerprint", ()):
        algorithm, _, digest = value.partition(" ")
        digest = digest.strip().upper()
        if _is_token(algorithm) and len(digest) <= MAX_NAME and _HEX_PAIRS.fullmatch(digest):
            fingerprints.append((algorithm.lower(), digest))
    return Transport(
        ufrag=_token(found, "ice-ufrag"),
        password=_token(found, "ice-pwd"),
        options=tuple(found.get("ice-options", ("",))[0].split()),
        fingerprints=tuple(fingerprints),
        setup=_SETUPS.get(found.get("setup", ("",))[0]),
    )


def _profile(formats: tuple[str, ...], found: _Attributes) -> Profile:
    lines = tuple(tuple(found.get(name, ())) for name in ("rtpmap", "fmtp", "rtcp-fb", "extmap"))
    if sum(len(line) for group in lines for line in group) > MAX_PROFILE:
        raise SdpError(f"more than {MAX_PROFILE} characters about codecs and header extensions")
    return _shared_profile(formats, *lines)


@lru_cache(MAX_CACHED_PROFILES)
def _shared_profile(
    formats: tuple[str, ...],
    rtpmaps: tuple[str, ...],
    fmtps: tuple[str, ...],
    feedback: tuple[str, ...],
    extmaps: tuple[str, ...],
) -> Profile:
    return Profile(
        formats=formats,
        rtpmaps=_each(rtpmaps, _rtpmap),
        fmtps=_each(fmtps, _fmtp),
        feedback=_each(feedback, _feedback),
        extensions=_each(extmaps, _extmap),
    )


T = TypeVar("T")


def _each(values: Iterable[str], parse_one: Callable[[str], T | None]) -> tuple[T, ...]:
    return tuple(item for item in map(parse_one, values) if item is not None)


def _rtpmap(value: str) -> RtpMap | None:
    number, _, encoding = value.partition(" ")
    name, *rest = encoding.strip().split("/")
    payload_type = _number(number, 127)
    clock_rate = _number(rest[0], 0xFFFFFFFF) if rest else None
    channels = _number(rest[1], 255) if len(rest) > 1 else 1
    if payload_type is None or clock_rate is None or channels is None or not _is_token(name):
        return None
    return RtpMap(payload_type, name, clock_rate, channels)


def _fmtp(value: str) -> tuple[int, str] | None:
    number, _, parameters = value.partition(" ")
    payload_type = _number(number, 127)
    return None if payload_type is None else (payload_type, parameters.strip())


def _feedback(value: str) -> Feedback | None:
    number, _, kind = value.partition(" ")
    payload_type = -1 if number == "*" else _number(number, 127)
    words = " ".join(kind.split())
    return Feedback(payload_type, words) if payload_type is not None and words else None


def _extmap(value: str) -> Extmap | None:
    number, _, rest = value.partition(" ")
    number, _, way = number.partition("/")
    uri, *attributes = rest.split(maxsplit=1)[:2] or ("",)
    identifier = _number(number, MAX_EXTENSION_ID)
    if not identifier or not _is_token(uri) or (way and way not in _DIRECTIONS):
        return None
    return Extmap(identifier, uri, _DIRECTIONS.get(way), attributes[0] if attributes else "")


def _msids(values: Iterable[str]) -> tuple[tuple[str, str], ...]:
    words = [value.split() for value in values]
    return tuple(
        (pair[0], pair[1] if len(pair) > 1 else "")
        for pair in words
        if 1 <= len(pair) <= 2 and all(map(_is_token, pair))
    )


def _rids(values: Iterable[str]) -> tuple[Rid, ...]:
    words = [value.split(maxsplit=2) for value in values]
    return tuple(
        Rid(parts[0], parts[1], parts[2] if len(parts) > 2 else "")
        for parts in words
        if len(parts) >= 2 and _is_token(parts[0]) and parts[1] in ("send", "recv")
    )


def _simulcast(values: Sequence[str]) -> Simulcast | None:
    if not values:
        return None
    words = values[0].split()
    lists: dict[str, tuple[str, ...]] = {"send": (), "recv": ()} | {
        # Firefox before version 63 wrote "rid=q;h;f".
        words[i]: tuple(filter(None, words[i + 1].removeprefix("rid=").split(";")))
        for i in range(0, len(words) - 1, 2)
    }
    return Simulcast(lists["send"], lists["recv"])


def _ssrcs(values: Iterable[str]) -> tuple[SsrcAttribute, ...]:
    found = []
    for value in values:
        number, _, attribute = value.partition(" ")
        name, _, content = attribute.strip().partition(":")
        ssrc = _number(number, 0xFFFFFFFF)
        if ssrc is not None and _is_token(name):
            found.append(SsrcAttribute(ssrc, name, content.strip()))
    return tuple(found)


def _ssrc_groups(values: Iterable[str]) -> tuple[SsrcGroup, ...]:
    groups = []
    for value in values:
        semantics, *numbers = value.split() or [""]
        ssrcs = [_number(number, 0xFFFFFFFF) for number in numbers]
        known = tuple(ssrc for ssrc in ssrcs if ssrc is not None)
        if semantics and known and len(known) == len(ssrcs):
            groups.append(SsrcGroup(semantics, known))
    return tuple(groups)
