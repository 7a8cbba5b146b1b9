"""TCP connections until a media thread serves them: what is handed over, and what is refused."""

import asyncio
import contextlib
import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfu.control.net import tcp
from sfu.control.net.sockets import candidates, socket_address
from sfu.control.net.tcp import TcpConnections, ufrag_of_check
from sfu.errors import TableFull
from sfu.sockets import UNSENT_BYTES
from tests.sfu.support.ice import UFRAG, binding_request
from tests.sfu.support.ice import socket_address as expected_address
from tests.sfu.support.tcp_end import framed

CHECK = framed(binding_request(nominate=True))
PATIENCE_S = 10.0


class Shard:
    """Stands for a media thread."""

    def __init__(self, *ufrags: str) -> None:
        self.ufrags = set(ufrags)
        self.served: list[socket.socket] = []
        self.addresses: list[bytes] = []
        self.protocols: list[str] = []
        self.full = False

    def open_connection(self, connection: socket.socket, address: bytes, protocol: str) -> None:
        if self.full:
            raise TableFull("no free row in connections")
        self.served.append(connection)
        self.addresses.append(address)
        self.protocols.append(protocol)


class Listening:
    """Two media threads and what accepts connections for them."""

    def __init__(self) -> None:
        self.other, self.shard = Shard("otherOTH"), Shard(UFRAG)
        self.drops: Counter[str] = Counter()
        self.connections = TcpConnections((self.other, self.shard), self.drops)
        self.connections.listen(0, ("127.0.0.1",))
        self.clients: list[socket.socket] = []

    async def connect(self, data: bytes = b"") -> socket.socket:
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.clients.append(client)
        client.setblocking(False)
        port = self.connections.port
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
        if data:
            client.send(data)
        return client

    async def until(self, true: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not true():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.001)

    async def ended(self, client: socket.socket) -> None:
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.get_running_loop().sock_recv(client, 100) == b""

    def close(self) -> None:
        self.connections.stop()
        for each in (*self.clients, *self.shard.served, *self.other.served):
            each.close()


@pytest.fixture
async def listening() -> AsyncIterator[Listening]:
    with contextlib.closing(Listening()) as made:
        yield made


async def test_connection_goes_to_the_thread_of_its_ufrag_with_all_its_bytes(listening: Listening) -> None:
    client = await listening.connect(CHECK + b"more")
    await listening.until(lambda: listening.shard.served)
    (served,) = listening.shard.served
    assert served.recv(4096) == CHECK + b"more"
    assert socket_address(served) == expected_address(*client.getsockname())
    assert listening.shard.addresses == [socket_address(served)]
    assert served.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert served.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == UNSENT_BYTES
    assert served.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1
    assert not listening.other.served
    assert listening.drops == {}


async def test_first_frame_may_come_byte_by_byte_and_costs_nothing_meanwhile(listening: Listening) -> None:
    client = await listening.connect()
    looks = 0
    look = listening.connections._look

    def counted(arrival: tcp._Arrival) -> None:
        nonlocal looks
        looks += 1
        look(arrival)

    listening.connections._look = counted  # type: ignore[method-assign]
    for k in range(len(CHECK)):
        client.send(CHECK[k : k + 1])
        await asyncio.sleep(0.001)
    await listening.until(lambda: listening.shard.served)
    assert looks <= 4  # at once, for the size, for the frame; one more by chance


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (framed(binding_request(ufrag="nobodyNO")), "stun_unknown_ufrag"),
        (framed(b"\x16" + bytes(99)), "tcp_garbage"),
        (b"GET / HTTP/1.1\r\nHost: sfu\r\n\r\n", "tcp_garbage"),
        (b"\x00\x00", "tcp_garbage"),
        ((tcp.MAX_FIRST_FRAME_BYTES + 1).to_bytes(2), "tcp_garbage"),
        (framed(bytes(20)), "tcp_garbage"),
    ],
)
async def test_what_is_no_check_of_a_transport_is_closed(listening: Listening, data: bytes, reason: str) -> None:
    await listening.ended(await listening.connect(data))
    assert listening.drops == {reason: 1}
    assert not listening.shard.served


