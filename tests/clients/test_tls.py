"""A call over wss on the main port, without a proxy: clients trust the server by an authority in their own stores."""

import contextlib
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import expect

from signaling.config.options import TlsOptions
from tests.clients.chromium import running_chromium
from tests.clients.conftest import PeerFactory, require_program
from tests.clients.firefox import running_firefox
from tests.clients.network import ADDRESS
from tests.clients.peers import BrowserPeer, Peer, eventually
from tests.clients.process_peer import process_peer
from tests.clients.sfu_server import ServerUnderTest, running_server
from tests.clients.trust import CHROMIUM_STORE, trust
from tests.signaling.support.authority import Authority

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]

WAIT_MS = 30_000


@dataclass(frozen=True, slots=True)
class Secured:
    """A server with a certificate, and who signed it."""

    server: ServerUnderTest
    authority: Authority
    pem: Path
    files: TlsOptions

    def serial(self) -> str:
        """The number of the certificate that a new connection is shown."""
        with (
            socket.create_connection(("127.0.0.1", self.server.port), 5) as plain,
            self.authority.client_context().wrap_socket(plain, server_hostname="127.0.0.1") as connection,
        ):
            told = connection.getpeercert()
            assert told is not None
            return str(told["serialNumber"])


@pytest.fixture(scope="module")
def secured(own_network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    require_program("certutil")
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority()
    files = authority.write(folder)
    pem = folder / "authority.pem"
    pem.write_bytes(authority.pem)
    extra = ("--tls.cert_file", files.cert_file, "--tls.key_file", files.key_file)
    with running_server(folder, node_ip=ADDRESS, extra=extra) as server:
        server.secure = True
        yield Secured(server, authority, pem, files)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def trusting(
    secured: Secured, pages: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, Any]]:
    """A page of each browser that trusts the authority."""
    require_program("chromium")
    require_program("firefox-esr")
    home = tmp_path_factory.mktemp("home")
    trust(home / CHROMIUM_STORE, secured.pem)
    async with contextlib.AsyncExitStack() as exits:
        chromium = await exits.enter_async_context(running_chromium(home=home))
        firefox = await exits.enter_async_context(running_firefox(authority=secured.pem))
        page = await chromium.new_page()
        await page.goto(pages)
        yield {"browser": chromium, "chromium": page, "firefox": await firefox.open_page(pages)}


async def test_browsers_and_the_native_sdk_hold_a_call_over_wss_while_the_certificate_changes(
    secured: Secured, trusting: dict[str, Any], room: str
) -> None:
    async with process_peer("native", environment={"SSL_CERT_FILE": str(secured.pem)}) as native:
        peers: list[Peer] = [native, *(BrowserPeer(trusting[kind], kind) for kind in ("chromium", "firefox"))]
        for peer in peers:
            await peer.join(secured.server, room)
            await peer.publish_audio()
        await all_hear_each_other(peers)
        before = secured.serial()
        secured.authority.write(Path(secured.files.cert_file).parent)
        secured.server.process.send_signal(signal.SIGHUP)

        async def is_new() -> bool:
            return secured.serial() != before

        await eventually(is_new, "the new certificate")
        for browser in peers[1:]:
            assert isinstance(browser, BrowserPeer)
            await browser.run("room.simulateScenario('signal-reconnect')")

            async def is_back(browser: BrowserPeer = browser) -> bool:
                return any(name == "Reconnected" for name, *_ in (await browser.state())["events"])

            await eventually(is_back, "Reconnected", detail=browser.state)
        await all_read(peers)
        for peer in peers:
            await peer.leave()


async def all_hear_each_other(peers: list[Peer]) -> None:
    """Wait until everybody has sound of everybody else."""

    async def heard(listener: Peer) -> bool:
        received = await listener.received()
        others = [peer.identity for peer in peers if peer is not listener]
        return all(other in received and received[other]["microphone"].energy > 0 for other in others)

    for listener in peers:
        await eventually(partial(heard, listener), "sound of all", detail=listener.received)


async def all_read(peers: list[Peer]) -> None:
    """Wait until everybody has a message of everybody else."""

    async def read(reader: Peer) -> bool:
        for peer in peers:
            await peer.say("over TLS")
        senders = {sender for sender, text in await reader.messages() if text == "over TLS"}
        return senders >= {peer.identity for peer in peers if peer is not reader}

    for reader in peers:
        await eventually(partial(read, reader), "messages of all", detail=reader.messages)


async def test_the_demo_page_comes_over_https_and_joins_over_wss(
    secured: Secured, trusting: dict[str, Any], room: str
) -> None:
    context = await trusting["browser"].new_context(permissions=["camera", "microphone"])
    page = await context.new_page()
    sockets: list[str] = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    await page.goto(f"https://127.0.0.1:{secured.server.port}/demo?room={room}&name=Ada")
    await page.get_by_role("button", name="Join").click()
    await expect(page.locator("#call")).to_be_visible(timeout=WAIT_MS)
    assert [url.split(":")[0] for url in sockets] == ["wss"]
    await context.close()


async def test_who_does_not_know_the_authority_does_not_come_in(
    secured: Secured, make_peer: PeerFactory, room: str
) -> None:
    stranger: BrowserPeer = await make_peer("chromium", "stranger")
    with pytest.raises(Exception, match=r"could not establish|Failed|connect"):
        await stranger.join(secured.server, room, connect={"maxRetries": 0})
    async with httpx.AsyncClient(base_url=f"https://127.0.0.1:{secured.server.port}", trust_env=False) as client:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await client.get("/")
    context = ssl.create_default_context(cafile=str(secured.pem))
    async with httpx.AsyncClient(
        base_url=f"https://127.0.0.1:{secured.server.port}", trust_env=False, verify=context
    ) as client:
        assert (await client.get("/")).text == "OK"
