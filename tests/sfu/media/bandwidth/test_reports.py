"""Receiver reports and REMB where no transport-cc feedback ever came."""

from typing import Any

import pytest

from sfu.media.bandwidth.estimate import (
    begin_feedback,
    end_feedback,
    expect_no_feedback,
    packet_received,
    receiver_estimate,
    receiver_report,
    tick,
)
from sfu.schema.estimate_tables import MAX_BPS, MIN_BPS, START_BPS
from tests.sfu.support.bottleneck import MS, SECOND, START_NS


class Client:
    def __init__(self, estimate: Any) -> None:
        self.estimate, self.now, self.total = estimate, START_NS, 0

    def run(self, seconds: int, bps: int, lost: int) -> int:
        """A report a second, of so many 256ths; what may be sent."""
        for _ in range(seconds):
            for _ in range(40):
                self.now += 25 * MS
                self.total += bps * 25 // 8000
                tick(self.estimate, self.now, self.total)
            receiver_report(self.estimate, lost, bps, self.now)
        return int(self.estimate["target_bps"])


@pytest.fixture
def client(estimate: Any) -> Client:
    expect_no_feedback(estimate)
    return Client(estimate)


def test_nothing_limits_before_a_report(client: Client) -> None:
    assert client.estimate["target_bps"] == MAX_BPS
    assert client.run(30, 3_000_000, 0) == MAX_BPS
    assert client.estimate["probe_cluster"] == 0
    assert client.estimate["silent"] == 0


def test_much_loss_brings_it_below_what_was_sent(client: Client) -> None:
    client.run(3, 3_000_000, 0)
    assert client.run(1, 3_000_000, 77) == pytest.approx(3_000_000 * (1 - 77 / 512), rel=0.02)


def test_some_loss_changes_nothing(client: Client) -> None:
    client.run(3, 3_000_000, 77)
    before = int(client.estimate["target_bps"])
    assert client.run(10, 1_000_000, 13) == before


def test_little_loss_lets_it_grow_8_percent_a_second(client: Client) -> None:
    client.run(3, 3_000_000, 77)
    before = int(client.estimate["target_bps"])
    assert client.run(10, 3_000_000, 0) == pytest.approx(before * 1.08**10, rel=0.02)


def test_reports_in_a_row_decrease_once(client: Client) -> None:
    before = client.run(3, 3_000_000, 77)
    for _ in range(100):
        receiver_report(client.estimate, 255, 3_000_000, client.now)
    assert client.estimate["target_bps"] == before


def test_the_first_report_of_much_loss_brings_it_below_what_was_sent(client: Client) -> None:
    assert client.run(1, 2_000_000, 128) == 1_500_000


def test_rare_reports_let_it_grow_as_much(client: Client) -> None:
    before = client.run(1, 2_000_000, 128)
    client.now += 9 * SECOND
    assert client.run(1, 2_000_000, 0) == pytest.approx(before * 1.08**10, rel=0.02)
    client.now += 1_000 * SECOND
    before = int(client.estimate["target_bps"])
    assert client.run(1, 2_000_000, 0) == pytest.approx(before * 1.08**10, rel=0.02)


def test_a_receivers_estimate_limits_while_something_is_lost(client: Client) -> None:
    receiver_estimate(client.estimate, 500_000, client.now)
    assert client.estimate["target_bps"] == 500_000
    assert client.run(3, 400_000, 10) == 500_000


def test_without_loss_more_than_a_receivers_estimate_is_tried(client: Client) -> None:
    receiver_estimate(client.estimate, 500_000, client.now)
    assert client.run(5, 400_000, 0) == pytest.approx(500_000 * 1.08**5, rel=0.02)
    for _ in range(40):
        receiver_estimate(client.estimate, 500_000, client.now)
        client.run(1, 400_000, 0)
    assert client.estimate["target_bps"] == 4 * 500_000
    receiver_estimate(client.estimate, 400_000, client.now)
    assert client.estimate["target_bps"] == 400_000, "it fell because of that"


def test_loss_ends_what_is_tried_beyond_a_receivers_estimate(client: Client) -> None:
    receiver_estimate(client.estimate, 500_000, client.now)
    client.run(5, 400_000, 0)
    assert client.run(1, 400_000, 10) == 500_000


def test_a_receivers_estimate_that_is_not_renewed_ends(client: Client) -> None:
    receiver_estimate(client.estimate, 500_000, client.now)
    client.run(9, 400_000, 10)
    assert client.estimate["target_bps"] == 500_000
    client.run(2, 400_000, 10)
    assert client.estimate["target_bps"] == MAX_BPS


@pytest.mark.parametrize(("bps", "bound"), [(-(1 << 62), MIN_BPS), (0, MIN_BPS), ((1 << 63) - 1, MAX_BPS)])
def test_wild_values_are_bounded(client: Client, bps: int, bound: int) -> None:
    receiver_estimate(client.estimate, bps, client.now)
    assert client.estimate["target_bps"] == bound
    for lost in (-(1 << 62), 1 << 62):
        client.run(20, 1_000_000, lost)
        assert MIN_BPS <= client.estimate["target_bps"] <= MAX_BPS


def test_reports_do_not_rule_where_feedback_is_expected(estimate: Any) -> None:
    client = Client(estimate)
    assert client.run(2, 500_000, 255) == START_BPS


def test_feedback_rules_once_it_came(client: Client) -> None:
    client.run(3, 3_000_000, 0)
    begin_feedback(client.estimate, client.now)
    packet_received(client.estimate, client.now - 50 * MS, 7 * SECOND, 1000, 0)
    end_feedback(client.estimate, client.now)
    assert client.estimate["target_bps"] == START_BPS
    receiver_report(client.estimate, 255, 3_000_000, client.now + SECOND)
    receiver_estimate(client.estimate, 100_000, client.now + SECOND)
    assert client.estimate["target_bps"] == START_BPS
