"""signaling/sdp/candidates.py: candidates in SDP and in trickle messages."""

import json

from sfu.parameters import Candidate, IceCredentials, LocalTransport, TransportId
from signaling.sdp.candidates import Trickled, chosen, trickled, with_candidates
from signaling.sdp.session_description import Section

LOCAL = LocalTransport(
    TransportId(1),
    IceCredentials("abcd", "p" * 22),
    ("sha-256", "AB:CD"),
    (
        Candidate("1", 9, "192.0.2.1", 7882),
        Candidate("2", 8, "2001:db8::1", 7882),
        Candidate("3", 7, "192.0.2.1", 7881, tcp=True),
    ),
)


def test_candidates_come_with_their_end() -> None:
    text = with_candidates(Section("audio"), LOCAL).serialize()
    assert "a=candidate:1 1 udp 9 192.0.2.1 7882 typ host\r\n" in text
    assert "a=candidate:2 1 udp 8 2001:db8::1 7882 typ host\r\n" in text
    last = "a=candidate:3 1 tcp 7 192.0.2.1 7881 typ host tcptype passive\r\n"
    assert f"{last}a=end-of-candidates\r\n" in text


def test_trickled_candidates_are_what_browsers_take() -> None:
    first, _, last = map(json.loads, Trickled(LOCAL, "data", 2).messages())
    assert first == {
        "candidate": "candidate:1 1 udp 9 192.0.2.1 7882 typ host",
        "sdpMid": "data",
        "sdpMLineIndex": 2,
    }
    assert last["candidate"] == "candidate:3 1 tcp 7 192.0.2.1 7881 typ host tcptype passive"


def test_trickled_candidates_belong_to_the_section_that_carries_the_transport() -> None:
    sections = [Section("audio", mid="0"), Section("video", mid="1")]
    found = trickled(LOCAL, sections[1:], sections)
    assert found is not None
    assert (found.mid, found.position, found.ufrag) == ("1", 1, "abcd")
    assert trickled(LOCAL, [], sections) is None


def test_only_tcp_leaves_others_out_where_there_is_any() -> None:
    assert [each.foundation for each in chosen(LOCAL, only_tcp=True).candidates] == ["3"]
    assert chosen(LOCAL, only_tcp=False) is LOCAL
    without = chosen(LOCAL, only_tcp=True)
    assert chosen(without, only_tcp=False) is without
    udp = LocalTransport(LOCAL.id, LOCAL.ice, LOCAL.fingerprint, LOCAL.candidates[:2])
    assert chosen(udp, only_tcp=True) is udp
