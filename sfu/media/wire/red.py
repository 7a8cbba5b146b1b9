"""Redundant audio, RFC 2198 section 3: where the blocks are. Called by describe and when packets are restored."""

import numpy as np
from numba import njit

from sfu.media.wire.numbers import get_u16
from sfu.parameters import Codec

_OPUS, _RED = int(Codec.OPUS), int(Codec.RED)


@njit(cache=True)
def codec_family(codec):
    """RED is a way to send Opus: who takes the one can be given the other."""
    return np.int64(_OPUS) if codec == _RED else np.int64(codec)


@njit(cache=True)
def find_primary(data, start, end):
    """Offset from `start` of the primary block's data in the payload start to end; 0 when malformed or empty.

    Redundant blocks have four header bytes each (F = 1, payload type, 14 bits timestamp offset, 10 bits length); the
    primary block has one (F = 0) and takes what the others leave.
    """
    at, redundant = start, np.int64(0)
    while at < end and data[at] & 0x80:
        if at + 3 >= end:
            return 0
        redundant += get_u16(data, at + 2) & 0x3FF
        at += 4
    primary = at + 1 + redundant
    if primary >= end:
        return 0
    return primary - start


@njit(cache=True)
def find_redundant(data, start, end, lowest, highest):
    """The newest redundant block in the payload start to end that is `lowest` to `highest` timestamp units older.

    Returns (offset of its data, its bytes, how much older its timestamp is); 0 bytes when there is none.
    """
    primary = find_primary(data, start, end)
    found = length = age = np.int64(0)
    if primary == 0:
        return found, length, age
    heads = np.int64(0)
    while data[start + heads] & 0x80:
        heads += 4
    at = start + heads + 1
    for head in range(start, start + heads, 4):
        older, size = get_u16(data, head + 1) >> 2, get_u16(data, head + 2) & 0x3FF
        if lowest <= older <= highest and size > 0:  # the oldest block comes first
            found, length, age = at, size, older
        at += size
    return found, length, age
