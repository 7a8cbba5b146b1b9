"""The picture id of 7 or 15 bits that the payload descriptors of VP8 and VP9 share (RFC 7741, RFC 9628)."""

import numpy as np
from numba import njit

from sfu.media.wire.numbers import get_u16


@njit(cache=True)
def read_picture_id(packet, data, at, end):
    """Write into `packet` the picture id that stands at `at` of `data`, whose payload ends at `end`. Returns the offset
    behind it; -1: it is cut off."""
    if at >= end:
        return -1
    wide = np.int64(data[at]) & 0x80
    if wide and at + 1 >= end:
        return -1
    packet.picture_at = at - np.int64(packet.payload_at)
    packet.picture_bytes = 2 if wide else 1
    packet.picture_id = get_u16(data, at) & 0x7FFF if wide else np.int64(data[at])
    return at + 2 if wide else at + 1
