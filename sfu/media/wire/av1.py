"""AV1 aggregation header, AV1 RTP payload format section 4.4; layers need a dependency descriptor."""

import numpy as np
from numba import njit

from sfu.schema.codes import PacketFlag


@njit(cache=True)
def describe_av1(packet, data):
    """Fill packet.flags from the first payload byte: Z (continuation), Y, W, N (start of a coded video sequence)."""
    header = np.int64(data[packet.payload_at])
    flags = PacketFlag.SWITCH_UP
    if packet.marker:
        flags |= PacketFlag.FRAME_END
    if not header & 0x80:
        flags |= PacketFlag.FRAME_START
        if header & 0x08:  # "if N equals 1 then Z must equal 0"
            flags |= PacketFlag.KEY_FRAME
    packet.flags = flags
