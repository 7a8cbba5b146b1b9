"""Datagrams through real loopback sockets: batches, arrival times, source addresses, segmentation, failures."""

import contextlib
import socket
import struct
import time
from collections.abc import Iterator

import numpy as np
import pytest

from sfu.control.net.sockets import Sockets
from sfu.media.net import udp
from sfu.schema.capacities import RX_BYTES, RX_SLOTS, TX_SLOTS
from sfu.schema.codes import RowState
from sfu.schema.memory import Memory
from tests.sfu.support.ice import drop_counts, socket_address
from tests.sfu.support.table_sockets import duplicate, port_of

PATIENCE_S = 5.0


SO_NO_CHECK = 11
"""Linux; not in the `socket` module."""


@pytest.fixture
def memory() -> Iterator[Memory]:
    memory = Memory()
    with contextlib.closing(Sockets(memory, 0, ("127.0.0.1",))):
        yield memory


@contextlib.contextmanager
def peer(host: str = "127.0.0.1") -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as opened:
        opened.bind((host, 0))
        opened.settimeout(PATIENCE_S)
        yield opened


def add_path(memory: Memory, row: int, to: socket.socket, index: int = 0) -> None:
    """A path row that leads to a socket."""
    host, port = to.getsockname()[:2]
    address = socket_address(host, port)
    path = memory.table("paths")[row]
    path["state"], path["family"], path["socket"] = RowState.OPEN, 6 if ":" in host else 4, index
    path["address"][: len(address)] = np.frombuffer(address, np.uint8)
    path["address_bytes"] = len(address)


def queue(memory: Memory, path: int, packet: bytes) -> None:
    slot = udp.take_slot(memory.record)
    memory.table("tx")[slot][: len(packet)] = np.frombuffer(packet, np.uint8)
    udp.commit(memory.record, slot, path, len(packet))


def received(memory: Memory, k: int) -> bytes:
    return bytes(memory.table("rx")[k][: memory.table("rx_messages")[k]["bytes"]].tobytes())


def test_datagrams_come_in_batches_with_sender_and_size(memory: Memory) -> None:
    with peer() as sender:
        for n in range(RX_SLOTS + 5):
            sender.sendto(bytes([n]) * (n + 1), ("127.0.0.1", port_of(memory)))
        assert udp.receive(memory.record, 0) == RX_SLOTS
        assert [received(memory, k) for k in range(RX_SLOTS)] == [bytes([n]) * (n + 1) for n in range(RX_SLOTS)]
        name = memory.table("rx_names")[0][:16].tobytes()
        assert name == socket_address(*sender.getsockname())
        assert udp.receive(memory.record, 0) == 5
        assert udp.receive(memory.record, 0) == 0


def test_datagram_larger_than_a_slot_is_marked_truncated(memory: Memory) -> None:
    with peer() as sender:
        sender.sendto(bytes(RX_BYTES + 1), ("127.0.0.1", port_of(memory)))
        assert udp.receive(memory.record, 0) == 1
        assert memory.table("rx_messages")[0]["flags"] & socket.MSG_TRUNC
        sender.sendto(bytes(RX_BYTES), ("127.0.0.1", port_of(memory)))
        assert udp.receive(memory.record, 0) == 1
        assert not memory.table("rx_messages")[0]["flags"] & socket.MSG_TRUNC


def test_arrival_is_the_kernels_stamp_on_the_monotonic_clock(memory: Memory) -> None:
    memory.thread["wall_offset_ns"] = time.time_ns() - time.monotonic_ns()
    with peer() as sender:
        before = time.monotonic_ns()
        sender.sendto(b"x", ("127.0.0.1", port_of(memory)))
        udp.receive(memory.record, 0)
        now = time.monotonic_ns()
    slack = 50_000_000  # the two clocks were not read at the same instant
    assert before - slack <= udp.arrival(memory.record, 0, now) <= now
    assert udp.arrival(memory.record, 0, 5) == 5, "never later than now"
    memory.table("rx_messages")[0]["control_bytes"] = 0
    assert udp.arrival(memory.record, 0, 7) == 7, "no stamp"


def test_packets_leave_in_order_to_each_path_and_free_their_slots(memory: Memory) -> None:
    with peer() as one, peer() as two:
        add_path(memory, 0, one)
        add_path(memory, 1, two)
        for n in range(6):
            queue(memory, n % 2, bytes([n]) * 100)
        udp.flush(memory.record)
        assert [one.recv(2048)[0] for _ in range(3)] == [0, 2, 4]
        assert [two.recv(2048)[0] for _ in range(3)] == [1, 3, 5]
    assert memory.thread["tx_count"] == 0
    assert memory.thread["packets_sent"] == 6


@pytest.mark.parametrize("offload", [0, 1])
def test_runs_of_equal_size_arrive_as_the_packets_they_were(memory: Memory, offload: int) -> None:
    if offload and not memory.thread["segment_offload"]:
        pytest.skip("no UDP_SEGMENT on this system")
    memory.thread["segment_offload"] = offload
    sizes = [100, 100, 100, 60, 100, 100, 120, 120, 119, 1, 1200, 1200]
    with peer() as receiver:
        add_path(memory, 0, receiver)
        for n, size in enumerate(sizes):
            queue(memory, 0, bytes([n]) * size)
        udp.flush(memory.record)
        assert [receiver.recv(2048) for _ in sizes] == [bytes([n]) * size for n, size in enumerate(sizes)]
    assert memory.thread["packets_sent"] == len(sizes)
    assert memory.thread["messages_sent"] == (5 if offload else len(sizes))


