"""What a TURN server decides: who may have an allocation, what with, for how long, and what each request is answered.

Who calls it: `clients.py`, with what came from a client; `thread.py`, when time passes and when participants come and
go. There are no sockets here. The protocol is RFC 8656, for a server that relays to its own media and nowhere else.
"""

import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator

from signaling.allowance import Allowance
from signaling.turn.allocation.allowances import NetworkAllowances
from signaling.turn.allocation.authentication import Caller, Gate, Refused
from signaling.turn.allocation.ports import RelayPorts
from signaling.turn.allocation.records import Allocation, Flow, Rules, Sent
from signaling.turn.wire.stun_messages import (
    Address,
    Attribute,
    Kind,
    Malformed,
    Message,
    Method,
    build,
    parse,
    read_xor_address,
    xor_address,
)

DEFAULT_LIFETIME_S, MAX_LIFETIME_S = 600, 3600
"""How long an allocation lives that is not refreshed (RFC 8656 section 7.2)."""
PERMISSION_S, CHANNEL_S = 300.0, 600.0
"""How long a permission and a channel last (RFC 8656 sections 9 and 12)."""
FIRST_CHANNEL, LAST_CHANNEL = 0x4000, 0x7FFF
"""The numbers of channels. RFC 8656 takes no more than the first quarter of them, clients of RFC 5766 all."""
MAX_ALLOCATIONS = 4096
"""Allocations at a time, for 2,000 participants with one each on two peer connections."""
MAX_CHANNELS = 64
"""Channels of one allocation; a client binds one for each address of the server that it checks."""
REQUESTS_PER_S, REQUESTS_AT_ONCE = 20.0, 100.0
"""Requests of one allocation that are answered. Clients send one in a minute, and some ten at the beginning."""
STRANGERS_PER_S, STRANGERS_AT_ONCE = 200.0, 2000.0
"""Requests without an allocation from one address that are answered, and so many again of datagrams that anybody may
have sent in its name. A whole ministry may come from one."""
UDP_PROTOCOL = 17

_FAMILIES = {1: 4, 2: 6}
"""Value of REQUESTED-ADDRESS-FAMILY -> IP version."""