@pytest.mark.parametrize("data", [b"", b"\x00", CHECK[:-1]])
async def test_client_that_leaves_before_its_first_frame_is_forgotten(listening: Listening, data: bytes) -> None:
    client = await listening.connect(data)
    await asyncio.sleep(0.01)
    client.close()
    await listening.until(lambda: listening.drops)
    assert listening.drops == {"tcp_unfinished": 1}
    assert not listening.connections._unproven


@pytest.mark.parametrize("data", [b"", CHECK[:30]])
async def test_first_frame_has_a_time_limit(listening: Listening, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "FIRST_FRAME_S", 0.05)
    await listening.ended(await listening.connect(data))
    assert listening.drops == {"tcp_late": 1}
    assert not listening.connections._unproven
    assert not listening.connections._of_address


async def test_unproven_connections_of_an_address_are_bounded_and_proven_ones_do_not_count(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp, "MAX_UNPROVEN_OF_ADDRESS", 3)
    for _ in range(5):
        await listening.connect(CHECK)
    await listening.until(lambda: len(listening.shard.served) == 5)
    waiting = [await listening.connect() for _ in range(3)]
    await listening.until(lambda: len(listening.connections._unproven) == 3)
    await listening.connect(CHECK)
    await listening.until(lambda: len(listening.shard.served) == 6)
    await listening.ended(waiting[0])
    assert listening.drops == {"tcp_beyond_limit": 1}
    waiting[1].send(CHECK)
    await listening.until(lambda: len(listening.shard.served) == 7)
    assert len(listening.connections._unproven) == 1


async def test_unproven_connections_are_bounded_in_all(listening: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "MAX_UNPROVEN", 2)
    waiting = []
    for _ in range(2):
        waiting.append(await listening.connect())
        await listening.until(lambda: len(listening.connections._unproven) == len(waiting))
    newest = await listening.connect()
    await listening.ended(waiting[0])
    assert listening.drops == {"tcp_beyond_limit": 1}
    assert len(listening.connections._unproven) == 2
    newest.send(CHECK)
    await listening.until(lambda: listening.shard.served)


async def test_who_holds_connections_open_keeps_nobody_out(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp, "MAX_UNPROVEN_OF_ADDRESS", 3)
    proven = []
    for _ in range(4):
        for _ in range(10):
            await listening.connect(CHECK[:30])
        proven.append(await listening.connect(CHECK))
        await listening.until(lambda: len(listening.shard.served) == len(proven))


async def test_clients_behind_a_proxy_are_counted_by_their_own_addresses(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp, "MAX_UNPROVEN_OF_ADDRESS", 1)
    pairs = [socket.socketpair() for _ in range(3)]
    try:
        for (ours, _), client in zip(pairs, ("192.0.2.1", "192.0.2.2", "192.0.2.1"), strict=True):
            listening.connections.take(ours, client)
        assert [each.address for each in listening.connections._unproven] == ["192.0.2.2", "192.0.2.1"]
        assert pairs[0][1].recv(1) == b""
        assert listening.drops == {"tcp_beyond_limit": 1}
    finally:
        for pair in pairs:
            for each in pair:
                each.close()


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7"])
async def test_end_of_a_pair_has_the_address_that_its_relay_says(listening: Listening, host: str) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.send(CHECK)
        listening.connections.take(ours, "198.51.100.7", (host, 30_000))
        assert listening.shard.served == [ours]
        assert listening.shard.addresses == [expected_address(host, 30_000)]
        assert ours.recv(4096) == CHECK
    assert listening.drops == {}


async def test_connection_for_which_the_thread_has_no_room_is_closed(listening: Listening) -> None:
    listening.shard.full = True
    await listening.ended(await listening.connect(CHECK))
    assert listening.drops == {"tcp_beyond_limit": 1}


