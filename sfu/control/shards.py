"""One media thread as the control thread has it: memory, rows, queues, sockets."""

import asyncio
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from sfu.control.inbox import Inbox
from sfu.control.mailbox import Mailbox
from sfu.control.net.sockets import Sockets, candidates
from sfu.control.net.tcp import TcpConnections
from sfu.control.rows import Tables
from sfu.control.security.certificate import LocalCertificate
from sfu.parameters import Candidate, EngineOptions
from sfu.schema.codes import Command, PathKind
from sfu.schema.memory import Memory


class RunsMedia(Protocol):
    """What a shard uses of `media_thread.MediaThread`."""

    failed: bool

    def start(self) -> None:
        """Start the loop in a thread of its own."""

    def wake(self) -> None:
        """Make the loop look into the command queue soon."""

    def stop(self) -> None:
        """End the loop.

        Raises:
            RuntimeError: the loop does not end.
        """

    def cpu_seconds(self) -> float:
        """Processor time that it has used."""


FIRST_TURN_POLL_S = 0.01

MakeThread = Callable[[Memory, Callable[[BaseException], None]], RunsMedia]
"""Makes a media thread from (memory, what to call with an exception in it)."""


class Shard:
    """The memory that a media thread shares with the control thread, and the means to reach both.

    `sfu.control.tracks.Owners` knows to whom its rows belong.
    """

    def __init__(
        self, make_thread: MakeThread, on_exception: Callable[[BaseException], None], wake: Callable[["Shard"], None]
    ) -> None:
        """wake: called when something was put into the command queue, to wake the thread soon."""
        self.memory = Memory()
        self.tables = Tables(self.memory)
        paths = self.memory.table("paths")
        self.selected_paths = self.memory.table("transports")["path"]
        self.path_states, self.path_owners = paths["state"], paths["transport"]
        """Columns that are read for every data message: `.item(row)` of one costs a fifth of `row["name"]`."""
        self._path_kinds, self._path_connections = paths["kind"], paths["connection"]
        self.ufrags: set[str] = set()
        """Ours of all transports, with which peers begin their checks."""
        self._connections: dict[int, tuple[socket.socket, str]] = {}
        """TCP connections by row of `connections`, until the media thread has let go of it; with what statistics call
        them."""
        self.mailbox = Mailbox(self.memory, lambda: wake(self))
        self.inbox = Inbox(self.mailbox)
        self.thread = make_thread(self.memory, on_exception)
        self.sockets: Sockets
        self.certificate: LocalCertificate
        self.loop: asyncio.AbstractEventLoop

    @property
    def number(self) -> int:
        """Place among the shards."""
        return int(self.memory.thread["number"])

    def open(self, port: int, options: EngineOptions, certificate: LocalCertificate) -> None:
        """Bind the sockets; `start` of the thread may follow.

        Raises:
            OSError: an address cannot be bound.
        """
        self.sockets = Sockets(self.memory, port, options.bind)
        self.memory.thread["unlimited"] = not options.limits_bandwidth
        self.memory.thread["loss_proxying"] = options.proxies_loss
        self.tables.key_frame_retry_ms = options.key_frame_retry_ms
        self.certificate = certificate
        self.loop = asyncio.get_running_loop()
        self.memory.open_wakeups()

    def candidates(self, addresses: tuple[str, ...], tcp_port: int | None) -> tuple[Candidate, ...]:
        """What peers are told: where they reach this media thread over UDP, and all of them over TCP. addresses: those
        to advertise; empty: those that are bound."""
        return candidates(
            addresses or self.sockets.local_addresses(), self.sockets.families, self.sockets.port, tcp_port
        )

    def send(self, transport: int, generation: int, path: int, datagram: bytes) -> bool:
        """Send from the control thread to a transport row, over a path row of it. False: it was not sent (a lost
        datagram)."""
        if self._path_kinds.item(path) == PathKind.UDP:
            return self.sockets.send(path, datagram)
        return self.mailbox.push_frame(transport, generation, path, datagram)

    def open_connection(self, connection: socket.socket, address: bytes, protocol: str) -> None:
        """Let the media thread serve a TCP connection, whose first frame is a check and waits to be read. address: the
        sockaddr of its peer; protocol: what statistics call it.

        Raises:
            TableFull: there are too many connections.
            OSError: it has ended.
        """
        row, generation = self.tables.take_connection(address, connection.fileno())
        self._connections[row] = connection, protocol
        self.mailbox.push(Command.OPEN_CONNECTION, row, generation)

    def connection_closed(self, row: int) -> None:
        """The media thread no longer uses a TCP connection."""
        self._connections.pop(row)[0].close()
        self.tables.connections.give_back(row)

    def protocol(self, path: int) -> str:
        """What statistics call the way over a path row."""
        if self._path_kinds.item(path) == PathKind.UDP:
            return "udp"
        return self._connections.get(self._path_connections.item(path), (None, "tcp"))[1]

    def close(self) -> None:
        """Close the sockets; the thread must have stopped."""
        self.sockets.close()
        for connection, _ in self._connections.values():
            connection.close()
        self._connections.clear()
        self.memory.close_wakeups()


def open_all(
    shards: Sequence[Shard],
    ports: Iterable[int],
    options: EngineOptions,
    certificate: LocalCertificate,
    tcp: TcpConnections,
) -> None:
    """Bind the sockets of all shards and listen for TCP connections, if the options say so; or none of it.

    Raises:
        OSError: an address cannot be bound.
    """
    opened: list[Shard] = []
    try:
        for shard, port in zip(shards, ports, strict=True):
            shard.open(port, options, certificate)
            opened.append(shard)
        if options.tcp_port is not None:
            tcp.listen(options.tcp_port, options.bind)
    except OSError:
        for shard in opened:
            shard.close()
        raise


async def first_turns(shards: Iterable[Shard]) -> None:
    """Wait until every media thread works.

    Raises:
        RuntimeError: a media thread fails.
    """
    for shard in shards:
        while shard.memory.thread["turns"] == 0:
            if shard.thread.failed:
                raise RuntimeError("a media thread does not run")
            await asyncio.sleep(FIRST_TURN_POLL_S)
