"""TCP connections of peers (RFC 6544) until a media thread serves them: accepted, or handed over by who accepted them.

Nothing of a connection is read here. Its first frame (RFC 4571) is looked at when it has come whole: it has to be a
connectivity check, whose username says to which media thread the connection belongs. That thread verifies it, and
closes the connection if it is not valid.
"""

import asyncio
import ipaddress
import logging
import socket
import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sfu.control.net.sockets import packed_address, socket_address
from sfu.errors import TableFull
from sfu.sockets import NO_DESCRIPTORS, bound_socket, set_stream_options

logger = logging.getLogger(__name__)

FIRST_FRAME_S = 5.0
"""How long the first frame of a connection may take."""
MAX_FIRST_FRAME_BYTES = 1024
"""A check has 100 to 200 bytes."""
MAX_UNPROVEN, MAX_UNPROVEN_OF_ADDRESS = 4096, 256
"""Connections whose first frame has not come: of all, and of one address. A whole ministry may be one address, and who
holds connections open there must not keep the others out: one more takes the place of the oldest."""
IPV6_PREFIX = 64
"""So many bits of an IPv6 address count as one address: whoever has one has them all."""
BACKLOG = 512
ACCEPTED_AT_ONCE = 64
"""Connections that are accepted before others have their turn."""
PAUSE_S = 1.0
"""How long none is accepted after the system had no more descriptors."""

FRAME_HEADER_BYTES, STUN_HEADER_BYTES = 2, 20
BINDING_REQUEST, MAGIC_COOKIE, USERNAME = 0x0001, 0x2112A442, 0x0006


class Serves(Protocol):
    """What is used of a `shards.Shard`."""

    ufrags: set[str]

    def open_connection(self, connection: socket.socket, address: bytes, protocol: str) -> None:
        """Let the media thread serve a connection, whose peer has this sockaddr. `protocol` is for statistics.

        Raises:
            TableFull: there are too many.
            OSError: it has ended.
        """


@dataclass(slots=True, eq=False)
class _Arrival:
    """A connection whose first frame has not come whole."""

    connection: socket.socket
    address: str
    """Under which it is counted."""
    peer: tuple[str, int] | None
    """What counts as its peer's address; None: the peer of the socket."""
    protocol: str
    """What statistics call it."""
    expires: asyncio.TimerHandle | None = None
    seen: int = 0
    waits: bool = False


