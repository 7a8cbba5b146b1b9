"""From the packets of a track to the sockets of its subscribers, the hot path.

`forward_all` walks the tracks with unread arrivals; each subscriber gets all of a track's new packets in a row, so
that what goes to one receiver is adjacent and leaves as one UDP_SEGMENT message. Per packet and subscriber: admit it,
number it, remember it for retransmission, write it into a send slot, protect and queue it.
"""

import numpy as np
from numba import njit

from sfu.media.net.srtp import claim_index, send_rtp
from sfu.media.net.udp import borrow_arena, take_slot
from sfu.media.send.pictures import drop_picture, offset_picture, send_picture, send_tl0, synchronise_pictures
from sfu.media.send.prefetch import look_ahead
from sfu.media.send.relay_out import relay_batch
from sfu.media.send.rewrite import pad_packet, payload_start, send_time, write_packet
from sfu.media.send.scalability import admit_scalable, is_last_of_picture
from sfu.media.send.selection import (
    admit_temporal,
    completes_key_frame,
    is_held,
    mark_live,
    may_start,
    renew_temporal,
    request_target_key_frame,
)
from sfu.media.send.sequence import NOT_SENT, drop, send, synchronise
from sfu.media.send.timestamps import align_timestamps
from sfu.media.stream.key_frames import recent_key_frame
from sfu.media.stream.layers import is_scalable
from sfu.media.stream.loudest import is_loud
from sfu.media.stream.packet_cache import is_stored
from sfu.media.wire.numbers import signed32
from sfu.parameters import Codec
from sfu.queues.notices import notice
from sfu.schema.bandwidth_codes import Held
from sfu.schema.capacities import BATCH, COPIED, HISTORY, LAYERS, PACKETS, SEQUENCE_START, TRACK_LOG
from sfu.schema.codes import Drop, MediaKind, NoticeKind, PacketFlag, RowState
from sfu.schema.track_tables import NOT_LISTED

MAX_EQUALISING = 8
"""Bytes of padding that a packet may get so that it is as large as its neighbours and shares their message."""

MAX_BACKWARD_TICKS = 90_000
"""Frames that are sent before others that precede them lie less than a second of video apart."""

USUAL_ELEMENTS = 7
"""Bytes of abs-send-time and the transport-wide number, which nearly every packet carries."""

_VP8, _VP9 = int(Codec.VP8), int(Codec.VP9)


@njit(cache=True)
def forward_all(state, arena, now):
    """Forward what every listed track has received. Queued packets leave with udp.flush, the caller's."""
    thread, arena = state.thread[0], borrow_arena(state)
    thread.send_time = send_time(now + thread.wall_offset_ns)
    while thread.first_dirty_track >= 0:
        row = np.int64(thread.first_dirty_track)
        track = state.tracks[row]
        thread.first_dirty_track = track.dirty_next
        track.dirty_next = NOT_LISTED
        if track.state == RowState.OPEN:
            _forward_track(state, arena, row, now)
    thread.row_in_hand = -1


@njit(cache=True)
def _forward_track(state, arena, row, now):
    track = state.tracks[row]
    first = max(track.log_read, track.log_written - TRACK_LOG)
    while True:
        last = min(first + BATCH, track.log_written)
        count = _prepare(state, row, first, last)
        if track.mirrors != 0:
            relay_batch(state, arena, row, count)
        subscription = np.int64(track.first_subscription)
        if track.group > 0:
            was_loud = track.loud
            if not is_loud(state, row, now):
                subscription = np.int64(-1)
            elif not was_loud:
                _begin_anew(state, row)
        while subscription >= 0:
            look_ahead(state, subscription)
            _forward_batch(state, arena, subscription, count, now)
            subscription = np.int64(state.subscriptions[subscription].next_of_track)
        first = last
        if first >= track.log_written:
            break
    track.log_read = track.log_written


@njit(cache=True)
def _begin_anew(state, row):
    """Let every subscription of a track go on with the next packet, as if nothing had been left out."""
    subscription = np.int64(state.tracks[row].first_subscription)
    while subscription >= 0:
        state.subscriptions[subscription].layer = -1
        subscription = np.int64(state.subscriptions[subscription].next_of_track)


