"""Clients of TURN over TCP, with TLS or without.

Who calls it: `thread.py` makes them of connections; the poller tells them when they can be read and written.
"""

import select
import socket
import time
from typing import Protocol

from sfu.sockets import set_stream_options
from signaling.turn.allocation.allocations import Allocations
from signaling.turn.net.clients import Client
from signaling.turn.net.paths import READ_BYTES, Common
from signaling.turn.net.poller import READ, WRITE
from signaling.turn.net.tls import TlsEnd, TlsFailed
from signaling.turn.wire.framing import NO_CHANNEL, NotTurn, Taken, channel_data, runs_of
from signaling.turn.wire.stun_messages import Address

WITHOUT_ALLOCATION_S = 10.0
"""How long a connection may be without an allocation, its TLS handshake included."""
MAX_UNSENT_BYTES = 256 * 1024
"""Bytes that wait for a client that does not read. Media wait elsewhere, so that these are answers; it is closed."""
STRANGERS_BYTES, ENCRYPTED_BYTES = 4096, 16 * 1024
"""Bytes that are read at once of a client without an allocation, and over TLS: with records of few bytes, or such that
change keys, a client could else keep the thread for tens of milliseconds at each read."""


class Registry(Protocol):
    """Who counts connections."""

    def settled(self, client: "StreamClient") -> None:
        """Note that a connection has got an allocation."""

    def unsettled(self, client: "StreamClient") -> None:
        """Note that a connection has none, at its beginning or because it ended."""

    def ended(self, client: "StreamClient") -> None:
        """Note that a connection is closed."""


