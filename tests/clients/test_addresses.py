"""A server with several addresses, IPv4 and IPv6: browsers reach it on one of them and media flows."""

from collections.abc import Iterator

import pytest

from tests.clients.conftest import PeerFactory
from tests.clients.peers import BrowserPeer, eventually
from tests.clients.sfu_server import ServerUnderTest, running_server

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]


@pytest.fixture(scope="module")
def open_server(own_network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerUnderTest]:
    """No --node-ip: every address of the machine is a candidate."""
    with running_server(tmp_path_factory.mktemp("addresses"), node_ip=None) as running:
        yield running


@pytest.mark.parametrize("kind", ["chromium", "firefox"])
async def test_browsers_hear_each_other_over_a_server_with_several_addresses(
    open_server: ServerUnderTest, make_peer: PeerFactory, room: str, kind: str
) -> None:
    speaker: BrowserPeer = await make_peer(kind, "speaker")
    listener: BrowserPeer = await make_peer(kind, "listener")
    await speaker.join(open_server, room)
    await listener.join(open_server, room)
    await speaker.publish_audio()

    async def heard() -> bool:
        media = (await listener.received()).get("speaker", {}).get("microphone")
        return media is not None and media.energy > 0

    await eventually(heard, "audio", detail=listener.received)
