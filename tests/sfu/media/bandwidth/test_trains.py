"""Bursts of our own on a narrow path: what they measure, and that they do not look like a full path."""

from typing import Any

import pytest

from sfu.media.bandwidth.trains import (
    DISPROVED_MS,
    OTHERS_MS,
    OVERRUN_NS,
    TRAIN_PACKETS,
    VALID_NS,
    forget_slow_trains,
    is_own_queue,
    measure_train,
    overrun_bps,
    own_queue_ms,
    train_packet,
)
from tests.sfu.support.bottleneck import MS, SECOND, START_NS, Flow, Link, run

SIZE = 1_000
GAP = 10 * MS
"""Between two packets that arrive one after another: 800 kbit/s."""
RATE = 800_000


def burst(
    estimate: Any, count: int = 10, *, at: int = START_NS, gap: int = GAP, apart: int = 0, measure: bool = True
) -> None:
    """So many packets leave `apart` ns from each other and arrive `gap` ns from each other; then comes feedback."""
    for k in range(count):
        train_packet(estimate, at + k * apart, at + 20 * MS + k * gap, SIZE)
    estimate["feedback_ns"] = at + 20 * MS + count * gap
    if measure:
        measure_train(estimate)


def test_a_burst_measures_how_fast_the_path_is(estimate: Any) -> None:
    burst(estimate)
    assert estimate["train_bps"] == pytest.approx(RATE)


