"""Sharing the bandwidth of a subscriber among its videos: examples from what users of SFUs complained of, and what
holds for all inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfu.media.allocation.allocate import (
    BACK_OFF_NS,
    FAILED_WITHIN_NS,
    FORGIVEN_NS,
    MAX_BACK_OFF_NS,
    OVERDRAFT_BPS,
    OVERDRAFT_NS,
    OVERDRAFT_REST_NS,
    allocate,
)
from sfu.schema.allocation_tables import COST_SPATIAL, COST_TEMPORAL, DEMAND, MAX_SHARED
from sfu.schema.bandwidth_codes import Reason, Rung
from tests.sfu.support.publisher import MS, SECOND, START

KBIT = 1000
CAMERA = ((60, 90, 150), (200, 300, 500), (700, 1050, 1750))
"""kbit/s of three spatial layers, each up to its three temporal layers."""
SMALL = CAMERA[:1]
STILL = ((100,), (300,), (1000,))
"""A screen without temporal layers."""
ROUND = 200 * MS


@dataclass(frozen=True)
class Video:
    """One video subscription; costs in kbit/s."""

    costs: Sequence[Sequence[int]] = CAMERA
    preferred: tuple[int, int] = (2, 3)
    screen: bool = False
    priority: int = 0
    pixels: int = 0


class Subscriber:
    """A subscriber's videos, and what was allocated to them."""

    def __init__(self, *videos: Video) -> None:
        self.rows = np.full(len(videos), DEMAND.blank)
        self.now = START
        for k, video in enumerate(videos):
            self.change(k, video)

    def change(self, k: int, video: Video) -> None:
        row = self.rows[k]
        row["preferred_spatial"], row["preferred_temporal"] = video.preferred
        row["screen"], row["priority"], row["pixels"] = video.screen, video.priority, video.pixels
        row["cost"] = 0
        for spatial, costs in enumerate(video.costs):
            for temporal, cost in enumerate(costs):
                row["cost"][spatial, temporal] = cost * KBIT
        row["key_cost"] = max((cost * KBIT // 4 for costs in video.costs for cost in costs[:1]), default=0)
        if video.costs and video.costs[0]:
            row["key_cost"] = video.costs[0][0] * KBIT // 4

    def run(self, kbit: int, audio: int = 0, pause: bool = False, after: int = ROUND) -> int:
        """Allocate once more, `after` ns later; returns the cost of all in kbit/s."""
        self.now += after
        return int(allocate(self.rows, len(self.rows), kbit * KBIT, audio * KBIT, pause, self.now)) // KBIT

    def layer(self, k: int = 0) -> tuple[int, int] | Rung:
        """What subscription k may be sent: a layer, or the rung below all layers."""
        row = self.rows[k]
        rung = Rung(int(row["rung"]))
        return (int(row["spatial"]), int(row["temporal"])) if rung >= Rung.BASE_TEMPORAL else rung

    def layers(self) -> list[tuple[int, int] | Rung]:
        return [self.layer(k) for k in range(len(self.rows))]

    def reasons(self) -> list[Reason]:
        return [Reason(int(reason)) for reason in self.rows["reason"]]


@pytest.mark.parametrize(
    ("kbit", "layer", "rung", "reason"),
    [
        (10_000, (2, 3), Rung.HIGHER, Reason.CLIENT),
        (1_945, (2, 3), Rung.HIGHER, Reason.CLIENT),
        (1_944, (2, 1), Rung.HIGHER, Reason.BANDWIDTH),
        (700, (1, 3), Rung.HIGHER, Reason.BANDWIDTH),
        (400, (1, 1), Rung.HIGHER, Reason.BANDWIDTH),
        (300, (0, 3), Rung.LOWEST, Reason.BANDWIDTH),
        (120, (0, 1), Rung.LOWEST, Reason.BANDWIDTH),
        (70, (0, 0), Rung.BASE_TEMPORAL, Reason.BANDWIDTH),
        (50, Rung.KEY_FRAMES_ONLY, Rung.KEY_FRAMES_ONLY, Reason.BANDWIDTH),
        (0, Rung.KEY_FRAMES_ONLY, Rung.KEY_FRAMES_ONLY, Reason.BANDWIDTH),
    ],
)
def test_a_video_gets_the_highest_rung_that_fits(kbit: int, layer: Any, rung: Rung, reason: Reason) -> None:
    """There is always a picture, however little fits (mediasoup#316)."""
    subscriber = Subscriber(Video())
    subscriber.run(kbit)
    assert subscriber.layer() == layer
    assert (subscriber.rows["rung"][0], subscriber.reasons()) == (rung, [reason])


def test_nothing_is_sent_only_where_that_is_allowed_and_it_comes_back() -> None:
    subscriber = Subscriber(Video())
    subscriber.run(10)
    assert subscriber.layer() == Rung.KEY_FRAMES_ONLY
    assert subscriber.run(10, pause=True) == 0
    assert (subscriber.layer(), subscriber.reasons()) == (Rung.PAUSED, [Reason.PAUSED])
    subscriber.run(2_000, pause=True)
    assert subscriber.layer() == (2, 3)


def test_audio_is_taken_off_first() -> None:
    subscriber = Subscriber(Video())
    subscriber.run(700, audio=150)
    assert subscriber.layer() == (1, 1)
    subscriber.run(700, audio=800)
    assert subscriber.layer() == Rung.KEY_FRAMES_ONLY


def test_priorities_come_first_then_the_screen_then_large_tiles() -> None:
    """A publisher cannot take what the client wants most by calling its video a screen."""
    large, small = Video(pixels=1280 * 720), Video(pixels=320 * 180)
    screen, pinned = Video(STILL, screen=True, pixels=10), Video(priority=1)
    subscriber = Subscriber(small, Video(priority=2), large, pinned, screen)
    subscriber.run(10_000)
    assert list(subscriber.rows["order"]) == [3, 1, 4, 2, 0]


def test_without_dimensions_the_preferred_layer_says_how_large_a_tile_is() -> None:
    subscriber = Subscriber(Video(preferred=(0, 3)), Video(preferred=(2, 3)), Video(pixels=640 * 360))
    subscriber.run(10_000)
    assert list(subscriber.rows["order"]) == [1, 2, 0]


def test_one_step_is_given_to_each_in_turn() -> None:
    """The most important one is one rung ahead at most, until others have what they prefer or theirs does not fit."""
    subscriber = Subscriber(Video(), Video(priority=1), Video())
    subscriber.run(400)
    assert subscriber.layers() == [(0, 1), (0, 3), (0, 1)]


def test_videos_step_down_the_least_important_first() -> None:
    subscriber = Subscriber(Video(priority=3), Video(priority=2), Video(priority=1))
    key = Rung.KEY_FRAMES_ONLY
    for kbit, layers in (
        (500, [(0, 3), (0, 3), (0, 3)]),
        (449, [(0, 1), (0, 3), (0, 3)]),
        (330, [(0, 1), (0, 1), (0, 3)]),
        (250, [(0, 0), (0, 1), (0, 1)]),
        (200, [(0, 0), (0, 0), (0, 0)]),
        (150, [key, (0, 0), (0, 0)]),
        (100, [key, key, (0, 0)]),
        (50, [key, key, key]),
    ):
        subscriber.run(kbit)
        assert subscriber.layers() == layers


def test_a_higher_layer_that_costs_less_is_taken() -> None:
    """A screen that stands still: its best layer may be the cheapest."""
    subscriber = Subscriber(Video(((150,), (400,), (90,)), screen=True))
    assert subscriber.run(120) == 90
    assert (subscriber.layer(), subscriber.reasons()) == ((2, 3), [Reason.CLIENT])


def test_a_single_temporal_layer_is_charged_with_its_own_rate() -> None:
    """Costs are those of what is sent, not the sum of all that is published (mediasoup#991)."""
    subscriber = Subscriber(Video(((100,), (300,), (900,)), preferred=(2, 0)))
    assert subscriber.run(1_100) == 900


def test_a_camera_keeps_half_its_frame_rate_when_it_grows_and_a_screen_need_not() -> None:
    costs = ((50, 70, 100), (120, 250, 400))
    subscriber = Subscriber(Video(costs), Video(costs, screen=True))
    for k, layer in ((0, (0, 3)), (1, (1, 0))):
        alone = Subscriber(Video(costs, screen=bool(k)))
        alone.run(200)
        assert alone.layer() == layer
    assert subscriber.run(10_000) == 800


def test_what_is_preferred_bounds_what_is_sent() -> None:
    subscriber = Subscriber(Video(preferred=(1, 1)), Video(preferred=(0, 3)))
    assert subscriber.run(10_000) == 300 + 150
    assert subscriber.layers() == [(1, 1), (0, 3)]
    assert subscriber.reasons() == [Reason.CLIENT, Reason.CLIENT]


def test_layers_that_are_not_live_cost_nothing_and_are_named_as_the_reason() -> None:
    subscriber = Subscriber(Video(CAMERA[:2]), Video(()), Video(((), (100, 200)), preferred=(0, 3)))
    assert subscriber.run(10_000) == 500 + 200
    assert subscriber.layers()[0] == (1, 3)
    assert subscriber.layers()[2] == (1, 3), "the lowest live layer, also above what is preferred"
    assert subscriber.reasons() == [Reason.NOT_LIVE, Reason.NOT_LIVE, Reason.CLIENT]
    assert (subscriber.rows["spatial"][1], subscriber.rows["temporal"][1]) == (0, 3)


def test_temporal_layers_that_begin_later_are_not_held_back() -> None:
    subscriber = Subscriber(Video(((100,),)))
    subscriber.run(10_000)
    assert subscriber.layer() == (0, 3)


def test_an_upgrade_needs_more_than_what_is_kept() -> None:
    subscriber = Subscriber(Video())
    subscriber.run(550)
    assert subscriber.layer() == (1, 1)
    subscriber.run(560)
    assert subscriber.layer() == (1, 3)
    subscriber.run(500)
    assert subscriber.layer() == (1, 3)
    subscriber.run(499)
    assert subscriber.layer() == (1, 1)


def upgrades(subscriber: Subscriber, kbits: Sequence[int], seconds: int) -> int:
    """How often the one video of a subscriber rises while the estimate takes these values, a second each, in turns."""
    count = 0
    for second in range(seconds):
        before = int(subscriber.rows["at"][0])
        subscriber.run(kbits[second % len(kbits)], after=SECOND)
        count += int(subscriber.rows["at"][0]) > before
    return count


def test_an_upgrade_that_failed_is_tried_ever_more_seldom() -> None:
    """An estimate that falls whenever more is sent does not make the picture flap (mediasoup#1462, livekit#3250)."""
    subscriber = Subscriber(Video())
    subscriber.run(400)
    assert upgrades(subscriber, (600, 600, 600, 400), 600) <= 2 + int(np.log2(MAX_BACK_OFF_NS / BACK_OFF_NS)) + 5
    assert subscriber.rows["failures"][0] > 4


def test_an_upgrade_that_holds_ends_the_row_of_failures() -> None:
    subscriber = Subscriber(Video())
    subscriber.run(400)
    upgrades(subscriber, (600, 400), 20)
    assert subscriber.rows["failures"][0] > 0
    subscriber.run(600, after=MAX_BACK_OFF_NS)
    subscriber.run(600, after=FORGIVEN_NS)
    assert subscriber.rows["failures"][0] == 0


def test_nothing_backs_off_from_a_path_that_is_much_better_now() -> None:
    """A link that was nearly cut is whole again: it does not matter what failed before."""
    subscriber = Subscriber(Video())
    subscriber.run(120)
    upgrades(subscriber, (200, 120), 60)
    assert subscriber.rows["failures"][0] > 2
    subscriber.run(290)
    assert subscriber.layer() == (0, 1), "not much better"
    subscriber.run(3_000)
    assert subscriber.layer() == (2, 3)


def test_a_path_that_becomes_worse_later_is_no_failed_upgrade() -> None:
    subscriber = Subscriber(Video())
    subscriber.run(400)
    subscriber.run(3_000)
    subscriber.run(400, after=FAILED_WITHIN_NS)
    subscriber.run(3_000)
    assert subscriber.layer() == (2, 3)


def test_one_burst_of_a_screen_changes_nothing() -> None:
    """A screen measured at 1.4 Mbit/s because of one slide (jitsi-videobridge#2443) keeps its layer for a while, and
    thumbnails have a picture meanwhile."""
    calm, burst = Video(STILL, screen=True), Video(((100,), (300,), (1_400,)), screen=True)
    subscriber = Subscriber(calm, Video(SMALL))
    subscriber.run(1_300)
    assert subscriber.layers() == [(2, 3), (0, 3)]
    subscriber.change(0, burst)
    begun = subscriber.now + ROUND
    while subscriber.now + ROUND < begun + OVERDRAFT_NS:
        subscriber.run(1_300)
        assert subscriber.layers() == [(2, 3), (0, 1)]
    subscriber.run(1_300)
    assert subscriber.layers() == [(1, 3), (0, 3)], "but not for ever"


@pytest.mark.parametrize(("kbit", "layer"), [(1_700, (2, 3)), (1_701, (1, 3))])
def test_a_screen_exceeds_the_estimate_by_a_bounded_rate(kbit: int, layer: Any) -> None:
    subscriber = Subscriber(Video(STILL, screen=True))
    subscriber.run(1_200)
    subscriber.change(0, Video(((100,), (300,), (kbit,)), screen=True))
    subscriber.run(1_200)
    assert subscriber.layer() == layer


@pytest.mark.parametrize(("after", "layer"), [(OVERDRAFT_REST_NS - MS, (1, 3)), (OVERDRAFT_REST_NS, (2, 3))])
def test_a_screen_does_not_exceed_the_estimate_again_at_once(after: int, layer: Any) -> None:
    subscriber = Subscriber(Video(STILL, screen=True))
    subscriber.run(1_200)
    subscriber.run(900)
    assert subscriber.layer() == (2, 3)
    subscriber.run(1_200, after=OVERDRAFT_NS)
    subscriber.run(900, after=after - OVERDRAFT_NS)
    assert subscriber.layer() == layer


def test_only_the_most_important_screen_exceeds_the_estimate() -> None:
    subscriber = Subscriber(Video(STILL, screen=True, priority=1), Video(STILL, screen=True))
    subscriber.run(2_300)
    subscriber.run(1_600)
    assert subscriber.layers() == [(2, 3), (1, 3)]


def test_a_camera_never_exceeds_the_estimate() -> None:
    subscriber = Subscriber(Video(STILL))
    subscriber.run(1_200)
    subscriber.change(0, Video(((100,), (300,), (1_201,))))
    subscriber.run(1_200)
    assert subscriber.layer() == (1, 3)


def test_more_videos_than_are_shared_out_are_given_the_lowest_rung() -> None:
    subscriber = Subscriber(*(MAX_SHARED + 3) * [Video(SMALL)])
    subscriber.run(1_000_000)
    assert subscriber.layers() == MAX_SHARED * [(0, 3)] + 3 * [Rung.KEY_FRAMES_ONLY]


def test_nobody_subscribes_to_anything() -> None:
    assert Subscriber().run(1_000) == 0


temporal_costs = st.lists(st.integers(0, 3_000), max_size=COST_TEMPORAL)
videos = st.builds(
    Video,
    costs=st.lists(temporal_costs, max_size=COST_SPATIAL),
    preferred=st.tuples(st.integers(0, 4), st.integers(0, 7)),
    screen=st.booleans(),
    priority=st.integers(0, 3),
    pixels=st.integers(0, 1920 * 1080),
)
rooms = st.lists(videos, min_size=1, max_size=12)
estimates = st.integers(0, 20_000)
histories = st.lists(st.tuples(estimates, st.integers(1, 40 * SECOND)), max_size=12)


def lowest(subscriber: Subscriber) -> int:
    """kbit/s of the lowest rungs."""
    return sum(int(row["ladder_cost"][0]) for row in subscriber.rows if row["rungs"]) // KBIT


def steps(subscriber: Subscriber) -> list[bool]:
    """Every step of every round in the order in which it is given: whether it was."""
    return [
        bool(subscriber.rows["at"][k] > turn)
        for turn in range(int(subscriber.rows["rungs"].max()))
        for k in subscriber.rows["order"]
    ]


@settings(max_examples=200, deadline=None)
@given(rooms, histories, st.booleans())
def test_the_estimate_is_never_exceeded_but_by_a_screen_for_a_while(
    room: list[Video], history: list[tuple[int, int]], pause: bool
) -> None:
    subscriber = Subscriber(*room)
    for kbit, after in history:
        used = subscriber.run(kbit, pause=pause, after=after)
        spare = kbit + OVERDRAFT_BPS // KBIT if any(video.screen for video in room) else kbit
        assert used <= max(spare, lowest(subscriber))
        first = subscriber.rows[subscriber.rows["order"][0]]
        if used <= max(kbit, lowest(subscriber)):
            continue
        assert first["screen"], "the most important one"
        assert 0 <= subscriber.now - first["overdrawn_ns"] < OVERDRAFT_NS


@settings(max_examples=200, deadline=None)
@given(rooms, histories, estimates, estimates, st.booleans())
def test_more_bandwidth_never_refuses_a_step_that_less_grants(
    room: list[Video], history: list[tuple[int, int]], one: int, other: int, pause: bool
) -> None:
    """The first step in which two budgets differ is one that the larger grants; one video alone only rises."""
    small, large = Subscriber(*room), Subscriber(*room)
    for kbit, after in history:
        small.run(kbit, pause=pause, after=after)
        large.run(kbit, pause=pause, after=after)
    small.run(min(one, other), pause=pause)
    large.run(max(one, other), pause=pause)
    assert steps(small) <= steps(large)
    if len(room) == 1:
        assert small.rows["at"][0] <= large.rows["at"][0]


@settings(max_examples=200, deadline=None)
@given(rooms, histories, estimates, st.booleans())
def test_a_constant_estimate_never_flaps(
    room: list[Video], history: list[tuple[int, int]], kbit: int, pause: bool
) -> None:
    """After an overdraft has ended, only the end of a time of backing off changes anything: upwards."""
    subscriber = Subscriber(*room)
    for each, after in history:
        subscriber.run(each, pause=pause, after=after)
    subscriber.run(kbit, pause=pause)
    subscriber.run(kbit, pause=pause, after=OVERDRAFT_NS)
    for _ in range(60):
        before, layers, backing_off = steps(subscriber), subscriber.layers(), subscriber.rows["failures"].any()
        subscriber.run(kbit, pause=pause, after=OVERDRAFT_NS)
        assert steps(subscriber) >= before
        assert backing_off or subscriber.layers() == layers


@settings(max_examples=100, deadline=None)
@given(rooms, estimates, estimates)
def test_what_is_allocated_is_live_and_not_more_than_preferred(room: list[Video], one: int, other: int) -> None:
    subscriber = Subscriber(*room)
    for kbit in (one, other):
        subscriber.run(kbit)
        for row in subscriber.rows:
            assert row["temporal"] <= row["preferred_temporal"]
            live = [s for s in range(COST_SPATIAL) if row["cost"][s, : row["preferred_temporal"] + 1].any()]
            if row["rung"] >= Rung.BASE_TEMPORAL and live:
                assert row["spatial"] in live
                assert row["spatial"] <= max(row["preferred_spatial"], live[0])
