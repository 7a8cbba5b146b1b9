"""Bit fields against strings of "0" and "1"."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfu.media.wire.bits import copy_bits, get_bits, get_non_symmetric, put_bits


@given(st.binary(min_size=1, max_size=12), st.integers(0, 100), st.integers(0, 32))
def test_bits_are_read_with_zeros_beyond_the_end(data: bytes, bit: int, count: int) -> None:
    text = "".join(f"{byte:08b}" for byte in data).ljust(200, "0")
    array = np.frombuffer(b"\xff" + data, np.uint8)
    assert get_bits(array, 1, bit, 8 * len(data), count) == int(text[bit : bit + count] or "0", 2)


@given(st.binary(min_size=8, max_size=8), st.integers(0, 40), st.integers(0, 24), st.integers(0, (1 << 24) - 1))
def test_bits_are_written_between_others(data: bytes, bit: int, count: int, value: int) -> None:
    array = np.frombuffer(data, np.uint8).copy()
    put_bits(array, 0, bit, count, value)
    before, after = (f"{int.from_bytes(each, 'big'):064b}" for each in (data, array.tobytes()))
    low = value & ((1 << count) - 1)
    assert after == before[:bit] + (f"{low:0{count}b}" if count else "") + before[bit + count :]


@given(st.binary(min_size=8, max_size=8), st.integers(0, 30), st.integers(0, 30), st.integers(0, 34))
def test_bits_are_copied_across_alignments(data: bytes, bit: int, out_bit: int, count: int) -> None:
    out = np.zeros(8, np.uint8)
    copy_bits(np.frombuffer(data, np.uint8), 0, bit, out, 0, out_bit, count)
    text = f"{int.from_bytes(data, 'big'):064b}"[bit : bit + count]
    assert f"{int.from_bytes(out.tobytes(), 'big'):064b}" == ("0" * out_bit + text).ljust(64, "0")


@pytest.mark.parametrize(
    ("values", "code"), [(5, ["00", "01", "10", "110", "111"]), (1, [""]), (4, ["00", "01", "10", "11"])]
)
def test_non_symmetric_numbers_follow_the_av1_specification(values: int, code: list[str]) -> None:
    for number, bits in enumerate(code):
        data = np.array([int(bits.ljust(8, "0"), 2)], np.uint8)
        assert get_non_symmetric(data, 0, 0, 8, values) == (number, len(bits))
