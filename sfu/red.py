"""Redundant audio, RFC 2198 section 3: where the primary block is. Called by describe."""

import numpy as np
from numba import njit

from sfu.wire import get_u16


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
