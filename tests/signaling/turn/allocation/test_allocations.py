"""signaling/turn/allocation/allocations.py: what each request is answered, and what nobody answers."""

from collections import Counter
from collections.abc import Callable

import pytest

from signaling.turn.allocation import allocations as module
from signaling.turn.allocation import ports as ports_module
from signaling.turn.allocation.allocations import (
    CHANNEL_S,
    DEFAULT_LIFETIME_S,
    FIRST_CHANNEL,
    LAST_CHANNEL,
    MAX_LIFETIME_S,
    PERMISSION_S,
    Allocations,
)
from signaling.turn.allocation.credentials import Credentials, make_credentials, password_of
from signaling.turn.allocation.nonces import LIFETIME_S
from signaling.turn.allocation.records import Flow, Rules, Sent
from signaling.turn.wire.stun_messages import Address, Attribute, Kind, Message, Method, build, has_integrity, parse
from tests.signaling.support.turn_client import (
    SECRET,
    TurnClient,
    address_of,
    allocate,
    code,
    peer_request,
    send_indication,
    transaction,
)

V4, V6 = bytes((192, 0, 2, 1)), bytes.fromhex("20010db8000000000000000000000001")
MEDIA, MEDIA2, MEDIA6 = Address(V4, 7882), Address(V4, 7883), Address(V6, 7882)
RULES = Rules(SECRET, frozenset((MEDIA, MEDIA2, MEDIA6)), {4: V4, 6: V6}, range(30_000, 30_100), 12)
CLIENT = Address(bytes((198, 51, 100, 7)), 4711)
LIFETIME, FAMILY = Attribute.LIFETIME, Attribute.REQUESTED_ADDRESS_FAMILY
FOREIGN = {
    "another address": Address(bytes((192, 0, 2, 2)), 7882),
    "loopback": Address(bytes((127, 0, 0, 1)), 7882),
    "any": Address(bytes(4), 7882),
    "metadata": Address(bytes((169, 254, 169, 254)), 80),
}
MAPPED = Address(bytes(10) + b"\xff\xff" + V4, 7882)


class CountedFlow(Flow):
    """A flow that counts how many allocations of it ended."""

    ended = 0

    def allocation_ended(self) -> None:
        self.ended += 1


class Node:
    """Allocations with a clock that is set by hand, and one flow of a client."""

    def __init__(self, rules: Rules = RULES) -> None:
        self.now = 5000.0
        self.time_of_day = 1000.0
        self.dropped: Counter[str] = Counter()
        self.allocations = Allocations(rules, self.dropped, lambda: self.time_of_day)
        self.allocations.admit("PA_ann", "ann")
        self.flow = CountedFlow(CLIENT)
        self.client = TurnClient()

    def receive(self, data: bytes, flow: Flow | None = None) -> bytes | Sent | None:
        return self.allocations.receive(flow or self.flow, data, self.now)

    def ask(self, data: bytes, flow: Flow | None = None) -> Message:
        answer = self.receive(data, flow)
        assert isinstance(answer, bytes)
        return self.client.heard(answer)

    def request(self, method: Method, *attributes: tuple[int, bytes], flow: Flow | None = None) -> Message:
        return self.ask(self.client.request(method, *attributes), flow)

    def get_nonce(self, flow: Flow | None = None) -> None:
        assert code(self.ask(self.client.unsigned(Method.ALLOCATE, *allocate()), flow)) == 401

    def allocate(self, *extra: tuple[int, bytes], flow: Flow | None = None) -> Message:
        self.get_nonce(flow)
        return self.request(Method.ALLOCATE, *allocate(*extra), flow=flow)

    def peers(self, method: Method, *peers: Address, channel: int | None = None) -> int:
        return code(self.ask(peer_request(self.client, method, *peers, channel=channel)))

    def sent(self, peer: Address, data: bytes = b"packet") -> bytes | Sent | None:
        return self.receive(send_indication(peer, data))


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def allocated(node: Node) -> Node:
    assert code(node.allocate()) == 0
    return node


def test_a_binding_request_is_told_where_it_came_from(node: Node) -> None:
    answer = node.ask(node.client.unsigned(Method.BINDING, fingerprint=True))
    assert address_of(answer, Attribute.XOR_MAPPED_ADDRESS) == CLIENT
    assert answer.has_fingerprint


