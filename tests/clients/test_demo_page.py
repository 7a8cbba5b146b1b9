"""The demo page as a person uses it: two of them meet, talk, change quality, and look at it at two widths."""

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from tests.clients.chromium import running_chromium
from tests.clients.network import ADDRESS
from tests.clients.sfu_server import ServerUnderTest, running_server

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]

DESKTOP: Any = {"width": 1280, "height": 800}
PHONE: Any = {"width": 390, "height": 844}
WAIT_MS = 30_000


async def _join(browser: Browser, server: ServerUnderTest, room: str, name: str, size: Any) -> Page:
    context = await browser.new_context(viewport=size, permissions=["camera", "microphone"])
    page = await context.new_page()
    await page.goto(f"{server.http_url}/demo?room={room}&name={name}")
    await page.get_by_role("button", name="Join").click()
    await expect(page.locator("#call")).to_be_visible(timeout=WAIT_MS)
    return page


async def test_two_people_meet_and_it_looks_like_a_call(
    server: ServerUnderTest, chromium: Browser, room: str, screenshots: Path
) -> None:
    ada = await _join(chromium, server, room, "Ada", DESKTOP)
    grace = await _join(chromium, server, room, "Grace", PHONE)
    for page, other in ((ada, "Grace"), (grace, "Ada")):
        tile = _tile(page, other)
        await expect(tile.locator(".received")).to_contain_text("kbit/s", timeout=WAIT_MS)
        await expect(tile.locator(".received")).to_contain_text("\u00d7")
    await ada.locator("#chat-toggle").click()
    await ada.locator("#chat-input").fill("Hello Grace, do you see me?")
    await ada.get_by_role("button", name="Send").click()
    await grace.locator("#chat-toggle").click()
    await expect(grace.locator("#messages")).to_contain_text("do you see me?", timeout=WAIT_MS)
    await ada.screenshot(path=screenshots / "demo-desktop.png")
    await grace.screenshot(path=screenshots / "demo-phone-chat.png")
    await grace.locator("#chat-toggle").click()
    await grace.screenshot(path=screenshots / "demo-phone.png")
    tile = _tile(ada, "Grace")
    await tile.locator(".quality").select_option("LOW")
    await expect(tile.locator(".received")).to_contain_text("\u00d7180 ", timeout=WAIT_MS)
    await grace.locator("#microphone").click()
    await expect(tile).to_have_class("tile has-video muted", timeout=WAIT_MS)
    await grace.locator("#leave").click()
    await expect(grace.locator("#lobby")).to_be_visible()
    await grace.screenshot(path=screenshots / "demo-lobby-phone.png")
    await expect(ada.locator(".tile", has_text="Grace")).to_have_count(0, timeout=WAIT_MS)
    await ada.context.close()
    await grace.context.close()


async def test_a_refused_camera_is_explained(
    own_network: None, server: ServerUnderTest, room: str, screenshots: Path
) -> None:
    async with running_chromium(fake_ui=False) as browser:
        context = await browser.new_context(viewport=DESKTOP, permissions=[])
        page = await context.new_page()
        await page.add_init_script(
            "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('no', 'NotAllowedError'))"
        )
        await page.goto(f"{server.http_url}/demo?room={room}&name=Ada")
        await page.get_by_role("button", name="Join").click()
        await expect(page.locator("#notice")).to_contain_text("The browser refused access to your", timeout=WAIT_MS)
        await page.screenshot(path=screenshots / "demo-refused.png")


async def test_a_restart_of_the_server_ends_no_call(
    own_network: None, chromium: Browser, room: str, tmp_path: Path, screenshots: Path
) -> None:
    with running_server(tmp_path, node_ip=ADDRESS) as before:
        ada = await _join(chromium, before, room, "Ada", DESKTOP)
        grace = await _join(chromium, before, room, "Grace", PHONE)
        seen = [(ada, "Grace"), (grace, "Ada")]
        for page, other in seen:
            await expect(_tile(page, other).locator(".received")).to_contain_text("kbit/s", timeout=WAIT_MS)
    await expect(ada.locator("#notice")).to_contain_text("reconnecting", timeout=WAIT_MS)
    await ada.screenshot(path=screenshots / "demo-reconnecting.png")
    with running_server(tmp_path, node_ip=ADDRESS, port=before.port):
        for page, other in seen:
            await expect(page.locator("#notice")).to_be_hidden(timeout=WAIT_MS)
            await expect(_tile(page, other).locator(".received")).to_contain_text("kbit/s", timeout=WAIT_MS)
        await ada.context.close()
        await grace.context.close()


def _tile(page: Page, name: str) -> Locator:
    return page.locator(".tile", has_text=name).first
