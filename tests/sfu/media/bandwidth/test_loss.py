"""The loss model: what is lost by chance and what is lost for sending too much."""

import random
from typing import Any

import pytest

from sfu.media.bandwidth.loss import (
    LOSS_DECREASING,
    LOSS_INCREASING,
    LOSS_NONE,
    NEEDED_OBSERVATIONS,
    OBSERVATION_NS,
    note_recovered,
    note_reported,
    observe,
    update_loss,
)
from sfu.schema.estimate_tables import OBSERVATIONS
from tests.sfu.support.bottleneck import MS, SECOND, START_NS

SIZE = 1000


class Path:
    """Loses by chance, and all beyond its capacity."""

    def __init__(self, estimate: Any) -> None:
        self.estimate, self.now = estimate, START_NS
        self.random = random.Random(5)
        estimate["delay_bps"] = 3_000_000

    def send(self, seconds: float, loss: float, capacity: float = 1e12, bps: float = 0) -> int:
        """At what may be sent, or `bps`; the last result."""
        end = self.now + int(seconds * SECOND)
        while self.now < end:
            rate = bps or self.target
            share = max(loss, 1 - capacity / rate)
            for _ in range(round(rate / 8 / SIZE / 10)):
                note_reported(self.estimate, self.now, SIZE, self.random.random() < share)
            self.estimate["acknowledged_bps"] = rate * (1 - share)
            self.now += 100 * MS
            if observe(self.estimate):
                update_loss(self.estimate)
        return int(self.target)

    @property
    def target(self) -> float:
        if self.estimate["observations"] < NEEDED_OBSERVATIONS or self.state == LOSS_NONE:
            return float(self.estimate["delay_bps"])
        return float(min(self.estimate["loss_result_bps"], self.estimate["delay_bps"]))

    @property
    def state(self) -> int:
        return int(self.estimate["loss_state"])


@pytest.fixture
def path(estimate: Any) -> Path:
    return Path(estimate)


def test_an_observation_spans_250_ms_of_sending(estimate: Any) -> None:
    note_reported(estimate, START_NS, SIZE, False)
    note_reported(estimate, START_NS + OBSERVATION_NS - 1, SIZE, True)
    assert not observe(estimate)
    note_reported(estimate, START_NS + OBSERVATION_NS, SIZE, False)
    assert observe(estimate)
    assert estimate["observed_bytes"][0] == 3 * SIZE
    assert estimate["observed_lost"][0] == SIZE
    assert estimate["observed_bps"][0] == 3 * SIZE * 8 / 0.25
    assert not observe(estimate)


def test_without_loss_delay_alone_rules(path: Path) -> None:
    assert path.send(20, 0) == 3_000_000
    assert path.state == LOSS_NONE
    path.estimate["delay_bps"] = 1_000_000
    path.send(1, 0)
    assert path.estimate["loss_bps"] == pytest.approx(1_000_000)


@pytest.mark.parametrize(("loss", "least"), [(0.01, 2_800_000), (0.03, 2_800_000), (0.1, 2_000_000), (0.15, 800_000)])
def test_loss_by_chance_leaves_a_rate(path: Path, loss: float, least: int) -> None:
    path.send(20, loss)
    assert path.target >= least


def test_more_loss_leaves_less(estimate: Any) -> None:
    path, targets = Path(estimate), []
    for loss in (0.02, 0.1, 0.2, 0.4):
        path.send(20, loss)
        targets.append(path.target)
    assert targets == sorted(targets, reverse=True)
    assert targets[0] > 2 * targets[2]


def test_what_is_lost_for_sending_too_much_is_sent_no_more(path: Path) -> None:
    path.send(3, 0)
    path.send(5, 0, capacity=1_000_000)
    assert 900_000 < path.target < 1_250_000
    assert path.state != LOSS_NONE


def test_an_end_of_all_arrivals_leaves_little(path: Path) -> None:
    path.send(3, 0)
    arriving = float(path.estimate["acknowledged_bps"])
    path.send(3, 1.0)
    path.estimate["acknowledged_bps"] = arriving  # nothing came, so nothing was measured
    path.send(1, 1.0)
    assert path.target <= 400_000


def test_a_spike_is_not_a_state(path: Path) -> None:
    path.send(10, 0)
    path.send(0.3, 0.5)
    path.send(2, 0)
    assert path.estimate["average_loss"] < 0.02
    assert path.target > 2_500_000


def test_when_loss_ends_the_rate_recovers(path: Path) -> None:
    path.send(20, 0.3)
    low = path.target
    seen = set()
    for _ in range(300):
        path.send(0.1, 0)
        seen.add(path.state)
    assert path.target > 2 * low
    assert seen >= {LOSS_INCREASING, LOSS_NONE}


def test_holding_lasts_longer_each_time(path: Path) -> None:
    path.send(5, 0)
    for _ in range(12):
        path.send(1.5, 0.4)
        path.send(0.8, 0)
    assert path.estimate["hold_ns"] > 600 * MS
    assert path.state in {LOSS_DECREASING, LOSS_INCREASING}


class TestRecovered:
    def test_in_the_observation_that_grows(self, estimate: Any) -> None:
        note_reported(estimate, START_NS, SIZE, False)
        note_reported(estimate, START_NS + MS, SIZE, True)
        note_recovered(estimate, START_NS + MS, SIZE)
        assert estimate["partial_lost"] == 0
        assert estimate["partial_bytes"] == 2 * SIZE

    def test_in_an_older_one(self, path: Path) -> None:
        path.send(3, 0.5)
        rows = path.estimate
        ends, lost = rows["observed_end_ns"], rows["observed_lost"].copy()
        place = int(rows["observations"] - 3) % OBSERVATIONS
        note_recovered(rows, int(ends[place]) - 50 * MS, SIZE)
        lost[place] -= SIZE
        assert list(rows["observed_lost"]) == list(lost)

    def test_nothing_becomes_negative(self, path: Path) -> None:
        path.send(3, 0)
        for sent in range(START_NS - SECOND, path.now + SECOND, 10 * MS):
            note_recovered(path.estimate, sent, SIZE)
        assert min(path.estimate["observed_lost"]) == 0
        assert path.estimate["partial_lost"] == 0

    def test_of_before_all_observations_changes_the_oldest_at_most(self, path: Path) -> None:
        path.send(30, 0.5)
        before = sum(path.estimate["observed_lost"])
        note_recovered(path.estimate, START_NS, SIZE)
        assert before - SIZE <= sum(path.estimate["observed_lost"]) <= before
