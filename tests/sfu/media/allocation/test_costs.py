"""What layers cost on the wire, from what was measured of them."""

from typing import Any

import numpy as np
import pytest

from sfu.media.allocation.costs import (
    FIRST_LAYER_BPS,
    KEY_FRAME_SHARE,
    MAX_KEY_FRAMES_BPS,
    MAX_TARGET_KBPS,
    TARGET_PERCENT,
    key_frame_cost,
    scalable_costs,
    simulcast_costs,
    target_cost,
    wire_bps,
)
from sfu.media.wire.overhead import GCM_TAG_BYTES, UDP_IP4_BYTES
from sfu.schema.allocation_tables import COST_SPATIAL, COST_TEMPORAL


def table(*rows: tuple[int, ...]) -> Any:
    """Layers as an array, with zeros where nothing is said."""
    filled = np.zeros((COST_SPATIAL, COST_TEMPORAL), np.int64)
    for spatial, row in enumerate(rows):
        filled[spatial, : len(row)] = row
    return filled


def costs(measured: Any, live: int | None = None, target: Any = None) -> list[list[int]]:
    """The costs of simulcast if `live` is given, else of one stream with all layers."""
    cost = np.full((COST_SPATIAL, COST_TEMPORAL), -1, np.int64)
    means = table() if target is None else target
    if live is None:
        scalable_costs(cost, measured, means, 1)
    else:
        simulcast_costs(cost, measured, means, live)
    return [[int(each) for each in row] for row in cost]


def test_packets_cost_more_than_their_bytes() -> None:
    """100 packets of 1,000 bytes in a second: 44 bytes more each."""
    assert wire_bps(100_000, 100, GCM_TAG_BYTES + UDP_IP4_BYTES) == 104_400 * 8
    assert wire_bps(0, 0, 44) == 0


def test_a_simulcast_layer_costs_what_its_own_stream_sends_up_to_a_temporal_layer() -> None:
    measured = table((60, 30, 60), (200, 100, 200), (700,))
    assert costs(measured, 0b111) == [[60, 90, 150, 0], [200, 300, 500, 0], [700, 0, 0, 0]]


def test_a_layer_that_is_not_live_costs_nothing() -> None:
    measured = table((60, 30, 60), (200, 100, 200), (700,))
    assert costs(measured, 0b101) == [[60, 90, 150, 0], [0, 0, 0, 0], [700, 0, 0, 0]]


def test_a_layer_that_was_not_measured_yet_costs_what_its_publisher_means_to_send() -> None:
    target = table((100, 150), (300, 450), (900,))
    assert costs(table((60, 30)), 0b111, target) == [[60, 90, 0, 0], [300, 450, 0, 0], [900, 0, 0, 0]]
    assert costs(table((60, 30)), 0b101, target)[1] == [0, 0, 0, 0], "it is not live"
    assert costs(table((60, 30)), 0b111, table((), (200,))) == [[60, 90, 0, 0], [200, 0, 0, 0], [600, 0, 0, 0]]
    assert costs(table(), None, target) == [[100, 150, 0, 0], [300, 450, 0, 0], [900, 0, 0, 0]]
    assert costs(table((60,)), None, target) == [[60, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_a_target_is_bounded_and_grows_by_what_headers_take() -> None:
    assert target_cost(1_000) == 1_000_000 * TARGET_PERCENT // 100
    assert target_cost(1 << 32) == target_cost(MAX_TARGET_KBPS)
    assert target_cost(0) == 0


def test_a_layer_that_was_not_measured_yet_costs_three_times_the_one_below() -> None:
    assert costs(table((60, 30)), 0b111) == [[60, 90, 0, 0], [180, 270, 0, 0], [540, 810, 0, 0]]
    assert costs(table((60, 30)), 0b101) == [[60, 90, 0, 0], [0, 0, 0, 0], [540, 810, 0, 0]]
    assert costs(table(), 0b100)[2] == [9 * FIRST_LAYER_BPS, 0, 0, 0]
    assert costs(table(), 0b001)[0] == [FIRST_LAYER_BPS, 0, 0, 0]


def test_a_scalable_layer_costs_what_all_below_it_send_too() -> None:
    measured = table((60, 30), (200, 100), (700, 350))
    assert costs(measured) == [[60, 90, 0, 0], [260, 390, 0, 0], [960, 1440, 0, 0]]


def test_a_scalable_layer_that_sends_nothing_is_not_there() -> None:
    assert costs(table((60, 30), (), (700, 350))) == [[60, 90, 0, 0], [0, 0, 0, 0], [760, 1140, 0, 0]]
    cost = np.ones((COST_SPATIAL, COST_TEMPORAL), np.int64)
    scalable_costs(cost, table((60, 30)), table((60, 30)), 0)
    assert not cost.any()


def test_a_single_stream_that_was_not_measured_yet_has_one_layer() -> None:
    assert costs(table()) == [[FIRST_LAYER_BPS, 0, 0, 0], 4 * [0], 4 * [0]]


@pytest.mark.parametrize(
    ("measured", "expected"), [(table((400, 1)), 100), (table((), (80,)), 20), (table(), FIRST_LAYER_BPS // 4)]
)
def test_key_frames_only_cost_a_part_of_the_lowest_layer(measured: Any, expected: int) -> None:
    assert KEY_FRAME_SHARE == 4
    cost = np.array(costs(measured), np.int64)
    assert key_frame_cost(cost) == expected


def test_key_frames_of_a_fat_stream_leave_room_for_everybody_else() -> None:
    cost = np.zeros((COST_SPATIAL, COST_TEMPORAL), np.int64)
    cost[0, 0] = 24_000_000
    assert key_frame_cost(cost) == MAX_KEY_FRAMES_BPS
    cost[0, 0] = 120_000
    assert key_frame_cost(cost) == 30_000
