"""Positions in a track's log among which something waits for a subscription: where a key frame begins, what is still
there, what is old."""

import numpy as np
from numba import njit

from sfu.media.stream.arrivals import is_logged, logged_packet
from sfu.media.stream.packet_cache import is_stored
from sfu.media.wire.numbers import extend16
from sfu.schema.capacities import PACKETS, TRACK_LOG

OVERTAKERS = 64
"""Log entries before the first packet of a key frame among which packets that overtook it are looked for."""


@njit(cache=True)
def with_overtakers(state, track, stream_row, sequence, position):
    """The position of the first entry that is packet `sequence` of a stream or a later one: `position`, or earlier
    where packets arrived in another order."""
    stream, first = state.streams[stream_row], position
    layer = np.int64(stream.layer)
    for at in range(position - 1, max(position - OVERTAKERS, track.log_written - TRACK_LOG, 0) - 1, -1):
        each, low = logged_packet(track, at)
        if each != layer:
            continue
        packet = state.packets[stream_row, low & (PACKETS - 1)]
        if not is_logged(packet, low):
            continue
        if sequence < packet.sequence < sequence + PACKETS and is_stored(stream, packet, packet.sequence):
            first = at
    return first


@njit(cache=True)
def is_lost(state, track, subscription, first, last):
    """Whether the packet cache has lost a packet of the followed layer that was still to be sent, among the entries
    `first` to `last` - 1."""
    for position in range(first, last):
        layer, low = logged_packet(track, position)
        if layer < 0 or layer != subscription.layer:
            continue
        stream_row = np.int64(track.streams[layer])
        stream, packet = state.streams[stream_row], state.packets[stream_row, low & (PACKETS - 1)]
        sequence = extend16(low, np.int64(stream.highest))
        if sequence > subscription.in_highest and not is_stored(stream, packet, sequence):
            return True
    return False


@njit(cache=True)
def first_younger(state, track, position, since):
    """The first position, from `position` on, of a packet that arrived after `since`; the log's end if none did."""
    while position < track.log_read:
        layer, low = logged_packet(track, position)
        if layer >= 0:
            packet = state.packets[track.streams[layer], low & (PACKETS - 1)]
            if is_logged(packet, low) and packet.arrival_ns > since:
                break
        position += 1
    return position


@njit(cache=True)
def first_logged(state, subscription, position):
    """The lowest number of the followed stream that the track's log has from `position` on; behind its highest one, if
    it has none."""
    track, stream = state.tracks[subscription.track], state.streams[subscription.stream]
    lowest = np.int64(stream.highest) + 1
    for at in range(position, track.log_read):
        layer, low = logged_packet(track, at)
        if layer == subscription.layer:
            lowest = min(lowest, extend16(low, np.int64(stream.highest)))
    return lowest
