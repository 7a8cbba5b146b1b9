"""The demo page as a person uses it: two of them meet, talk, change quality, and look at it at two widths."""

import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Locator, Page, WebSocketRoute, expect

from tests.clients.chromium import running_chromium
from tests.clients.lossy_path import LossyPath, lossy_path
from tests.clients.network import ADDRESS
from tests.clients.sfu_server import ServerUnderTest, running_server

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]

DESKTOP: Any = {"width": 1280, "height": 800}
PHONE: Any = {"width": 390, "height": 844}
SIZES = (PHONE, DESKTOP)
WAIT_MS = 30_000
JUDGED_MS = 60_000
"""How long until a change of a connection shows, at most; it is judged every five seconds."""
LOSS = 0.4
"""The share of RTP packets that is lost: more than any audio codec hides."""

SLOW_CAMERA = """{
    const devices = navigator.mediaDevices, open = devices.getUserMedia.bind(devices);
    const slow = (video) => ({ ...(video === true ? {} : video), frameRate: 5 });
    devices.getUserMedia = (wanted) => open(wanted.video ? { ...wanted, video: slow(wanted.video) } : wanted);
}"""
"""Five browsers that encode thirty pictures a second in three layers keep two cores busy for long."""
NO_CAMERA = """{
    const devices = navigator.mediaDevices, open = devices.getUserMedia.bind(devices);
    devices.enumerateDevices = () => Promise.resolve([{ kind: "audioinput", deviceId: "", label: "" }]);
    devices.getUserMedia = (wanted) =>
        wanted.video ? Promise.reject(new DOMException("", "NotFoundError")) : open(wanted);
}"""
NO_MICROPHONE = """{
    const devices = navigator.mediaDevices, open = devices.getUserMedia.bind(devices);
    devices.getUserMedia = (wanted) =>
        wanted.audio ? Promise.reject(new DOMException("", "NotAllowedError")) : open(wanted);
}"""
NO_HIGH_LAYER = """{
    const { prototype } = RTCPeerConnection, add = prototype.addTransceiver;
    prototype.addTransceiver = function (track, options) {
        const sendEncodings = options.sendEncodings?.filter(({ rid }) => rid !== "f");
        return add.call(this, track, sendEncodings ? { ...options, sendEncodings } : options);
    };
}"""
HIDDEN_AT_WILL = "Object.defineProperty(Document.prototype, 'hidden', { get: () => window.away ?? false })"
STATISTICS = re.compile("/statistics/")
LAID_OUT = """() => {
    const faults = [], box = (element) => element.getBoundingClientRect();
    const inside = (inner, outer) => inner.left >= outer.left - 0.5 && inner.right <= outer.right + 0.5
        && inner.top >= outer.top - 0.5 && inner.bottom <= outer.bottom + 0.5;
    const apart = (a, b) => a.right <= b.left || b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top;
    const page = { left: 0, top: 0, right: innerWidth, bottom: innerHeight };
    const shown = (parent, selector) => [...parent.querySelectorAll(selector)].filter((part) => part.checkVisibility());
    for (const part of shown(document, ".tile, .bar button, .notice, .notice *, .alone, .alone *"))
        if (!inside(box(part), page)) faults.push(`${part.className || part.id} leaves the page`);
    for (const card of shown(document, ".alone"))
        for (const part of shown(card, "*"))
            if (!inside(box(part), box(card))) faults.push(`${part.id || part.tagName} leaves its card`);
    for (const button of shown(document, ".bar button"))
        for (const label of shown(button, "span"))
            if (!inside(box(label), box(button))) faults.push(`${label.textContent} leaves its button`);
    for (const tile of shown(document, ".tile")) {
        const parts = shown(tile, ".who, .received, .quality, .muted-mark, .bars, .shortfall span");
        const name = tile.querySelector(".who");
        for (const part of parts) if (!inside(box(part), box(tile))) faults.push(`${part.className} leaves the tile`);
        for (const a of parts) for (const b of parts)
            if (a !== b && !apart(box(a), box(b))) faults.push(`${a.className} covers ${b.className}`);
        if (name.scrollWidth > name.clientWidth) faults.push(`${name.textContent} is cut off`);
    }
    return faults;
}"""
"""What is wrong with where things are on the page: parts that leave their place or cover each other, names cut off."""

SCREEN_IS_MAIN = """() => {
    const [screen, ...others] = document.querySelectorAll(".tile"), box = (tile) => tile.getBoundingClientRect();
    const area = (tile) => box(tile).width * box(tile).height, faults = [];
    if (!screen.matches(".screen.has-video")) faults.push("the first tile shows no screen");
    for (const tile of others) {
        const name = tile.querySelector(".who").textContent, after = box(tile), first = box(screen);
        if (after.top < first.bottom && after.left < first.right) faults.push(`${name} is not after the screen`);
        if (area(tile) > 0.5 * area(screen)) faults.push(`${name} is not much smaller than the screen`);
    }
    return faults;
}"""
"""What keeps the first tile from being a shared screen that stands before the others and is larger than they are."""


