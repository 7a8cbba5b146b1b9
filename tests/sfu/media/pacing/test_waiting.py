"""Who waits for a path: in which order, what ends it, repeats, and what a pass over all of them may cost."""

import pytest

from sfu.media.net.udp import flush
from sfu.media.pacing.pacer import PACE_NS, pace
from sfu.media.pacing.pass_work import MAX_PASS_WORK, PACKET_WORK
from sfu.media.pacing.skipping import BEHIND_NS, OLD_NS
from sfu.media.pacing.video import LOOK_AHEAD
from sfu.media.send.egress import forward_all
from sfu.media.send.retransmit import answer_nack
from sfu.media.send.waiting import wait_from
from sfu.media.subscriptions import close_subscription, open_subscription, prioritise, set_paused
from sfu.media.tracks import close_track
from sfu.schema.capacities import CACHE_BYTES, TRACK_LOG
from sfu.schema.codes import Drop, RowState
from sfu.schema.send_log_tables import AT_ONCE
from tests.sfu.support.ice import drop_counts
from tests.sfu.support.paced import Stream, drain, drain_after_turn, numbers, prepared, second_track
from tests.sfu.support.subscribers import FIRST, MS, SECOND, Room

# Order.


@pytest.mark.parametrize(
    ("first", "second", "order"),
    [
        ((1, 0), (2, 0), [0, 1]),
        ((2, 0), (1, 0), [1, 0]),
        ((0, 100), (7, 0), [1, 0]),  # no priority is the lowest
        ((0, 100), (0, 200), [1, 0]),
        ((0, 200), (0, 100), [0, 1]),
        ((0, 100), (0, 100), [0, 1]),  # who began to wait first
    ],
)
def test_the_more_important_video_leaves_first(
    first: tuple[int, int], second: tuple[int, int], order: list[int]
) -> None:
    room, [stream] = prepared(300_000)
    second_track(room)
    prioritise(room.record, 0, *first)
    prioritise(room.record, 1, *second)
    wait_from(room.record, 0, int(room.track["log_read"]))
    wait_from(room.record, 1, 0)
    listed, at = [], int(room.transport()["first_waiting"])
    while at:
        listed.append(at - 1)
        at = int(room.memory.table("subscriptions")[at - 1]["waits_next"])
    assert listed == order
    stream.frame()
    assert len(drain(room)) == 1


def test_a_screen_comes_before_what_is_shown_larger() -> None:
    room, _ = prepared(300_000)
    second_track(room, screen=1)
    prioritise(room.record, 0, 0, 1_000_000)
    prioritise(room.record, 1, 0, 100)
    wait_from(room.record, 0, int(room.track["log_read"]))
    wait_from(room.record, 1, 0)
    assert room.transport()["first_waiting"] == 2


# Rows that come and go.


def waiting() -> tuple[Room, Stream]:
    room, [stream] = prepared(200_000)
    stream.frame(30)
    room.turn()
    assert room.subscription()["waits_at"] >= 0
    room.viewers[0].take()
    return room, stream


def assert_nothing_waits(room: Room) -> None:
    room.turn(PACE_NS)
    room.turn(SECOND)
    assert room.viewers[0].take() == []
    assert room.transport()["first_waiting"] == 0
    assert not room.transport()["pace_listed"]
    assert room.memory.thread["first_paced"] == 0


def test_nothing_is_sent_of_what_waits_on_a_subscription_that_ends() -> None:
    room, _ = waiting()
    close_subscription(room.record, 0)
    assert_nothing_waits(room)


def test_a_pause_drops_what_waits_and_its_end_begins_with_a_key_frame() -> None:
    room, stream = waiting()
    set_paused(room.record, 0, 1)
    assert_nothing_waits(room)
    room.turn(2 * SECOND)
    set_paused(room.record, 0, 0)
    stream.frame(2)
    room.turn()
    assert room.viewers[0].take() == []
    stream.frame(2, key=True)
    assert len(drain_after_turn(room, room.viewers[0])) == 2


def test_what_waits_of_a_track_that_ends_is_dropped() -> None:
    room, _ = waiting()
    close_track(room.record, 0)
    assert_nothing_waits(room)


def test_a_transport_that_closes_while_listed_is_listed_anew_by_its_next_use() -> None:
    room, stream = waiting()
    close_subscription(room.record, 0)
    room.transport()["state"] = RowState.FREE
    room.turn(PACE_NS)
    assert not room.transport()["pace_listed"]
    room.transport()["state"] = RowState.OPEN
    open_subscription(room.record, 0, room.now)
    stream.frame(30, key=True)
    assert len(drain_after_turn(room, room.viewers[0])) == 30


