"""Groups of packets: what belongs together, and what is compared with what."""

from typing import Any

import pytest

from sfu.media.bandwidth.groups import MAX_REORDERED, group_packet
from tests.sfu.support.bottleneck import MS, SECOND


def feed(estimate: Any, *packets: tuple[float, float]) -> None:
    """(sent, arrived) in ms; each is reported when it arrives."""
    for sent, arrived in packets:
        estimate["feedback_ns"] = int(arrived * MS)
        group_packet(estimate, int(sent * MS), int(arrived * MS))


def test_packets_within_5_ms_are_one_group(estimate: Any) -> None:
    feed(estimate, (0, 20), (3, 23), (5, 25))
    assert estimate["before_known"] == 0
    assert (estimate["group_first_sent_ns"], estimate["group_sent_ns"]) == (0, 5 * MS)
    assert estimate["group_arrival_ns"] == 25 * MS
    feed(estimate, (10, 40))
    assert estimate["before_known"] == 1
    assert estimate["delay_count"] == 0, "the first group has nothing to be compared with"


def test_a_group_is_compared_when_the_next_begins(estimate: Any) -> None:
    feed(estimate, (0, 20), (10, 38), (20, 60))
    assert estimate["delay_count"] == 1
    assert estimate["delay_ms"] == pytest.approx(8)
    feed(estimate, (30, 80))
    assert estimate["delay_ms"] == pytest.approx(20)


def test_a_group_has_arrived_when_its_last_packet_has_whatever_its_number(estimate: Any) -> None:
    feed(estimate, (0, 20), (0, 31), (0, 24), (10, 40), (20, 60))
    assert estimate["delay_ms"] == pytest.approx(40 - 31 - 10)


def test_what_waited_in_one_queue_is_a_burst(estimate: Any) -> None:
    feed(estimate, (0, 50), (10, 52), (20, 56), (30, 90))
    assert estimate["before_sent_ns"] == 20 * MS
    assert estimate["before_arrival_ns"] == 56 * MS


def test_a_burst_ends_after_100_ms(estimate: Any) -> None:
    feed(estimate, *((10 * k, 200 + 4 * k) for k in range(26)))
    assert estimate["before_known"] == 1
    assert estimate["before_arrival_ns"] - 200 * MS < 100 * MS


def test_an_older_packet_changes_nothing(estimate: Any) -> None:
    feed(estimate, (10, 20), (20, 30))
    before = estimate.tobytes()
    group_packet(estimate, 15 * MS, 99 * MS)
    assert estimate.tobytes() == before


def test_a_group_that_overtook_is_skipped(estimate: Any) -> None:
    feed(estimate, (0, 20), (10, 90), (40, 60), (80, 100), (90, 110))
    assert estimate["delay_count"] == 2
    assert estimate["delay_ms"] == pytest.approx(100 - 20 - 80), "80 is compared with 10"
    assert estimate["groups_reordered"] == 0


def test_groups_that_keep_arriving_early_mean_that_a_clock_was_set_back(estimate: Any) -> None:
    feed(estimate, (0, 50_000), (10, 50_010))
    feed(estimate, *((20 + 10 * k, 100 + 10 * k) for k in range(MAX_REORDERED)))
    assert estimate["before_known"] == 1
    feed(estimate, (500, 600))
    assert estimate["before_known"] == 0
    assert estimate["trend_length"] == 0
    feed(estimate, (510, 610), (520, 620), (530, 640))
    assert estimate["delay_ms"] == pytest.approx(0)


@pytest.mark.parametrize("jump", [4 * SECOND, 1 << 61, -(1 << 61)])
def test_a_clock_that_jumps_is_no_delay(estimate: Any, jump: int) -> None:
    now = 10 * SECOND
    for k in range(60):
        now += 10 * MS
        estimate["feedback_ns"] = now
        group_packet(estimate, now, now + (jump if k >= 30 else 0))
    assert abs(estimate["delay_ms"]) < 1
    assert estimate["delay_state"] == 0
