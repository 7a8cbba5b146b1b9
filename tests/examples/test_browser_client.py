"""The page of one file in Chromium: two people meet, see and hear each other, and one of them leaves."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.clients.pages import serving_pages
from tests.clients.sfu_server import ServerUnderTest
from tests.examples.figures import FITS, HEARS, SEES

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]

PAGE = Path(__file__).parents[2] / "examples" / "browser_client.html"
DESKTOP: Any = {"width": 1280, "height": 800}
PHONE: Any = {"width": 390, "height": 844}
WAIT_MS = 30_000


@pytest.fixture
def page_url(own_network: None) -> Iterator[str]:
    with serving_pages(PAGE) as url:
        yield url


@pytest_asyncio.fixture(loop_scope="session")
async def pages(chromium: Browser, page_url: str) -> AsyncIterator[tuple[Page, Page]]:
    """The page at two widths, before a join."""
    contexts = [await chromium.new_context(viewport=size) for size in (DESKTOP, PHONE)]
    opened = [await context.new_page() for context in contexts]
    for page in opened:
        await page.goto(page_url)
    yield opened[0], opened[1]
    for context in contexts:
        await context.close()


async def join(page: Page, server: ServerUnderTest, token: str) -> None:
    await page.get_by_label("Server").fill(server.url)
    await page.get_by_label("Token").fill(token)
    await page.get_by_role("button", name="Join").click()


async def test_two_people_see_and_hear_each_other(
    server: ServerUnderTest, pages: tuple[Page, Page], room: str, screenshots: Path
) -> None:
    ada, grace = pages
    await grace.screenshot(path=screenshots / "one-file-phone-before.png")
    for page, name in zip(pages, ("Ada Lovelace", "Grace Hopper"), strict=True):
        await join(page, server, server.token(room, name))
        await expect(page.get_by_text(f"{name} (you)")).to_be_visible(timeout=WAIT_MS)
        await expect(page.get_by_role("button", name="Join")).to_be_hidden()
    for page, other in ((ada, "Grace"), (grace, "Ada")):
        await page.wait_for_function(SEES, arg=other, timeout=WAIT_MS)
        await page.wait_for_function(HEARS, arg=other, timeout=WAIT_MS)
        await expect(page.get_by_role("status")).to_have_text("In the room with 1 other")
        assert await page.evaluate(FITS)
    await ada.screenshot(path=screenshots / "one-file-desktop.png")
    await grace.screenshot(path=screenshots / "one-file-phone.png")
    await grace.goto("about:blank")
    await expect(ada.get_by_text("Grace Hopper")).to_have_count(0, timeout=WAIT_MS)
    await expect(ada.get_by_role("status")).to_have_text("In the room with 0 others")


async def test_a_refused_token_is_explained(server: ServerUnderTest, pages: tuple[Page, Page], room: str) -> None:
    await join(pages[0], server, server.token(room, "Ada") + "x")
    await expect(pages[0].get_by_role("status")).to_contain_text("refused the token", timeout=WAIT_MS)
