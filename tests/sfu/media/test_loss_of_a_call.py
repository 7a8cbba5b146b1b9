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


def repeated(call: SimulatedCall, viewer: Viewer) -> float:
    """Packets that were sent again, as share of those that were sent."""
    (row,) = viewer.subscriptions_of(Kind.VIDEO)
    subscription = call.memory.table("subscriptions")[row]
    return float(subscription["retransmitted"] / subscription["packets"])


@pytest.mark.parametrize("loss", [0.05, 0.1])
def test_what_feedback_reports_lost_is_sent_again_though_nobody_asks(loss: float) -> None:
    with simulated_call() as call:
        viewer = watched(call, loss)
        viewer.nacks = False
        requests, since = call.publishers[0].key_requests, call.now
        call.run(20.0)
        (screen,) = viewer.screens.values()
        shown = [at for at in screen.shown if at >= since]
        assert len(shown) >= 0.9 * 20 * SECOND / NATIVE.frame_ns
        assert max(after - before for before, after in pairwise(shown)) <= 700 * MS
        assert call.publishers[0].key_requests == requests
        assert {each.layer for each in viewer.seconds[6:]} == {2}
        assert repeated(call, viewer) <= 0.3


def test_what_only_comes_late_is_hardly_sent_again() -> None:
    with simulated_call() as call:
        viewer = watched(call, 0.0, 30 * MS)
        viewer.nacks = False
        call.run(15.0)
        assert repeated(call, viewer) <= 0.02
        assert {each.layer for each in viewer.seconds[6:]} == {2}
