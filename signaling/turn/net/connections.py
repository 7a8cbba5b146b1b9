"""All TCP connections of TURN clients, and the sockets on which they come in.

Who calls it: `thread.py`. Who has no allocation is closed after a while, and bounded: in all, and for each network, of
which one more takes the place of the oldest.
"""

import ipaddress
import socket
import time
from collections.abc import Callable
from functools import partial

from sfu.sockets import NO_DESCRIPTORS
from signaling.networks import ByNetwork, network_of
from signaling.turn.allocation.allocations import Allocations
from signaling.turn.allocation.allowances import NetworkAllowances
from signaling.turn.net.paths import Common
from signaling.turn.net.poller import READ
from signaling.turn.net.streams import StreamClient
from signaling.turn.net.tls import TlsContext, TlsEnd
from signaling.turn.wire.stun_messages import Address

MAX_CONNECTIONS = 4096
"""Connections of all clients: as many as there may be allocations."""
MAX_STRANGERS, MAX_STRANGERS_OF_NETWORK = 1024, 256
"""Connections without an allocation: of all, and of one network. A whole ministry may be one."""
CONNECTIONS_PER_S, CONNECTIONS_AT_ONCE = 50.0, 1000.0
"""Connections of one network that are served in a second, and at once after a silence: a TLS handshake takes about a
millisecond, in which nobody else's packets pass."""
ACCEPTED_AT_ONCE = 64
"""Connections that are accepted before others have their turn."""
BACKLOG = 512

MakeContext = Callable[[], TlsContext | None]
"""A function that returns what a new connection with TLS begins with; None: there is no certificate."""


class Connections:
    """The connections, and which of them have no allocation."""

    def __init__(self, common: Common, allocations: Allocations) -> None:
        """Begin without any."""
        self.common = common
        self._allocations = allocations
        self._all: set[StreamClient] = set()
        self._strangers = ByNetwork[StreamClient]()
        self._arrivals = NetworkAllowances(CONNECTIONS_PER_S, CONNECTIONS_AT_ONCE)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._all)

    def take(self, connection: socket.socket, client: tuple[str, int], tls: TlsEnd | None) -> None:
        """Serve a connection of which nothing has been read but what `tls` knows, our end of TLS if it has any."""
        address = Address(ipaddress.ip_address(client[0]).packed, client[1])
        if len(self._all) >= MAX_CONNECTIONS or not self._arrivals.take(address.ip, time.monotonic()):
            self.common.dropped["turn_connections"] += 1
            connection.close()
            return
        self._make_room(network_of(client[0]))
        try:
            self._all.add(StreamClient(self.common, self._allocations, connection, address, tls, self))
        except OSError:  # it has ended already
            connection.close()
        except BaseException:
            connection.close()
            raise

    def settled(self, client: StreamClient) -> None:
        """Note that a connection has got an allocation."""
        self._strangers.discard(network_of(client.client.host), client)

    def unsettled(self, client: StreamClient) -> None:
        """Note that a connection has no allocation."""
        self._strangers.add(network_of(client.client.host), client)

    def ended(self, client: StreamClient) -> None:
        """Forget a connection."""
        self._all.discard(client)
        self.settled(client)

    def tick(self, now: float) -> None:
        """Close what is without an allocation for too long. `now` is the monotonic time, in seconds."""
        for client in self._strangers:
            if client.expires <= now:
                client.close("turn_late")
        for client in tuple(self._all):
            client.close_forbidden()

    def _make_room(self, network: str) -> None:
        if self._strangers.count(network) >= MAX_STRANGERS_OF_NETWORK:
            self._strangers.oldest(network).close("turn_connections")
        elif len(self._strangers) >= MAX_STRANGERS:
            self._strangers.oldest_of_most().close("turn_connections")


class Listener:
    """A listening socket."""

    def __init__(self, connections: Connections, listening: socket.socket, make_context: MakeContext | None) -> None:
        """Accept connections on a bound socket, which is ours now. With `make_context` they begin with TLS.

        Raises:
            OSError: another process listens there.
        """
        self._connections = connections
        self._socket = listening
        self._make_context = make_context
        self._rests = False
        listening.setblocking(False)
        listening.listen(BACKLOG)
        connections.common.poller.watch(listening.fileno(), self)

    def ready(self, events: int) -> None:
        """Accept what has come."""
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, peer = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno not in NO_DESCRIPTORS:
                    continue  # the client has gone, or the network between (accept(2))
                self._connections.common.dropped["turn_connections"] += 1
                self._rest(True)
                return
            client = (peer[0].partition("%")[0], peer[1])
            self._connections.common.poller.attempt(partial(self._take, connection, client))

    def tick(self) -> None:
        """Accept again after there were no descriptors."""
        if self._rests:
            self._rest(False)

    def close(self) -> None:
        """Accept nothing more."""
        self._connections.common.poller.forget(self._socket.fileno())
        self._socket.close()

    def _take(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        if self._make_context is None:
            self._connections.take(connection, peer, None)
        elif (context := self._make_context()) is not None:
            self._connections.take(connection, peer, TlsEnd.begin(context))
        else:
            self._connections.common.dropped["turn_tls_failed"] += 1
            connection.close()

    def _rest(self, rests: bool) -> None:
        self._rests = rests
        self._connections.common.poller.change(self._socket.fileno(), 0 if rests else READ)