async def _join(
    browser: Browser,
    server: ServerUnderTest,
    room: str,
    name: str,
    size: Any,
    devices: str | None = None,
    way: LossyPath | None = None,
) -> Page:
    context = await browser.new_context(viewport=size, permissions=["camera", "microphone"])
    page = await context.new_page()
    if way is not None:
        await _send_media_by(page, server, way)
    if devices is not None:
        await page.add_init_script(devices)
    await page.goto(f"{server.http_url}/demo?room={room}&name={name}")
    await page.get_by_role("button", name="Join").click()
    await expect(page.locator("#call")).to_be_visible(timeout=WAIT_MS)
    return page


async def _send_media_by(page: Page, server: ServerUnderTest, way: LossyPath) -> None:
    """Let a page, which comes from the server itself, find the relay in the server's answers."""
    named, relayed = (f" {port} typ host" for port in (server.udp_port, way.server.udp_port))

    def route(socket: WebSocketRoute) -> None:
        upstream = socket.connect_to_server()
        upstream.on_message(lambda text: socket.send(str(text).replace(named, relayed)))

    await page.route_web_socket(re.compile("/rtc/v1"), route)


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


async def _resize(page: Page, size: Any) -> None:
    """Give a page another size, and wait until it has drawn itself anew."""
    await page.set_viewport_size(size)
    await page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")


@pytest.mark.alone  # five browsers fill both cores
async def test_names_and_controls_have_their_place(
    server: ServerUnderTest, chromium: Browser, room: str, screenshots: Path
) -> None:
    """Five meet, and one after the other leaves. The last two lack a microphone, or a camera."""
    names = ("Ada Lovelace", "Grace Hopper", "Linus T.", "Mary Jackson", "Noor Khan")
    devices = (None, None, None, NO_MICROPHONE, NO_CAMERA)
    async with _gathering(chromium, server, room, dict(zip(names, devices, strict=True))) as pages:
        for name in names[1:4]:
            received = _tile(pages[0], name).locator(".received")
            await expect(received).to_contain_text("kbit/s", timeout=WAIT_MS)
        for page in pages[1:]:
            await _is_laid_out(page, "with 5")
        for number in range(len(pages), 0, -1):
            await expect(pages[0].locator(".tile")).to_have_count(number, timeout=WAIT_MS)
            for size in SIZES:
                await _resize(pages[0], size)
                await pages[0].screenshot(path=screenshots / f"demo-{size['width']}-{number}.png")
            await _is_laid_out(pages[0], f"with {number}")
            await pages[number - 1].locator("#leave").click()


@contextlib.asynccontextmanager
async def _gathering(
    browser: Browser, server: ServerUnderTest, room: str, people: dict[str, str | None]
) -> AsyncIterator[list[Page]]:
    """The pages of several people in a room: name -> what changes their devices."""
    pages: list[Page] = []
    try:
        for name, devices in people.items():
            pages.append(await _join(browser, server, room, name, DESKTOP, SLOW_CAMERA + (devices or "")))
        for page in pages:
            await expect(page.locator(".tile")).to_have_count(len(pages), timeout=WAIT_MS)
        yield pages
    finally:
        for page in pages:
            await page.context.close()


async def _is_laid_out(page: Page, when: str, *laws: str) -> None:
    """Check at every size that everything has its place, and more laws like that."""
    for size in SIZES:
        await _resize(page, size)
        for law in (LAID_OUT, *laws):
            assert await page.evaluate(law) == [], f"{when} at {size}"


