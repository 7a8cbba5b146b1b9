"""When a probe is begun, how fast it is, and what follows from its result."""

from typing import Any

import pytest

from sfu.media.bandwidth.loss import LOSS_DECREASING, LOSS_INCREASING
from sfu.media.bandwidth.probing import (
    AGAIN_NS,
    DROP_MEMORY_NS,
    LAST_CLUSTER,
    PROBE_PACKETS,
    QUEUE_MS,
    RESULT_NS,
    STILL_NS,
    note_target,
    probe_pass,
    probe_sent,
)
from sfu.schema.estimate_tables import DELAY_GROWING, DELAY_NORMAL, DELAY_SHRINKING, MAX_BPS, PROBES
from tests.sfu.support.bottleneck import MS, SECOND, START_NS


class Prober:
    def __init__(self, estimate: Any, preferred: int = 5_000_000) -> None:
        self.estimate, self.now = estimate, START_NS
        estimate["preferred_bps"] = preferred
        estimate["capacity_kbps"] = 1  # so that only what a test says is a reason

    def pass_time(self, ns: int = 25 * MS) -> int:
        """The rate of the probe that is begun, 0: none."""
        self.now += ns
        before = int(self.estimate["last_cluster"])
        probe_pass(self.estimate, self.now)
        return int(self.estimate["probe_bps"]) if self.estimate["last_cluster"] != before else 0

    def send(self) -> int:
        """The probe that is begun; how many packets that took."""
        count = 0
        while self.estimate["probe_cluster"]:
            probe_sent(self.estimate, 1000, 1, self.now)
            count += 1
        return count

    def report(self, result: int, target: int | None = None) -> int:
        """A feedback with what a probe measured; the rate of the next one, 0: none."""
        self.now += 100 * MS
        before = int(self.estimate["last_cluster"])
        self.estimate["target_bps"] = result if target is None else target
        self.estimate["probe_result_bps"] = result
        note_target(self.estimate, self.now)
        self.estimate["probe_result_bps"] = 0
        return int(self.estimate["probe_bps"]) if self.estimate["last_cluster"] != before else 0

    def settle(self, target: int) -> None:
        """The first probe is over, and its result was the estimate."""
        self.pass_time()
        self.send()
        self.report(target)
        self.send()
        self.pass_time(2 * RESULT_NS)
        self.estimate["still_bps"], self.estimate["still_ns"] = target, self.now
        self.estimate["dropped_ns"] = 0


@pytest.fixture
def prober(estimate: Any) -> Prober:
    return Prober(estimate)


def test_the_first_is_three_times_the_start_rate(prober: Prober) -> None:
    assert prober.pass_time() == 1_800_000
    assert prober.estimate["probe_bytes_left"] == 1_800_000 * 15 // 8000
    assert prober.estimate["probe_packets_left"] == PROBE_PACKETS


def test_it_has_five_packets_at_least(prober: Prober) -> None:
    prober.pass_time()
    assert prober.send() == 5


def test_then_six_times_and_on_while_it_gets_through(prober: Prober) -> None:
    prober.pass_time()
    prober.send()
    assert prober.report(1_800_000) == 3_600_000
    prober.send()
    assert prober.report(3_600_000) == 7_200_000
    prober.send()
    assert prober.report(6_500_000) == 0, "more than is preferred"


def test_less_than_70_percent_ends_it(prober: Prober) -> None:
    prober.pass_time()
    prober.send()
    assert prober.report(1_250_000) == 0
    for _ in range(100):
        assert prober.pass_time() == 0


@pytest.mark.parametrize("preferred", [700_000, 900_000])
def test_none_exceeds_twice_what_is_preferred(estimate: Any, preferred: int) -> None:
    prober = Prober(estimate, preferred)
    assert prober.pass_time() == min(1_800_000, 2 * preferred)


@pytest.mark.parametrize("preferred", [0, 50_000, 500_000])
def test_none_where_the_start_rate_is_enough(estimate: Any, preferred: int) -> None:
    prober = Prober(estimate, preferred)
    prober.estimate["application_limited"] = 1
    for _ in range(1000):
        assert prober.pass_time() == 0


def test_a_first_one_without_a_result_is_repeated_twice(prober: Prober) -> None:
    begun = []
    for _ in range(int(5 * SECOND / (25 * MS))):
        if prober.pass_time():
            begun.append(prober.now)
            prober.send()
    assert len(begun) == 3
    assert begun[1] - begun[0] >= RESULT_NS


def test_one_that_is_not_sent_is_given_up_and_begun_again(prober: Prober) -> None:
    for _ in range(10):
        assert prober.pass_time(RESULT_NS + MS) == 1_800_000
    assert prober.estimate["start_probes"] == 3


