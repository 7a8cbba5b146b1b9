"""Session descriptions for Janus: offers of publishers and answers of viewers. Both make Janus the DTLS client."""

import re

from bench.clients import sdp
from bench.plans import Plan

REPEATED = ("a=mid:", "a=rtpmap:", "a=fmtp:", "a=rtcp-fb:", "a=rtcp-mux")
"""Attributes of an offered m-section that its answer repeats."""
MID_EXTENSION = "urn:ietf:params:rtp-hdrext:sdes:mid"


def publisher_offer(plan: Plan, ice: tuple[str, str], fingerprint: str, candidate: str, ssrcs: list[list[int]]) -> str:
    """Offer what a plan publishes.

    Args:
        plan: what is published.
        ice: our ufrag and password.
        fingerprint: our certificate's.
        candidate: the attribute lines of our candidate.
        ssrcs: what `sdp.choose_ssrcs` returned for the plan.
    """
    cids = [f"track{k}" for k in range(len(plan.publish))]
    return _with_candidate(sdp.offer(plan, cids, [], ice, ("sha-256", fingerprint), 1, ssrcs), candidate)


def viewer_answer(offer: str, ice: tuple[str, str], fingerprint: str, candidate: str) -> str:
    """Answer an offer by accepting all its m-sections."""
    _, *sections = re.split(r"(?m)^(?=m=)", offer.replace("\r\n", "\n"))
    mids = re.findall(r"(?m)^a=mid:(\S+)", offer)
    head = [
        "v=0",
        "o=- 1 1 IN IP4 127.0.0.1",
        "s=-",
        "t=0 0",
        f"a=group:BUNDLE {' '.join(mids)}",
        f"a=ice-ufrag:{ice[0]}",
        f"a=ice-pwd:{ice[1]}",
        f"a=fingerprint:sha-256 {fingerprint}",
    ]
    lines = head + [line for section in sections for line in _accept(section.splitlines())]
    return _with_candidate("\r\n".join(lines) + "\r\n", candidate)


def fingerprint_of(text: str) -> str:
    """Return the SHA-256 fingerprint in a description.

    Raises:
        ValueError: there is none.
    """
    found = re.search(r"(?mi)^a=fingerprint:sha-256 (\S+)", text)
    if found is None:
        raise ValueError("a description without a SHA-256 fingerprint")
    return found[1]


def _accept(section: list[str]) -> list[str]:
    kept = [line for line in section[1:] if line.startswith(REPEATED)]
    kept += [line for line in section if line.startswith("a=extmap:") and line.endswith(MID_EXTENSION)]
    direction = "a=inactive" if section[0].split()[1] == "0" else "a=recvonly"
    # Janus reads the role of an answer from its sections only
    return [section[0], "c=IN IP4 0.0.0.0", "a=setup:passive", direction, *kept]


def _with_candidate(text: str, candidate: str) -> str:
    """Put a candidate into the first m-section, whose transport all share."""
    head, first, *rest = re.split(r"(?m)^(?=m=)", text)
    return "".join((head, first + candidate, *rest))
