"""H.264 payload, RFC 6184 section 5: which packets start a frame, and which of them a key frame. Called by describe."""

import numpy as np
from numba import njit

from sfu.media.wire.numbers import get_u16
from sfu.schema.capacities import PACKETS
from sfu.schema.codes import PacketFlag

SLICE, IDR, SEQUENCE_PARAMETERS = 1, 5, 7
STAP_A, FU_A = 24, 28

_STARTS, _KEY, _SETS = 1, 2, 4


@njit(cache=True)
def _unit(data, at, end, kind):
    """What a NAL unit with type `kind` and payload from `at` on says: bits _STARTS, _KEY, _SETS.

    A slice starts a picture when first_mb_in_slice is 0, which Exp-Golomb codes as a first bit of 1 (H.264 7.3.3).
    """
    if kind == SEQUENCE_PARAMETERS:
        return _STARTS | _KEY | _SETS
    if kind != SLICE and kind != IDR:
        return 0
    seen = _KEY if kind == IDR else 0
    if at < end and data[at] & 0x80:
        seen |= _STARTS
    return seen


@njit(cache=True)
def _inspect(data, start, end):
    """What a whole payload says, in the bits of `_unit`: one NAL unit, an aggregate (STAP-A) or a fragment (FU-A)."""
    kind = np.int64(data[start]) & 31
    if kind == FU_A:
        if start + 1 >= end:
            return 0
        header = np.int64(data[start + 1])
        seen = _unit(data, start + 2, end, header & 31)
        return seen if header & 0x80 else seen & _KEY
    if kind != STAP_A:
        return _unit(data, start + 1, end, kind)
    seen, at = 0, start + 1
    while at + 2 < end:
        size = get_u16(data, at)
        if size == 0 or at + 2 + size > end:
            break
        seen |= _unit(data, at + 3, at + 2 + size, np.int64(data[at + 2]) & 31)
        at += 2 + size
    return seen


@njit(cache=True)
def _lacks_sets(state, stream_row, packet):
    """Whether a key frame's slice comes without the parameter sets that belong before it: then none can start here.

    A stream that has sent some goes on doing so, and they are late or lost. Only when the packet right before is there
    and belongs to another frame did the sender leave them out.
    """
    stream = state.streams[stream_row]
    if not 0 < stream.sets_sequence < packet.sequence:
        return False
    before = state.packets[stream_row, (packet.sequence - 1) & (PACKETS - 1)]
    if before.sequence != packet.sequence - 1 or before.timestamp == packet.timestamp:
        return True
    stream.sets_sequence = 0
    return False


@njit(cache=True)
def _continues_key_frame(state, stream_row, packet):
    """Whether the packet comes after the noted start of a key frame with its timestamp.

    Parameter sets and the IDR slice of one frame travel in packets of their own; only the first is where to start.
    """
    sequence = state.streams[stream_row].key_sequence
    if sequence < 0 or packet.sequence <= sequence:
        return False
    noted = state.packets[stream_row, sequence & (PACKETS - 1)]
    return noted.sequence == sequence and noted.timestamp == packet.timestamp


@njit(cache=True)
def describe_h264(state, stream_row, packet, data, end):
    """Fill packet.flags from the payload that lies between packet.payload_at and `end` of `data`.

    Needs packet.sequence and packet.timestamp. A frame starts with a sequence parameter set or its first slice, a key
    frame of a stream that sends parameter sets only with these.
    """
    start = np.int64(packet.payload_at)
    seen = _inspect(data, start, end)
    flags = PacketFlag.FRAME_END if packet.marker else 0
    if seen & _KEY:
        flags |= PacketFlag.KEY_FRAME
    if seen & _SETS:
        state.streams[stream_row].sets_sequence = packet.sequence
    elif seen & _KEY and seen & _STARTS and _lacks_sets(state, stream_row, packet):
        seen &= ~_STARTS
    if seen & _STARTS and not (seen & _KEY and _continues_key_frame(state, stream_row, packet)):
        flags |= PacketFlag.FRAME_START
    header = np.int64(data[start])
    if header & 0x60 == 0:  # nal_ref_idc
        flags |= PacketFlag.NOT_REFERENCE
    packet.flags = flags
