"""A server with several addresses, IPv4 and IPv6: which of them it tells, and that browsers reach it on one."""

import ipaddress
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.network.namespaces import run_command
from tests.clients.conftest import PeerFactory
from tests.clients.network import ADDRESS, SECOND_ADDRESS
from tests.clients.peers import BrowserPeer, eventually
from tests.clients.sfu_server import ServerUnderTest, running_server

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]


@pytest.fixture(scope="module")
def open_server(own_network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerUnderTest]:
    """No --node-ip: every address of the machine is a candidate."""
    with running_server(tmp_path_factory.mktemp("addresses"), node_ip=None) as running:
        yield running


@pytest.mark.parametrize("kind", ["chromium", "firefox"])
async def test_browsers_hear_each_other_over_a_server_with_several_addresses(
    open_server: ServerUnderTest, make_peer: PeerFactory, room: str, kind: str
) -> None:
    speaker: BrowserPeer = await make_peer(kind, "speaker")
    listener: BrowserPeer = await make_peer(kind, "listener")
    await speaker.join(open_server, room)
    await listener.join(open_server, room)
    await speaker.publish_audio()

    async def heard() -> bool:
        media = (await listener.received()).get("speaker", {}).get("microphone")
        return media is not None and media.energy > 0

    await eventually(heard, "audio", detail=listener.received)


CONTAINER_NETWORKS = (
    "ip link add docker0 type veth peer name veth0a1b",
    "ip addr add 172.17.0.1/16 dev docker0",
    "ip addr add 172.18.0.1/16 dev veth0a1b",
    "ip link set docker0 up",
    "ip link set veth0a1b up",
)


@pytest.fixture
def container_networks(own_network: None) -> Iterator[None]:
    for command in CONTAINER_NETWORKS:
        run_command(command)
    yield
    run_command("ip link del docker0")


def told_by(folder: Path, configuration: str) -> list[str]:
    """The addresses that a server with this configuration says in its log that it tells clients."""
    body = f"{configuration}\nlogging: {{json: true}}\n"
    with running_server(folder, node_ip=None, extra=("--config-body", body)) as server:
        lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    return next(line["told"] for line in lines if line["event"] == "addresses")


async def test_container_networks_of_the_machine_are_told_only_if_they_are_asked_for(
    container_networks: None, tmp_path: Path
) -> None:
    ordinary = set(told_by(tmp_path, ""))
    assert {ADDRESS, SECOND_ADDRESS} <= ordinary
    assert not any(address.startswith("172.") for address in ordinary)
    assert told_by(tmp_path, "rtc: {interfaces: {includes: [docker0]}}") == ["172.17.0.1"]
    assert told_by(tmp_path, "rtc: {ips: {includes: [172.18.0.0/16, 10.9.0.0/24]}}") == [ADDRESS, "172.18.0.1"]


class StunServer:
    """Tells everybody the same address outside, in a thread of its own."""

    def __init__(self, outside: str) -> None:
        self._outside = ipaddress.ip_address(outside).packed
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((ADDRESS, 0))
        self.port = self._socket.getsockname()[1]
        self.asked: list[str] = []
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    def _answer(self) -> None:
        while True:
            request, peer = self._socket.recvfrom(100)
            if not request:
                return
            self.asked.append(peer[0])
            masked = bytes(a ^ b for a, b in zip(self._outside, request[4:8], strict=True))
            attribute = bytes.fromhex("002000080001beef") + masked
            self._socket.sendto(b"\x01\x01\x00\x0c" + request[4:20] + attribute, peer)

    def close(self) -> None:
        self._socket.sendto(b"", (ADDRESS, self.port))
        self._thread.join(5)
        self._socket.close()


async def test_the_address_that_a_stun_server_sees_is_told_in_the_place_of_the_machines_own(
    own_network: None, tmp_path: Path
) -> None:
    stun = StunServer("203.0.113.9")
    try:
        rtc = f"use_external_ip: true, stun_servers: ['{ADDRESS}:{stun.port}'], ips: {{includes: [10.9.0.0/16]}}"
        assert told_by(tmp_path, f"rtc: {{{rtc}}}") == ["203.0.113.9"]
        assert set(stun.asked) == {ADDRESS, SECOND_ADDRESS}
        told = told_by(tmp_path, f"rtc: {{{rtc}, advertise_internal_ip: true}}")
        assert set(told) == {"203.0.113.9", ADDRESS, SECOND_ADDRESS}
    finally:
        stun.close()
