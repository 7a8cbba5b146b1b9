"""Real clients whose network leaves nothing open but the server's own TURN, over UDP, TCP and TLS."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from signaling.records.fallbacks import TRIED_S
from tests.clients.chromium import running_chromium
from tests.clients.conftest import Browsers, PeerFactory, require_program
from tests.clients.facts import hears, packets, reads, sees
from tests.clients.firefox import running_firefox
from tests.clients.json_peer import json_socket
from tests.clients.network import ADDRESS, SECOND_ADDRESS
from tests.clients.packet_filter import filtering
from tests.clients.peers import BrowserPeer
from tests.clients.sfu_server import ServerUnderTest
from tests.clients.test_turn_servers import PUBLISH
from tests.clients.trust import CHROMIUM_STORE, trust
from tests.clients.turn_server import DOMAIN, ROUTES, TurnPorts, running_turn_server
from tests.signaling.support.authority import Authority

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]

RELAY_ONLY = {"rtcConfig": {"iceTransportPolicy": "relay"}}
HELD_S = 4
IMPATIENT = {"peerConnectionTimeout": 1000 * (TRIED_S + 1)}
"""Who leaves sooner than after `TRIED_S` has not tried."""
COTURNS_TRIES = 20
"""Debian's client asks for something of its own choice in each second: an even port, an old version of TLS."""
Place = tuple[ServerUnderTest, TurnPorts]