def test_more_packets_than_slots_are_sent_on_the_way(memory: Memory) -> None:
    with peer() as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        add_path(memory, 0, receiver)
        for n in range(TX_SLOTS + 10):
            queue(memory, 0, struct.pack("!I", n))
        udp.flush(memory.record)
        assert [receiver.recv(64) for _ in range(TX_SLOTS + 10)] == [struct.pack("!I", n) for n in range(TX_SLOTS + 10)]


def _refuse_segments(memory: Memory, index: int) -> None:
    """Make a socket refuse UDP_SEGMENT, as a route with a small MTU does: without a checksum there is no offload."""
    with duplicate(memory, index) as own:
        own.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)


def test_a_path_that_refuses_segments_gets_its_packets_singly_and_others_keep_them() -> None:
    memory = Memory()
    with contextlib.closing(Sockets(memory, 0, ("127.0.0.1", "127.0.0.2"))), peer() as poor, peer() as good:
        if not memory.thread["segment_offload"]:
            pytest.skip("no UDP_SEGMENT on this system")
        _refuse_segments(memory, 0)
        add_path(memory, 0, poor, 0)
        add_path(memory, 1, good, 1)
        sizes, now = [100, 100, 100, 60, 80, 80], 1000
        packets = [bytes([n]) * size for n, size in enumerate(sizes)]

        def send(paths: tuple[int, ...], at: int) -> int:
            """Messages that carried all packets to each path."""
            memory.thread["now_ns"] = at
            before = int(memory.thread["messages_sent"])
            for path in paths:
                for packet in packets:
                    queue(memory, path, packet)
            udp.flush(memory.record)
            for path in paths:
                assert [(poor, good)[path].recv(2048) for _ in packets] == packets, "none is lost"
            return int(memory.thread["messages_sent"]) - before

        assert send((0, 1), now) == len(sizes) + 2
        assert send((0,), now + udp.SINGLE_NS - 1) == len(sizes)
        assert memory.table("paths")[0]["single_until_ns"] == now + udp.SINGLE_NS, "it was not tried in between"
        send((0,), now + udp.SINGLE_NS)
        assert memory.table("paths")[0]["single_until_ns"] == now + 2 * udp.SINGLE_NS, "and tried again after it"
        assert memory.thread["segment_offload"]
        assert memory.thread["packets_sent"] == 4 * len(sizes)
        assert drop_counts(memory) == {}


def test_single_packets_of_a_refused_run_that_fail_are_counted_each(memory: Memory) -> None:
    if not memory.thread["segment_offload"]:
        pytest.skip("no UDP_SEGMENT on this system")
    with peer() as receiver:
        add_path(memory, 0, receiver)
        memory.table("paths")[0]["address"][:16] = np.frombuffer(socket_address("127.0.0.1", 0), np.uint8)
        for _ in range(3):
            queue(memory, 0, bytes(50))
        udp.flush(memory.record)
    assert drop_counts(memory) == {"send_failed": 3}


def test_destination_that_fails_is_counted_and_the_rest_leaves(memory: Memory) -> None:
    with peer() as receiver:
        add_path(memory, 0, receiver)
        add_path(memory, 1, receiver)
        memory.table("paths")[1]["address"][:16] = np.frombuffer(socket_address("127.0.0.1", 0), np.uint8)
        for path in (0, 1, 0):
            queue(memory, path, bytes([path]) * 10)
        udp.flush(memory.record)
        assert [receiver.recv(64) for _ in range(2)] == [bytes(10)] * 2
    assert drop_counts(memory) == {"send_failed": 1}


def test_wildcard_socket_answers_from_the_address_that_was_reached() -> None:
    memory = Memory()
    with contextlib.closing(Sockets(memory, 0, ("0.0.0.0",))), peer() as client:
        for local in ("127.0.0.1", "127.0.0.9"):
            client.sendto(b"ping", (local, port_of(memory)))
            assert udp.receive(memory.record, 0) == 1
            add_path(memory, 0, client)
            udp.store_local(memory.record, 0, memory.table("paths")[0])
            queue(memory, 0, b"pong")
            udp.flush(memory.record)
            assert client.recvfrom(64) == (b"pong", (local, port_of(memory)))


def test_ipv6_wildcard_socket_answers_from_the_address_that_was_reached() -> None:
    memory = Memory()
    with contextlib.closing(Sockets(memory, 0, ("::",))), peer("::1") as client:
        client.sendto(b"ping", ("::1", port_of(memory)))
        assert udp.receive(memory.record, 0) == 1
        assert memory.table("rx_messages")[0]["name_bytes"] == 28
        add_path(memory, 0, client)
        udp.store_local(memory.record, 0, memory.table("paths")[0])
        assert memory.table("paths")[0]["local"].tobytes() == socket.inet_pton(socket.AF_INET6, "::1")
        queue(memory, 0, b"pong")
        udp.flush(memory.record)
        assert client.recvfrom(64)[1][:2] == ("::1", port_of(memory))
