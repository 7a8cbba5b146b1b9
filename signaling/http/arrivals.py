"""One TCP connection from its acceptance until it is clear what it speaks.

Who calls it: `acceptor.py`, for each connection. Of the client's bytes nothing is read until then but a PROXY header:
`MSG_PEEK` looks at them. So HTTP, TLS and whatever takes the descriptor begin with a connection as the kernel accepted
it. A client that sends little or nothing is given up after `FIRST_BYTES_S`; nobody waits for it meanwhile. TLS is begun
by the event loop; if TURN is inside, the TURN thread goes on with it.
"""

import asyncio
import contextlib
import os
import socket
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from signaling.http.certificates import Certificates
from signaling.http.first_bytes import (
    MAX_PROXY_HEADER_BYTES,
    NEEDED_BYTES,
    Address,
    BadProxyHeader,
    Protocol,
    begins_proxy_header,
    read_proxy_header,
    recognize,
)
from signaling.turn.net.tls import MovableTls, TlsEnd

FIRST_BYTES_S = 5.0
"""How long a client may take for the bytes that tell what it speaks, and again for those inside of TLS."""
HANDSHAKE_S = 10.0
"""How long a TLS handshake may take."""
TLS_CLOSING_S = 5.0
"""How long a client may take to answer the end of TLS."""
FLUSH_S = 0.01
"""How often it is looked whether the event loop has sent what TLS had to say, until the client's time is over."""
LOOK_BYTES = 16
"""Bytes that are looked at: what tells the protocol, and the signature of a PROXY header where none is expected."""
HIGH_WATER_BYTES = 64 * 1024
"""Bytes in TLS that a client has not read, above which nothing more is written to it: as without TLS."""

OpenHttp = Callable[[Address | None], asyncio.Protocol]
"""A function that makes the protocol of an HTTP connection; with the client's address if a proxy told it."""
TakeFramed = Callable[[socket.socket, Protocol, Address, TlsEnd | None], bool]
"""A function that takes over a connection of ICE-TCP or TURN, with its client's address. Nothing has been read from it,
or our end of its TLS knows all that was.

It owns the socket if it returns True. Otherwise nobody serves such connections here, and the caller closes it.
"""


def take_nothing(connection: socket.socket, protocol: Protocol, client: Address, tls: TlsEnd | None) -> bool:
    """Refuse a connection of ICE-TCP or TURN: there is no media over TCP."""
    return False


@dataclass(frozen=True, slots=True)
class Services:
    """What stands behind a listening socket."""

    open_http: OpenHttp
    certificates: Certificates
    """Without a certificate, connections that begin TLS are closed."""
    dropped: Counter[str]
    """Counts what is closed here, by reason."""
    take_framed: TakeFramed = take_nothing


