"""A client's end of a stream that a media thread serves, in frames of RFC 4571: a TCP connection over loopback, or what
TURN gives the engine in the place of one."""

import contextlib
import socket
import time
from collections.abc import Callable

from sfu.control.net.sockets import packed_address, socket_address
from sfu.control.rows import Tables
from sfu.schema.codes import Command
from sfu.sockets import UNSENT_BYTES

PATIENCE_S = 5.0


def framed(*packets: bytes) -> bytes:
    """The packets in frames, one after the other."""
    return b"".join(len(packet).to_bytes(2) + packet for packet in packets)


def connected_pair(buffer_bytes: int = 0) -> tuple[socket.socket, socket.socket]:
    """(client's end, server's end) of a connection; buffer_bytes: what the operating system keeps at each end, 0: as
    much as it likes."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if buffer_bytes:  # before the connection is made: its window follows from them
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client.connect(listener.getsockname())
        server = listener.accept()[0]
    for each in (client, server):
        each.setblocking(False)
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    return client, server


def steady_pair(buffer_bytes: int = 0) -> tuple[socket.socket, socket.socket]:
    """(client's end, server's end) of a pair as TURN makes it, for clocks that are turned by hand.

    What is sent has come, and what nobody reads takes the same place however long it waits; a TCP connection may take
    some more at any time. buffer_bytes: what the operating system keeps, 0: as much as it likes.
    """
    client, server = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    if buffer_bytes:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
    for each in (client, server):
        each.setblocking(False)
    return client, server


def _seen_address(server: socket.socket) -> bytes:
    """The client's address; without one, one that no other open pair has."""
    return packed_address("192.0.2.1", server.fileno()) if server.family == socket.AF_UNIX else socket_address(server)


class TcpEnd:
    """The client's end, and the row of the connection."""

    def __init__(
        self,
        tables: Tables,
        command: Callable[..., None],
        buffer_bytes: int = 0,
        make_pair: Callable[[int], tuple[socket.socket, socket.socket]] = connected_pair,
    ) -> None:
        """command: puts a command into the queue, which the next turn applies."""
        self.socket, self.server = make_pair(buffer_bytes)
        self.row, self.generation = tables.take_connection(_seen_address(self.server), self.server.fileno())
        command(Command.OPEN_CONNECTION, self.row, self.generation)
        self._came = b""
        self.ended = False
        """The server has closed it."""

    def send(self, *packets: bytes) -> None:
        """Packets that arrive at the server at once."""
        self.socket.sendall(framed(*packets))

    def packets(self, most_bytes: int = 1 << 30) -> list[bytes]:
        """What has come, in whole packets; most_bytes: read no more than so much."""
        with contextlib.suppress(BlockingIOError):
            while most_bytes > 0:
                data = self.socket.recv(min(most_bytes, 1 << 16))
                if not data:
                    self.ended = True
                    break
                self._came += data
                most_bytes -= len(data)
        found = []
        while len(self._came) >= 2 and len(self._came) >= (end := 2 + int.from_bytes(self._came[:2])):
            found.append(self._came[2:end])
            self._came = self._came[end:]
        return found

    def wait_for_end(self) -> None:
        """Return when the server has closed the connection."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.ended:
            with contextlib.suppress(ConnectionResetError):
                self.packets()
            assert time.monotonic() < deadline, "the connection is still open"
            time.sleep(0.001)

    def close(self) -> None:
        """Close both ends, the server's as the control thread does after CLOSED_CONNECTION."""
        self.socket.close()
        self.server.close()
