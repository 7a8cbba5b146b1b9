"""Session descriptions (RFC 8866) as values, and their text.

Who calls it: `parsing` makes them from text; `negotiation`, `peer_connection` and `offering` build answers and offers.
An m-section is described without its surroundings: what it inherits from the session level is resolved by the methods
of `SessionDescription`. So one `Section` can be shared by every description that contains the same text.
"""

from dataclasses import dataclass, field
from enum import Enum


class Direction(Enum):
    """The direction of media as its writer sees it (RFC 8866 section 6.7)."""

    SENDRECV = "sendrecv"
    SENDONLY = "sendonly"
    RECVONLY = "recvonly"
    INACTIVE = "inactive"

    @property
    def sends(self) -> bool:
        """Whether the writer sends."""
        return self in (Direction.SENDRECV, Direction.SENDONLY)

    @property
    def receives(self) -> bool:
        """Whether the writer receives."""
        return self in (Direction.SENDRECV, Direction.RECVONLY)


class Setup(Enum):
    """Who starts DTLS (RFC 8842 section 5.1)."""

    ACTPASS = "actpass"
    ACTIVE = "active"
    PASSIVE = "passive"
    HOLDCONN = "holdconn"


@dataclass(frozen=True, slots=True)
class RtpMap:
    """`a=rtpmap`."""

    payload_type: int
    name: str
    clock_rate: int
    channels: int = 1


@dataclass(frozen=True, slots=True)
class Extmap:
    """`a=extmap` (RFC 8285 section 5)."""

    id: int
    uri: str
    direction: Direction | None = None
    attributes: str = ""


@dataclass(frozen=True, slots=True)
class Feedback:
    """`a=rtcp-fb` (RFC 4585 section 4.2)."""

    payload_type: int
    """The payload type; -1 stands for `*`."""
    value: str


@dataclass(frozen=True, slots=True)
class Profile:
    """The codecs and header extensions of an m-section, which many m-sections share."""

    formats: tuple[str, ...] = ()
    """The payload types of the m= line, in order of preference."""
    rtpmaps: tuple[RtpMap, ...] = ()
    fmtps: tuple[tuple[int, str], ...] = ()
    feedback: tuple[Feedback, ...] = ()
    extensions: tuple[Extmap, ...] = ()

    def __hash__(self) -> int:
        """Hash the formats only, which is quick: results are cached by profile, and equal ones are the same object."""
        return hash(self.formats)


@dataclass(frozen=True, slots=True)
class Rid:
    """`a=rid` (RFC 8851)."""

    id: str
    direction: str
    """"send" or "recv"."""
    restrictions: str = ""


@dataclass(frozen=True, slots=True)
class Simulcast:
    """`a=simulcast` (RFC 8853): one string per stream, in order, alternatives (`a,b`) and pauses (`~a`) as written."""

    send: tuple[str, ...] = ()
    receive: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SsrcAttribute:
    """`a=ssrc:<ssrc> <name>:<value>` (RFC 5576)."""

    ssrc: int
    name: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class SsrcGroup:
    """`a=ssrc-group` (RFC 5576): FID pairs media with its RTX stream, SIM lists layers from low to high."""

    semantics: str
    ssrcs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Transport:
    """ICE and DTLS attributes; they stand in an m-section or at the session level."""

    ufrag: str = ""
    password: str = ""
    options: tuple[str, ...] = ()
    fingerprints: tuple[tuple[str, str], ...] = ()
    """(hash name in lower case, hex in upper case with colons)."""
    setup: Setup | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """One m-section, without what it inherits from the session level."""

    kind: str
    """"audio", "video", "application" or anything else that the peer wrote."""
    port: int = 9
    protocol: str = "UDP/TLS/RTP/SAVPF"
    profile: Profile = field(default_factory=Profile)
    mid: str = ""
    direction: Direction | None = None
    msids: tuple[tuple[str, str], ...] = ()
    """(stream, track) of every `a=msid` (RFC 8830); track is "" when absent."""
    bundle_only: bool = False
    rtcp_mux: bool = False
    rtcp_rsize: bool = False
    extmap_allow_mixed: bool = False
    transport: Transport = field(default_factory=Transport)
    rids: tuple[Rid, ...] = ()
    simulcast: Simulcast | None = None
    ssrcs: tuple[SsrcAttribute, ...] = ()
    ssrc_groups: tuple[SsrcGroup, ...] = ()
    sctp_port: int | None = None
    max_message_size: int | None = None
    candidates: tuple[str, ...] = ()
    """Text after `a=candidate:`."""
    end_of_candidates: bool = False

    @property
    def rejected(self) -> bool:
        """Whether it is rejected: it has port 0, and no `a=bundle-only` (RFC 9143 section 6)."""
        return self.port == 0 and not self.bundle_only

    def serialize(self) -> str:
        """Return the m-section as text, with CRLF after every line."""
        return "".join(f"{line}\r\n" for line in _section_lines(self))


