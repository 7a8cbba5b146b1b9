"""What viewers are sent whose feedback never comes, stops, or speaks of another path: in simulated time."""

from itertools import pairwise

import pytest

from sfu.schema.bandwidth_codes import Rung
from sfu.schema.estimate_tables import MAX_BPS
from tests.sfu.support.simulated_call import START, SimulatedCall, Viewer, simulated_call
from tests.sfu.support.simulated_link import MS, SECOND, Link

pytestmark = pytest.mark.timeout(600)  # kernels that are not in the cache are compiled first

LAYERS = 150_000, 500_000, 1_700_000
AMPLE_BPS = 5_000_000


def video(call: SimulatedCall, viewer: Viewer) -> tuple[int, int]:
    """(layer being forwarded, rung allocated) of a viewer's video."""
    rows = [row for kind, row in viewer.subscriptions.values() if kind.value == "video"]
    row = call.memory.table("subscriptions")[rows[0]]
    return int(row["layer"]), int(row["rung"])


def estimate(call: SimulatedCall, viewer: Viewer, name: str = "target_bps") -> int:
    return int(call.memory.table("estimates")[viewer.row][name])


def transport(call: SimulatedCall, viewer: Viewer, name: str) -> int:
    return int(call.memory.table("transports")[viewer.row][name])


def sent_bps(viewer: Viewer, first: int, last: int) -> int:
    return sum(each.sent_bytes for each in viewer.seconds[first:last]) * 8 // (last - first)


def without_transport_cc(call: SimulatedCall, down: Link) -> Viewer:
    viewer = call.view(down, transport_cc=False, reports=False)
    viewer.blocks = True
    return viewer


# Feedback never comes.


def test_clean_reports_limit_nothing() -> None:
    with simulated_call() as call:
        call.publish(*LAYERS)
        viewer = without_transport_cc(call, Link(START, ((0.0, AMPLE_BPS),)))
        call.run(15.0)
        assert video(call, viewer) == (2, Rung.NONE)
        assert sent_bps(viewer, 5, 15) > 1_800_000
        assert not transport(call, viewer, "estimated"), "nothing is kept for it either"


def test_some_loss_limits_nothing() -> None:
    with simulated_call() as call:
        call.publish(*LAYERS)
        viewer = without_transport_cc(call, Link(START, ((0.0, AMPLE_BPS),), loss=0.05))
        call.run(15.0)
        assert video(call, viewer) == (2, Rung.NONE)


def test_reports_of_much_loss_bring_it_to_what_the_link_carries_and_without_loss_back() -> None:
    with simulated_call() as call:
        call.publish(*LAYERS)
        viewer = without_transport_cc(call, Link(START, ((0.0, AMPLE_BPS), (5.0, 700_000), (25.0, AMPLE_BPS))))
        call.run(25.0)
        assert sent_bps(viewer, 5, 6) > 1_500_000, "until the first report"
        narrow = viewer.seconds[12:25]
        assert sent_bps(viewer, 12, 25) < 1.2 * 700_000
        assert sum(each.layer > 1 for each in narrow) <= 3, "one try of more than was proven, taken back"
        assert sum(each.received_bytes for each in narrow) > 0.8 * sum(each.sent_bytes for each in narrow)
        assert sum(each.audio for each in narrow) > 0.85 * 50 * len(narrow)
        call.run(35.0)
        assert viewer.seconds[58].layer == 2


def test_what_the_publisher_lost_is_not_the_viewers_loss() -> None:
    with simulated_call() as call:
        publisher = call.publish(*LAYERS)
        publisher.loss = 0.2
        viewer = without_transport_cc(call, Link(START, ((0.0, AMPLE_BPS),)))
        call.run(15.0)
        assert not transport(call, viewer, "estimated")
        assert video(call, viewer)[1] == Rung.NONE
        viewer.down.loss = 0.2
        call.run(5.0)
        assert transport(call, viewer, "estimated")
        assert estimate(call, viewer) < MAX_BPS