@pytest.mark.alone  # three browsers fill both cores
async def test_a_shared_screen_comes_first_is_the_largest_and_has_one_quality(
    server: ServerUnderTest, chromium: Browser, room: str, screenshots: Path
) -> None:
    people = dict.fromkeys(("Ada Lovelace", "Grace Hopper", "Linus T."))
    async with _gathering(chromium, server, room, people) as pages:
        await pages[0].locator("#screen").click()
        for number in range(len(pages), 0, -1):
            for viewer, page in enumerate(pages[:number], 1):
                await expect(page.locator(".tile.has-video:not(.screen)")).to_have_count(number, timeout=WAIT_MS)
                await expect(page.locator(".tile.screen.has-video")).to_have_count(1, timeout=WAIT_MS)
                if page is not pages[0]:
                    received = page.locator(".tile.screen .received")
                    await expect(received).to_contain_text("kbit/s", timeout=WAIT_MS)
                    face = page.locator(".tile:not(.screen)", has_text="Ada Lovelace")
                    await expect(face.locator(".quality")).to_be_visible(timeout=WAIT_MS)
                    await expect(page.locator(".tile.screen .quality")).to_be_hidden()
                for size in SIZES:
                    await _resize(page, size)
                    shot = f"demo-screen-{size['width']}-{viewer}-of-{number}"
                    await page.screenshot(path=screenshots / f"{shot}.png")
                await _is_laid_out(page, f"{viewer} of {number}", SCREEN_IS_MAIN)
            if number > 1:
                await pages[number - 1].locator("#leave").click()
        await pages[0].locator("#screen").click()
        await expect(pages[0].locator(".tile.screen")).to_have_count(0, timeout=WAIT_MS)
        await expect(pages[0].locator("#stage")).to_be_hidden()


@pytest.mark.alone
async def test_bars_show_and_say_how_good_each_connection_is(
    server: ServerUnderTest, chromium: Browser, room: str, screenshots: Path
) -> None:
    async with lossy_path(server, round_trip_s=0.04, loss=0.0) as way:
        ada = await _join(chromium, server, room, "Ada", DESKTOP, NO_CAMERA, way)
        grace = await _join(chromium, server, room, "Grace", PHONE, NO_CAMERA)

        async def says(name: str, words: str) -> None:
            for page in (ada, grace):
                bars = _tile(page, name).get_by_role("img", name=re.compile(f"^Connection: ({words})$"))
                await expect(bars).to_be_visible(timeout=JUDGED_MS)

        for name in ("Ada", "Grace"):
            await says(name, "excellent")
        way.loss = LOSS
        await says("Ada", "poor|lost")
        await says("Grace", "excellent")
        await ada.screenshot(path=screenshots / "demo-connection-desktop.png")
        await grace.screenshot(path=screenshots / "demo-connection-phone.png")
        way.loss = 0.0
        await says("Ada", "excellent")
        await ada.context.close()
        await grace.context.close()


async def test_a_page_that_nobody_sees_asks_for_no_statistics(
    server: ServerUnderTest, chromium: Browser, room: str
) -> None:
    ada = await _join(chromium, server, room, "Ada", DESKTOP)
    grace = await _join(chromium, server, room, "Grace", DESKTOP, HIDDEN_AT_WILL)
    async with grace.expect_request(STATISTICS, timeout=WAIT_MS):
        await expect(_tile(grace, "Ada").locator(".received")).to_contain_text("kbit/s", timeout=WAIT_MS)
    await grace.evaluate("away = true")
    asked: list[str] = []
    grace.on("request", lambda request: asked.append(request.url))
    await grace.wait_for_timeout(7_000)
    assert asked == []
    async with grace.expect_request(STATISTICS, timeout=WAIT_MS):
        await grace.evaluate("away = false")
    await ada.context.close()
    await grace.context.close()


async def test_a_tile_says_why_it_gets_less_than_preferred(
    server: ServerUnderTest, chromium: Browser, room: str, screenshots: Path
) -> None:
    ada = await _join(chromium, server, room, "Ada", DESKTOP, NO_HIGH_LAYER)
    grace = await _join(chromium, server, room, "Grace", DESKTOP)
    tile = _tile(grace, "Ada")
    await expect(tile.locator(".received")).to_contain_text("kbit/s", timeout=WAIT_MS)
    await tile.locator(".quality").select_option("HIGH")
    shortfall = tile.locator(".shortfall")
    await expect(shortfall).to_have_text("Less than preferred: the sender sends no more", timeout=WAIT_MS)
    await expect(tile.locator(".received")).to_contain_text("medium", timeout=WAIT_MS)
    for size in SIZES:
        await _resize(grace, size)
        await grace.screenshot(path=screenshots / f"demo-shortfall-{size['width']}.png")
    await _is_laid_out(grace, "with a shortfall")
    await tile.locator(".quality").select_option("LOW")
    await expect(tile.locator(".shortfall")).to_be_hidden(timeout=WAIT_MS)
    await expect(tile.locator(".received")).to_contain_text("low", timeout=WAIT_MS)
    await ada.context.close()
    await grace.context.close()


async def test_who_is_alone_is_told_how_others_come(server: ServerUnderTest, chromium: Browser, room: str) -> None:
    ada = await _join(chromium, server, room, "Ada", PHONE)
    await expect(ada.locator("#alone")).to_be_visible()
    link = await ada.locator("#link").inner_text()
    grace = await chromium.new_page(viewport=PHONE)
    await grace.goto(f"{link}&name=Grace")
    assert await grace.locator("#room-name").input_value() == room
    await grace.get_by_role("button", name="Join").click()
    await expect(ada.locator("#alone")).to_be_hidden(timeout=WAIT_MS)
    await grace.locator("#leave").click()
    await expect(ada.locator("#alone")).to_be_visible(timeout=WAIT_MS)
    await ada.context.close()
    await grace.close()


