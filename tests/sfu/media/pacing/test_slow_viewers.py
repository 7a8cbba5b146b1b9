"""Viewers that are too slow for what they follow, with a hand clock: what they use up, what they ask for, what they
keep from others."""

import numpy as np

from sfu.media.pacing.pacer import PACE_NS
from sfu.media.pacing.pass_work import MAX_PASS_WORK
from sfu.media.pacing.skipping import OLD_NS
from sfu.media.rtcp.incoming import receive_compound
from sfu.media.send.budget import KEY_FRAME_FAST_NS, KEY_FRAME_REST_NS
from sfu.media.send.lost_keys import rests
from sfu.media.send.selection import liveness_pass, receive_key_frame_request
from sfu.media.send.waiting import end_waiting, renew_place, wait_from
from sfu.media.subscriptions import set_layers
from sfu.schema.bandwidth_codes import Held
from sfu.schema.capacities import CACHE_BYTES, PACKETS, SEQUENCE_START, TRACK_LOG
from tests.sfu.support.feedback_packet import transport_feedback
from tests.sfu.support.ice import drop_counts
from tests.sfu.support.paced import BODY, Stream, drain, prepared, second_track
from tests.sfu.support.subscribers import MS, SECOND, START_OF_KEY, Room

# Numbers and work of a pass.


def test_a_key_frame_that_others_overtook_uses_up_no_number_of_a_viewer_that_reports_nothing() -> None:
    room, [stream] = prepared(30_000)
    stream.frame(4)
    room.turn()
    room.viewers[0].take()
    assert not room.subscription()["last_marker"]
    room.memory.table("estimates")[room.viewers[0].row]["silent"] = 1
    old = int(room.subscription()["out_highest"])
    number, picture = stream.number, stream.picture

    def store(ahead: int, flags: int) -> None:
        """A packet of the key frame that comes after three more of the frame before it."""
        room.vp8(
            number + ahead, picture, start=flags == START_OF_KEY, flags=flags, timestamp=3_000 * picture, body=BODY
        )

    store(4, 0)
    room.vp8(number, picture - 1, start=False, flags=0, timestamp=3_000 * (picture - 1), body=BODY)
    room.pass_time(300 * MS)
    store(3, START_OF_KEY)
    for _ in range(100):
        room.turn(PACE_NS)
        assert room.memory.thread["pace_work"] < MAX_PASS_WORK // 8
    sent = room.viewers[0].take()
    assert room.subscription()["out_highest"] <= old + len(sent) + 1, "one gap"
    assert len({packet.sequence_number for packet in sent}) == len(sent)


# What the log has lost.


def test_an_entry_whose_packet_was_overwritten_is_left_out_and_counted() -> None:
    room, [stream] = prepared(100_000)
    stream.frame(20)
    room.turn()
    first = room.viewers[0].take()
    stream.number += PACKETS - 5
    stream.frame(1, key=True)
    got = first + drain(room)
    stamps = [packet.timestamp for packet in got]
    assert stamps == sorted(stamps), "no packet takes the place of an earlier one"
    assert drop_counts(room.memory)["log_overwritten"] > 0
    assert got[-1].marker


