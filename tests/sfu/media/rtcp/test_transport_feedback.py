"""Transport-cc feedback against the send log: each packet counts once, and what nobody sent counts never."""

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfu.media.net.send_log import begin_flush, log_sent, mark_unsent
from sfu.media.net.udp import commit
from sfu.media.rtcp.incoming import MAX_NACKED, receive_compound
from sfu.media.rtcp.transport_feedback import FEEDBACK_COST, STATUSES_OF_A_NACK
from sfu.schema.capacities import SENT_PACKETS, SEQUENCE_START
from sfu.schema.codes import SentState
from sfu.schema.memory import Memory
from tests.deadline import deadline
from tests.sfu.support.feedback_packet import transport_feedback
from tests.sfu.support.ice import drop_counts

MS = 1_000_000
ROW, SIZE = 7, 1_000
START = 5_000 * MS

pytestmark = pytest.mark.timeout(600)  # kernels that are not in the cache are compiled first


class Sender:
    """A transport that has sent packets, `spacing` apart, each in a flush of its own."""

    def __init__(self, packets: int = 0) -> None:
        self.memory = Memory()
        self.now = START
        self.transport["next_number"] = SEQUENCE_START
        self.memory.table("paths")[3]["family"] = 4
        self.send(packets)

    @property
    def transport(self) -> Any:
        return self.memory.table("transports")[ROW]

    @property
    def log(self) -> Any:
        return self.memory.table("send_logs")[ROW]

    @property
    def estimate(self) -> Any:
        return self.memory.table("estimates")[ROW]

    def send(self, packets: int, spacing: int = 10 * MS) -> None:
        for _ in range(packets):
            commit(self.memory.record, 0, 3, SIZE)
            log_sent(self.memory.record, ROW, 0)
            self.memory.thread["now_ns"] = self.now
            begin_flush(self.memory.record)
            self.memory.thread["tx_count"] = 0
            self.now += spacing

    def report(self, body: bytes, later: int = 50 * MS) -> None:
        data = np.frombuffer(body, np.uint8).copy()
        receive_compound(self.memory.record, self.memory.arena, data, len(data), ROW, self.now + later)

    def arrive(self, *numbers: int, first: int | None = None, last: int | None = None) -> None:
        """Report these of the numbers from first to last as received, each 20 ms after it was sent."""
        arrived = {number: number * 10 * MS + 20 * MS for number in numbers}
        first, last = min(numbers) if first is None else first, max(numbers) if last is None else last
        self.report(transport_feedback(arrived, first, last, 0))

    def states(self, count: int) -> list[int]:
        return [int(each) for each in self.log["entries"]["state"][:count]]


RECEIVED, LOST, SENT, UNSENT = SentState.RECEIVED, SentState.LOST, SentState.SENT, SentState.UNSENT


def test_packets_are_received_or_lost_as_feedback_says() -> None:
    sender = Sender(10)
    sender.arrive(0, 1, 3, 4)
    assert sender.states(6) == [RECEIVED, RECEIVED, LOST, RECEIVED, RECEIVED, SENT]
    assert (int(sender.log["feedbacks"]), int(sender.log["reported_lost"])) == (1, 1)
    assert int(sender.estimate["feedbacks"]) == 1
    assert int(sender.estimate["received"]) == 4
    assert drop_counts(sender.memory) == {}


def test_a_round_trip_is_measured_from_the_flush_in_which_a_packet_left() -> None:
    sender = Sender(3)
    sender.arrive(0, 1, 2)
    assert int(sender.estimate["rtt_ns"]) == 60 * MS  # the last left 10 ms before `now`, the report came 50 ms after


def test_a_packet_that_was_reported_missing_may_come_later_and_counts_once() -> None:
    sender = Sender(5)
    sender.arrive(0, 2)
    assert sender.states(3) == [RECEIVED, LOST, RECEIVED]
    sender.arrive(1, 2, 3)
    assert sender.states(4) == [RECEIVED] * 4
    assert int(sender.log["reported_lost"]) == 0
    assert int(sender.estimate["received"]) == 1  # number 3 alone was news
    sender.arrive(0, 3)  # says that 1 and 2 are missing, which is known better
    assert sender.states(4) == [RECEIVED] * 4
    assert int(sender.log["reported_lost"]) == 0


def test_what_the_socket_refused_is_nobodys_loss() -> None:
    sender = Sender(2)
    commit(sender.memory.record, 0, 3, SIZE)
    log_sent(sender.memory.record, ROW, 0)
    mark_unsent(sender.memory.record, 0, 1)
    sender.memory.thread["tx_count"] = 0
    sender.send(1)
    assert sender.states(4) == [SENT, SENT, UNSENT, SENT]
    assert int(sender.log["bytes"]) == 3 * (SIZE + 28)
    sender.arrive(0, 1, 3)
    assert sender.states(4) == [RECEIVED, RECEIVED, UNSENT, RECEIVED]
    assert int(sender.log["reported_lost"]) == 0


def test_numbers_that_no_feedback_names_are_neither_received_nor_lost() -> None:
    sender = Sender(10)
    sender.arrive(5, 6)
    assert sender.states(10) == [SENT] * 5 + [RECEIVED] * 2 + [SENT] * 3


