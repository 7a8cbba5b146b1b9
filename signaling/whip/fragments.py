"""SDP fragments (RFC 8840): what a client tells of its ICE session later, and what it is answered.

These are pure functions. An ICE-lite server learns the client's addresses from its checks, so candidates are not read.
"""

import re
from dataclasses import dataclass

from signaling.sdp.negotiation import MAX_PASSWORD, MIN_PASSWORD, MIN_UFRAG
from signaling.sdp.parsing import SdpError, parse
from signaling.sdp.session_description import SessionDescription
from signaling.whip.problems import Problem

_LINE = re.compile(r"[a-z]=")


@dataclass(frozen=True, slots=True)
class Fragment:
    """ICE credentials of a client; both are empty if the fragment has none."""

    ufrag: str = ""
    password: str = ""


def read_fragment(text: str) -> Fragment:
    """Read a fragment that a client sent.

    Raises:
        Problem: 400: it is malformed, or its credentials are not as RFC 8839 section 5.4 says.
    """
    if not text.strip() or not all(_LINE.match(line) for line in text.split("\n") if line.strip()):
        raise Problem(400, "that is no SDP fragment")
    try:
        session = parse(f"v=0\r\n{text}")
    except SdpError as error:
        raise Problem(400, f"the SDP fragment cannot be read: {error}") from error
    first = session.transport_of(session.sections[0]) if session.sections else session.transport
    ufrag, password = first.ufrag, first.password
    if not ufrag and not password:
        return Fragment()
    fits = len(ufrag) >= MIN_UFRAG and MIN_PASSWORD <= len(password) <= MAX_PASSWORD
    if not fits or not (ufrag.isascii() and password.isascii()):
        raise Problem(400, "a=ice-ufrag and a=ice-pwd are needed together, at least 4 and 22 characters of ASCII")
    return Fragment(ufrag, password)


def write_fragment(answer: SessionDescription) -> str:
    """Return the fragment with our credentials and candidates, as an answer has them (RFC 9725 section 4.3.3)."""
    first = answer.sections[0]
    ours = answer.transport_of(first)
    lines = ["a=ice-lite"]
    lines += ["a=group:BUNDLE " + " ".join(mids) for mids in answer.bundles]
    lines += [f"m={first.kind} {first.port} {first.protocol} {' '.join(first.profile.formats)}", f"a=mid:{first.mid}"]
    lines += [f"a=ice-ufrag:{ours.ufrag}", f"a=ice-pwd:{ours.password}"]
    lines += [f"a=candidate:{candidate}" for candidate in first.candidates]
    lines.append("a=end-of-candidates")
    return "".join(f"{line}\r\n" for line in lines)


def entity_tag(answer: SessionDescription) -> str:
    """Return the strong entity-tag of the ICE session of an answer, whose username fragment is never used again."""
    return f'"{answer.transport_of(answer.sections[0]).ufrag}"'
