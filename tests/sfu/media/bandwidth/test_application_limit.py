"""Application-limited detection: from sending far below the estimate until sending near it."""

from typing import Any

from sfu.media.bandwidth.application_limit import spend_budget
from tests.sfu.support.bottleneck import MS, SECOND, START_NS


class Sender:
    def __init__(self, estimate: Any, target: int = 1_000_000) -> None:
        self.estimate, self.now, self.total = estimate, START_NS, 0
        estimate["target_bps"] = target

    def send(self, seconds: float, bps: float, every_ms: int = 5) -> list[int]:
        states = []
        for _ in range(round(seconds * 1000 / every_ms)):
            self.now += every_ms * MS
            self.total += int(bps * every_ms / 8000)
            spend_budget(self.estimate, self.now, self.total)
            states.append(int(self.estimate["application_limited"]))
        return states


def test_sending_at_the_estimate_is_no_limit(estimate: Any) -> None:
    assert set(Sender(estimate).send(10, 1_000_000)) == {0}
    assert set(Sender(estimate).send(10, 700_000)) == {0}


def test_sending_half_of_it_is_one_after_a_while(estimate: Any) -> None:
    states = Sender(estimate).send(5, 300_000)
    assert states[0] == 0
    assert states[-1] == 1


def test_it_ends_when_more_is_sent_and_says_when(estimate: Any) -> None:
    sender = Sender(estimate)
    sender.send(5, 100_000)
    assert sender.send(2, 1_000_000)[-1] == 0
    assert START_NS + 5 * SECOND < estimate["limited_ended_ns"] <= sender.now


def test_frames_do_not_end_it(estimate: Any) -> None:
    sender = Sender(estimate)
    sender.send(5, 100_000)
    assert set(sender.send(5, 400_000, every_ms=33)) == {1}


def test_a_total_or_a_clock_that_goes_back_is_harmless(estimate: Any) -> None:
    sender = Sender(estimate)
    sender.send(5, 100_000)
    spend_budget(estimate, sender.now - SECOND, 0)
    spend_budget(estimate, sender.now - SECOND, 1 << 60)
    assert abs(estimate["budget_bytes"]) <= 0.65 * 1_000_000 / 8 / 2
