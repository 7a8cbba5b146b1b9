"""Big-endian numbers in byte arrays, and the arithmetic of wrapping sequence numbers. Kernels, inlined by LLVM.

Everything returns int64: numba's unsigned subtraction runs past zero, so unsigned types stay in the tables.
"""

import numpy as np
from numba import njit

from sfu.schema.capacities import SEQUENCE_START


@njit(cache=True)
def get_u16(data, at):
    """data: 1-D u1 array; at: offset. Returns 0 to 65535."""
    return np.int64(data[at]) << 8 | np.int64(data[at + 1])


@njit(cache=True)
def get_u24(data, at):
    """Three bytes: 0 to 2^24 - 1."""
    return np.int64(data[at]) << 16 | np.int64(data[at + 1]) << 8 | np.int64(data[at + 2])


@njit(cache=True)
def get_u32(data, at):
    """Four bytes: 0 to 2^32 - 1."""
    return (
        np.int64(data[at]) << 24 | np.int64(data[at + 1]) << 16 | np.int64(data[at + 2]) << 8 | np.int64(data[at + 3])
    )


@njit(cache=True)
def put_u16(data, at, value):
    """Write the low two bytes of value."""
    data[at] = (value >> 8) & 255
    data[at + 1] = value & 255


@njit(cache=True)
def put_u24(data, at, value):
    """Write the low three bytes of value."""
    data[at] = (value >> 16) & 255
    data[at + 1] = (value >> 8) & 255
    data[at + 2] = value & 255


@njit(cache=True)
def put_u32(data, at, value):
    """Write the low four bytes of value."""
    data[at] = (value >> 24) & 255
    data[at + 1] = (value >> 16) & 255
    data[at + 2] = (value >> 8) & 255
    data[at + 3] = value & 255


@njit(cache=True)
def signed16(difference):
    """The shorter way round a 16-bit circle: -32768 to 32767."""
    return ((difference + 0x8000) & 0xFFFF) - 0x8000


@njit(cache=True)
def signed24(difference):
    """The shorter way round a 24-bit circle: -2^23 to 2^23 - 1."""
    return ((difference + 0x800000) & 0xFFFFFF) - 0x800000


@njit(cache=True)
def signed32(difference):
    """The shorter way round a 32-bit circle: -2^31 to 2^31 - 1."""
    return ((difference + 0x80000000) & 0xFFFFFFFF) - 0x80000000


@njit(cache=True)
def extend16(sequence, highest):
    """The extended number nearest to `highest` whose low 16 bits are `sequence`; highest < 0: the first one ever."""
    if highest < 0:
        return np.int64(SEQUENCE_START) + sequence
    return highest + signed16(sequence - (highest & 0xFFFF))
