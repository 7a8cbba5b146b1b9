"""The queues between the control thread and the media thread: commands and frames in, slow datagrams out.

Fixed size, one producer, one consumer; full means drop and count. Python and kernels use the same functions. They
keep the GIL: a call this short must not give it up and wait to get it back.
"""

from numba import njit

from sfu.compiler.atomics import load_acquire, store_release
from sfu.schema.capacities import (
    COMMAND_QUEUE,
    COMMANDS,
    CROWDED_SLOW,
    CROWDED_SLOW_PER_TRANSPORT,
    FRAME_QUEUE,
    FRAME_SLOTS,
    SLOW_BYTES,
    SLOW_PER_TRANSPORT,
    SLOW_QUEUE,
    SLOW_SLOTS,
)
from sfu.schema.codes import Drop


@njit(cache=True)
def push_command(state, commands):
    """Control thread: append commands[0] (1-D command_t). False when the queue is full; the caller keeps it."""
    queue = state.queues[COMMAND_QUEUE]
    written = queue.written
    if written - load_acquire(state.queues.read, COMMAND_QUEUE) >= COMMANDS:
        return False
    state.commands[written & (COMMANDS - 1)] = commands[0]
    store_release(state.queues.written, COMMAND_QUEUE, written + 1)
    return True


@njit(cache=True)
def push_slow(state, row, path, slot, size):
    """Media thread: hand a DTLS datagram (receive slot, size) of transport `row` to the control thread."""
    transport = state.transports[row]
    queue = state.queues[SLOW_QUEUE]
    written = queue.written
    waiting = written - load_acquire(state.queues.read, SLOW_QUEUE)
    quota = SLOW_PER_TRANSPORT if waiting < CROWDED_SLOW else CROWDED_SLOW_PER_TRANSPORT
    if transport.slow_pushed - load_acquire(state.transports.slow_taken, row) >= quota:
        state.drops[Drop.DTLS_QUOTA] += 1
        return
    if size > SLOW_BYTES or waiting >= SLOW_SLOTS:
        queue.dropped += 1
        state.drops[Drop.DTLS_QUEUE_FULL] += 1
        return
    entry = state.slow[written & (SLOW_SLOTS - 1)]
    entry.transport = row
    entry.generation = transport.generation
    entry.size = size
    entry.path = path
    for k in range(size):
        entry.data[k] = state.rx[slot, k]
    transport.slow_pushed += 1
    store_release(state.queues.written, SLOW_QUEUE, written + 1)
    state.thread[0].notify = 1


@njit(cache=True)
def take_slow(state, out):
    """Control thread: move the oldest datagrams into `out` (1-D slow_t), as many as there are and it holds. Returns
    their number. Each counts against its transport's quota until `slow_taken` says that it was handled."""
    first = state.queues[SLOW_QUEUE].read
    count = min(load_acquire(state.queues.written, SLOW_QUEUE) - first, len(out))
    for n in range(count):
        entry = state.slow[(first + n) & (SLOW_SLOTS - 1)]
        taken = out[n]
        taken.transport = entry.transport
        taken.generation = entry.generation
        taken.size = entry.size
        taken.path = entry.path
        for k in range(entry.size):
            taken.data[k] = entry.data[k]
    if count > 0:
        store_release(state.queues.read, SLOW_QUEUE, first + count)
    return count


@njit(cache=True)
def push_frame(state, frames):
    """Control thread: append frames[0] (1-D frame_t), to be sent over TCP. False: the queue is full."""
    queue = state.queues[FRAME_QUEUE]
    written = queue.written
    if written - load_acquire(state.queues.read, FRAME_QUEUE) >= FRAME_SLOTS:
        return False
    state.frames[written & (FRAME_SLOTS - 1)] = frames[0]
    store_release(state.queues.written, FRAME_QUEUE, written + 1)
    return True
