"""An SRTP packet from its receive slot into its stream's packet cache, and into the log that egress reads.

In order: decrypt, log for transport-cc, find the stream of the source, unwrap RTX, number, describe, store once.
"""

import numpy as np
from numba import njit

from sfu.media.net.following import is_newest, packet_received
from sfu.media.net.srtp import can_send, unprotect_rtp
from sfu.media.receive.formats import repairs
from sfu.media.receive.nack import measure_repair, note_gap, recovered
from sfu.media.receive.reception import count_packet, extend_primary, extend_repair
from sfu.media.receive.restore import gap_before, was_restored, write_lost
from sfu.media.receive.sources import assign, known_source
from sfu.media.receive.storage import is_new, same_format, set_codec, store
from sfu.media.receive.transport_cc import EARLY_COUNT, log_arrival, send_transport_feedback
from sfu.media.stream.levels import observe_level
from sfu.media.wire.numbers import get_u16, get_u32, put_u16, put_u32, signed32
from sfu.media.wire.rtp import FIXED_HEADER_BYTES, parse_header
from sfu.parameters import Codec, Extension
from sfu.schema.capacities import ARRIVALS, PACKETS
from sfu.schema.codes import Drop, MediaKind, PacketFlag

SRTP_REPLAY_FAIL, SRTP_REPLAY_OLD = 9, 10
RTX_HEADER_BYTES = 2
MAX_REPAIR_AHEAD = 64
"""An RTX packet may carry a number that never arrived itself, but hardly one further ahead than this."""
PAYLOAD_TYPES = 128

_NONE, _RTX, _RED = int(Codec.NONE), int(Codec.RTX), int(Codec.RED)
_TRANSPORT_CC, _AUDIO_LEVEL = int(Extension.TRANSPORT_CC), int(Extension.AUDIO_LEVEL)


@njit(cache=True)
def receive_rtp(state, arena, k, size, row, arrival, now):
    """Take an SRTP packet of `size` bytes in receive slot k from transport `row`, which is secure.

    arrival: ns when it reached the host; now: ns of this turn. Whatever is wrong with it is counted and ends here.
    """
    transport, thread, wire_bytes = state.transports[row], state.thread[0], size
    size = unprotect_rtp(state, transport.srtp_in, k, size)
    if size < 0:
        replay = size == -SRTP_REPLAY_FAIL or size == -SRTP_REPLAY_OLD
        state.drops[Drop.SRTP_REPLAY if replay else Drop.SRTP_AUTH] += 1
        return
    transport.packets_in += 1
    transport.bytes_in += size
    thread.packets_received += 1
    thread.bytes_received += wire_bytes
    receive_plain(state, arena, k, size, row, arrival, now)


@njit(cache=True)
def receive_plain(state, arena, k, size, row, arrival, now):
    """Take an RTP packet that is decrypted already."""
    media_row, data = np.int64(state.transports[row].media), state.rx[k, :size]
    if size < FIXED_HEADER_BYTES or media_row < 0:
        state.drops[Drop.RTP_MALFORMED] += 1
        return
    good = parse_header(state, media_row, data, size, state.incoming[0])
    if good:
        _log_transport_sequence(state, row, data, arrival, now)
    # entered even when the packet is of no use: libsrtp keeps a state per SSRC, and this table bounds their number
    source_row = known_source(state, row, get_u32(data, 8), now)
    if not good:
        state.drops[Drop.RTP_MALFORMED] += 1
    if source_row < 0 or not good:
        return
    media, packet = state.media[media_row], state.incoming[0]
    codec = np.int64(media.codec_of_pt[packet.payload_type])
    repaired = _repaired_codec(media, np.int64(packet.payload_type)) if codec == _RTX else codec
    if repaired == _NONE:
        state.drops[Drop.UNKNOWN_PAYLOAD_TYPE] += 1
        return
    source = state.sources[source_row]
    newest = is_newest(source, np.int64(state.header[0].sequence))
    if source.stream < 0 and assign(state, source_row, codec, repaired, data, now) < 0:
        state.drops[Drop.UNASSIGNED_SSRC] += 1
        return
    if newest:
        packet_received(state, row, k, now)
    if (codec == _RTX) != (source.rtx != 0):  # RTX on a primary SSRC or the other way round
        state.drops[Drop.UNKNOWN_PAYLOAD_TYPE] += 1
    elif codec == _RTX:
        _receive_repair(state, arena, k, size, np.int64(source.stream), media, arrival, now)
    else:
        _receive_primary(state, arena, k, size, np.int64(source.stream), media, arrival, now)


@njit(cache=True)
def _repaired_codec(media, payload_type):
    """The codec that an RTX payload type repairs, or NONE."""
    original = np.int64(media.associated_pt[payload_type])
    if original < 0 or original >= PAYLOAD_TYPES:
        return _NONE
    codec = np.int64(media.codec_of_pt[original])
    return _NONE if codec == _RTX else codec