def test_while_a_path_is_lost_everything_waits() -> None:
    room, _ = waiting()
    path = int(room.transport()["path"])
    room.transport()["path"] = -1
    room.turn(50 * MS)
    assert room.viewers[0].take() == []
    room.transport()["path"] = path
    assert len(drain(room)) > 20


def test_nothing_of_a_source_that_was_replaced_is_sent() -> None:
    room, stream = waiting()
    before = int(room.subscription()["packets"])
    room.stream()["ssrc"] = 4_000
    room.stream()["key_sequence"] = -1
    room.stream()["highest"] = FIRST + 2_000 - 1
    stream.number = 2_000
    stream.frame(2)
    room.turn(100 * MS)
    assert room.viewers[0].take() == []
    assert room.subscription()["packets"] == before
    assert room.subscription()["layer"] == -1
    stream.frame(2, key=True)
    got = drain_after_turn(room, room.viewers[0])
    assert len(got) == 2
    assert got[0].timestamp == got[1].timestamp


# Repeats.


def test_repeats_are_spaced_and_leave_before_video_in_their_order() -> None:
    room, [stream] = prepared(8_000_000)
    stream.frame(6)
    room.turn()
    stream.frame(6)
    room.turn(100 * MS)
    lost = room.viewers[0].take()
    assert len(lost) == 12
    room.limit(400_000)
    log = room.memory.table("send_logs")[room.viewers[0].row]
    log["repair_bytes"] = 100_000
    room.memory.table("estimates")[room.viewers[0].row]["average_loss"] = 1.0
    room.turn(100 * MS)
    for packet in reversed(lost):
        log["repair_bytes"], log["repair_ns"] = 100_000, room.now
        answer_nack(room.record, room.memory.arena, 0, packet.sequence_number, room.now)
        answer_nack(room.record, room.memory.arena, 0, packet.sequence_number, room.now)
    room.collect()
    at_once = {packet.payload[:2] for packet in room.viewers[0].take()}
    assert 0 < len(at_once) < 6
    stream.frame(2)
    got = drain(room)
    repeated = [int.from_bytes(packet.payload[:2], "big") for packet in got if packet.payload_type == 101]
    asked = numbers(lost)
    assert repeated == asked[: 12 - len(at_once)], "each once, the oldest first"
    assert [packet.payload_type for packet in got[-2:]] == [100, 100]


def test_a_repeat_that_cannot_be_shown_any_more_is_left_out() -> None:
    room, [stream] = prepared(8_000_000)
    stream.frame(6)
    room.turn()
    lost = room.viewers[0].take()
    room.limit(50_000)
    log = room.memory.table("send_logs")[room.viewers[0].row]
    log["pace_bytes"] = int(log["bytes"]) - 5_000
    for packet in lost:
        log["repair_bytes"], log["repair_ns"] = 100_000, room.now
        answer_nack(room.record, room.memory.arena, 0, packet.sequence_number, room.now)
    assert room.subscription()["repairs_from"] > 0
    room.stream()["cache_oldest"] = int(room.stream()["cache_written"])
    assert drain(room) == []
    assert drop_counts(room.memory)["pacer_repair"] == 6


# Bounds.


def test_a_pass_has_a_bound_and_the_next_one_goes_on_with_the_others() -> None:
    room = Room()
    room.stream()["cache_bytes"] = CACHE_BYTES["high"]
    stream = Stream(room)
    count = 200
    for number in range(count):
        room.add_viewer()
        room.limit(20_000_000, number)
    stream.frame(30, key=True)
    counts = room.memory.table("send_logs")["count"][room.viewers[0].row : room.viewers[-1].row + 1]
    before = counts * 0
    for turn in range(10):
        forward_all(room.record, room.memory.arena, room.now)
        pace(room.record, room.memory.arena, room.now)
        flush(room.record)  # the slots do not suffice for all; there is no socket, which is counted
        assert 0 < sum(counts - before) <= MAX_PASS_WORK // PACKET_WORK + AT_ONCE or turn > 6
        assert max(counts - before) <= AT_ONCE
        before = counts.copy()
        room.pass_time(PACE_NS)
    assert list(counts) == [30] * count


def test_one_who_makes_itself_listed_and_reports_nothing_any_more_costs_a_bounded_time() -> None:
    room, [stream] = prepared(30_000)
    room.memory.table("estimates")[room.viewers[0].row]["silent"] = 1
    for _ in range(2_000):
        stream.frame(1, body=b"tiny")
        room.turn(PACE_NS)
        assert room.memory.thread["pace_work"] <= TRACK_LOG + 10 * (PACKET_WORK + LOOK_AHEAD)
    assert BEHIND_NS < OLD_NS
    assert Drop.PACER_OLD.name.lower() in drop_counts(room.memory)
