"""A way between clients and a server that a test can break: a proxy for their signalling, a relay for their media.

The relay stands in a network namespace of its own, at the address that the server tells clients and with the server's
port. So nothing that passes has to be rewritten, and clients find no other way.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace

from bench.network.namespaces import Namespace, run_command
from tests.clients.sfu_server import ServerUnderTest, free_port

NEAR, RELAY = "10.9.20.1", "10.9.20.2"
"""Our end of the link to the relay, and the relay's."""
_READ_BYTES = 1 << 16

Address = tuple[str, int]


@dataclass(eq=False)
class _Line:
    """One TCP connection of a client, and the one to the server that it is passed on to."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    dead: bool = False
    """Nothing passes any more, and neither end is told."""


@dataclass
class FaultyPath:
    """What is broken now. `server` is where clients are to join."""

    server: ServerUnderTest
    dark: bool = False
    """All datagrams are lost."""
    closed: bool = False
    """No new connection gets to the server."""
    double: bool = False
    """The next connection reaches the server twice, the second time when the first was answered."""
    doubled: int = 0
    """How many did."""
    lost: int = 0
    """Datagrams that were lost."""
    _lines: set[_Line] = field(default_factory=set)
    _ways: dict[Address, asyncio.DatagramTransport] = field(default_factory=dict)
    _gone: set[Address] = field(default_factory=set)
    """Addresses that clients no longer have."""
    spared: frozenset[_Line | Address] = frozenset()
    """Connections to which no fault happens."""

    def connections(self) -> frozenset[_Line | Address]:
        """All that pass now, for `spared`."""
        return frozenset((*self._lines, *self._ways))

    def cut_signal(self) -> None:
        """End all connections of signalling at once, at both ends."""
        for line in self._lines - self.spared:
            line.client.transport.abort()
            line.server.transport.abort()

    def change_address(self) -> None:
        """Take all addresses from the clients that they have now: their sockets break, and the server hears nothing."""
        for line in self._lines - self.spared:
            line.dead = True
            line.client.transport.abort()
        self._gone |= self._ways.keys() - self.spared

    def passes(self, source: Address) -> bool:
        """Whether a datagram from or to this address of a client arrives; it is counted if not."""
        passes = source in self.spared or (not self.dark and source not in self._gone)
        self.lost += not passes
        return passes


class _Down(asyncio.DatagramProtocol):
    """From the server to one address of a client."""

    def __init__(self, path: FaultyPath, client: asyncio.DatagramTransport, address: Address) -> None:
        self._path, self._client, self._address = path, client, address

    def datagram_received(self, data: bytes, _source: object) -> None:
        if self._path.passes(self._address):
            self._client.sendto(data, self._address)


class _Up(asyncio.DatagramProtocol):
    """From clients; the server sees another port for each of their addresses."""

    def __init__(self, path: FaultyPath, namespace: Namespace) -> None:
        self._path, self._namespace = path, namespace
        self._opening: dict[Address, asyncio.Task[None]] = {}
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, source: Address) -> None:
        if not self._path.passes(source):
            return
        way = self._path._ways.get(source)
        if way is not None:
            way.sendto(data)
        elif source not in self._opening:  # the client repeats a check that came before its socket is there
            self._opening[source] = asyncio.get_running_loop().create_task(self._open(source))

    async def _open(self, source: Address) -> None:
        assert self._transport is not None
        down = _Down(self._path, self._transport, source)
        made = self._namespace.inside(lambda: _datagram_socket((RELAY, 0)))
        made.connect((NEAR, self._path.server.udp_port))
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: down, sock=made)
        self._path._ways[source] = transport


def _datagram_socket(address: Address) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setblocking(False)
    made.bind(address)
    return made


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: _Line) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_READ_BYTES):
            if not line.dead:
                writer.write(data)
                await writer.drain()
    if not line.dead:
        writer.close()


async def _pass_on(path: FaultyPath, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        if path.closed:
            raise ConnectionRefusedError
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
    except (OSError, asyncio.IncompleteReadError):
        writer.close()
        return
    twice, path.double = path.double, False
    line = _Line(writer, far_writer)
    path._lines.add(line)
    try:
        far_writer.write(head)
        async with asyncio.TaskGroup() as tasks:
            if twice:
                writer.write(await far_reader.readuntil(b"\r\n\r\n"))
                tasks.create_task(_connect_again(path, port, head))
            tasks.create_task(_copy(reader, far_writer, line))
            tasks.create_task(_copy(far_reader, writer, line))
    finally:
        path._lines.discard(line)
        far_writer.close()


async def _connect_again(path: FaultyPath, port: int, head: bytes) -> None:
    """Send a request a second time, and read the answer until the server ends it. No client hears of it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)
    path.doubled += 1
    with contextlib.suppress(OSError):
        while await reader.read(_READ_BYTES):
            pass
    writer.close()


@contextlib.contextmanager
def relay_namespace() -> Iterator[Namespace]:
    """The relay's namespace, joined to that of the calling process.

    Raises:
        NetworkUnavailable: it cannot be made; with the reason.
    """
    with contextlib.closing(Namespace()) as namespace:
        run_command("ip link set lo up", namespace.prefix())
        run_command("ip link add relay0 type veth peer name relay1")
        run_command(f"ip link set relay1 netns {namespace.pid}")
        run_command(f"ip addr add {NEAR}/24 dev relay0")
        run_command("ip link set relay0 up")
        run_command(f"ip addr add {RELAY}/24 dev relay1", namespace.prefix())
        run_command("ip link set relay1 up", namespace.prefix())
        run_command(f"ip route add default via {NEAR}", namespace.prefix())
        yield namespace


@contextlib.asynccontextmanager
async def faulty_path(server: ServerUnderTest, namespace: Namespace) -> AsyncIterator[FaultyPath]:
    """A way to a server that was started with `node_ip=RELAY`."""
    port = free_port()
    path = FaultyPath(replace(server, port=port))
    loop = asyncio.get_running_loop()
    made = namespace.inside(lambda: _datagram_socket((RELAY, server.udp_port)))
    up, _ = await loop.create_datagram_endpoint(lambda: _Up(path, namespace), sock=made)

    async def signal(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _pass_on(path, server.port, reader, writer)

    proxy = await asyncio.start_server(signal, "127.0.0.1", port, limit=1 << 21)
    try:
        yield path
    finally:
        proxy.close()
        path.spared = frozenset()
        path.cut_signal()
        for transport in (up, *path._ways.values()):
            transport.close()
        await asyncio.sleep(0)  # sockets are closed by the loop