@njit(cache=True)
def _log_transport_sequence(state, row, data, arrival, now):
    header = state.header[0]
    if header.bytes[_TRANSPORT_CC] != 2:
        return
    log = state.arrivals[row]
    if log.count > 0 and log.highest - log.first >= ARRIVALS - EARLY_COUNT // 2 and can_send(state, row):
        send_transport_feedback(state, row, now)  # the next pass might come too late for the oldest entries
    log_arrival(state, row, get_u16(data, header.at[_TRANSPORT_CC]), header.ssrc, arrival)


@njit(cache=True)
def _receive_primary(state, arena, k, size, stream_row, media, arrival, now):
    """A packet of the stream's own SSRC."""
    stream, packet = state.streams[stream_row], state.incoming[0]
    extended = extend_primary(stream, np.int64(state.header[0].sequence))
    if not is_new(state, stream_row, extended):
        if was_restored(state, stream_row, extended):
            count_packet(stream, extended, size, packet.timestamp, arrival)
        return
    if not same_format(state, stream_row, media, packet, extended, arrival):
        return
    before, step = stream.highest, signed32(np.int64(packet.timestamp) - np.int64(stream.last_timestamp))
    set_codec(stream, media, packet)
    count_packet(stream, extended, size, packet.timestamp, arrival)
    stream.last_ns = arrival
    if extended > before:
        if before >= 0 and stream.nack:
            note_gap(stream, before + 1, extended, now)
        stream.last_timestamp = packet.timestamp
        if stream.kind == MediaKind.AUDIO and packet.extension_bytes[_AUDIO_LEVEL] == 1:
            level = np.int64(state.rx[k, packet.extension_at[_AUDIO_LEVEL]]) & 127
            observe_level(stream, level, step)
    else:
        if stream.rtx_source < 0:  # then repairs come under their own number
            measure_repair(state.transports[stream.transport], stream, extended, now)
        recovered(stream, extended)
    store(state, arena, k, 0, stream_row, extended, arrival)
    if packet.codec == _RED:
        _restore_lost(state, arena, k, size, stream_row, media, extended, arrival)


@njit(cache=True)
def _restore_lost(state, arena, k, size, stream_row, media, extended, arrival):
    """Store what is missing just below the RED packet `extended`, in receive slot k, from its redundancy."""
    stream, gap = state.streams[stream_row], gap_before(state, stream_row, extended)
    oldest = stream.highest - PACKETS + 1  # what is older stands where a newer packet does
    for number in range(max(extended - gap + 1, oldest), extended):
        if write_lost(state, k, size, stream_row, media, extended, gap, number) > 0:
            store(state, arena, k, size, stream_row, number, arrival)
            lost = state.packets[stream_row, number & (PACKETS - 1)]
            lost.flags = np.int64(lost.flags) | PacketFlag.RESTORED
            recovered(stream, number)


@njit(cache=True)
def _receive_repair(state, arena, k, size, stream_row, media, arrival, now):
    """An RTX packet (RFC 4588): restore the original in its receive slot and go on as if that had come."""
    stream, packet = state.streams[stream_row], state.incoming[0]
    payload_at = np.int64(packet.payload_at)
    state.thread[0].retransmissions_received += 1
    state.thread[0].retransmission_bytes_received += size
    if size - np.int64(packet.padding) - payload_at <= RTX_HEADER_BYTES:
        state.drops[Drop.RTX_EMPTY] += 1  # a padding probe
        return
    if stream.highest < 0:
        state.drops[Drop.RTX_UNKNOWN] += 1
        return
    data = state.rx[k]
    original = get_u16(data, payload_at)
    extended = extend_repair(stream, original)
    if extended > stream.highest + MAX_REPAIR_AHEAD:
        state.drops[Drop.RTX_UNKNOWN] += 1
        return
    if not is_new(state, stream_row, extended):
        return
    if not repairs(stream, media.codec_of_pt[media.associated_pt[packet.payload_type]]):
        state.drops[Drop.CODEC_CHANGED] += 1
        return
    for n in range(payload_at - 1, -1, -1):  # the header moves over the original sequence number
        data[n + RTX_HEADER_BYTES] = data[n]
    packet.payload_type = media.associated_pt[packet.payload_type]
    packet.codec = media.codec_of_pt[packet.payload_type]
    packet.size = size - RTX_HEADER_BYTES
    data[RTX_HEADER_BYTES + 1] = np.int64(packet.marker) << 7 | np.int64(packet.payload_type)
    put_u16(data, RTX_HEADER_BYTES + 2, original)
    put_u32(data, RTX_HEADER_BYTES + 8, np.int64(stream.ssrc))
    if extended > stream.highest:
        note_gap(stream, stream.highest + 1, extended, now)
        stream.highest = extended
    measure_repair(state.transports[stream.transport], stream, extended, now)
    recovered(stream, extended)
    store(state, arena, k, RTX_HEADER_BYTES, stream_row, extended, arrival)
