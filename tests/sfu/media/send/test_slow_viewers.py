"""Viewers that are too slow for what they follow, with a hand clock: what they keep from others."""

from sfu.media.send.budget import KEY_FRAME_NS, KEY_FRAME_REST_NS
from sfu.media.send.waiting import end_waiting, renew_place, wait_from
from sfu.schema.bandwidth_codes import Held
from tests.sfu.support.paced import prepared, second_track
from tests.sfu.support.subscribers import Room


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
    assert not renew_place(room.record, 1, room.now + KEY_FRAME_NS - 1)
    assert first_to_wait(room) == 1
    assert renew_place(room.record, 1, room.now + KEY_FRAME_NS)
    assert first_to_wait(room) == 0
    assert not renew_place(room.record, 1, room.now + 10 * KEY_FRAME_NS), "it is the last"
    assert first_to_wait(room) == 0


def test_a_screen_takes_its_place_anew_when_nothing_of_it_waits_any_more() -> None:
    room = with_a_screen(Held.KEY_FRAMES)
    start = room.now
    assert first_to_wait(room) == 1
    assert renew_place(room.record, 1, start + KEY_FRAME_NS)
    for passed, first in ((KEY_FRAME_NS, 0), (KEY_FRAME_REST_NS - 1, 0), (KEY_FRAME_REST_NS, 1)):
        end_waiting(room.record, 0)
        end_waiting(room.record, 1)
        room.memory.thread["now_ns"] = start + passed
        assert first_to_wait(room) == first


def test_a_screen_that_is_sent_whole_again_takes_its_place_at_once() -> None:
    room = with_a_screen(Held.KEY_FRAMES)
    assert first_to_wait(room) == 1
    assert renew_place(room.record, 1, room.now + KEY_FRAME_NS)
    room.memory.table("subscriptions")[1]["held"] = Held.NOTHING
    assert not renew_place(room.record, 1, room.now + KEY_FRAME_NS)
    assert first_to_wait(room) == 1
    assert not renew_place(room.record, 1, room.now + 10 * KEY_FRAME_NS)
    assert first_to_wait(room) == 1
