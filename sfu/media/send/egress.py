"""From the packets of a track to the sockets of its subscribers, the hot path.

`forward_all` walks the tracks with unread arrivals; each subscriber gets all of a track's new packets in a row, so
that what goes to one receiver is adjacent and leaves as one UDP_SEGMENT message. Video for which a receiver's path has
no budget now waits by its position in the track's log (`sfu.media.pacing.pacer`).
"""

import numpy as np
from numba import njit

from sfu.media.net.frame_queue import refuses
from sfu.media.net.udp import borrow_arena
from sfu.media.send.batch import prepare
from sfu.media.send.budget import UNLIMITED
from sfu.media.send.departure import begin, best_start, first_of_turn, forward_packet, is_kept_start
from sfu.media.send.prefetch import look_ahead
from sfu.media.send.relay_out import relay_batch
from sfu.media.send.rewrite import send_time
from sfu.media.send.selection import mark_live, request_target_key_frame
from sfu.media.send.waiting import has_to_wait, wait_from
from sfu.media.stream.loudest import is_loud
from sfu.media.stream.packet_cache import is_stored
from sfu.schema.capacities import BATCH, PACKETS, TRACK_LOG
from sfu.schema.codes import Drop, MediaKind, RowState
from sfu.schema.track_tables import NOT_LISTED


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
        count = prepare(state, row, first, last)
        _note_live(state, row, count)
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
            _forward_batch(state, arena, subscription, first, count, now)
            subscription = np.int64(state.subscriptions[subscription].next_of_track)
        first = last
        if first >= track.log_written:
            break
    track.log_read = track.log_written


@njit(cache=True)
def _note_live(state, row, count):
    """Layers of which a packet came live, unless they were found dead: these do from a key frame on."""
    track = state.tracks[row]
    for k in range(count):
        arrival = state.batch[k]
        if (track.live >> arrival.layer) & 1 == 0 and (not state.streams[arrival.stream].dead or arrival.key_start):
            mark_live(state, row, np.int64(arrival.layer))


@njit(cache=True)
def _begin_anew(state, row):
    """Let every subscription of a track go on with the next packet, as if nothing had been left out."""
    subscription = np.int64(state.tracks[row].first_subscription)
    while subscription >= 0:
        state.subscriptions[subscription].layer = -1
        subscription = np.int64(state.subscriptions[subscription].next_of_track)


@njit(cache=True)
def _forward_batch(state, arena, row, first, count, now):
    """All of state.batch to one subscriber. first: the position in the track's log where the batch begins."""
    subscription = state.subscriptions[row]
    transport = state.transports[subscription.transport]
    if subscription.paused or not transport.secure or transport.path < 0:
        return
    if transport.next_number + count > transport.free_number:
        if subscription.kind == MediaKind.VIDEO:
            if has_to_wait(state, row, first, count, now):
                return
        elif refuses(state, np.int64(subscription.transport)):
            state.drops[Drop.TCP_QUEUE_FULL] += count
            subscription.layer = -1  # what is sent next takes the next number
            return
    state.thread[0].row_in_hand = subscription.transport
    if subscription.layer >= 0 and state.streams[subscription.stream].ssrc != subscription.source_ssrc:
        subscription.layer = -1  # another source goes on in its place
    if subscription.layer < 0 and subscription.kind == MediaKind.VIDEO:
        if transport.free_number != UNLIMITED:
            wait_from(state, row, first)
            return
        layer = best_start(state, subscription, now)
        if layer >= 0:
            stream_row = np.int64(state.tracks[subscription.track].streams[layer])
            start = state.streams[stream_row].key_sequence & (PACKETS - 1)
            _begin(state, arena, row, layer, stream_row, state.packets[stream_row, start])
    for k in range(count):
        arrival = state.batch[k]
        stream_row = np.int64(arrival.stream)
        if arrival.layer != subscription.layer:
            start = first_of_turn(state, subscription, arrival)
            if start >= 0 and is_kept_start(state, stream_row, start):
                if transport.free_number != UNLIMITED and subscription.kind == MediaKind.VIDEO:
                    wait_from(state, row, np.int64(arrival.position))  # a whole key frame is to leave
                    return
                _begin(state, arena, row, np.int64(arrival.layer), stream_row, state.packets[stream_row, start])
            continue
        forward_packet(state, arena, row, stream_row, np.int64(arrival.index), np.int64(arrival.padding))
    if subscription.target_layer != subscription.layer:
        request_target_key_frame(state, row)


@njit(cache=True)
def _begin(state, arena, row, layer, stream_row, packet):
    """Turn to `layer` with `packet`, and send what has arrived of the stream from it on: packets may have overtaken
    it. Those that are still to come in the batch are then known as sent."""
    begin(state, row, layer, stream_row, packet)
    stream = state.streams[stream_row]
    end = min(max(stream.highest, packet.sequence) + 1, packet.sequence + PACKETS)
    for sequence in range(packet.sequence, end):
        index = sequence & (PACKETS - 1)
        if is_stored(stream, state.packets[stream_row, index], sequence):
            forward_packet(state, arena, row, stream_row, index, 0)
