"""What an m-section that a client offers says: its kind, whether it can be used, what it sends.

These are pure functions on m-sections. Simulcast is that of RFC 8853.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sfu.parameters import Codec, Encoding, Kind
from signaling.sdp.codecs import PRIMARY, Format, most_compatible
from signaling.sdp.session_description import Section, SessionDescription

MAX_ID = 16
"""ASCII characters of a mid or rid: the header extension that carries it has no room for more (RFC 8285)."""
MAX_ENCODINGS = 3
"""Simulcast layers of one track that are accepted."""
RID_ORDER = "qhf"
"""LiveKit's rids: quarter, half, full resolution."""
_KINDS = {kind.value: kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class SendingSection:
    """One m-section on which the client sends."""

    mid: str
    kind: Kind
    cid: str
    """Track id of `a=msid`; empty when absent."""
    codecs: tuple[tuple[Codec, str], ...]
    """(codec, fmtp) in the order offered, each codec once, in the format that would be accepted."""
    encodings: tuple[Encoding, ...]


def kind_of(section: Section) -> Kind | None:
    """Return the kind of an m-section: audio or video; None for anything else."""
    return _KINDS.get(section.kind)


def is_data(section: Section) -> bool:
    """Tell whether an m-section is for data channels (RFC 8841)."""
    return section.kind == "application" and "webrtc-datachannel" in section.profile.formats


def bundled_mids(session: SessionDescription) -> tuple[str, ...]:
    """Return the mids of the bundle that we accept, in its order. A single m-section needs no group."""
    if session.bundles:
        return tuple(dict.fromkeys(session.bundles[0]))
    return tuple(section.mid for section in session.sections if section.mid) if len(session.sections) == 1 else ()


def is_acceptable(section: Section) -> bool:
    """Tell whether a bundled m-section can be used, apart from its codecs."""
    if section.rejected or not section.mid:
        return False
    if is_data(section):
        return section.protocol.endswith("DTLS/SCTP")
    return kind_of(section) is not None and (
        section.rtcp_mux and "RTP/SAVP" in section.protocol and _fits_packets(section.mid)
    )


def _fits_packets(identifier: str) -> bool:
    return identifier.isascii() and len(identifier) <= MAX_ID


def track_id(section: Section) -> str:
    """Return the id of the MediaStreamTrack that the client sends; empty if it gives none."""
    if section.msids:
        return section.msids[0][1]
    values = [ssrc.value.split() for ssrc in section.ssrcs if ssrc.name == "msid"]
    return next((words[1] for words in values if len(words) == 2), "")


def encodings_of(section: Section, rids: bool) -> tuple[Encoding, ...]:
    """Return the layers of a sending m-section, lowest first; one to three.

    `rids` says whether the rid header extension is negotiated. SSRCs of layers with rids stay unknown even if they are
    listed: packets show which SSRC is which layer, the order of lines does not.
    """
    names = sent_rids(section) if rids else ()
    if names:
        if set(names) <= set(RID_ORDER):
            names = tuple(sorted(names, key=RID_ORDER.index))
        return tuple(Encoding(rid=name) for name in names)
    repairs = {g.ssrcs[0]: g.ssrcs[1] for g in section.ssrc_groups if g.semantics == "FID" and len(g.ssrcs) == 2}
    layers = next((g.ssrcs for g in section.ssrc_groups if g.semantics == "SIM"), ())
    listed = dict.fromkeys(ssrc.ssrc for ssrc in section.ssrcs if ssrc.ssrc not in repairs.values())
    chosen = tuple(dict.fromkeys(layers))[:MAX_ENCODINGS] or tuple(listed)[:1]
    return tuple(Encoding(ssrc=ssrc, rtx_ssrc=repairs.get(ssrc, 0)) for ssrc in chosen) or (Encoding(),)


def sent_rids(section: Section) -> tuple[str, ...]:
    """Return the rids that the client sends, in their order. Only those in a=simulcast are layers (RFC 8853)."""
    declared = [rid.id for rid in section.rids if rid.direction == "send" and _fits_packets(rid.id)]
    if section.simulcast and section.simulcast.send:
        streams = [stream.split(",")[0].removeprefix("~") for stream in section.simulcast.send]
        declared = [stream for stream in streams if stream in declared]
    return tuple(dict.fromkeys(declared))[:MAX_ENCODINGS]


def sending_section(section: Section, kind: Kind, formats: Sequence[Format], rids: bool) -> SendingSection:
    """Describe a sending m-section for the publisher's decision."""
    codecs = dict.fromkeys(f.codec for f in formats if f.codec in PRIMARY)
    chosen = [most_compatible(codec, formats) for codec in codecs]
    return SendingSection(
        mid=section.mid,
        kind=kind,
        cid=track_id(section),
        codecs=tuple((f.codec, f.description) for f in chosen if f is not None),
        encodings=encodings_of(section, rids),
    )
