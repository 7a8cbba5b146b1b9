"""The whole estimate: silence, new paths, bounds, and whatever a peer says."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfu.media.bandwidth import estimate as kernels
from sfu.schema.estimate_tables import ESTIMATE, MAX_BPS, MIN_BPS, RTT_REPORTS, START_BPS, estimate_t
from tests.sfu.support.bottleneck import MS, SECOND, START_NS, Flow, Link, run


def settled(bps: int = 5_000_000, seconds: float = 10, **options: Any) -> tuple[Link, Flow]:
    link = Link(lambda _: bps)
    flow = Flow(link, audio=True, **options)
    run(link, [flow], seconds)
    return link, flow


def test_a_row_takes_two_kib_at_most() -> None:
    assert estimate_t.itemsize <= 2048


def test_a_row_that_opens_again_knows_nothing(estimate: Any) -> None:
    _, flow = settled()
    kernels.open_estimate(flow.estimate, START_NS)
    for name in estimate.dtype.names:
        if name != "probes":
            assert flow.estimate[name].tolist() == estimate[name].tolist(), name
    assert not flow.estimate["probes"]["cluster"].any()
    assert flow.target == START_BPS


def test_every_column_is_reset() -> None:
    assert all(column.is_reset or column.name == "probes" for column in ESTIMATE.columns)


class TestRoundTrip:
    def take(self, estimate: Any, now: int, *ages_ms: int) -> int:
        kernels.begin_feedback(estimate, now)
        for age in sorted(ages_ms, reverse=True):
            kernels.packet_received(estimate, now - age * MS, now - age * MS, 100, 0)
        kernels.end_feedback(estimate, now)
        return int(estimate["rtt_ns"]) // MS

    def test_it_is_that_of_the_newest_packet(self, estimate: Any) -> None:
        assert self.take(estimate, START_NS, 150, 100, 60) == 60

    def test_the_least_of_the_last_reports_counts(self, estimate: Any) -> None:
        self.take(estimate, START_NS, 40)
        for k in range(1, RTT_REPORTS):
            assert self.take(estimate, START_NS + k * SECOND, 90) == 40
        assert self.take(estimate, START_NS + RTT_REPORTS * SECOND, 90) == 90

    def test_what_cannot_be_is_not_believed(self, estimate: Any) -> None:
        self.take(estimate, START_NS, 40)
        assert self.take(estimate, START_NS + MS, -5) == 40
        assert self.take(estimate, START_NS + 2 * MS, 20_000) == 40


class TestSilence:
    def test_the_rate_is_halved_each_second(self) -> None:
        link, flow = settled()
        before = flow.target
        flow.cut = True
        run(link, [flow], 1.3)
        assert flow.estimate["silent"] == 1
        assert flow.target == before // 2
        run(link, [flow], 2)
        assert flow.target == before // 8
        run(link, [flow], 30)
        assert flow.target == MIN_BPS

    def test_who_sends_nothing_is_not_silent(self) -> None:
        link, flow = settled()
        before = flow.target
        total = flow.bytes_sent
        kernels.begin_feedback(flow.estimate, link.now)
        kernels.end_feedback(flow.estimate, link.now)
        for k in range(1000):
            kernels.tick(flow.estimate, link.now + k * 25 * MS, total)
        assert flow.estimate["silent"] == 0
        assert flow.target == before

    def test_when_feedback_returns_what_was_is_probed_for(self) -> None:
        link, flow = settled()
        before = flow.target
        flow.cut = True
        run(link, [flow], 3)
        flow.cut = False
        run(link, [flow], 1)
        assert flow.estimate["silent"] == 0
        assert flow.target > 0.5 * before

    def test_a_long_round_trip_is_waited_for(self) -> None:
        link = Link(lambda _: 5_000_000, one_way_ms=400)
        flow = Flow(link, audio=True)
        run(link, [flow], 10)
        assert flow.estimate["rtt_ns"] > 800 * MS
        flow.cut = True
        run(link, [flow], 1.8)
        assert flow.estimate["silent"] == 0
        run(link, [flow], 2)
        assert flow.estimate["silent"] == 1


class TestPathChange:
    def test_no_more_than_arrived_is_taken_along(self) -> None:
        link, flow = settled()
        acknowledged = float(flow.estimate["acknowledged_bps"])
        assert flow.target > acknowledged
        kernels.path_changed(flow.estimate, link.now)
        assert flow.target == int(acknowledged)
        assert flow.estimate["acknowledged_bps"] == 0
        assert flow.estimate["trend_length"] == flow.estimate["observations"] == 0

    def test_the_new_one_is_probed_at_once(self) -> None:
        link, flow = settled(preferred=8_000_000)
        cluster = int(flow.estimate["last_cluster"])
        kernels.path_changed(flow.estimate, link.now)
        run(link, [flow], 0.5)
        assert flow.estimate["last_cluster"] > cluster
        assert flow.estimate["silent"] == 0

    def test_who_moves_again_and_again_without_feedback_is_silent_all_the_same(self) -> None:
        link, flow = settled()
        flow.cut = True
        for _ in range(6):
            kernels.path_changed(flow.estimate, link.now)
            run(link, [flow], 0.4)
        assert flow.estimate["silent"] == 1

    def test_the_first_move_gives_a_new_path_its_time(self) -> None:
        link, flow = settled()
        flow.cut = True
        run(link, [flow], 0.8)
        kernels.path_changed(flow.estimate, link.now)
        run(link, [flow], 0.8)
        assert flow.estimate["silent"] == 0
        run(link, [flow], 0.5)
        assert flow.estimate["silent"] == 1

    def test_what_rules_stays(self, estimate: Any) -> None:
        kernels.expect_no_feedback(estimate)
        kernels.path_changed(estimate, START_NS)
        assert estimate["target_bps"] == MAX_BPS


@pytest.mark.parametrize(("bps", "expected"), [(2_000_000, 2_000_000), (-5, MIN_BPS), (1 << 62, MAX_BPS)])
def test_a_resumed_client_begins_where_it_was(estimate: Any, bps: int, expected: int) -> None:
    kernels.resume_estimate(estimate, bps, START_NS)
    assert estimate["target_bps"] == expected
    kernels.set_preferred(estimate, 3_000_000, START_NS)
    kernels.tick(estimate, START_NS + MS, 0)
    assert estimate["probe_bps"] in {min(2 * expected, 6_000_000), 0}


@pytest.mark.parametrize(("bps", "expected"), [(-(1 << 62), 0), ((1 << 63) - 1, MAX_BPS)])
def test_what_is_preferred_is_bounded(estimate: Any, bps: int, expected: int) -> None:
    kernels.set_preferred(estimate, bps, START_NS)
    assert estimate["preferred_bps"] == expected


def test_an_empty_feedback_changes_nothing_that_is_sent(estimate: Any) -> None:
    for k in range(100):
        kernels.begin_feedback(estimate, START_NS + k * MS)
        kernels.end_feedback(estimate, START_NS + k * MS)
    assert estimate["target_bps"] == START_BPS


def is_sound(estimate: Any) -> bool:
    numbers = [np.asarray(estimate[name], dtype=float) for name in estimate.dtype.names if name != "probes"]
    return all(np.isfinite(each).all() for each in numbers) and MIN_BPS <= estimate["target_bps"] <= MAX_BPS


WILD = st.one_of(
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.integers(-200, 200).map(lambda ms: ms * MS),
    st.integers(-3, 3).map(lambda seconds: seconds * SECOND),
    st.just(0),
)
PACKETS = st.lists(
    st.tuples(st.sampled_from("rrrrlc"), WILD, st.integers(1, 1500), st.integers(0, 127)), min_size=1, max_size=40
)


@settings(max_examples=150)
@given(st.lists(st.tuples(PACKETS, st.integers(0, 3 * SECOND)), min_size=1, max_size=12))
def test_a_hostile_receiver_breaks_nothing(feedbacks: list[tuple[list[tuple[str, int, int, int]], int]]) -> None:
    row: Any = np.zeros(1, estimate_t)[0]
    now, sent, total = START_NS, START_NS, 0
    kernels.open_estimate(row, now)
    kernels.set_preferred(row, 3_000_000, now)
    for packets, pause in feedbacks:
        now += pause
        kernels.begin_feedback(row, now)
        for kind, arrival, size, cluster in packets:
            sent += MS
            total += size
            if kind == "r":
                kernels.packet_received(row, sent, arrival, size, cluster)
            elif kind == "l":
                kernels.packet_lost(row, sent, size)
            else:
                kernels.packet_recovered(row, sent - arrival % SECOND, size)
        kernels.end_feedback(row, now)
        assert is_sound(row)
        kernels.tick(row, now, total)
        kernels.probe_sent(row, 1000, 1, now)
        assert is_sound(row)


@pytest.mark.parametrize(
    "lie", ["one instant", "line rate", "ten times faster", "backwards", "all lost", "alternating"]
)
def test_no_lie_leads_beyond_what_was_sent_or_probed(lie: str) -> None:
    """1 Mbit/s is sent; the receiver invents arrivals, and sends feedback ten times a second."""
    row: Any = np.zeros(1, estimate_t)[0]
    now, number, total = START_NS, 0, 0
    kernels.open_estimate(row, now)
    kernels.set_preferred(row, 50_000_000, now)
    most = START_BPS
    for feedback in range(600):
        sent = []
        for _ in range(20):
            now += 5 * MS
            sent.append(now)
            total += 625
            kernels.tick(row, now, total)
        kernels.begin_feedback(row, now)
        for at in sent:
            number += 1
            arrival = {
                "one instant": 0,
                "line rate": at - at % (100 * MS) + number % 20 * 1000,
                "ten times faster": at // 10,
                "backwards": -at,
                "all lost": at,
                "alternating": at + (feedback % 2) * (1 << 62),
            }[lie]
            if lie == "all lost":
                kernels.packet_lost(row, at, 625)
            else:
                kernels.packet_received(row, at, arrival, 625, 0)
        kernels.end_feedback(row, now)
        most = max(most, int(row["target_bps"]))
    assert most <= 1.5 * 1.25 * 1_000_000 + 10_000
    assert is_sound(row)
    if lie == "all lost":
        assert row["target_bps"] < 100_000


def test_feedback_with_nothing_new_after_a_time_out_starts_groups_anew() -> None:
    link, flow = settled()
    kernels.begin_feedback(flow.estimate, link.now + 3 * SECOND)
    assert flow.estimate["group_open"] == 0
    kernels.end_feedback(flow.estimate, link.now + 3 * SECOND)
    assert is_sound(flow.estimate)