class Arrival:
    """A connection of which it is not known yet what it speaks."""

    def __init__(
        self,
        connection: socket.socket,
        peer: Address,
        by_proxy: bool,
        services: Services,
        ended: Callable[["Arrival"], None],
    ) -> None:
        """Own `connection`, which must not block.

        Args:
            connection: an accepted socket.
            peer: where it comes from.
            by_proxy: it must begin with a PROXY header.
            services: what it may go on to.
            ended: called once, when it is closed or is somebody else's.
        """
        self.peer = peer
        self._socket = connection
        self._services = services
        self._ended: Callable[[Arrival], None] | None = ended
        self._needs_header = by_proxy
        self._told: Address | None = None
        """The client's address, if a proxy told it."""
        self._seen = 0
        """Bytes that were there at the last look."""
        self._low_water = 1
        """Bytes that have to be there until we are woken."""
        self._loop = asyncio.get_running_loop()
        self._deadline: asyncio.TimerHandle | None = None
        self._watched = False
        self._opening: asyncio.Task[None] | None = None
        self._taken = False
        """The socket belongs to a transport."""
        self._inside: FirstInside | None = None

    def begin(self) -> None:
        """Look at what is there already, and wait for the rest."""
        self._deadline = self._loop.call_later(FIRST_BYTES_S, self.drop, "first_bytes_late")
        self._look()
        if self._ended is not None and self._opening is None:
            self._watched = True
            self._loop.add_reader(self._socket, self._look)

    def drop(self, reason: str = "") -> None:
        """Close the connection, and count it if there is a reason."""
        if self._ended is None:
            return
        if reason:
            self._services.dropped[reason] += 1
        if self._inside is not None and self._inside.is_made:
            self._inside.abort()
        elif self._taken and self._opening is not None:
            self._opening.cancel()  # which closes what it has begun
        else:
            self._unwatch()
            self._socket.close()
            if self._opening is not None:
                self._opening.cancel()
        self._finish()

    def secured(self) -> None:
        """Wait for what the client says inside of TLS."""
        self._deadline = self._loop.call_later(FIRST_BYTES_S, self.drop, "first_bytes_late")

    def look_inside(self, first: bytes, transport: asyncio.Transport) -> None:
        """Decide by the first bytes that TLS has decrypted."""
        protocol = recognize(first)
        if protocol is Protocol.HTTP:
            http = self._services.open_http(self._told)
            transport.set_write_buffer_limits(HIGH_WATER_BYTES)
            http.connection_made(transport)
            transport.set_protocol(http)
            self._finish()
            http.data_received(first)
        elif protocol is Protocol.TURN and self._inside is not None:
            self._inside.leave()
        elif protocol is not None:
            self.drop("media_over_tcp" if protocol is Protocol.ICE_TCP else "first_bytes_unknown")

    def move(self, connection: socket.socket, tls: TlsEnd) -> None:
        """Have the TURN server go on with a connection that the event loop has given up, and with its TLS."""
        if self._services.take_framed(connection, Protocol.TURN, self._told or self.peer, tls):
            self._finish()
        else:
            connection.close()
            self.drop("media_over_tcp")

    def _look(self) -> None:
        try:
            wanted = MAX_PROXY_HEADER_BYTES if self._needs_header else LOOK_BYTES
            first = self._socket.recv(wanted, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            self.drop()
            return
        if len(first) <= self._seen:
            # The client has ended. One that said nothing, as health checks do, is no fault.
            self.drop("first_bytes_unknown" if first else "")
        elif self._needs_header:
            self._look_for_header(first)
        else:
            self._look_for_protocol(first)

    def _look_for_header(self, first: bytes) -> None:
        try:
            header = read_proxy_header(first)
            if header is None:
                self._wait_for(len(first) + 1, len(first))
                return
            self._socket.recv(header.size)
        except (BadProxyHeader, OSError):
            self.drop("proxy_header")
            return
        self._told, self._needs_header = header.client, False
        self._wait_for(1, 0)
        self._look()

    def _look_for_protocol(self, first: bytes) -> None:
        protocol = recognize(first)
        if protocol is None:
            self._wait_for(NEEDED_BYTES, len(first))
        elif begins_proxy_header(first):
            self.drop("proxy_header")
        elif protocol is Protocol.HTTP:
            self._open(self._open_http)
        elif protocol is Protocol.TLS and self._services.certificates.context is not None:
            self._open(self._open_tls)
        elif protocol is Protocol.TLS:
            self.drop("tls_without_certificate")
        elif protocol is Protocol.UNKNOWN:
            self.drop("first_bytes_unknown")
        else:
            self._hand_over(protocol)

    def _wait_for(self, needed: int, seen: int) -> None:
        """Be woken when so many bytes are there, or the client ends. Fewer would wake us again and again."""
        self._seen = seen
        if needed != self._low_water:
            self._low_water = needed
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, needed)

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            self._loop.remove_reader(self._socket)

    def _hand_over(self, protocol: Protocol) -> None:
        self._unwatch()
        self._wait_for(1, 0)
        if self._services.take_framed(self._socket, protocol, self._told or self.peer, None):
            self._finish()
        else:
            self.drop("media_over_tcp")

    def _open(self, opening: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._unwatch()
        self._wait_for(1, 0)
        self._cancel_deadline()
        self._opening = self._loop.create_task(opening())

    async def _open_http(self) -> None:
        self._taken = True
        with contextlib.suppress(OSError):
            await self._loop.connect_accepted_socket(partial(self._services.open_http, self._told), self._socket)
        self._finish()

    async def _open_tls(self) -> None:
        self._taken = True
        inside = self._inside = FirstInside(self)
        with contextlib.suppress(OSError):  # of which ssl.SSLError is one
            await self._loop.connect_accepted_socket(
                lambda: inside,
                self._socket,
                ssl=self._services.certificates.context,
                ssl_handshake_timeout=HANDSHAKE_S,
                ssl_shutdown_timeout=TLS_CLOSING_S,
            )
        if not inside.is_made:
            self.drop("tls_failed")

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _finish(self) -> None:
        ended, self._ended = self._ended, None
        self._cancel_deadline()
        self._inside = None
        if ended is not None:
            ended(self)


class FirstInside(asyncio.Protocol):
    """The protocol of a connection with TLS until its first decrypted bytes have told which comes next."""

    def __init__(self, arrival: Arrival) -> None:
        self._arrival = arrival
        self._first = b""
        self._transport: asyncio.Transport | None = None
        self._left: tuple[socket.socket, TlsEnd] | None = None
        """The connection and our end of its TLS, while the event loop gives them up for somebody else."""
        self.is_made = False
        """The handshake is done."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Go on when the handshake is done."""
        self._transport = cast("asyncio.Transport", transport)
        self.is_made = True
        self._arrival.secured()

    def data_received(self, data: bytes) -> None:
        """Take what TLS has decrypted."""
        self._first += data
        if self._transport is not None:
            self._arrival.look_inside(self._first, self._transport)

    def leave(self) -> None:
        """Have the event loop give up the connection for somebody else, when it has sent all that TLS had to say.

        That is the end of the handshake, some hundred bytes, which the operating system takes in this turn of the loop.
        """
        if self._transport is not None:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._leave)

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass the connection on, or give up: the client has ended, or has sent what is no TLS."""
        self._transport = None
        left, self._left = self._left, None
        if left is not None:
            self._arrival.move(*left)
        else:
            self._arrival.drop("tls_failed" if exc is not None else "")

    def abort(self) -> None:
        """Close the connection at once."""
        if self._left is not None:
            self._left[0].close()
            self._left = None
        if self._transport is not None:
            self._transport.abort()

    def _leave(self) -> None:
        if self._transport is None or self._left is not None:
            return  # the client has ended
        if self._transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(FLUSH_S, self._leave)
            return
        tls = self._transport.get_extra_info("ssl_object")
        assert isinstance(tls, MovableTls), "our contexts make no others"
        try:
            connection = socket.socket(fileno=os.dup(self._transport.get_extra_info("socket").fileno()))
        except OSError:
            self._arrival.drop("accept_failed")
            return
        self._left = connection, TlsEnd(tls, self._first)
        self._transport.abort()  # which closes the event loop's descriptor, and sends nothing
