"""A room of 60 publishers, all with a single peer connection; one browser subscribes to all of them."""

import asyncio

import pytest

from tests.clients.conftest import PeerFactory
from tests.clients.peers import BrowserPeer, SdkPeer, eventually
from tests.clients.sfu_server import ServerUnderTest

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]

PUBLISHERS = 60
AT_ONCE = 10


async def test_one_browser_hears_sixty_publishers(server: ServerUnderTest, make_peer: PeerFactory, room: str) -> None:
    publishers: list[SdkPeer] = [
        await make_peer("sdk", f"publisher-{number}", auto_subscribe=False) for number in range(PUBLISHERS)
    ]
    for first in range(0, PUBLISHERS, AT_ONCE):
        group = publishers[first : first + AT_ONCE]
        await asyncio.gather(*(peer.join(server, room) for peer in group))
        await asyncio.gather(*(peer.publish_audio() for peer in group))
    listener: BrowserPeer = await make_peer("chromium", "listener")
    await listener.join(server, room)

    async def heard() -> int:
        seen = await listener.received()
        return sum(
            tracks.get("microphone") is not None and tracks["microphone"].packets > 0 for tracks in seen.values()
        )

    async def heard_all() -> bool:
        return await heard() == PUBLISHERS

    await eventually(heard_all, f"audio of {PUBLISHERS} publishers", 90, detail=heard)