@dataclass(frozen=True, slots=True)
class SessionDescription:
    """A whole description."""

    origin: str = "- 0 0 IN IP4 127.0.0.1"
    """Text after `o=`."""
    bundles: tuple[tuple[str, ...], ...] = ()
    """The mids of every `a=group:BUNDLE`."""
    ice_lite: bool = False
    extmap_allow_mixed: bool = False
    direction: Direction | None = None
    transport: Transport = field(default_factory=Transport)
    sections: tuple[Section, ...] = ()

    def direction_of(self, section: Section) -> Direction:
        """Return the direction of an m-section: its own, the session's, or sendrecv (RFC 8866 section 6.7)."""
        return section.direction or self.direction or Direction.SENDRECV

    def transport_of(self, section: Section) -> Transport:
        """Return the ICE and DTLS attributes of an m-section. Those that it lacks are the session's."""
        own, outer = section.transport, self.transport
        return Transport(
            ufrag=own.ufrag or outer.ufrag,
            password=own.password or outer.password,
            options=own.options or outer.options,
            fingerprints=own.fingerprints or outer.fingerprints,
            setup=own.setup or outer.setup,
        )

    def allows_mixed(self, section: Section) -> bool:
        """Tell whether `a=extmap-allow-mixed` holds for an m-section (RFC 8285 section 6)."""
        return self.extmap_allow_mixed or section.extmap_allow_mixed

    def serialize(self) -> str:
        """Return the description as text, with CRLF after every line."""
        lines = ["v=0", f"o={self.origin}", "s=-", "t=0 0"]
        lines += ["a=group:BUNDLE" + "".join(f" {mid}" for mid in mids) for mids in self.bundles]
        lines += ["a=ice-lite"] * self.ice_lite
        lines += ["a=extmap-allow-mixed"] * self.extmap_allow_mixed
        lines += [f"a={self.direction.value}"] if self.direction else []
        lines += _transport_lines(self.transport)
        return "".join(f"{line}\r\n" for line in lines) + "".join(s.serialize() for s in self.sections)


# Serialising.


def _transport_lines(transport: Transport) -> list[str]:
    lines = [f"a=ice-ufrag:{transport.ufrag}"] if transport.ufrag else []
    lines += [f"a=ice-pwd:{transport.password}"] if transport.password else []
    lines += [f"a=ice-options:{' '.join(transport.options)}"] if transport.options else []
    lines += [f"a=fingerprint:{algorithm} {digest}" for algorithm, digest in transport.fingerprints]
    lines += [f"a=setup:{transport.setup.value}"] if transport.setup else []
    return lines


def _profile_lines(profile: Profile) -> list[str]:
    """Return the lines codec by codec, as browsers write them."""
    lines = []
    for rtpmap in profile.rtpmaps:
        channels = f"/{rtpmap.channels}" if rtpmap.channels != 1 else ""
        lines.append(f"a=rtpmap:{rtpmap.payload_type} {rtpmap.name}/{rtpmap.clock_rate}{channels}")
    for feedback in profile.feedback:
        number = "*" if feedback.payload_type < 0 else str(feedback.payload_type)
        lines.append(f"a=rtcp-fb:{number} {feedback.value}")
    lines += [f"a=fmtp:{payload_type} {parameters}" for payload_type, parameters in profile.fmtps]
    return lines


def _extmap_line(extension: Extmap) -> str:
    way = f"/{extension.direction.value}" if extension.direction else ""
    attributes = f" {extension.attributes}" if extension.attributes else ""
    return f"a=extmap:{extension.id}{way} {extension.uri}{attributes}"


def _section_lines(section: Section) -> list[str]:
    lines = [f"m={section.kind} {section.port} {section.protocol} {' '.join(section.profile.formats)}"]
    lines.append("c=IN IP4 0.0.0.0")
    lines += [f"a=candidate:{candidate}" for candidate in section.candidates]
    lines += ["a=end-of-candidates"] * section.end_of_candidates
    lines += _transport_lines(section.transport)
    lines += [f"a=mid:{section.mid}"] if section.mid else []
    lines += ["a=bundle-only"] * section.bundle_only
    lines += ["a=extmap-allow-mixed"] * section.extmap_allow_mixed
    lines += [_extmap_line(extension) for extension in section.profile.extensions]
    lines += [f"a={section.direction.value}"] if section.direction else []
    lines += [f"a=msid:{stream} {track}".rstrip() for stream, track in section.msids]
    lines += ["a=rtcp-mux"] * section.rtcp_mux
    lines += ["a=rtcp-rsize"] * section.rtcp_rsize
    lines += _profile_lines(section.profile)
    lines += [f"a=ssrc-group:{group.semantics} {' '.join(map(str, group.ssrcs))}" for group in section.ssrc_groups]
    for ssrc in section.ssrcs:
        lines.append(f"a=ssrc:{ssrc.ssrc} {ssrc.name}" + (f":{ssrc.value}" if ssrc.value else ""))
    lines += [f"a=rid:{rid.id} {rid.direction} {rid.restrictions}".rstrip() for rid in section.rids]
    if section.simulcast is not None:
        ways = (("send", section.simulcast.send), ("recv", section.simulcast.receive))
        lines.append("a=simulcast:" + " ".join(f"{way} {';'.join(streams)}" for way, streams in ways if streams))
    lines += [f"a=sctp-port:{section.sctp_port}"] if section.sctp_port is not None else []
    lines += [f"a=max-message-size:{section.max_message_size}"] if section.max_message_size is not None else []
    return lines
