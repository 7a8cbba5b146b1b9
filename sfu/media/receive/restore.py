"""Lost Opus packets from the redundancy of the RED packet that follows them (RFC 2198), for whoever gets no RED.

A RED packet repeats the payloads of those before it. What is missing is stored as a plain Opus packet with the number
that it had, so that subscribers that get Opus unwrapped have it too. Called by ingress.
"""

import numpy as np
from numba import njit

from sfu.media.wire.numbers import put_u16, put_u32, signed32
from sfu.media.wire.red import find_redundant
from sfu.media.wire.rtp import FIXED_HEADER_BYTES
from sfu.schema.capacities import COPIED, PACKETS, RX_BYTES
from sfu.schema.codes import PacketFlag

MAX_RESTORED = 8
"""Packets in a row that one RED packet restores; encoders repeat one or two, and RFC 2198 blocks reach 0.3 s."""


@njit(cache=True)
def gap_before(state, stream_row, extended):
    """How far below the number `extended` the next stored packet is; 0 when that is further than can be restored."""
    for gap in range(1, MAX_RESTORED + 2):
        if state.packets[stream_row, (extended - gap) & (PACKETS - 1)].sequence == extended - gap:
            return gap
    return 0


@njit(cache=True)
def write_lost(state, k, size, stream_row, media, extended, gap, number):
    """Write the lost packet `number`, within the `gap` below the stored RED packet `extended`, behind it.

    The RED packet is the first `size` bytes of receive slot k. Fills state.incoming as parse_header does. Returns the
    size of the packet; 0 when no block of the RED packet can be told to be its payload: of one lost packet it is the
    block between the two timestamps, of several they must be equally far apart.
    """
    red = state.packets[stream_row, extended & (PACKETS - 1)]
    before = state.packets[stream_row, (extended - gap) & (PACKETS - 1)]
    elapsed = signed32(np.int64(red.timestamp) - np.int64(before.timestamp))
    lowest, highest = np.int64(1), elapsed - 1
    if gap > 2:
        if elapsed <= 0 or elapsed % gap != 0:
            return 0
        lowest = highest = elapsed // gap * (extended - number)
    data = state.rx[k]
    end = size - np.int64(red.padding)
    at, length, offset = find_redundant(data, np.int64(red.payload_at), end, lowest, highest)
    if length == 0 or size + FIXED_HEADER_BYTES + length > RX_BYTES:
        return 0
    payload_type = np.int64(media.associated_pt[red.payload_type])
    if payload_type < 0:
        return 0
    stream, packet = state.streams[stream_row], state.incoming[0]
    packet.timestamp = (np.int64(red.timestamp) - offset) & 0xFFFFFFFF
    packet.payload_type = payload_type
    packet.codec = media.codec_of_pt[payload_type]
    packet.marker = 0
    packet.padding = 0
    packet.payload_at = FIXED_HEADER_BYTES
    packet.size = FIXED_HEADER_BYTES + length
    for kind in range(COPIED):
        packet.extension_at[kind] = 0
        packet.extension_bytes[kind] = 0
    data[size] = 0x80
    data[size + 1] = payload_type
    put_u16(data, size + 2, number - stream.sequence_shift)
    put_u32(data, size + 4, np.int64(packet.timestamp))
    put_u32(data, size + 8, np.int64(stream.ssrc))
    for n in range(length):
        data[size + FIXED_HEADER_BYTES + n] = data[at + n]
    return FIXED_HEADER_BYTES + length


@njit(cache=True)
def was_restored(state, stream_row, extended):
    """Whether the packet stored under this number was restored and is received itself only now; asked once."""
    packet = state.packets[stream_row, extended & (PACKETS - 1)]
    if packet.sequence != extended or packet.flags & PacketFlag.RESTORED == 0:
        return False
    packet.flags = np.int64(packet.flags) & ~PacketFlag.RESTORED
    return True
