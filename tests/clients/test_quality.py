"""The quality of a connection that gets worse and better again, as LiveKit's clients are told of it."""

import pytest
from livekit import rtc

from tests.clients.conftest import PeerFactory
from tests.clients.lossy_path import lossy_path
from tests.clients.peers import BrowserPeer, SdkPeer, eventually
from tests.clients.sfu_server import ServerUnderTest

pytestmark = [pytest.mark.client, pytest.mark.alone, pytest.mark.asyncio(loop_scope="session")]

LOSS = 0.4
"""The share of RED packets that is lost: four windows in five would be worse than `GOOD`."""
WAIT_S = 60


async def test_quality_falls_with_loss_and_recovers(server: ServerUnderTest, make_peer: PeerFactory, room: str) -> None:
    viewer: BrowserPeer = await make_peer("chromium", "viewer")
    await viewer.join(server, room)
    far: SdkPeer = await make_peer("sdk", "far")
    async with lossy_path(server, round_trip_s=0.04, loss=0.0) as path:
        await far.join(path.server, room)
        await far.publish_audio()

        async def seen() -> tuple[str, int]:
            """What the viewer is told of the publisher, and the publisher of itself."""
            word = await viewer.run("room.remoteParticipants.get('far')?.connectionQuality ?? ''")
            return str(word), far.room.local_participant.connection_quality

        async def is_seen(word: str, own: int) -> bool:
            return await seen() == (word, own)

        excellent = "excellent", rtc.ConnectionQuality.QUALITY_EXCELLENT
        await eventually(lambda: is_seen(*excellent), "excellent", WAIT_S, seen)
        path.loss = LOSS
        await eventually(lambda: is_seen("poor", rtc.ConnectionQuality.QUALITY_POOR), "poor", WAIT_S, seen)
        own = "room.localParticipant.connectionQuality"
        assert await viewer.run(own) == "excellent", "what the publisher's path loses is not the viewer's fault"
        path.loss = 0.0
        await eventually(lambda: is_seen(*excellent), "excellent again", WAIT_S, seen)
        assert await viewer.run(own) == "excellent"
        events = (await viewer.state())["events"]
        assert [event for event in events if event[0] == "ConnectionQualityChanged"]
        await far.leave()
