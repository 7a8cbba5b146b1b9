"""The states of the other media threads, of which a kernel may touch four things and no more.

They are `relays[own number]` and `relay_entries[own number]`, the queue towards that thread, and its `idle` and
`wake_fd`, to wake it. Everything else of a state belongs to its own thread.
"""

import numpy as np
from numba import carray, njit

from sfu.compiler.atomics import fence, load_acquire, pointer, store_release
from sfu.compiler.native import memcpy, write
from sfu.schema.capacities import RELAY_SLOTS, RX_BYTES
from sfu.schema.codes import Drop, Scratch
from sfu.schema.queue_tables import relay_t
from sfu.schema.tables import state_t

NO_SLOT = -1
_ENTRIES_AT, _ENTRY_BYTES = state_t.fields["relay_entries"][1], relay_t.itemsize
_DATA_AT = relay_t.fields["data"][1]


@njit(cache=True)
def state_of(state, thread):
    """The state of media thread `thread`."""
    return carray(pointer(state.thread[0].states_at[thread]), 1, state_t)[0]


@njit(cache=True)
def claim(state, thread):
    """Number of the next free entry towards `thread`; NO_SLOT when it is too far behind."""
    me, theirs = np.int64(state.thread[0].number), state_of(state, thread)
    written = theirs.relays[me].written
    if written - load_acquire(theirs.relays.read, me) >= RELAY_SLOTS:
        state.drops[Drop.RELAY_FULL] += 1
        return np.int64(NO_SLOT)
    return written


@njit(cache=True)
def entry_of(state, thread, number):
    """The entry that `claim` gave, to be filled."""
    return state_of(state, thread).relay_entries[np.int64(state.thread[0].number), number & (RELAY_SLOTS - 1)]


@njit(cache=True)
def publish(state, thread, number):
    """Let `thread` see an entry that has been filled."""
    store_release(state_of(state, thread).relays.written, np.int64(state.thread[0].number), number + 1)


@njit(cache=True)
def wake(state, thread):
    """End the wait of `thread`, if it waits. Call after `publish`."""
    theirs = state_of(state, thread)
    fence()
    if load_acquire(theirs.thread.idle, 0):
        state.scratch[Scratch.THEIR_EVENT] = 1
        write(theirs.thread[0].wake_fd, state.thread[0].scratch_at + np.uint64(8 * Scratch.THEIR_EVENT), np.uint64(8))


@njit(cache=True)
def _data_at(state, thread, sender, number):
    entry = sender * RELAY_SLOTS + (number & (RELAY_SLOTS - 1))
    return state.thread[0].states_at[thread] + np.uint64(_ENTRIES_AT + entry * _ENTRY_BYTES + _DATA_AT)


@njit(cache=True)
def copy_to_entry(state, arena, thread, number, at, size):
    """Entry `number` towards `thread` gets arena[at : at + size]."""
    me = np.int64(state.thread[0].number)
    arena[at + size - 1] |= np.uint8(0)  # an index out of range raises here under NUMBA_BOUNDSCHECK
    memcpy(_data_at(state, thread, me, number), state.thread[0].arena_at + np.uint64(at), np.uint64(size))


@njit(cache=True)
def copy_from_entry(state, sender, number, size):
    """Receive slot 0 gets the packet of entry `number` from thread `sender`."""
    me = np.int64(state.thread[0].number)
    memcpy(state.thread[0].rx_at, _data_at(state, me, sender, number), np.uint64(min(size, RX_BYTES)))
