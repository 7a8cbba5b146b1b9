"""The thread in which clients of TURN are served: its loop, its sockets, and what the control thread asks of it.

Who calls it: `service.py`. Every public method may be called by the control thread.
"""

import socket
import threading
import time
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from signaling.turn.allocation.allocations import Allocations
from signaling.turn.allocation.records import Rules
from signaling.turn.net.connections import Connections, Listener, MakeContext
from signaling.turn.net.datagrams import DatagramServer
from signaling.turn.net.paths import Buffer, Common, HandOver
from signaling.turn.net.poller import Poller
from signaling.turn.net.tls import TlsEnd

STOP_TIMEOUT_S = 5.0

log = structlog.get_logger("signaling.turn")


@dataclass(frozen=True, slots=True)
class Sockets:
    """Bound sockets, which the thread owns."""

    udp: Sequence[socket.socket] = ()
    tcp: Sequence[socket.socket] = ()
    tls: Sequence[socket.socket] = ()


class TurnThread:
    """The thread. `dropped` counts what it refuses, by reason."""

    def __init__(self, rules: Rules, hand_over: HandOver, dropped: Counter[str], make_context: MakeContext) -> None:
        """Serve nobody until `start`.

        Args:
            rules: what all allocations have in common.
            hand_over: gives the engine a connection; called in the thread.
            dropped: counts what is refused.
            make_context: what a new connection to a socket of `Sockets.tls` begins with.
        """
        self._poller = Poller()
        self._allocations = Allocations(rules, dropped)
        self._common = Common(self._poller, Buffer(), hand_over, dropped)
        self._connections = Connections(self._common, self._allocations)
        self._make_context = make_context
        self._listeners: list[Listener] = []
        self._datagrams: list[DatagramServer] = []
        self._thread = threading.Thread(target=self._run, name="turn", daemon=True)

    def start(self, sockets: Sockets) -> None:
        """Serve clients on these sockets.

        Raises:
            OSError: another process listens there.
        """
        for each in sockets.udp:
            self._datagrams.append(DatagramServer(self._common, self._allocations, each))
        for each in sockets.tcp:
            self._listeners.append(Listener(self._connections, each, None))
        for each in sockets.tls:
            self._listeners.append(Listener(self._connections, each, self._make_context))
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and close everything."""
        self._poller.stop()
        if self._thread.ident is not None:
            self._thread.join(STOP_TIMEOUT_S)
        if self._thread.is_alive():
            log.critical("the TURN thread does not stop")
        else:
            self._poller.close()

    def admit(self, holder: str, owner: Hashable) -> None:
        """Let a participant have allocations. `owner` stays the same when it leaves and joins again."""
        self._poller.call(partial(self._allocations.admit, holder, owner))

    def expel(self, holder: str) -> None:
        """End a participant's allocations for good."""
        self._poller.call(lambda: self._allocations.expel(holder, time.monotonic()))

    def take(self, connection: socket.socket, client: tuple[str, int], tls: TlsEnd | None = None) -> None:
        """Serve a connection of which nothing has been read but what `tls` knows, which nobody else uses any more."""
        self._poller.call(partial(self._connections.take, connection, client, tls))

    def allocations(self) -> int:
        """Return how many allocations there are."""
        return len(self._allocations)

    def _run(self) -> None:
        self._poller.run(self._tick)

    def _tick(self, now: float) -> None:
        self._allocations.tick(now)
        self._connections.tick(now)
        for server in self._datagrams:
            server.tick()
        for listener in self._listeners:
            listener.tick()