async def test_lack_of_descriptors_is_waited_out(listening: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "PAUSE_S", 0.05)
    (listener,) = listening.connections._listeners
    tries = 0

    class Exhausted(socket.socket):
        def accept(self) -> tuple[socket.socket, object]:
            nonlocal tries
            tries += 1
            if tries == 1:
                raise OSError(24, "Too many open files")
            return super().accept()

    asyncio.get_running_loop().remove_reader(listener)
    exhausted = Exhausted(fileno=listener.detach())
    listening.connections._listeners[:] = [exhausted]
    listening.connections._accept_more()
    await listening.connect(CHECK)
    await listening.until(lambda: listening.shard.served)
    assert tries >= 2
    assert listening.drops == {"tcp_beyond_limit": 1}


async def test_stop_closes_what_no_thread_has(listening: Listening) -> None:
    client = await listening.connect()
    await listening.until(lambda: listening.connections._unproven)
    port = listening.connections.port
    listening.connections.stop()
    await listening.ended(client)
    assert not listening.connections._unproven
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", port))


async def test_taken_port_is_an_error_and_leaves_nothing_open(listening: Listening) -> None:
    other = TcpConnections((), Counter())
    with pytest.raises(OSError, match="in use"):
        other.listen(listening.connections.port or 0, ("127.0.0.1",))
    assert other._listeners == []


async def test_addresses_of_one_ipv6_network_count_as_one() -> None:
    assert tcp._counted_address("2001:db8:1:2:3::4") == tcp._counted_address("2001:db8:1:2:ffff::1%eth0")
    assert tcp._counted_address("2001:db8:1:3::4") != tcp._counted_address("2001:db8:1:2::4")
    assert tcp._counted_address("192.0.2.1") != tcp._counted_address("192.0.2.2")


@given(st.binary(max_size=200))
async def test_any_bytes_are_looked_at(data: bytes) -> None:
    assert ufrag_of_check(data) is None or len(data) > 20


@given(st.data())
async def test_check_that_was_cut_or_changed_raises_nothing(data: st.DataObject) -> None:
    check = bytearray(binding_request())
    for _ in range(data.draw(st.integers(0, 4))):
        check[data.draw(st.integers(0, len(check) - 1))] = data.draw(st.integers(0, 255))
    ufrag_of_check(bytes(check[: data.draw(st.integers(0, len(check)))]))


async def test_username_without_a_colon_or_beyond_the_message_names_nobody() -> None:
    def request(attribute: bytes) -> bytes:
        return struct.pack("!HHI", 1, len(attribute), 0x2112A442) + bytes(12) + attribute

    assert ufrag_of_check(request(struct.pack("!HH", 6, 8) + b"abcd:xyz")) == "abcd"
    assert ufrag_of_check(request(struct.pack("!HH", 6, 8) + b"abcdefgh")) is None
    assert ufrag_of_check(request(struct.pack("!HH", 6, 80) + b"abcd:xyz")) is None
    assert ufrag_of_check(request(struct.pack("!HH", 6, 8) + b"ab\xffd:xyz")) is None
    assert ufrag_of_check(request(struct.pack("!HH", 0x8022, 3) + b"abc\0" + struct.pack("!HH", 6, 4) + b"a:bc")) == "a"


async def test_tcp_candidates_come_after_all_others() -> None:
    found = candidates(("192.0.2.1", "2001:db8::1"), {4, 6}, 7882, 7881)
    assert [(each.address, each.port, each.tcp) for each in found] == [
        ("2001:db8::1", 7882, False),
        ("192.0.2.1", 7882, False),
        ("2001:db8::1", 7881, True),
        ("192.0.2.1", 7881, True),
    ]
    assert [each.priority for each in found] == sorted((each.priority for each in found), reverse=True)
    assert {each.priority >> 24 for each in found if each.tcp} == {90}
    assert len({each.foundation for each in found}) == 4
    assert not any(each.tcp for each in candidates(("192.0.2.1",), {4}, 7882))