def test_an_allocation_is_an_address_of_ours_with_a_port_of_the_range(node: Node) -> None:
    answer = node.allocate()
    assert answer.kind == Kind.SUCCESS
    relayed = address_of(answer, Attribute.XOR_RELAYED_ADDRESS)
    assert relayed is not None
    assert relayed.ip == V4
    assert relayed.port in RULES.ports
    assert address_of(answer, Attribute.XOR_MAPPED_ADDRESS) == CLIENT
    assert answer.first(LIFETIME) == DEFAULT_LIFETIME_S.to_bytes(4)


def test_answers_to_who_is_known_are_signed_and_a_challenge_is_short(node: Node) -> None:
    request = node.client.unsigned(Method.ALLOCATE, *allocate())
    challenge = node.receive(request)
    assert isinstance(challenge, bytes)
    assert len(challenge) <= 64  # twice a request with the headers of IP and UDP: nothing to flood others with
    node.client.heard(challenge)
    for asked in (node.client.request(Method.ALLOCATE, *allocate()), node.client.request(Method.ALLOCATE)):
        answer = node.receive(asked)
        assert isinstance(answer, bytes)
        assert has_integrity(answer, parse(answer), node.client.key())


def test_a_request_that_comes_twice_is_answered_twice(node: Node) -> None:
    node.get_nonce()
    request = node.client.request(Method.ALLOCATE, *allocate())
    first, second = node.ask(request), node.ask(request)
    assert first.attributes == second.attributes
    assert len(node.allocations) == 1
    assert code(node.request(Method.ALLOCATE, *allocate())) == 437


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ((), 400),
        (((Attribute.REQUESTED_TRANSPORT, b"\x11"),), 400),
        (((Attribute.REQUESTED_TRANSPORT, bytes((6, 0, 0, 0))),), 442),
        (allocate((Attribute.EVEN_PORT, b"\x80")), 508),
        (allocate((Attribute.RESERVATION_TOKEN, bytes(8))), 508),
        (allocate((Attribute.RESERVATION_TOKEN, bytes(8)), (Attribute.EVEN_PORT, b"\0")), 400),
        (allocate((Attribute.RESERVATION_TOKEN, bytes(8)), (FAMILY, b"\1\0\0\0")), 400),
        (allocate((FAMILY, b"\3\0\0\0")), 440),
        (allocate((FAMILY, b"")), 440),
        (allocate((LIFETIME, b"\0")), 400),
        (allocate((0x7FFE, b"")), 420),
        (allocate((Attribute.DONT_FRAGMENT, b""), (0x8001, b"optional")), 0),
        (allocate((FAMILY, b"\2\0\0\0")), 0),
        (allocate((FAMILY, b"\1\0\0\0")), 0),
    ],
)
def test_what_an_allocation_may_ask_for(node: Node, attributes: tuple[tuple[int, bytes], ...], expected: int) -> None:
    node.get_nonce()
    answer = node.request(Method.ALLOCATE, *attributes)
    assert code(answer) == expected
    assert len(node.allocations) == (expected == 0)
    assert answer.first(Attribute.UNKNOWN_ATTRIBUTES) == (b"\x7f\xfe" if expected == 420 else None)


def test_a_family_that_the_server_lacks() -> None:
    node = Node(Rules(SECRET, frozenset((MEDIA6,)), {6: V6}, RULES.ports, 12))
    assert code(node.allocate()) == 440
    answer = node.request(Method.ALLOCATE, *allocate((FAMILY, b"\2\0\0\0")))
    relayed = address_of(answer, Attribute.XOR_RELAYED_ADDRESS)
    assert relayed is not None
    assert relayed.ip == V6


@pytest.mark.parametrize(
    ("asked", "granted"), [(None, DEFAULT_LIFETIME_S), (1, DEFAULT_LIFETIME_S), (777, 777), (2**31, MAX_LIFETIME_S)]
)
def test_lifetimes_are_bounded(node: Node, asked: int | None, granted: int) -> None:
    wanted = () if asked is None else ((LIFETIME, asked.to_bytes(4)),)
    for answer in (node.allocate(*wanted), node.request(Method.REFRESH, *wanted)):
        assert answer.first(LIFETIME) == granted.to_bytes(4)
    node.now += granted - 1
    node.allocations.tick(node.now)
    assert len(node.allocations) == 1
    node.now += 1
    node.allocations.tick(node.now)
    assert len(node.allocations) == 0
    assert node.flow.allocation is None
    assert node.flow.ended == 1


