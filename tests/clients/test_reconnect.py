"""A participant outlives its WebSocket, a changed network, and a full reconnect."""

import pytest

from tests.clients.conftest import PeerFactory
from tests.clients.peers import BrowserPeer, Media, eventually
from tests.clients.sfu_server import ServerUnderTest

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]


async def _microphone(peer: BrowserPeer, identity: str) -> Media | None:
    media = (await peer.received()).get(identity, {}).get("microphone")
    return media if media is not None and media.energy > 0 else None


async def _had(peer: BrowserPeer, event: str) -> bool:
    return any(name == event for name, *_ in (await peer.state())["events"])


@pytest.mark.parametrize("kind", ["chromium", "firefox"])
@pytest.mark.parametrize(
    ("scenario", "event"), [("signal-reconnect", "SignalReconnecting"), ("full-reconnect", "Reconnecting")]
)
async def test_a_lost_connection_comes_back_with_its_tracks(
    server: ServerUnderTest, make_peer: PeerFactory, room: str, kind: str, scenario: str, event: str
) -> None:
    speaker: BrowserPeer = await make_peer(kind, "speaker")
    listener: BrowserPeer = await make_peer("chromium", "listener")
    await speaker.join(server, room)
    await listener.join(server, room)
    await speaker.publish_audio()
    await eventually(lambda: _microphone(listener, "speaker"), "audio", detail=listener.received)
    await speaker.run(f"room.simulateScenario('{scenario}')")
    await eventually(lambda: _had(speaker, event), event, detail=speaker.state)
    await eventually(lambda: _had(speaker, "Reconnected"), "Reconnected", detail=speaker.state)
    before = [0]

    async def goes_on() -> bool:
        media = await _microphone(listener, "speaker")
        packets = media.packets if media else 0
        going = 0 < before[0] < packets
        before[0] = packets
        return going

    await eventually(goes_on, "audio after the reconnect", detail=listener.received)

    async def read() -> bool:
        # livekit-client puts off what is said while it still counts itself as reconnecting, so say it again
        await speaker.say("still here")
        return ("speaker", "still here") in await listener.messages()

    await eventually(read, "data after the reconnect", detail=listener.messages)


@pytest.mark.parametrize("scenario", ["signal-reconnect", "full-reconnect"])
async def test_metadata_of_half_a_mebibyte_comes_back_with_its_owner(
    server: ServerUnderTest, make_peer: PeerFactory, room: str, scenario: str
) -> None:
    """The refreshed token carries it, and so does the request of the next connection."""
    size = 500 * 1024
    owner: BrowserPeer = await make_peer("chromium", "owner")
    reader: BrowserPeer = await make_peer("chromium", "reader")
    await owner.join(server, room, canUpdateOwnMetadata=True)
    await reader.join(server, room)
    await owner.run(f"room.localParticipant.setMetadata('m'.repeat({size})).then(() => 1)")

    async def told() -> bool:
        metadata = "room.getParticipantByIdentity('owner')?.metadata"
        return bool(await reader.run(f"({metadata} ?? '').length") == size)

    await eventually(told, "the metadata at the reader")

    async def refreshed() -> bool:
        return bool(await owner.run("room.engine.token.length") > size)

    await eventually(refreshed, "the token that carries it")
    await owner.run(f"room.simulateScenario('{scenario}')")
    await eventually(lambda: _had(owner, "Reconnected"), "Reconnected", detail=owner.state)
    await eventually(told, "the metadata after the reconnect")
    assert await owner.run("room.localParticipant.metadata.length") == size
