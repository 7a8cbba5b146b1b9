"""What a probe measured: paced, at once, on a full link, with holes, and with invented arrivals."""

from typing import Any

import pytest

from sfu.media.bandwidth.probe_result import probe_packet
from tests.sfu.support.bottleneck import MS, START_NS

BPS = 4_000_000
SIZE = 1000


@pytest.fixture
def cluster(estimate: Any) -> Any:
    probe = estimate["probes"][3]
    probe["cluster"], probe["bps"], probe["least_bytes"], probe["least_packets"] = 3, BPS, 10_000, 5
    return estimate


def feed(estimate: Any, *packets: tuple[float, float], size: int = SIZE, cluster: int = 3) -> int:
    """(sent, arrived) in ms; the result in bit/s."""
    for sent, arrived in packets:
        probe_packet(estimate, cluster, START_NS + int(sent * MS), int(arrived * MS), size)
    return int(estimate["probe_result_bps"])


def test_a_paced_probe_on_a_free_link_measures_its_rate(cluster: Any) -> None:
    assert feed(cluster, *((2 * k, 20 + 2 * k) for k in range(10))) == BPS


def test_bursts_of_5_ms_measure_their_rate(cluster: Any) -> None:
    bursts = [(5 * (k // 2), 20 + 5 * (k // 2) + k % 2 / 10) for k in range(10)]
    assert feed(cluster, *bursts) == pytest.approx(3_200_000, rel=0.01)


def test_a_full_link_measures_95_percent_of_what_arrives(cluster: Any) -> None:
    assert feed(cluster, *((2 * k, 20 + 8 * k) for k in range(10))) == 950_000


def test_what_leaves_at_once_is_measured_by_its_arrivals(cluster: Any) -> None:
    assert feed(cluster, *((0, 20 + 8 * k) for k in range(10))) == 950_000


def test_no_result_exceeds_what_was_meant(cluster: Any) -> None:
    assert feed(cluster, *((0, 20 + 0.01 * k) for k in range(10))) == BPS


def test_arrivals_at_one_time_prove_no_more_than_was_meant(cluster: Any) -> None:
    assert feed(cluster, *((0, 20) for _ in range(10))) == BPS


def test_four_fifths_have_to_arrive(cluster: Any) -> None:
    assert feed(cluster, *((2 * k, 20 + 2 * k) for k in range(7))) == 0
    assert feed(cluster, (14, 34)) > 0


def test_few_large_packets_are_not_enough(cluster: Any) -> None:
    assert feed(cluster, *((2 * k, 20 + 2 * k) for k in range(3)), size=5000) == 0


@pytest.mark.parametrize("arrivals", [2000, -2000, 1e12])
def test_a_probe_takes_no_second(cluster: Any, arrivals: float) -> None:
    assert feed(cluster, *((2 * k, 20 + arrivals * k) for k in range(10))) == 0


def test_nothing_arrives_twice_as_fast_as_it_was_sent(cluster: Any) -> None:
    assert feed(cluster, *((20 * k, 20 + 0.1 * k) for k in range(10))) == 0


@pytest.mark.parametrize("number", [-5, -1, 0, 4, 7, 11, 1 << 40])
def test_other_numbers_are_no_probe(cluster: Any, number: int) -> None:
    assert feed(cluster, *((2 * k, 20 + 2 * k) for k in range(20)), cluster=number) == 0
