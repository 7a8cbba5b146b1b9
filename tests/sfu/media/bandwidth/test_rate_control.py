"""The rate that delay allows: how it grows, where it ends, how far it falls."""

from typing import Any

import pytest

from sfu.media.bandwidth.rate_control import MAX_DRAINS, control_rate, set_delay_rate
from sfu.schema.estimate_tables import DELAY_GROWING, DELAY_NORMAL, DELAY_SHRINKING, MAX_BPS, MIN_BPS
from tests.sfu.support.bottleneck import MS, SECOND, START_NS


class Control:
    def __init__(self, estimate: Any) -> None:
        self.estimate, self.now = estimate, START_NS
        estimate["rtt_ns"] = 100 * MS
        set_delay_rate(estimate, 1_000_000.0, self.now)
        self.arriving(1_000_000)

    def arriving(self, bps: float) -> None:
        self.estimate["acknowledged_bps"] = bps

    def take(self, state: int, seconds: float = 0.1) -> float:
        self.estimate["delay_state"] = state
        for _ in range(round(seconds * 10)):
            self.now += 100 * MS
            control_rate(self.estimate, self.now)
        return float(self.estimate["delay_bps"])


@pytest.fixture
def control(estimate: Any) -> Control:
    control = Control(estimate)
    control.take(DELAY_NORMAL)
    return control


def test_it_grows_8_percent_a_second_where_no_capacity_is_known(control: Control) -> None:
    before = control.take(DELAY_NORMAL)
    assert control.take(DELAY_NORMAL, 1) == pytest.approx(1.08 * before, rel=0.01)


def test_it_ends_at_one_and_a_half_times_what_arrives(control: Control) -> None:
    assert control.take(DELAY_NORMAL, 30) == 1_510_000
    control.arriving(400_000)
    assert control.take(DELAY_NORMAL, 5) == 1_510_000, "it does not fall for that"


def test_without_arrivals_it_does_not_grow(control: Control) -> None:
    control.arriving(0)
    before = float(control.estimate["delay_bps"])
    assert control.take(DELAY_NORMAL, 10) == before


def test_a_growing_queue_brings_it_below_what_arrives(control: Control) -> None:
    control.arriving(700_000)
    assert control.take(DELAY_GROWING) == 0.85 * 700_000 - 5_000


def test_a_growing_queue_never_raises_it(control: Control) -> None:
    before = float(control.estimate["delay_bps"])
    control.arriving(5_000_000)
    assert control.take(DELAY_GROWING) <= before


def test_a_second_decrease_waits_for_a_round_trip(control: Control) -> None:
    control.estimate["rtt_ns"] = 150 * MS
    control.arriving(900_000)
    control.now += 200 * MS
    first = control.take(DELAY_GROWING)
    control.arriving(600_000)
    assert control.take(DELAY_GROWING) == first
    assert control.take(DELAY_GROWING) == 0.85 * 600_000 - 5_000


def test_it_does_not_wait_when_far_less_arrives(control: Control) -> None:
    control.estimate["rtt_ns"] = 200 * MS
    control.take(DELAY_GROWING)
    control.arriving(100_000)
    assert control.take(DELAY_GROWING) == 80_000


def test_a_growing_queue_halves_what_never_arrived(control: Control) -> None:
    control.arriving(0)
    before = float(control.estimate["delay_bps"])
    assert control.take(DELAY_GROWING) == before / 2


def test_it_is_held_while_the_queue_shrinks(control: Control) -> None:
    before = float(control.estimate["delay_bps"])
    assert control.take(DELAY_SHRINKING, 5) == before


def test_near_the_known_capacity_it_grows_by_half_a_packet_a_response_time(control: Control) -> None:
    control.take(DELAY_GROWING)
    control.arriving(850_000)
    control.estimate["capacity_kbps"] = 850
    before = control.take(DELAY_NORMAL, 0.2)
    packet = before / 30 / 8 / 3
    expected = packet * 8 / 0.4
    assert control.take(DELAY_NORMAL, 1) - before == pytest.approx(expected, rel=0.05)


def test_a_capacity_that_is_exceeded_is_forgotten(control: Control) -> None:
    control.take(DELAY_GROWING)
    assert control.estimate["capacity_kbps"] == 1000
    control.arriving(1_200_000)
    control.take(DELAY_NORMAL)
    assert control.estimate["capacity_kbps"] == 0


def test_who_sends_little_is_blamed_for_large_queues_only(control: Control) -> None:
    control.arriving(100_000)
    control.estimate["application_limited"] = 1
    before = float(control.estimate["delay_bps"])
    stand(control, 30)
    assert control.take(DELAY_GROWING, 3) == before
    stand(control, 60)
    assert control.take(DELAY_GROWING) == 80_000


def stand(control: Control, queue: float) -> None:
    control.estimate["smoothed_delay_ms"] = queue


def test_a_queue_that_stands_is_emptied(control: Control) -> None:
    stand(control, 250)
    control.now += SECOND
    assert control.take(DELAY_NORMAL) == 0.85 * 1_000_000 - 5_000
    assert control.take(DELAY_NORMAL, 0.3) == 0.85 * 1_000_000 - 5_000, "it has to show first"


def test_a_queue_that_does_not_go_belongs_to_others(control: Control) -> None:
    stand(control, 250)
    control.take(DELAY_NORMAL, 60)
    assert control.estimate["drains"] == MAX_DRAINS
    assert control.estimate["delay_bps"] > 1_000_000
    stand(control, 0)
    control.take(DELAY_NORMAL)
    assert control.estimate["drains"] == 0


@pytest.mark.parametrize("bps", [-1e300, 0.0, 1e300])
def test_it_has_bounds(control: Control, bps: float) -> None:
    set_delay_rate(control.estimate, bps, control.now)
    assert MIN_BPS <= control.estimate["delay_bps"] <= MAX_BPS
