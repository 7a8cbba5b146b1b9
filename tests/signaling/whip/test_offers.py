"""What of an offer WHIP and WHEP take, which is never only a part."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signaling.whip.fragments import read_fragment
from signaling.whip.offers import read_offer
from signaling.whip.problems import Problem
from tests.signaling.support.offers import (
    OFFERS,
    contradictory,
    of_a_transport_without_password,
    offer_of,
    played,
    published,
)

# Figure 2 of RFC 9725: the second m-section leaves out what it shares with the first one.
FIGURE_2 = """v=0
o=- 5228595038118931041 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1
a=extmap-allow-mixed
a=ice-options:trickle ice2
m=audio 9 UDP/TLS/RTP/SAVPF 111
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
a=ice-ufrag:EsAw
a=ice-pwd:bP+XJMM09aR8AiX1jdukzR6Y
a=fingerprint:sha-256 DA:7B:57:DC:28:CE:04:4F:31:79:85:C4:31:67:EB:27:58:29:ED:77:2A:0D:24:AE:ED:AD:30:BC:BD:F1:9C:02
a=setup:actpass
a=mid:0
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
a=sendonly
a=msid:d46fb922-d52a-4e9c-aa87-444eadc1521b ce326ecf-a081-453a-8f9f-0605d5ef4128
a=rtcp-mux
a=rtcp-mux-only
a=rtpmap:111 opus/48000/2
a=fmtp:111 minptime=10;useinbandfec=1
m=video 0 UDP/TLS/RTP/SAVPF 96 97
a=mid:1
a=bundle-only
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
a=sendonly
a=msid:d46fb922-d52a-4e9c-aa87-444eadc1521b 3956b460-40f4-4d05-acef-03abcdd8c6fd
a=rtpmap:96 VP8/90000
a=rtcp-fb:96 ccm fir
a=rtcp-fb:96 nack
a=rtcp-fb:96 nack pli
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
"""


@pytest.mark.parametrize(
    "text", [published(), FIGURE_2, (OFFERS / "gstreamer.sdp").read_text(), offer_of("chromium-publish.sdp", "3", "5")]
)
def test_offers_of_publishers(text: str) -> None:
    offer = read_offer(text, publishes=True)
    assert {each.kind for each in offer.media} <= {"audio", "video"}
    assert read_offer(offer.sdp, publishes=True) == offer


def test_the_first_m_section_of_the_bundle_has_the_transport() -> None:
    text = published().replace("a=group:BUNDLE 2 3", "a=group:BUNDLE 3 2").replace("a=ice-pwd:", "a=x:", 1)
    assert read_offer(text, publishes=True).transport.password == "JqizyreV9PgQLAlFJVVIDaWE"


def test_a_restart_changes_the_credentials_only() -> None:
    offer = read_offer(published(), publishes=True)
    again = read_offer(offer.restarted("ysXw", "vw5LmwG4y/e6dPP/zAP9Gp5k").sdp, publishes=True)
    assert (again.transport.ufrag, again.transport.password) == ("ysXw", "vw5LmwG4y/e6dPP/zAP9Gp5k")
    assert again.transport.fingerprints == offer.transport.fingerprints
    assert [each.profile for each in again.media] == [each.profile for each in offer.media]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (published().replace("a=rtcp-mux\r\n", ""), "rtcp-mux"),
        (published().replace("a=group:BUNDLE 2 3", "a=group:BUNDLE 2"), "BUNDLE"),
        (published().replace("a=sendonly", "a=inactive"), "inactive"),
        (published().replace("a=sendonly", "a=recvonly"), "recvonly"),
        (published().replace("a=ice-pwd:", "a=x:"), "ice-pwd"),
        (published().replace("a=fingerprint:", "a=x:"), "fingerprint"),
        (published().replace("opus/48000", "speex/16000").replace("red/48000", "x/1"), None),
        (contradictory(), "means something else"),
        (of_a_transport_without_password(), "ice-pwd"),
        (published().replace("m=video 9", "m=video 0"), "cannot be used"),
        (published().replace("m=video 9", "m=text 9"), "cannot be used"),
        (offer_of("chromium-publish.sdp", "2", "3", "4"), "more than one"),
        (offer_of("chromium-publish.sdp", "5"), "neither audio nor video"),
        (played(), "recvonly"),
    ],
)
def test_an_offer_that_cannot_be_taken_as_a_whole(text: str, why: str | None) -> None:
    if why is None:  # G.711 and G.722 are left
        assert read_offer(text, publishes=True)
        return
    with pytest.raises(Problem, match=why) as caught:
        read_offer(text, publishes=True)
    assert caught.value.status == 422


def test_a_player_must_receive() -> None:
    assert read_offer(played(), publishes=False)
    assert read_offer(played().replace("a=recvonly", "a=sendrecv"), publishes=False)
    with pytest.raises(Problem, match="sendonly"):
        read_offer(published(), publishes=False)


@given(st.text(max_size=400), st.booleans())
def test_any_text_is_an_offer_or_a_problem(text: str, publishes: bool) -> None:
    for whole in (text, f"v=0\r\n{text}", published()[:600] + text):
        try:
            read_offer(whole, publishes=publishes)
        except Problem as error:
            assert error.status in (400, 422)


@given(st.text(max_size=400))
def test_any_text_is_a_fragment_or_a_problem(text: str) -> None:
    for whole in (text, f"a=ice-ufrag:{text}", f"m=audio 9 RTP/AVP 0\r\na=ice-pwd:{text}"):
        try:
            fragment = read_fragment(whole)
        except Problem as error:
            assert error.status == 400
        else:
            assert bool(fragment.ufrag) is bool(fragment.password)
