"""The TURN server of this process, as the rest of signalling has it: who may use it, and what clients are told of it.

Who calls it: `http/turn_sockets.py` starts it and gives it connections; participants say who is here. Clients are
served in a thread of their own (`thread.py`).
"""

import hashlib
import hmac
import ipaddress
import socket
import sys
import time
from asyncio import AbstractEventLoop, get_running_loop
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Protocol

from livekit.protocol.rtc import ICEServer

from signaling import identifiers
from signaling.config.ice_servers import parse_host
from signaling.config.ports import free_relay_ports
from signaling.config.turn_options import TurnOptions
from signaling.turn.allocation.credentials import make_credentials
from signaling.turn.allocation.records import Rules
from signaling.turn.net.connections import MakeContext
from signaling.turn.net.tls import TlsEnd
from signaling.turn.thread import Sockets, TurnThread
from signaling.turn.wire.stun_messages import Address

SWITCH_S = 0.001
"""How long the interpreter lets one thread go on while another waits for it; Python's own 5 ms are too long here. The
TURN thread gives way at each read and each write, and would wait as long for a busy control thread each time."""
GUEST_S = 60.0
"""How long a client of WHIP or WHEP may have allocations before it joins."""
MAX_GUESTS, MAX_GUESTS_OF_OWNER = 1024, 32
"""Such clients at a time, of all and of one API key and identity; beyond it the oldest are forgotten. A token without a
room is good for any number of them."""
COUNTERS = (
    "turn_backed_up",
    "turn_connections",
    "turn_early",
    "turn_forbidden",
    "turn_full",
    "turn_late",
    "turn_malformed",
    "turn_paths",
    "turn_quota",
    "turn_requests",
    "turn_tls_failed",
    "turn_unauthorized",
    "turn_unread",
    "turn_unsent",
)
"""All that the thread counts. None is added while the control thread reads them."""

Owner = tuple[str, str]
"""The API key and the identity of a client, whose ports and allocations are counted together in all rooms."""


class Engine(Protocol):
    """The part of `sfu.engine.Engine` that this file uses."""

    def media_addresses(self) -> tuple[tuple[str, int], ...]:
        """Return the addresses and UDP ports that clients are told."""

    def take_connection(
        self, connection: socket.socket, client: str = "", peer: tuple[str, int] | None = None, protocol: str = "tcp"
    ) -> None:
        """Own a stream of frames that seems to come from `peer` and is counted under `client`."""


