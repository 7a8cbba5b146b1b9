"""The transport-cc log and the feedback made of it, read back by a decoder of its own."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfu.media.receive.transport_cc import (
    EARLY_COUNT,
    INTERVAL_NS,
    MAX_INTERVAL_NS,
    MAX_STATUSES,
    feedback_due,
    log_arrival,
    write_feedback,
)
from sfu.schema.capacities import ARRIVALS
from sfu.schema.memory import Memory
from tests.reference.transport_feedback import TransportFeedback, parse
from tests.sfu.support.publisher import MS, OUR_SSRC, ROW, START

TICK = 250_000
EPOCH_TICKS = 1 << 32  # 24 bits of 64 ms, 256 ticks each


class Log:
    """The log of one transport in a memory that tests share."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.row = memory.table("arrivals")[ROW]
        self.row["arrival_ns"] = 0
        for name in ("first", "count", "feedback_count", "media_ssrc", "sent_ns"):
            self.row[name] = 0
        self.row["highest"] = -1
        memory.table("transports")[ROW]["ssrc"] = OUR_SSRC

    def arrive(self, sequence: int, at: int, ssrc: int = 77) -> None:
        log_arrival(self.memory.record, ROW, sequence & 0xFFFF, ssrc, at)

    def feedback(self, now: int = START) -> TransportFeedback | None:
        room = np.zeros(1200, np.uint8)
        end = write_feedback(self.memory.record, ROW, room, 8, now)
        assert end <= 1100
        return parse(bytes(room[8:end])) if end > 8 else None

    def all_feedback(self) -> list[TransportFeedback]:
        found = []
        while self.row["count"] > 0 and (feedback := self.feedback()) is not None:
            found.append(feedback)
        return found


@pytest.fixture(scope="module")
def memory() -> Memory:
    return Memory()


@pytest.fixture
def log(memory: Memory) -> Log:
    return Log(memory)