def test_repeats_are_bounded_once_reports_limit() -> None:
    with simulated_call() as call:
        call.publish(*LAYERS)
        viewer = without_transport_cc(call, Link(START, ((0.0, 5_000_000), (5.0, 250_000))))
        call.run(25.0)
        assert sent_bps(viewer, 17, 25) < 400_000


def test_a_receivers_estimate_limits_and_is_tried_beyond_while_nothing_is_lost() -> None:
    with simulated_call() as call:
        call.publish(*LAYERS)
        viewer = without_transport_cc(call, Link(START, ((0.0, AMPLE_BPS),)))
        call.run(5.0)
        for _ in range(5):
            viewer.remb(600_000)
            call.run(1.0)
        assert {each.layer for each in viewer.seconds[8:10]} <= {0, 1}
        assert transport(call, viewer, "estimate_bps") < 1_000_000
        for second in range(45):
            viewer.remb(600_000 if second < 20 else 4_000_000)
            call.run(1.0)
        assert viewer.seconds[54].layer == 2


def test_a_viewer_that_says_no_more_what_it_can_receive_is_limited_no_more() -> None:
    with simulated_call() as call:
        call.publish(*LAYERS)
        viewer = without_transport_cc(call, Link(START, ((0.0, AMPLE_BPS),)))
        call.run(3.0)
        viewer.remb(200_000)
        call.run(3.0)
        assert video(call, viewer)[0] == 0
        call.run(14.0)
        assert video(call, viewer) == (2, Rung.NONE)


def test_reports_are_no_reason_to_pause() -> None:
    with simulated_call() as call:
        call.publish(*LAYERS)
        viewer = without_transport_cc(call, Link(START, ((0.0, AMPLE_BPS),)))
        call.memory.table("transports")[viewer.row]["may_pause"] = 1
        call.run(3.0)
        viewer.remb(0)
        call.run(3.0)
        assert video(call, viewer)[1] == Rung.KEY_FRAMES_ONLY, "paused, it could never report that more gets through"


# Feedback stops.


def test_a_viewer_whose_feedback_stops_has_the_lowest_layer_and_is_probed_when_it_returns() -> None:
    with simulated_call() as call:
        call.publish(*LAYERS)
        viewer = call.view(Link(START, ((0.0, AMPLE_BPS),)))
        call.run(8.0)
        assert video(call, viewer)[0] == 2
        before, clusters = estimate(call, viewer), estimate(call, viewer, "last_cluster")
        viewer.reports = False
        call.run(2.5)
        assert estimate(call, viewer, "silent")
        assert video(call, viewer)[0] == 0
        assert before / 8 < estimate(call, viewer) <= before / 2
        targets = [estimate(call, viewer)]
        for _ in range(3):
            call.run(1.0)
            targets.append(estimate(call, viewer))
        assert all(later == pytest.approx(earlier / 2, rel=0.01) for earlier, later in pairwise(targets))
        assert estimate(call, viewer, "last_cluster") == clusters, "nothing is probed blindly"
        viewer.reports = True
        call.run(1.0)
        assert estimate(call, viewer, "last_cluster") > clusters
        assert not estimate(call, viewer, "silent")
        call.run(5.0)
        assert video(call, viewer)[0] == 2


def test_who_is_paused_for_silence_is_told_the_reason() -> None:
    with simulated_call() as call:
        call.publish(*LAYERS)
        viewer = call.view(Link(START, ((0.0, AMPLE_BPS),)))
        call.run(5.0)
        viewer.reports = False
        call.run(3.0)
        rows = [row for kind, row in viewer.subscriptions.values() if kind.value == "video"]
        assert call.memory.table("subscriptions")[rows[0]]["reason"] == 1  # bandwidth


