"""Opus with redundancy (RFC 2198) and with silence left out: everybody hears it, with RED where it was negotiated."""

import pytest

from tests.clients.conftest import PeerFactory
from tests.clients.facts import hears, media
from tests.clients.peers import BrowserPeer, Peer, SdkPeer, eventually
from tests.clients.sfu_server import ServerUnderTest

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]

SAMPLE = 50
"""Packets to measure: one second of speech."""
MICROPHONE = "room.localParticipant.getTrackPublication('microphone')"


async def _packet_bytes(peer: BrowserPeer) -> float:
    """Mean payload of what `peer` receives from ada. No statistic of a browser says whether a packet was RED."""
    first = await hears(peer, "ada")

    async def enough() -> float:
        now = await media(peer, "ada")
        if now is None or now.packets < first.packets + SAMPLE:
            return 0
        return float(now.details["bytes"] - first.details["bytes"]) / (now.packets - first.packets)

    return float(await eventually(enough, f"{SAMPLE} packets at {peer.identity}"))


@pytest.mark.parametrize("red", [True, False], ids=["red", "no red"])
@pytest.mark.parametrize("dtx", [True, False], ids=["dtx", "no dtx"])
async def test_redundancy_reaches_those_who_negotiated_it_and_the_others_hear_plain_opus(
    server: ServerUnderTest, make_peer: PeerFactory, room: str, red: bool, dtx: bool
) -> None:
    ada: BrowserPeer = await make_peer("chromium", "ada")
    chromium: BrowserPeer = await make_peer("chromium", "chromium")
    firefox: BrowserPeer = await make_peer("firefox", "firefox")
    natives: list[SdkPeer] = [await make_peer(kind, kind) for kind in ("sdk", "sdk-dual")]
    peers: tuple[Peer, ...] = (ada, chromium, firefox, *natives)
    for peer in peers:
        await peer.join(server, room)
    await ada.call("publishTone", {"red": red, "dtx": dtx})
    for native in natives:
        await hears(native, "ada")
    with_red, plain = await _packet_bytes(chromium), await _packet_bytes(firefox)
    # a tone is coded into packets of one size, and each RED packet carries the one before it as well
    if red:
        assert with_red > 1.6 * plain
    else:
        assert 0.8 * plain < with_red < 1.2 * plain


@pytest.mark.parametrize("kind", ["chromium", "firefox"])
async def test_silence_that_is_not_sent_is_no_loss(
    server: ServerUnderTest, make_peer: PeerFactory, room: str, kind: str
) -> None:
    ada: BrowserPeer = await make_peer("chromium", "ada")
    listener: BrowserPeer = await make_peer(kind, "listener")
    for peer in (ada, listener):
        await peer.join(server, room)
    await ada.publish_audio(red=True, dtx=True)  # the browser's microphone beeps once a second
    for _ in range(3):
        await hears(listener, "ada")
        await ada.run(f"{MICROPHONE}.mute().then(() => 1)")
        await ada.run(f"{MICROPHONE}.unmute().then(() => 1)")
    heard = await hears(listener, "ada")
    assert heard.details["lost"] == 0
