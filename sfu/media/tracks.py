"""Opening and closing of what a peer publishes: tracks, their streams, the SSRCs behind them."""

import numpy as np
from numba import njit

from sfu.media.receive.sources import forget_surplus, unbind
from sfu.media.stream.arrivals import NOT_LISTED, unlist_track
from sfu.media.stream.loudest import join_group, leave_group
from sfu.media.wire.dependency import reset_dependency
from sfu.parameters import MAX_THREADS
from sfu.queues.notices import notice
from sfu.schema.tables import CLOSED_TRACK, FREE, OPEN, PACKETS


@njit(cache=True)
def _open_stream(state, row):
    """Everything that the media thread writes in a stream's row, as at its beginning."""
    stream = state.streams[row]
    stream.codec = 0
    stream.payload_type = 0
    stream.codec_ns = 0
    stream.nack = 0
    stream.started = 0
    stream.announced = 0
    stream.ring_wanted = 0
    stream.acknowledged = 0
    stream.clock_rate = 0
    stream.source = -1
    stream.rtx_source = -1
    stream.sequence_shift = 0
    stream.ring_written = 0
    stream.ring_oldest = 0
    stream.small_checks = 0
    stream.peak_checks = 0
    stream.peak_bytes = 0
    stream.peak_before = 0
    stream.burst_start = 0
    stream.burst_ns = 0
    stream.ring_asked = 0
    stream.base = 0
    stream.highest = -1
    stream.received = 0
    stream.bytes = 0
    stream.expected_prior = 0
    stream.received_prior = 0
    stream.lost = 0
    stream.transit = 0
    stream.jitter = 0
    stream.last_ns = 0
    stream.last_timestamp = 0
    stream.frames = 0
    stream.frames_at_check = 0
    stream.written_at_check = 0
    stream.idle_frames = 0
    stream.silent_checks = 0
    stream.frame_checks = 0
    stream.usual_checks = 0
    stream.revived_frames = 0
    stream.dead = 0
    stream.bytes_at_check = 0
    stream.bitrate_bps = 0
    stream.report_ntp = 0
    stream.report_timestamp = 0
    stream.report_ns = 0
    stream.key_sequence = -1
    stream.key_ns = 0
    stream.key_wanted = 0
    stream.key_asked_ns = 0
    stream.sets_sequence = 0
    stream.level_loudest = 127
    stream.level_active_ms = 0
    stream.level_packets = 0
    stream.level_smoothed = 0.0
    stream.level = 0.0
    stream.missing_count = 0
    reset_dependency(state, row)
    for index in range(PACKETS):
        if state.packets[row, index].sequence != 0:  # reading an untouched page costs no memory, writing does
            state.packets[row, index].sequence = 0
    stream.state = OPEN
    state.thread[0].stream_end = max(int(state.thread[0].stream_end), row + 1)


@njit(cache=True)
def open_track(state, row):
    """Start a track whose (c) columns, and its streams', are written; link it to its transport."""
    track, thread = state.tracks[row], state.thread[0]
    transport = state.transports[track.transport]
    for layer in range(int(track.layer_count)):
        _open_stream(state, int(track.streams[layer]))
    track.first_subscription = -1
    track.subscription_count = 0
    track.live = 0
    track.dirty_next = NOT_LISTED
    track.log_written = 0
    track.log_read = 0
    track.mirrors = 0
    for n in range(MAX_THREADS):
        track.mirror[n] = -1
    track.next = transport.first_track
    transport.first_track = row
    join_group(state, row)
    track.state = OPEN
    thread.track_end = max(int(thread.track_end), row + 1)


@njit(cache=True)
def _unlink_from_transport(state, row):
    transport = state.transports[state.tracks[row].transport]
    if transport.first_track == row:
        transport.first_track = state.tracks[row].next
        return
    before = int(transport.first_track)
    while before >= 0 and state.tracks[before].next != row:
        before = int(state.tracks[before].next)
    if before >= 0:
        state.tracks[before].next = state.tracks[row].next


@njit(cache=True)
def close_track(state, row):
    """Unlink a track, part its SSRCs from its streams, and tell the control thread that the rows are free."""
    track = state.tracks[row]
    _unlink_from_transport(state, row)
    unlist_track(state, row)
    leave_group(state, row)
    for layer in range(int(track.layer_count)):
        stream = state.streams[track.streams[layer]]
        if stream.source >= 0:
            unbind(state, int(stream.source))
        if stream.rtx_source >= 0:
            unbind(state, int(stream.rtx_source))
        stream.level = 0.0
        stream.state = FREE
    forget_surplus(state, np.int64(track.transport))
    track.state = FREE
    notice(state, CLOSED_TRACK, row)
