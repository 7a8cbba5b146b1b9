"""Packets that a path reorders: what is asked for and comes late is not sent again, what is lost is."""

from typing import Any

import numpy as np
import pytest

from sfu.media.bandwidth.passes import bandwidth_pass
from sfu.media.rtcp.incoming import receive_compound
from sfu.media.send.late import FORGOTTEN_PART, HELD_NS, LEAST_LATE_NS, MOST_LATE_NS
from sfu.media.send.retransmit import answer_nack
from sfu.media.subscriptions import close_subscription
from sfu.schema.capacities import FLUSHES, HELD_REPEATS, SEQUENCE_START
from tests.sfu.support.feedback_packet import transport_feedback
from tests.sfu.support.paced import Stream, prepared
from tests.sfu.support.subscribers import MS, Room

pytestmark = pytest.mark.timeout(600)  # kernels that are not in the cache are compiled first

LATE_NS = 20 * MS
RTT_NS = 40 * MS


class Path:
    """A room whose viewer's path reorders packets, and what the viewer says of them."""

    def __init__(self) -> None:
        self.room: Room
        self.room, streams = prepared(5_000_000)
        self.stream: Stream = streams[0]
        estimate = self.room.memory.table("estimates")[self.room.viewers[0].row]
        estimate["rtt_ns"] = RTT_NS
        self.log["late_ns"] = LATE_NS
        self.log["path"] = self.room.transport()["path"]

    @property
    def log(self) -> Any:
        return self.room.memory.table("send_logs")[self.room.viewers[0].row]

    def send(self, packets: int = 1) -> list[int]:
        """Send a frame; returns the numbers of its packets."""
        thread = self.room.memory.thread
        self.room.memory.table("flush_ns")[int(thread["flushes"]) & (FLUSHES - 1)] = self.room.now
        self.stream.frame(packets)
        self.room.turn()
        return [packet.sequence_number for packet in self.room.viewers[0].take()]

    def next_number(self) -> int:
        return int(self.room.transport()["next_number"]) - SEQUENCE_START

    def report(self, first: int, arrived: dict[int, int]) -> list[int]:
        """Let feedback from number `first` on say which numbers arrived, and when. Returns what is sent again."""
        data = transport_feedback(arrived, first, max(arrived), 0)
        copied = np.frombuffer(data, np.uint8).copy()
        viewer = self.room.viewers[0]
        receive_compound(self.room.record, self.room.memory.arena, copied, len(copied), viewer.row, self.room.now)
        return self.repeated()

    def nack(self, sequence: int) -> list[int]:
        answer_nack(self.room.record, self.room.memory.arena, 0, sequence & 0xFFFF, self.room.now)
        return self.repeated()

    def repeated(self) -> list[int]:
        self.room.collect()
        return [int.from_bytes(packet.payload[:2], "big") for packet in self.room.viewers[0].take()]


@pytest.fixture
def path() -> Path:
    return Path()


def test_what_comes_late_is_not_sent_again(path: Path) -> None:
    first = path.next_number()
    sent = path.send(3)
    path.room.pass_time(RTT_NS)
    assert path.nack(sent[0]) == []
    path.room.pass_time(30 * MS)
    arrived = path.room.now
    assert path.report(first, {first: arrived, first + 1: arrived - 15 * MS, first + 2: arrived - 16 * MS}) == []
    assert path.log["held_count"] == 0
    assert path.nack(sent[0]) == [], "the request is older than the feedback"
    path.room.pass_time(2 * HELD_NS)
    assert path.nack(sent[0]) == [sent[0]], "who asks again did not get it"


def test_a_repeat_that_leaves_in_this_turn_hides_no_packet_before_it(path: Path) -> None:
    old = path.send()
    path.room.pass_time(2 * HELD_NS)
    new = path.send()
    path.room.pass_time(RTT_NS)
    answer_nack(path.room.record, path.room.memory.arena, 0, old[0] & 0xFFFF, path.room.now)
    assert path.nack(new[0]) == old, "nobody knows yet whether the new one is lost"
    assert path.log["held_count"] == 1