def test_numbers_go_on_beyond_sixteen_bits() -> None:
    sender = Sender()
    sender.transport["next_number"] = SEQUENCE_START + 0x10000 - 2
    sender.log["count"] = 1
    sender.send(4)
    places = [(SEQUENCE_START + 0x10000 - 2 + k) & (SENT_PACKETS - 1) for k in range(4)]
    arrived = {0xFFFE + k: (100 + k) * MS for k in range(4)}
    sender.report(transport_feedback(arrived, 0xFFFE, 0x10001, 0))
    assert [int(sender.log["entries"]["state"][place]) for place in places] == [RECEIVED] * 4


def test_numbers_that_were_not_sent_are_not_believed() -> None:
    sender = Sender(3)
    before = sender.states(SENT_PACKETS)
    sender.arrive(3, 4)
    sender.arrive(40_000, 40_001)
    assert sender.states(SENT_PACKETS) == before
    assert drop_counts(sender.memory) == {"feedback_unknown": 2}
    sender.arrive(2, 9)  # begins with one that was sent
    assert sender.states(5) == [SENT, SENT, RECEIVED, SENT, SENT]


def test_what_an_earlier_use_of_the_row_sent_is_not_believed_either() -> None:
    sender = Sender(100)
    sender.transport["next_number"], sender.transport["logged"] = SEQUENCE_START, 0  # as when it opens
    sender.send(3)
    assert int(sender.log["count"]) == 3
    sender.arrive(0, 2, last=50)
    assert sender.states(5) == [RECEIVED, LOST, RECEIVED, SENT, SENT]


def test_numbers_older_than_the_log_are_passed_over() -> None:
    sender = Sender(SENT_PACKETS + 10)
    sender.arrive(0, 1, 2)
    assert drop_counts(sender.memory) == {"feedback_unknown": 1}
    sender.arrive(9, 10, 11)
    assert sender.states(12)[:9] == [SENT] * 9  # numbers 1,024 and on
    assert sender.states(12)[9:] == [SENT, RECEIVED, RECEIVED]


def packet(base: int, count: int, rest: bytes) -> bytes:
    body = struct.pack("!HHI", base, count, 7 << 8) + rest
    body += bytes(-len(body) % 4)
    return struct.pack("!BBHII", 0x80 | 15, 205, 2 + len(body) // 4, 9, 9) + body


@pytest.mark.parametrize(
    "data",
    [
        packet(0, 0, b""),  # about nothing
        packet(0, 5, b""),  # without the chunk
        packet(0, 5, struct.pack("!H", 0x2005)),  # without the deltas
        packet(0, 5, struct.pack("!H", 0x6005) + bytes(10)),  # a reserved symbol in a run
        packet(0, 5, struct.pack("!H", 0xFFFF) + bytes(10)),  # and in a vector
        packet(0, 5, struct.pack("!H", 0x2000) * 2 + bytes(10)),  # a run of none
        packet(0, SENT_PACKETS + 1, struct.pack("!H", 0x0FFF)),  # about more than anybody remembers
    ],
)
def test_malformed_feedback_is_dropped_and_counted(data: bytes) -> None:
    sender = Sender(5)
    sender.report(data)
    assert drop_counts(sender.memory) == {"rtcp_malformed": 1}
    assert sender.states(5) == [SENT] * 5
    assert int(sender.log["feedbacks"]) == 0


def test_feedback_in_one_datagram_has_a_budget() -> None:
    sender = Sender(SENT_PACKETS)
    one = packet(0, SENT_PACKETS, struct.pack("!H", SENT_PACKETS))  # none of them arrived
    sender.report(one * 60)
    assert int(sender.log["feedbacks"]) == MAX_NACKED // (FEEDBACK_COST + SENT_PACKETS // STATUSES_OF_A_NACK)
    assert drop_counts(sender.memory)["feedback_unknown"] == 60 - int(sender.log["feedbacks"])
    sender.report(one)  # of the next datagram
    assert int(sender.log["feedbacks"]) == 4


def test_a_run_and_one_bit_symbols_are_read() -> None:
    sender = Sender(20)
    chunks = struct.pack("!HH", 0x2003, 0x8000 | 0b10110000000000)
    sender.report(packet(0, 9, chunks + bytes(6)))
    assert sender.states(10) == [RECEIVED] * 4 + [LOST, RECEIVED, RECEIVED, LOST, LOST, SENT]


def test_reference_times_go_on_beyond_their_24_bits() -> None:
    sender = Sender(4)
    one = struct.pack("!H", 0x2001) + bytes(1)
    for number, reference in enumerate((0xFFFFFF, 0, 5, 3)):
        body = struct.pack("!HHI", number, 1, reference << 8) + one + bytes(1)
        body += bytes(-len(body) % 4)
        sender.report(struct.pack("!BBHII", 0x80 | 15, 205, 2 + len(body) // 4, 9, 9) + body)
    assert int(sender.log["reference"]) == 0x1000003
    assert sender.states(4) == [RECEIVED] * 4


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
    st.lists(st.integers(0, 0xFFFF), max_size=40),
    st.binary(max_size=200),
)
def test_no_feedback_harms(base: int, count: int, chunks: list[int], deltas: bytes) -> None:
    sender = Sender(30)
    rest = b"".join(struct.pack("!H", each) for each in chunks) + deltas
    with deadline(10.0):
        for number in (0, base):
            sender.report(packet(number, count, rest))
    assert int(sender.estimate["target_bps"]) >= 30_000 or int(sender.log["feedbacks"]) == 0
