"""The acknowledged rate: what arrives, whatever the receiver's clock says."""

from typing import Any

import pytest

from sfu.media.bandwidth.acknowledged import SEND_SLACK, acknowledge_packet
from tests.sfu.support.bottleneck import MS, SECOND


class Receiver:
    def __init__(self, estimate: Any) -> None:
        self.estimate, self.sent, self.offset = estimate, 5 * SECOND, 77 * SECOND

    def take(self, seconds: float, bps: float, *, size: int = 1000) -> list[float]:
        """Packets that are evenly sent and received; what was believed after each."""
        end, apart, rates = self.sent + int(seconds * SECOND), int(size * 8e9 / bps), []
        while self.sent < end:
            self.sent += apart
            acknowledge_packet(self.estimate, self.sent, self.sent + self.offset, size)
            rates.append(float(self.estimate["acknowledged_bps"]))
        return rates


@pytest.fixture
def receiver(estimate: Any) -> Receiver:
    return Receiver(estimate)


@pytest.mark.parametrize("bps", [50_000, 1_000_000, 40_000_000])
def test_a_constant_rate_is_found(receiver: Receiver, bps: int) -> None:
    rates = receiver.take(5, bps, size=200)
    assert rates[-1] == pytest.approx(bps, rel=0.05)


def test_nothing_is_believed_before_half_a_second(receiver: Receiver) -> None:
    assert set(receiver.take(0.49, 1_000_000)) == {0.0}
    assert receiver.take(0.1, 1_000_000)[-1] > 900_000


@pytest.mark.parametrize(("before", "after"), [(3_000_000, 700_000), (200_000, 3_000_000)])
def test_a_change_is_followed_within_a_second(receiver: Receiver, before: int, after: int) -> None:
    receiver.take(5, before)
    assert receiver.take(1.0, after)[-1] == pytest.approx(after, rel=0.15)


def test_a_pause_is_no_low_rate(receiver: Receiver) -> None:
    receiver.take(3, 1_000_000)
    receiver.sent += 2 * SECOND
    assert min(receiver.take(1, 1_000_000)) > 900_000


def test_a_clock_that_is_set_back_begins_a_window(receiver: Receiver) -> None:
    receiver.take(3, 1_000_000)
    receiver.offset -= 50 * SECOND
    rates = receiver.take(2, 1_000_000)
    assert min(rates) > 900_000
    assert max(rates) < 1_100_000


def test_what_arrives_at_once_counts_for_no_more_than_was_sent(receiver: Receiver) -> None:
    estimate = receiver.estimate
    receiver.take(3, 1_000_000)
    at = receiver.sent + receiver.offset
    for burst in range(40):
        at += 151 * MS  # each second of sending "arrives" within one window
        for _ in range(125):
            receiver.sent += 8 * MS
            acknowledge_packet(estimate, receiver.sent, at + burst, 1000)
    assert estimate["acknowledged_bps"] <= 1_000_000 * SEND_SLACK * 1.05


def test_after_application_limited_times_a_change_is_expected(estimate: Any) -> None:
    receiver = Receiver(estimate)
    receiver.take(3, 300_000)
    variance = float(estimate["acknowledged_variance"])
    estimate["limited_ended_ns"] = receiver.sent
    receiver.take(0.05, 300_000)
    assert estimate["limited_ended_ns"] == 0
    assert estimate["acknowledged_variance"] > variance + 100