@pytest.mark.parametrize(
    "shape",
    [{"count": TRAIN_PACKETS - 1}, {"gap": MS // 2}, {"apart": 9 * MS}, {"apart": 41 * MS, "gap": 82 * MS}],
    ids=["too few", "too quick", "as it left", "too far apart"],
)
def test_what_does_not_fill_the_path_measures_nothing(estimate: Any, shape: dict[str, Any]) -> None:
    burst(estimate, **shape)
    assert estimate["train_bps"] == 0


def test_packets_that_leave_one_by_one_measure_a_path_that_is_slower(estimate: Any) -> None:
    burst(estimate, apart=6 * MS)
    assert estimate["train_bps"] == pytest.approx(RATE)


def test_a_small_packet_that_came_alone_begins_no_train(estimate: Any) -> None:
    train_packet(estimate, START_NS, START_NS + 20 * MS, SIZE // 4)
    burst(estimate, at=START_NS + 20 * MS)
    assert estimate["train_bps"] == pytest.approx(RATE)


def test_less_is_believed_at_once_and_more_by_half(estimate: Any) -> None:
    burst(estimate)
    burst(estimate, at=START_NS + SECOND, gap=2 * GAP)
    assert estimate["train_bps"] == pytest.approx(RATE / 2)
    burst(estimate, at=START_NS + 2 * SECOND)
    assert estimate["train_bps"] == pytest.approx(0.75 * RATE)
    burst(estimate, at=START_NS + 3 * SECOND + VALID_NS)
    assert estimate["train_bps"] == pytest.approx(RATE), "what was known is too old"


def test_the_first_train_is_a_queue_of_our_own(estimate: Any) -> None:
    burst(estimate)
    assert estimate["group_own_ms"] == pytest.approx(90)
    assert is_own_queue(estimate, 90)


def test_our_own_queue_is_what_we_sent_and_drains_at_the_rate_of_the_path(estimate: Any) -> None:
    burst(estimate)
    burst(estimate, at=START_NS + SECOND)
    assert own_queue_ms(estimate) == pytest.approx(100)
    burst(estimate, 1, at=START_NS + SECOND + 60 * MS, measure=False)
    assert own_queue_ms(estimate) == pytest.approx(50)


def test_a_burst_explains_its_own_queue_and_no_more(estimate: Any) -> None:
    burst(estimate)
    estimate["group_own_ms"] = 100
    assert is_own_queue(estimate, 100 + OTHERS_MS)
    assert not is_own_queue(estimate, 101 + OTHERS_MS), "others send, or the path has become narrower"
    estimate["feedback_ns"] += VALID_NS
    assert is_own_queue(estimate, 100)
    estimate["feedback_ns"] += 1
    assert not is_own_queue(estimate, 100), "nobody knows what the path is like now"


def test_nothing_explains_a_queue_of_one_who_fills_the_path(estimate: Any) -> None:
    for k in range(30):
        burst(estimate, at=START_NS + k * 100 * MS)
    estimate["group_own_ms"] = 100
    assert not is_own_queue(estimate, 0)


def test_a_path_that_carries_more_by_now_is_noticed_without_a_train(estimate: Any) -> None:
    burst(estimate)
    estimate["group_own_ms"] = 50 + DISPROVED_MS
    forget_slow_trains(estimate, 50)
    assert estimate["train_bps"] == pytest.approx(RATE)
    forget_slow_trains(estimate, 49)
    assert estimate["train_bps"] == 0


def known_to_send(estimate: Any, bps: float) -> None:
    """So much has been sent on the average, and was thought to be carried."""
    estimate["mean_bytes"] = bps / 8
    estimate["delay_bps"] = bps


def test_a_long_even_train_shows_a_path_that_carries_far_less_than_is_sent(estimate: Any) -> None:
    burst(estimate)
    known_to_send(estimate, 2_000_000)
    assert overrun_bps(estimate) == pytest.approx(RATE)
    estimate["feedback_ns"] += MS
    assert overrun_bps(estimate) == 0, "it was believed once"


def test_a_train_overruns_nothing_if_hardly_more_is_sent_or_nobody_thinks_so(estimate: Any) -> None:
    burst(estimate)
    known_to_send(estimate, RATE)
    assert overrun_bps(estimate) == 0
    estimate["mean_bytes"] *= 3
    assert overrun_bps(estimate) == 0, "the estimate is low already"


@pytest.mark.parametrize(
    "gaps", [[OVERRUN_NS // 10] * 9, [3 * MS] * 8 + [100 * MS], [40 * MS, 3 * MS, 3 * MS, 3 * MS, 40 * MS, 3 * MS]]
)
def test_jitter_and_pauses_overrun_nothing(estimate: Any, gaps: list[int]) -> None:
    arrival = START_NS + 20 * MS
    for gap in [0, *gaps]:
        arrival += gap
        train_packet(estimate, START_NS, arrival, SIZE)
    estimate["feedback_ns"] = arrival
    measure_train(estimate)
    known_to_send(estimate, 8_000_000)
    assert overrun_bps(estimate) == 0


def test_a_link_that_becomes_far_narrower_is_followed_before_its_queue_is_full() -> None:
    link = Link(lambda t: 3_000_000 if t < 20 * SECOND else 700_000)
    flow = Flow(link, preferred=1_700_000, audio=True)
    run(link, [flow], 20)
    assert flow.target >= 1_700_000
    run(link, [flow], 0.4)
    assert 500_000 <= flow.target <= 700_000
    assert flow.dropped == 0


def test_a_link_that_stands_still_for_a_moment_is_not_taken_for_a_narrow_one() -> None:
    pauses = tuple((at * SECOND, at * SECOND + 200 * MS) for at in range(20, 40, 4))
    link = Link(lambda _: 10_000_000, pauses=pauses)
    flow = Flow(link, preferred=1_700_000, audio=True)
    run(link, [flow], 20)
    lowest: list[int] = []
    run(link, [flow], 20, lambda _: lowest.append(flow.target))
    assert min(lowest) >= 1_200_000


def test_without_trains_nothing_is_known(estimate: Any) -> None:
    assert own_queue_ms(estimate) == 0
    assert not is_own_queue(estimate, 0)


def pictures(flow: Flow, size: int, every: int) -> Any:
    """What sends a picture of `size` bytes at once, every so many tenths of a second."""

    def each(at: float) -> None:
        if round(at * 10) % every == 0:
            flow._send_bytes(flow.link.now, size)

    return each


@pytest.mark.parametrize(("capacity", "size", "every"), [(300_000, 8_000, 40), (700_000, 16_000, 20)])
def test_large_pictures_do_not_make_a_path_look_full(capacity: int, size: int, every: int) -> None:
    """Each fills the queue for a fifth of a second; 0.85 of the little that is sent otherwise would end them all."""
    link = Link(lambda _: capacity, queue_ms=500)
    flow = Flow(link, audio=True)
    run(link, [flow], 10)
    flow.limit = 0
    targets: list[int] = []
    send = pictures(flow, size, every)

    def each(at: float) -> None:
        send(at)
        targets.append(flow.target)

    run(link, [flow], 30, each)
    assert flow.dropped == 0
    assert min(targets[20:]) >= 0.7 * capacity


def test_a_path_that_becomes_narrower_is_noticed_among_bursts() -> None:
    link = Link(lambda t: 700_000 if t < 20 * SECOND else 150_000, queue_ms=1000)
    flow = Flow(link, audio=True)
    flow.limit = 200_000
    send = pictures(flow, 6_000, 10)
    run(link, [flow], 20, send)
    assert flow.target >= 300_000
    run(link, [flow], 3, send)
    assert flow.target <= 150_000