@njit(cache=True)
def _prepare(state, row, first, last):
    """Look at the arrivals once for all subscribers: into state.batch those whose bytes are still there; how many."""
    track = state.tracks[row]
    count = 0
    for position in range(first, last):
        entry = np.int64(track.log[position & (TRACK_LOG - 1)])
        layer, index = entry >> 16, entry & (PACKETS - 1)
        if layer >= LAYERS or track.streams[layer] < 0:
            continue
        stream = state.streams[track.streams[layer]]
        packet = state.packets[track.streams[layer], index]
        if not is_stored(stream, packet, packet.sequence):
            continue
        arrival = state.batch[count]
        count += 1
        arrival.stream = track.streams[layer]
        arrival.index = index
        arrival.layer = layer
        arrival.padding = 0
        arrival.key_start = (
            packet.flags & (PacketFlag.KEY_FRAME | PacketFlag.FRAME_START)
            == PacketFlag.KEY_FRAME | PacketFlag.FRAME_START
        )
        if (track.live >> layer) & 1 == 0 and (not stream.dead or arrival.key_start):
            mark_live(state, row, layer)
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


@njit(cache=True)
def _forward_batch(state, arena, row, count, now):
    """All of state.batch to one subscriber."""
    subscription = state.subscriptions[row]
    transport = state.transports[subscription.transport]
    if subscription.paused or not transport.secure or transport.path < 0:
        return
    state.thread[0].row_in_hand = subscription.transport
    if subscription.layer >= 0 and state.streams[subscription.stream].ssrc != subscription.source_ssrc:
        subscription.layer = -1  # another source goes on in its place
    if subscription.layer < 0 and subscription.kind == MediaKind.VIDEO:
        _start_from_cache(state, arena, row, now)
    for k in range(count):
        arrival = state.batch[k]
        stream_row = np.int64(arrival.stream)
        if arrival.layer != subscription.layer:
            packet = state.packets[stream_row, arrival.index]
            if subscription.layer >= 0 and arrival.layer > subscription.layer:
                if arrival.layer == subscription.target_layer and completes_key_frame(state, stream_row, packet):
                    packet = state.packets[stream_row, state.streams[stream_row].key_sequence & (PACKETS - 1)]
                    if may_start(state, subscription, arrival.layer, packet):
                        _begin(state, arena, row, np.int64(arrival.layer), stream_row, packet)
            elif (arrival.key_start or subscription.layer < 0) and may_start(
                state, subscription, arrival.layer, packet
            ):
                _begin(state, arena, row, np.int64(arrival.layer), stream_row, packet)
            continue
        _forward_packet(state, arena, row, stream_row, np.int64(arrival.index), np.int64(arrival.padding))
    if subscription.target_layer != subscription.layer:
        request_target_key_frame(state, row)


@njit(cache=True)
def _start_from_cache(state, arena, row, now):
    """Show a new viewer the best layer that had a key frame just now, so that the publisher need not make one."""
    subscription = state.subscriptions[row]
    track = state.tracks[subscription.track]
    best = max(np.int64(subscription.target_spatial), np.int64(subscription.target_layer))
    for layer in range(min(best, np.int64(track.layer_count) - 1), -1, -1):
        stream_row = np.int64(track.streams[layer])
        stream = state.streams[stream_row]
        first = recent_key_frame(stream, now)
        if first < 0:
            continue
        if stream_row == subscription.stream and first <= subscription.in_highest:
            continue  # the receiver has had it, or it came from a source that has ended
        packet = state.packets[stream_row, first & (PACKETS - 1)]
        if is_stored(stream, packet, first) and may_start(state, subscription, layer, packet):
            _begin(state, arena, row, layer, stream_row, packet)
            return


@njit(cache=True)
def _begin(state, arena, row, layer, stream_row, packet):
    """Turn to `layer` with `packet`, and send what has arrived of the stream from it on: packets may have overtaken
    it. Those that are still to come in the batch are then known as sent."""
    subscription = state.subscriptions[row]
    stream = state.streams[stream_row]
    interrupted = subscription.kind == MediaKind.VIDEO and subscription.packets > 0 and not subscription.last_marker
    synchronise(subscription, packet.sequence, 1 if interrupted else 0)
    align_timestamps(state, subscription, stream_row, packet)
    synchronise_pictures(subscription, packet)
    subscription.layer = layer
    subscription.stream = stream_row
    subscription.source_ssrc = stream.ssrc
    subscription.picture_timestamp = packet.timestamp - 1
    subscription.by_bandwidth = 0
    if subscription.held == Held.SWITCH:
        subscription.held = Held.NOTHING
    renew_temporal(subscription)
    subscription.temporal = subscription.target_temporal
    subscription.report_ns = 0  # the receiver needs the new timestamps soon
    end = min(max(stream.highest, packet.sequence) + 1, packet.sequence + PACKETS)
    for sequence in range(packet.sequence, end):
        index = sequence & (PACKETS - 1)
        if is_stored(stream, state.packets[stream_row, index], sequence):
            _forward_packet(state, arena, row, stream_row, index, 0)


