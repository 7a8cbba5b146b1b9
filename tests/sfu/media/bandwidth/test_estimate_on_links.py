"""The estimator on simulated links: what a viewer gets when the link changes, is shared, loses, or is hardly used."""

import pytest

from tests.sfu.support.bottleneck import MS, SECOND, Flow, Link, run

STEP = 30
STEPS = (3_000_000, 700_000, 300_000, 150_000, 3_000_000)


class Record:
    """What happened every 100 ms."""

    def __init__(self, link: Link, flow: Flow) -> None:
        self.link, self.flow = link, flow
        self.rows: list[tuple[float, int, int, float]] = []
        """(seconds, target in bit/s, bytes sent, ms of queue)."""

    def __call__(self, at: float) -> None:
        self.rows.append((round(at, 1), self.flow.target, self.flow.bytes_sent, self.link.delay_ms()))

    def sent_bps(self, begin: float, end: float) -> float:
        first, last = self._at(begin), self._at(end)
        return (last[2] - first[2]) * 8 / (end - begin)

    def queue_ms(self, begin: float, end: float) -> list[float]:
        return [row[3] for row in self.rows if begin <= row[0] <= end]

    def targets(self, begin: float, end: float) -> list[int]:
        return [row[1] for row in self.rows if begin <= row[0] <= end]

    def _at(self, seconds: float) -> tuple[float, int, int, float]:
        return next(row for row in self.rows if row[0] >= round(seconds, 1))


@pytest.fixture(scope="module")
def steps() -> Record:
    """3, 0.7, 0.3, 0.15 and again 3 Mbit/s, 30 s each."""
    link = Link(lambda t: STEPS[min(t // (STEP * SECOND), len(STEPS) - 1)])
    flow = Flow(link, audio=True)
    record = Record(link, flow)
    run(link, [flow], STEP * len(STEPS), record)
    return record


@pytest.mark.parametrize("step", [1, 2, 3])
def test_after_a_drop_no_more_is_sent_than_the_link_carries(steps: Record, step: int) -> None:
    begin = step * STEP
    assert steps.sent_bps(begin + 1.5, begin + 4) <= STEPS[step]
    assert max(steps.queue_ms(begin + 3, begin + STEP - 0.1)) < 150
    assert sum(steps.queue_ms(begin + 3, begin + 6)) / len(steps.queue_ms(begin + 3, begin + 6)) < 100


@pytest.mark.parametrize("step", range(len(STEPS)))
def test_a_link_is_used(steps: Record, step: int) -> None:
    begin = step * STEP
    assert steps.sent_bps(begin + 10, begin + STEP - 0.5) >= 0.75 * STEPS[step]


def test_a_link_that_recovers_is_found_within_10_s(steps: Record) -> None:
    begin = (len(STEPS) - 1) * STEP
    assert steps.sent_bps(begin + 9, begin + 10) > 2_700_000


def test_a_start_on_a_fast_link_is_fast() -> None:
    link = Link(lambda _: 10_000_000)
    flow = Flow(link)
    run(link, [flow], 1.0)
    assert flow.target >= 3_000_000
    assert flow.dropped == 0


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("loss", [0.02, 0.05, 0.1])
def test_random_loss_is_not_congestion(loss: float, seed: int) -> None:
    link = Link(lambda _: 10_000_000, loss=loss, seed=seed)
    flow = Flow(link, audio=True)
    record = Record(link, flow)
    run(link, [flow], 60, record)
    assert record.sent_bps(10, 59) >= 2_000_000


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_two_viewers_share_a_link(seed: int) -> None:
    """The second comes 20 s later; a little jitter keeps their frames from falling into the same places for ever."""
    link = Link(lambda _: 1_500_000, jitter_ms=3, seed=seed)
    first, second = Flow(link, audio=True), Flow(link, audio=True, start=20 * SECOND + seed * 11 * MS)
    run(link, [first, second], 30)
    before = first.bytes_received, second.bytes_received
    run(link, [first, second], 30)
    shares = first.bytes_received - before[0], second.bytes_received - before[1]
    assert min(shares) >= 0.3 * sum(shares)
    assert sum(shares) * 8 / 30 >= 0.7 * 1_500_000


@pytest.mark.parametrize("jitter", [0, 10, 30])
def test_who_sends_little_keeps_the_estimate(jitter: int) -> None:
    link = Link(lambda _: 10_000_000, jitter_ms=jitter)
    flow = Flow(link, audio=True)
    run(link, [flow], 40)
    assert flow.target >= 3_000_000
    flow.limit = 300_000
    record = Record(link, flow)
    run(link, [flow], 60, record)
    assert min(record.targets(40, 100)) >= 2_500_000
    assert flow.estimate["application_limited"] == 1


@pytest.mark.parametrize("jitter", [10, 30])
def test_jitter_and_reordering_are_no_congestion(jitter: int) -> None:
    link = Link(lambda _: 10_000_000, jitter_ms=jitter)
    flow = Flow(link, audio=True)
    record = Record(link, flow)
    run(link, [flow], 60, record)
    assert record.sent_bps(20, 59) >= 2_900_000


def test_a_slow_link_is_not_flooded_at_the_start() -> None:
    link = Link(lambda _: 300_000, queue_ms=1000)
    flow = Flow(link, audio=True)
    record = Record(link, flow)
    run(link, [flow], 10, record)
    assert record.sent_bps(1.5, 5) <= 1.05 * 300_000
    assert max(record.queue_ms(3, 9.9)) < 200


def test_probes_are_few() -> None:
    link = Link(lambda _: 700_000)
    flow = Flow(link, audio=True)
    run(link, [flow], 60)
    assert flow.probe_bytes <= 0.05 * flow.bytes_sent


def test_the_same_happens_each_time() -> None:
    def total() -> int:
        link = Link(lambda _: 1_000_000, loss=0.02, jitter_ms=5, seed=9)
        flow = Flow(link, audio=True)
        run(link, [flow], 10)
        return flow.bytes_received

    assert total() == total()


def test_who_sends_little_still_yields_to_a_link_that_carries_less() -> None:
    link = Link(lambda t: 5_000_000 if t < 20 * SECOND else 200_000)
    flow = Flow(link, audio=True)
    flow.limit = 300_000
    record = Record(link, flow)
    run(link, [flow], 30, record)
    assert record.sent_bps(22, 25) <= 200_000
    assert max(record.queue_ms(23.5, 29.9)) < 150
