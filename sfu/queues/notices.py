"""What the media thread tells the control thread: a counter for each fact of each row, never an entry in a queue.

The media thread counts up, writes what the fact is about into the row, and wakes the control thread; that looks which
counters differ from what it saw last. So a fact is told until it is taken, however many others there are, and one
that a peer repeats at will costs the others nothing: between two looks it is one fact. Counters of a row are never set
back, whoever has the row.
"""

import numpy as np
from numba import njit

from sfu.compiler.atomics import load_acquire, store_release
from sfu.schema.bandwidth_codes import Rung
from sfu.schema.capacities import NOTICE_BLOCK, NOTICE_BLOCKS, NOTICE_FIRST
from sfu.schema.codes import NoticeKind

_FIRST = np.array(NOTICE_FIRST)


@njit(cache=True)
def notice(state, kind, row):
    """Media thread: tell a fact about a row (of which table: `NoticeKind`). What it is about stands in the
    row."""
    slot = _FIRST[kind] + row
    block = slot // NOTICE_BLOCK
    store_release(state.noticed, slot, np.int64(state.noticed[slot]) + 1)
    store_release(state.noticed_blocks, block, np.int64(state.noticed_blocks[block]) + 1)
    state.thread[0].notices += 1
    state.thread[0].notify = 1


@njit(cache=True)
def take_notices(state, out):
    """Control thread: write facts that were not taken yet into `out` (1-D notice_t, at least NOTICE_BLOCK). Returns how
    many; 0: none waits.

    A call goes on where the last one ended for lack of room, so that no row waits for others that always have something
    to say, and ends with the last row: subscriptions come before their tracks, and these before their transports.
    """
    count = 0
    for _ in range(NOTICE_BLOCKS):
        block = np.int64(state.next_block[0])
        given = load_acquire(state.noticed_blocks, block)  # before the counters: one that moves on later differs again
        if given != state.taken_blocks[block]:
            if len(out) - count < NOTICE_BLOCK:
                break
            state.taken_blocks[block] = given
            count = _take_block(state, block, out, count)
        state.next_block[0] = (block + 1) % NOTICE_BLOCKS
        if count > 0 and block + 1 == NOTICE_BLOCKS:
            break
    return count


@njit(cache=True)
def _take_block(state, block, out, count):
    first = block * NOTICE_BLOCK
    kind = NoticeKind.CLOSED_CONNECTION
    while _FIRST[kind] > first:
        kind -= 1
    for slot in range(first, first + NOTICE_BLOCK):
        given = load_acquire(state.noticed, slot)
        if given != state.taken[slot]:
            state.taken[slot] = given
            _describe(state, kind, slot - _FIRST[kind], out[count])
            count += 1
    return count


@njit(cache=True)
def _describe(state, kind, row, entry):
    """What the row says now. If it changes in this moment, the notice is given once more."""
    entry.kind = kind
    entry.row = row
    entry.value = 0
    entry.extra = 0
    if kind < NoticeKind.STREAM_STARTED:
        entry.generation = state.subscriptions[row].generation
        if kind == NoticeKind.ALLOWANCE_CHANGED:
            entry.value = state.subscriptions[row].rung == Rung.PAUSED
    elif kind < NoticeKind.LAYERS_CHANGED:
        stream = state.streams[row]
        entry.row = stream.track
        entry.generation = state.tracks[stream.track].generation
        entry.value = stream.layer
        if kind == NoticeKind.STREAM_STARTED:
            entry.extra = stream.announced
        elif kind == NoticeKind.CACHE_REQUESTED:
            entry.extra = stream.requested_bytes
    elif kind <= NoticeKind.CLOSED_TRACK:
        entry.generation = state.tracks[row].generation
        if kind == NoticeKind.LAYERS_CHANGED:
            entry.value = state.tracks[row].live
    elif kind == NoticeKind.CLOSED_CONNECTION:
        entry.generation = state.connections[row].generation
    else:
        entry.generation = state.transports[row].generation
        if kind == NoticeKind.PATH_SELECTED:
            entry.value = state.transports[row].path
