"""signaling/http/acceptor.py and arrivals.py: where connections go, and what becomes of those that say nothing."""

import asyncio
import contextlib
import errno
import ipaddress
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from starlette.applications import Starlette
from structlog.testing import capture_logs

from signaling.http import acceptor, arrivals, http_protocol
from signaling.http.arrivals import Arrival
from signaling.http.certificates import Certificates
from signaling.http.first_bytes import MAGIC_COOKIE, PROXY_BINARY, Address, Protocol
from signaling.http.http_server import Doors, http_server
from signaling.http.sockets import bind_sockets
from signaling.networks import network_of
from signaling.turn.net.tls import TlsEnd
from tests.signaling.http.test_server import CONFIG, connect, receive, token
from tests.signaling.support.doorstep import DEADLINE_S, REQUEST, Doorstep, answer, doorstep, hang_up, until

HEADER = b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n"
BINARY_HEADER = PROXY_BINARY + struct.pack("!BBH4s4sHH", 0x21, 0x11, 12, bytes((203, 0, 113, 7)), bytes(4), 4711, 443)
BINDING = struct.pack("!HH", 1, 0) + MAGIC_COOKIE + bytes(12)
FRAME = struct.pack("!H", len(BINDING)) + BINDING
BEHIND_PROXY = replace(CONFIG, proxy_networks=(ipaddress.ip_network("127.0.0.1"),))


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Doorstep]:
    async with doorstep(CONFIG, monkeypatch) as running:
        yield running


@pytest.fixture
async def behind_proxy(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Doorstep]:
    async with doorstep(BEHIND_PROXY, monkeypatch) as running:
        yield running


async def is_served(server: Doorstep, **options: Any) -> bool:
    return (await server.ask(REQUEST, **options)).startswith(b"HTTP/1.1 200")


async def test_a_request_in_any_pieces_is_answered(server: Doorstep) -> None:
    for size in (1, 2, 9, 10, len(REQUEST)):
        pieces = [REQUEST[at : at + size] for at in range(0, len(REQUEST), size)]
        assert (await server.ask(*pieces)).startswith(b"HTTP/1.1 200")
    assert server.dropped == {}


async def test_connections_are_answered_at_once_while_others_say_nothing(server: Doorstep) -> None:
    silent = [await server.open() for _ in range(100)]
    assert await is_served(server)
    for _, writer in silent:
        await hang_up(writer)
    await until(lambda: not server.intake.dropped)
    assert server.dropped == {}  # who says nothing and goes has done no wrong


