"""Who is given TCP candidates only when it comes next, because its connection over UDP failed.

Where UDP does not work at all, clients find that out and use TCP by themselves. This is for networks that let it
through for a while, or in part. Who calls it: participants, when they begin, when a connection fails, when they end.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
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


class Connecting(Protocol):
    """What is used of a participant."""

    joined_at: float
    """In seconds of the clock."""
    active: bool
    only_tcp: bool
    """Whether it was given TCP candidates only."""

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
    _until: OrderedDict[tuple[str, str], float] = field(default_factory=OrderedDict)
    """(room, identity) -> until when it gets TCP candidates only, oldest first."""

    def only_tcp(self, room: str, identity: str) -> bool:
        """Tell whether a client is given TCP candidates only."""
        return self.options.force_tcp or self.clock() < self._until.get((room, identity), 0.0)

    def failed(self, client: Connecting) -> None:
        """Note that a connection of a client failed while its signalling was heard."""
        may = self.options.tcp_fallback and client.client.sdk not in WITHOUT_TCP
        if may and self.clock() - client.joined_at <= SHORT_LIVED_S:
            # If it was no better over TCP alone, it may try everything again.
            self.set(client.room_name, client.identity, only_tcp=not client.only_tcp)

    def ended(self, client: Connecting) -> None:
        """Note that a client leaves. One that was never connected may have tried in vain."""
        if not client.active and self.clock() - client.joined_at >= TRIED_S:
            self.failed(client)

    def set(self, room: str, identity: str, *, only_tcp: bool) -> None:
        """Remember how a client is to connect next."""
        now = self.clock()
        self._until.pop((room, identity), None)
        while self._until and (len(self._until) >= MAX_CLIENTS or next(iter(self._until.values())) <= now):
            self._until.popitem(last=False)
        if only_tcp and self.options.tcp_port:
            self._until[room, identity] = now + KEPT_S
