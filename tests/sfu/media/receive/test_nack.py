"""What to ask for again, when, and when to stop."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfu.media.receive.nack import (
    LATE_NS,
    MAX_REPAIR_NS,
    MAX_TRIES,
    MIN_RETRY_NS,
    SPARE_TRIES,
    UNKNOWN_RTT_NS,
    drop_before,
    is_due,
    measure_repair,
    note_gap,
    recovered,
    review,
)
from sfu.schema.capacities import MISSING, PACKETS
from sfu.schema.codes import MediaKind, PacketFlag
from tests.sfu.support.publisher import MS, START, Publisher

BASE = 70_000


@pytest.fixture(scope="module")
def publisher() -> Publisher:
    result = Publisher()
    result.add_track("0")
    return result


class Stream:
    def __init__(self, publisher: Publisher, kind: int = MediaKind.VIDEO) -> None:
        self.row = publisher.memory.record["streams"][0]
        self.row["missing_count"] = self.row["key_frame_requested"] = 0
        self.row["kind"] = kind
        self.row["highest"] = BASE
        self.transport = publisher.transport
        self.transport["repair_ns"] = 0
        self.record = publisher.record
        self.packets = publisher.memory.table("packets")[0]
        self.packets["sequence"] = 0

    def hold(self, number: int, *, whole: bool | int = True, payload: int = 100, **columns: int) -> None:
        """Let the packet cache have a packet, of a frame of its own if `whole`."""
        entry = self.packets[(BASE + number) & (PACKETS - 1)]
        entry["tl0_at"] = entry["tl0"] = entry["temporal"] = entry["spatial"] = entry["padding"] = 0
        entry["picture_id"] = entry["frame_number"] = -1
        entry["sequence"], entry["payload_at"], entry["size"] = BASE + number, 12, 12 + payload
        entry["flags"], entry["marker"] = (PacketFlag.FRAME_START | PacketFlag.FRAME_END, 1) if whole else (0, 0)
        for name, value in columns.items():
            entry[name] = value

    def tries(self, rtt: int = 50 * MS) -> int:
        """How often what is missing is asked for until nothing is."""
        now = START + LATE_NS
        for count in range(20):
            review(self.record, 0, rtt, now)
            if not self.missing:
                return count
            for entry in self.row["missing"][: int(self.row["missing_count"])]:
                entry["tries"], entry["asked_ns"] = entry["tries"] + 1, now
            now += rtt
        raise AssertionError("asked for without end")

    def gap(self, first: int, end: int, now: int = START) -> None:
        note_gap(self.row, BASE + first, BASE + end, now)
        self.row["highest"] = BASE + end

    @property
    def missing(self) -> list[int]:
        return [int(n) - BASE for n in self.row["missing"]["sequence"][: int(self.row["missing_count"])]]

    @property
    def key_frame_requested(self) -> bool:
        return bool(self.row["key_frame_requested"])


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
    assert stream.key_frame_requested


def test_a_gap_as_wide_as_the_list_is_asked_for(stream: Stream) -> None:
    stream.gap(1, 1 + MISSING)
    assert len(stream.missing) == MISSING
    assert not stream.key_frame_requested


def test_a_full_list_gives_up_its_oldest(stream: Stream) -> None:
    stream.gap(1, MISSING)
    stream.gap(1000, 1003)
    assert stream.missing == [*range(3, MISSING), 1000, 1001, 1002]
    assert stream.key_frame_requested


def test_audio_never_wants_a_key_frame(publisher: Publisher) -> None:
    stream = Stream(publisher, MediaKind.AUDIO)
    stream.gap(1, 5 + MISSING)
    stream.gap(1000, 1000 + MISSING)
    stream.gap(2000, 2001)
    assert not stream.key_frame_requested
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
    review(stream.record, 0, 50 * MS, START + 50 * MS - 1)
    assert stream.missing == [1, 2, 3]
    review(stream.record, 0, 50 * MS, START + 50 * MS)
    assert stream.missing == [3]
    assert stream.key_frame_requested


def test_what_can_no_longer_be_forwarded_asks_for_a_key_frame_at_once(stream: Stream) -> None:
    stream.gap(1, 3)
    stream.row["highest"] = BASE + PACKETS
    review(stream.record, 0, 50 * MS, START + 1)
    assert stream.missing == [1, 2]
    stream.row["highest"] = BASE + PACKETS + 1
    review(stream.record, 0, 50 * MS, START + 1)
    assert stream.missing == [2]
    assert stream.key_frame_requested


class TestNumbersThatNeverCome:
    def test_in_general_ten_requests_and_a_key_frame(self, stream: Stream) -> None:
        stream.hold(0)
        stream.hold(3)
        stream.gap(1, 3)
        assert stream.tries() == MAX_TRIES
        assert stream.key_frame_requested

    @pytest.mark.parametrize(("bytes_", "left", "right"), [(2, 0x7FFF, 0), (1, 0x7F, 0), (2, 5, 6)])
    def test_padding_between_two_pictures_is_not_asked_for(
        self, stream: Stream, bytes_: int, left: int, right: int
    ) -> None:
        stream.hold(0, picture_id=left, picture_bytes=bytes_)
        stream.hold(1, whole=False, payload=0)  # padding that came
        stream.hold(4, whole=False, payload=200, padding=200)
        stream.hold(5, picture_id=right, picture_bytes=bytes_)
        stream.gap(2, 4)
        assert stream.tries() == 0
        assert not stream.key_frame_requested

    def test_padding_lost_and_padding_that_came_may_alternate(self, stream: Stream) -> None:
        stream.hold(0, picture_id=7, picture_bytes=1)
        for number in range(1, 60, 2):
            stream.gap(number, number + 1)
            stream.hold(number + 1, whole=False, payload=250, padding=250)
        stream.hold(61, picture_id=8, picture_bytes=1)
        stream.row["highest"] = BASE + 61
        assert stream.tries() == 0
        assert not stream.key_frame_requested

    def test_each_gap_has_frames_of_its_own_around_it(self, stream: Stream) -> None:
        for number, picture in ((0, 7), (2, 8), (4, 10), (6, 11)):
            stream.hold(number, picture_id=picture, picture_bytes=1)
            stream.gap(number + 1, number + 2)
        stream.row["highest"] = BASE + 6
        drop_before(stream.row, BASE + 1)
        stream.row["missing_count"] = 3
        review(stream.record, 0, 50 * MS, START + LATE_NS)
        assert stream.missing == [3]

    def test_padding_between_two_frames_with_descriptors_is_not_asked_for(self, stream: Stream) -> None:
        stream.hold(0, frame_number=0xFFFF, marker=0)
        stream.hold(3, frame_number=0, spatial=1)
        stream.gap(1, 3)
        assert stream.tries() == 0
        assert not stream.key_frame_requested

    @pytest.mark.parametrize(
        ("left", "right"),
        [
            ({"picture_id": 5}, {"picture_id": 7}),
            ({"picture_id": 5, "marker": 0}, {"picture_id": 6}),
            ({"picture_id": 5}, {"picture_id": 6, "flags": PacketFlag.FRAME_END}),
            ({"picture_id": 5}, {"picture_id": 6, "spatial": 1}),
            ({"frame_number": 5}, {"frame_number": 7}),
            ({"frame_number": 5, "flags": PacketFlag.FRAME_START}, {"frame_number": 6}),
            ({}, {}),
        ],
    )
    def test_a_frame_may_be_missing_there(self, stream: Stream, left: dict[str, int], right: dict[str, int]) -> None:
        stream.hold(0, **{"picture_bytes": 2, **left})
        stream.hold(2, **{"picture_bytes": 2, **right})
        stream.gap(1, 2)
        assert stream.tries() == MAX_TRIES
        assert stream.key_frame_requested

    @pytest.mark.parametrize(
        ("left", "right"),
        [
            ({"tl0": 255}, {"tl0": 0}),
            ({"tl0": 4, "temporal": 2, "marker": 0}, {"tl0": 5}),
            ({"tl0": 4}, {"tl0": 4, "temporal": 1}),
            ({"tl0": 4}, {"tl0": 4, "temporal": 2, "flags": PacketFlag.FRAME_END}),
        ],
    )
    def test_frames_of_higher_layers_are_asked_for_thrice_and_need_no_key_frame(
        self, stream: Stream, left: dict[str, int], right: dict[str, int]
    ) -> None:
        stream.hold(0, tl0_at=4, **left)
        stream.hold(2, tl0_at=4, **right)
        stream.gap(1, 2)
        assert stream.tries() == SPARE_TRIES
        assert not stream.key_frame_requested

    @pytest.mark.parametrize(
        ("left", "right"),
        [
            ({"tl0": 4}, {"tl0": 6}),
            ({"tl0": 4, "marker": 0}, {"tl0": 5}),
            ({"tl0": 4}, {"tl0": 5, "temporal": 1}),
            ({"tl0": 4}, {"tl0": 5, "flags": PacketFlag.FRAME_END}),
            ({"tl0": 4}, {"tl0": 5, "spatial": 1}),
            ({"tl0": 4}, {"tl0": 4}),
        ],
    )
    def test_part_of_a_base_frame_may_be_missing_there(
        self, stream: Stream, left: dict[str, int], right: dict[str, int]
    ) -> None:
        stream.hold(0, tl0_at=4, **left)
        stream.hold(2, tl0_at=4, **right)
        stream.gap(1, 2)
        assert stream.tries() == MAX_TRIES
        assert stream.key_frame_requested


class TestRepairTime:
    def ask(self, stream: Stream, *times: int) -> None:
        entry = stream.row["missing"][0]
        entry["tries"], entry["asked_ns"] = len(times), START + times[-1]

    def test_the_answer_to_one_request_tells_it(self, stream: Stream) -> None:
        stream.gap(1, 2)
        measure_repair(stream.transport, stream.row, BASE + 1, START + 150 * MS)
        assert stream.transport["repair_ns"] == 0  # it was not asked for
        self.ask(stream, 20 * MS)
        measure_repair(stream.transport, stream.row, BASE + 1, START + 220 * MS)
        assert stream.transport["repair_ns"] == 200 * MS
        measure_repair(stream.transport, stream.row, BASE + 1, START + 300 * MS)
        assert stream.transport["repair_ns"] == 210 * MS
        measure_repair(stream.transport, stream.row, BASE + 9, START + 900 * MS)
        assert stream.transport["repair_ns"] == 210 * MS

    def test_of_several_requests_it_answers_the_first_while_nothing_is_known(self, stream: Stream) -> None:
        stream.gap(1, 2)
        self.ask(stream, 20 * MS, 120 * MS)
        measure_repair(stream.transport, stream.row, BASE + 1, START + 220 * MS)
        assert stream.transport["repair_ns"] == 220 * MS

    @pytest.mark.parametrize(("after", "sample"), [(40 * MS, 240 * MS), (90 * MS, 90 * MS)])
    def test_later_on_it_answers_the_last_unless_that_was_just_now(
        self, stream: Stream, after: int, sample: int
    ) -> None:
        stream.transport["repair_ns"] = 100 * MS
        stream.gap(1, 2)
        self.ask(stream, 20 * MS, 200 * MS)
        measure_repair(stream.transport, stream.row, BASE + 1, START + 200 * MS + after)
        assert stream.transport["repair_ns"] == (700 * MS + sample) // 8

    def test_it_is_bounded(self, stream: Stream) -> None:
        stream.gap(1, 2)
        self.ask(stream, 20 * MS)
        measure_repair(stream.transport, stream.row, BASE + 1, START + 60_000 * MS)
        assert stream.transport["repair_ns"] == MAX_REPAIR_NS


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
        if not stream.key_frame_requested:
            assert set(stream.missing) == wanted
