"""What the pacer does for viewers behind narrow links, in simulated time: slides, audio, cuts, and those who need none
of it."""

from itertools import pairwise

import pytest

from sfu.media.pacing.skipping import OLD_NS
from sfu.parameters import Kind
from tests.sfu.support.ice import drop_counts
from tests.sfu.support.simulated_call import (
    OPUS,
    RTX,
    START,
    TURN_NS,
    VP8,
    Departure,
    Viewer,
    simulated_call,
)
from tests.sfu.support.simulated_link import MS, SECOND, Link

pytestmark = pytest.mark.timeout(600)  # kernels that are not in the cache are compiled first

SLIDE_BYTES = 150_000


def of_type(viewer: Viewer, payload_type: int, since: int) -> list[Departure]:
    return [each for each in viewer.left if each.payload_type == payload_type and each.at >= since]


def largest_frame(packets: list[Departure]) -> list[Departure]:
    """The packets of the frame that has most bytes."""
    sizes: dict[int, int] = {}
    for each in packets:
        sizes[each.timestamp] = sizes.get(each.timestamp, 0) + each.size
    largest = max(sizes, key=lambda timestamp: sizes[timestamp])
    return [each for each in packets if each.timestamp == largest]


@pytest.mark.parametrize(
    ("capacity", "queue_ms"),
    [(600_000, 110), (700_000, 130), (5_000_000, 100)],  # at 700 kbit/s a probe finds the slide in its way
)
def test_a_slide_is_shown_once_and_whole(capacity: int, queue_ms: int) -> None:
    with simulated_call() as call:
        publisher = call.publish(100_000)
        viewer = call.view(Link(START, ((0.0, capacity),), delay_ns=20 * MS, queue_ns=300 * MS))
        call.run(10.0)
        requests, dropped, since = publisher.key_requests, viewer.down.dropped, call.now
        if capacity > 600_000:
            call.memory.table("estimates")[viewer.row]["target_bps"] = 600_000
            call.memory.table("estimates")[viewer.row]["delay_bps"] = 600_000
        publisher.layers[0].slide = SLIDE_BYTES
        call.run(6.0)
        assert publisher.key_requests <= requests + 1
        assert viewer.down.dropped == dropped
        assert of_type(viewer, RTX, since) == [] or capacity > 600_000, "only probes repeat"
        slide = largest_frame(of_type(viewer, VP8, since))
        assert sum(each.size for each in slide) >= SLIDE_BYTES
        assert slide[-1].marker
        assert slide[-1].at - slide[0].at < 3 * SECOND
        assert max(each.queue_ns for each in viewer.seconds[10:16]) < queue_ms * MS
        audio = of_type(viewer, OPUS, since)
        assert {other.at - one.at for one, other in pairwise(audio)} == {20 * MS}
        numbers = [each.sequence for each in of_type(viewer, VP8, since)]
        assert numbers == [(numbers[0] + k) & 0xFFFF for k in range(len(numbers))]
        call.run(10.0)  # the measured cost of the slide has to be forgotten first
        assert viewer.seconds[25].frames >= 28


def test_what_nothing_limits_leaves_in_the_turn_in_which_it_came() -> None:
    with simulated_call() as call:
        call.publish(150_000, 500_000, 1_700_000)
        paced = call.view(Link(START, ((0.0, 50_000_000),), delay_ns=5 * MS))
        free = call.view(Link(START, ((0.0, 50_000_000),), delay_ns=5 * MS), reports=False)
        call.run(8.0)
        assert call.memory.table("transports")[free.row]["unreported"]
        since = call.now
        call.run(5.0)
        both = []
        for viewer in (paced, free):
            sent = [each for each in viewer.left if each.at >= since and each.payload_type in (VP8, OPUS)]
            first = {kind: next(each for each in sent if each.payload_type == kind) for kind in (VP8, OPUS)}
            both.append(
                [
                    (
                        each.at,
                        each.payload_type,
                        (each.sequence - first[each.payload_type].sequence) & 0xFFFF,
                        (each.timestamp - first[each.payload_type].timestamp) & 0xFFFFFFFF,
                        each.marker,
                    )
                    for each in sent
                ]
            )
        assert len(both[0]) > 1_000
        assert both[0] == both[1]


