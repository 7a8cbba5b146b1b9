"""cache_size: what a stream's packet cache grows and shrinks to, and that packets survive the move."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfu.media.rates import RATES_NS, rates_pass
from sfu.media.stream.cache_size import (
    BURST_GROWTH,
    MIN_VIDEO_BYTES,
    PEAK_CHECKS,
    RETAINED_MS,
    SMALL_CHECKS,
    cache_bytes_for,
    change_cache,
    check_cache,
)
from sfu.schema.capacities import MAX_CACHE_BYTES, MIN_CACHE_BYTES, SEQUENCE_START
from sfu.schema.codes import MediaKind, NoticeKind
from tests.sfu.support.publisher import MS, START, Publisher, packet

ELSEWHERE = 64 << 20
"""In the arena, far from the caches of the streams."""
SIZES = [1 << 13, 1 << 14, 1 << 15, 1 << 16]


@pytest.fixture
def publisher() -> Publisher:
    """With one track, whose stream is bound and has received packet 0 of 200 bytes."""
    publisher = Publisher()
    publisher.add_track("0")
    publisher.receive(packet(0, mid="0"))
    return publisher


def give_cache(publisher: Publisher, size: int, place: int = 0) -> None:
    change_cache(publisher.record, publisher.memory.arena, 0, 0, ELSEWHERE + place, size)


def wanted(publisher: Publisher) -> list[int]:
    return [extra for kind, *_, extra in publisher.notices() if kind == NoticeKind.CACHE_REQUESTED]


@pytest.mark.parametrize(
    ("kbit", "kib"), [(0, 8), (32, 8), (64, 16), (170, 32), (700, 256), (2_500, 512), (5_000, 1024), (90_000, 2048)]
)
def test_a_cache_holds_what_arrives_in_the_time_that_is_kept(kbit: int, kib: int) -> None:
    size = cache_bytes_for(kbit * 1000)
    assert size == kib << 10
    assert MIN_CACHE_BYTES <= size <= MAX_CACHE_BYTES
    assert size >= min(kbit * RETAINED_MS // 8, MAX_CACHE_BYTES)


def test_a_stream_that_outgrows_its_cache_asks_at_once(publisher: Publisher) -> None:
    stream = publisher.stream()
    stream["bitrate_bps"] = 2_000_000
    check_cache(publisher.record, 0)
    assert wanted(publisher) == [512 << 10]


def test_a_cache_is_halved_only_after_a_while(publisher: Publisher) -> None:
    stream = publisher.stream()
    stream["kind"], stream["cache_bytes"] = MediaKind.AUDIO, 1 << 16
    for _ in range(SMALL_CHECKS - 1):
        check_cache(publisher.record, 0)
    assert not wanted(publisher)
    check_cache(publisher.record, 0)
    assert wanted(publisher) == [1 << 15]
    stream["cache_bytes"] = MIN_CACHE_BYTES
    for _ in range(2 * SMALL_CHECKS):
        check_cache(publisher.record, 0)
    assert not wanted(publisher)


def settle(publisher: Publisher, seconds: int) -> int:
    """The size of the stream's cache after so many seconds without a packet, with all requests granted."""
    stream = publisher.stream()
    stream["bitrate_bps"] = 0
    for _ in range(seconds):
        check_cache(publisher.record, 0)
        for size in wanted(publisher):
            stream["cache_bytes"] = size
    return int(stream["cache_bytes"])


def test_after_stillness_the_cache_still_holds_the_largest_burst_of_the_last_minutes(publisher: Publisher) -> None:
    stream = publisher.stream()
    stream["cache_bytes"], stream["bitrate_bps"] = 1 << 20, 2_000_000
    check_cache(publisher.record, 0)
    assert settle(publisher, PEAK_CHECKS) == 512 << 10
    assert settle(publisher, 2 * PEAK_CHECKS) == MIN_VIDEO_BYTES


