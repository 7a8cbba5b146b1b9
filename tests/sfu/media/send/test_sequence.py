"""sfu.media.send.sequence against its slow twin, over drops, losses, reordering, repetition and wraparound."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sfu.media.send.sequence import NOT_SENT, drop, send, synchronise
from sfu.media.wire.bits import count_bits
from sfu.media.wire.windows import WINDOW
from sfu.schema.subscription_tables import subscription_t
from tests.reference.numbering import Numbering

STEPS = st.lists(
    st.tuples(
        st.integers(-70, 6) | st.integers(-3, 3) | st.integers(60, 140) | st.integers(-520, 1200),
        st.booleans(),
        st.booleans(),
    ),
    max_size=150,
)


def subscription(first: int, out_highest: int) -> Any:
    rows = np.zeros(1, subscription_t)
    rows["out_highest"] = out_highest
    synchronise(rows[0], first, 0)
    return rows[0]


@given(first=st.sampled_from((65_536, 65_600, 131_000, 131_071)), out=st.integers(65_536, 98_303), steps=STEPS)
def test_every_packet_gets_the_number_that_counting_gives(
    first: int, out: int, steps: list[tuple[int, bool, bool]]
) -> None:
    row, twin = subscription(first, out), Numbering(first, out)
    at = first
    for step, keep, same_frame in steps:
        at = max(first - 530, at + step)
        if keep:
            expected = twin.send(at)
            assert send(row, at) == (NOT_SENT if expected is None else expected)
        else:
            twin.drop(at, same_frame)
            drop(row, at, same_frame)
        assert row["out_highest"] == twin.next_out - 1


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_what_is_sent_in_order_has_no_gap(kept: list[bool]) -> None:
    row = subscription(131_050, 65_500)  # both the input and the output wrap
    numbers = []
    for offset, keep in enumerate(kept):
        if keep:
            numbers.append(send(row, 131_050 + offset) & 0xFFFF)
        else:
            drop(row, 131_050 + offset, False)
    assert numbers == [(65_501 + k) & 0xFFFF for k in range(len(numbers))]


def test_synchronising_leaves_the_gap_that_was_asked_for() -> None:
    row = subscription(70_000, 65_600)
    assert send(row, 70_000) == 65_601
    synchronise(row, 90_000, 1)
    assert send(row, 90_000) == 65_603
    assert send(row, 70_001) == NOT_SENT


def test_packets_missing_inside_a_dropped_frame_lose_their_numbers_too() -> None:
    row = subscription(70_000, 65_600)
    send(row, 70_000)
    drop(row, 70_001, False)
    drop(row, 70_004, True)
    assert send(row, 70_005) == 65_602
    assert send(row, 70_002) == NOT_SENT


LOSSES = st.lists(st.booleans(), min_size=200, max_size=900)


@given(lost=LOSSES, delay=st.integers(1, WINDOW - 1), every=st.integers(2, 5))
def test_repairs_that_come_late_fill_every_gap(lost: list[bool], delay: int, every: int) -> None:
    """A lost packet comes again after `delay` others; every so many packets one is dropped on purpose."""
    row, first = subscription(131_000, 65_500), 131_000
    numbers, repairs = [], {}
    for at, gone in enumerate([*lost, *[False] * (delay + 1)]):
        if gone and at % every:
            repairs[at + delay] = at
        elif at % every:
            numbers.append((first + at, send(row, first + at)))
        else:
            drop(row, first + at, False)
        if (repaired := repairs.pop(at, None)) is not None:
            numbers.append((first + repaired, send(row, first + repaired)))
    assert not repairs
    kept = [first + at for at in range(len(lost) + delay + 1) if at % every]
    assert sorted(numbers) == list(zip(kept, range(65_501, 65_501 + len(kept)), strict=True))


@given(behind=st.integers(1, 700))
def test_a_number_is_given_once_however_late_its_packet(behind: int) -> None:
    row, first = subscription(70_000, 65_600), 70_000
    for at in range(800):
        if at != 799 - behind:
            send(row, first + at)
    expected = 65_601 + 799 - behind if behind < WINDOW else NOT_SENT
    assert send(row, first + 799 - behind) == expected
    assert send(row, first + 799 - behind) == NOT_SENT


@given(st.integers(0, 2**64 - 1))
def test_bits_are_counted(word: int) -> None:
    assert count_bits(np.uint64(word)) == word.bit_count()
