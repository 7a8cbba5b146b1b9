"""The page that plays by WHEP, in Chromium: it shows who speaks, whoever that is, and survives an ICE restart."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.clients.pages import serving_pages
from tests.clients.peers import SdkPeer, eventually
from tests.clients.sfu_server import ServerUnderTest

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]

PAGE = Path(__file__).parents[2] / "examples" / "whep_player.html"
WAIT_MS = 30_000
FRAMES = "() => document.querySelector('video').getVideoPlaybackQuality().totalVideoFrames"
WIDTH = "() => document.querySelector('video').videoWidth"
HEARS = """() => {
    const stream = document.querySelector("video").srcObject;
    if (!stream?.getAudioTracks().length) return false;
    if (!window.analyser) {
        const context = new AudioContext();
        window.analyser = context.createAnalyser();
        context.createMediaStreamSource(stream).connect(window.analyser);
    }
    const samples = new Float32Array(window.analyser.fftSize);
    window.analyser.getFloatTimeDomainData(samples);
    return samples.some((sample) => Math.abs(sample) > 0.01);
}"""


@pytest.fixture
def page_url(own_network: None) -> Iterator[str]:
    with serving_pages(PAGE) as url:
        yield url


@pytest_asyncio.fixture(loop_scope="session")
async def page(chromium: Browser, page_url: str) -> AsyncIterator[Page]:
    opened = await chromium.new_page()
    await opened.goto(page_url)
    yield opened
    await opened.close()


async def play(page: Page, server: ServerUnderTest, room: str, query: str = "") -> None:
    await page.get_by_label("Address").fill(f"{server.http_url}/whep/v1{query}")
    await page.get_by_label("Token").fill(server.token(room, "screen", canPublish=False))
    await page.get_by_role("button", name="Play").click()
    await expect(page.get_by_role("status")).to_have_text("You see whoever speaks.", timeout=WAIT_MS)


async def shows(page: Page, width: int) -> None:
    """Wait until the page has new pictures of this width."""
    before: int = await page.evaluate(FRAMES)

    async def detail() -> tuple[int, int]:
        return await page.evaluate(WIDTH), await page.evaluate(FRAMES)

    async def more() -> bool:
        seen: tuple[int, int] = await detail()
        return seen[0] == width and seen[1] > before + 10

    await eventually(more, f"pictures of width {width}", detail=detail)


async def joined(server: ServerUnderTest, room: str, identity: str) -> SdkPeer:
    peer = SdkPeer(identity)
    await peer.join(server, room)
    return peer


async def test_a_page_shows_who_speaks(server: ServerUnderTest, room: str, page: Page, screenshots: Path) -> None:
    ann, bob = await joined(server, room, "ann"), await joined(server, room, "bob")
    try:
        await ann.publish_video(width=640, height=360, simulcast=False)
        await play(page, server, room)
        await shows(page, 640)
        await page.screenshot(path=screenshots / "whep-player.png")
        await bob.publish_video(width=320, height=180, simulcast=False)
        await bob.publish_audio()
        await shows(page, 320)
        await page.wait_for_function(HEARS, timeout=WAIT_MS)
        await bob.leave()
        await shows(page, 640)
    finally:
        await ann.leave()


async def test_a_page_goes_on_after_an_ice_restart(server: ServerUnderTest, room: str, page: Page) -> None:
    ann = await joined(server, room, "ann")
    try:
        await ann.publish_video(width=640, height=360, simulcast=False)
        await play(page, server, room, "?participant=ann")
        await shows(page, 640)
        await page.evaluate("() => restart()")
        await shows(page, 640)
        await page.close()  # which ends the session

        async def gone() -> bool:
            return "screen" not in ann.room.remote_participants

        await eventually(gone, "the player has left")
    finally:
        await ann.leave()


async def test_a_page_is_told_why_it_cannot_play(server: ServerUnderTest, room: str, page: Page) -> None:
    await page.get_by_label("Address").fill(f"{server.http_url}/whep/v1")
    await page.get_by_label("Token").fill(server.token(room, "screen", canSubscribe=False))
    await page.get_by_role("button", name="Play").click()
    await expect(page.get_by_role("status")).to_have_text("the token does not allow subscribing", timeout=WAIT_MS)
