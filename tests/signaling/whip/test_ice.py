"""Trickled candidates and ICE restarts by PATCH (RFC 9725 section 4.3)."""

import pytest

from signaling.participants.participant import JOIN_TIMEOUT_S
from signaling.sdp.parsing import parse
from signaling.whip import endpoint
from tests.signaling.support.offers import published
from tests.signaling.whip.conftest import FRAGMENT, Http

CANDIDATE = "candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 network-id 1"
MEDIA = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:2\r\n"


def credentials(text: str) -> tuple[str, str]:
    session = parse(text)
    transport = session.transport_of(session.sections[0])
    return transport.ufrag, transport.password


def fragment(ufrag: str, password: str) -> str:
    lines = f"a=ice-ufrag:{ufrag}\r\na=ice-pwd:{password}\r\n"
    return f"a=group:BUNDLE 2 3\r\n{MEDIA}{lines}a={CANDIDATE}\r\na=end-of-candidates\r\n"


NEW = fragment("ysXw", "vw5LmwG4y/e6dPP/zAP9Gp5k")


async def test_trickled_candidates_are_taken(http: Http) -> None:
    answer = await http.post("/whip/v1", published())
    place, tag = answer.headers["location"], answer.headers["etag"]
    known = fragment(*credentials(published()))
    for text in (known, f"{MEDIA}a={CANDIDATE}\r\n"):
        taken = await http.patch(place, text, If_Match=tag)
        assert (taken.status_code, taken.content) == (204, b"")
        assert "etag" not in taken.headers
    assert http.call.engine.restarts == []


async def test_who_never_connected_is_told_of_udp_again(http: Http) -> None:
    first = await http.post("/whip/v1", published())
    await http.call.pass_time(JOIN_TIMEOUT_S + 2)
    assert "film" not in http.call.room.participants
    again = await http.post("/whip/v1", published())
    told = [[line.split()[2] for line in parse(each.text).sections[0].candidates] for each in (first, again)]
    assert told == [["udp", "tcp"]] * 2


@pytest.mark.parametrize("any_session", ["*", '"*"'])  # as RFC 9110 has it, and as the examples of WHIP do
async def test_ice_restarts_with_new_credentials_alone(http: Http, any_session: str) -> None:
    answer = await http.post("/whip/v1", published())
    place, tag = answer.headers["location"], answer.headers["etag"]
    (transport,) = http.participant().renegotiation.transports
    again = await http.patch(place, NEW, If_Match=any_session)
    assert (again.status_code, again.headers["content-type"]) == (200, FRAGMENT)
    assert http.call.engine.restarts == [transport]
    remote = http.call.engine.transports[transport]
    assert remote is not None
    assert (remote.ice.ufrag, remote.ice.password) == ("ysXw", "vw5LmwG4y/e6dPP/zAP9Gp5k")
    ours = parse(f"v=0\r\n{again.text}")
    assert ours.ice_lite
    assert ours.bundles == (("2", "3"),)
    assert [each.mid for each in ours.sections] == ["2"]
    assert ours.sections[0].candidates == parse(answer.text).sections[0].candidates
    assert ours.sections[0].end_of_candidates
    assert credentials(f"v=0\r\n{again.text}")[0] == again.headers["etag"].strip('"') != tag.strip('"')
    # The tracks go on, and the old ICE session is over.
    assert len(http.call.engine.tracks) == 2
    assert (await http.patch(place, NEW, If_Match=tag)).status_code == 412
    assert (await http.patch(place, NEW, If_Match=again.headers["etag"])).status_code == 204


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({}, NEW, 428),
        ({"If_Match": '"other"'}, NEW, 412),
        ({"If_Match": "*", "Content_Type": "application/sdp"}, NEW, 415),
        ({"If_Match": "*"}, "", 400),
        ({"If_Match": "*"}, "candidates, please", 400),
        ({"If_Match": "*"}, "m=audio\r\n", 400),
        ({"If_Match": "*"}, "a=ice-ufrag:ysXw\r\n", 400),
        ({"If_Match": "*"}, fragment("y", "vw5LmwG4y/e6dPP/zAP9Gp5k"), 400),
        ({"If_Match": "*"}, fragment("ysXw", "short"), 400),
        ({"If_Match": "*"}, fragment("ysXé", "vw5LmwG4y/e6dPP/zAP9Gp5k"), 400),
        ({"If_Match": "*"}, "a=x\r\n" * endpoint.MAX_FRAGMENT_BYTES, 413),
    ],
)
async def test_a_bad_request_leaves_the_ice_session_as_it_is(
    http: Http, headers: dict[str, str], body: str, status: int
) -> None:
    answer = await http.post("/whip/v1", published())
    place, tag = answer.headers["location"], answer.headers["etag"]
    refused = await http.patch(place, body, **headers)
    assert refused.status_code == status
    assert http.call.engine.restarts == []
    assert (await http.patch(place, NEW, If_Match=tag)).status_code == 200


async def test_only_its_bearer_may_restart_it(http: Http) -> None:
    place = (await http.post("/whip/v1", published())).headers["location"]
    assert (await http.patch(place, NEW, identity="eve", If_Match="*")).status_code == 404
    assert http.call.engine.restarts == []
