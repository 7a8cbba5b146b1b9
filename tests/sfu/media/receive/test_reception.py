"""Counting and report blocks, against the definitions of RFC 3550."""

from typing import Any

import numpy as np
import pytest
from aiortc.rtp import RtcpReceiverInfo
from hypothesis import given, settings
from hypothesis import strategies as st

from sfu.media.receive.reception import (
    count_packet,
    delay_units,
    extend_primary,
    extend_repair,
    restart,
    wire_sequence,
    write_report_block,
)
from sfu.schema.capacities import SEQUENCE_START
from tests.sfu.support.publisher import MS, SECOND, START, Publisher

CLOCK = 90_000


@pytest.fixture(scope="module")
def publisher() -> Publisher:
    return Publisher()


def fresh(publisher: Publisher) -> Any:
    publisher.tracks = publisher.streams = 0
    publisher.add_track("0", ssrcs=(0xFEDCBA98,))
    stream = publisher.memory.record["streams"][0]
    stream["clock_rate"] = CLOCK
    return stream


@pytest.fixture
def stream(publisher: Publisher) -> Any:
    return fresh(publisher)


def receive(stream: Any, sequence: int, timestamp: int = 0, at: int = START) -> int:
    extended = extend_primary(stream, sequence & 0xFFFF)
    count_packet(stream, extended, 100, timestamp & 0xFFFFFFFF, at)
    return int(extended)


def report(stream: Any, now: int = START) -> RtcpReceiverInfo:
    data = np.zeros(24, np.uint8)
    write_report_block(stream, data, 0, now)
    return RtcpReceiverInfo.parse(bytes(data))


@pytest.mark.parametrize("first", [0, 1, 32767, 32768, 65534, 65535])
def test_no_loss_is_reported_as_none_over_the_wrap(stream: Any, first: int) -> None:
    for k in range(10):
        receive(stream, first + k)
    block = report(stream)
    assert (block.ssrc, block.fraction_lost, block.packets_lost) == (0xFEDCBA98, 0, 0)
    assert block.highest_sequence == first + 9


def test_loss_is_the_intervals_and_the_total(stream: Any) -> None:
    for k in (0, 1, 2, 3, 5, 7):
        receive(stream, 65_530 + k)
    block = report(stream)
    assert (block.fraction_lost, block.packets_lost) == (2 * 256 // 8, 2)
    receive(stream, 65_538)
    block = report(stream)
    assert (block.fraction_lost, block.packets_lost) == (0, 2)
    assert stream["lost"] == 2


def test_late_packets_are_no_loss(stream: Any) -> None:
    for k in (0, 2, 3, 1):
        receive(stream, 65_534 + k)
    assert report(stream).packets_lost == 0


def test_a_packet_before_the_first_is_no_negative_loss(stream: Any) -> None:
    for sequence in (10, 9, 8, 11):
        receive(stream, sequence)
    assert report(stream).packets_lost == 0


def test_everything_lost_is_the_largest_fraction(stream: Any) -> None:
    receive(stream, 0)
    report(stream)
    receive(stream, 30_000)
    assert report(stream).fraction_lost == 255


def test_the_senders_report_comes_back(stream: Any) -> None:
    receive(stream, 0)
    assert (report(stream).lsr, report(stream).dlsr) == (0, 0)
    stream["report_ntp"] = 0x0123456789ABCDEF
    stream["report_ns"] = START
    block = report(stream, START + 2 * SECOND + SECOND // 2)
    assert (block.lsr, block.dlsr) == (0x456789AB, 5 << 15)


@pytest.mark.parametrize(
    ("duration", "units"), [(-5, 0), (0, 0), (SECOND, 65536), (SECOND // 65536 + 1000, 1), (10**15, 0xFFFFFFFF)]
)
def test_delays_are_in_units_of_dlsr(duration: int, units: int) -> None:
    assert delay_units(duration) == units


def test_steady_packets_have_no_jitter(stream: Any) -> None:
    for k in range(100):
        receive(stream, k, (1 << 32) - 5_000 + k * 3000, START + k * 3000 * SECOND // CLOCK)
    assert report(stream).jitter <= 1


def test_jitter_follows_the_reference_algorithm(stream: Any) -> None:
    delays = np.random.default_rng(3).integers(0, 20 * MS, 300)
    expected, previous = 0.0, None
    for k, delay in enumerate(delays):
        at = START + k * 33 * MS + int(delay)
        receive(stream, k, k * 2970, at)
        transit = at * CLOCK / SECOND - k * 2970
        if previous is not None:
            expected += (abs(transit - previous) - expected) / 16
        previous = transit
    assert report(stream).jitter == pytest.approx(expected, rel=0.02)


def test_uptime_of_years_does_not_overflow(stream: Any) -> None:
    at = 10 * 365 * 86_400 * SECOND
    for k in range(50):
        receive(stream, k, k * 3000, at + k * 3000 * SECOND // CLOCK)
    assert report(stream).jitter <= 1


@given(first=st.integers(0, 65535), second=st.integers(0, 65535), count=st.integers(1, 20))
@settings(deadline=None)
def test_a_restart_keeps_numbers_growing_and_maps_them_back(
    publisher: Publisher, first: int, second: int, count: int
) -> None:
    stream = fresh(publisher)
    for k in range(3):
        receive(stream, first + k)
    highest = int(stream["highest"])
    restart(stream, second)
    for k in range(count):
        extended = receive(stream, second + k)
        assert extended > highest
        assert wire_sequence(stream, extended) == (second + k) & 0xFFFF
        assert extend_repair(stream, (second + k) & 0xFFFF) == extended
        highest = extended
    block = report(stream)
    assert (block.packets_lost, block.fraction_lost) == (0, 0)
    assert block.highest_sequence == second + count - 1


@given(
    moves=st.lists(st.integers(-400, 3000), min_size=1, max_size=60),
    first=st.integers(0, 65535),
)
@settings(deadline=None)
def test_extension_follows_any_walk_within_the_window(publisher: Publisher, moves: list[int], first: int) -> None:
    stream = fresh(publisher)
    true = highest = SEQUENCE_START + first
    receive(stream, true)
    for move in moves:
        true = max(highest + move, SEQUENCE_START)
        highest = max(highest, true)
        assert receive(stream, true) == true
    assert stream["highest"] == highest
