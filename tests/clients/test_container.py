"""A server in a container with a bridge network, as docs/deploy.md describes it: reached at the address of its host."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.network.namespaces import NetworkUnavailable
from tests.clients.conftest import PeerFactory, require_program, without_client
from tests.clients.container import INSIDE, Container, container
from tests.clients.network import ADDRESS
from tests.clients.peers import Peer, eventually
from tests.clients.sfu_server import running_server

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]


@pytest.fixture
def contained(own_network: None) -> Iterator[Container]:
    require_program("nft")
    try:
        with container(ADDRESS) as made:
            yield made
    except NetworkUnavailable as error:
        without_client(f"no container network: {error}")


async def test_in_a_container_only_its_own_address_is_told(contained: Container, tmp_path: Path) -> None:
    with running_server(tmp_path, node_ip=None, extra=("--logging.json",), container=contained) as server:
        lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    assert [line["told"] for line in lines if line["event"] == "addresses"] == [[INSIDE]]


@pytest.mark.parametrize("kind", ["chromium", "firefox", "sdk"])
async def test_with_its_hosts_address_clients_reach_it_through_published_ports(
    contained: Container, make_peer: PeerFactory, room: str, tmp_path: Path, kind: str
) -> None:
    with running_server(tmp_path, node_ip=ADDRESS, container=contained) as server:
        speaker: Peer = await make_peer(kind, "speaker")
        listener: Peer = await make_peer("sdk", "listener")
        await speaker.join(server, room)
        await listener.join(server, room)
        await speaker.publish_audio()
        await listener.publish_audio()

        async def heard() -> bool:
            sounds = ((await listener.received()).get("speaker", {}), (await speaker.received()).get("listener", {}))
            return all("microphone" in sound and sound["microphone"].energy > 0 for sound in sounds)

        await eventually(heard, "sound both ways", detail=listener.received)
        await speaker.leave()
        await listener.leave()
