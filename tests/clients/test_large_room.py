"""A room of 60 publishers with one connection each; browsers and the native SDK subscribe to all of them."""

import asyncio
import contextlib
from functools import partial

import pytest

from bench.clients.endpoint import make_context
from tests.clients.conftest import PeerFactory
from tests.clients.light_client import light_publisher
from tests.clients.peers import Peer, eventually
from tests.clients.sfu_server import ServerUnderTest

pytestmark = [pytest.mark.client, pytest.mark.alone, pytest.mark.asyncio(loop_scope="session")]

PUBLISHERS = 60
AT_ONCE = 10


async def _heard(peer: Peer) -> int:
    """From how many publishers packets have come."""
    microphones = [tracks["microphone"] for tracks in (await peer.received()).values() if "microphone" in tracks]
    return sum(media.packets > 0 for media in microphones)


async def _hears_all(peer: Peer) -> bool:
    return await _heard(peer) == PUBLISHERS


async def test_a_browser_and_an_sdk_hear_sixty_publishers(
    server: ServerUnderTest, make_peer: PeerFactory, room: str
) -> None:
    dtls = make_context()
    async with contextlib.AsyncExitStack() as publishers:
        for first in range(0, PUBLISHERS, AT_ONCE):
            group = [light_publisher(server, room, f"publisher-{n}", dtls) for n in range(first, first + AT_ONCE)]
            await asyncio.gather(*(publishers.enter_async_context(publisher) for publisher in group))
        for kind, options in (("chromium", {}), ("sdk", {"decode": False})):
            listener: Peer = await make_peer(kind, f"listener-{kind}", **options)
            await listener.join(server, room)

            await eventually(
                partial(_hears_all, listener),
                f"audio of {PUBLISHERS} publishers in {kind}",
                90,
                partial(_heard, listener),
            )