def test_what_was_cut_off_is_not_sent_when_it_is_old() -> None:
    with simulated_call() as call:
        publisher = call.publish(150_000, 500_000)
        down = Link(START, ((0.0, 2_000_000),), delay_ns=20 * MS)
        up = Link(START)
        viewer = call.view(down, up)
        call.run(10.0)
        assert viewer.seconds[9].layer == 1
        down.loss = up.loss = 1.0
        call.run(3.0)
        down.loss = up.loss = 0.0
        since, came = call.now, len(viewer.audio_times)
        stream = int(call.memory.table("subscriptions")[viewer.subscriptions_of(Kind.VIDEO)[0]]["stream"])
        ages = []

        def note() -> None:
            subscription = call.memory.table("subscriptions")[viewer.subscriptions_of(Kind.VIDEO)[0]]
            if subscription["waits_at"] >= 0 or subscription["last_ns"] < since:
                return
            ages.append(call.now - int(subscription["last_ns"]))

        call.run(1.0, note)
        assert stream >= 0
        assert max(ages) <= OLD_NS + FRAME_AND_TURN_NS
        assert viewer.audio_times[came] - since < 100 * MS
        assert any(since <= at < since + SECOND for at in viewer.frame_times)
        call.run(5.0)
        assert viewer.seconds[18].layer == 1
        assert publisher.key_requests <= 20


FRAME_AND_TURN_NS = 33 * MS + TURN_NS


def test_a_narrow_link_is_never_filled_by_key_frames() -> None:
    with simulated_call() as call:
        publisher = call.publish(150_000, 500_000, 1_700_000)
        viewer = call.view(Link(START, ((0.0, 900_000),), delay_ns=20 * MS, queue_ns=300 * MS))
        call.run(8.0)
        dropped = viewer.down.dropped
        for _ in range(6):
            for layer in publisher.layers:
                layer.key = True
            call.run(1.0)
        assert viewer.down.dropped == dropped
        assert max(each.queue_ns for each in viewer.seconds[9:14]) < 150 * MS
        assert min(each.frames for each in viewer.seconds[9:14]) >= 14


def test_a_slide_is_shown_once_where_the_track_has_more_packets_than_its_log_remembers() -> None:
    with simulated_call() as call:
        publisher = call.publish(100_000, 6_000_000)
        viewer = call.view(Link(START, ((0.0, 600_000),), delay_ns=20 * MS, queue_ns=300 * MS))
        call.run(10.0)
        assert {each.layer for each in viewer.seconds[5:10]} == {0}
        requests, since, size = publisher.key_requests, call.now, 110_000
        publisher.layers[0].slide = size
        call.run(8.0)
        slide = largest_frame(of_type(viewer, VP8, since))
        assert sum(each.size for each in slide) >= size
        assert slide[-1].marker
        assert publisher.key_requests <= requests + 1


def test_a_slide_that_is_too_large_for_a_path_is_not_asked_for_again_and_again() -> None:
    with simulated_call() as call:
        publisher = call.publish(100_000)
        viewer = call.view(Link(START, ((0.0, 600_000),), delay_ns=20 * MS, queue_ns=300 * MS))
        call.run(10.0)
        requests = publisher.key_requests
        asked: list[int] = []

        def answer() -> None:
            """Each key frame of this picture is as large."""
            layer = publisher.layers[0]
            if layer.key:
                layer.slide = 4 * SLIDE_BYTES
            if publisher.key_requests > requests + len(asked):
                asked.append(call.now)

        publisher.layers[0].slide = 4 * SLIDE_BYTES
        call.run(80.0, answer)
        assert len(asked) <= 8
        assert len([at for at in asked if at < asked[0] + 10 * SECOND]) <= 3
        assert asked[-1] - asked[-2] > 25 * SECOND
        assert drop_counts(call.memory)["pacer_overtaken"] > 0
        audio = of_type(viewer, OPUS, START + 10 * SECOND)
        assert {other.at - one.at for one, other in pairwise(audio)} == {20 * MS}


def test_a_screen_of_key_frames_only_does_not_stop_the_other_videos() -> None:
    with simulated_call() as call:
        screen = call.publish(1_500_000, audio=False)
        call.memory.table("tracks")[screen.tracks[Kind.VIDEO]]["screen"] = 1
        camera = call.publish(100_000, audio=False)
        viewer = call.view(Link(START, ((0.0, 500_000),), delay_ns=20 * MS, queue_ns=300 * MS))

        def only_keys() -> None:
            screen.layers[0].key = True

        call.run(30.0, only_keys)
        number = next(
            ssrc for ssrc, (_, row) in viewer.subscriptions.items() if row == viewer.subscription_to(camera, Kind.VIDEO)
        )
        shown = [at for at in viewer.screens[number].shown if at >= START + 10 * SECOND]
        assert len(shown) >= 20 * 15
        assert max(other - one for one, other in pairwise(shown)) < 2_500 * MS
