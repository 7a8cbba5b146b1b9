"""Opening and closing of what a peer publishes: tracks, their streams, the SSRCs behind them."""

import numpy as np
from numba import njit

from sfu.compiler.rows import row_reset
from sfu.media.allocation.measure import begin_layers
from sfu.media.receive.sources import forget_surplus, unassign
from sfu.media.stream.arrivals import unlist_track
from sfu.media.stream.loudest import join_group, leave_group
from sfu.media.wire.dependency import reset_dependency
from sfu.queues.notices import notice
from sfu.schema.capacities import PACKETS
from sfu.schema.codes import NoticeKind, RowState
from sfu.schema.track_tables import STREAM, TRACK

_reset_stream = row_reset(STREAM.reset_parts(), STREAM.dtype.itemsize)
_reset_track = row_reset(TRACK.reset_parts(), TRACK.dtype.itemsize)


@njit(cache=True)
def _open_stream(state, row):
    """Begin a stream whose CONTROL and HANDED columns are written."""
    stream = state.streams[row]
    _reset_stream(stream)
    begin_layers(stream)
    reset_dependency(state, row)
    for index in range(PACKETS):
        if state.packets[row, index].sequence != 0:  # reading an untouched page costs no memory, writing does
            state.packets[row, index].sequence = 0
    stream.state = RowState.OPEN
    state.thread[0].stream_end = max(np.int64(state.thread[0].stream_end), row + 1)


@njit(cache=True)
def open_track(state, row):
    """Start a track whose CONTROL and HANDED columns, and its streams', are written; link it to its transport."""
    track, thread = state.tracks[row], state.thread[0]
    transport = state.transports[track.transport]
    for layer in range(np.int64(track.layer_count)):
        _open_stream(state, np.int64(track.streams[layer]))
    _reset_track(track)
    track.next = transport.first_track
    transport.first_track = row
    join_group(state, row)
    track.state = RowState.OPEN
    thread.track_end = max(np.int64(thread.track_end), row + 1)


@njit(cache=True)
def _unlink_from_transport(state, row):
    transport = state.transports[state.tracks[row].transport]
    if transport.first_track == row:
        transport.first_track = state.tracks[row].next
        return
    before = np.int64(transport.first_track)
    while before >= 0 and state.tracks[before].next != row:
        before = np.int64(state.tracks[before].next)
    if before >= 0:
        state.tracks[before].next = state.tracks[row].next


@njit(cache=True)
def close_track(state, row):
    """Unlink a track, take the sources from its streams, and tell the control thread that the rows are free."""
    track = state.tracks[row]
    _unlink_from_transport(state, row)
    unlist_track(state, row)
    leave_group(state, row)
    for layer in range(np.int64(track.layer_count)):
        stream = state.streams[track.streams[layer]]
        if stream.source >= 0:
            unassign(state, np.int64(stream.source))
        if stream.rtx_source >= 0:
            unassign(state, np.int64(stream.rtx_source))
        stream.level = 0.0
        stream.state = RowState.FREE
    forget_surplus(state, np.int64(track.transport))
    track.state = RowState.FREE
    notice(state, NoticeKind.CLOSED_TRACK, row)
