"""From a packet whose stream is known to a stored one: is it new, may it have this codec, keep it, tell egress.

Packets of a publisher come here from ingress, those of a mirrored track from another media thread.
"""

import numpy as np
from numba import njit

from sfu.media.allocation.due import list_subscribers
from sfu.media.allocation.measure import STOPPED, count_layer, resume_stream
from sfu.media.net.udp import copy_to_arena
from sfu.media.receive.formats import take_format
from sfu.media.receive.nack import drop_before
from sfu.media.receive.targets import note_targets
from sfu.media.stream.arrivals import log_packet
from sfu.media.stream.cache_size import watch_burst
from sfu.media.stream.loudest import QUIETEST, note_loudness
from sfu.media.wire.describe import describe
from sfu.parameters import Extension
from sfu.schema.capacities import PACKETS
from sfu.schema.codes import Drop, MediaKind, PacketFlag

_AUDIO_LEVEL, _VIDEO_LAYERS = int(Extension.AUDIO_LEVEL), int(Extension.VIDEO_LAYERS)


@njit(cache=True)
def is_new(state, stream_row, extended):
    """Whether a number fits into the stream's index and is not stored yet."""
    if extended <= state.streams[stream_row].highest - PACKETS:
        state.drops[Drop.TOO_OLD] += 1
        return False
    if state.packets[stream_row, extended & (PACKETS - 1)].sequence == extended:
        state.drops[Drop.DUPLICATE] += 1
        return False
    return True


@njit(cache=True)
def same_format(state, stream_row, media, packet, extended, arrival):
    """Whether the packet has the codec of the packet before, or may change it; see `sfu.media.receive.formats`."""
    stream, payload_type = state.streams[stream_row], packet.payload_type
    if payload_type == stream.payload_type and media.codec_of_pt[payload_type] == stream.codec:
        return True
    return take_format(state, stream_row, media, packet, extended, arrival)


@njit(cache=True)
def set_codec(stream, media, packet):
    """Note the payload type of a packet that was taken, and all that it means."""
    payload_type = np.int64(packet.payload_type)
    packet.codec = media.codec_of_pt[payload_type]
    stream.codec = packet.codec
    stream.payload_type = payload_type
    stream.nack = media.nack_of_pt[payload_type]
    if stream.clock_rate != media.clock_of_pt[payload_type]:
        stream.clock_rate = media.clock_of_pt[payload_type]
        stream.transit = 0


@njit(cache=True)
def store(state, arena, k, offset, stream_row, extended, arrival):
    """Describe the packet at `offset` in receive slot k, copy it into the packet cache, and tell egress by the log."""
    stream, packet = state.streams[stream_row], state.incoming[0]
    size = np.int64(packet.size)
    packet.sequence = extended
    packet.arrival_ns = arrival
    describe(state, stream_row, packet, state.rx[k, offset : offset + size])
    room = stream.cache_bytes - (stream.cache_written & (stream.cache_bytes - 1))
    if size > room:  # a packet does not wrap around the end
        stream.cache_written += room
    count_layer(stream, packet, size)
    packet.start = stream.cache_written
    at = stream.cache_start + (stream.cache_written & (stream.cache_bytes - 1))
    copy_to_arena(state, arena, at, k, offset, size)
    stream.cache_written += size
    watch_burst(state, stream_row, arrival)
    index = extended & (PACKETS - 1)
    state.packets[stream_row, index] = packet
    if stream.kind == MediaKind.AUDIO and packet.extension_bytes[_AUDIO_LEVEL] == 1:
        level = np.int64(state.rx[k, offset + np.int64(packet.extension_at[_AUDIO_LEVEL])]) & QUIETEST
        note_loudness(state.tracks[stream.track], level, arrival)
    elif stream.kind == MediaKind.VIDEO and state.header[0].bytes[_VIDEO_LAYERS]:
        note_targets(state, stream_row, k, offset)
    if packet.flags & PacketFlag.FRAME_START:
        stream.frames += 1
        if packet.flags & PacketFlag.KEY_FRAME and extended > stream.key_sequence:
            stream.key_sequence = extended
            stream.key_ns = arrival
            stream.key_position = state.tracks[stream.track].log_written
            stream.key_frame_requested = 0
            drop_before(stream, extended)
            if stream.quiet_checks == STOPPED:  # it begins again: those who are sent it may be too many things at once
                resume_stream(stream)
                list_subscribers(state, np.int64(stream.track))
    log_packet(state, stream, extended)
