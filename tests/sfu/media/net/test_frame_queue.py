"""What waits for a TCP connection: whole frames in order, however they are written, read and dropped."""

import contextlib
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from sfu.media.net.frame_queue import MAX_QUEUED_MS
from sfu.schema.capacities import FRAME_QUEUE_BYTES, SLOW_BYTES
from sfu.schema.codes import Drop
from tests.sfu.support.tcp_node import NOW, ROW, TcpNode

MS = 1_000_000
PATIENCE_S = 10.0
SETTLED_S = 0.1
STEPS = st.tuples(st.lists(st.integers(1, SLOW_BYTES), max_size=60), st.integers(0, 40_000), st.integers(0, 120))
"""Sizes of packets that leave in one turn, how many bytes the client reads then, and how many ms pass."""


def numbered(number: int, size: int) -> bytes:
    return number.to_bytes(4) + bytes(size - 4) if size >= 4 else bytes([number & 255]) * size


@settings(max_examples=60)
@given(st.lists(STEPS, min_size=1, max_size=25))
def test_what_arrives_is_whole_and_in_order_and_the_rest_is_counted(steps: list[tuple[list[int], int, int]]) -> None:
    with contextlib.closing(TcpNode()) as node:
        end = node.proven(buffer_bytes=4096)
        left, came, now = list[bytes](), list[bytes](), NOW
        for sizes, read, passed in steps:
            for size in sizes:
                left.append(numbered(len(left), size))
                node.push(left[-1])
            now += passed * MS
            node.turn(now)
            came += end.packets(read)
        drops, deadline = node.memory.table("drops"), time.monotonic() + PATIENCE_S
        while len(came) + int(drops[Drop.TCP_QUEUE_FULL]) < len(left):
            assert time.monotonic() < deadline
            node.turn(now)
            came += end.packets()
            time.sleep(0.001)
        assert len(came) + int(drops[Drop.TCP_QUEUE_FULL]) == len(left)
        waiting = iter(left)
        assert all(packet in waiting for packet in came)  # a subsequence
        assert node.memory.table("connections")[end.row]["count"] == 0
        assert node.memory.thread["packets_sent"] == 1 + len(came)


def test_queue_is_full_when_its_bytes_are_used_up(tcp_node: TcpNode) -> None:
    end = tcp_node.proven(buffer_bytes=4096)
    for _ in range(400):
        tcp_node.push(bytes(1200))
    tcp_node.turn()
    connection = tcp_node.memory.table("connections")[end.row]
    assert 50 < connection["count"] <= FRAME_QUEUE_BYTES // 1200
    assert tcp_node.memory.table("drops")[Drop.TCP_QUEUE_FULL] > 250


def test_what_waits_for_too_long_is_dropped_and_nothing_more_is_queued_until_a_byte_leaves(tcp_node: TcpNode) -> None:
    end = tcp_node.proven(buffer_bytes=4096)
    for k in range(40):
        tcp_node.push(numbered(k, 1200))
    tcp_node.turn()
    connection, waiting = tcp_node.memory.table("connections")[end.row], -1
    while waiting != connection["count"]:  # the operating system may take some more
        waiting = int(connection["count"])
        time.sleep(SETTLED_S)
        tcp_node.turn()
    assert waiting > 1
    tcp_node.send(numbered(40, 1200), NOW + MAX_QUEUED_MS * MS)
    assert connection["count"] == waiting + 1
    begun = int(connection["begun"] > 0)
    tcp_node.send(numbered(41, 1200), NOW + (MAX_QUEUED_MS + 1) * MS)
    assert (connection["count"], connection["stalled"]) == (begun, 1)  # only what has begun to leave
    tcp_node.send(numbered(42, 1200), NOW + (MAX_QUEUED_MS + 2) * MS)
    assert (connection["count"], connection["stalled"]) == (begun, 1)
    numbers, deadline = list[int](), time.monotonic() + PATIENCE_S
    while connection["stalled"]:
        assert time.monotonic() < deadline
        numbers += [int.from_bytes(packet[:4]) for packet in end.packets()]
        tcp_node.turn(NOW + (MAX_QUEUED_MS + 3) * MS)
    tcp_node.push(numbered(43, 1200))
    while 43 not in numbers:
        assert time.monotonic() < deadline
        tcp_node.turn(NOW + (MAX_QUEUED_MS + 3) * MS)
        numbers += [int.from_bytes(packet[:4]) for packet in end.packets()]
    assert numbers == [*range(len(numbers) - 1), 43]
    assert tcp_node.memory.table("drops")[Drop.TCP_QUEUE_FULL] == 44 - len(numbers)


def test_dropped_video_interrupts_and_other_packets_do_not(tcp_node: TcpNode) -> None:
    transport = tcp_node.memory.table("transports")[ROW]
    media = tcp_node.memory.table("media")[int(transport["media"])]
    media["codec_of_pt"][96], media["codec_of_pt"][111] = 3, 1
    tcp_node.proven(buffer_bytes=4096)
    for first, second, interrupted in ((128, 111, 0), (128, 200, 0), (22, 96, 0), (128, 96, 1), (144, 224, 1)):
        transport["interrupted"] = 0
        for _ in range(400):
            tcp_node.push(bytes([first, second]) + bytes(1198))
        tcp_node.turn()
        assert transport["interrupted"] == interrupted, (first, second)


def test_pages_of_a_queue_are_given_back_when_its_connection_ends(tcp_node: TcpNode) -> None:
    end = tcp_node.proven(buffer_bytes=4096)
    for _ in range(100):
        tcp_node.push(bytes([9]) * 1200)
    tcp_node.turn()
    queue = tcp_node.memory.table("frame_queues")[end.row]
    assert queue[8192:-8192].any()
    end.socket.close()
    tcp_node.turn()
    assert not queue[8192:-8192].any()
