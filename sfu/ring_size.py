"""How large a stream's packet ring should be: what arrives in RETAINED_MS, by measured bit rate.

The media thread measures and says what it wants, the control thread has the space and answers with another ring, into
which the media thread moves what it still has. So a microphone keeps a few KiB and a shared screen its megabyte.
"""

import numpy as np
from numba import njit

from sfu.notices import notice
from sfu.tables import MAX_RING_BYTES, MIN_RING_BYTES, RING_LEFT, RING_WANTED
from sfu.udp import copy_in_arena

RETAINED_MS = 1500
"""Longer than anybody asks for a packet again; a new viewer starts from a key frame of the last second."""
SMALL_CHECKS = 10
"""A ring that was twice too large at so many checks, one a second, is halved."""


@njit(cache=True)
def wanted_ring_bytes(bitrate_bps):
    """The power of two of bytes that holds RETAINED_MS of such a stream, within the bounds."""
    needed = bitrate_bps * RETAINED_MS // 8000
    size = MIN_RING_BYTES
    while size < needed and size < MAX_RING_BYTES:
        size *= 2
    return size


@njit(cache=True)
def check_ring(state, row):
    """Say so if stream `row` should have another ring. Called once a second, when its bit rate is known."""
    stream = state.streams[row]
    wanted = wanted_ring_bytes(np.int64(stream.bitrate_bps))
    small = 2 * wanted <= stream.ring_bytes
    stream.small_checks = stream.small_checks + 1 if small else 0
    if stream.small_checks >= SMALL_CHECKS:
        stream.small_checks = 0
        wanted = np.int64(stream.ring_bytes) // 2
    elif wanted <= stream.ring_bytes:
        return
    stream.ring_wanted = wanted
    notice(state, RING_WANTED, row)


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
    notice(state, RING_LEFT, stream_row)
