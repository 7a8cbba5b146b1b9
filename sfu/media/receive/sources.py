"""Which stream an SSRC belongs to, decided in the kernel from authenticated packets alone.

A *source* is an SSRC that a peer sends. It is assigned to a stream by the SSRC lines of the SDP, by (mid, rid) or
(mid, repaired rid) in the packet (RFC 8843 section 9.2, RFC 8852), by mid alone when the track has one layer, by a rid
or a kind that only one track has. After that, packets need neither. Unassigned sources are few, and the oldest gives
way.
"""

import numpy as np
from numba import njit

from sfu.compiler.rows import row_reset
from sfu.media.net.lookup import find_source, insert_source, remove_source
from sfu.media.net.srtp import forget_srtp_stream
from sfu.media.receive.formats import announce_stream, may_carry
from sfu.media.receive.reception import restart
from sfu.parameters import Codec, Extension
from sfu.schema.capacities import CROWDED_UNASSIGNED, MAX_UNASSIGNED, RTCP_SENDERS, UNASSIGNED_PER_TRANSPORT
from sfu.schema.codes import Drop, MediaKind, RowState
from sfu.schema.transport_tables import SOURCE

NO_STREAM = -1
NEVER_NS = (1 << 63) - 1
UNASSIGNED_IDLE_NS = 10_000_000_000
"""An unassigned source that was silent for so long gives its place to a new one."""
DISPLACED_NS = 1_000_000_000
"""How long an SSRC that lost its stream cannot take it back: two that share a mid must not alternate, and what a BYE
overtook on the way starts nothing. After a BYE, a number above all earlier ones may."""

_NONE, _OPUS, _RED, _AUDIO, _RTX = int(Codec.NONE), int(Codec.OPUS), int(Codec.RED), int(Codec.AUDIO), int(Codec.RTX)
_MID, _RID, _REPAIRED_RID = int(Extension.MID), int(Extension.RID), int(Extension.REPAIRED_RID)

_reset_source = row_reset(SOURCE.reset_parts(), SOURCE.dtype.itemsize)


@njit(cache=True)
def _give_back(state, row):
    """Take a source out of the hash table; its row can be used again."""
    remove_source(state, row)
    source = state.sources[row]
    source.state = RowState.FREE
    source.next = state.thread[0].free_source
    state.thread[0].free_source = row


@njit(cache=True)
def _free_source(state, row):
    """Take an unassigned source out of its transport's list and the hash table; libsrtp forgets it too."""
    source = state.sources[row]
    transport = state.transports[source.transport]
    forget_srtp_stream(transport.srtp_in, np.int64(source.ssrc))
    if transport.first_source == row:
        transport.first_source = source.next
    else:
        before = transport.first_source
        while before >= 0 and state.sources[before].next != row:
            before = state.sources[before].next
        if before >= 0:
            state.sources[before].next = source.next
    _give_back(state, row)
    count_unassigned(state, source.transport, -1)


@njit(cache=True)
def count_unassigned(state, transport_row, difference):
    """Count how many more sources of a transport are assigned to no stream; negative: how many fewer."""
    state.transports[transport_row].unassigned += difference
    state.thread[0].unassigned += difference


@njit(cache=True)
def _evict_unassigned(state, transport_row, seen):
    """Free the unassigned source that was silent longest, if nothing has come of it since `seen`, ns. False: none."""
    transport = state.transports[transport_row]
    oldest = -1
    row = np.int64(transport.first_source)
    while row >= 0:
        source = state.sources[row]
        if source.stream < 0 and source.seen_ns < seen:
            oldest, seen = row, source.seen_ns
        row = np.int64(source.next)
    if oldest < 0:
        return False
    _free_source(state, oldest)
    return True


@njit(cache=True)
def forget_surplus(state, transport_row):
    """Free the unassigned sources that a transport has too many of, because its tracks have ended."""
    while state.transports[transport_row].unassigned > UNASSIGNED_PER_TRANSPORT:
        if not _evict_unassigned(state, transport_row, NEVER_NS):
            return