class TurnService:
    """The TURN server, which may be off."""

    def __init__(self, options: TurnOptions, api_secret: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        """Serve nobody until `start`.

        Args:
            options: the operator's.
            api_secret: the secret of an API key, from which the key of passwords is derived.
            clock: returns the seconds of a clock that only goes forward.
        """
        self.options = options
        self._secret = hmac.digest(api_secret.encode(), b"passwords of TURN", hashlib.sha256).hex()
        self._clock = clock
        self._dropped: Counter[str] = Counter(dict.fromkeys(COUNTERS if options.enabled else (), 0))
        self._thread: TurnThread | None = None
        self._switch_s = 0.0
        """What `SWITCH_S` takes the place of."""
        self._urls: tuple[str, ...] = ()
        self._guests: OrderedDict[tuple[str, Owner], tuple[float, str]] = OrderedDict()
        """(Room, owner) of a client that has not joined -> until when it is waited for, and its sid."""
        self._adopted: dict[str, str] = {}
        """Sid of a participant -> the one that it had before it joined."""

    @property
    def is_told(self) -> bool:
        """Whether clients are told of it."""
        return bool(self._urls)

    def start(self, engine: Engine, sockets: Sockets, make_context: MakeContext) -> None:
        """Serve clients from now on, in the running event loop. The engine has started.

        Args:
            engine: whose media is relayed.
            sockets: bound ones, which belong to the service now.
            make_context: returns what a connection with TLS begins with; called in another thread.

        Raises:
            OSError: another process listens there.
        """
        loop = get_running_loop()
        media = [Address(ipaddress.ip_address(host).packed, port) for host, port in engine.media_addresses()]
        relayed = {address.family: address.ip for address in reversed(media)}
        ports = free_relay_ports(self.options, [address.port for address in media])
        rules = Rules(self._secret, frozenset(media), relayed, ports, self.options.quota)

        def hand_over(connection: socket.socket, client: Address, seen: Address, way: str) -> None:
            _hand_over(loop, engine, connection, client, seen, way)

        self._thread = TurnThread(rules, hand_over, self._dropped, make_context)
        self._urls = told_urls(self.options, relayed, sockets)
        self._thread.start(sockets)
        self._switch_s = sys.getswitchinterval()
        sys.setswitchinterval(min(SWITCH_S, self._switch_s))

    def stop(self) -> None:
        """Serve nobody any more."""
        self._urls = ()
        if self._thread is not None:
            self._thread.stop()
            self._thread = None
        if self._switch_s:
            sys.setswitchinterval(self._switch_s)
            self._switch_s = 0.0

    def take(self, connection: socket.socket, client: tuple[str, int], tls: TlsEnd | None = None) -> bool:
        """Serve a connection of which nothing has been read, or go on with its TLS, which nobody else uses any more.

        Returns False, and leaves it, if there is no TURN server.
        """
        if self._thread is None:
            return False
        self._thread.take(connection, client, tls)
        return True

    def admit(self, sid: str, room: str, owner: Owner) -> None:
        """Let a participant have allocations, and keep those that it made before it joined this room."""
        if self._thread is None:
            return
        self._thread.admit(sid, owner)
        guest = self._guests.pop((room, owner), None)
        if guest is not None:
            self._adopted[sid] = guest[1]

    def expel(self, sid: str) -> None:
        """End the allocations of a participant that has left."""
        if self._thread is None:
            return
        self._thread.expel(sid)
        if (guest := self._adopted.pop(sid, "")) != "":
            self._thread.expel(guest)

    def guest(self, room: str, owner: Owner) -> str:
        """Return a sid with which a client may have allocations before it joins a room."""
        now = self._clock()
        self._forget_guests(now)
        sid = self._guests.pop((room, owner), (0.0, ""))[1] or identifiers.participant_sid()
        others = [guest for guest in self._guests if guest[1] == owner]
        if len(others) >= MAX_GUESTS_OF_OWNER:
            self._forget(others[0])
        self._guests[room, owner] = (now + GUEST_S, sid)
        if self._thread is not None:
            self._thread.admit(sid, owner)
        return sid

    def ice_servers(self, sid: str, now: float) -> list[ICEServer]:
        """Return what the participant with this sid is told of the server. `now` is the time of day, in seconds."""
        if not self._urls:
            return []
        made = make_credentials(self._secret, sid, self.options.ttl_s, now)
        return [ICEServer(urls=self._urls, username=made.username, credential=made.password)]

    def tick(self) -> None:
        """End the allocations of those who did not join in time."""
        self._forget_guests(self._clock())

    def drops(self) -> Mapping[str, int]:
        """Return what was refused since the start, by reason."""
        return dict(self._dropped)

    def _forget_guests(self, now: float) -> None:
        while self._guests:
            guest, (until, _) = next(iter(self._guests.items()))
            if until > now and len(self._guests) < MAX_GUESTS:
                return
            self._forget(guest)

    def _forget(self, guest: tuple[str, Owner]) -> None:
        _, sid = self._guests.pop(guest)
        if self._thread is not None:
            self._thread.expel(sid)


def told_urls(options: TurnOptions, relayed: Mapping[int, bytes], sockets: Sockets) -> tuple[str, ...]:
    """Return the URLs of the server (RFC 7065): first what costs least on the way.

    Args:
        options: the operator's.
        relayed: IP version -> the address under which clients find this server.
        sockets: where the server listens itself.
    """
    hosts = {family: parse_host(ipaddress.ip_address(ip)) for family, ip in sorted(relayed.items())}
    udp, tcp = ({4 if each.family == socket.AF_INET else 6 for each in group} for group in (sockets.udp, sockets.tcp))
    urls = [f"turn:{hosts[each]}:{options.udp_port}?transport=udp" for each in hosts if each in udp]
    if options.tcp_port:
        # A port that is shared with HTTP has no socket of its own, and is reached where HTTP is.
        families = tcp or set(hosts)
        port = options.advertised_tcp_port
        urls += [f"turn:{hosts[each]}:{port}?transport=tcp" for each in hosts if each in families]
    if options.tls_port:
        urls.append(f"turns:{parse_host(options.domain)}:{options.advertised_tls_port}?transport=tcp")
    return tuple(urls)


def _hand_over(
    loop: AbstractEventLoop, engine: Engine, connection: socket.socket, client: Address, seen: Address, way: str
) -> None:
    """Give the engine a connection; called in the TURN thread."""
    try:
        loop.call_soon_threadsafe(engine.take_connection, connection, client.host, (seen.host, seen.port), way)
    except RuntimeError:  # the server stops
        connection.close()
