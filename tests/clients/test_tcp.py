"""Real clients whose network lets no UDP through, in a call over TCP; and the same clients where both are open."""

import asyncio
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import PeerFactory
from tests.clients.facts import packets
from tests.clients.network import ADDRESS
from tests.clients.packet_filter import filtering, rule
from tests.clients.peers import BrowserPeer, Media, Peer, eventually
from tests.clients.sfu_server import ServerUnderTest, running_server

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]

KINDS = ("chromium", "firefox", "sdk", "sdk-dual")
FRAMES = 10
"""Decoded frames that count as seeing."""
HELD_S = 6
WAYS = """(async () => {
  const found = [];
  for (const name of ["publisher", "subscriber"]) {
    const stats = await room.engine.pcManager[name]?.getStats();
    if (!stats) continue;
    const chosen = [...stats.values()].map(({ selectedCandidatePairId }) => selectedCandidatePairId);
    for (const pair of stats.values()) {
      if (pair.type !== "candidate-pair" || !(pair.selected ?? chosen.includes(pair.id))) continue;
      const remote = stats.get(pair.remoteCandidateId);
      if (pair.bytesSent) found.push(`${remote.protocol} ${remote.port}`);
    }
  }
  return found;
})()"""
"""The selected pairs that carry something: protocol and port of the server."""


@pytest.fixture(scope="module")
def tcp_server(own_network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerUnderTest]:
    assert shutil.which("ip")
    with running_server(tmp_path_factory.mktemp("tcp"), node_ip=ADDRESS) as running:
        yield running


@pytest.fixture
def no_udp(own_network: None) -> Iterator[None]:
    with filtering("meta l4proto udp drop"):
        yield


async def _media(peer: Peer, publisher: str, source: str) -> Media | None:
    media = (await peer.received()).get(publisher, {}).get(source)
    if media is None or (media.frames < FRAMES if source == "camera" else media.energy <= 0):
        return None
    return media


async def _sees_and_hears(peer: Peer, publisher: str) -> None:
    for source in ("camera", "microphone"):
        what = f"{source} of {publisher} at {peer.identity}"
        await eventually(partial(_media, peer, publisher, source), what, detail=peer.received)


async def _joined(
    make_peer: PeerFactory, server: ServerUnderTest, room: str, kind: str, identity: str = "", **options: Any
) -> Any:
    peer = await make_peer(kind, identity or kind, **options)
    await peer.join(server, room)
    return peer


def _connections(port: int) -> set[int]:
    """The clients' ports of established connections to a port of this network."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ends = [(int(row[1].split(":")[1], 16), int(row[2].split(":")[1], 16), row[3]) for row in rows]
    return {client for client, server, state in ends if server == port and state == "01"}


async def test_everybody_holds_a_call_without_udp(
    tcp_server: ServerUnderTest, no_udp: None, make_peer: PeerFactory, room: str
) -> None:
    peers: dict[str, Peer] = {kind: await _joined(make_peer, tcp_server, room, kind) for kind in KINDS}
    for peer in peers.values():
        await peer.publish_audio()
        await peer.publish_video()
    pairs = [(peer, other) for peer in peers.values() for other in peers if peer.identity != other]
    for peer, other in pairs:
        await _sees_and_hears(peer, other)
    for peer in peers.values():
        await peer.say(f"hello from {peer.identity}")
    for peer, other in pairs:

        async def read(peer: Peer = peer, other: str = other) -> bool:
            return (other, f"hello from {other}") in await peer.messages()

        await eventually(read, f"message of {other} at {peer.identity}", detail=peer.messages)
    before = [await packets(peer, other) for peer, other in pairs]
    await asyncio.sleep(HELD_S)
    for (peer, other), earlier in zip(pairs, before, strict=True):
        assert await packets(peer, other) - earlier > 40 * HELD_S, f"{other} at {peer.identity}"
    for kind in ("chromium", "firefox"):
        browser: Any = peers[kind]
        ways = await browser.run(WAYS)
        assert ways, kind
        assert set(ways) == {f"tcp {tcp_server.tcp_port}"}, kind
        events = [event[0] for event in (await browser.state())["events"]]
        assert "Reconnecting" not in events


async def test_a_connection_that_is_reset_ends_nothing(
    tcp_server: ServerUnderTest, no_udp: None, make_peer: PeerFactory, room: str
) -> None:
    talker: BrowserPeer = await _joined(make_peer, tcp_server, room, "chromium", "talker")
    listener: BrowserPeer = await _joined(make_peer, tcp_server, room, "chromium", "listener")
    await talker.publish_audio(dtx=False)
    await eventually(partial(_media, listener, "talker", "microphone"), "audio", detail=listener.received)
    before_reset = _connections(tcp_server.tcp_port)
    ports = ", ".join(map(str, before_reset))
    rule(f"insert rule inet tests input tcp dport {tcp_server.tcp_port} tcp sport {{ {ports} }} reject with tcp reset")

    async def replaced() -> bool:
        return len(_connections(tcp_server.tcp_port) - before_reset) >= 2

    await eventually(replaced, "new connections")
    before = await packets(listener, "talker")

    async def goes_on() -> bool:
        return await packets(listener, "talker") > before + 50

    await eventually(goes_on, "audio after the reset", detail=listener.received)
    for peer in (talker, listener):
        events = [event[0] for event in (await peer.state())["events"]]
        assert not {"Disconnected", "ParticipantDisconnected", "Reconnecting"} & set(events)


@pytest.mark.parametrize("kind", ["chromium", "firefox"])
async def test_who_has_udp_stays_on_it(
    tcp_server: ServerUnderTest, make_peer: PeerFactory, room: str, kind: str
) -> None:
    talker: BrowserPeer = await _joined(make_peer, tcp_server, room, kind, "talker")
    listener: BrowserPeer = await _joined(make_peer, tcp_server, room, kind, "listener")
    await talker.publish_audio(dtx=False)
    await eventually(partial(_media, listener, "talker", "microphone"), "audio", detail=listener.received)
    await asyncio.sleep(3)
    for peer in (talker, listener):
        assert set(await peer.run(WAYS)) == {f"udp {tcp_server.udp_port}"}


@pytest.mark.parametrize("kind", ["chromium", "firefox", "sdk"])
async def test_force_tcp_leaves_nothing_else(
    own_network: None, make_peer: PeerFactory, room: str, kind: str, tmp_path: Path
) -> None:
    with running_server(tmp_path, node_ip=ADDRESS, extra=("--rtc.force_tcp",)) as server:
        talker = await _joined(make_peer, server, room, kind, "talker")
        listener = await _joined(make_peer, server, room, "chromium", "listener")
        await talker.publish_audio()
        await talker.publish_video()
        await _sees_and_hears(listener, "talker")
        assert set(await listener.run(WAYS)) == {f"tcp {server.tcp_port}"}
        for peer in (talker, listener):  # before their server goes
            await peer.leave()