def lose(room: Room, stream: Stream) -> None:
    """Let so much more come than the log remembers."""
    for _ in range(TRACK_LOG // 8 + 8):
        stream.frame(8, body=b"tiny")
        room.turn(MS)
    room.turn(PACE_NS)


def test_what_a_slow_viewer_loses_is_requested_as_caused_by_bandwidth() -> None:
    room, [stream] = prepared(30_000)
    room.track["switches_ns"] = room.now + 1_000 * SECOND
    lose(room, stream)
    assert (room.subscription()["layer"], room.subscription()["by_bandwidth"]) == (-1, 1)
    assert not room.stream()["key_frame_requested"], "the budget is used up"
    receive_key_frame_request(room.record, 0, room.now)
    assert not room.stream()["key_frame_requested"]
    room.turn(4 * SECOND)
    liveness_pass(room.record, room.now)
    assert room.stream()["key_frame_requested"], "a picture does not stand for longer"


def test_a_viewer_that_loses_each_key_frame_asks_less_and_less() -> None:
    room, [stream] = prepared(30_000, cache=CACHE_BYTES["high"])
    asked: list[int] = []
    start, credit = room.now, 0
    while room.now < start + 180 * SECOND:
        liveness_pass(room.record, room.now)
        credit = int(room.track["switches_ns"][0])
        if room.stream()["key_frame_requested"]:
            asked.append(room.now - start)
            stream.frame(200, key=True)
            lose(room, stream)
        elif not asked:
            lose(room, stream)
        room.turn(100 * MS)
        room.viewers[0].take()
    assert credit > 0, "they were counted"
    assert 4 <= len(asked) <= 9
    assert len([at for at in asked if at < asked[0] + 10 * SECOND]) <= 3
    assert asked[-1] - asked[-2] > 60 * SECOND
    stream.frame(1, key=True)
    drain(room, milliseconds=30_000)
    assert room.subscription()["lost_keys"] == 0


def test_a_viewer_rests_no_longer_when_its_path_carries_twice_what_it_did_when_it_lost_key_frames() -> None:
    room, [stream] = prepared(30_000, cache=CACHE_BYTES["high"])
    for bps in (30_000, 40_000, 35_000):
        room.limit(bps)
        stream.frame(200, key=True)
        lose(room, stream)
        room.turn(4 * SECOND)
    subscription = room.subscription()
    assert subscription["lost_keys"] >= 2
    assert subscription["lost_bps"] == 40_000
    assert rests(room.record, subscription, int(subscription["lost_ns"]))
    room.limit(79_999)
    assert rests(room.record, subscription, int(subscription["lost_ns"]))
    room.limit(80_000)
    assert not rests(room.record, subscription, int(subscription["lost_ns"]))


def test_a_better_layer_whose_key_frame_was_lost_meanwhile_is_asked_for_within_the_budget() -> None:
    room, [low, high] = prepared(60_000, layers=2, cache=CACHE_BYTES["low"])
    set_layers(room.record, 0, 1, 3)
    low.frame(30)
    room.turn()
    high.frame(3, key=True)
    high.frame(70)
    assert room.stream(1)["cache_written"] > 70_000
    got = drain(room)
    assert room.subscription()["layer"] == 0
    assert [len(packet.payload) for packet in got].count(len(BODY) + 5) == len(got)
    assert room.subscription()["by_bandwidth"]
    low.frame(1)
    assert len(drain(room)) == 1, "the old layer goes on"


def test_a_viewer_whose_feedback_is_back_is_not_held_to_what_it_lost_meanwhile() -> None:
    room, [stream] = prepared(30_000)
    room.track["switches_ns"] = room.now + 1_000 * SECOND
    room.memory.table("estimates")[room.viewers[0].row]["silent"] = 1
    lose(room, stream)
    room.turn(OLD_NS)
    assert (room.subscription()["layer"], room.subscription()["by_bandwidth"]) == (-1, 1)
    assert not room.stream()["key_frame_requested"]
    number = int(room.transport()["next_number"]) - SEQUENCE_START - 1
    data = np.frombuffer(transport_feedback({number: room.now}, number, number, 0), np.uint8).copy()
    row = room.viewers[0].row
    receive_compound(room.record, room.memory.arena, data, len(data), row, room.now)
    assert room.stream()["key_frame_requested"]
    assert (room.subscription()["by_bandwidth"], room.subscription()["lost_keys"]) == (0, 0)


# Key frames that left slowly.


def test_a_key_frame_that_has_just_left_slowly_is_not_requested_again() -> None:
    room, [stream] = prepared(600_000)
    room.transport()["rtt_ns"] = 100 * MS
    stream.frame(60, key=True)
    drain(room)
    left = room.now
    assert left - int(room.stream()["key_ns"]) > 300 * MS
    receive_key_frame_request(room.record, 0, left + 90 * MS)
    assert not room.stream()["key_frame_requested"], "it is on its way"
    receive_key_frame_request(room.record, 0, left + 110 * MS)
    assert room.stream()["key_frame_requested"]


# Who comes first.


def with_a_screen(held: Held) -> Room:
    """A room whose viewer has a subscription to a shared screen too (row 1), of which something is not sent."""
    room, _ = prepared(300_000)
    second_track(room, screen=1)
    room.memory.table("subscriptions")[1]["held"] = held
    return room


def first_to_wait(room: Room) -> int:
    """Which subscription leaves first when both wait."""
    wait_from(room.record, 0, int(room.track["log_read"]))
    wait_from(room.record, 1, 0)
    return int(room.transport()["first_waiting"]) - 1


def test_a_screen_of_which_only_key_frames_are_sent_comes_last_when_these_do_not_end() -> None:
    room = with_a_screen(Held.KEY_FRAMES)
    assert first_to_wait(room) == 1
    assert not renew_place(room.record, 1, room.now + KEY_FRAME_FAST_NS - 1)
    assert first_to_wait(room) == 1
    assert renew_place(room.record, 1, room.now + KEY_FRAME_FAST_NS)
    assert first_to_wait(room) == 0
    assert not renew_place(room.record, 1, room.now + 10 * KEY_FRAME_FAST_NS), "it is the last"
    assert first_to_wait(room) == 0


def test_a_screen_takes_its_place_anew_when_nothing_of_it_waits_any_more() -> None:
    room = with_a_screen(Held.KEY_FRAMES)
    start = room.now
    assert first_to_wait(room) == 1
    assert renew_place(room.record, 1, start + KEY_FRAME_FAST_NS)
    for passed, first in ((KEY_FRAME_FAST_NS, 0), (KEY_FRAME_REST_NS - 1, 0), (KEY_FRAME_REST_NS, 1)):
        end_waiting(room.record, 0)
        end_waiting(room.record, 1)
        room.memory.thread["now_ns"] = start + passed
        assert first_to_wait(room) == first


def test_a_screen_that_is_sent_whole_again_takes_its_place_at_once() -> None:
    room = with_a_screen(Held.KEY_FRAMES)
    assert first_to_wait(room) == 1
    assert renew_place(room.record, 1, room.now + KEY_FRAME_FAST_NS)
    room.memory.table("subscriptions")[1]["held"] = Held.NOTHING
    assert not renew_place(room.record, 1, room.now + KEY_FRAME_FAST_NS)
    assert first_to_wait(room) == 1
    assert not renew_place(room.record, 1, room.now + 10 * KEY_FRAME_FAST_NS)
    assert first_to_wait(room) == 1
