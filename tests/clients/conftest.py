"""Real clients against a running server, all in a network namespace of their own."""

import contextlib
import os
import shutil
import uuid
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from bench.network.namespaces import NetworkUnavailable
from tests.clients.chromium import running_chromium
from tests.clients.firefox import Firefox, running_firefox
from tests.clients.network import ADDRESS, enter_own_network
from tests.clients.pages import WEB, serving_pages
from tests.clients.peers import BrowserPeer, Peer, SdkPeer
from tests.clients.sfu_server import ServerUnderTest, running_server

PeerFactory = Callable[..., Awaitable[Any]]
Join = Callable[..., Awaitable[Any]]


def without_client(reason: str) -> None:
    """A machine without the clients says so; CI may not leave them out."""
    if os.environ.get("CI"):
        pytest.fail(f"client tests cannot run: {reason}")
    pytest.skip(f"NOT RUN: {reason} (see `make test`)")


@pytest.fixture(scope="session")
def own_network() -> None:
    try:
        enter_own_network()
    except NetworkUnavailable as error:
        without_client(f"no network namespace: {error}")


@pytest.fixture(scope="session")
def server(own_network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerUnderTest]:
    """One server for most tests; each test uses a room of its own."""
    with running_server(tmp_path_factory.mktemp("server"), node_ip=ADDRESS) as running:
        yield running


@pytest.fixture(scope="session")
def pages(own_network: None) -> Iterator[str]:
    if not (WEB / "node_modules" / "livekit-client").exists():
        without_client("livekit-client is not installed (npm ci in tests/clients/web)")
    with serving_pages() as url:
        yield url


class Browsers:
    """Both browsers, each started when a test first asks for it."""

    def __init__(self, exits: contextlib.AsyncExitStack) -> None:
        self._exits = exits
        self._chromium: Browser | None = None
        self._firefox: Firefox | None = None

    async def chromium(self) -> Browser:
        if self._chromium is None:
            require_program("chromium")
            self._chromium = await self._exits.enter_async_context(running_chromium())
        return self._chromium

    async def firefox(self) -> Firefox:
        if self._firefox is None:
            require_program("firefox-esr")
            self._firefox = await self._exits.enter_async_context(running_firefox())
        return self._firefox

    async def open_page(self, kind: str, url: str) -> Any:
        """A tab of "chromium" or "firefox" that shows `url`."""
        if kind == "firefox":
            return await (await self.firefox()).open_page(url)
        page = await (await self.chromium()).new_page()
        await page.goto(url)
        return page


def require_program(program: str) -> None:
    if shutil.which(program) is None:
        without_client(f"{program} is not installed")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browsers(own_network: None) -> AsyncIterator[Browsers]:
    async with contextlib.AsyncExitStack() as exits:
        yield Browsers(exits)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium(browsers: Browsers) -> Browser:
    return await browsers.chromium()


@pytest.fixture
def room() -> str:
    return f"room-{uuid.uuid4().hex[:8]}"


@pytest_asyncio.fixture(loop_scope="session")
async def make_peer(browsers: Browsers, pages: str) -> AsyncIterator[PeerFactory]:
    """`await make_peer(kind, identity, **options)`: "chromium", "firefox", "sdk", "sdk-dual"; all leave at the end."""
    made: list[Peer] = []
    opened: list[Any] = []

    async def make(kind: str, identity: str, **options: Any) -> Any:
        peer: Any
        if kind in ("sdk", "sdk-dual"):
            peer = SdkPeer(identity, single_pc=kind == "sdk", **options)
        else:
            opened.append(await browsers.open_page(kind, pages))
            peer = BrowserPeer(opened[-1], identity, options)
        made.append(peer)
        return peer

    yield make
    for peer in made:
        try:
            await peer.leave()
        except Exception as error:  # a test that failed half way leaves peers in any state
            warnings.warn(f"{peer.identity} did not leave: {error!r}", stacklevel=1)
    for page in opened:
        await page.close()


@pytest.fixture
def join(server: ServerUnderTest, make_peer: PeerFactory, room: str) -> Join:
    """`await join(kind, identity, **grants)`: a peer that is in the room."""

    async def joined(kind: str, identity: str, **grants: object) -> Any:
        peer = await make_peer(kind, identity)
        await peer.join(server, room, **grants)
        return peer

    return joined


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Where tests put pictures for people to look at."""
    folder = Path(os.environ.get("SCREENSHOTS", "build/screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
