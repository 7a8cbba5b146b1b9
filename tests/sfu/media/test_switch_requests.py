"""Key frames that are requested because the bandwidth of viewers changed."""

from sfu.media.send.selection import (
    SWITCH_BURST,
    SWITCH_EVERY_NS,
    SWITCH_SHARED_NS,
    SWITCHES_DOWN,
    liveness_pass,
)
from sfu.media.stream.key_frames import KEY_FRAME_NS
from sfu.schema.bandwidth_codes import Held
from tests.sfu.media.test_sharing import SINGLE, Sharing
from tests.sfu.support.subscribers import MS, SECOND, SUBSCRIBER


def switches(room: Sharing, kbits: tuple[int, ...], seconds: int) -> int:
    """Requests of key frames while the estimate of one viewer takes these values in turns, a second each; each is
    answered."""
    requests = 0
    for second in range(seconds):
        room.share(kbits[second % len(kbits)], after=SECOND)
        subscription = room.subscription()
        subscription["failures"] = subscription["failed_ns"] = 0  # nothing else holds it back
        if room.requested():
            requests += 1
            room.keys()
        liveness_pass(room.record, room.now)
    return requests


def test_changes_of_bandwidth_ask_a_publisher_no_more_than_six_times_a_minute() -> None:
    room = Sharing(SINGLE)
    room.watch(kbit=800)
    room.keys()
    assert switches(room, (500, 800), 10) == SWITCH_BURST - SWITCHES_DOWN, "the others are kept"
    room.turn(SWITCH_BURST * SWITCH_EVERY_NS)
    seconds = 600
    assert 10 < switches(room, (500, 800), seconds) <= SWITCH_BURST + seconds * SECOND // SWITCH_EVERY_NS


def test_some_of_that_is_kept_for_those_who_need_less() -> None:
    room = Sharing(SINGLE)
    for _ in range(SWITCH_BURST):
        room.watch()
    for viewer in range(SWITCH_BURST):
        room.estimate(200 if viewer < SWITCHES_DOWN + 1 else 800, viewer)
    room.turn()
    room.keys()
    risen = 0
    for viewer in range(SWITCHES_DOWN + 1):
        room.share(800, viewer, after=SWITCH_SHARED_NS)
        risen += len(room.requested()) > 0
        room.forget_requests()
    assert risen == SWITCH_BURST - SWITCHES_DOWN
    room.share(300, SWITCH_BURST - 1, after=SWITCH_SHARED_NS)
    assert room.requested() == [0]


def test_a_picture_that_stands_does_not_wait_for_a_budget_that_is_used_up() -> None:
    """Without temporal layers nothing of the old layer is sent once it costs too much."""
    room = Sharing(SINGLE)
    room.watch(kbit=3_000)
    room.keys()
    room.track["switch_credit_ns"] = room.now + 100 * SWITCH_EVERY_NS
    room.share(300, after=SWITCH_SHARED_NS)
    assert (room.requested(), room.subscription()["held"]) == ([], Held.SWITCH)
    room.turn(KEY_FRAME_NS - SWITCH_SHARED_NS - MS)
    liveness_pass(room.record, room.now)
    assert room.requested() == []
    room.turn(MS)
    liveness_pass(room.record, room.now)
    assert room.requested() == [0]
    room.keys()
    assert room.subscription()["layer"] == 0


def test_switches_at_nearly_the_same_time_share_a_request() -> None:
    room = Sharing(SINGLE)
    room.watch(kbit=800)
    room.watch(kbit=800)
    room.keys()
    room.share(500, 0)
    assert room.requested() == [0]
    room.forget_requests()
    room.share(500, 1, after=SWITCH_SHARED_NS - MS)
    assert room.requested() == []
    room.keys()
    assert [int(room.subscription(viewer)["layer"]) for viewer in range(2)] == [0, 0]


def test_a_viewers_first_picture_is_no_switch() -> None:
    room = Sharing()
    room.track["switch_credit_ns"] = room.now + 100 * SWITCH_EVERY_NS
    room.track["live"] = 0b111
    room.watch(kbit=800)
    assert room.requested() == [1]
    assert room.viewers[0].row == SUBSCRIBER
