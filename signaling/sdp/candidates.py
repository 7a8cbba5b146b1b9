"""Our ICE candidates in the forms in which clients get them: lines of SDP, and `trickle` messages.

Who calls it: the two peer connections of a client, and its renegotiation.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sfu.parameters import Candidate, LocalTransport
from signaling.sdp.session_description import Section


@dataclass(frozen=True, slots=True)
class Trickled:
    """What `trickle` messages repeat of a description: clients count only candidates that come so."""

    local: LocalTransport
    mid: str
    """The m-section in which the candidates stand, and its place."""
    position: int = 0

    @property
    def ufrag(self) -> str:
        """Ours, which is another one after a restart of ICE."""
        return self.local.ice.ufrag

    def messages(self) -> list[str]:
        """Return the candidates as browsers' `RTCIceCandidateInit`, in JSON.

        They do not name the ufrag: a browser that has not set the description yet would refuse them for it.
        """
        where = {"sdpMid": self.mid, "sdpMLineIndex": self.position}
        return [json.dumps({"candidate": f"candidate:{_text(each)}"} | where) for each in self.local.candidates]


def with_candidates(section: Section, local: LocalTransport) -> Section:
    """Return the m-section with all our candidates. No others follow."""
    return replace(section, candidates=tuple(map(_text, local.candidates)), end_of_candidates=True)


def trickled(local: LocalTransport, bundle: Sequence[Section], sections: Sequence[Section]) -> Trickled | None:
    """Return what repeats a description with these m-sections; None: it accepts none, so that `bundle` is empty."""
    return Trickled(local, bundle[0].mid, sections.index(bundle[0])) if bundle else None


def chosen(local: LocalTransport, only_tcp: bool) -> LocalTransport:
    """Return the transport with its TCP candidates only, if that is asked for and it has any."""
    tcp = tuple(each for each in local.candidates if each.tcp)
    return replace(local, candidates=tcp) if only_tcp and tcp else local


def _text(candidate: Candidate) -> str:
    """Return what stands after `a=candidate:` (RFC 8839 section 5.1, RFC 6544 section 4.5)."""
    protocol, kind = ("tcp", "host tcptype passive") if candidate.tcp else ("udp", "host")
    address = f"{candidate.address} {candidate.port}"
    return f"{candidate.foundation} 1 {protocol} {candidate.priority} {address} typ {kind}"
