"""What viewers of simulcast get over links that change: estimate, allocation and switching together, in simulated
time."""

from itertools import pairwise

import pytest

from sfu.schema.bandwidth_codes import Rung
from tests.sfu.support.simulated_call import NATIVE, START, SimulatedCall, Viewer, simulated_call
from tests.sfu.support.simulated_link import MS, SECOND, Link

pytestmark = pytest.mark.timeout(600)  # kernels that are not in the cache are compiled first

LAYERS = 150_000, 500_000, 1_700_000
AMPLE_BPS = 5_000_000


def video(call: SimulatedCall, viewer: Viewer) -> tuple[int, int]:
    """(layer being forwarded, rung allocated) of a viewer's video."""
    row = call.memory.table("subscriptions")[
        min(row for kind, row in viewer.subscriptions.values() if kind.value == "video")
    ]
    return int(row["layer"]), int(row["rung"])


def longest_gap(times: list[int], first: float, last: float) -> int:
    """The longest time between two arrivals, in ms, among those in seconds from `first` to `last`."""
    inside = [at for at in times if START + first * SECOND <= at <= START + last * SECOND]
    return max((b - a for a, b in pairwise(inside)), default=10**12) // MS


def test_an_ample_link_has_the_best_picture_soon() -> None:
    with simulated_call() as call:
        call.publish(*LAYERS)
        viewer = call.view(Link(START, ((0.0, AMPLE_BPS),), delay_ns=20 * MS))
        call.run(4.0)
        assert [each.layer for each in viewer.seconds[2:4]] == [2, 2]
        assert viewer.seconds[0].frames > 0
        call.run(10.0)
        assert {each.layer for each in viewer.seconds[3:]} == {2}, "and keeps it"


def test_a_viewer_who_sends_no_feedback_gets_the_best_picture() -> None:
    with simulated_call() as call:
        call.publish(*LAYERS)
        viewer = call.view(Link(START, ((0.0, AMPLE_BPS),)), reports=False)
        call.run(4.0)
        assert video(call, viewer) == (2, Rung.NONE)


@pytest.mark.parametrize(
    ("capacity", "layers", "restored"),
    [
        (700_000, {0, 1}, 50),
        # Without a pacer the first key frames of a better layer fill the queue of the new link too: back-off follows.
        (300_000, {0}, 70),
    ],
)
def test_a_link_that_narrows_has_the_picture_that_fits(capacity: int, layers: set[int], restored: int) -> None:
    with simulated_call() as call:
        publisher = call.publish(*LAYERS)
        viewer = call.view(Link(START, ((0.0, 3_000_000), (10.0, capacity), (40.0, 3_000_000)), delay_ns=20 * MS))
        call.run(40.0)
        assert viewer.seconds[9].layer == 2
        narrow = viewer.seconds[15:40]
        assert {each.layer for each in narrow} <= layers
        assert sum(each.dropped for each in narrow) <= 0.01 * sum(each.frames + each.audio for each in narrow)
        assert longest_gap(viewer.audio_times, 13, 39) <= 100
        assert longest_gap(viewer.frame_times, 13, 39) <= 700
        assert publisher.key_requests <= 12
        call.run(restored - 38)
        assert viewer.seconds[restored].layer == 2


@pytest.mark.parametrize(("capacity", "layer", "used", "settled"), [(700_000, 1, 0.75, 16), (300_000, 0, 0.7, 20)])
def test_pictures_and_sound_of_the_native_client_go_on_in_what_a_narrow_link_carries(
    capacity: int, layer: int, used: float, settled: int
) -> None:
    """The client's sound takes 120 kbit/s and its key frames are large: there is room for pictures all the same."""
    with simulated_call() as call:
        call.publish(140_000, 440_000, 1_680_000, encoders=NATIVE)
        viewer = call.view(Link(START, ((0.0, 3_000_000), (10.0, capacity)), delay_ns=20 * MS))
        call.run(40.0)
        narrow = viewer.seconds[settled:]
        assert {each.layer for each in narrow} == {layer}
        assert sum(each.sent_bytes for each in narrow) * 8 / len(narrow) >= used * capacity
        (screen,) = viewer.screens.values()
        assert longest_gap(screen.shown, settled, 39) <= 250
        assert sum(each.dropped for each in narrow) == 0