@njit(cache=True)
def _forward_packet(state, arena, row, stream_row, index, padding):
    """Send a packet of the stream that the subscription follows, or take it out of the numbering."""
    subscription = state.subscriptions[row]
    packet = state.packets[stream_row, index]
    same_frame = packet.timestamp == subscription.picture_timestamp
    size = np.int64(packet.size) - np.int64(packet.padding) - payload_start(subscription, packet)
    scalable = False
    admitted = size > 0
    if subscription.held and is_held(state, row, packet):
        admitted = False
    elif admitted and subscription.kind == MediaKind.VIDEO:
        scalable = is_scalable(state.tracks[subscription.track].layer_count, packet.codec)
        if scalable:
            admitted = admit_scalable(state, subscription, stream_row, packet)
        else:
            admitted = admit_temporal(subscription, packet)
    if not admitted:
        drop(subscription, packet.sequence, same_frame)
        if packet.codec == _VP8 and packet.picture_id >= 0:
            drop_picture(subscription, packet)
        return
    out_sequence = send(subscription, packet.sequence)
    if out_sequence == NOT_SENT:
        return
    marker = np.int64(packet.marker)
    if scalable and not marker and packet.flags & PacketFlag.FRAME_END:
        marker = np.int64(is_last_of_picture(state.dependencies[stream_row], subscription, packet))
    sent = state.history[subscription.history, out_sequence & (HISTORY - 1)]
    _describe_sent(subscription, stream_row, packet, sent, out_sequence, marker, scalable)
    _send(state, arena, row, packet, sent, out_sequence - SEQUENCE_START, size, padding)


@njit(cache=True)
def _describe_sent(subscription, stream_row, packet, sent, out_sequence, marker, scalable):
    """Fill the history row from which the packet is written now, and again when it was lost."""
    sent.out_sequence = out_sequence
    sent.in_sequence = packet.sequence
    sent.stream = stream_row
    sent.timestamp = packet.timestamp - subscription.timestamp_offset
    sent.marker = marker
    sent.resent = 0
    sent.use = subscription.history_use
    sent.targets = subscription.targets if scalable else 0
    sent.picture_id = -1
    sent.tl0 = -1
    if packet.codec == _VP8:
        if packet.picture_id >= 0:
            sent.picture_id = send_picture(subscription, packet)
        if packet.tl0_at:
            sent.tl0 = send_tl0(subscription, packet)
    elif packet.codec == _VP9 and not scalable:
        if packet.picture_id >= 0:
            sent.picture_id = offset_picture(subscription, packet)
        if packet.tl0_at:
            sent.tl0 = send_tl0(subscription, packet)


@njit(cache=True)
def _send(state, arena, row, packet, sent, index, payload_bytes, padding):
    """Write, protect and queue the packet that `sent` describes, and count it. index: SRTP's, output numbers from 0."""
    subscription = state.subscriptions[row]
    if not claim_index(subscription, index):
        state.drops[Drop.PROTECT_FAILED] += 1
        return
    slot = take_slot(state)
    size = write_packet(state, arena, slot, row, sent, False)
    if size < 0:
        return
    if padding:
        size = pad_packet(state.tx[slot], size, padding)
    if not send_rtp(state, np.int64(subscription.transport), slot, size, index):
        return
    if not subscription.started:
        subscription.started = 1
        notice(state, NoticeKind.SUBSCRIPTION_STARTED, row)
    ahead = signed32(np.int64(sent.timestamp) - np.int64(subscription.last_timestamp))
    if sent.out_sequence == subscription.out_highest & 0xFFFFFFFF:
        subscription.last_marker = sent.marker
        if ahead < -MAX_BACKWARD_TICKS:  # the publisher's clock started anew
            ahead = 0
    if ahead >= 0 or subscription.packets == 0:
        subscription.last_timestamp = sent.timestamp
        subscription.last_ns = packet.arrival_ns
    subscription.packets += 1
    subscription.octets += payload_bytes