class TcpConnections:
    """All TCP connections of the engine; counts in `drops` what is refused."""

    def __init__(self, shards: Sequence[Serves], drops: Counter[str]) -> None:
        """Listens nowhere yet. To be made, and called, in the event loop."""
        self.port: int | None = None
        """Where it listens; None: nowhere."""
        self._shards = shards
        self._drops = drops
        self._loop = asyncio.get_running_loop()
        self._listeners: list[socket.socket] = []
        self._unproven: dict[_Arrival, None] = {}
        self._of_address: dict[str, dict[_Arrival, None]] = {}
        """Counted address -> its connections in `_unproven`. In both the oldest comes first."""
        self._pause: asyncio.TimerHandle | None = None
        self._stopped = False

    def listen(self, port: int, addresses: Iterable[str] = ()) -> None:
        """Accept connections to a port of these local addresses, without any: of all. 0: any free port.

        Raises:
            OSError: an address cannot be bound.
        """
        given = tuple(addresses)
        try:
            for address in given or ("0.0.0.0", "::"):
                opened = _listening(address, port, optional_ipv6=not given)
                if opened is not None:
                    self._listeners.append(opened)
                    self.port = port = opened.getsockname()[1]
        except OSError:
            self._close_listeners()
            raise
        self._accept_more()

    def take(
        self,
        connection: socket.socket,
        client: str = "",
        peer: tuple[str, int] | None = None,
        protocol: str = "tcp",
    ) -> None:
        """Take over a connected socket of which nothing has been read. It is closed if it does not prove to be a
        peer's.

        Args:
            connection: a socket of TCP; with `client` and `peer`, one of any stream.
            client: the IP address under which it is counted, if that is not the socket's peer, but behind it.
            peer: the IP address and port that count as its peer's, if they are not those of the socket.
            protocol: what statistics call it.
        """
        try:
            connection.setblocking(False)
            address = _counted_address(client or connection.getpeername()[0])
        except OSError:  # it has ended already
            connection.close()
            return
        if self._stopped:
            self._drops["tcp_beyond_limit"] += 1
            connection.close()
            return
        self._make_room(address)
        arrival = _Arrival(connection, address, peer, protocol)
        self._unproven[arrival] = None
        self._of_address.setdefault(address, {})[arrival] = None
        self._look(arrival)
        if arrival in self._unproven:
            arrival.expires = self._loop.call_later(FIRST_FRAME_S, self._refuse, arrival, "tcp_late")

    def stop(self) -> None:
        """Accept nothing any more, and close what no media thread has."""
        self._stopped = True
        self._close_listeners()
        for arrival in list(self._unproven):
            self._forget(arrival)
            arrival.connection.close()

    def _close_listeners(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        for listener in self._listeners:
            self._loop.remove_reader(listener)
            listener.close()
        self._listeners.clear()

    def _accept_more(self) -> None:
        self._pause = None
        for listener in self._listeners:
            self._loop.add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection = listener.accept()[0]
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in NO_DESCRIPTORS:
                    self._drops["tcp_beyond_limit"] += 1
                    logger.warning("no TCP connection can be accepted: %s", error.strerror)
                    self._rest()
                return
            self.take(connection)

    def _rest(self) -> None:
        """Accept nothing for a while: the listeners stay readable."""
        for listener in self._listeners:
            self._loop.remove_reader(listener)
        if self._pause is None:
            self._pause = self._loop.call_later(PAUSE_S, self._accept_more)

    def _make_room(self, address: str) -> None:
        """Close the oldest connection of an address that has as many as it may, else of all if there are too many."""
        same = self._of_address.get(address, {})
        if len(same) >= MAX_UNPROVEN_OF_ADDRESS:
            self._refuse(next(iter(same)), "tcp_beyond_limit")
        elif len(self._unproven) >= MAX_UNPROVEN:
            self._refuse(next(iter(self._unproven)), "tcp_beyond_limit")

    def _look(self, arrival: _Arrival) -> None:
        """Look at what has come of a connection, without taking it."""
        try:
            data = arrival.connection.recv(FRAME_HEADER_BYTES + MAX_FIRST_FRAME_BYTES, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            self._wait(arrival, FRAME_HEADER_BYTES)
            return
        except OSError:
            data = b""
        if len(data) <= arrival.seen:  # it can be read and there is no more: its end
            self._refuse(arrival, "tcp_unfinished")
            return
        arrival.seen = len(data)
        size = int.from_bytes(data[:FRAME_HEADER_BYTES]) if len(data) >= FRAME_HEADER_BYTES else STUN_HEADER_BYTES
        if not STUN_HEADER_BYTES <= size <= MAX_FIRST_FRAME_BYTES:
            self._refuse(arrival, "tcp_garbage")
        elif len(data) < FRAME_HEADER_BYTES + size:
            self._wait(arrival, FRAME_HEADER_BYTES + size if len(data) >= FRAME_HEADER_BYTES else FRAME_HEADER_BYTES)
        else:
            self._hand_over(arrival, data[FRAME_HEADER_BYTES : FRAME_HEADER_BYTES + size])

    def _wait(self, arrival: _Arrival, size: int) -> None:
        """Look again when so many bytes have come. Fewer do not make it readable, so that a half frame costs nothing
        while it waits."""
        arrival.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
        if not arrival.waits:
            arrival.waits = True
            self._loop.add_reader(arrival.connection, self._look, arrival)

    def _hand_over(self, arrival: _Arrival, frame: bytes) -> None:
        ufrag = ufrag_of_check(frame)
        shard = next((each for each in self._shards if ufrag in each.ufrags), None)
        if ufrag is None or shard is None:
            self._refuse(arrival, "tcp_garbage" if ufrag is None else "stun_unknown_ufrag")
            return
        try:
            set_stream_options(arrival.connection)
            seen = packed_address(*arrival.peer) if arrival.peer else socket_address(arrival.connection)
            shard.open_connection(arrival.connection, seen, arrival.protocol)
        except (OSError, TableFull):
            self._refuse(arrival, "tcp_beyond_limit")
        else:
            self._forget(arrival)

    def _refuse(self, arrival: _Arrival, reason: str) -> None:
        self._drops[reason] += 1
        self._forget(arrival)
        arrival.connection.close()

    def _forget(self, arrival: _Arrival) -> None:
        del self._unproven[arrival]
        same = self._of_address[arrival.address]
        del same[arrival]
        if not same:
            del self._of_address[arrival.address]
        if arrival.expires is not None:
            arrival.expires.cancel()
        if arrival.waits:
            self._loop.remove_reader(arrival.connection)


def ufrag_of_check(message: bytes) -> str | None:
    """Our ufrag in the username of a STUN Binding request (RFC 8445 section 7.2.2), which is not verified here; None:
    there is none."""
    if len(message) < STUN_HEADER_BYTES:
        return None
    kind, size, cookie = struct.unpack_from("!HHI", message)
    if (kind, cookie, size) != (BINDING_REQUEST, MAGIC_COOKIE, len(message) - STUN_HEADER_BYTES):
        return None
    at = STUN_HEADER_BYTES
    while at + 4 <= len(message):
        kind, size = struct.unpack_from("!HH", message, at)
        if kind == USERNAME:
            username = message[at + 4 : at + 4 + size]
            ours, colon, _ = username.partition(b":")
            return ours.decode() if colon and len(username) == size and ours.isascii() else None
        at += 4 + (size + 3) // 4 * 4
    return None


def _listening(address: str, port: int, optional_ipv6: bool) -> socket.socket | None:
    """A socket that listens; None: it is an optional one of IPv6, which this machine does not have."""
    opened = bound_socket(socket.SOCK_STREAM, address, port, _set_listening_options, optional_ipv6)
    if opened is not None:
        try:
            opened.listen(BACKLOG)
        except OSError:
            opened.close()
            raise
    return opened


def _set_listening_options(opened: socket.socket) -> None:
    opened.setblocking(False)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def _counted_address(address: str) -> str:
    """What connections from an address are counted under."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if parsed.version == 6:
        return str(ipaddress.ip_network((parsed, IPV6_PREFIX), strict=False))
    return address
