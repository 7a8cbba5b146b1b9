"""VP9 payload descriptor, RFC 9628 section 4.2. One kernel, called by `sfu.media.wire.describe`.

Reference lists (P_DIFF) and the scalability structure come after everything that forwarding needs, and are not read.
"""

import numpy as np
from numba import njit

from sfu.media.wire.picture_id import read_picture_id
from sfu.schema.codes import PacketFlag


@njit(cache=True)
def describe_vp9(packet, data, end):
    """Fill `packet` from the payload that lies between packet.payload_at and `end` of `data`.

    FRAME_START and FRAME_END are those of the spatial layer. KEY_FRAME marks spatial layer 0 of a picture that needs
    no earlier picture. A descriptor that is cut off leaves flags 0.
    """
    start = np.int64(packet.payload_at)
    first = np.int64(data[start])
    at = start + 1
    if first & 0x80:  # I
        at = read_picture_id(packet, data, at, end)
        if at < 0:
            return
    switch = np.int64(0)
    if first & 0x20:  # L
        if at >= end:
            return
        layers = np.int64(data[at])
        packet.temporal = layers >> 5
        packet.spatial = (layers >> 1) & 7
        switch = layers & 0x10
        at += 1
        if not first & 0x10:  # F = 0, non-flexible mode
            if at >= end:
                return
            packet.tl0_at = at - start
            packet.tl0 = data[at]
            at += 1
    if at >= end:
        return
    flags = 0
    if first & 0x08:  # B
        flags |= PacketFlag.FRAME_START
    if first & 0x04:  # E
        flags |= PacketFlag.FRAME_END
    if not first & 0x40 and packet.spatial == 0:  # P
        flags |= PacketFlag.KEY_FRAME
    if switch or packet.temporal == 0:
        flags |= PacketFlag.SWITCH_UP
    packet.flags = flags
