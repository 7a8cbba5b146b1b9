"""What viewers see over links that lose or reorder packets by chance, in simulated time."""

from itertools import pairwise
from random import Random

import pytest

from sfu.parameters import Kind
from tests.sfu.support.simulated_call import NATIVE, START, SimulatedCall, Viewer, simulated_call
from tests.sfu.support.simulated_link import MS, SECOND, Link

pytestmark = pytest.mark.timeout(600)  # kernels that are not in the cache are compiled first

FAST = ((0.0, 10_000_000),)


def watched(call: SimulatedCall, loss: float, jitter_ns: int = 0) -> Viewer:
    """A viewer of the native client's layers, after some seconds."""
    call.publish(140_000, 440_000, 1_680_000, encoders=NATIVE)
    viewer = call.view(Link(START, FAST, loss=loss, jitter_ns=jitter_ns, random=Random(1)))
    call.run(5.0)
    return viewer


def sent(call: SimulatedCall, viewer: Viewer) -> tuple[int, int]:
    """How many packets of video were sent so far, and how many were sent again."""
    (row,) = viewer.subscriptions_of(Kind.VIDEO)
    subscription = call.memory.table("subscriptions")[row]
    return int(subscription["packets"]), int(subscription["retransmitted"])


def repeated(call: SimulatedCall, viewer: Viewer, before: tuple[int, int] = (0, 0)) -> float:
    """Packets that were sent again, as share of those that were sent; `before`: what `sent` said when it began."""
    packets, again = sent(call, viewer)
    return (again - before[1]) / (packets - before[0])


@pytest.mark.parametrize("loss", [0.05, 0.1])
def test_what_feedback_reports_lost_is_sent_again_though_nobody_asks(loss: float) -> None:
    with simulated_call() as call:
        viewer = watched(call, loss)
        viewer.nacks = False
        requests, since = call.publishers[0].key_requests, call.now
        call.run(20.0)
        (screen,) = viewer.screens.values()
        shown = [at for at in screen.shown if at >= since]
        assert len(shown) >= 0.93 * 20 * SECOND / NATIVE.frame_ns
        assert max(after - before for before, after in pairwise(shown)) <= 700 * MS
        assert call.publishers[0].key_requests == requests
        assert {each.layer for each in viewer.seconds[6:]} == {2}
        assert repeated(call, viewer) <= 0.3


@pytest.mark.parametrize("nacks", [False, True])
def test_what_only_comes_late_is_hardly_sent_again(nacks: bool) -> None:
    with simulated_call() as call:
        viewer = watched(call, 0.0, 30 * MS)
        viewer.nacks, viewer.hasty = nacks, True
        before = sent(call, viewer)
        call.run(15.0)
        assert repeated(call, viewer, before) <= 0.02
        assert {each.layer for each in viewer.seconds[6:]} == {2}


def test_what_is_lost_on_a_path_that_reorders_is_sent_again_in_time() -> None:
    with simulated_call() as call:
        viewer = watched(call, 0.03, 30 * MS)
        viewer.hasty = True
        requests, since, before = call.publishers[0].key_requests, call.now, sent(call, viewer)
        call.run(20.0)
        (screen,) = viewer.screens.values()
        shown = [at for at in screen.shown if at >= since]
        assert len(shown) >= 0.85 * 20 * SECOND / NATIVE.frame_ns
        assert max(after - before for before, after in pairwise(shown)) <= 500 * MS
        assert call.publishers[0].key_requests <= requests + 3
        assert repeated(call, viewer, before) <= 0.1
        assert min(each.layer for each in viewer.seconds[6:]) >= 1