@njit(cache=True)
def add_source(state, transport_row, ssrc, now):
    """Enter an SSRC that is not known on the transport, unassigned. Returns its row; -1 (counted): there is no room."""
    transport = state.transports[transport_row]
    limit = UNASSIGNED_PER_TRANSPORT if state.thread[0].unassigned < MAX_UNASSIGNED else CROWDED_UNASSIGNED
    if transport.unassigned >= limit and not _evict_unassigned(state, transport_row, now - UNASSIGNED_IDLE_NS):
        state.drops[Drop.UNASSIGNED_FULL] += 1
        forget_srtp_stream(transport.srtp_in, np.int64(ssrc))
        return -1
    row = np.int64(state.thread[0].free_source)
    if row < 0:
        state.drops[Drop.SOURCES_FULL] += 1
        forget_srtp_stream(transport.srtp_in, np.int64(ssrc))
        return -1
    source = state.sources[row]
    state.thread[0].free_source = source.next
    _reset_source(source)
    source.state = RowState.OPEN
    source.transport = transport_row
    source.ssrc = ssrc
    source.seen_ns = now
    source.next = transport.first_source
    transport.first_source = row
    count_unassigned(state, transport_row, 1)
    insert_source(state, row)
    return row


@njit(cache=True)
def unassign(state, source_row):
    """Take a source from its stream. The SSRC stays known, and its SRTP state with it; the stream keeps its numbers."""
    source = state.sources[source_row]
    if source.stream < 0:
        return
    stream = state.streams[source.stream]
    if source.rtx:
        stream.rtx_source = -1
    else:
        stream.source = -1
    source.stream = NO_STREAM
    count_unassigned(state, source.transport, 1)


@njit(cache=True)
def codec_kind(codec):
    """AUDIO or VIDEO for a codec that is neither NONE nor RTX."""
    return MediaKind.AUDIO if codec in (_OPUS, _RED, _AUDIO) else MediaKind.VIDEO


@njit(cache=True)
def _same_text(data, at, size, text, text_bytes):
    if size != text_bytes:
        return False
    for k in range(size):  # noqa: SIM110 - kernels know no generators
        if data[at + k] != text[k]:
            return False
    return True


@njit(cache=True)
def _by_ssrc(state, transport_row, ssrc, rtx, kind):
    if ssrc == 0:  # stands for "not declared" in a stream
        return NO_STREAM
    track_row = np.int64(state.transports[transport_row].first_track)
    while track_row >= 0:
        track = state.tracks[track_row]
        if track.kind == kind:
            for layer in range(np.int64(track.layer_count)):
                stream = state.streams[track.streams[layer]]
                if (stream.rtx_ssrc if rtx else stream.ssrc) == ssrc:
                    return np.int64(track.streams[layer])
        track_row = np.int64(track.next)
    return NO_STREAM


@njit(cache=True)
def _layer_of(state, track, data, rid_at, rid_bytes):
    """The stream of a track that a rid names (rid_bytes 0: the packet has none)."""
    for layer in range(np.int64(track.layer_count)):
        stream = state.streams[track.streams[layer]]
        if rid_bytes and _same_text(data, rid_at, rid_bytes, stream.rid, stream.rid_bytes):
            return np.int64(track.streams[layer])
    only = np.int64(track.streams[0])
    if track.layer_count == 1 and (rid_bytes == 0 or state.streams[only].rid_bytes == 0):
        return only
    return NO_STREAM


@njit(cache=True)
def _by_mid(state, transport_row, data, kind, rid_at, rid_bytes):
    header = state.header[0]
    track_row = np.int64(state.transports[transport_row].first_track)
    while track_row >= 0:
        track = state.tracks[track_row]
        if track.kind == kind and _same_text(data, header.at[_MID], header.bytes[_MID], track.mid, track.mid_bytes):
            return _layer_of(state, track, data, rid_at, rid_bytes)
        track_row = np.int64(track.next)
    return NO_STREAM


@njit(cache=True)
def _by_elimination(state, transport_row, data, kind, rtx, rid_at, rid_bytes):
    """Without a mid: the one track of this kind that has the rid, or the one track of this kind if it has one layer.

    Only a stream that has no source yet: what may be a mistake must not take the place of another source.
    """
    found, candidates = NO_STREAM, 0
    track_row = np.int64(state.transports[transport_row].first_track)
    while track_row >= 0:
        track = state.tracks[track_row]
        if track.kind == kind:
            stream_row = _layer_of(state, track, data, rid_at, rid_bytes)
            if rid_bytes == 0 or stream_row >= 0:
                candidates += 1
                found = stream_row
        track_row = np.int64(track.next)
    if candidates != 1 or found < 0:
        return NO_STREAM
    stream = state.streams[found]
    present, declared = (stream.rtx_source, stream.rtx_ssrc) if rtx else (stream.source, stream.ssrc)
    return found if present < 0 and declared == 0 else NO_STREAM