def slide(publisher: Publisher, count: int, gap_ns: int, answer_after: int) -> tuple[set[int], list[int]]:
    """Receive `count` packets of 1,200 bytes, `gap_ns` apart, requests for caches being granted so many packets later;
    the numbers that were overwritten before they were RETAINED_MS old, and the sizes that were requested."""
    answers: dict[int, int] = {}
    lost, sizes, place = set(), list[int](), 0
    wanted(publisher)
    for number in range(1, count + 1):
        now = START + 3_600_000 * MS + number * gap_ns
        publisher.receive(packet(number, mid="0", payload=bytes(1200)), now=now)
        for size in wanted(publisher):
            answers[number + answer_after] = size
            sizes.append(size)
        if number in answers:
            place += 1
            give_cache(publisher, answers[number], place << 22)
        oldest = max(1, number - RETAINED_MS * MS // gap_ns + 1, number - 400)
        lost |= {n for n in range(oldest, number) if not is_kept(publisher, SEQUENCE_START + n)}
    return lost, sizes


@pytest.mark.parametrize(("count", "gap_ns"), [(150, 4 * MS), (400, MS), (800, 2 * MS)])
def test_a_burst_gets_a_larger_cache_before_it_overwrites_its_beginning(
    publisher: Publisher, count: int, gap_ns: int
) -> None:
    publisher.stream()["cache_bytes"] = MIN_VIDEO_BYTES
    lost, sizes = slide(publisher, count, gap_ns, answer_after=10)
    assert lost == set()
    assert sizes[0] == BURST_GROWTH * MIN_VIDEO_BYTES
    assert sizes == sorted(set(sizes))  # one size is asked for once


def test_without_an_answer_a_burst_does_not_ask_again(publisher: Publisher) -> None:
    publisher.stream()["cache_bytes"] = MIN_VIDEO_BYTES
    assert slide(publisher, 400, MS, answer_after=1000)[1] == [BURST_GROWTH * MIN_VIDEO_BYTES]


def test_an_even_stream_in_a_cache_of_its_size_asks_for_nothing(publisher: Publisher) -> None:
    stream = publisher.stream()
    stream["cache_bytes"] = cache_bytes_for(2_400_000)
    assert slide(publisher, 500, 4 * MS, answer_after=1000) == (set(), [])


def test_a_busy_second_starts_the_wait_anew(publisher: Publisher) -> None:
    stream = publisher.stream()
    stream["cache_bytes"] = 1 << 16
    for bitrate in (0, 300_000) * SMALL_CHECKS:  # 300 kbit/s need all of it
        stream["bitrate_bps"] = bitrate
        check_cache(publisher.record, 0)
    assert not wanted(publisher)


def test_measuring_bit_rates_asks(publisher: Publisher) -> None:
    rates_pass(publisher.record, START)
    publisher.stream()["bytes"] += 250_000
    rates_pass(publisher.record, START + RATES_NS)
    assert wanted(publisher) == [512 << 10]


def test_the_other_cache_is_named_when_it_is_left(publisher: Publisher) -> None:
    give_cache(publisher, 1 << 14)
    assert publisher.notices()[-1] == (NoticeKind.CACHE_LEFT, 0, 7, 0, 0)
    assert publisher.stream()["cache_start"] == ELSEWHERE


def test_a_layer_that_is_not_there_changes_nothing(publisher: Publisher) -> None:
    before = publisher.stream().copy()
    change_cache(publisher.record, publisher.memory.arena, 0, 1, ELSEWHERE, 1 << 14)
    assert publisher.stream() == before


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(SIZES), st.lists(st.integers(1, 1200), max_size=60)), max_size=6))
def test_packets_survive_every_change(changes: list[tuple[int, list[int]]]) -> None:
    publisher, sent = Publisher(), {}
    publisher.add_track("0")
    stream: Any = publisher.stream()
    stream["cache_bytes"], sequence = SIZES[0], 0
    for place, (size, payloads) in enumerate(changes):
        for count in payloads:
            data = packet(sequence, mid="0", payload=bytes([sequence & 0xFF]) * count)
            publisher.receive(data)
            sent[SEQUENCE_START + sequence] = data
            sequence += 1
        kept = {number for number in sent if is_kept(publisher, number)}
        old = int(stream["cache_bytes"])
        give_cache(publisher, size, place << 20)
        for number in sent:
            if is_kept(publisher, number):
                assert publisher.stored(0, number) == sent[number]
                assert number in kept
            elif number in kept and size >= old:
                pytest.fail(f"packet {number - SEQUENCE_START} was lost from {old} to {size} bytes")
    if sent:
        data = packet(sequence, mid="0", payload=b"last")
        publisher.receive(data)
        assert publisher.stored(0, SEQUENCE_START + sequence) == data


def is_kept(publisher: Publisher, number: int) -> bool:
    try:
        publisher.stored(0, number)
    except KeyError:
        return False
    return True
