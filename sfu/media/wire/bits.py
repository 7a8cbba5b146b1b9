"""Bit fields, most significant bit first, as RTP header extensions pack them. Kernels.

A bit position counts from the start of a field that begins at byte `at` of an array. Reading at or beyond `end` gives
zeros, so a parser reads on and looks once, when it is done, whether its position passed the end.
"""

import numpy as np
from numba import njit


@njit(cache=True)
def get_bits(data, at, bit, end, count):
    """data: 1-D u1 array; bit, end: positions after byte `at`; count: 0 to 32 bits. Returns them as an int64."""
    value = np.int64(0)
    for k in range(bit, bit + count):
        value <<= 1
        if k < end:
            value |= (np.int64(data[at + (k >> 3)]) >> (7 - (k & 7))) & 1
    return value


@njit(cache=True)
def put_bits(out, at, bit, count, value):
    """Write the low `count` bits of value; whole bytes from `at` on must lie within `out`."""
    for k in range(count):
        place = at + ((bit + k) >> 3)
        mask = np.int64(0x80) >> ((bit + k) & 7)
        if (value >> (count - 1 - k)) & 1:
            out[place] = np.int64(out[place]) | mask
        else:
            out[place] = np.int64(out[place]) & ~mask


@njit(cache=True)
def copy_bits(data, at, bit, out, out_at, out_bit, count):
    """Copy `count` bits between arrays whatever their alignment."""
    for k in range(count):
        value = (np.int64(data[at + ((bit + k) >> 3)]) >> (7 - ((bit + k) & 7))) & 1
        put_bits(out, out_at, out_bit + k, 1, value)


@njit(cache=True)
def get_non_symmetric(data, at, bit, end, values):
    """A number from 0 to values - 1 in the code ns(n) of the AV1 specification, section 4.10.7.

    Returns (number, position after it).
    """
    width = 0
    while values >> width:
        width += 1
    short = (np.int64(1) << width) - values  # how many numbers take one bit less
    number = get_bits(data, at, bit, end, width - 1)
    if number < short:
        return number, bit + width - 1
    return (number << 1) - short + get_bits(data, at, bit + width - 1, end, 1), bit + width


@njit(cache=True)
def count_bits(word):
    """How many bits of a u8 are set."""
    x = np.uint64(word)
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((x * np.uint64(0x0101010101010101)) >> np.uint64(56))
