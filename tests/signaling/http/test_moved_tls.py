"""TLS of the main port that the event loop begins and another thread goes on with."""

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from starlette.applications import Starlette

from signaling.http import arrivals
from signaling.http.arrivals import Arrival, FirstInside
from signaling.http.certificates import Certificates
from signaling.http.first_bytes import MAGIC_COOKIE, Address, Protocol
from signaling.http.http_server import Doors, HttpServer, http_server
from signaling.http.sockets import bind_sockets
from signaling.turn.net.tls import TlsContext, TlsEnd
from tests.signaling.http.test_server import CONFIG
from tests.signaling.support.authority import Authority
from tests.signaling.support.doorstep import DEADLINE_S, until

BINDING = struct.pack("!HH", 1, 0) + MAGIC_COOKIE + bytes(12)
LARGE = bytes(range(256)) * 1000
Taken = tuple[socket.socket, Address, TlsEnd]


class Client:
    """Our client's end of TLS, which sends when it is told to."""

    def __init__(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        self.socket = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    async def shake_hands(self, port: int, said: bytes) -> None:
        """Connect; what is said first goes out in one piece with the end of the handshake."""
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self.socket, ("127.0.0.1", port))
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self.flush()
                self._incoming.write(await loop.sock_recv(self.socket, 65536))
        self.tls.write(said)
        await self.flush()

    async def say(self, data: bytes) -> None:
        self.tls.write(data)
        await self.flush()

    async def flush(self) -> None:
        await asyncio.get_running_loop().sock_sendall(self.socket, self._outgoing.read())

    async def hear(self, size: int) -> bytes:
        heard = b""
        while len(heard) < size:
            try:
                heard += self.tls.read(65536)
            except ssl.SSLWantReadError:
                came = await asyncio.get_running_loop().sock_recv(self.socket, 65536)
                assert came, "the connection has ended"
                self._incoming.write(came)
        return heard


class Place:
    """A server on the main port that gives away what is no HTTP."""

    def __init__(self, server: HttpServer, port: int, authority: Authority) -> None:
        self.server = server
        self.port = port
        self.authority = authority
        self.taken: list[Taken] = []

    @property
    def dropped(self) -> dict[str, int]:
        return dict(self.server.intake.dropped)

    async def connect(self, said: bytes, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> Client:
        context = self.authority.client_context()
        context.maximum_version = version
        made = socket.socket()
        made.setblocking(False)
        client = Client(made, context)
        await client.shake_hands(self.port, said)
        return client


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    authority = Authority()
    taken: list[Taken] = []

    def take(connection: socket.socket, kind: Protocol, client: Address, tls: TlsEnd | None) -> bool:
        assert kind is Protocol.TURN
        assert tls is not None
        taken.append((connection, client, tls))
        return True

    server = http_server(Starlette(), Doors(Certificates(authority.write(tmp_path)), (), take))
    (bound,) = bind_sockets(CONFIG)
    running = asyncio.create_task(server.serve([bound]))
    await server.listening.wait()
    made = Place(server, bound.getsockname()[1], authority)
    made.taken = taken
    async with asyncio.timeout(DEADLINE_S):
        yield made
    server.should_exit = True
    await running
    for connection, _, _ in taken:
        connection.close()


def _echo(connection: socket.socket, tls: TlsEnd, size: int) -> None:
    """Send back what the client says, in a thread of its own."""
    connection.settimeout(DEADLINE_S)
    said = tls.receive(memoryview(b""))
    while True:
        size -= len(said)
        connection.sendall(tls.send(said))
        if size <= 0:
            return
        said = tls.receive(memoryview(connection.recv(65536)))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_another_thread_goes_on_where_the_event_loop_ended(place: Place, version: ssl.TLSVersion) -> None:
    for piece in (BINDING, BINDING + LARGE):  # what is longer than a record comes while the loop gives up
        client = await place.connect(piece, version)
        await until(lambda: place.taken)
        connection, (host, _), tls = place.taken.pop()
        with connection, client.socket:
            assert host == "127.0.0.1"
            told = asyncio.to_thread(_echo, connection, tls, len(piece) + len(LARGE))
            echoing = asyncio.create_task(told)
            sending = asyncio.create_task(client.say(LARGE))
            assert await client.hear(len(piece) + len(LARGE)) == piece + LARGE
            await asyncio.gather(echoing, sending)
    assert len(place.server._acceptor._waiting) == 0
    assert place.dropped == {}


async def test_what_comes_in_pieces_is_passed_on_whole(place: Place) -> None:
    client = await place.connect(BINDING[:5])
    await client.say(BINDING[5:])
    await until(lambda: place.taken)
    assert place.taken[0][2].receive(memoryview(b"")) == BINDING
    client.socket.close()


async def test_a_client_that_ends_meanwhile_leaves_nothing_open(place: Place) -> None:
    before = 0

    def closed() -> bool:
        for connection, _, _ in place.taken:
            connection.close()
        return len(os.listdir("/proc/self/fd")) <= before

    for _ in range(20):
        client = await place.connect(BINDING)
        client.socket.close()
        before = before or len(os.listdir("/proc/self/fd"))  # without what the first one made the event loop open
    await until(closed)


async def test_without_a_descriptor_the_connection_is_closed_and_counted(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(descriptor: int) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "dup", no_more)
    client = await place.connect(BINDING)
    with client.socket, pytest.raises((AssertionError, ConnectionError)):
        await client.hear(1)
    assert place.dropped == {"accept_failed": 1}


class PlayedTransport:
    """A transport that has not sent everything."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.unsent = 100
        self.calls: list[str] = []

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def get_extra_info(self, name: str) -> Any:
        return self.connection if name == "socket" else _tls()

    def pause_reading(self) -> None:
        self.calls.append("pause_reading")

    def abort(self) -> None:
        self.calls.append("abort")


def _tls() -> ssl.SSLObject:
    return TlsContext(ssl.PROTOCOL_TLS_SERVER).wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)


class PlayedArrival:
    def __init__(self) -> None:
        self.moved: list[socket.socket] = []
        self.dropped: list[str] = []

    def secured(self) -> None:
        pass

    def look_inside(self, first: bytes, transport: asyncio.Transport) -> None:
        pass

    def move(self, connection: socket.socket, tls: TlsEnd) -> None:
        self.moved.append(connection)

    def drop(self, reason: str = "") -> None:
        self.dropped.append(reason)


@pytest.mark.parametrize("gives_up", [False, True])
async def test_nothing_is_given_up_before_all_is_sent(monkeypatch: pytest.MonkeyPatch, gives_up: bool) -> None:
    monkeypatch.setattr(arrivals, "FLUSH_S", 0.0)
    ours, theirs = socket.socketpair()
    arrival, transport = PlayedArrival(), PlayedTransport(ours)
    inside = FirstInside(cast("Arrival", arrival))
    with ours, theirs:
        inside.connection_made(cast("asyncio.Transport", transport))
        inside.data_received(BINDING)
        inside.leave()
        for _ in range(10):
            await asyncio.sleep(0)
        assert transport.calls == ["pause_reading"]
        transport.unsent = 0
        await until(lambda: transport.calls == ["pause_reading", "abort"])
        if gives_up:
            inside.abort()
        inside.connection_lost(None)
        assert (len(arrival.moved), arrival.dropped) == ((0, [""]) if gives_up else (1, []))
        for each in arrival.moved:
            assert os.path.samestat(os.fstat(each.fileno()), os.fstat(ours.fileno()))
            each.close()
