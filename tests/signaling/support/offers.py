"""Offers with some of the m-sections of a recorded one."""

import re
from pathlib import Path

OFFERS = Path(__file__).parents[1] / "offers"


def offer_of(name: str, *mids: str) -> str:
    """The m-sections of a recorded offer that have these mids, in their order, in one bundle."""
    head, *sections = re.split(r"\n(?=m=)", (OFFERS / name).read_text().rstrip("\n"))
    kept = [section for mid in mids for section in sections if f"\na=mid:{mid}\n" in f"{section}\n"]
    assert len(kept) == len(mids)
    head = re.sub(r"a=group:BUNDLE .*", f"a=group:BUNDLE {' '.join(mids)}", head)
    return "\r\n".join("\n".join([head, *kept]).split("\n")) + "\r\n"


def published() -> str:
    """A microphone, and a camera in three layers."""
    return offer_of("chromium-publish.sdp", "2", "3")


def played() -> str:
    """One m-section for sound and one for pictures, to receive."""
    return offer_of("chromium-publish.sdp", "0", "1")


def contradictory() -> str:
    """As `published`, but payload type 96 is Opus in one m-section, and VP8 in the other."""
    return published().replace(":111 ", ":96 ").replace(" 111", " 96")


def of_one_track_id() -> str:
    """As `published`, but microphone and camera have one track id."""
    microphone, camera = re.findall(r"a=msid:\S+ (\S+)", published())
    return published().replace(camera, microphone)


def of_a_transport_without_password() -> str:
    """As `published`, but the bundle's first m-section, which is not the offer's first, has no ICE password."""
    text = published().replace("a=group:BUNDLE 2 3", "a=group:BUNDLE 3 2")
    return "a=x:".join(text.rsplit("a=ice-pwd:", 1))
