"""Accepts TCP connections, and keeps those that have not told yet what they speak within bounds.

Who calls it: `listener.py`, once for each server of HTTP. `arrivals.py` decides where each connection goes.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Sequence

import structlog

from sfu.sockets import NO_DESCRIPTORS
from signaling.config.values import IpNetwork
from signaling.http.arrivals import Arrival, Services
from signaling.http.first_bytes import Address
from signaling.networks import ByNetwork, network_of

BACKLOG = 2048
"""Connections that the kernel keeps until they are accepted, as uvicorn has it."""
ACCEPTED_AT_ONCE = 64
"""Connections that are accepted in one go, before others have their turn."""
MAX_ARRIVALS = 1024
"""Connections of which it is not known yet what they speak. One more, and the address with the most of them loses its
oldest."""
MAX_REFUSED = 1024
"""Connections beyond `MAX_CONNECTIONS` that may ask and are answered 503. Any more are closed at once."""
PAUSE_S = 0.5
"""How long nothing is accepted when the system has no descriptor left for it."""
WARN_S = 60.0
"""Time between two lines of the log about that."""

log = structlog.get_logger("signaling.http")


class Acceptor:
    """Listening sockets with what came in and has not been recognized. It has the face of an `asyncio.Server`."""

    def __init__(
        self,
        services: Services,
        connections: Callable[[], int],
        max_connections: int,
        make_room: Callable[[], None],
        trusted: Sequence[IpNetwork] = (),
    ) -> None:
        """Nothing is accepted before `listen`.

        Args:
            services: what connections may go on to.
            connections: returns the number of those that were recognized and are open.
            max_connections: how many of them there may be before they are refused.
            make_room: closes some of them that have not shown yet what they want, if there are so many.
            trusted: where proxies are whose connections begin with a PROXY header.
        """
        self._services = services
        self._connections = connections
        self._full = max_connections
        self._most = max_connections + MAX_REFUSED
        self._make_room = make_room
        self._trusted = tuple(trusted)
        self._sockets: list[socket.socket] = []
        self._waiting = ByNetwork[Arrival]()
        self._pause: asyncio.TimerHandle | None = None
        self._warned_at: float | None = None
        self._loop = asyncio.get_running_loop()

    def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections on bound sockets. They still belong to the caller.

        Raises:
            OSError: another process listens there.
        """
        for each in sockets:
            each.setblocking(False)
            each.listen(BACKLOG)
        self._sockets = list(sockets)
        self._watch()

    def close(self) -> None:
        """Accept nothing more, and close what has not told yet what it speaks."""
        self._unwatch()
        self._sockets = []
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        for arrival in self._waiting:
            arrival.drop()

    async def wait_closed(self) -> None:
        """Return at once: `close` has ended everything."""

    def _watch(self) -> None:
        self._pause = None
        for each in self._sockets:
            self._loop.add_reader(each, self._accept, each)

    def _unwatch(self) -> None:
        for each in self._sockets:
            self._loop.remove_reader(each)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, peer = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if error.errno in NO_DESCRIPTORS:
                    self._rest(error)
                    return
                continue  # the client has gone, or the network between (accept(2))
            connection.setblocking(False)
            self._take(connection, _plain(peer))

    def _take(self, connection: socket.socket, peer: Address) -> None:
        if len(self._waiting) + self._connections() + 1 >= self._full:
            self._make_room()
        if len(self._waiting) + self._connections() >= self._most:
            self._services.dropped["connections_full"] += 1
            connection.close()
            return
        if len(self._waiting) >= MAX_ARRIVALS:
            self._waiting.oldest_of_most().drop("arrivals_full")
        arrival = Arrival(connection, peer, self._is_trusted(peer[0]), self._services, self._forget)
        self._waiting.add(network_of(peer[0]), arrival)
        arrival.begin()

    def _forget(self, arrival: Arrival) -> None:
        self._waiting.discard(network_of(arrival.peer[0]), arrival)

    def _is_trusted(self, host: str) -> bool:
        if not self._trusted:
            return False
        address = ipaddress.ip_address(host)
        return any(address in network for network in self._trusted)

    def _rest(self, error: OSError) -> None:
        """Stop accepting for a moment: connections wait in the kernel until others have ended."""
        self._services.dropped["accept_failed"] += 1
        now = self._loop.time()
        if self._warned_at is None or now - self._warned_at >= WARN_S:
            self._warned_at = now
            log.warning("connections have to wait", why=error.strerror)
        self._make_room()  # where descriptors are fewer than connections may be
        self._unwatch()
        self._pause = self._loop.call_later(PAUSE_S, self._watch)


def _plain(peer: tuple[object, ...]) -> Address:
    """Return address and port of a peer without the scope of an IPv6 address."""
    host, port = str(peer[0]), peer[1]
    assert isinstance(port, int)
    return host.partition("%")[0], port