def ticks(at: int) -> int:
    return (at // TICK) % EPOCH_TICKS


def merged(feedbacks: list[TransportFeedback]) -> dict[int, int | None]:
    result: dict[int, int | None] = {}
    for feedback in feedbacks:
        for number, arrival in feedback.arrivals.items():
            if arrival is not None or number not in result:
                result[number] = arrival
    return result


@pytest.mark.parametrize("first", [0, 100, 65530])
def test_arrivals_and_holes_are_reported(log: Log, first: int) -> None:
    for k in (0, 1, 2, 5, 9):
        log.arrive(first + k, START + k * MS)
    feedback = log.feedback()
    assert feedback is not None
    assert (feedback.sender_ssrc, feedback.media_ssrc, feedback.count) == (OUR_SSRC, 77, 0)
    expected = {(first + k) & 0xFFFF: ticks(START + k * MS) if k in (0, 1, 2, 5, 9) else None for k in range(10)}
    assert feedback.arrivals == expected


def test_the_next_feedback_goes_on_where_the_last_ended(log: Log) -> None:
    log.arrive(5, START)
    first = log.feedback()
    log.arrive(8, START + MS)
    second = log.feedback()
    assert first is not None
    assert second is not None
    assert list(first.arrivals) == [5]
    assert second.arrivals == {6: None, 7: None, 8: ticks(START + MS)}
    assert (first.count, second.count) == (0, 1)


def test_nothing_new_makes_no_feedback(log: Log) -> None:
    assert log.feedback() is None
    log.arrive(5, START)
    assert log.feedback() is not None
    assert log.feedback() is None
    assert not feedback_due(log.memory.record, ROW, START + 10 * INTERVAL_NS)


def test_a_late_number_is_reported_with_what_followed_it(log: Log) -> None:
    for k in (5, 7):
        log.arrive(k, START + k * MS)
    log.feedback()
    log.arrive(6, START + 9 * MS)
    feedback = log.feedback()
    assert feedback is not None
    assert feedback.arrivals == {6: ticks(START + 9 * MS), 7: ticks(START + 7 * MS)}


def test_a_repeated_number_changes_nothing(log: Log) -> None:
    log.arrive(5, START)
    log.arrive(5, START + MS)
    assert log.row["count"] == 1
    feedback = log.feedback()
    assert feedback is not None
    assert feedback.arrivals == {5: ticks(START)}


def test_a_pause_too_long_for_a_delta_starts_another_packet(log: Log) -> None:
    log.arrive(1, START)
    log.arrive(2, START + 9_000 * MS)
    log.arrive(3, START + 9_001 * MS)
    feedbacks = log.all_feedback()
    assert [list(f.arrivals) for f in feedbacks] == [[1], [2, 3]]
    assert merged(feedbacks)[3] == ticks(START + 9_001 * MS)


def test_deltas_may_be_negative_and_large(log: Log) -> None:
    times = {1: START + 500 * MS, 2: START, 3: START + 8_000 * MS}
    for sequence, at in times.items():
        log.arrive(sequence, at)
    assert merged(log.all_feedback()) == {sequence: ticks(at) for sequence, at in times.items()}


def test_a_jump_over_the_whole_log_forgets_what_is_behind(log: Log) -> None:
    log.arrive(1, START)
    log.arrive(2, START)
    log.arrive(2 + 5 * ARRIVALS, START + MS)
    feedbacks = log.all_feedback()
    assert all(len(f.arrivals) <= MAX_STATUSES for f in feedbacks)
    received = {key for f in feedbacks for key, value in f.arrivals.items() if value is not None}
    assert received == {2 + 5 * ARRIVALS}


def test_what_is_behind_the_log_is_not_believed(log: Log) -> None:
    log.arrive(5000, START)
    log.arrive(5000 - ARRIVALS, START)
    assert log.row["first"] == log.row["highest"]


def test_it_is_due_by_time_or_by_count(log: Log) -> None:
    record = log.memory.record
    log.row["sent_ns"] = START
    log.arrive(0, START)
    assert not feedback_due(record, ROW, START + INTERVAL_NS - 1)
    assert feedback_due(record, ROW, START + INTERVAL_NS)
    for k in range(1, EARLY_COUNT + 1):
        log.arrive(k, START)
    assert feedback_due(record, ROW, START + 1)


def test_where_the_way_to_the_client_is_narrow_it_is_due_less_often(log: Log) -> None:
    record = log.memory.record
    log.row["sent_ns"], log.row["sent_bytes"] = START, 100
    log.arrive(0, START)
    transports = log.memory.table("transports")
    transports[ROW]["downlink"] = ROW + 2
    for bps, interval in ((1_000_000, INTERVAL_NS), (200_000, 133_333_333), (50_000, MAX_INTERVAL_NS)):
        transports[ROW + 1]["estimate_bps"] = bps
        assert not feedback_due(record, ROW, START + interval - 1)
        assert feedback_due(record, ROW, START + interval)
    for k in range(1, EARLY_COUNT + 1):
        log.arrive(k, START)
    assert feedback_due(record, ROW, START + 1), "a log that fills up does not wait"


@st.composite
def arrivals(draw: Any) -> list[tuple[int, int]]:
    """(transport-wide number not yet wrapped, arrival): mostly in order, with losses, overtaking and pauses."""
    sequence, at, found = draw(st.integers(0, 65535)), START, []
    for _ in range(draw(st.integers(1, 120))):
        sequence += draw(st.sampled_from([1, 1, 1, 1, 2, 3, 20]))
        at += draw(st.sampled_from([0, 100_000, 250_000, 3 * MS, 70 * MS, 9_000 * MS]))
        late = draw(st.sampled_from([0, 0, 0, 0, 1, 5]))
        found.append((max(sequence - late, 0), at))
    return found


@given(found=arrivals())
@settings(max_examples=300, deadline=None)
def test_every_arrival_is_reported_once_it_fits_the_log(memory: Memory, found: list[tuple[int, int]]) -> None:
    log = Log(memory)
    expected: dict[int, int] = {}
    feedbacks: list[TransportFeedback] = []
    for sequence, at in found:
        log.arrive(sequence, at)
        if sequence >= found[0][0] - ARRIVALS // 2:
            expected.setdefault(sequence & 0xFFFF, ticks(at))
        if log.row["highest"] - log.row["first"] >= EARLY_COUNT:
            feedbacks += log.all_feedback()
    feedbacks += log.all_feedback()
    received = {key: value for key, value in merged(feedbacks).items() if value is not None}
    assert received == expected
    assert [f.count for f in feedbacks] == [k & 255 for k in range(len(feedbacks))]