@pytest.mark.parametrize("at", [4.0, 6.03, 8.0])
def test_the_picture_does_not_stand_for_long_when_a_link_narrows(at: float) -> None:
    """The key frame of the layer that fits is not lost behind what has filled the queue."""
    with simulated_call() as call:
        call.publish(140_000, 440_000, 1_680_000, encoders=NATIVE)
        viewer = call.view(Link(START, ((0.0, 3_000_000), (at, 700_000)), delay_ns=20 * MS))
        call.run(at + 3)
        assert viewer.seconds[3].layer == 2
        (screen,) = viewer.screens.values()
        assert longest_gap(screen.shown, at - 0.5, at + 3) <= 600
        assert viewer.seconds[int(at) + 2].layer == 1
        assert viewer.seconds[int(at) + 2].frames >= 14


def test_pictures_are_renewed_where_speech_takes_nearly_all_of_a_link() -> None:
    with simulated_call() as call:
        call.publish(140_000, 440_000, 1_680_000, encoders=NATIVE)
        viewer = call.view(Link(START, ((0.0, 3_000_000), (8.0, 150_000)), delay_ns=20 * MS))
        call.run(50.0)
        (screen,) = viewer.screens.values()
        narrow = viewer.seconds[14:49]
        assert longest_gap(screen.shown, 14, 49) <= 8_000
        assert sum(at >= START + 14 * SECOND for at in screen.shown) >= 6
        assert longest_gap(viewer.audio_times, 14, 49) <= 200
        assert sum(each.audio for each in narrow) >= 0.99 * len(narrow) * 50
        assert sum(each.dropped for each in narrow) <= 0.01 * sum(each.audio for each in narrow)


def test_audio_is_whole_where_no_picture_fits() -> None:
    with simulated_call() as call:
        call.publish(*LAYERS)
        viewer = call.view(Link(START, ((0.0, 3_000_000), (8.0, 120_000)), delay_ns=20 * MS))
        call.run(30.0)
        assert sum(each.audio for each in viewer.seconds[13:29]) >= 0.97 * 16 * 50
        assert sum(each.dropped for each in viewer.seconds[13:29]) == 0
        assert video(call, viewer)[1] in (Rung.KEY_FRAMES_ONLY, Rung.BASE_TEMPORAL)


def test_others_are_not_disturbed_by_one_whose_link_narrows() -> None:
    with simulated_call() as call:
        call.publish(*LAYERS)
        call.view(Link(START, ((0.0, 3_000_000), (10.0, 300_000)), delay_ns=20 * MS))
        other = call.view(Link(START, ((0.0, AMPLE_BPS),), delay_ns=20 * MS))
        call.run(25.0)
        assert {each.layer for each in other.seconds[5:]} == {2}
        assert longest_gap(other.frame_times, 5, 24) <= 200


@pytest.mark.parametrize(("capacity", "share"), [(5_000_000, 0.05), (600_000, 0.03), (200_000, 0.03)])
def test_reports_for_many_tracks_are_a_small_part_of_what_a_link_carries(capacity: int, share: float) -> None:
    with simulated_call() as call:
        for _ in range(30):
            call.publish(20_000, audio=False)
        viewer = call.view(Link(START, ((0.0, capacity),), delay_ns=20 * MS, queue_ns=2_000 * MS))
        call.run(26.0)
        assert len(viewer.subscriptions) == 30
        late = viewer.seconds[8:26]
        mean = sum(each.control_bytes for each in late) * 8 / len(late)
        target = sum(each.target_bps for each in late) / len(late)
        assert 0 < mean <= share * target
