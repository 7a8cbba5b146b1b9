"""A participant outlives its WebSocket, a changed network, and a full reconnect."""

import asyncio

import pytest

from tests.clients.conftest import PeerFactory
from tests.clients.peers import BrowserPeer, Media, eventually
from tests.clients.sfu_server import ServerUnderTest

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]

SCENARIOS = {"signal-reconnect": "SignalReconnecting", "full-reconnect": "Reconnecting"}
"""How a connection is broken -> the event by which livekit-client says so. A resume, then a full reconnect."""


async def _microphone(peer: BrowserPeer, identity: str) -> Media | None:
    media = (await peer.received()).get(identity, {}).get("microphone")
    return media if media is not None and media.energy > 0 else None


async def _breaks_and_returns(peer: BrowserPeer, scenario: str) -> None:
    """Break a connection as livekit-client simulates it, and wait until it says that it is back."""

    async def times(event: str) -> int:
        return sum(name == event for name, *_ in (await peer.state())["events"])

    before = {event: await times(event) for event in (SCENARIOS[scenario], "Reconnected")}
    await peer.run(f"room.simulateScenario('{scenario}')")
    for event, count in before.items():

        async def more(event: str = event, count: int = count) -> bool:
            return await times(event) > count

        await eventually(more, f"{event} after {scenario}", detail=peer.state)


@pytest.mark.parametrize("kind", ["chromium", "firefox"])
async def test_a_lost_connection_comes_back_with_its_tracks(
    server: ServerUnderTest, make_peer: PeerFactory, room: str, kind: str
) -> None:
    speaker: BrowserPeer = await make_peer(kind, "speaker")
    listener: BrowserPeer = await make_peer("chromium", "listener")
    await asyncio.gather(speaker.join(server, room), listener.join(server, room))
    await speaker.publish_audio()
    await eventually(lambda: _microphone(listener, "speaker"), "audio", detail=listener.received)
    for scenario in SCENARIOS:
        await _breaks_and_returns(speaker, scenario)
        await _goes_on(speaker, listener, f"still here after {scenario}")


async def _goes_on(speaker: BrowserPeer, listener: BrowserPeer, text: str) -> None:
    """Wait until sound and a message arrive."""
    before = [0]

    async def packets_come() -> bool:
        media = await _microphone(listener, "speaker")
        packets = media.packets if media else 0
        going = 0 < before[0] < packets
        before[0] = packets
        return going

    await eventually(packets_come, "audio after the reconnect", detail=listener.received)

    async def read() -> bool:
        # livekit-client puts off what is said while it still counts itself as reconnecting, so say it again
        await speaker.say(text)
        return ("speaker", text) in await listener.messages()

    await eventually(read, "data after the reconnect", detail=listener.messages)


async def test_metadata_of_half_a_mebibyte_comes_back_with_its_owner(
    server: ServerUnderTest, make_peer: PeerFactory, room: str
) -> None:
    """The refreshed token carries it, and so does the request of the next connection."""
    size = 500 * 1024
    owner: BrowserPeer = await make_peer("chromium", "owner")
    reader: BrowserPeer = await make_peer("chromium", "reader")
    await asyncio.gather(owner.join(server, room, canUpdateOwnMetadata=True), reader.join(server, room))
    await owner.run(f"room.localParticipant.setMetadata('m'.repeat({size})).then(() => 1)")

    async def told() -> bool:
        metadata = "room.getParticipantByIdentity('owner')?.metadata"
        return bool(await reader.run(f"({metadata} ?? '').length") == size)

    await eventually(told, "the metadata at the reader")

    async def refreshed() -> bool:
        return bool(await owner.run("room.engine.token.length") > size)

    await eventually(refreshed, "the token that carries it")
    for scenario in SCENARIOS:
        await _breaks_and_returns(owner, scenario)
        await eventually(told, f"the metadata after {scenario}")
        assert await owner.run("room.localParticipant.metadata.length") == size
