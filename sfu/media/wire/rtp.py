"""The RTP header (RFC 3550 section 5.1) and its extensions in one-byte, two-byte and mixed form (RFC 8285).

`parse_header` is the only place that walks a header; everything later reads positions from `state.header` and the
packet's row. Nothing here trusts a length that came with the packet.
"""

import numpy as np
from numba import njit

from sfu.media.wire.numbers import get_u16, get_u32
from sfu.schema.capacities import COPIED, EXTENSION_KINDS

FIXED_HEADER_BYTES = 12
ONE_BYTE_PROFILE = 0xBEDE
TWO_BYTE_PROFILE = 0x1000
"""The low four bits are "appbits" and mean nothing here (RFC 8285 section 4.3)."""

MAX_ELAPSED_NS = 3_600_000_000_000
"""An hour: longer times are cut to it, so that their ticks do not overflow."""


@njit(cache=True)
def _clear(state, packet):
    header = state.header[0]
    for kind in range(EXTENSION_KINDS):
        header.at[kind] = 0
        header.bytes[kind] = 0
    for kind in range(COPIED):
        packet.extension_at[kind] = 0
        packet.extension_bytes[kind] = 0


@njit(cache=True)
def _note_extension(state, media, identifier, at, size, packet):
    """Remember where extension element `identifier` has its data. An empty element counts as absent."""
    kind = np.int64(media.extension_of_id[identifier])
    if kind == 0 or kind >= EXTENSION_KINDS or size == 0:
        return
    header = state.header[0]
    header.at[kind] = at
    header.bytes[kind] = size
    if kind < COPIED:
        packet.extension_at[kind] = at
        packet.extension_bytes[kind] = size


@njit(cache=True)
def _one_byte_elements(state, media, data, at, end, packet):
    while at < end:
        identifier, length = np.int64(data[at]) >> 4, np.int64(data[at]) & 15
        if identifier == 0 and length == 0:  # padding
            at += 1
            continue
        if identifier == 0 or identifier == 15:  # RFC 8285 section 4.2: "processing ... MUST terminate at that point"
            return True
        size = length + 1
        if at + 1 + size > end:
            return False
        _note_extension(state, media, identifier, at + 1, size, packet)
        at += 1 + size
    return True


@njit(cache=True)
def _two_byte_elements(state, media, data, at, end, packet):
    while at < end:
        identifier = np.int64(data[at])
        if identifier == 0:  # padding has no length byte
            at += 1
            continue
        if at + 2 > end:
            return False
        size = np.int64(data[at + 1])
        if at + 2 + size > end:
            return False
        _note_extension(state, media, identifier, at + 2, size, packet)
        at += 2 + size
    return True


@njit(cache=True)
def _extensions(state, media, data, at, size, packet):
    """Walk the extension block at `at`; returns the offset of the payload, or -1 if a length is wrong."""
    if at + 4 > size:
        return -1
    profile = get_u16(data, at)
    end = at + 4 + 4 * get_u16(data, at + 2)
    if end > size:
        return -1
    good = True
    if profile == ONE_BYTE_PROFILE:
        good = _one_byte_elements(state, media, data, at + 4, end, packet)
    elif profile & 0xFFF0 == TWO_BYTE_PROFILE:
        good = _two_byte_elements(state, media, data, at + 4, end, packet)
    return end if good else -1


@njit(cache=True)
def parse_header(state, media_row, data, size, packet):
    """Read the header of a plaintext RTP packet.

    media_row: row of `state.media` with the extension ids; data: u1 array, size: bytes of it that are the packet;
    packet: a packet_t row. Fills state.header[0] (SSRC, sequence number, where each extension is) and the packet's
    timestamp, payload type, marker, size, padding, payload position and copied extensions.
    Returns False when the packet is malformed; what was filled then means nothing.
    """
    if size < FIXED_HEADER_BYTES or np.int64(data[0]) >> 6 != 2:
        return False
    _clear(state, packet)
    first, second = np.int64(data[0]), np.int64(data[1])
    packet.marker = second >> 7
    packet.payload_type = second & 127
    packet.timestamp = get_u32(data, 4)
    state.header[0].sequence = get_u16(data, 2)
    state.header[0].ssrc = get_u32(data, 8)
    at = FIXED_HEADER_BYTES + 4 * (first & 15)
    if at > size:
        return False
    if first & 0x10:
        at = _extensions(state, state.media[media_row], data, at, size, packet)
        if at < 0:
            return False
    padding = 0
    if first & 0x20:
        padding = np.int64(data[size - 1])
        if padding == 0 or at + padding > size:
            return False
    packet.padding = padding
    packet.payload_at = at
    packet.size = size
    return True


@njit(cache=True)
def ticks_of(duration, clock_rate):
    """ns (at most MAX_ELAPSED_NS either way) in RTP clock ticks."""
    return min(max(duration, -MAX_ELAPSED_NS), MAX_ELAPSED_NS) // 1000 * np.int64(clock_rate) // 1_000_000