def test_an_allocation_that_is_given_up_ends_at_once(allocated: Node) -> None:
    assert allocated.request(Method.REFRESH, (LIFETIME, bytes(4))).first(LIFETIME) == bytes(4)
    assert len(allocated.allocations) == 0
    assert allocated.flow.ended == 1
    assert code(allocated.request(Method.REFRESH)) == 437
    assert code(allocated.request(Method.REFRESH, (LIFETIME, bytes(4)))) == 437


def _no_integrity(client: TurnClient) -> bytes:
    return client.unsigned(Method.REFRESH)


def _without(kind: Attribute) -> Callable[[TurnClient], bytes]:
    def make(client: TurnClient) -> bytes:
        signed = {
            Attribute.USERNAME: client.credentials.username.encode(),
            Attribute.REALM: b"livekit",
            Attribute.NONCE: client.nonce,
        }
        del signed[kind]
        return build(Method.REFRESH, Kind.REQUEST, transaction(), signed.items(), key=client.key())

    return make


def _as(credentials: Credentials, realm: str = "livekit") -> Callable[[TurnClient], bytes]:
    def make(client: TurnClient) -> bytes:
        return TurnClient(credentials, client.nonce, realm).request(Method.ALLOCATE, *allocate())

    return make


def _named(username: str) -> Callable[[TurnClient], bytes]:
    return _as(Credentials(username, password_of(SECRET, username)))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (_no_integrity, 401),
        (_without(Attribute.USERNAME), 400),
        (_without(Attribute.REALM), 400),
        (_without(Attribute.NONCE), 400),
        (_as(make_credentials("another secret", "PA_ann", 300, 1000.0)), 401),
        (_as(make_credentials(SECRET, "PA_nobody", 300, 1000.0)), 401),
        (_as(make_credentials(SECRET, "PA_ann", 300, 699.0)), 401),
        (_as(make_credentials(SECRET, "PA_ann", 300, 1000.0), "another.realm"), 401),
        (_named("PA_ann"), 401),
        (_named(":PA_ann"), 401),
        (_named("1300:"), 401),
        (_named("-1300:PA_ann"), 401),
        (_named(f"{'9' * 13}:PA_ann"), 401),
        (_named("1300:" + "x" * 200), 401),
        (_named("\u0661\u0662\u0663\u0664:PA_ann"), 401),
        (_as(make_credentials(SECRET, "PA_ann", 300, 1000.0)), 0),
    ],
)
def test_credentials(node: Node, make: Callable[[TurnClient], bytes], expected: int) -> None:
    node.get_nonce()
    answer = node.ask(make(node.client))
    assert code(answer) == expected
    assert len(node.allocations) == (expected == 0)
    assert (answer.first(Attribute.NONCE) is not None) == (expected == 401)


def test_a_username_that_is_no_text(node: Node) -> None:
    node.get_nonce()
    signed = ((Attribute.USERNAME, b"\xff\xfe"), (Attribute.REALM, b"livekit"), (Attribute.NONCE, node.client.nonce))
    assert code(node.ask(build(Method.REFRESH, Kind.REQUEST, transaction(), signed, key=b"key"))) == 401


def test_a_nonce_is_good_for_an_hour_and_for_its_address(node: Node) -> None:
    assert code(node.allocate()) == 0
    node.now += LIFETIME_S - 1
    assert code(node.request(Method.REFRESH)) == 0
    node.now += 1
    stale = node.client.nonce
    assert code(node.request(Method.REFRESH)) == 438
    assert node.client.nonce != stale
    assert code(node.request(Method.REFRESH)) == 0
    elsewhere = Flow(Address(bytes((198, 51, 100, 8)), 4711))
    assert code(node.request(Method.ALLOCATE, *allocate(), flow=elsewhere)) == 438
    for forged in (b"", b"!" * 16, bytes(16), b"A" * 16, b"A" * 3):
        node.client.nonce = forged
        assert code(node.request(Method.REFRESH)) == 438


def test_the_expiry_of_credentials_concerns_new_allocations_alone(allocated: Node) -> None:
    allocated.time_of_day += 10_000
    assert code(allocated.request(Method.REFRESH)) == 0
    assert allocated.peers(Method.CREATE_PERMISSION, MEDIA) == 0
    assert code(allocated.request(Method.ALLOCATE, *allocate(), flow=Flow(CLIENT))) == 401