async def test_without_a_camera_the_page_says_so_before(
    server: ServerUnderTest, chromium: Browser, room: str, screenshots: Path
) -> None:
    context = await chromium.new_context(viewport=PHONE, permissions=["microphone"])
    page = await context.new_page()
    await page.add_init_script(NO_CAMERA)
    await page.goto(f"{server.http_url}/demo?room={room}&name=Ada")
    await expect(page.locator("#missing")).to_contain_text("No camera found")
    await expect(page.locator("#with-camera")).to_be_disabled()
    await expect(page.locator("#with-camera")).not_to_be_checked()
    await page.screenshot(path=screenshots / "demo-no-camera.png")
    await page.get_by_role("button", name="Join").click()
    await expect(page.locator("#call")).to_be_visible(timeout=WAIT_MS)
    await expect(page.locator("#microphone")).to_have_attribute("aria-pressed", "true", timeout=WAIT_MS)
    await expect(page.locator("#notice")).to_be_hidden()
    await expect(page.locator("#camera")).to_contain_text("No camera")
    await page.locator("#camera").click()
    await expect(page.locator("#notice")).to_contain_text("No camera was found", timeout=WAIT_MS)
    await context.close()


async def test_a_refused_microphone_stays_explained_while_the_camera_works(
    server: ServerUnderTest, chromium: Browser, room: str
) -> None:
    page = await _join(chromium, server, room, "Ada", PHONE, NO_MICROPHONE)
    await expect(page.locator("#camera")).to_have_attribute("aria-pressed", "true", timeout=WAIT_MS)
    await expect(page.locator("#notice")).to_contain_text("refused access to your microphone")
    await page.locator("#camera").click()
    await expect(page.locator("#camera")).to_have_attribute("aria-pressed", "false", timeout=WAIT_MS)
    await expect(page.locator("#notice")).to_contain_text("refused access to your microphone")
    await page.context.close()


async def test_a_notice_can_be_closed(server: ServerUnderTest, chromium: Browser, room: str, screenshots: Path) -> None:
    page = await _join(
        chromium, server, room, "Ada", PHONE, NO_MICROPHONE + NO_CAMERA.replace("NotFound", "NotAllowed")
    )
    about_microphone = page.get_by_role("button", name="Close the notice about the microphone")
    about_camera = page.get_by_role("button", name="Close the notice about the camera")
    await expect(about_microphone).to_be_visible(timeout=WAIT_MS)
    await page.locator("#camera").click()
    await expect(about_camera).to_be_visible(timeout=WAIT_MS)
    await page.screenshot(path=screenshots / "demo-notices.png")
    assert await page.evaluate(LAID_OUT) == []
    await about_microphone.click()
    await expect(page.locator("#notice")).not_to_contain_text("microphone")
    await expect(page.locator("#notice")).to_contain_text("refused access to your camera")
    await expect(about_camera).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("#notice")).to_be_hidden()
    await expect(page.locator("#microphone")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("#notice")).to_contain_text("refused access to your microphone", timeout=WAIT_MS)
    await page.context.close()


async def test_without_dev_the_page_says_at_once_that_nobody_can_join(
    own_network: None, chromium: Browser, room: str, tmp_path: Path, screenshots: Path
) -> None:
    page = await chromium.new_page(viewport=PHONE)
    with running_server(tmp_path, node_ip=ADDRESS, dev=False) as server:
        await page.goto(f"{server.http_url}/demo?room={room}&name=Ada")
        await expect(page.locator("#join-error")).to_contain_text("start the server with --dev")
        await expect(page.get_by_role("button", name="Join")).to_be_disabled()
        await page.screenshot(path=screenshots / "demo-no-tokens.png")
        await page.close()


async def test_where_there_are_tokens_the_page_has_nothing_to_say(
    server: ServerUnderTest, chromium: Browser, room: str
) -> None:
    page = await chromium.new_page(viewport=PHONE)
    async with page.expect_response(lambda answer: "/demo/token" in answer.url) as asked:
        await page.goto(f"{server.http_url}/demo?room={room}&name=Ada")
    answer = await asked.value
    assert (answer.request.method, answer.status) == ("HEAD", 200)
    await expect(page.locator("#join-error")).to_be_hidden()
    await expect(page.get_by_role("button", name="Join")).to_be_enabled()
    await page.close()


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
