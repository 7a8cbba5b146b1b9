"""What to ask for again, when, and when to stop."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfu.missing import (
    LATE_NS,
    MAX_TRIES,
    MIN_RETRY_NS,
    UNKNOWN_RTT_NS,
    drop_before,
    give_up_tried,
    is_due,
    note_gap,
    recovered,
)
from sfu.tables import AUDIO, MISSING, VIDEO
from tests.sfu.publisher import MS, START, Publisher

BASE = 70_000


@pytest.fixture(scope="module")
def publisher() -> Publisher:
    result = Publisher()
    result.add_track("0")
    return result


class Stream:
    def __init__(self, publisher: Publisher, kind: int = VIDEO) -> None:
        self.row = publisher.memory.record["streams"][0]
        self.row["missing_count"] = self.row["key_wanted"] = 0
        self.row["kind"] = kind
        self.row["highest"] = BASE

    def gap(self, first: int, end: int, now: int = START) -> None:
        note_gap(self.row, BASE + first, BASE + end, now)
        self.row["highest"] = BASE + end

    @property
    def missing(self) -> list[int]:
        return [int(n) - BASE for n in self.row["missing"]["sequence"][: int(self.row["missing_count"])]]

    @property
    def key_wanted(self) -> bool:
        return bool(self.row["key_wanted"])


@pytest.fixture
def stream(publisher: Publisher) -> Stream:
    return Stream(publisher)


def test_a_gap_is_noted_in_order(stream: Stream) -> None:
    stream.gap(1, 4)
    stream.gap(5, 6)
    assert stream.missing == [1, 2, 3, 5]


def test_what_arrives_after_all_is_no_longer_missing(stream: Stream) -> None:
    stream.gap(1, 5)
    recovered(stream.row, BASE + 3)
    recovered(stream.row, BASE + 99)
    assert stream.missing == [1, 2, 4]


def test_a_gap_wider_than_the_list_wants_a_key_frame(stream: Stream) -> None:
    stream.gap(1, 3)
    stream.gap(4, 5 + MISSING)
    assert stream.missing == []
    assert stream.key_wanted


def test_a_gap_as_wide_as_the_list_is_asked_for(stream: Stream) -> None:
    stream.gap(1, 1 + MISSING)
    assert len(stream.missing) == MISSING
    assert not stream.key_wanted


def test_a_full_list_gives_up_its_oldest(stream: Stream) -> None:
    stream.gap(1, MISSING)
    stream.gap(1000, 1003)
    assert stream.missing == [*range(3, MISSING), 1000, 1001, 1002]
    assert stream.key_wanted


def test_audio_never_wants_a_key_frame(publisher: Publisher) -> None:
    stream = Stream(publisher, AUDIO)
    stream.gap(1, 5 + MISSING)
    stream.gap(1000, 1000 + MISSING)
    stream.gap(2000, 2001)
    assert not stream.key_wanted
    assert stream.missing[-1] == 2000


def test_before_a_key_frame_nothing_is_needed(stream: Stream) -> None:
    stream.gap(1, 5)
    drop_before(stream.row, BASE + 3)
    assert stream.missing == [3, 4]


def test_a_number_is_due_when_late_by_packets(stream: Stream) -> None:
    stream.gap(1, 2)
    assert not is_due(stream.row, 0, 0, START)
    stream.row["highest"] = BASE + 3
    assert is_due(stream.row, 0, 0, START)


def test_a_number_is_due_when_late_by_time(stream: Stream) -> None:
    stream.gap(1, 2)
    assert not is_due(stream.row, 0, 0, START + LATE_NS - 1)
    assert is_due(stream.row, 0, 0, START + LATE_NS)


@pytest.mark.parametrize(
    ("rtt", "interval"), [(0, UNKNOWN_RTT_NS), (5 * MS, MIN_RETRY_NS), (70 * MS, 70 * MS), (300 * MS, 300 * MS)]
)
def test_it_is_asked_for_again_after_a_round_trip(stream: Stream, rtt: int, interval: int) -> None:
    stream.gap(1, 2)
    stream.row["missing"][0]["tries"] = 1
    stream.row["missing"][0]["asked_ns"] = START
    assert not is_due(stream.row, 0, rtt, START + interval - 1)
    assert is_due(stream.row, 0, rtt, START + interval)


def test_the_last_try_is_given_its_time(stream: Stream) -> None:
    stream.gap(1, 4)
    entry = stream.row["missing"][1]
    entry["tries"], entry["asked_ns"] = MAX_TRIES, START
    give_up_tried(stream.row, 50 * MS, START + 50 * MS - 1)
    assert stream.missing == [1, 2, 3]
    give_up_tried(stream.row, 50 * MS, START + 50 * MS)
    assert stream.missing == [3]
    assert stream.key_wanted


steps = st.lists(st.tuples(st.sampled_from(["gap", "recovered", "key"]), st.integers(1, 200)), max_size=30)


@given(steps=steps)
@settings(deadline=None)
def test_the_list_stays_sorted_bounded_and_a_subset_of_what_is_missing(
    publisher: Publisher, steps: list[tuple[str, int]]
) -> None:
    stream = Stream(publisher)
    highest, wanted = 0, set()
    for step, size in steps:
        if step == "gap":
            wanted |= set(range(highest + 1, highest + size))
            stream.gap(highest + 1, highest + size)
            highest += size
        elif step == "recovered":
            recovered(stream.row, BASE + highest - size)
            wanted.discard(highest - size)
        else:
            drop_before(stream.row, BASE + highest - size)
            wanted = {n for n in wanted if n >= highest - size}
        assert stream.missing == sorted(set(stream.missing))
        assert len(stream.missing) <= MISSING
        assert set(stream.missing) <= wanted
        if not stream.key_wanted:
            assert set(stream.missing) == wanted
