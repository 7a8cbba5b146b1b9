"""A track's packets on their way to the mirrors that it has in other media threads.

A mirror is a track of that thread's own tables with the same layers: its subscribers are served from there, with
its packet cache, layer choice and retransmission as everywhere. So a packet is copied once for each thread and no row
is shared. Sender reports go the same way, requests for key frames and what subscribers lose come back: these are
columns that a pass collects, since clients cause them at will.
"""

import numpy as np
from numba import njit

from sfu.media.stream.key_frames import is_awaited, key_frame_due, recent_key_frame
from sfu.media.stream.packet_cache import is_stored
from sfu.media.stream.subscriber_loss import NOTHING_NEW, loss_to_tell
from sfu.queues.threads import NO_SLOT, claim, copy_to_entry, entry_of, publish, wake
from sfu.schema.capacities import PACKETS
from sfu.schema.codes import KeyFrameRequest, MediaKind, Relayed, RowState

_KEY_FRAME_REQUEST, _SUBSCRIBER_LOSS = int(Relayed.KEY_FRAME_REQUEST), int(Relayed.SUBSCRIBER_LOSS)
_SWITCH_DOWN_REQUEST, _SWITCH_UP_REQUEST = int(Relayed.SWITCH_DOWN_REQUEST), int(Relayed.SWITCH_UP_REQUEST)


@njit(cache=True)
def _start_entry(state, track, thread, number, kind, layer):
    entry = entry_of(state, thread, number)
    entry.kind = kind
    entry.track = track.mirror[thread]
    entry.generation = track.mirror_generation[thread]
    entry.layer = layer
    return entry


@njit(cache=True)
def _send_packet(state, arena, track, thread, stream, packet):
    number = claim(state, thread)
    if number == NO_SLOT:
        return
    entry = _start_entry(state, track, thread, number, Relayed.PACKET, np.int64(stream.layer))
    size = np.int64(packet.size)
    entry.size = size
    entry.ssrc = stream.ssrc
    entry.sequence = packet.sequence
    entry.arrival_ns = packet.arrival_ns
    at = np.int64(stream.cache_start) + (packet.start & (np.int64(stream.cache_bytes) - 1))
    copy_to_entry(state, arena, thread, number, at, size)
    publish(state, thread, number)


@njit(cache=True)
def relay_batch(state, arena, track_row, count):
    """The `count` packets of state.batch, all of one track, to every mirror of it."""
    track = state.tracks[track_row]
    for thread in range(state.thread[0].thread_count):
        if track.mirror[thread] < 0:
            continue
        for k in range(count):
            arrival = state.batch[k]
            stream = state.streams[arrival.stream]
            _send_packet(state, arena, track, thread, stream, state.packets[arrival.stream, arrival.index])
        wake(state, thread)


@njit(cache=True)
def _send_report(state, track, thread, stream):
    number = claim(state, thread)
    if number == NO_SLOT:
        return
    entry = _start_entry(state, track, thread, number, Relayed.REPORT, np.int64(stream.layer))
    entry.ntp = stream.report_ntp
    entry.timestamp = stream.report_timestamp
    entry.arrival_ns = stream.report_ns
    publish(state, thread, number)


@njit(cache=True)
def relay_report(state, stream_row):
    """The publisher's newest sender report about a stream to every mirror of its track."""
    stream = state.streams[stream_row]
    track = state.tracks[stream.track]
    if track.mirrors == 0:
        return
    for thread in range(state.thread[0].thread_count):
        if track.mirror[thread] >= 0:
            _send_report(state, track, thread, stream)


@njit(cache=True)
def add_mirror(state, arena, row, thread, mirror_row, generation, now):
    """Relay a track from now on, with what it has of a recent key frame, so that its publisher need not make one."""
    track = state.tracks[row]
    if not 0 <= thread < state.thread[0].thread_count:
        return
    if track.mirror[thread] < 0:
        track.mirrors += 1
    track.mirror[thread] = mirror_row
    track.mirror_generation[thread] = generation
    for layer in range(np.int64(track.layer_count)):
        stream_row = np.int64(track.streams[layer])
        stream = state.streams[stream_row]
        if stream.report_ntp != 0:
            _send_report(state, track, thread, stream)
        first = recent_key_frame(stream, now)
        if track.kind != MediaKind.VIDEO or first < 0:
            continue
        for sequence in range(first, stream.highest + 1):
            packet = state.packets[stream_row, sequence & (PACKETS - 1)]
            if is_stored(stream, packet, sequence):
                _send_packet(state, arena, track, thread, stream, packet)
    wake(state, thread)


@njit(cache=True)
def remove_mirror(state, row, thread):
    """Relay a track no longer to `thread`."""
    track = state.tracks[row]
    if 0 <= thread < state.thread[0].thread_count and track.mirror[thread] >= 0:
        track.mirror[thread] = -1
        track.mirrors -= 1


@njit(cache=True)
def relay_back(state, now):
    """Tell publishers' threads which key frames are requested from mirrors here, as often as publishers are told, and
    what subscribers here lose of audio."""
    for transport_row in range(state.thread[0].transport_end):
        transport = state.transports[transport_row]
        if transport.state != RowState.OPEN or not transport.relayed:
            continue
        row = np.int64(transport.first_track)
        while row >= 0:
            track = state.tracks[row]
            for layer in range(np.int64(track.layer_count)):
                stream = state.streams[track.streams[layer]]
                if key_frame_due(stream, now):
                    if is_awaited(state, np.int64(track.streams[layer])):
                        stream.pli_ns = now
                        _send_key_frame_request(state, track, layer, stream.key_frame_requested)
                    else:
                        stream.key_frame_requested = 0
                loss = loss_to_tell(stream, now)
                if loss != NOTHING_NEW:
                    _send_back(state, track, layer, _SUBSCRIBER_LOSS, loss)
            row = np.int64(track.next)


@njit(cache=True)
def _send_key_frame_request(state, track, layer, why):
    """Pass a request on. One for a change of bandwidth the other thread may refuse; it is repeated until the key frame
    comes, or nobody waits for it any more."""
    kind = _KEY_FRAME_REQUEST
    if why == KeyFrameRequest.SWITCH_DOWN:
        kind = _SWITCH_DOWN_REQUEST
    elif why == KeyFrameRequest.SWITCH_UP:
        kind = _SWITCH_UP_REQUEST
    _send_back(state, track, layer, kind, 0)


@njit(cache=True)
def _send_back(state, track, layer, kind, fraction):
    """Tell something to the thread that has the publisher of a mirrored track."""
    thread = np.int64(track.source_thread)
    if not 0 <= thread < state.thread[0].thread_count:
        return
    number = claim(state, thread)
    if number == NO_SLOT:
        return
    entry = entry_of(state, thread, number)
    entry.kind = kind
    entry.track = track.source_row
    entry.generation = track.source_generation
    entry.layer = layer
    entry.fraction_lost = fraction
    publish(state, thread, number)
    wake(state, thread)
