"""How large a stream's packet ring should be: what arrives in RETAINED_MS, by the largest burst of the last minutes.

A still screen sends nothing until the next slide, so the present bit rate alone says too little. Once a second the
rate is looked at; a burst that is about to overwrite what is younger is noticed at the packet. The media thread
measures and says what it wants, the control thread has the space and answers with another ring, into which the media
thread moves what it still has. So a microphone keeps a few KiB and a shared screen its megabyte.
"""

import numpy as np
from numba import njit

from sfu.media.net.udp import copy_in_arena
from sfu.queues.notices import notice
from sfu.schema.capacities import MAX_RING_BYTES, MIN_RING_BYTES
from sfu.schema.codes import MediaKind, NoticeKind

RETAINED_MS = 1500
"""Longer than anybody asks for a packet again; a new viewer starts from a key frame of the last second."""
SMALL_CHECKS = 10
"""A ring that was twice too large at so many checks, one a second, is halved."""
PEAK_CHECKS = 120
"""The largest burst is remembered for so many checks, and once more."""
MIN_VIDEO_BYTES = 1 << 16
"""Video keeps so much however long it was still: time for the control thread to answer when a burst begins."""
BURST_GROWTH = 4
"""A burst asks for a ring so many times as large as the one that it is filling."""

_HALF_NS = RETAINED_MS * 1_000_000 // 2


@njit(cache=True)
def wanted_ring_bytes(bitrate_bps):
    """The power of two of bytes that holds RETAINED_MS of such a stream, within the bounds."""
    return _ring_bytes(bitrate_bps * RETAINED_MS // 8000)


@njit(cache=True)
def _ring_bytes(needed):
    """The smallest ring that holds `needed` bytes; the largest when none does."""
    size = MIN_RING_BYTES
    while size < needed and size < MAX_RING_BYTES:
        size *= 2
    return size


@njit(cache=True)
def check_ring(state, row):
    """Say so if stream `row` should have another ring. Called once a second, when its bit rate is known."""
    stream = state.streams[row]
    _note_peak(stream, wanted_ring_bytes(np.int64(stream.bitrate_bps)))
    stream.ring_asked = 0
    stream.peak_checks += 1
    wanted = max(np.int64(stream.peak_bytes), np.int64(stream.peak_before))
    if stream.peak_checks >= PEAK_CHECKS:
        stream.peak_checks = 0
        stream.peak_before = stream.peak_bytes
        stream.peak_bytes = 0
    if stream.kind == MediaKind.VIDEO:
        wanted = max(wanted, MIN_VIDEO_BYTES)
    small = 2 * wanted <= stream.ring_bytes
    stream.small_checks = stream.small_checks + 1 if small else 0
    if stream.small_checks >= SMALL_CHECKS:
        stream.small_checks = 0
        wanted = np.int64(stream.ring_bytes) // 2
    elif wanted <= stream.ring_bytes:
        return
    _ask(state, row, wanted)


@njit(cache=True)
def _ask(state, row, size):
    state.streams[row].ring_wanted = size
    notice(state, NoticeKind.RING_WANTED, row)


@njit(cache=True)
def _note_peak(stream, size):
    stream.peak_bytes = max(np.int64(stream.peak_bytes), size)


@njit(cache=True)
def watch_burst(state, row, arrival):
    """Ask for a larger ring when half of this one was filled in half of RETAINED_MS. Called for each stored packet.

    arrival: ns of the packet. The other half is what may be overwritten until the control thread has answered; it is
    asked for one size once between two checks.
    """
    stream = state.streams[row]
    filled = stream.ring_written - stream.burst_start
    if arrival - stream.burst_ns > _HALF_NS:
        stream.burst_start = stream.ring_written
        stream.burst_ns = arrival
        return
    if 2 * filled < stream.ring_bytes:
        return
    stream.burst_start = stream.ring_written
    stream.burst_ns = arrival
    size = min(np.int64(stream.ring_bytes) * BURST_GROWTH, MAX_RING_BYTES)
    if size > stream.ring_bytes and size != stream.ring_asked:
        stream.ring_asked = size
        _note_peak(stream, _ring_bytes(2 * filled))
        _ask(state, row, size)


@njit(cache=True)
def change_ring(state, arena, row, layer, start, size):
    """Give the stream of this layer of track `row` the ring of `size` bytes at `start` of the arena.

    What it has moves along. Packets keep their positions, modulo another size, and none wraps around the end of a ring:
    a smaller one takes only what came since its last beginning.
    """
    track = state.tracks[row]
    if not 0 <= layer < track.layer_count:
        return
    stream_row = np.int64(track.streams[layer])
    stream = state.streams[stream_row]
    written, old = np.int64(stream.ring_written), np.int64(stream.ring_bytes)
    oldest = max(np.int64(stream.ring_oldest), written - old)
    if size < old:
        oldest = max(oldest, written & ~(size - 1))
    at = oldest
    while at < written:
        piece = min(written - at, min(old - (at & (old - 1)), size - (at & (size - 1))))
        copy_in_arena(state, arena, start + (at & (size - 1)), stream.ring_start + (at & (old - 1)), piece)
        at += piece
    stream.ring_start = start
    stream.ring_bytes = size
    stream.ring_oldest = oldest
    notice(state, NoticeKind.RING_LEFT, stream_row)