@pytest.mark.parametrize(
    ("column", "value", "allowed"),
    [
        ("delay_state", DELAY_GROWING, False),
        ("delay_state", DELAY_SHRINKING, False),
        ("delay_state", DELAY_NORMAL, True),
        ("loss_state", LOSS_DECREASING, False),
        ("silent", 1, False),
        ("delay_ms", QUEUE_MS, True),
        ("delay_ms", QUEUE_MS + 1, False),
    ],
)
def test_none_while_the_path_is_full(prober: Prober, column: str, value: float, allowed: bool) -> None:
    prober.estimate[column] = value
    assert (prober.pass_time() > 0) == allowed


def test_a_rate_that_recovers_from_loss_is_probed_by_half(prober: Prober) -> None:
    prober.estimate["loss_state"] = LOSS_INCREASING
    assert prober.pass_time() == 900_000


def test_what_is_preferred_anew_is_probed_for_once(prober: Prober) -> None:
    prober.settle(1_000_000)
    assert prober.pass_time() == 0
    prober.estimate["preferred_bps"] = 5_500_000
    assert prober.pass_time() == 0, "that is hardly more"
    prober.estimate["preferred_bps"] = 8_000_000
    assert prober.pass_time() == 2_000_000
    prober.send()
    prober.report(1_000_000)
    assert prober.pass_time(RESULT_NS) == 0


def test_while_application_limited_every_5_s(prober: Prober) -> None:
    prober.settle(1_000_000)
    prober.estimate["application_limited"] = 1
    begun = sum(prober.pass_time() > 0 and prober.send() > 0 for _ in range(40 * 20))
    assert begun == 20 * SECOND // AGAIN_NS


def test_after_a_drop_every_5_s_until_it_is_regained(prober: Prober) -> None:
    prober.settle(1_000_000)
    prober.report(0, target=600_000)
    assert prober.pass_time(AGAIN_NS) == 1_200_000
    prober.send()
    prober.report(900_000)
    assert prober.estimate["dropped_ns"] == 0
    assert prober.pass_time(AGAIN_NS) == 0


def test_a_drop_may_take_several_steps(prober: Prober) -> None:
    prober.settle(1_000_000)
    for target in (850_000, 720_000, 610_000):
        prober.report(0, target=target)
    assert prober.pass_time(AGAIN_NS) == 1_220_000


def test_a_drop_is_forgotten(prober: Prober) -> None:
    prober.settle(1_000_000)
    prober.report(0, target=600_000)
    prober.pass_time(DROP_MEMORY_NS + MS)
    assert prober.estimate["dropped_ns"] == 0


def test_a_smaller_fall_is_no_drop(prober: Prober) -> None:
    prober.settle(1_000_000)
    prober.report(0, target=700_000)
    assert prober.pass_time(AGAIN_NS) == 0


def test_an_estimate_that_got_no_further_for_15_s_is_probed(prober: Prober) -> None:
    prober.settle(1_000_000)
    begun = []
    for k in range(10 * 31):
        prober.report(0, target=1_000_000 - (k % 10) * 10_000)
        if prober.pass_time(1):
            begun.append(prober.now)
            prober.send()
    assert len(begun) == 2
    assert begun[1] - begun[0] >= STILL_NS


def test_one_that_grows_by_itself_is_not(prober: Prober) -> None:
    prober.settle(1_000_000)
    target = 1_000_000.0
    for _ in range(150):
        target *= 1.006
        prober.report(0, target=int(target))
        assert prober.pass_time(1) == 0


def test_where_no_capacity_is_known_every_5_s(prober: Prober) -> None:
    prober.settle(1_000_000)
    prober.estimate["capacity_kbps"] = 0
    assert prober.pass_time(AGAIN_NS) == 2_000_000


def test_numbers_fit_in_a_byte_and_places_in_the_row(prober: Prober) -> None:
    numbers = []
    for _ in range(300):
        prober.pass_time(RESULT_NS + MS)
        numbers.append(int(prober.estimate["probe_cluster"]))
    assert set(numbers) == set(range(1, LAST_CLUSTER + 1))
    assert {int(probe["cluster"]) % PROBES for probe in prober.estimate["probes"]} == set(range(PROBES))


def test_a_probe_has_a_bound(estimate: Any) -> None:
    prober = Prober(estimate, MAX_BPS)
    prober.settle(MAX_BPS * 3 // 4)
    prober.estimate["application_limited"] = 1
    assert prober.pass_time(AGAIN_NS) == MAX_BPS


def test_packets_beyond_a_probe_are_counted_for_none(prober: Prober) -> None:
    probe_sent(prober.estimate, 1000, 1, prober.now)
    assert prober.estimate["probe_bytes_left"] == 0
    prober.pass_time()
    probe_sent(prober.estimate, 1 << 40, 1, prober.now)
    assert prober.estimate["probe_bytes_left"] == 0
    assert prober.estimate["probe_cluster"] > 0, "five packets"
