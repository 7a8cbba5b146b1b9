"""Answers to m-sections with simulcast."""

import pytest

from signaling.sdp.session_description import Profile, RtpMap, Section
from signaling.sdp.simulcast import PER_LAYER_PLI, with_simulcast
from tests.signaling.sdp.test_negotiation import session

OFFERED = session("chromium-publish").sections[3]
FORMATS = (RtpMap(96, "VP8", 90_000), RtpMap(97, "rtx", 90_000), RtpMap(102, "H264", 90_000))


def answer(*fmtps: tuple[int, str]) -> Section:
    profile = Profile(rtpmaps=FORMATS, fmtps=fmtps, extensions=OFFERED.profile.extensions)
    return Section("video", profile=profile)


def test_offered_rids_are_accepted_in_their_order() -> None:
    text = with_simulcast(answer(), OFFERED).serialize()
    assert "a=rid:q recv\r\na=rid:h recv\r\na=rid:f recv\r\na=simulcast:recv q;h;f\r\n" in text
    assert with_simulcast(Section("video"), OFFERED) == Section("video")


@pytest.mark.parametrize("h264", ["packetization-mode=1", f"packetization-mode=1;{PER_LAYER_PLI}"])
def test_each_codec_with_key_frames_is_asked_to_send_them_by_layer(h264: str) -> None:
    profile = with_simulcast(answer((97, "apt=96"), (102, h264)), OFFERED).profile
    expected = {96: PER_LAYER_PLI, 97: "apt=96", 102: f"packetization-mode=1;{PER_LAYER_PLI}"}
    assert dict(profile.fmtps) == expected


def test_a_single_stream_is_answered_as_ever() -> None:
    single = answer((102, "packetization-mode=1"))
    assert with_simulcast(single, Section("video", profile=OFFERED.profile)) == single
