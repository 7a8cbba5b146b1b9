"""How a client is to connect when it comes next, because its connection failed: over TCP alone, then through a relay.

Where UDP does not work at all, clients find that out and use TCP by themselves. This is for networks that let it
through for a while, or in part. Who calls it: participants, when they begin, when a connection fails, when they end.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from livekit.protocol.models import ClientInfo

from signaling.config.ice_options import IceOptions

KEPT_S = 300.0
"""UDP is tried again after so long, as by livekit-server."""
SHORT_LIVED_S = 90.0
"""A connection that failed within this time had little of UDP; one that lasted longer failed for another reason."""
TRIED_S = 10.0
"""A client that leaves later than this without ever having been connected has tried; SDKs give up after 15 s."""
MAX_CLIENTS = 10_000
"""Clients that are remembered; beyond it the oldest are forgotten."""
WITHOUT_TCP = frozenset({ClientInfo.GO})
"""pion does not connect to TCP candidates."""


class Way(IntEnum):
    """How a client connects."""

    ANY = 0
    """A client is given all candidates, and chooses."""
    TCP = 1
    """A client is given TCP candidates only."""
    RELAY = 2
    """A client is told to use nothing but TURN."""


class Connecting(Protocol):
    """What is used of a participant."""

    joined_at: float
    """In seconds of the clock."""
    active: bool
    way: Way
    """How it was told to connect."""

    @property
    def identity(self) -> str:
        """The identity in its token."""

    @property
    def room_name(self) -> str:
        """The name of its room."""

    @property
    def client(self) -> ClientInfo:
        """The SDK of its client."""


@dataclass(slots=True)
class Fallbacks:
    """What is remembered of each room and identity."""

    options: IceOptions
    clock: Callable[[], float]
    has_relay: Callable[[], bool]
    """Tells whether clients are told of a TURN server."""
    _ways: OrderedDict[tuple[str, str], tuple[float, Way]] = field(default_factory=OrderedDict)
    """(room, identity) -> until when it is remembered, and how the client is to connect, oldest first."""

    def way(self, room: str, identity: str) -> Way:
        """Return how a client is to connect."""
        until, way = self._ways.get((room, identity), (0.0, Way.ANY))
        if self.clock() >= until or (way is Way.RELAY and not self.has_relay()):
            way = Way.ANY
        return Way.TCP if self.options.force_tcp else way

    def failed(self, client: Connecting) -> None:
        """Note that a connection of a client failed while its signalling was heard."""
        if self.clock() - client.joined_at <= SHORT_LIVED_S:
            self.set(client.room_name, client.identity, self._after(client))

    def ended(self, client: Connecting) -> None:
        """Note that a client leaves. One that was never connected may have tried in vain."""
        if not client.active and self.clock() - client.joined_at >= TRIED_S:
            self.failed(client)

    def set(self, room: str, identity: str, way: Way) -> None:
        """Remember how a client is to connect next. What this server does not have is not tried."""
        now = self.clock()
        self._ways.pop((room, identity), None)
        while self._ways and (len(self._ways) >= MAX_CLIENTS or next(iter(self._ways.values()))[0] <= now):
            self._ways.popitem(last=False)
        if (way is Way.TCP and self.options.tcp_port) or (way is Way.RELAY and self.has_relay()):
            self._ways[room, identity] = now + KEPT_S, way

    def _after(self, client: Connecting) -> Way:
        """Return what to try after the way that failed. If nothing was better, the client may try everything again."""
        if self.options.force_tcp:
            return Way.ANY  # there are no UDP candidates, and browsers pair a relay with those alone
        tcp = self.options.tcp_fallback and self.options.tcp_port and client.client.sdk not in WITHOUT_TCP
        if client.way is Way.ANY and tcp:
            return Way.TCP
        return Way.RELAY if client.way is not Way.RELAY and self.has_relay() else Way.ANY
