"""What missing sequence numbers carried, judged by the packets on both sides of the gap.

Not every number comes when it is asked for: libwebrtc keeps neither padding-only packets for retransmission (without
RTX they have numbers of the stream) nor, when the next base frame is near, frames of higher temporal layers. Without
those nobody needs a key frame.
"""

import numpy as np
from numba import njit

from sfu.media.wire.numbers import signed16
from sfu.schema.capacities import PACKETS
from sfu.schema.codes import MediaKind, PacketFlag

VITAL, SPARE, NOTHING = 0, 1, 2
"""Frames that later ones may need, or it is not known; frames of higher temporal layers only; padding only."""
MAX_PASSED = 128
"""Numbers passed over on either side in search of a frame: padding, and further numbers that are missing."""
NONE_NEAR = -1


@njit(cache=True)
def judge_gap(state, stream_row, first, end):
    """What the extended numbers first to end - 1 of a stream, all missing, carried; all up to the next frame together.

    Returns (VITAL, SPARE or NOTHING, up to which number that is so: that of the next packet with a payload, if near).
    """
    before, after = _neighbour(state, stream_row, first - 1, -1), _neighbour(state, stream_row, end, 1)
    if after == NONE_NEAR:
        return VITAL, end + MAX_PASSED
    if state.streams[stream_row].kind != MediaKind.VIDEO or before == NONE_NEAR:
        return VITAL, after
    left = state.packets[stream_row, before & (PACKETS - 1)]
    right = state.packets[stream_row, after & (PACKETS - 1)]
    if left.codec != right.codec:
        return VITAL, after
    if _follows(left, right):
        return NOTHING, after
    return SPARE if _keeps_base(left, right) else VITAL, after


@njit(cache=True)
def _neighbour(state, stream_row, sequence, step):
    """The number of the first stored packet with a payload from `sequence` on, upwards or downwards by `step`."""
    for number in range(sequence, sequence + step * MAX_PASSED, step):
        packet = state.packets[stream_row, number & (PACKETS - 1)]
        if packet.sequence == number and np.int64(packet.size) - packet.padding > packet.payload_at:
            return np.int64(number)
    return np.int64(NONE_NEAR)


@njit(cache=True)
def _follows(left, right):
    """Whether the frame that begins with `right` is the next one after that which ends with `left`."""
    if right.flags & PacketFlag.FRAME_START == 0:
        return False
    if left.frame_number >= 0 and right.frame_number >= 0:
        return (
            left.flags & PacketFlag.FRAME_END != 0 and signed16(np.int64(right.frame_number) - left.frame_number) == 1
        )
    if left.picture_id < 0 or right.picture_id < 0 or left.picture_bytes != right.picture_bytes:
        return False
    mask = 0x7FFF if right.picture_bytes == 2 else 0x7F
    step = (np.int64(right.picture_id) - left.picture_id) & mask
    return left.marker != 0 and right.spatial == 0 and step == 1


@njit(cache=True)
def _keeps_base(left, right):
    """Whether both sides belong to the same base frame (TL0PICIDX), or `right` begins the base frame after it."""
    if left.tl0_at == 0 or right.tl0_at == 0 or (left.temporal == 0 and left.marker == 0):
        return False
    step = (np.int64(right.tl0) - left.tl0) & 255
    if right.temporal > 0:
        return step == 0
    return step == 1 and right.spatial == 0 and right.flags & PacketFlag.FRAME_START != 0
