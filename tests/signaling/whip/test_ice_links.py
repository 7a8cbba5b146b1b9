"""STUN and TURN servers as WHIP's and WHEP's clients are told of them."""

from dataclasses import replace

import pytest
from livekit.protocol.rtc import ICEServer
from pydantic import SecretStr

from signaling.config.ice_servers import IceServerOptions, TurnServer
from signaling.turn.allocation.credentials import password_of
from signaling.whip.ice_links import ice_links
from tests.signaling.support.offers import played, published
from tests.signaling.whip.conftest import Http

URL = "turn:turn.example.org:3478?transport=udp"
OPTIONS = IceServerOptions(("stun:stun.example.org",), (TurnServer(URL, secret=SecretStr("north"), ttl_s=600),))


def test_links_are_those_of_the_rfc() -> None:
    servers = [
        ICEServer(urls=["stun:stun.example.net"]),
        ICEServer(urls=["turn:turn.example.net?transport=udp"], username="user", credential="myPassword"),
    ]
    assert list(ice_links(servers)) == [
        '<stun:stun.example.net>; rel="ice-server"',
        '<turn:turn.example.net?transport=udp>; rel="ice-server"; username="user"; credential="myPassword"; '
        'credential-type="password"',
    ]


def test_characters_that_a_quoted_string_does_not_have_are_written_otherwise() -> None:
    (link,) = ice_links([ICEServer(urls=["turn:a"], username='a"b\\c', credential="Zoë, 100 %")])
    assert 'username="a\\"b\\\\c"' in link
    assert "credential*=UTF-8''Zo%C3%AB%2C%20100%20%25;" in link
    assert link.isascii()


@pytest.mark.parametrize("path", ["/whip/v1", "/whep/v1"])
async def test_a_session_is_told_of_the_servers(http: Http, path: str) -> None:
    offer = published() if path == "/whip/v1" else played()
    assert "link" not in (await http.post(path, offer)).headers
    http.call.rooms.renew(replace(http.call.config, ice_servers=OPTIONS))
    turn, stun = (await http.post(path, offer)).headers.get_list("link")
    assert stun == '<stun:stun.example.org>; rel="ice-server"'
    username = turn.partition('username="')[2].partition('"')[0]
    assert username.endswith(f":{http.participant().sid}")
    assert f'; credential="{password_of("north", username)}"; ' in turn
    assert turn.startswith(f'<{URL}>; rel="ice-server"; ')


@pytest.mark.parametrize("path", ["/whip/v1", "/whep/v1"])
async def test_who_asks_before_is_told_of_them_with_a_token_only(http: Http, path: str) -> None:
    http.call.rooms.renew(replace(http.call.config, ice_servers=OPTIONS))
    answer = await http.client.options(path)
    assert (answer.status_code, "link" in answer.headers) == (200, False)
    answer = await http.client.options(path, headers=http.bearer())
    assert (answer.status_code, len(answer.headers.get_list("link"))) == (200, 2)
    assert answer.headers["accept-post"] == "application/sdp"
    assert "hall" not in http.call.rooms.rooms
    http.call.rooms.node.revocations.revoke("hall", "film", 1)
    answer = await http.client.options(path, headers=http.bearer())
    assert (answer.status_code, "link" in answer.headers) == (401, False), "who was removed"
    answer = await http.client.options(path, headers={"Authorization": "Bearer none"})
    assert (answer.status_code, "link" in answer.headers) == (401, False)
    preflight = {"Origin": "https://studio.example", "Access-Control-Request-Method": "POST"}
    answer = await http.client.options(path, headers=preflight | http.bearer())
    assert (answer.status_code, "link" in answer.headers) == (200, False)
