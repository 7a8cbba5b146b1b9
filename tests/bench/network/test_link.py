"""The arithmetic of a bottleneck, with a clock of the test's own."""

from itertools import pairwise
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.network.link import Conditions, Fate, Link, Outcome, value_at

MEGABIT = 1e6


def link(**conditions: object) -> Link:
    made = Link(Conditions(**conditions), seed=1)  # type: ignore[arg-type]
    made.begin(0.0)
    return made


def test_packets_follow_each_other_at_the_links_rate() -> None:
    narrow = link(rate=((0, MEGABIT),), delay_ms=20)
    fates = [narrow.send(1.0, 1250) for _ in range(3)]
    assert [fate.arrives for fate in fates] == pytest.approx([1.03, 1.04, 1.05])
    assert [fate.waited for fate in fates] == pytest.approx([0, 0.01, 0.02])


def test_a_link_that_had_nothing_to_do_does_not_save_that_up() -> None:
    narrow = link(rate=((0, MEGABIT),))
    narrow.send(1.0, 1250)
    assert [narrow.send(5.0, 1250).arrives, narrow.send(5.0, 1250).arrives] == pytest.approx([5.01, 5.02])


def test_what_would_wait_longer_than_the_queue_is_dropped_and_takes_no_time() -> None:
    narrow = link(rate=((0, MEGABIT),), queue_ms=25)
    outcomes = [narrow.send(0.0, 1250).outcome for _ in range(5)]
    assert outcomes == [Outcome.ARRIVES] * 3 + [Outcome.DROPPED] * 2
    assert narrow.send(0.01, 1250).arrives == pytest.approx(0.04)


def test_a_packet_on_the_link_is_slowed_down_by_a_step() -> None:
    narrow = link(rate=((0, MEGABIT), (1, MEGABIT / 10)))
    assert narrow.send(0.995, 1250).arrives == pytest.approx(1 + 0.05)


def test_steps_count_from_the_begin() -> None:
    narrow = Link(Conditions(rate=((0, MEGABIT), (1, MEGABIT / 10))), seed=1)
    assert narrow.send(500.0, 1250).arrives == pytest.approx(500.01)
    narrow.begin(600.0)
    assert narrow.send(600.5, 1250).arrives == pytest.approx(600.51)
    assert narrow.send(601.5, 1250).arrives == pytest.approx(601.6)


def test_nothing_goes_while_the_rate_is_zero() -> None:
    cut = link(rate=((0, MEGABIT), (1, 0), (2, MEGABIT)), queue_ms=300)
    assert cut.send(1.5, 1250).outcome is Outcome.DROPPED
    assert cut.send(1.8, 1250).arrives == pytest.approx(2.01)
    ended = link(rate=((0, MEGABIT), (1, 0)))
    assert ended.send(1.5, 1250) == Fate(Outcome.DROPPED, inf, inf)


def test_an_unlimited_link_only_delays() -> None:
    assert link(delay_ms=20).send(3.0, 1500).arrives == pytest.approx(3.02)


def test_losses_are_as_many_as_said_and_the_same_for_a_seed() -> None:
    def lost(seed: int) -> list[bool]:
        lossy = Link(Conditions(loss=((0, 0.05),)), seed)
        return [lossy.send(number / 100, 100).outcome is Outcome.LOST for number in range(4000)]

    assert lost(1) == lost(1)
    assert lost(1) != lost(2)
    assert sum(lost(1)) == pytest.approx(200, abs=60)


@pytest.mark.parametrize("reorder", [False, True])
def test_jitter_changes_the_order_only_where_it_may(reorder: bool) -> None:
    uneven = link(delay_ms=20, jitter_ms=((0, 30),), reorder=reorder)
    fates = [uneven.send(number / 500, 100) for number in range(500)]
    arrivals = [fate.arrives for fate in fates]
    assert (arrivals != sorted(arrivals)) == reorder
    if reorder:
        delays = [fate.arrives - number / 500 for number, fate in enumerate(fates)]
        assert 0.02 <= min(delays) < 0.022
        assert 0.048 < max(delays) <= 0.05


def test_jitter_comes_and_goes() -> None:
    uneven = link(delay_ms=20, jitter_ms=((0, 0), (1, 30), (2, 0)), reorder=True)
    delays = [(at, uneven.send(at, 100).arrives - at) for at in (number / 100 for number in range(300))]
    assert {round(delay, 6) for at, delay in delays if not 1 <= at < 2} == {0.02}
    assert max(delay for at, delay in delays if 1 <= at < 2) > 0.04


def test_the_first_value_also_holds_before_its_time() -> None:
    assert [value_at(((1, 5), (2, 6)), at) for at in (-1, 0, 1, 1.9, 2, 9)] == [5, 5, 5, 5, 6, 6]


@given(
    rates=st.lists(st.sampled_from([0.0, 1e5, 7e5, 3e6]), min_size=1, max_size=6),
    sends=st.lists(st.tuples(st.floats(0, 0.2), st.integers(40, 1500)), max_size=60),
)
def test_no_second_carries_more_than_the_rate_and_nothing_waits_longer_than_the_queue(
    rates: list[float], sends: list[tuple[float, int]]
) -> None:
    steps = tuple((float(at), rate) for at, rate in enumerate(rates))
    narrow, now, arrived = link(rate=steps, queue_ms=200), 0.0, list[tuple[float, int]]()
    for pause, size in sends:
        now += pause
        fate = narrow.send(now, size)
        if fate.outcome is Outcome.ARRIVES:
            assert fate.waited <= 0.2
            arrived.append((fate.arrives, size))
    assert all(a <= b for (a, _), (b, _) in pairwise(arrived))
    for second, rate in enumerate(rates[:-1]):
        bits = 8 * sum(size for at, size in arrived if second < at <= second + 1)
        assert bits <= rate + 8 * 1500