class Allocations:
    """All allocations of this server. `dropped` counts what is not answered, by reason."""

    def __init__(
        self,
        rules: Rules,
        dropped: Counter[str],
        time_of_day: Callable[[], float] = time.time,
    ) -> None:
        """Begin without any.

        Args:
            rules: what they have in common.
            dropped: counts what is not answered.
            time_of_day: returns the seconds since 1970, which the expiry of credentials is compared with.
        """
        self._rules = rules
        self._dropped = dropped
        self._peer_ips = frozenset(peer.ip for peer in rules.peers)
        self._ports = RelayPorts(rules.ports)
        self._strangers = NetworkAllowances(STRANGERS_PER_S, STRANGERS_AT_ONCE)
        self._unproven = NetworkAllowances(STRANGERS_PER_S, STRANGERS_AT_ONCE)
        self._of_holder: dict[str, dict[Allocation, None]] = {}
        """Sid of each participant that is here -> its allocations."""
        self._owners: dict[str, Hashable] = {}
        """The sid of each of them -> whose ports it uses."""
        self._gate = Gate(rules.secret, self._of_holder, time_of_day)
        self._count = 0
        self._handlers = {
            Method.ALLOCATE: self._allocate,
            Method.REFRESH: self._refresh,
            Method.CREATE_PERMISSION: self._permit,
            Method.CHANNEL_BIND: self._bind_channel,
        }

    def __len__(self) -> int:
        """Return how many there are."""
        return self._count

    def __iter__(self) -> Iterator[Allocation]:
        """Yield all, whatever ends meanwhile."""
        yield from [each for held in self._of_holder.values() for each in held]

    def admit(self, holder: str, owner: Hashable) -> None:
        """Let a participant have allocations from now on. `owner` stays the same when it leaves and joins again."""
        self._of_holder.setdefault(holder, {})
        self._owners[holder] = owner

    def expel(self, holder: str, now: float) -> None:
        """End a participant's allocations. It can make no new ones, however long its credentials are good."""
        for allocation in list(self._of_holder.get(holder, ())):
            self.end(allocation, now)
        self._of_holder.pop(holder, None)
        self._owners.pop(holder, None)

    def end(self, allocation: Allocation, now: float) -> None:
        """End one, unless it has ended already."""
        if allocation.flow.allocation is not allocation:
            return
        allocation.flow.allocation = None
        del self._of_holder[allocation.holder][allocation]
        self._count -= 1
        self._ports.give_back(allocation.relayed.port, self._owners[allocation.holder], now)
        allocation.flow.allocation_ended()

    def tick(self, now: float) -> None:
        """End what was not refreshed in time: allocations, permissions, channels."""
        for allocation in self:
            if allocation.expires <= now:
                self.end(allocation, now)
                continue
            for ip in [ip for ip, until in allocation.permissions.items() if until <= now]:
                del allocation.permissions[ip]
            for number in [number for number, until in allocation.channel_expires.items() if until <= now]:
                del allocation.channel_expires[number]
                del allocation.numbers[allocation.channels.pop(number)]

    def may_reach(self, allocation: Allocation, peer: Address) -> bool:
        """Tell whether an allocation's client may send to a peer: it is our media, and there is a permission."""
        return peer.ip in allocation.permissions and peer in self._rules.peers

    def receive(self, flow: Flow, data: bytes, now: float) -> bytes | Sent | None:
        """Take a STUN message of a client: return its answer, what it sends to a peer, or None for neither."""
        try:
            message = parse(data)
        except Malformed:
            self._dropped["turn_malformed"] += 1
            return None
        if message.kind == Kind.INDICATION:
            return self._sent(flow, message)
        if message.kind != Kind.REQUEST:
            self._dropped["turn_malformed"] += 1
            return None
        if not self._may_ask(flow, message, now):
            self._dropped["turn_requests"] += 1
            return None
        if message.method == Method.BINDING:
            return _bound(flow, message)
        return self._answer(flow, data, message, now)

    def _may_ask(self, flow: Flow, message: Message, now: float) -> bool:
        """Tell whether a request is answered. What others may have sent in a client's name uses nothing of its own."""
        if not self._gate.is_proven(flow, message, now):
            return self._unproven.take(flow.client.ip, now)
        if flow.allocation is not None:
            return flow.allocation.requests.take(now)
        return self._strangers.take(flow.client.ip, now)

    def _sent(self, flow: Flow, message: Message) -> Sent | None:
        """Read a Send indication (RFC 8656 section 11.2)."""
        allocation = flow.allocation
        address, data = message.first(Attribute.XOR_PEER_ADDRESS), message.first(Attribute.DATA)
        peer = read_xor_address(address, message.transaction) if address is not None else None
        if message.method == Method.BINDING:
            return None  # keeps a binding of a NAT alive
        if allocation is None or message.method != Method.SEND or peer is None or data is None:
            self._dropped["turn_malformed"] += 1
            return None
        if message.unknown() or not self.may_reach(allocation, peer):
            self._dropped["turn_forbidden"] += 1
            return None
        return Sent(peer, data)

    def _answer(self, flow: Flow, data: bytes, message: Message, now: float) -> bytes | None:
        handler = self._handlers.get(Method(message.method)) if message.method in self._handlers else None
        if handler is None:
            self._dropped["turn_malformed"] += 1
            return None
        try:
            caller = self._gate.check(flow, data, message, now)
        except Refused as refusal:
            if message.integrity_at:
                self._dropped["turn_unauthorized"] += 1
            return _error(message, refusal)
        try:
            _check_known(message)
            return _success(message, *handler(flow, message, caller, now), key=caller.key)
        except Refused as refusal:
            return _error(message, refusal, caller.key)

    def _allocate(self, flow: Flow, message: Message, caller: Caller, now: float) -> list[tuple[int, bytes]]:
        """RFC 8656 section 7.2."""
        allocation = flow.allocation
        if allocation is not None and allocation.transaction != message.transaction:
            raise Refused(437)
        if allocation is None:
            family, lifetime = self._family(message), _lifetime(message)
            allocation = self._make(flow, caller, family, message.transaction, now)
            allocation.expires = now + lifetime
        return [
            (Attribute.XOR_RELAYED_ADDRESS, xor_address(allocation.relayed, message.transaction)),
            (Attribute.XOR_MAPPED_ADDRESS, xor_address(flow.client, message.transaction)),
            (Attribute.LIFETIME, round(allocation.expires - now).to_bytes(4)),
        ]

    def _family(self, message: Message) -> int:
        """Return the IP version that a request for an allocation wants, after what it asks for in vain."""
        transport = message.first(Attribute.REQUESTED_TRANSPORT)
        family = message.first(Attribute.REQUESTED_ADDRESS_FAMILY)
        token, even = message.first(Attribute.RESERVATION_TOKEN), message.first(Attribute.EVEN_PORT)
        if transport is None or len(transport) != 4 or (token is not None and (even is not None or family is not None)):
            raise Refused(400)
        if transport[0] != UDP_PROTOCOL:
            raise Refused(442)
        if token is not None or even is not None:
            raise Refused(508)
        version = _FAMILIES.get(family[0] if family else 0, 0) if family is not None else 4
        if version not in self._rules.relayed:
            raise Refused(440)
        return version

    def _make(self, flow: Flow, caller: Caller, family: int, transaction: bytes, now: float) -> Allocation:
        of_holder, owner = self._of_holder[caller.holder], self._owners[caller.holder]
        if len(of_holder) >= self._rules.quota or not self._ports.may_take(owner, now):
            self._dropped["turn_quota"] += 1
            raise Refused(486)
        port = self._ports.take(owner, now) if self._count < MAX_ALLOCATIONS else None
        if port is None:
            self._dropped["turn_full"] += 1
            raise Refused(508)
        relayed = Address(self._rules.relayed[family], port)
        requests = Allowance(REQUESTS_PER_S, REQUESTS_AT_ONCE, now)
        made = Allocation(flow, caller.holder, caller.username, caller.key, relayed, transaction, now, requests)
        flow.allocation = made
        of_holder[made] = None
        self._count += 1
        return made

    def _refresh(self, flow: Flow, message: Message, caller: Caller, now: float) -> list[tuple[int, bytes]]:
        """RFC 8656 section 8.2."""
        allocation = _own(flow, caller)
        family = message.first(Attribute.REQUESTED_ADDRESS_FAMILY)
        if family is not None and _FAMILIES.get(family[0] if family else 0) != allocation.relayed.family:
            raise Refused(443)
        lifetime = _lifetime(message)
        if lifetime == 0:
            self.end(allocation, now)
        allocation.expires = now + lifetime
        return [(Attribute.LIFETIME, lifetime.to_bytes(4))]

    def _permit(self, flow: Flow, message: Message, caller: Caller, now: float) -> list[tuple[int, bytes]]:
        """RFC 8656 section 10.2, but a list of which some may be reached is no error: clients ask for all at once."""
        allocation = _own(flow, caller)
        peers = [_peer(value, message) for value in message.all(Attribute.XOR_PEER_ADDRESS)]
        if not peers:
            raise Refused(400)
        ours = [peer for peer in peers if peer.family == allocation.relayed.family and peer.ip in self._peer_ips]
        if not ours:
            raise self._foreign(allocation, peers)
        for peer in ours:
            allocation.permissions[peer.ip] = now + PERMISSION_S
        return []

    def _bind_channel(self, flow: Flow, message: Message, caller: Caller, now: float) -> list[tuple[int, bytes]]:
        """RFC 8656 section 12.2."""
        allocation = _own(flow, caller)
        value, address = message.first(Attribute.CHANNEL_NUMBER), message.first(Attribute.XOR_PEER_ADDRESS)
        if value is None or len(value) != 4 or address is None:
            raise Refused(400)
        number, peer = int.from_bytes(value[:2]), _peer(address, message)
        if not FIRST_CHANNEL <= number <= LAST_CHANNEL:
            raise Refused(400)
        if peer.family != allocation.relayed.family or peer not in self._rules.peers:
            raise self._foreign(allocation, [peer])
        if allocation.channels.get(number, peer) != peer or allocation.numbers.get(peer, number) != number:
            raise Refused(400)
        if number not in allocation.channels and len(allocation.channels) >= MAX_CHANNELS:
            raise Refused(508)
        allocation.channels[number] = peer
        allocation.numbers[peer] = number
        allocation.channel_expires[number] = now + CHANNEL_S
        allocation.permissions[peer.ip] = now + PERMISSION_S
        return []

    def _foreign(self, allocation: Allocation, peers: list[Address]) -> Refused:
        """Return the refusal of peers of which none is our media."""
        self._dropped["turn_forbidden"] += 1
        same = any(peer.family == allocation.relayed.family for peer in peers)
        return Refused(403 if same else 443)