class StreamClient(Client):
    """A connection."""

    def __init__(
        self,
        common: Common,
        allocations: Allocations,
        connection: socket.socket,
        client: Address,
        tls: TlsEnd | None,
        registry: Registry,
    ) -> None:
        """Serve a connection until it ends, of which nothing has been read but what `tls` knows.

        Args:
            common: what the thread has for all clients.
            allocations: who decides.
            connection: the socket, which is ours now.
            client: where the client is, which may be behind a proxy.
            tls: our end of TLS; None: there is none.
            registry: is told of its beginning and its end.

        Raises:
            OSError: it has ended already.
        """
        now = time.monotonic()
        super().__init__(common, allocations, client, now)
        self.is_proven = True
        self._socket = connection
        self._tls = tls
        self._registry = registry
        self._rest = b""
        """Half a message or packet of the client."""
        self._unsent = b""
        """What the operating system has not taken."""
        self._reads = True
        """The media takes what the client sends."""
        self._has_more = False
        """`_rest` may have whole messages and packets in it."""
        self._has_turn = True
        """Nothing of the client waits until others have had their turn."""
        self.expires = now + WITHOUT_ALLOCATION_S
        """When the connection is closed if there is no allocation."""
        connection.setblocking(False)
        set_stream_options(connection)
        common.poller.watch(connection.fileno(), self)
        registry.unsettled(self)
        if tls is not None and tls.has_said:
            self._wait_for_turn()

    @property
    def way(self) -> str:
        """How it reaches the server, as statistics call it: without TLS that somebody else has ended."""
        return "turn_tcp" if self._tls is None else "turn_tls"

    def ready(self, events: int) -> None:
        """Read from the client, and write what could not be written before."""
        if events & WRITE and self._unsent:
            self._write(b"")
        if events & READ and self._reads and self._has_turn:
            if self._tls is None or self._tls.is_made:
                self._read()
            else:
                self._wait_for_turn()  # handshakes cost most, and whoever wants can begin one
        if events & (select.EPOLLHUP | select.EPOLLERR):
            self.close()

    def close(self, reason: str = "") -> None:
        """End the connection and its allocation (RFC 8656 section 7); count it if there is a reason."""
        if self._socket.fileno() < 0:
            return
        if reason:
            self.common.dropped[reason] += 1
        self.common.poller.forget(self._socket.fileno())
        self._socket.close()
        if self.allocation is not None:
            self._allocations.end(self.allocation, time.monotonic())
        self._registry.ended(self)

    def say(self, data: bytes) -> None:
        """Send a STUN message to the client."""
        self._send(data)

    def deliver_channel(self, channel: int, frames: list[memoryview]) -> None:
        """Send frames of the media in a channel."""
        self._send(channel_data(channel, frames))

    def set_reading(self, reads: bool) -> None:
        """Read no more of the client until the media takes it."""
        if self._reads is not reads and self._socket.fileno() >= 0:
            self._reads = reads
            self._watch()
            if reads and self._has_more and self._has_turn:
                self._wait_for_turn()

    def allocation_ended(self) -> None:
        """Close the paths, and the connection after a while."""
        super().allocation_ended()
        if self._socket.fileno() >= 0:
            self.expires = time.monotonic() + WITHOUT_ALLOCATION_S
            self._registry.unsettled(self)

    def _wait_for_turn(self) -> None:
        """Go on with the client when others have had their turn. Nothing is read of it until then."""
        self._has_turn = False
        self._watch()
        self.common.poller.later(self._go_on)

    def _go_on(self) -> None:
        if self._socket.fileno() < 0:
            return
        self._has_turn = True
        self._watch()
        if not self._reads:
            return
        try:
            if self._has_more:
                self._take(memoryview(self._rest))
            elif self._tls is not None and self._tls.has_said:
                self._take_encrypted(self._tls, memoryview(b""))
            else:
                self._read()
        except BaseException:
            self.close()
            raise

    def _read(self) -> None:
        buffer = self.common.buffer
        try:
            if self._tls is None:
                data = buffer.read(self._socket, self._rest, READ_BYTES if self.allocation else STRANGERS_BYTES)
            else:
                data = buffer.read(self._socket, b"", ENCRYPTED_BYTES if self.allocation else STRANGERS_BYTES)
        except BlockingIOError:
            return
        if data is None:
            self.close()
            return
        if self._tls is None:
            self._take(data)
        else:
            self._take_encrypted(self._tls, data)

    def _take_encrypted(self, tls: TlsEnd, data: memoryview) -> None:
        try:
            said = tls.receive(data)
        except (TlsFailed, EOFError) as error:
            self._write(tls.to_send())  # the alert
            self.close("turn_tls_failed" if isinstance(error, TlsFailed) else "")
            return
        if answer := tls.to_send():
            self._write(answer)
        if said and self._socket.fileno() >= 0:
            self._take(memoryview(self._rest + said))

    def _take(self, data: memoryview) -> None:
        now, taken = time.monotonic(), Taken(0, False)
        self._has_more = False
        try:
            for run in runs_of(data):
                if isinstance(run, Taken):
                    taken = run
                elif run.channel == NO_CHANNEL:
                    self._hear(bytes(run.parts[0]), now)
                else:
                    self.relay_channel(run.channel, run.parts, now)
                if self._socket.fileno() < 0:
                    return
        except NotTurn:
            self.close("turn_malformed")
            return
        self._rest = bytes(data[taken.size :])
        self._has_more = taken.may_go_on and bool(self._rest)
        if self._has_more and self._reads:
            self._wait_for_turn()

    def _hear(self, message: bytes, now: float) -> None:
        had = self.allocation
        self.hear(message, now)
        if had is None and self.allocation is not None:
            self._registry.settled(self)

    def _send(self, data: bytes) -> None:
        if self._tls is not None:
            try:
                data = self._tls.send(data)
            except TlsFailed:
                self.close("turn_tls_failed")
                return
        self._write(data)

    def _write(self, data: bytes) -> None:
        """Write what waits, and this behind it. While anything waits, nothing of the media is read."""
        if self._socket.fileno() < 0:
            return
        waited = bool(self._unsent)
        data = self._unsent + data
        sent = 0
        try:
            sent = self._socket.send(data) if data else 0
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        self._unsent = data[sent:]
        if len(self._unsent) > MAX_UNSENT_BYTES:
            self.close("turn_unread")
        elif waited is not bool(self._unsent):
            self._watch()
            self.pause_paths(bool(self._unsent))

    def _watch(self) -> None:
        events = (READ if self._reads and self._has_turn else 0) | (WRITE if self._unsent else 0)
        self.common.poller.change(self._socket.fileno(), events)
