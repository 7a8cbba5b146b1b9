"""The over-use detector: when a queue is said to grow, shrink or stand."""

from typing import Any

import pytest

from sfu.media.bandwidth.trendline import MAX_THRESHOLD, MIN_THRESHOLD, add_delay, queue_ms
from sfu.schema.estimate_tables import DELAY_GROWING, DELAY_NORMAL, DELAY_SHRINKING, TREND_GROUPS
from tests.sfu.support.bottleneck import MS

FRAME = 33 * MS


class Path:
    def __init__(self, estimate: Any) -> None:
        self.estimate, self.arrived = estimate, 1000 * MS
        self.states: list[int] = []

    def groups(self, count: int, growth_ms: float) -> None:
        for _ in range(count):
            apart = FRAME + int(growth_ms * MS)
            self.arrived += apart
            add_delay(self.estimate, FRAME, apart, self.arrived)
            self.states.append(int(self.estimate["delay_state"]))


@pytest.fixture
def path(estimate: Any) -> Path:
    path = Path(estimate)
    path.groups(100, 0)
    return path


def test_constant_delay_is_normal(path: Path) -> None:
    assert set(path.states) == {DELAY_NORMAL}
    assert path.estimate["trend"] == pytest.approx(0)


@pytest.mark.parametrize("growth", [3, 10, 100])
def test_growing_delay_is_noticed_within_20_groups(path: Path, growth: float) -> None:
    path.groups(TREND_GROUPS, growth)
    assert DELAY_GROWING in path.states


def test_it_is_normal_again_only_after_the_queue_shrank(path: Path) -> None:
    path.groups(TREND_GROUPS, 10)
    path.groups(TREND_GROUPS, -10)
    assert path.states[-1] == DELAY_SHRINKING
    path.estimate["delay_recovered"] = 0
    path.groups(60, 0)
    assert path.states[-1] == DELAY_NORMAL
    assert path.estimate["delay_recovered"] == 1


def test_alternating_delay_is_normal(path: Path) -> None:
    for _ in range(100):
        path.groups(1, 8)
        path.groups(1, -8)
    assert set(path.states) == {DELAY_NORMAL}


def test_one_late_group_is_no_growth(path: Path) -> None:
    path.groups(1, 25)
    path.groups(1, -25)
    path.groups(60, 0)
    assert DELAY_GROWING not in path.states


def test_the_slope_is_the_growth_by_time(path: Path) -> None:
    path.groups(150, 3.3)
    assert path.estimate["trend"] == pytest.approx(3.3 / 36.3, rel=0.01)


def test_the_threshold_falls_to_its_least_and_rises_with_the_slope(path: Path) -> None:
    assert path.estimate["threshold"] == MIN_THRESHOLD
    path.groups(60, 1.6)
    path.groups(200, 1.6)
    scaled = 60 * 4 * path.estimate["trend"]
    assert MIN_THRESHOLD < path.estimate["threshold"] == pytest.approx(scaled, rel=0.1)


def test_a_spike_does_not_move_the_threshold(path: Path) -> None:
    path.groups(1, 8000)
    assert 60 * 4 * path.estimate["trend"] > MIN_THRESHOLD + 15
    assert path.estimate["threshold"] == MIN_THRESHOLD


def test_the_threshold_has_bounds(path: Path) -> None:
    for growth in (5, -5, 50, -30):
        path.groups(1000, growth)
        assert MIN_THRESHOLD <= path.estimate["threshold"] <= MAX_THRESHOLD


def test_a_queue_is_what_exceeds_the_least_delay(path: Path) -> None:
    path.groups(20, 10)
    path.groups(100, 0)
    assert queue_ms(path.estimate) == pytest.approx(200, rel=0.01)
    path.groups(700, 0)
    assert queue_ms(path.estimate) == pytest.approx(0, abs=1), "after 20 s it is taken for the path's own"
