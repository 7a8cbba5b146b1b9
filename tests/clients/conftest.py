"""Real clients against a running server, all in a network namespace of their own."""

import os
import shutil
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.clients.chromium import running_chromium
from tests.clients.firefox import Firefox, running_firefox
from tests.clients.network import ADDRESS, NetworkUnavailable, enter_own_network
from tests.clients.pages import WEB, serving_pages
from tests.clients.peers import BrowserPeer, Peer, SdkPeer
from tests.clients.sfu_server import ServerUnderTest, running_server

PeerFactory = Callable[..., Awaitable[Any]]


def _missing(reason: str) -> None:
    """A machine without the clients says so; CI may not leave them out."""
    if os.environ.get("CI"):
        pytest.fail(f"client tests cannot run: {reason}")
    pytest.skip(f"NOT RUN: {reason} (see `make test`)")


@pytest.fixture(scope="session")
def own_network() -> None:
    try:
        enter_own_network()
    except NetworkUnavailable as error:
        _missing(f"no network namespace: {error}")


@pytest.fixture(scope="session")
def server(own_network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerUnderTest]:
    """One server for most tests; each test uses a room of its own."""
    with running_server(tmp_path_factory.mktemp("server"), node_ip=ADDRESS) as running:
        yield running


@pytest.fixture(scope="session")
def pages(own_network: None) -> Iterator[str]:
    if not (WEB / "node_modules" / "livekit-client").exists():
        _missing("livekit-client is not installed (npm ci in tests/clients/web)")
    with serving_pages() as url:
        yield url


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium(own_network: None) -> AsyncIterator[Browser]:
    if shutil.which("chromium") is None:
        _missing("chromium is not installed")
    async with running_chromium() as browser:
        yield browser


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def firefox(own_network: None) -> AsyncIterator[Firefox]:
    if shutil.which("firefox-esr") is None:
        _missing("firefox-esr is not installed")
    async with running_firefox() as browser:
        yield browser


@pytest.fixture
def room() -> str:
    return f"room-{uuid.uuid4().hex[:8]}"


@pytest_asyncio.fixture(loop_scope="session")
async def make_peer(request: pytest.FixtureRequest) -> AsyncIterator[PeerFactory]:
    """`await make_peer(kind, identity, **options)`: "chromium", "firefox", "sdk" or "sdk-dual"; all leave at the end."""
    made: list[Peer] = []
    opened: list[Any] = []

    async def make(kind: str, identity: str, **options: Any) -> Any:
        peer: Any
        if kind in ("sdk", "sdk-dual"):
            peer = SdkPeer(identity, single_pc=kind == "sdk", **options)
        else:
            url = request.getfixturevalue("pages")
            browser = request.getfixturevalue(kind)
            if kind == "chromium":
                page = await browser.new_page()
                await page.goto(url)
            else:
                page = await browser.open_page(url)
            opened.append(page)
            peer = BrowserPeer(page, identity, options)
        made.append(peer)
        return peer

    yield make
    for peer in made:
        try:
            await peer.leave()
        except Exception as error:  # a test that failed half way leaves peers in any state
            print(f"{peer.identity} did not leave: {error!r}")
    for page in opened:
        await page.close()


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Where tests put pictures for people to look at."""
    folder = Path(os.environ.get("SCREENSHOTS", "build/screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
