"""How large a stream's packet cache should be: what arrives in RETAINED_MS, by the largest burst of the last minutes.

A still screen sends nothing until the next slide, so the present bit rate alone says too little. Once a second the
rate is looked at; a burst that is about to overwrite what is younger is noticed at the packet. The media thread
measures and requests a size, the control thread has the space and answers with another cache, into which the media
thread moves what it still has. So a microphone keeps a few KiB and a shared screen its megabyte.
"""

import numpy as np
from numba import njit

from sfu.media.net.udp import copy_in_arena
from sfu.queues.notices import notice
from sfu.schema.capacities import MAX_CACHE_BYTES, MIN_CACHE_BYTES
from sfu.schema.codes import MediaKind, NoticeKind

RETAINED_MS = 1500
"""Longer than anybody asks for a packet again; a new viewer starts from a key frame of the last second."""
SMALL_CHECKS = 10
"""A cache that was twice too large at so many checks, one a second, is halved."""
PEAK_CHECKS = 120
"""The largest burst is remembered for so many checks, and once more."""
MIN_VIDEO_BYTES = 1 << 16
"""Video keeps so much however long it was still: time for the control thread to answer when a burst begins."""
BURST_GROWTH = 4
"""A burst requests a cache so many times as large as the one that it is filling."""

_HALF_NS = RETAINED_MS * 1_000_000 // 2


@njit(cache=True)
def cache_bytes_for(bitrate_bps):
    """The power of two of bytes that holds RETAINED_MS of such a stream, within the bounds."""
    return _cache_bytes(bitrate_bps * RETAINED_MS // 8000)


@njit(cache=True)
def _cache_bytes(needed):
    """The smallest cache that holds `needed` bytes; the largest when none does."""
    size = MIN_CACHE_BYTES
    while size < needed and size < MAX_CACHE_BYTES:
        size *= 2
    return size


@njit(cache=True)
def check_cache(state, row):
    """Request another cache for stream `row` if it should have one. Called once a second, after its bit rate."""
    stream = state.streams[row]
    _note_peak(stream, cache_bytes_for(np.int64(stream.bitrate_bps)))
    stream.burst_requested = 0
    stream.peak_checks += 1
    needed = max(np.int64(stream.peak_bytes), np.int64(stream.peak_before))
    if stream.peak_checks >= PEAK_CHECKS:
        stream.peak_checks = 0
        stream.peak_before = stream.peak_bytes
        stream.peak_bytes = 0
    if stream.kind == MediaKind.VIDEO:
        needed = max(needed, MIN_VIDEO_BYTES)
    small = 2 * needed <= stream.cache_bytes
    stream.small_checks = stream.small_checks + 1 if small else 0
    if stream.small_checks >= SMALL_CHECKS:
        stream.small_checks = 0
        needed = np.int64(stream.cache_bytes) // 2
    elif needed <= stream.cache_bytes:
        return
    _request(state, row, needed)


@njit(cache=True)
def _request(state, row, size):
    state.streams[row].requested_bytes = size
    notice(state, NoticeKind.CACHE_REQUESTED, row)


@njit(cache=True)
def _note_peak(stream, size):
    stream.peak_bytes = max(np.int64(stream.peak_bytes), size)


@njit(cache=True)
def watch_burst(state, row, arrival):
    """Request a larger cache when half of this one was filled in half of RETAINED_MS. Called for each stored packet.

    arrival: ns of the packet. The other half is what may be overwritten until the control thread has answered. Each
    size is requested once between two checks.
    """
    stream = state.streams[row]
    filled = stream.cache_written - stream.burst_start
    if arrival - stream.burst_ns > _HALF_NS:
        stream.burst_start = stream.cache_written
        stream.burst_ns = arrival
        return
    if 2 * filled < stream.cache_bytes:
        return
    stream.burst_start = stream.cache_written
    stream.burst_ns = arrival
    size = min(np.int64(stream.cache_bytes) * BURST_GROWTH, MAX_CACHE_BYTES)
    if size > stream.cache_bytes and size != stream.burst_requested:
        stream.burst_requested = size
        _note_peak(stream, _cache_bytes(2 * filled))
        _request(state, row, size)


@njit(cache=True)
def change_cache(state, arena, row, layer, start, size):
    """Give the stream of this layer of track `row` the cache of `size` bytes at `start` of the arena.

    What it has moves along. Packets keep their positions, modulo another size, and none wraps around the end. So a
    smaller cache takes only what came since its last beginning.
    """
    track = state.tracks[row]
    if not 0 <= layer < track.layer_count:
        return
    stream_row = np.int64(track.streams[layer])
    stream = state.streams[stream_row]
    written, old = np.int64(stream.cache_written), np.int64(stream.cache_bytes)
    oldest = max(np.int64(stream.cache_oldest), written - old)
    if size < old:
        oldest = max(oldest, written & ~(size - 1))
    at = oldest
    while at < written:
        piece = min(written - at, min(old - (at & (old - 1)), size - (at & (size - 1))))
        copy_in_arena(state, arena, start + (at & (size - 1)), stream.cache_start + (at & (old - 1)), piece)
        at += piece
    stream.cache_start = start
    stream.cache_bytes = size
    stream.cache_oldest = oldest
    notice(state, NoticeKind.CACHE_LEFT, stream_row)
