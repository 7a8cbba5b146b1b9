"""Clients that may use nothing but a relay hold a call through a TURN server of which this server tells them."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients.conftest import Browsers, PeerFactory, require_program
from tests.clients.coturn import Coturn, running_coturn
from tests.clients.facts import hears, sees
from tests.clients.network import ADDRESS
from tests.clients.peers import SdkPeer, eventually
from tests.clients.sfu_server import ServerUnderTest, running_server

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]

SECRET = "north-by-northwest"
TTL_S = 7200
RELAY_ONLY = {"rtcConfig": {"iceTransportPolicy": "relay"}}

PUBLISH = """async ([url, token]) => {
    const Authorization = `Bearer ${token}`;
    const told = await fetch(url, { method: "OPTIONS", headers: { Authorization } });
    const links = [...told.headers.get("Link").matchAll(/<([^>]+)>; rel="ice-server"([^<]*)/g)];
    const pairs = (text) => [...text.matchAll(/(\\w+)="([^"]*)"/g)].map(([, name, value]) => [name, value]);
    const iceServers = links.map(([, urls, rest]) => ({ urls, ...Object.fromEntries(pairs(rest)) }));
    const connection = window.connection = new RTCPeerConnection({ iceServers, iceTransportPolicy: "relay" });
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    connection.addTransceiver(stream.getAudioTracks()[0], { direction: "sendonly", streams: [stream] });
    await connection.setLocalDescription();
    const headers = { Authorization, "Content-Type": "application/sdp" };
    const answer = await fetch(url, { method: "POST", body: connection.localDescription.sdp, headers });
    if (answer.status !== 201) throw new Error(await answer.text());
    await connection.setRemoteDescription({ type: "answer", sdp: await answer.text() });
    return [told.headers.get("Link"), answer.headers.get("Link")];
}"""


@pytest.fixture(scope="module")
def coturn(own_network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coturn]:
    require_program("turnserver")
    with running_coturn(tmp_path_factory.mktemp("coturn"), ADDRESS, SECRET) as running:
        yield running


@pytest.fixture(scope="module")
def relayed_server(coturn: Coturn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerUnderTest]:
    """A server that tells clients of coturn, over UDP and over TCP; and over TLS, which this coturn does not speak."""
    folder = tmp_path_factory.mktemp("relayed")
    (folder / "secret").write_text(f"{SECRET}\n")
    (folder / "secret").chmod(0o600)
    common = f"host: {coturn.address}, port: {coturn.port}, secret_file: {folder / 'secret'}, ttl: {TTL_S}"
    entries = "".join(f"    - {{{common}, protocol: {protocol}}}\n" for protocol in ("udp", "tcp", "tls"))
    (folder / "livekit.yaml").write_text(f"rtc:\n  turn_servers:\n{entries}")
    with running_server(folder, node_ip=ADDRESS, extra=("--config", str(folder / "livekit.yaml"))) as running:
        yield running


async def join_through_relay(make_peer: PeerFactory, server: ServerUnderTest, room: str, kind: str, name: str) -> Any:
    if kind.startswith("sdk"):
        peer = await make_peer(kind, name, relay_only=True)
        await peer.join(server, room)
    else:
        peer = await make_peer(kind, name)
        await peer.join(server, room, connect=RELAY_ONLY)
    return peer


async def sid_of(peer: Any) -> str:
    return peer.room.local_participant.sid if isinstance(peer, SdkPeer) else await peer.run("room.localParticipant.sid")


@pytest.mark.parametrize("kind", ["chromium", "firefox", "sdk", "sdk-dual"])
async def test_a_call_goes_through_the_relay(
    relayed_server: ServerUnderTest, coturn: Coturn, make_peer: PeerFactory, room: str, kind: str
) -> None:
    ada = await join_through_relay(make_peer, relayed_server, room, kind, "ada")
    linus = await join_through_relay(make_peer, relayed_server, room, "chromium", "linus")
    for peer in (ada, linus):
        await peer.publish_audio()
        await peer.publish_video()
    for peer, other in ((ada, "linus"), (linus, "ada")):
        await hears(peer, other)
        await sees(peer, other)
    sids = {await sid_of(peer) for peer in (ada, linus)}
    allocated = {sid: expiry for expiry, sid in coturn.allocations()}
    assert sids <= allocated.keys()
    assert all(abs(allocated[sid] - time.time() - TTL_S) < 120 for sid in sids)


async def test_a_publisher_of_whip_goes_through_the_relay(
    relayed_server: ServerUnderTest, coturn: Coturn, make_peer: PeerFactory, browsers: Browsers, pages: str, room: str
) -> None:
    linus = await join_through_relay(make_peer, relayed_server, room, "chromium", "linus")
    page = await browsers.open_page("chromium", pages)
    url, token = f"{relayed_server.http_url}/whip/v1", relayed_server.token(room, "film")
    links = await page.evaluate(PUBLISH, [url, token])
    assert all(f"<turn:{coturn.address}:{coturn.port}?transport=udp>" in each for each in links)
    await hears(linus, "film")
    assert await eventually(lambda: page.evaluate("connection.connectionState === 'connected'"), "the connection")
    await page.close()


async def test_the_connection_check_of_turn_passes_without_a_warning(
    relayed_server: ServerUnderTest, browsers: Browsers, pages: str, room: str
) -> None:
    page = await browsers.open_page("chromium", pages)
    token = relayed_server.token(room, "checker")
    report = await page.evaluate(
        f"new LivekitClient.ConnectionCheck('{relayed_server.url}', '{token}').checkTURN()"
        ".then(({status, logs}) => ({status, logs: logs.map(({level, message}) => `${level}: ${message}`)}))"
    )
    assert report["status"] == await page.evaluate("LivekitClient.CheckStatus.SUCCESS"), report
    assert not [line for line in report["logs"] if line.startswith(("error", "warning"))]
    await page.close()
