"""Clients without a WebSocket beside SDKs: aiortc and Chromium publish by WHIP and play by WHEP."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from livekit.api import LiveKitAPI
from livekit.protocol.room import RoomParticipantIdentity
from playwright.async_api import Browser, Page

from tests.clients.conftest import PeerFactory
from tests.clients.facts import hears, knows, misses, sees
from tests.clients.http_peer import HttpPeer
from tests.clients.peers import BrowserPeer, SdkPeer, eventually
from tests.clients.sfu_server import KEY, SECRET, ServerUnderTest

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]

BEYOND_CONSENT_S = 20
"""Longer than a participant stays whose ICE checks have stopped."""
MakeHttpPeer = Callable[[str], HttpPeer]

PUBLISH = """async ([url, token, codec]) => {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: { width: 1280, height: 720 } });
    const connection = window.connection = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
    connection.addTransceiver(stream.getAudioTracks()[0], { direction: "sendonly", streams: [stream] });
    const sendEncodings = [["q", 4], ["h", 2], ["f", 1]].map(([rid, by]) => ({ rid, scaleResolutionDownBy: by }));
    const video = connection.addTransceiver(stream.getVideoTracks()[0],
        { direction: "sendonly", streams: [stream], sendEncodings });
    const codecs = RTCRtpSender.getCapabilities("video").codecs.filter(({ mimeType }) => mimeType === codec);
    video.setCodecPreferences(codecs);
    await connection.setLocalDescription();
    const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/sdp" };
    const answer = await fetch(url, { method: "POST", body: connection.localDescription.sdp, headers });
    if (answer.status !== 201) throw new Error(await answer.text());
    window.session = new URL(answer.headers.get("Location"), url).href;
    await connection.setRemoteDescription({ type: "answer", sdp: await answer.text() });
}"""
SENT = """async () => [...(await window.connection.getStats()).values()]
    .filter(({ type, rid }) => type === "outbound-rtp" && rid).map(({ rid, framesSent }) => [rid, framesSent])"""


@pytest_asyncio.fixture(loop_scope="session")
async def http_peer() -> AsyncIterator[MakeHttpPeer]:
    made: list[HttpPeer] = []

    def make(identity: str) -> HttpPeer:
        made.append(HttpPeer(identity))
        return made[-1]

    yield make
    for peer in made:
        await peer.close()


@pytest_asyncio.fixture(loop_scope="session")
async def page(chromium: Browser, pages: str) -> AsyncIterator[Page]:
    opened = await chromium.new_page()
    await opened.goto(pages)
    yield opened
    await opened.close()


async def plays(peer: HttpPeer) -> None:
    """Wait until a player has new pictures and new sound."""
    pictures, energy = peer.pictures, peer.energy

    async def more() -> bool:
        return peer.pictures > pictures + 5 and peer.energy > energy

    async def detail() -> tuple[int, float, str]:
        return peer.pictures, peer.energy, peer.connection.connectionState

    await eventually(more, f"{peer.identity} plays", detail=detail)


@pytest.mark.parametrize("kind", ["sdk", "sdk-dual", "chromium"])
async def test_viewers_with_an_sdk_see_and_hear_a_whip_publisher(
    server: ServerUnderTest, make_peer: PeerFactory, http_peer: MakeHttpPeer, room: str, kind: str
) -> None:
    viewer: SdkPeer | BrowserPeer = await make_peer(kind, "viewer")
    await viewer.join(server, room)
    film = http_peer("film")
    await film.publish(server, room)
    await sees(viewer, "film")
    await hears(viewer, "film")
    assert await film.delete() == 200
    await misses(viewer, "film")


async def test_a_whip_publisher_stays_as_long_as_its_media_and_goes_with_it(
    server: ServerUnderTest, make_peer: PeerFactory, http_peer: MakeHttpPeer, room: str
) -> None:
    viewer: SdkPeer = await make_peer("sdk", "viewer")
    await viewer.join(server, room)
    film = http_peer("film")
    await film.publish(server, room)
    await sees(viewer, "film")
    await asyncio.sleep(BEYOND_CONSENT_S)
    await hears(viewer, "film")
    await film.close()  # ends DTLS, and says nothing by HTTP
    await misses(viewer, "film")
    assert await film.delete() == 404


async def test_the_server_api_removes_a_whip_publisher(
    server: ServerUnderTest, make_peer: PeerFactory, http_peer: MakeHttpPeer, room: str
) -> None:
    viewer: SdkPeer = await make_peer("sdk", "viewer")
    await viewer.join(server, room)
    film = http_peer("film")
    await film.publish(server, room)
    await sees(viewer, "film")
    async with LiveKitAPI(server.http_url, KEY, SECRET) as api:
        await api.room.remove_participant(RoomParticipantIdentity(room=room, identity="film"))
    await misses(viewer, "film")


@pytest.mark.alone  # with less than a core an encoder leaves the highest layer out
@pytest.mark.parametrize("codec", ["video/VP8", "video/H264"])
async def test_chromium_publishes_layers_by_whip(
    server: ServerUnderTest, make_peer: PeerFactory, room: str, page: Page, codec: str
) -> None:
    viewer: SdkPeer = await make_peer("sdk", "viewer")
    await viewer.join(server, room)
    await page.evaluate(PUBLISH, [f"{server.http_url}/whip/v1", server.token(room, "page"), codec])
    seen = await sees(viewer, "page")
    assert seen.codec == codec.partition("/")[2]

    async def all_layers() -> bool:
        sent: list[list[Any]] = await page.evaluate(SENT)
        return len(sent) == 3 and all(frames for _, frames in sent)

    await eventually(all_layers, "Chromium sends three layers", detail=lambda: page.evaluate(SENT))

    async def large() -> bool:
        now = await sees(viewer, "page")
        return now.width == 1280

    await eventually(large, "the viewer gets the highest layer")


@pytest.mark.parametrize("kind", ["sdk", "chromium"])
async def test_a_whep_player_gets_what_an_sdk_publishes(
    server: ServerUnderTest, make_peer: PeerFactory, http_peer: MakeHttpPeer, room: str, kind: str
) -> None:
    screen = http_peer("screen")
    await screen.play(server, room)  # before anybody publishes
    ann: SdkPeer | BrowserPeer = await make_peer(kind, "ann")
    await ann.join(server, room)
    await ann.publish_audio()
    await ann.publish_video()
    await plays(screen)
    await knows(ann, "screen")
    assert await screen.delete() == 200
    await misses(ann, "screen")


async def test_a_whep_player_turns_to_another_participant(
    server: ServerUnderTest, make_peer: PeerFactory, http_peer: MakeHttpPeer, room: str
) -> None:
    people: list[SdkPeer] = []
    for identity in ("ann", "bob"):
        peer: SdkPeer = await make_peer("sdk", identity)
        await peer.join(server, room)
        await peer.publish_audio()
        await peer.publish_video()
        people.append(peer)
    screen = http_peer("screen")
    await screen.play(server, room)
    await plays(screen)
    await people[0].leave()
    await plays(screen)


async def test_whip_to_whep_without_any_sdk(server: ServerUnderTest, http_peer: MakeHttpPeer, room: str) -> None:
    film, screen = http_peer("film"), http_peer("screen")
    await film.publish(server, room, canSubscribe=False)
    await screen.play(server, room, "?participant=film", canPublish=False, hidden=True)
    await plays(screen)
