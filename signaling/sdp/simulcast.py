"""Answers to m-sections with simulcast (RFC 8853).

Who calls it: `peer_connection.py`.
"""

from dataclasses import replace

from signaling.sdp.negotiation import RID_URI
from signaling.sdp.offered import sent_rids
from signaling.sdp.session_description import Profile, Rid, Section, Simulcast

PER_LAYER_PLI = "x-google-per-layer-pli=1"
"""A format parameter with which libwebrtc answers a PLI for one layer with a key frame of that layer, and not of all.
Firefox passes over it."""
VIDEO_NAMES = frozenset(("vp8", "vp9", "h264", "av1"))
"""The rtpmap names of the codecs that have key frames, in lower case."""


def with_simulcast(answer: Section, offered: Section) -> Section:
    """Return the answer with the offered rids accepted, if their header extension is."""
    rids = sent_rids(offered) if any(e.uri == RID_URI for e in answer.profile.extensions) else ()
    if not rids:
        return answer
    accepted = tuple(Rid(rid, "recv") for rid in rids)
    profile = _with_per_layer_pli(answer.profile)
    return replace(answer, profile=profile, rids=accepted, simulcast=Simulcast(receive=rids))


def _with_per_layer_pli(profile: Profile) -> Profile:
    fmtps = dict(profile.fmtps)
    for each in profile.rtpmaps:
        known = fmtps.get(each.payload_type, "")
        if each.name.lower() in VIDEO_NAMES and PER_LAYER_PLI not in known.split(";"):
            fmtps[each.payload_type] = f"{known};{PER_LAYER_PLI}" if known else PER_LAYER_PLI
    return replace(profile, fmtps=tuple(fmtps.items()))
