"""Tracks with packets that egress has not looked at yet: each track's log of them, and the list of such tracks."""

import numpy as np
from numba import njit

from sfu.schema.capacities import LAYERS, TRACK_LOG
from sfu.schema.track_tables import NOT_LISTED


@njit(cache=True)
def unlist_track(state, row):
    """Take a track that closes out of the list."""
    track, thread = state.tracks[row], state.thread[0]
    if track.dirty_next == NOT_LISTED:
        return
    if thread.first_dirty_track == row:
        thread.first_dirty_track = track.dirty_next
    else:
        before = np.int64(thread.first_dirty_track)
        while before >= 0 and state.tracks[before].dirty_next != row:
            before = np.int64(state.tracks[before].dirty_next)
        if before >= 0:
            state.tracks[before].dirty_next = track.dirty_next
    track.dirty_next = NOT_LISTED


@njit(cache=True)
def list_track(state, row):
    """Let the next forward_all look at a track though nothing arrived."""
    track, thread = state.tracks[row], state.thread[0]
    if track.dirty_next == NOT_LISTED:
        track.dirty_next = thread.first_dirty_track
        thread.first_dirty_track = row


@njit(cache=True)
def log_packet(state, stream, sequence):
    """Note that packet `sequence` (extended) of the stream was stored, and list its track."""
    track = state.tracks[stream.track]
    track.log[track.log_written & (TRACK_LOG - 1)] = np.int64(stream.layer) << 16 | sequence & 0xFFFF
    track.log_written += 1
    list_track(state, np.int64(stream.track))


@njit(cache=True)
def logged_packet(track, position):
    """Layer of an entry of a track's log, -1 if that has no stream, and the low 16 bits of its packet's number.

    The lowest of these are the index into the stream's packets. Another packet may stand there by now (`is_logged`).
    """
    entry = np.int64(track.log[position & (TRACK_LOG - 1)])
    layer = entry >> 16
    if layer >= LAYERS or track.streams[layer] < 0:
        layer = np.int64(-1)
    return layer, entry & 0xFFFF


@njit(cache=True)
def is_logged(packet, low):
    """Whether `packet` is still the one of a log entry that has these low 16 bits of its sequence number."""
    return packet.sequence & 0xFFFF == low