@pytest.fixture(scope="module")
def place(own_network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running_turn_server(tmp_path_factory.mktemp("turn")) as running:
        yield running


async def _call(peers: dict[str, Any]) -> None:
    """Everybody publishes, sees, hears and reads everybody else."""
    for peer in peers.values():
        await peer.publish_audio()
        await peer.publish_video()
    pairs = [(peer, other) for peer in peers.values() for other in peers if peer.identity != other]
    for peer, other in pairs:
        await sees(peer, other)
        await hears(peer, other)
    for peer in peers.values():
        await peer.say(f"hello from {peer.identity}")
    for peer, other in pairs:
        await reads(peer, other, f"hello from {other}")
    before = {pair: await packets(*pair) for pair in pairs}
    await asyncio.sleep(HELD_S)
    for pair in pairs:
        assert await packets(*pair) - before[pair] > 40 * HELD_S, pair[1]


async def _routes(peer: BrowserPeer) -> set[str]:
    return set(await peer.run(ROUTES))


async def test_a_call_over_turn_and_tcp_where_nothing_else_gets_through(
    place: Place, make_peer: PeerFactory, room: str
) -> None:
    server, ports = place
    peers = {kind: await make_peer(kind, kind) for kind in ("chromium", "firefox", "sdk", "sdk-dual")}
    with filtering(*ports.only(server, "tcp")):
        for peer in peers.values():
            await peer.join(server, room)
        await _call(peers)
        for kind in ("chromium", "firefox"):
            assert await _routes(peers[kind]) == {"relay tcp"}, kind
            assert "Reconnecting" not in [event[0] for event in (await peers[kind].state())["events"]]


@pytest.mark.parametrize("kind", ["chromium", "firefox", "sdk"])
async def test_a_call_of_clients_that_use_relays_only_goes_over_udp(
    place: Place, make_peer: PeerFactory, room: str, kind: str
) -> None:
    server, _ = place
    ada = await make_peer(kind, "ada", **({"relay_only": True} if kind == "sdk" else {}))
    linus = await make_peer("chromium", "linus")
    await (ada.join(server, room) if kind == "sdk" else ada.join(server, room, connect=RELAY_ONLY))
    await linus.join(server, room, connect=RELAY_ONLY)
    await _call({"ada": ada, "linus": linus})
    for peer in (ada, linus):
        assert kind == "sdk" or await _routes(peer) == {"relay udp"}


async def test_firefox_stays_on_udp_where_everything_is_open(place: Place, make_peer: PeerFactory, room: str) -> None:
    """Firefox nominates every pair, those of relays too."""
    server, _ = place
    peers = {name: await make_peer("firefox", name) for name in ("ada", "linus")}
    for peer in peers.values():
        await peer.join(server, room)
        await peer.publish_audio(dtx=False)
    await hears(peers["ada"], "linus")
    await asyncio.sleep(HELD_S)
    for peer in peers.values():
        assert await _routes(peer) == {"direct udp"}


async def test_a_client_whose_other_ways_fail_is_sent_to_the_relay(
    place: Place, make_peer: PeerFactory, room: str
) -> None:
    server, ports = place
    linus = await make_peer("chromium", "linus")
    # Else the client would find the relay by itself, and nobody had to tell it.
    closed = "meta l4proto udp drop", f"tcp dport {{ {server.tcp_port}, {ports.tcp} }} drop"
    for _ in range(2):  # over UDP, over TCP
        with filtering(*closed), pytest.raises(Exception, match="pc connection"):
            await linus.join(server, room, connect=IMPATIENT)
    with filtering(*ports.only(server, "tcp")):
        await linus.join(server, room)
        assert await linus.run("room.engine.latestJoinResponse.clientConfiguration.forceRelay") == 2
        await linus.publish_audio()
        ada = await make_peer("chromium", "ada")
        await ada.join(server, room)
        await hears(ada, "linus")


async def test_a_publisher_of_whip_goes_through_the_relay_with_what_it_was_told_before(
    place: Place, make_peer: PeerFactory, browsers: Browsers, pages: str, room: str
) -> None:
    server, ports = place
    linus = await make_peer("chromium", "linus")
    await linus.join(server, room)
    page = await browsers.open_page("chromium", pages)
    links = await page.evaluate(PUBLISH, [f"{server.http_url}/whip/v1", server.token(room, "film")])
    assert all(f"<turn:{ADDRESS}:{ports.udp}?transport=udp>" in each for each in links)
    await hears(linus, "film")
    await page.close()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority(hosts=("127.0.0.1", DOMAIN))


@pytest.fixture(scope="module")
def pem(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("authority") / "authority.pem"
    file.write_bytes(authority.pem)
    return file


@pytest.fixture(scope="module")
def secured(own_network: None, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("turns")
    with running_turn_server(folder, authority.write(folder)) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def trusting(
    own_network: None, pem: Path, pages: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, Any]]:
    """A page of each browser that trusts the authority."""
    require_program("certutil")
    require_program("chromium")
    require_program("firefox-esr")
    home = tmp_path_factory.mktemp("home")
    trust(home / CHROMIUM_STORE, pem)
    names = {DOMAIN: ADDRESS}
    async with contextlib.AsyncExitStack() as exits:
        chromium = await exits.enter_async_context(running_chromium(home=home, names=names))
        firefox = await exits.enter_async_context(running_firefox(authority=pem, names=names))
        page = await chromium.new_page()
        await page.goto(pages)
        yield {"chromium": page, "firefox": await firefox.open_page(pages)}


async def _call_over_tls(place: Place, trusting: dict[str, Any], room: str) -> None:
    server, ports = place
    peers = {kind: BrowserPeer(trusting[kind], kind) for kind in ("chromium", "firefox")}
    with filtering(*ports.only(server, "tls")):
        for peer in peers.values():
            await peer.join(server, room)
        await _call(peers)
        for peer in peers.values():
            assert await _routes(peer) == {"relay tls"}
            await peer.leave()


async def test_browsers_hold_a_call_over_turn_and_tls_alone(
    secured: Place, trusting: dict[str, Any], room: str
) -> None:
    await _call_over_tls(secured, trusting, room)


async def test_browsers_hold_a_call_where_one_port_alone_is_open(
    authority: Authority, trusting: dict[str, Any], room: str, tmp_path: Path
) -> None:
    """Signalling and media, both inside of TLS, come to the port of HTTP."""
    with running_turn_server(tmp_path, authority.write(tmp_path), shares_port=True) as place:
        await _call_over_tls(place, trusting, room)


async def test_the_connection_check_of_turn_passes_without_a_warning(
    secured: Place, trusting: dict[str, Any], room: str
) -> None:
    server, _ = secured
    page = trusting["chromium"]
    report = await page.evaluate(
        f"new LivekitClient.ConnectionCheck('{server.url}', '{server.token(room, 'checker')}').checkTURN()"
        ".then(({status, logs}) => ({status, logs: logs.map(({level, message}) => `${level}: ${message}`)}))"
    )
    assert report["status"] == await page.evaluate("LivekitClient.CheckStatus.SUCCESS"), report
    assert not [line for line in report["logs"] if line.startswith(("error", "warning"))]


async def _coturns_client(place: Place, room: str, way: str, peer: tuple[str, int], *flags: str) -> str:
    """What coturn's client says of an allocation that it got, and of what it did with it for a peer."""
    server, ports = place
    secure = {"udp": (), "tcp": ("-t",), "tls": ("-t", "-S")}[way]
    for attempt in range(COTURNS_TRIES):
        identity = f"{way}-{peer[0]}-{peer[1]}-{attempt}"
        async with json_socket(f"ws://127.0.0.1:{server.port}", server.token(room, identity)) as joined:
            (told,) = (await joined.expect("join"))["iceServers"]
            credentials = ("-u", told["username"], "-w", told["credential"], "-p", str(getattr(ports, way)))
            traffic = ("-c", "-n", "1", "-m", "1", "-e", peer[0], "-r", str(peer[1]))
            process = await asyncio.create_subprocess_exec(
                *("timeout", "3", "turnutils_uclient", "-v", *secure, *flags, *credentials, *traffic, ADDRESS),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            said = (await process.communicate())[0].decode()
        if "Received relay addr" in said and "error 508" not in said:
            return said
        await asyncio.sleep(1)
    raise AssertionError(said)


async def test_coturns_client_gets_allocations_and_reaches_nothing_but_our_media(secured: Place, room: str) -> None:
    require_program("turnutils_uclient")
    await asyncio.gather(*(_reaches_our_media_alone(secured, room, way) for way in ("udp", "tcp", "tls")))


async def _reaches_our_media_alone(place: Place, room: str, way: str) -> None:
    foreign = ("127.0.0.1", "0.0.0.0", "169.254.169.254", SECOND_ADDRESS)
    permitted, unbound, *refused = await asyncio.gather(
        _coturns_client(place, room, way, (ADDRESS, place[0].udp_port), "-s"),
        _coturns_client(place, room, way, (ADDRESS, 22)),
        *(_coturns_client(place, room, way, (peer, 7882), "-s") for peer in foreign),
    )
    assert "create permission error" not in permitted
    assert "channel bind: error 403" in unbound
    assert all("create permission error 403" in said for said in refused)