@pytest.mark.parametrize("begin", [10.0, 10.4])
def test_a_cut_of_both_directions_is_over_soon(begin: float) -> None:
    with simulated_call() as call:
        call.publish(*LAYERS)
        cut = (begin, begin + 3.0)
        down = Link(START, ((0.0, AMPLE_BPS),), delay_ns=20 * MS, cuts=(cut,))
        viewer = call.view(down, Link(START, delay_ns=20 * MS, cuts=(cut,)))
        call.run(begin + 12.0)
        end = START + int((begin + 3.0) * SECOND)
        assert viewer.seconds[9].layer == 2
        assert min(at for at in viewer.audio_times if at >= end) < end + 60 * MS
        assert min(at for at in viewer.key_times if at >= end) < end + SECOND
        assert {each.layer for each in viewer.seconds[int(begin) + 9 :]} == {2}
        assert not estimate(call, viewer, "silent")


def test_what_was_lost_in_a_cut_is_no_sign_of_congestion() -> None:
    with simulated_call() as call:
        call.publish(*LAYERS)
        cut = (10.0, 13.0)
        viewer = call.view(Link(START, ((0.0, AMPLE_BPS),), cuts=(cut,)), Link(START, cuts=(cut,)))
        call.run(10.0)
        before = estimate(call, viewer)
        call.run(5.0)
        assert estimate(call, viewer) > before / 2, "a second and a half after the cut"
        assert call.memory.table("estimates")[viewer.row]["average_loss"] < 0.1


# Another path.


def test_after_a_change_of_port_the_new_path_is_judged_alone() -> None:
    with simulated_call() as call:
        call.publish(*LAYERS)
        viewer = call.view(Link(START, ((0.0, AMPLE_BPS),)))
        call.run(10.0)
        before, path = estimate(call, viewer), transport(call, viewer, "path")
        clusters = estimate(call, viewer, "last_cluster")
        viewer.move()
        viewer.down = Link(call.now, ((0.0, 700_000),), delay_ns=60 * MS)
        call.run(0.3)
        assert transport(call, viewer, "path") != path
        assert estimate(call, viewer) <= before
        assert estimate(call, viewer, "last_cluster") > clusters
        call.run(10.0)
        assert 300_000 < estimate(call, viewer) < 900_000
        assert estimate(call, viewer, "rtt_ns") > 60 * MS
        viewer.move()
        viewer.down = Link(call.now, ((0.0, AMPLE_BPS),))
        call.run(12.0)
        assert video(call, viewer)[0] == 2


def test_who_changes_its_port_again_and_again_is_not_probed_each_time() -> None:
    with simulated_call() as call:
        call.publish(*LAYERS)
        viewer = call.view(Link(START, ((0.0, 20_000_000),)))
        call.run(8.0)
        clusters = estimate(call, viewer, "last_cluster")
        paths = {transport(call, viewer, "path")}
        for _ in range(8):
            viewer.move()
            call.run(0.5)
            paths.add(transport(call, viewer, "path"))
        assert len(paths) >= 6
        assert estimate(call, viewer, "last_cluster") <= clusters + 4


def test_reports_about_the_old_path_do_not_limit_the_new_one() -> None:
    with simulated_call() as call:
        call.publish(*LAYERS)
        viewer = without_transport_cc(call, Link(START, ((0.0, AMPLE_BPS), (5.0, 300_000))))
        call.run(12.0)
        assert transport(call, viewer, "estimate_bps") > 0
        viewer.move()
        viewer.down = Link(call.now, ((0.0, AMPLE_BPS),))
        call.run(10.0)
        assert video(call, viewer)[0] == 2


# Who was here before.


def test_who_comes_again_begins_where_the_path_was() -> None:
    with simulated_call() as call:
        call.publish(*LAYERS)
        known = call.view(Link(START, ((0.0, AMPLE_BPS),)), path_memory=3_000_000)
        unknown = call.view(Link(START, ((0.0, AMPLE_BPS),)))
        call.run(0.3)
        assert estimate(call, known) >= 2_500_000
        assert estimate(call, unknown) <= 2_000_000
        call.run(4.0)
        assert known.seconds[1].layer == 2


def test_who_comes_again_on_a_worse_path_has_what_fits_soon() -> None:
    with simulated_call() as call:
        call.publish(*LAYERS)
        viewer = call.view(Link(START, ((0.0, 500_000),)), path_memory=3_000_000)
        call.run(10.0)
        assert sent_bps(viewer, 4, 10) < 600_000