def _bound(flow: Flow, message: Message) -> bytes:
    """Answer a Binding request (RFC 8489 section 6.3), which needs no credentials."""
    try:
        _check_known(message)
    except Refused as refusal:
        return _error(message, refusal)
    return _success(message, (Attribute.XOR_MAPPED_ADDRESS, xor_address(flow.client, message.transaction)))


def _check_known(message: Message) -> None:
    if unknown := message.unknown():
        raise Refused(420, (Attribute.UNKNOWN_ATTRIBUTES, b"".join(each.to_bytes(2) for each in unknown)))


def _own(flow: Flow, caller: Caller) -> Allocation:
    if flow.allocation is None:
        raise Refused(437)
    if flow.allocation.username != caller.username:
        raise Refused(441)
    return flow.allocation


def _peer(value: bytes, message: Message) -> Address:
    peer = read_xor_address(value, message.transaction)
    if peer is None:
        raise Refused(400)
    return peer


def _lifetime(message: Message) -> int:
    """Return the seconds that an allocation gets; 0: it is to end."""
    value = message.first(Attribute.LIFETIME)
    if value is None:
        return DEFAULT_LIFETIME_S
    if len(value) != 4:
        raise Refused(400)
    wanted = int.from_bytes(value)
    if wanted == 0 and message.method == Method.REFRESH:
        return 0
    return max(DEFAULT_LIFETIME_S, min(wanted, MAX_LIFETIME_S))


def _success(message: Message, *attributes: tuple[int, bytes], key: bytes | None = None) -> bytes:
    method, fingerprint = Method(message.method), message.has_fingerprint
    return build(method, Kind.SUCCESS, message.transaction, attributes, key=key, fingerprint=fingerprint)


def _error(message: Message, refusal: Refused, key: bytes | None = None) -> bytes:
    method, fingerprint = Method(message.method), message.has_fingerprint
    return build(method, Kind.ERROR, message.transaction, refusal.attributes, key=key, fingerprint=fingerprint)