def test_what_is_lost_is_sent_again_once_later_packets_have_come(path: Path) -> None:
    first = path.next_number()
    sent = path.send(2)
    path.room.pass_time(RTT_NS)
    assert path.nack(sent[0]) == []
    assert path.report(first, {first + 1: path.room.now}) == [], "it may come yet"
    path.room.pass_time(20 * MS)
    path.send()
    path.room.pass_time(RTT_NS)
    assert path.report(first + 2, {first + 2: path.room.now}) == [sent[0]]
    assert path.log["held_count"] == 0
    assert path.nack(sent[0]) == [], "the request crossed the repeat"


def test_what_is_known_to_be_lost_does_not_wait(path: Path) -> None:
    first = path.next_number()
    sent = path.send(2)
    path.room.pass_time(40 * MS)
    path.send()
    path.room.pass_time(RTT_NS)
    path.report(first, {first + 2: path.room.now})
    assert path.nack(sent[1]) == [sent[1]]


@pytest.mark.parametrize("late_ns", [0, LEAST_LATE_NS - 1])
def test_a_path_that_keeps_the_order_has_its_answer_at_once(path: Path, late_ns: int) -> None:
    path.log["late_ns"] = late_ns
    (sent,) = path.send()
    path.room.pass_time(RTT_NS)
    assert path.nack(sent) == [sent]


def test_without_feedback_nothing_waits(path: Path) -> None:
    path.room.memory.table("estimates")[path.room.viewers[0].row]["silent"] = 1
    (sent,) = path.send()
    path.room.pass_time(RTT_NS)
    assert path.nack(sent) == [sent]


def test_what_no_feedback_tells_of_is_sent_again_in_the_end(path: Path) -> None:
    (sent,) = path.send()
    path.room.pass_time(RTT_NS)
    assert path.nack(sent) == []
    path.room.pass_time(HELD_NS)
    bandwidth_pass(path.room.record, path.room.now)
    assert path.repeated() == []
    path.room.pass_time(MS)
    assert path.nack(sent) == [], "it waits"
    bandwidth_pass(path.room.record, path.room.now)
    assert path.repeated() == [sent]


def test_no_more_than_a_bounded_number_waits(path: Path) -> None:
    path.room.limit(50_000_000)
    sent = []
    for _ in range(HELD_REPEATS + 1):
        path.room.pass_time(MS)
        sent += path.send()
    assert len(sent) == HELD_REPEATS + 1
    path.room.pass_time(RTT_NS)
    assert [number for number in sent if path.nack(number)] == sent[HELD_REPEATS:]
    assert path.log["held_count"] == HELD_REPEATS


def test_nothing_is_repeated_of_a_subscription_that_ended(path: Path) -> None:
    (sent,) = path.send()
    path.room.pass_time(RTT_NS)
    path.nack(sent)
    close_subscription(path.room.record, 0)
    path.room.pass_time(HELD_NS + MS)
    bandwidth_pass(path.room.record, path.room.now)
    assert path.repeated() == []
    assert path.log["held_count"] == 0


def test_feedback_says_how_late_packets_come(path: Path) -> None:
    path.log["late_ns"] = 0
    first, now = path.next_number(), path.room.now
    path.send(4)
    path.report(first, {first: now + 5 * MS, first + 1: now + 30 * MS, first + 2: now + 12 * MS, first + 3: now})
    assert path.log["late_ns"] == 30 * MS
    path.report(first, {first: now + 5 * MS, first + 1: now + 6 * MS})
    assert path.log["late_ns"] == 30 * MS - 30 * MS // FORGOTTEN_PART
    path.report(first, {first: now + 5_000 * MS, first + 1: now})
    assert path.log["late_ns"] == MOST_LATE_NS
