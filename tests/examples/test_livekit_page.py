"""The page with LiveKit's SDK in Chromium, as the token server serves it: two people meet, and one of them leaves."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.clients.conftest import without_client
from tests.clients.pages import WEB
from tests.clients.sfu_server import ServerUnderTest, free_port
from tests.examples.figures import FITS, HEARS, SEES
from tests.examples.programs import keys, listening, running

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]

SDK = WEB / "node_modules" / "livekit-client"
PASSWORDS = {"alice": "wonderland", "bob": "bü¡lder"}
DESKTOP: Any = {"width": 1280, "height": 800}
PHONE: Any = {"width": 390, "height": 844}
WAIT_MS = 30_000
REFUSED_MICROPHONE = """{
    const devices = navigator.mediaDevices, open = devices.getUserMedia.bind(devices);
    devices.getUserMedia = (wanted) =>
        wanted.audio ? Promise.reject(new DOMException("Permission denied", "NotAllowedError")) : open(wanted);
}"""


@pytest_asyncio.fixture(loop_scope="session")
async def page_url(server: ServerUnderTest) -> AsyncIterator[str]:
    """The address of the page."""
    if not SDK.exists():
        without_client("livekit-client is not installed (npm ci in tests/clients/web)")
    port = free_port()
    users = [f"{name}:{password}" for name, password in PASSWORDS.items()]
    environment = keys(server) | {"LIVEKIT_URL": server.url, "LIVEKIT_CLIENT": str(SDK)}
    async with running("examples/token_server.py", str(port), *users, **environment):
        await listening(url := f"http://127.0.0.1:{port}/")
        yield url


@pytest_asyncio.fixture(loop_scope="session")
async def pages(chromium: Browser, page_url: str) -> AsyncIterator[tuple[Page, Page]]:
    """The page at two widths, before a join."""
    contexts = [await chromium.new_context(viewport=size) for size in (DESKTOP, PHONE)]
    opened = [await context.new_page() for context in contexts]
    yield opened[0], opened[1]
    for context in contexts:
        await context.close()


async def join(page: Page, url: str, room: str, name: str, password: str | None = None) -> None:
    await page.goto(url)
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("Password").fill(password or PASSWORDS[name])
    await page.get_by_label("Room").fill(room)
    await page.get_by_role("button", name="Join").click()


async def test_two_people_see_and_hear_each_other(
    page_url: str, pages: tuple[Page, Page], room: str, screenshots: Path
) -> None:
    alice, bob = pages
    await bob.goto(page_url)
    await bob.screenshot(path=screenshots / "livekit-page-phone-before.png")
    for page, name in zip(pages, PASSWORDS, strict=True):
        await join(page, page_url, room, name)
        await expect(page.get_by_text(f"{name.title()} (you)")).to_be_visible(timeout=WAIT_MS)
        await expect(page.get_by_role("button", name="Camera", pressed=True)).to_be_visible(timeout=WAIT_MS)
    for page, other in ((alice, "Bob"), (bob, "Alice")):
        await page.wait_for_function(SEES, arg=other, timeout=WAIT_MS)
        await page.wait_for_function(HEARS, arg=other, timeout=WAIT_MS)
        await page.wait_for_function(SEES, arg="(you)", timeout=WAIT_MS)
        await expect(page.get_by_text(f"2 in {room}")).to_be_visible()
        await expect(page.get_by_role("status")).to_have_text("")
        assert await page.evaluate(FITS)
    await alice.screenshot(path=screenshots / "livekit-page-desktop.png")
    await bob.get_by_role("button", name="Microphone").click()
    await expect(alice.locator("figure.silent", has_text="Bob")).to_be_visible(timeout=WAIT_MS)
    await bob.get_by_role("button", name="Camera").click()
    await expect(alice.locator("figure.dark", has_text="Bob")).to_be_visible(timeout=WAIT_MS)
    await bob.screenshot(path=screenshots / "livekit-page-phone.png")
    await bob.get_by_role("button", name="Leave").click()
    await expect(bob.get_by_role("status")).to_have_text("You have left.")
    await expect(bob.get_by_role("button", name="Join")).to_be_enabled()
    await expect(bob.locator("figure")).to_have_count(0)
    await expect(alice.locator("figure")).to_have_count(1, timeout=WAIT_MS)
    await expect(alice.get_by_text(f"1 in {room}")).to_be_visible()


async def test_a_wrong_password_is_explained(page_url: str, pages: tuple[Page, Page], room: str) -> None:
    await join(pages[0], page_url, room, "alice", "x")
    await expect(pages[0].get_by_role("status")).to_have_text("name or password is wrong", timeout=WAIT_MS)
    await expect(pages[0].get_by_role("button", name="Join")).to_be_enabled()


async def test_who_refuses_the_microphone_is_seen_all_the_same(
    page_url: str, pages: tuple[Page, Page], room: str
) -> None:
    alice, bob = pages
    await alice.add_init_script(REFUSED_MICROPHONE)
    for page, name in zip(pages, PASSWORDS, strict=True):
        await join(page, page_url, room, name)
    await expect(alice.get_by_role("status")).to_have_text("No microphone: Permission denied.", timeout=WAIT_MS)
    await bob.wait_for_function(SEES, arg="Alice", timeout=WAIT_MS)
    await expect(bob.locator("figure.silent", has_text="Alice")).to_be_visible()


async def test_without_the_sdk_the_page_says_what_to_do(
    server: ServerUnderTest, pages: tuple[Page, Page], tmp_path: Path
) -> None:
    port = free_port()
    environment = keys(server) | {"LIVEKIT_CLIENT": str(tmp_path / "nothing")}
    async with running("examples/token_server.py", str(port), "alice:wonderland", **environment):
        await listening(url := f"http://127.0.0.1:{port}/")
        await pages[0].goto(url)
        await expect(pages[0].get_by_role("status")).to_contain_text("npm install livekit-client")
        await expect(pages[0].get_by_role("button", name="Join")).to_be_disabled()
