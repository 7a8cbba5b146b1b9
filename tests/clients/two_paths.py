"""A client with two ways to the server: a network namespace of its own, joined to ours by two bridged veth pairs.

A cut takes a port out of the bridge in the middle, so that neither end sees its link go down. Signalling and pages do
not use these ways: sockets that listen on the client's loopback are served from here, on the ports that they have here.
What goes over each way is read at our end of it, so it says what the server has sent, and what has reached it.
"""

import asyncio
import contextlib
import select
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.network.namespaces import Namespace
from bench.network.namespaces import run_command as _run

WAYS = ("one", "two")
SUBNETS = {"one": "10.9.10", "two": "10.9.11"}
"""Our end is .1, the client's .2."""
_ETH_P_ALL, _PACKET_OUTGOING, _UDP = 3, 4, 17


@dataclass(frozen=True, slots=True)
class Seen:
    """One datagram at our end of a way."""

    at: float
    """time.monotonic()."""
    way: str
    sent: bool
    """By us; else it came from the client."""
    kind: str
    """"stun", "dtls", "rtp" or "rtcp" (RFC 7983, RFC 5761)."""
    client: str
    """The client's address and port."""
    server: str
    """Our address."""


def _kind(datagram: bytes) -> str:
    first, second = datagram[0], datagram[1]
    if first < 4:
        return "stun"
    if first < 128:
        return "dtls"
    return "rtcp" if 192 <= second <= 223 else "rtp"


@dataclass
class TwoPaths:
    """The namespaces, and what went over the two ways."""

    client: Namespace
    middle: Namespace
    seen: list[Seen] = field(default_factory=list)

    def cut(self, way: str) -> float:
        """From now on nothing goes over a way, in neither direction, and nobody is told. Returns time.monotonic()."""
        _run(f"ip link set mc{way} nomaster", self.middle.prefix())
        return time.monotonic()

    def join(self, way: str) -> None:
        """Undo `cut`."""
        _run(f"ip link set mc{way} master b{way}", self.middle.prefix())

    def first(self, way: str, *, sent: bool, kind: str = "rtp", since: float = 0.0) -> float | None:
        """When the first such datagram was seen after a time; None: there was none."""
        found = (s.at for s in list(self.seen) if (s.way, s.sent, s.kind) == (way, sent, kind) and s.at > since)
        return next(found, None)

    def count(self, way: str, *, sent: bool, kind: str = "rtp", since: float = 0.0) -> int:
        return sum((s.way, s.sent, s.kind) == (way, sent, kind) and s.at > since for s in list(self.seen))

    async def loopback(self, port: int) -> asyncio.Server:
        """Serve 127.0.0.1:port of the client from that port of ours."""
        listening = self.client.inside(lambda: socket.create_server(("127.0.0.1", port)))

        async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError), contextlib.closing(writer):
                while data := await reader.read(1 << 16):
                    writer.write(data)
                    await writer.drain()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                writer.close()
                return
            await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

        return await asyncio.start_server(serve, sock=listening)


def _join_ends(way: str, client: Namespace, middle: Namespace) -> None:
    subnet, at_client, at_middle = SUBNETS[way], client.prefix(), middle.prefix()
    _run(f"ip link add s{way} type veth peer name ms{way}")
    _run(f"ip link set ms{way} netns {middle.pid}")
    _run(f"ip link add mc{way} type veth peer name c{way}", at_middle)
    _run(f"ip link set c{way} netns {client.pid}", at_middle)
    _run(f"ip link add b{way} type bridge", at_middle)
    for name in (f"b{way}", f"ms{way}", f"mc{way}"):
        _run(f"ip link set {name} up", at_middle)
    _run(f"ip link set ms{way} master b{way}", at_middle)
    _run(f"ip link set mc{way} master b{way}", at_middle)
    _run(f"ip addr add {subnet}.1/24 dev s{way}")
    _run(f"ip link set s{way} up")
    _run(f"ip addr add {subnet}.2/24 dev c{way}", at_client)
    _run(f"ip link set c{way} up", at_client)
    with contextlib.suppress(OSError):  # where this is refused, pairs across the two ways validate too
        Path(f"/proc/sys/net/ipv4/conf/s{way}/rp_filter").write_text("1")


def _capture(paths: TwoPaths, stop: threading.Event, listening: dict[socket.socket, str], port: int) -> None:
    while not stop.is_set():
        for source in select.select(list(listening), [], [], 0.1)[0]:
            data, address = source.recvfrom(65536)
            header = 4 * (data[0] & 15)
            if data[0] >> 4 != 4 or data[9] != _UDP or len(data) < header + 10:
                continue
            sent = address[2] == _PACKET_OUTGOING
            ours = int.from_bytes(data[header + (0 if sent else 2) :][:2], "big")
            if ours != port:
                continue
            here, there = (data[12:16], data[16:20]) if sent else (data[16:20], data[12:16])
            client_port = int.from_bytes(data[header + (2 if sent else 0) :][:2], "big")
            client, server = f"{socket.inet_ntoa(there)}:{client_port}", socket.inet_ntoa(here)
            kind = _kind(data[header + 8 :])
            paths.seen.append(Seen(time.monotonic(), listening[source], sent, kind, client, server))


@contextlib.contextmanager
def watching(paths: TwoPaths, port: int) -> Iterator[None]:
    """Note in `paths.seen`, from empty on, every IPv4 datagram that goes to or from this UDP port of ours."""
    paths.seen.clear()
    stop, listening = threading.Event(), dict[socket.socket, str]()
    for way in WAYS:
        packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
        packets.bind((f"s{way}", _ETH_P_ALL))
        listening[packets] = way
    thread = threading.Thread(target=_capture, args=(paths, stop, listening, port))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        for packets in listening:
            packets.close()


@contextlib.contextmanager
def two_paths() -> Iterator[TwoPaths]:
    """The client's namespace, joined to that of the calling process.

    Raises:
        NetworkUnavailable: it cannot be made; with the reason.
    """
    with contextlib.ExitStack() as exits:
        client, middle = (exits.enter_context(contextlib.closing(Namespace())) for _ in range(2))
        _run("ip link set lo up", client.prefix())
        for way in WAYS:
            exits.callback(subprocess.run, ["ip", "link", "del", f"s{way}"], capture_output=True, check=False)
            _join_ends(way, client, middle)
        _run(f"ip route add default via {SUBNETS['one']}.1", client.prefix())
        yield TwoPaths(client, middle)


@contextlib.asynccontextmanager
async def serving_loopback(paths: TwoPaths, *ports: int) -> AsyncIterator[None]:
    """These ports of our loopback are reached at the client's."""
    servers = [await paths.loopback(port) for port in ports]
    try:
        yield
    finally:
        for server in servers:
            server.close()
