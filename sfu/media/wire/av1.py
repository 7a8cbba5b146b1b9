"""AV1 aggregation header, AV1 RTP payload format section 4.4; layers need a dependency descriptor."""

import numpy as np
from numba import njit

from sfu.schema.tables import FRAME_END, FRAME_START, KEY_FRAME, SWITCH_UP


@njit(cache=True)
def describe_av1(packet, data):
    """Fill packet.flags from the first payload byte: Z (continuation), Y, W, N (start of a coded video sequence)."""
    header = np.int64(data[packet.payload_at])
    flags = SWITCH_UP
    if packet.marker:
        flags |= FRAME_END
    if not header & 0x80:
        flags |= FRAME_START
        if header & 0x08:  # "if N equals 1 then Z must equal 0"
            flags |= KEY_FRAME
    packet.flags = flags