def test_an_allocation_is_its_own_users(allocated: Node) -> None:
    allocated.allocations.admit("PA_eve", "eve")
    eve = TurnClient(make_credentials(SECRET, "PA_eve", 300, 1000.0), allocated.client.nonce)
    assert code(allocated.ask(eve.request(Method.REFRESH, (LIFETIME, bytes(4))))) == 441
    assert allocated.flow.allocation is not None


def test_allocations_end_with_their_participant_and_no_new_ones_are_made(allocated: Node) -> None:
    allocated.allocations.expel("PA_ann", allocated.now)
    assert allocated.flow.ended == 1
    assert len(allocated.allocations) == 0
    assert code(allocated.request(Method.REFRESH)) == 401
    assert code(allocated.request(Method.ALLOCATE, *allocate())) == 401
    allocated.allocations.expel("PA_ann", allocated.now)


def test_a_participant_has_a_quota(node: Node) -> None:
    for port in range(RULES.quota):
        assert code(node.allocate(flow=Flow(Address(CLIENT.ip, port)))) == 0
    assert code(node.allocate()) == 486
    node.allocations.admit("PA_bob", "bob")
    node.client = TurnClient(make_credentials(SECRET, "PA_bob", 300, 1000.0))
    assert code(node.allocate()) == 0
    assert node.dropped == {"turn_quota": 1}


@pytest.mark.parametrize("joins", [False, True])
@pytest.mark.parametrize(("most", "ports"), [(5, 100), (100, 20)])
def test_who_allocates_or_joins_again_and_again_does_not_use_up_the_ports(
    monkeypatch: pytest.MonkeyPatch, joins: bool, most: int, ports: int
) -> None:
    monkeypatch.setattr(ports_module, "MAX_OF_OWNER", most)
    node = Node(Rules(SECRET, RULES.peers, RULES.relayed, range(30_000, 30_000 + ports), 12))

    def join_again(number: int) -> None:
        node.allocations.expel(f"PA_{number - 1}", node.now)
        node.allocations.admit(f"PA_{number}", "eve")
        node.client = TurnClient(make_credentials(SECRET, f"PA_{number}", 300, 1000.0))

    join_again(0)
    for number in range(1, 6):
        assert code(node.allocate()) == 0
        if joins:
            join_again(number)
        else:
            assert code(node.request(Method.REFRESH, (LIFETIME, bytes(4)))) == 0
    assert code(node.allocate()) == 486
    eve, node.client = node.client, TurnClient()
    assert code(node.allocate(flow=Flow(Address(CLIENT.ip, 1)))) == 0
    node.client, node.now = eve, node.now + ports_module.REST_S
    assert code(node.allocate()) == 0


def test_a_port_rests_and_is_given_to_one_allocation_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports_module.RelayPorts, "may_take", lambda *arguments: True)
    node = Node(Rules(SECRET, RULES.peers, RULES.relayed, range(30_000, 30_002), 12))
    flows = [Flow(Address(CLIENT.ip, port)) for port in (1, 2, 3)]
    used = {address_of(node.allocate(flow=flow), Attribute.XOR_RELAYED_ADDRESS) for flow in flows[:2]}
    assert used == {Address(V4, 30_000), Address(V4, 30_001)}
    assert code(node.allocate(flow=flows[2])) == 508
    assert code(node.request(Method.REFRESH, (LIFETIME, bytes(4)), flow=flows[0])) == 0
    assert code(node.allocate(flow=flows[2])) == 508
    node.now += ports_module.REST_S
    assert code(node.allocate(flow=flows[2])) == 0


