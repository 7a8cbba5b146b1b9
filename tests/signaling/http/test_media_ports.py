"""TCP ports for media: what the server says of one that is taken, and who gets what comes to the main port."""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from signaling.config.api_keys import hide
from signaling.config.configuration import Config
from signaling.config.ice_options import IceOptions
from signaling.http.sockets import PortInUse, check_media_ports
from tests.signaling.http.test_server import PlayedEngine, PlayedRooms, running_on

CHECK = bytes.fromhex("0014000100002112a442") + bytes(12)
"""A frame with a STUN message."""


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield int(listening.getsockname()[1])


def config(ice: IceOptions) -> Config:
    return Config(keys=hide({"key": "secret"}), udp_ports=(0,), node_ips=("127.0.0.1",), ice=ice)


def test_a_port_for_tcp_that_was_given_and_is_taken_is_an_error(taken: int) -> None:
    with pytest.raises(PortInUse, match=f"127.0.0.1 TCP port {taken}: Address already in use"):
        check_media_ports(config(IceOptions(taken, tcp_port_given=True)))


def test_a_default_port_for_tcp_that_is_taken_turns_it_off(taken: int) -> None:
    before = config(IceOptions(taken, force_tcp=True))
    assert check_media_ports(before) == replace(before, ice=IceOptions(0))


def test_ports_that_are_free_change_nothing(taken: int) -> None:
    for ice in (IceOptions(0, tcp_port_given=True), IceOptions(0)):
        assert check_media_ports(config(ice)) == config(ice)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    assert check_media_ports(config(IceOptions(free, tcp_port_given=True))).ice.tcp_port == free


@pytest.mark.parametrize(("port", "taken_by_engine"), [(7881, True), (0, False)])
@pytest.mark.parametrize("header", [b"", b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n"])
async def test_media_that_come_to_the_main_port_are_the_engines(
    port: int, taken_by_engine: bool, header: bytes
) -> None:
    engine = PlayedEngine()
    networks = (ipaddress.ip_network("127.0.0.1"),) if header else ()
    served = Config(
        keys=hide({"key": "secret"}),
        port=0,
        bind_addresses=("127.0.0.1",),
        ice=IceOptions(port),
        proxy_networks=networks,
    )
    async with running_on(served, engine, PlayedRooms()) as addresses:
        reader, writer = await asyncio.open_connection(*addresses[0])
        writer.write(header + CHECK)
        with contextlib.suppress(ConnectionResetError):  # closed with bytes that nobody has read
            assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
    client = "203.0.113.7" if header else "127.0.0.1"
    assert (f"took {CHECK!r} of {client}" in engine.calls) == taken_by_engine


def test_one_port_may_serve_everything() -> None:
    for main, tcp, shares in ((443, 443, True), (443, 7881, False), (0, 0, False)):
        assert Config(keys=hide({"key": "secret"}), port=main, ice=IceOptions(tcp)).shares_port == shares
    with socket.create_server(("127.0.0.1", 0)) as main_port:
        port = main_port.getsockname()[1]
        shared = replace(config(IceOptions(port, tcp_port_given=True)), port=port)
        assert check_media_ports(shared) == shared