@pytest.mark.parametrize("said", [b"", b"\x00", FRAME[:9]], ids=["nothing", "one byte", "half a frame"])
async def test_who_does_not_say_enough_is_given_up_and_costs_nothing_meanwhile(
    server: Doorstep, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    looks = count_calls(monkeypatch, Arrival, "_look")
    monkeypatch.setattr(arrivals, "FIRST_BYTES_S", 0.3)
    assert await server.ask(said) == b""
    assert server.dropped == {"first_bytes_late": 1}
    assert len(looks) <= 3


def count_calls(monkeypatch: pytest.MonkeyPatch, where: type, name: str) -> list[None]:
    called: list[None] = []
    whole = getattr(where, name)

    def counted(self: Any, *arguments: Any) -> Any:
        called.append(None)
        return whole(self, *arguments)

    monkeypatch.setattr(where, name, counted)
    return called


async def test_who_ends_after_half_of_it_is_given_up_at_once(server: Doorstep) -> None:
    reader, writer = await server.open()
    writer.write(FRAME[:7])
    writer.write_eof()
    assert await answer(reader) == b""
    await hang_up(writer)
    assert server.dropped == {"first_bytes_unknown": 1}


@pytest.mark.parametrize(
    "said", [b"\xff" * 100, b"\r\n\r\nGET / HTTP/1.1", b"\x80\x2e\x01\x00\x02", bytes(100), b"\x40\x00\x00\x10"]
)
async def test_garbage_is_closed_and_counted(server: Doorstep, said: bytes) -> None:
    assert await server.ask(said) == b""
    assert server.dropped == {"first_bytes_unknown": 1}


async def test_tls_without_a_certificate_is_closed_and_counted(server: Doorstep) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await server.open(ssl=ssl.create_default_context(), server_hostname="localhost")
    assert server.dropped == {"tls_without_certificate": 1}


async def test_turn_is_closed_and_counted_where_nobody_takes_it(server: Doorstep) -> None:
    assert await server.ask(BINDING) == b""
    assert server.dropped == {"media_over_tcp": 1}


@pytest.mark.parametrize("header", [b"", HEADER], ids=["direct", "by a proxy"])
@pytest.mark.parametrize(("said", "protocol"), [(FRAME, Protocol.ICE_TCP), (BINDING, Protocol.TURN)])
async def test_who_takes_media_over_tcp_gets_a_socket_of_which_nothing_was_read(
    said: bytes, protocol: Protocol, header: bytes
) -> None:
    taken: list[tuple[socket.socket, Protocol, Address]] = []

    def take(connection: socket.socket, kind: Protocol, client: Address, tls: TlsEnd | None) -> bool:
        assert tls is None
        taken.append((connection, kind, client))
        return True

    networks = BEHIND_PROXY.proxy_networks if header else ()
    served = http_server(Starlette(), Doors(Certificates(None), networks, take))
    (bound,) = bind_sockets(CONFIG)
    running = asyncio.create_task(served.serve([bound]))
    await served.listening.wait()
    reader, writer = await asyncio.open_connection("127.0.0.1", bound.getsockname()[1])
    for piece in (header, said[:7], said[7:]):
        writer.write(piece)
        await asyncio.sleep(0.02)
    await until(lambda: taken)
    connection, kind, client = taken[0]
    assert (kind, client[0]) == (protocol, "203.0.113.7" if header else "127.0.0.1")
    with connection:
        assert connection.recv(100) == said
        # A later message of one byte must wake whoever waits for it.
        writer.write(b"x")
        connection.settimeout(5)
        assert await asyncio.to_thread(connection.recv, 100) == b"x"
        connection.sendall(b"answer")
    assert await answer(reader) == b"answer"
    await hang_up(writer)
    served.should_exit = True
    await running


@pytest.mark.parametrize("header", [HEADER, BINARY_HEADER], ids=["text", "binary"])
@pytest.mark.parametrize("size", [1, 1000], ids=["byte by byte", "whole"])
async def test_a_proxy_of_ours_tells_where_a_client_is(behind_proxy: Doorstep, header: bytes, size: int) -> None:
    loop = asyncio.get_running_loop()
    client = socket.socket()
    client.setblocking(False)
    await loop.sock_connect(client, ("127.0.0.1", behind_proxy.port))
    for at in range(0, len(header), size):
        await loop.sock_sendall(client, header[at : at + size])
        await asyncio.sleep(0.002)
    url = f"ws://127.0.0.1:{behind_proxy.port}/rtc?access_token={token()}"
    async with connect(url, sock=client) as joined:
        assert (await receive(joined)).HasField("join")
    assert behind_proxy.rooms.joins[0].client_info.address == "203.0.113.7"
    assert behind_proxy.dropped == {}


async def test_a_header_and_a_request_in_one_piece_are_told_apart(behind_proxy: Doorstep) -> None:
    for header in (HEADER, BINARY_HEADER, b"PROXY UNKNOWN\r\n"):
        assert (await behind_proxy.ask(header + REQUEST)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("said", [REQUEST, b"\x16\x03\x01\x02\x00", FRAME, HEADER[:-1] + b"x" * 100, b"PROXY T\r\n"])
async def test_what_comes_from_a_proxy_without_a_header_is_closed_and_counted(
    behind_proxy: Doorstep, said: bytes
) -> None:
    assert await behind_proxy.ask(said) == b""
    assert behind_proxy.dropped == {"proxy_header": 1}


async def test_half_a_header_is_given_up(behind_proxy: Doorstep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "FIRST_BYTES_S", 0.3)
    looks = count_calls(monkeypatch, Arrival, "_look")
    assert await behind_proxy.ask(HEADER[:20]) == b""
    assert behind_proxy.dropped == {"first_bytes_late": 1}
    assert len(looks) <= 3


@pytest.mark.parametrize("header", [HEADER, BINARY_HEADER], ids=["text", "binary"])
async def test_nobody_else_is_believed_a_header(behind_proxy: Doorstep, server: Doorstep, header: bytes) -> None:
    assert await server.ask(header + REQUEST) == b""
    assert server.dropped == {"proxy_header": 1}
    assert await behind_proxy.ask(header + REQUEST, local_addr=("127.0.0.2", 0)) == b""
    assert behind_proxy.dropped == {"proxy_header": 1}
    assert await is_served(behind_proxy, local_addr=("127.0.0.2", 0))


async def test_of_too_many_silent_connections_the_oldest_of_the_worst_goes(
    server: Doorstep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "MAX_ARRIVALS", 8)
    modest = await server.open(local_addr=("127.0.0.2", 0))
    await asyncio.sleep(0.01)
    greedy = [await server.open(local_addr=("127.0.0.3", 0)) for _ in range(20)]
    await until(lambda: server.intake.dropped["arrivals_full"] == 13)
    assert await asyncio.wait_for(greedy[0][0].read(), DEADLINE_S) == b""
    modest[1].write(REQUEST)
    assert (await answer(modest[0])).startswith(b"HTTP/1.1 200")
    assert await is_served(server)
    for _, writer in [modest, *greedy]:
        await hang_up(writer)


async def test_beyond_all_bounds_connections_are_closed(server: Doorstep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.acceptor, "_most", 3)
    held = [await server.open() for _ in range(3)]
    await until(lambda: len(server.acceptor._waiting) == 3)
    assert await server.ask(REQUEST) == b""
    assert server.dropped == {"connections_full": 1}
    await hang_up(held[0][1])
    await until(lambda: len(server.acceptor._waiting) == 2)
    assert await is_served(server)
    for _, writer in held[1:]:
        await hang_up(writer)


async def test_of_too_many_begun_requests_the_oldest_of_the_worst_go(
    server: Doorstep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.acceptor, "_full", 8)
    monkeypatch.setattr(server.acceptor, "_most", 10)
    monkeypatch.setattr(http_protocol, "MAX_CONNECTIONS", 8)
    monkeypatch.setattr(http_protocol, "MADE_ROOM", 2)
    opened = [await begun(server, host) for host in ("127.0.0.2", *["127.0.0.3"] * 20)]
    assert len(server.connections) <= 9
    assert await asyncio.wait_for(opened[1][0].read(), DEADLINE_S) == b"", "the oldest of who has most"
    opened[0][1].write(REQUEST[1:])
    assert (await answer(opened[0][0])).startswith(b"HTTP/1.1 200")
    assert await is_served(server)
    async with connect(f"ws://127.0.0.1:{server.port}/rtc?access_token={token()}") as joined:
        assert (await receive(joined)).HasField("join")
    assert server.dropped.keys() == {"plain_http_full"}
    for _, writer in opened:
        await hang_up(writer)


async def begun(server: Doorstep, host: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection of which the first byte of a request was taken."""
    before = server.connections
    reader, writer = await server.open(local_addr=(host, 0))
    writer.write(REQUEST[:1])
    await until(lambda: server.connections - before)
    return reader, writer


async def test_without_descriptors_connections_wait(server: Doorstep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "PAUSE_S", 0.1)
    whole: Callable[[socket.socket], Any] = socket.socket.accept
    refused = 3

    def accept(self: socket.socket) -> Any:
        nonlocal refused
        if refused:
            refused -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return whole(self)

    monkeypatch.setattr(socket.socket, "accept", accept)
    with capture_logs() as logs:
        assert await is_served(server)
    assert server.dropped == {"accept_failed": 3}
    assert [line["event"] for line in logs] == ["connections have to wait"]


async def test_the_body_of_a_request_that_is_answered_is_not_kept(server: Doorstep) -> None:
    reader, writer = await server.open()
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + bytes(50_000))
    assert (await reader.readline()).startswith(b"HTTP/1.1 405")
    (connection,) = server.connections
    assert connection.cycle.response_complete
    assert connection.cycle.body == b""
    await hang_up(writer)


async def test_what_has_said_nothing_is_closed_when_the_server_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(doorstep(CONFIG, monkeypatch))
        silent = [await server.open() for _ in range(5)]
        assert await is_served(server)
    for reader, writer in silent:
        assert await answer(reader) == b""
        await hang_up(writer)


def test_an_address_and_the_64_bits_of_a_line_are_one_client() -> None:
    assert network_of("192.0.2.1") == "192.0.2.1"
    assert network_of("2001:db8:1:2:3::4") == network_of("2001:db8:1:2::9")
    assert acceptor._plain(("fe80::1%eth0", 5, 0, 2)) == ("fe80::1", 5)
