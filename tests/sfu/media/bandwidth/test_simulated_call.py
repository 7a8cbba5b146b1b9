"""A whole call in simulated time: what leaves for a viewer, its feedback, and the estimate that comes of both."""

import pytest

from tests.sfu.support.simulated_call import START, SimulatedCall, Viewer, simulated_call
from tests.sfu.support.simulated_link import MS, Link

pytestmark = pytest.mark.timeout(600)  # kernels that are not in the cache are compiled first

AMPLE_BPS = 20_000_000


def estimate(call: SimulatedCall, viewer: Viewer, name: str) -> int:
    return int(call.memory.table("estimates")[viewer.row][name])


def log(call: SimulatedCall, viewer: Viewer, name: str) -> int:
    return int(call.memory.table("send_logs")[viewer.row][name])


def test_every_packet_over_a_whole_link_is_reported_once() -> None:
    with simulated_call() as call:
        call.publish(150_000)
        viewer = call.view(Link(START, ((0.0, AMPLE_BPS),)))
        call.run(3.0)
        assert log(call, viewer, "feedbacks") == pytest.approx(30, abs=2)
        assert log(call, viewer, "reported_lost") == 0
        sent = log(call, viewer, "count")
        states = call.memory.table("send_logs")[viewer.row]["entries"]["state"]
        assert 0 < sent < len(states)
        assert int((states[: sent - 40] == 2).all())


def test_a_round_trip_is_that_of_the_link_and_the_wait_for_feedback() -> None:
    with simulated_call() as call:
        call.publish(150_000)
        viewer = call.view(Link(START, ((0.0, AMPLE_BPS),), delay_ns=60 * MS), Link(START, delay_ns=40 * MS))
        call.run(3.0)
        assert 100 * MS <= estimate(call, viewer, "rtt_ns") <= 140 * MS


def test_an_estimate_falls_to_what_a_link_carries() -> None:
    with simulated_call() as call:
        call.publish(150_000, 500_000, 1_700_000)
        viewer = call.view(Link(START, ((0.0, 4_000_000), (10.0, 700_000))))
        call.run(13.0)
        assert estimate(call, viewer, "target_bps") < 1.1 * 700_000


def test_another_path_is_probed_anew() -> None:
    with simulated_call() as call:
        call.publish(150_000, 500_000, 1_700_000)
        viewer = call.view(Link(START, ((0.0, AMPLE_BPS),)))
        call.run(0.1)
        call.memory.table("estimates")[viewer.row]["preferred_bps"] = 3_000_000
        call.run(5.0)
        before, clusters = estimate(call, viewer, "target_bps"), estimate(call, viewer, "last_cluster")
        assert before > 2_000_000
        transport, paths = call.memory.table("transports")[viewer.row], call.memory.table("paths")
        other = int(transport["path"]) + 100
        paths[other] = paths[int(transport["path"])]
        transport["path"] = other
        call.run(0.1)
        assert 30_000 < estimate(call, viewer, "target_bps") <= before
        call.run(3.0)
        assert estimate(call, viewer, "last_cluster") > clusters
        transport["path"] = other - 100


def test_probes_carry_the_estimate_above_what_is_sent_and_not_beyond_what_is_preferred() -> None:
    with simulated_call() as call:
        call.publish(300_000)
        viewer = call.view(Link(START, ((0.0, AMPLE_BPS),)))
        call.run(0.1)
        call.memory.table("estimates")[viewer.row]["preferred_bps"] = 2_000_000
        call.run(6.0)
        assert 1_500_000 < estimate(call, viewer, "target_bps") < 4_400_000
        assert viewer.seconds[5].sent_bytes * 8 < 500_000  # what was sent between probes is the media
        assert int(call.memory.thread["probe_bytes"]) < 100_000


def test_a_probe_that_cannot_be_filled_takes_nothing_from_the_estimate() -> None:
    with simulated_call() as call:
        call.publish(150_000, 500_000, 1_700_000)
        viewer = call.view(Link(START, ((0.0, AMPLE_BPS),)), rtx=False)
        call.run(1.0)
        lowest = estimate(call, viewer, "target_bps")
        for _ in range(80):
            call.run(0.1)
            lowest = min(lowest, estimate(call, viewer, "target_bps"))
        assert estimate(call, viewer, "last_cluster") > 1
        assert lowest >= 1_700_000  # the first cluster came together with a key frame, which filled it


def test_slow_probes_are_small() -> None:
    with simulated_call() as call:
        call.publish(60_000)
        viewer = call.view(Link(START, ((0.0, 150_000),), queue_ns=1_000 * MS))
        call.run(0.1)
        call.memory.table("estimates")[viewer.row]["preferred_bps"] = 240_000
        call.memory.table("estimates")[viewer.row]["target_bps"] = 100_000
        call.memory.table("estimates")[viewer.row]["delay_bps"] = 100_000
        call.run(6.0)
        assert estimate(call, viewer, "last_cluster") > 0
        assert max(each.queue_ns for each in viewer.seconds) < 200 * MS


def test_without_video_nothing_is_probed() -> None:
    with simulated_call() as call:
        call.publish()
        viewer = call.view(Link(START, ((0.0, AMPLE_BPS),)))
        call.run(5.0)
        assert estimate(call, viewer, "last_cluster") == 0
        assert int(call.memory.thread["probe_bytes"]) == 0
        assert viewer.seconds[3].audio == 50


def test_a_viewer_without_feedback_has_no_estimate_that_was_measured() -> None:
    with simulated_call() as call:
        call.publish(150_000)
        viewer = call.view(Link(START, ((0.0, AMPLE_BPS),)), reports=False)
        call.run(5.0)
        assert log(call, viewer, "count") > 0
        assert estimate(call, viewer, "feedbacks") == 0
        assert viewer.seconds[4].frames >= 29