def test_allocations_are_bounded_in_all(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ALLOCATIONS", 1)
    assert code(node.allocate()) == 0
    assert code(node.allocate(flow=Flow(Address(CLIENT.ip, 1)))) == 508
    assert node.dropped == {"turn_full": 1}


@pytest.mark.parametrize("foreign", FOREIGN.values(), ids=FOREIGN)
def test_nothing_but_our_media_is_a_peer(allocated: Node, foreign: Address) -> None:
    assert allocated.peers(Method.CREATE_PERMISSION, foreign) == 403
    assert allocated.peers(Method.CHANNEL_BIND, foreign, channel=FIRST_CHANNEL) == 403
    assert allocated.sent(foreign) is None
    # A list of which one is ours permits that one.
    assert allocated.peers(Method.CREATE_PERMISSION, foreign, MEDIA, MAPPED) == 0
    assert allocated.sent(foreign) is None
    assert allocated.sent(MEDIA) == Sent(MEDIA, b"packet")


def test_another_port_of_our_address_is_no_peer(allocated: Node) -> None:
    ssh = Address(V4, 22)
    assert allocated.peers(Method.CREATE_PERMISSION, ssh) == 0  # a permission is for an address
    assert allocated.peers(Method.CHANNEL_BIND, ssh, channel=FIRST_CHANNEL) == 403
    assert allocated.sent(ssh) is None
    assert allocated.sent(MEDIA2) == Sent(MEDIA2, b"packet")
    assert allocated.dropped == {"turn_forbidden": 2}


def test_a_peer_of_the_other_family(node: Node) -> None:
    assert code(node.allocate()) == 0
    for other in (MEDIA6, MAPPED):
        assert node.peers(Method.CREATE_PERMISSION, other) == 443
        assert node.peers(Method.CHANNEL_BIND, other, channel=FIRST_CHANNEL) == 443
    assert code(node.request(Method.REFRESH, (FAMILY, b"\2\0\0\0"))) == 443
    six = Flow(Address(CLIENT.ip, 1))
    assert code(node.allocate((FAMILY, b"\2\0\0\0"), flow=six)) == 0
    assert code(node.ask(peer_request(node.client, Method.CREATE_PERMISSION, MAPPED), six)) == 403
    assert code(node.ask(peer_request(node.client, Method.CREATE_PERMISSION, MEDIA6), six)) == 0


def test_requests_about_peers_that_make_no_sense(allocated: Node) -> None:
    client = allocated.client
    bad_peer, number = (Attribute.XOR_PEER_ADDRESS, bytes(3)), (Attribute.CHANNEL_NUMBER, b"\x40\0\0\0")
    for request in (
        client.request(Method.CREATE_PERMISSION),
        client.request(Method.CREATE_PERMISSION, bad_peer),
        client.request(Method.CHANNEL_BIND, number),
        client.request(Method.CHANNEL_BIND, number, bad_peer),
        client.request(Method.CHANNEL_BIND, (Attribute.CHANNEL_NUMBER, b"\x40\0"), bad_peer),
        peer_request(client, Method.CHANNEL_BIND, MEDIA),
        peer_request(client, Method.CHANNEL_BIND, MEDIA, channel=FIRST_CHANNEL - 1),
        peer_request(client, Method.CHANNEL_BIND, MEDIA, channel=LAST_CHANNEL + 1),
    ):
        assert code(allocated.ask(request)) == 400


def test_a_channel_belongs_to_one_peer(allocated: Node) -> None:
    bind = Method.CHANNEL_BIND
    assert allocated.peers(bind, MEDIA, channel=FIRST_CHANNEL) == 0
    assert allocated.peers(bind, MEDIA, channel=FIRST_CHANNEL) == 0
    assert allocated.peers(bind, MEDIA2, channel=FIRST_CHANNEL) == 400
    assert allocated.peers(bind, MEDIA, channel=FIRST_CHANNEL + 1) == 400
    assert allocated.peers(bind, MEDIA2, channel=LAST_CHANNEL) == 0
    allocation = allocated.flow.allocation
    assert allocation is not None
    assert allocation.channels == {FIRST_CHANNEL: MEDIA, LAST_CHANNEL: MEDIA2}
    assert allocation.numbers == {MEDIA: FIRST_CHANNEL, MEDIA2: LAST_CHANNEL}


def test_channels_are_bounded(allocated: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CHANNELS", 1)
    assert allocated.peers(Method.CHANNEL_BIND, MEDIA, channel=FIRST_CHANNEL) == 0
    assert allocated.peers(Method.CHANNEL_BIND, MEDIA2, channel=FIRST_CHANNEL + 1) == 508


def test_permissions_and_channels_end_unless_they_are_renewed(allocated: Node) -> None:
    allocated.ask(allocated.client.request(Method.REFRESH, (LIFETIME, (3600).to_bytes(4))))
    assert allocated.sent(MEDIA) is None
    assert allocated.peers(Method.CHANNEL_BIND, MEDIA, channel=FIRST_CHANNEL) == 0
    assert allocated.sent(MEDIA) is not None
    allocated.now += PERMISSION_S
    allocated.allocations.tick(allocated.now)
    assert allocated.sent(MEDIA) is None
    assert allocated.peers(Method.CREATE_PERMISSION, MEDIA) == 0
    assert allocated.sent(MEDIA) is not None
    allocated.now += CHANNEL_S - PERMISSION_S
    allocated.allocations.tick(allocated.now)
    allocation = allocated.flow.allocation
    assert allocation is not None
    assert (allocation.channels, allocation.numbers, allocation.channel_expires) == ({}, {}, {})
    assert allocated.peers(Method.CHANNEL_BIND, MEDIA, channel=FIRST_CHANNEL + 1) == 0


@pytest.mark.parametrize("method", [Method.REFRESH, Method.CREATE_PERMISSION, Method.CHANNEL_BIND])
def test_what_needs_an_allocation(node: Node, method: Method) -> None:
    node.get_nonce()
    assert code(node.request(method)) == 437
    assert node.sent(MEDIA) is None


def test_what_is_not_answered(node: Node) -> None:
    silent = [
        b"",
        bytes(20),
        b"\0\1\0\0\x21\x12\xa4\x43" + bytes(12),
        build(Method.ALLOCATE, Kind.SUCCESS, transaction()),
        build(Method.ALLOCATE, Kind.ERROR, transaction()),
        build(Method.SEND, Kind.REQUEST, transaction()),
        build(Method.DATA, Kind.INDICATION, transaction()),
        build(Method.SEND, Kind.INDICATION, transaction()),
        build(5, Kind.REQUEST, transaction()),  # type: ignore[arg-type]
    ]
    for data in silent:
        assert node.receive(data) is None
    assert node.dropped == {"turn_malformed": len(silent)}
    assert node.receive(build(Method.BINDING, Kind.INDICATION, transaction())) is None


def test_a_flood_of_strangers_is_answered_in_part(node: Node) -> None:
    request = node.client.unsigned(Method.ALLOCATE, *allocate())
    binding = node.client.unsigned(Method.BINDING)
    answered = sum(node.receive(each) is not None for each in (request, binding) * 5000)
    assert answered == module.STRANGERS_AT_ONCE
    assert node.dropped == {"turn_requests": 10_000 - answered}
    assert node.receive(request, Flow(Address(bytes((198, 51, 100, 8)), 1))) is not None
    node.now += 1
    answered = sum(node.receive(request) is not None for _ in range(1000))
    assert answered == module.STRANGERS_PER_S


def test_a_flood_of_requests_of_one_allocation_is_answered_in_part(allocated: Node) -> None:
    answered = sum(allocated.receive(allocated.client.request(Method.REFRESH)) is not None for _ in range(500))
    assert answered == module.REQUESTS_AT_ONCE
    assert code(allocated.allocate(flow=Flow(Address(CLIENT.ip, 1)))) == 0


def test_what_others_send_in_a_clients_name_uses_nothing_of_its_own(allocated: Node) -> None:
    """Datagrams from a made-up address, which is that of a client and of everybody behind its NAT."""
    client, spoofed = allocated.client, Flow(Address(CLIENT.ip, 9))
    allocated.ask(client.unsigned(Method.ALLOCATE, *allocate()), Flow(Address(CLIENT.ip, 2)))
    forged = TurnClient(client.credentials, bytes(16))
    floods = [client.unsigned(Method.ALLOCATE, *allocate()), forged.request(Method.REFRESH)]
    answered = 0
    for flow in (spoofed, allocated.flow):
        answered += sum(allocated.receive(each, flow) is not None for each in floods * 2000)
    assert answered == module.STRANGERS_AT_ONCE - 2  # two honest ones came before
    assert code(allocated.ask(client.request(Method.REFRESH))) == 0
    assert code(allocated.ask(client.request(Method.ALLOCATE, *allocate()), Flow(Address(CLIENT.ip, 2)))) == 0
    over_tcp = Flow(Address(CLIENT.ip, 3), is_proven=True)
    assert code(allocated.ask(client.unsigned(Method.ALLOCATE, *allocate()), over_tcp)) == 401
    assert code(allocated.ask(client.request(Method.ALLOCATE, *allocate()), over_tcp)) == 0


def test_connections_are_answered_in_part_too(node: Node) -> None:
    flow = Flow(CLIENT, is_proven=True)
    request = node.client.unsigned(Method.ALLOCATE, *allocate())
    assert sum(node.receive(request, flow) is not None for _ in range(5000)) == module.STRANGERS_AT_ONCE


def test_a_binding_request_with_what_the_server_would_have_to_know(node: Node) -> None:
    answer = node.ask(node.client.unsigned(Method.BINDING, (0x0003, bytes(4)), (0x8001, b"optional")))
    assert code(answer) == 420
    assert answer.first(Attribute.UNKNOWN_ATTRIBUTES) == b"\0\x03"