@njit(cache=True)
def _attach(state, source_row, stream_row, rtx, now):
    source, stream = state.sources[source_row], state.streams[stream_row]
    displaced = np.int64(stream.rtx_source if rtx else stream.source)
    if displaced >= 0:
        unassign(state, displaced)
        state.sources[displaced].displaced_ns = now
        state.sources[displaced].ended = 0
    source.stream = stream_row
    source.rtx = 1 if rtx else 0
    count_unassigned(state, source.transport, -1)
    if rtx:
        stream.rtx_source = source_row
        stream.rtx_ssrc = source.ssrc
        return
    if stream.highest >= 0 and stream.ssrc != source.ssrc:
        restart(stream, np.int64(state.header[0].sequence))
        if stream.rtx_source >= 0:  # it repaired the numbers of the SSRC that ended
            unassign(state, stream.rtx_source)
        stream.rtx_ssrc = 0
        stream.codec = _NONE
    stream.source = source_row
    stream.ssrc = source.ssrc
    announce_stream(state, stream_row)


@njit(cache=True)
def _goes_on(state, source):
    """Whether the packet in hand came after the BYE that ended its source: no earlier one has so high a number."""
    return source.ended and source.newest == np.int64(state.header[0].sequence)


@njit(cache=True)
def assign(state, source_row, codec, repaired, data, now):
    """Find the stream of an unassigned source by the packet in hand (state.header, `data`), and assign it to that.

    codec: of the packet's payload type; repaired: for RTX the codec that it repairs, else `codec`. Returns the stream's
    row, or -1.
    """
    source, header = state.sources[source_row], state.header[0]
    rtx = codec == _RTX
    kind = codec_kind(repaired)
    row = source.transport
    stream_row = _by_ssrc(state, row, source.ssrc, rtx, kind)
    if stream_row < 0:
        extension = _REPAIRED_RID if rtx else _RID
        rid_at, rid_bytes = np.int64(header.at[extension]), np.int64(header.bytes[extension])
        if header.bytes[_MID]:
            stream_row = _by_mid(state, row, data, kind, rid_at, rid_bytes)
        else:
            stream_row = _by_elimination(state, row, data, kind, rtx, rid_at, rid_bytes)
    if stream_row < 0 or not may_carry(state.tracks[state.streams[stream_row].track], repaired):
        return NO_STREAM
    if source.displaced_ns and now - source.displaced_ns < DISPLACED_NS and not _goes_on(state, source):
        return NO_STREAM
    _attach(state, source_row, stream_row, rtx, now)
    return stream_row


@njit(cache=True)
def known_source(state, transport_row, ssrc, now):
    """The row of an SSRC on a transport, entered if it is new; -1 (counted) when there is no room."""
    row = find_source(state, transport_row, ssrc)
    if row < 0:
        row = add_source(state, transport_row, ssrc, now)
    if row >= 0:
        state.sources[row].seen_ns = now
    return row


@njit(cache=True)
def close_sources(state, transport_row):
    """Forget every SSRC that a transport's peer sent. Its tracks are closed already; its SRTP sessions end next."""
    transport = state.transports[transport_row]
    row = np.int64(transport.first_source)
    while row >= 0:
        source = state.sources[row]
        following = np.int64(source.next)
        unassign(state, row)
        _give_back(state, row)
        row = following
    transport.first_source = -1
    count_unassigned(state, transport_row, -np.int64(transport.unassigned))
    for k in range(RTCP_SENDERS):
        transport.rtcp_senders[k] = 0
        transport.rtcp_indices[k] = 0


@njit(cache=True)
def remember_rtcp_sender(state, transport_row, ssrc):
    """Note an SSRC that sent RTCP and is no source; the oldest of RTCP_SENDERS gives way, in libsrtp too."""
    transport = state.transports[transport_row]
    for k in range(RTCP_SENDERS):
        if transport.rtcp_senders[k] == ssrc:
            return
    at = np.int64(transport.rtcp_sender_next) % RTCP_SENDERS
    oldest = np.int64(transport.rtcp_senders[at])
    if oldest != 0 and find_source(state, transport_row, oldest) < 0:
        forget_srtp_stream(transport.srtp_in, oldest)
    transport.rtcp_senders[at] = ssrc
    transport.rtcp_indices[at] = 0
    transport.rtcp_sender_next = (at + 1) % RTCP_SENDERS
