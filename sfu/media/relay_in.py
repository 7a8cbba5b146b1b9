"""What arrives from other media threads.

Packets and reports of tracks that are mirrored here, and requests for key frames of tracks that are published here.
"""

import numpy as np
from numba import njit

from sfu.compiler.atomics import load_acquire, store_release
from sfu.media.receive.reception import count_packet
from sfu.media.receive.storage import is_new, same_format, set_codec, store
from sfu.media.send.egress import forward_all
from sfu.media.stream.key_frames import request_key_frame
from sfu.media.stream.subscriber_loss import note_subscriber_loss
from sfu.media.stream.switches import grant_switch
from sfu.media.wire.rtp import parse_header
from sfu.queues.threads import copy_from_entry
from sfu.schema.capacities import RELAY_SLOTS, RX_SLOTS, TRACKS
from sfu.schema.codes import Drop, Relayed, RowState


@njit(cache=True)
def relays_wait(state):
    """Whether another thread has sent something that was not taken yet."""
    for thread in range(state.thread[0].thread_count):
        if load_acquire(state.relays.written, thread) != state.relays[thread].read:
            return True
    return False


@njit(cache=True)
def receive_relayed(state, arena, now):
    """Take what the other media threads have sent, and forward it. Entries for tracks that have ended are counted."""
    raised = np.int64(state.thread[0].relay_in_hand)
    if raised >= 0:  # by an exception, and would again
        store_release(state.relays.read, raised, state.relays[raised].read + 1)
        state.thread[0].relay_in_hand = -1
    for thread in range(state.thread[0].thread_count):
        first = state.relays[thread].read
        end = load_acquire(state.relays.written, thread)
        for number in range(first, end):
            state.thread[0].relay_in_hand = thread
            _take(state, arena, thread, number, now)
            state.thread[0].relay_in_hand = -1
            store_release(state.relays.read, thread, number + 1)
            if (number - first) & (RX_SLOTS - 1) == RX_SLOTS - 1:
                forward_all(state, arena, now)
        if end > first:
            forward_all(state, arena, now)


@njit(cache=True)
def _take(state, arena, thread, number, now):
    entry = state.relay_entries[thread, number & (RELAY_SLOTS - 1)]
    row, layer = np.int64(entry.track), np.int64(entry.layer)
    if not 0 <= row < TRACKS:
        return
    track = state.tracks[row]
    if track.state != RowState.OPEN or track.generation != entry.generation or not 0 <= layer < track.layer_count:
        state.drops[Drop.RELAY_STALE] += 1
        return
    state.thread[0].row_in_hand = track.transport
    stream_row = np.int64(track.streams[layer])
    stream = state.streams[stream_row]
    if entry.kind == Relayed.PACKET:
        _take_packet(state, arena, entry, thread, number, stream_row)
    elif entry.kind == Relayed.REPORT:
        stream.report_ntp = entry.ntp
        stream.report_timestamp = entry.timestamp
        stream.report_ns = entry.arrival_ns
    elif entry.kind == Relayed.SUBSCRIBER_LOSS:
        note_subscriber_loss(stream, min(max(np.int64(entry.fraction_lost), 0), 255), now)
    elif (
        entry.kind == Relayed.KEY_FRAME_REQUEST
        or stream.key_frame_requested != 0
        or grant_switch(track, entry.kind == Relayed.SWITCH_UP_REQUEST, now)
    ):
        request_key_frame(state, stream_row)


@njit(cache=True)
def _take_packet(state, arena, entry, thread, number, stream_row):
    """Take a packet of a mirrored track, as ingress takes one of a publisher from the parsed header on."""
    stream, size = state.streams[stream_row], np.int64(entry.size)
    copy_from_entry(state, thread, number, size)
    packet = state.incoming[0]
    media_row = np.int64(state.transports[stream.transport].media)
    if not parse_header(state, media_row, state.rx[0, :size], size, packet):
        state.drops[Drop.RTP_MALFORMED] += 1
        return
    if stream.ssrc != entry.ssrc:  # the publisher started anew under another SSRC
        stream.ssrc = entry.ssrc
        stream.codec = 0
        stream.report_ntp = 0
    extended = entry.sequence
    media = state.media[media_row]
    if not is_new(state, stream_row, extended):
        return
    if not same_format(state, stream_row, media, packet, extended, entry.arrival_ns):
        return
    before = stream.highest
    set_codec(stream, media, packet)
    stream.nack = 0  # the publisher's own thread asks for what is lost
    count_packet(stream, extended, size, packet.timestamp, entry.arrival_ns)
    stream.last_ns = entry.arrival_ns
    if extended > before:
        stream.last_timestamp = packet.timestamp
    store(state, arena, 0, 0, stream_row, extended, entry.arrival_ns)
