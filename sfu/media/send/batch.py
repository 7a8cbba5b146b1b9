"""Entries of a track's log, looked at once for all subscribers that get the packets."""

import numpy as np
from numba import njit

from sfu.media.stream.arrivals import is_logged, logged_packet
from sfu.media.stream.packet_cache import is_stored
from sfu.schema.capacities import COPIED, PACKETS
from sfu.schema.codes import Drop, MediaKind, PacketFlag

MAX_EQUALISING = 8
"""Bytes of padding that a packet may get so that it is as large as its neighbours and shares their message."""

USUAL_ELEMENTS = 7
"""Bytes of abs-send-time and the transport-wide number, which nearly every packet carries."""


@njit(cache=True)
def prepare(state, row, first, last):
    """Look at entries `first` to `last` - 1 of the log of track `row`: into state.batch those whose bytes are still
    there, at most BATCH. Returns how many."""
    track = state.tracks[row]
    count = 0
    for position in range(first, last):
        layer, low = logged_packet(track, position)
        if layer < 0:
            continue
        index = low & (PACKETS - 1)
        packet = state.packets[track.streams[layer], index]
        if not is_logged(packet, low):
            state.drops[Drop.LOG_OVERWRITTEN] += 1
            continue
        if not is_stored(state.streams[track.streams[layer]], packet, packet.sequence):
            continue
        arrival = state.batch[count]
        count += 1
        arrival.position = position
        arrival.stream = track.streams[layer]
        arrival.index = index
        arrival.layer = layer
        arrival.padding = 0
        arrival.key_start = (
            packet.flags & (PacketFlag.KEY_FRAME | PacketFlag.FRAME_START)
            == PacketFlag.KEY_FRAME | PacketFlag.FRAME_START
        )
    if count > 1 and track.kind == MediaKind.VIDEO and state.thread[0].segment_offload:
        for layer in range(np.int64(track.layer_count)):
            _equalise(state, layer, count)
    return count


@njit(cache=True)
def _equalise(state, layer, count):
    """RTP padding (RFC 3550 section 5.1) for packets of a layer that are a few bytes smaller than what follows.

    An encoder cuts a frame into packets that differ by a byte, the larger ones last, but in one UDP_SEGMENT message
    only the last may differ, by being smaller.
    """
    largest = np.int64(0)
    for k in range(count - 1, -1, -1):
        arrival = state.batch[k]
        if arrival.layer != layer:
            continue
        packet = state.packets[arrival.stream, arrival.index]
        elements = np.int64(USUAL_ELEMENTS)
        for kind in range(1, COPIED):
            if packet.extension_at[kind]:
                elements += 1 + packet.extension_bytes[kind]
        size = np.int64(packet.size) - packet.payload_at - packet.padding + ((elements + 3) & ~3)
        missing = largest - size
        if 0 < missing <= MAX_EQUALISING:
            arrival.padding = missing
        else:
            largest = size
