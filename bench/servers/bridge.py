"""A process that takes the datagrams of the load generator to a server by other ways: ICE over TCP, and TURN.

The generator knows UDP only. Each of its endpoints gets a port here, behind which its own connection leads to the
server. It is a process of its own, so that neither the generator nor the server is accounted for it. Datagrams pass
through Python, so that it carries about ten thousand in a second.
"""

import asyncio
import os
import ssl
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, cast

import uvloop
from aioice.turn import TurnTransport, create_turn_endpoint

LOOPBACK = "127.0.0.1"
WAYS = ("tcp", "turn-udp", "turn-tcp", "turn-tls")
Address = tuple[str, int]


class Doorway(asyncio.DatagramProtocol):
    """The port of one endpoint: what comes goes on by `forward`, and what `backward` gets goes to the endpoint."""

    def __init__(self) -> None:
        """Drop everything until `forward` is set."""
        self.forward: Callable[[bytes], object] = lambda data: None
        self.beyond: asyncio.BaseTransport | TurnTransport | None = None
        """The connection to the server."""
        self._endpoint: Address | None = None

    @property
    def port(self) -> int:
        """The port to which the endpoint sends."""
        return int(self.transport.get_extra_info("sockname")[1])

    def close(self) -> None:
        """Close the way."""
        self.transport.close()
        if self.beyond is not None:
            self.beyond.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self._endpoint = addr
        self.forward(data)

    def backward(self, data: bytes) -> None:
        """Send what came from the server."""
        if self._endpoint is not None:
            self.transport.sendto(data, self._endpoint)


class Framed(asyncio.Protocol):
    """A connection of ICE over TCP: frames of RFC 4571."""

    def __init__(self, doorway: Doorway) -> None:
        self._doorway = doorway
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._doorway.forward = lambda data: self._transport.write(len(data).to_bytes(2) + data)

    def data_received(self, data: bytes) -> None:
        data, at = self._rest + data, 0
        while len(data) - at >= 2 and (end := at + 2 + int.from_bytes(data[at : at + 2])) <= len(data):
            self._doorway.backward(data[at + 2 : end])
            at = end
        self._rest = data[at:]


class Relayed(asyncio.DatagramProtocol):
    """What comes through a TURN server."""

    def __init__(self, doorway: Doorway) -> None:
        self._doorway = doorway

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self._doorway.backward(data)


async def open_way(way: str, media: Address, ports: dict[str, int], credentials: tuple[str, str]) -> Doorway:
    """Open a way to the server.

    Args:
        way: one of WAYS.
        media: the address to which the endpoint would send without us.
        ports: the server's port for each way, on the same address.
        credentials: user name and password for TURN.
    """
    loop = asyncio.get_running_loop()
    _, doorway = await loop.create_datagram_endpoint(Doorway, (LOOPBACK, 0))
    server = media[0], ports[way]
    if way == "tcp":
        doorway.beyond, _ = await loop.create_connection(lambda: Framed(doorway), *server)
    else:
        transport, _ = await create_turn_endpoint(
            lambda: Relayed(doorway),
            server,
            *credentials,
            ssl=_trusting() if way == "turn-tls" else None,
            transport="udp" if way == "turn-udp" else "tcp",
        )
        doorway.beyond, doorway.forward = transport, lambda data: transport.sendto(data, media)
    return doorway


def _trusting() -> ssl.SSLContext:
    """Return a context that takes any certificate: it is the measured server's own."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def _serve(pipe: Connection) -> None:
    loop = asyncio.get_running_loop()
    pipe.send((os.getpid(), 0))
    opened: list[Doorway] = []
    while True:
        verb, arguments = await loop.run_in_executor(None, pipe.recv)
        if verb == "stop":
            break
        opened.append(await open_way(*arguments))
        pipe.send(opened[-1].port)
    for doorway in opened:
        doorway.close()
    pipe.send(None)


def main(pipe: Connection, *_: Any) -> None:
    """Run the child process: send (pid, 0), then answer requests (`open`, arguments of `open_way`) until "stop"."""
    uvloop.run(_serve(pipe))
