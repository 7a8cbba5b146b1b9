"""Bytes that many hold together: what is free of each, what is counted, and when more is refused."""

from hypothesis import given
from hypothesis import strategies as st

from signaling.held_bytes import HeldBytes, Holder

FREE, MOST = 10, 100


def test_small_ones_always_fit_and_a_large_one_has_what_is_left() -> None:
    everything = HeldBytes()
    large, small, other = (Holder(everything) for _ in range(3))
    assert large.resize(FREE + 95, free=FREE, most=MOST)
    assert small.resize(FREE, free=FREE, most=MOST)
    assert not other.resize(FREE + 6, free=FREE, most=MOST)
    assert (other.size, everything.counted) == (0, 95)
    assert other.resize(FREE + 5, free=FREE, most=MOST)
    assert large.resize(FREE + 1, free=FREE, most=0), "fewer are never refused"


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 150))))
def test_what_is_counted_is_what_is_held(steps: list[tuple[int, int]]) -> None:
    everything = HeldBytes()
    holders = [Holder(everything) for _ in range(4)]
    for number, size in steps:
        before = holders[number].size
        fits = holders[number].resize(size, free=FREE, most=MOST)
        assert holders[number].size == (size if fits else before)
        assert everything.counted == sum(max(0, each.size - FREE) for each in holders) <= MOST
    for holder in holders:
        holder.release()
        holder.release()
    assert everything.counted == 0
