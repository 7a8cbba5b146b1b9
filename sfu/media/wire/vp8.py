"""VP8 payload descriptor, RFC 7741 section 4.2. One kernel, called by `sfu.media.wire.describe`."""

import numpy as np
from numba import njit

from sfu.media.wire.picture_id import read_picture_id
from sfu.schema.codes import PacketFlag


@njit(cache=True)
def describe_vp8(packet, data, end):
    """Fill `packet` from the payload that lies between packet.payload_at and `end` of `data`.

    A descriptor that is cut off leaves flags 0. Without extension octets there are no layers and no picture id, but
    key frames are still recognised.
    """
    start = np.int64(packet.payload_at)
    first = np.int64(data[start])
    at = start + 1
    has_picture = has_tl0 = has_temporal = has_key = np.int64(0)
    if first & 0x80:
        if at >= end:
            return
        extension = np.int64(data[at])
        has_picture, has_tl0 = extension & 0x80, extension & 0x40
        has_temporal, has_key = extension & 0x20, extension & 0x10
        at += 1
    if has_picture:
        at = read_picture_id(packet, data, at, end)
        if at < 0:
            return
    if has_tl0:
        if at >= end:
            return
        packet.tl0_at = at - start
        packet.tl0 = data[at]
        at += 1
    sync = np.int64(0)
    if has_temporal or has_key:
        if at >= end:
            return
        if has_temporal:
            packet.temporal = np.int64(data[at]) >> 6
            sync = np.int64(data[at]) & 0x20
        at += 1
    if at >= end:
        return
    flags = PacketFlag.FRAME_END if packet.marker else 0
    if first & 0x17 == 0x10:  # start of partition 0
        flags |= PacketFlag.FRAME_START
        if data[at] & 1 == 0:  # RFC 7741 section 4.3: P is the inverse key frame flag
            flags |= PacketFlag.KEY_FRAME
    if first & 0x20:
        flags |= PacketFlag.NOT_REFERENCE
    if sync or packet.temporal == 0:
        flags |= PacketFlag.SWITCH_UP
    packet.flags = flags
