"""GStreamer publishes by WHIP, over each way that it can take to the media."""

import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.clients.conftest import PeerFactory
from tests.clients.facts import hears, misses, sees
from tests.clients.gstreamer import Publishing, publishing, require_gstreamer
from tests.clients.network import ADDRESS
from tests.clients.packet_filter import filtering
from tests.clients.peers import SdkPeer, eventually
from tests.clients.sfu_server import ServerUnderTest
from tests.clients.turn_server import TurnPorts, running_turn_server

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]

Place = tuple[ServerUnderTest, TurnPorts]


@pytest.fixture(scope="module")
def place(own_network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    require_gstreamer()
    with running_turn_server(tmp_path_factory.mktemp("turn")) as running:
        yield running


@contextlib.asynccontextmanager
async def shown(
    server: ServerUnderTest,
    viewer: SdkPeer,
    room: str,
    folder: Path,
    codec: str = "vp8",
    candidates: str = "trickle",
    relay: str = "",
) -> AsyncIterator[Publishing]:
    """A film that somebody in the room sees and hears."""
    async with publishing(folder, server, room, "film", codec, candidates, relay) as film:
        try:
            seen = await sees(viewer, "film")
            assert seen.codec == codec.upper()
            await hears(viewer, "film")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{film.said()[-6000:]}") from error
        yield film


async def protocols(server: ServerUnderTest, room: str) -> list[str]:
    """How the film reaches the server, as its statistics say."""
    headers = {"Authorization": f"Bearer {server.token(room, 'admin', roomAdmin=True)}"}
    async with httpx.AsyncClient(base_url=server.http_url, trust_env=False) as client:
        entries = (await client.get(f"/statistics/{room}", headers=headers)).json()["participants"]
    return [each["protocol"] for entry in entries if entry["identity"] == "film" for each in entry["connections"]]


def reasons(server: ServerUnderTest, room: str) -> list[str]:
    """Why participants have left the room, as the server logs it."""
    return re.findall(rf"participant left .*reason=(\w+) room={room}$", server.log.read_text(), re.MULTILINE)


@pytest.mark.parametrize(("codec", "candidates"), [("vp8", "trickle"), ("h264", "whole")])
async def test_gstreamer_publishes_until_it_says_delete(
    place: Place, make_peer: PeerFactory, room: str, tmp_path: Path, codec: str, candidates: str
) -> None:
    server, _ = place
    viewer = await make_peer("sdk", "viewer")
    await viewer.join(server, room)
    async with shown(server, viewer, room, tmp_path, codec, candidates) as film:
        assert await protocols(server, room) == ["udp"]
        assert await film.stop() == 0
        await misses(viewer, "film")
    answers = re.findall(r"^(POST|PATCH|DELETE) (\d+)", film.said(), re.MULTILINE)
    trickled = [("PATCH", "204")] if candidates == "trickle" else []
    assert answers == [("POST", "201"), *trickled * answers.count(("PATCH", "204")), ("DELETE", "200")]

    async def told() -> bool:
        return reasons(server, room) == ["CLIENT_INITIATED"]

    await eventually(told, "the server is told of the end")


@pytest.mark.parametrize("way", ["udp", "tcp"])
async def test_gstreamer_publishes_through_the_servers_own_relay(
    place: Place, make_peer: PeerFactory, room: str, tmp_path: Path, way: str
) -> None:
    server, ports = place
    viewer = await make_peer("sdk", "viewer")
    await viewer.join(server, room)
    headers = {"Authorization": f"Bearer {server.token(room, 'film')}"}
    async with httpx.AsyncClient(base_url=server.http_url, trust_env=False) as client:
        links = (await client.options("/whip/v1", headers=headers)).headers["link"]
    username, credential = (re.findall(f'{name}="([^"]*)"', links)[0] for name in ("username", "credential"))
    login = f"{quote(username, safe='')}:{quote(credential, safe='')}"
    relay = f"turn://{login}@{ADDRESS}:{getattr(ports, way)}?transport={way}"
    async with shown(server, viewer, room, tmp_path, relay=relay):
        assert await protocols(server, room) == [f"turn_{way}"]


async def test_gstreamer_publishes_over_tcp_where_no_udp_gets_through(
    place: Place, make_peer: PeerFactory, room: str, tmp_path: Path
) -> None:
    server, _ = place
    viewer = await make_peer("sdk", "viewer")
    with filtering("meta l4proto udp drop"):
        await viewer.join(server, room)
        async with shown(server, viewer, room, tmp_path):
            assert await protocols(server, room) == ["tcp"]
