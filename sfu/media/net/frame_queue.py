"""Packets out over TCP connections, in frames (RFC 4571), without ever waiting for one.

What the operating system does not take at once waits in the row of `frame_queues`, about MAX_QUEUED_MS of it. When it
is older, all that has not begun to leave is dropped, and the connection is *stalled* until a byte leaves. Whoever is
about to number or encrypt a packet asks `refuses` before. Videos of which something was dropped begin anew with a key
frame (`transports.interrupted`). While anything waits, the pacer lets videos wait where they cost no copy.

An entry of a queue is 10 bytes of ours and the frame: the time in ms and 1 + `tx_log`, 4 bytes each, 2 unused ones, the
frame's size, its packet. An entry with size 0 says that the next one lies at the queue's beginning.
"""

import numpy as np
from numba import njit

from sfu.compiler.atomics import load_i4
from sfu.compiler.native import errno_location, memcpy, sendmmsg
from sfu.media.net.connections import set_congested
from sfu.media.net.send_log import mark_unsent, mark_unsent_number
from sfu.media.wire.numbers import get_u16, get_u32, put_u16, put_u32
from sfu.parameters import Codec
from sfu.schema.capacities import FRAME_QUEUE_BYTES, FRAMES_AT_ONCE, TX_BYTES
from sfu.schema.codes import Drop, PathKind, RowState

MAX_QUEUED_MS = 300
OWN_BYTES, SIZE_BYTES = 10, 2
"""Parts of an entry: what is ours, and the size with which its frame begins."""
ENTRY_BYTES = OWN_BYTES + SIZE_BYTES
MSG_DONTWAIT, MSG_NOSIGNAL = 0x40, 0x4000
EINTR, EAGAIN = 4, 11
MS = 1_000_000

_VIDEO = (int(Codec.VP8), int(Codec.H264), int(Codec.VP9), int(Codec.AV1), int(Codec.RTX))


@njit(cache=True)
def is_over_tcp(state, row):
    """Whether transport `row` is sent to over a TCP connection."""
    path = np.int64(state.transports[row].path)
    return path >= 0 and state.paths[path].kind == PathKind.TCP


@njit(cache=True)
def is_backed_up(state, row):
    """Whether frames for transport `row` wait for its TCP connection, or would if they were not dropped."""
    if not is_over_tcp(state, row):
        return False
    connection = state.connections[state.paths[state.transports[row].path].connection]
    return connection.count > 0 or connection.stalled != 0


@njit(cache=True)
def refuses(state, row):
    """Whether a packet for transport `row` would be dropped, because what waits for its TCP connection is old or fills
    the queue. Whoever is about to number or encrypt a packet asks this first. What is old is dropped here."""
    if not is_over_tcp(state, row):
        return False
    number = np.int64(state.paths[state.transports[row].path].connection)
    connection = state.connections[number]
    if connection.count == 0:
        return connection.stalled != 0
    if _is_late(state, number):
        _drop_waiting(state, number)
    return connection.stalled != 0 or _place_of(connection, TX_BYTES) < 0


@njit(cache=True)
def send_frames(state, path_row, slot, count):
    """Send the packets in `count` send slots from `slot` on over the connection of a path, or let them wait."""
    row = np.int64(state.paths[path_row].connection)
    connection = state.connections[row]
    if connection.state != RowState.OPEN:
        state.drops[Drop.SEND_FAILED] += count
        mark_unsent(state, slot, count)
        return
    if _is_late(state, row):
        _drop_waiting(state, row)
    for each in range(slot, slot + count):
        if connection.stalled or not _append(state, row, each):
            state.drops[Drop.TCP_QUEUE_FULL] += 1
            mark_unsent(state, each, 1)
            _interrupt(state, row, np.int64(state.tx[each, 0]), np.int64(state.tx[each, 1]))
    if not connection.congested:
        write_frames(state, row)
    if (connection.count > 0 or connection.stalled) and connection.path >= 0:
        state.transports[state.paths[connection.path].transport].free_number = 0


@njit(cache=True)
def write_frames(state, row):
    """Let frames of a connection leave as far as the operating system takes them. An error ends nothing here: epoll
    tells of it."""
    connection, message = state.connections[row], state.frame_message[0]
    while connection.count > 0:
        size = _gather(state, row)
        sent = np.int64(sendmmsg(connection.fd, state.thread[0].frame_message_at, 1, MSG_DONTWAIT | MSG_NOSIGNAL))
        if sent > 0:
            connection.stalled = 0
            state.thread[0].messages_sent += 1
            _pass(state, row, np.int64(message.bytes))
            if np.int64(message.bytes) < size:
                break
        else:
            error = load_i4(errno_location())
            if error == EAGAIN:
                break
            if error != EINTR:
                state.drops[Drop.SEND_FAILED] += np.int64(connection.count)
                connection.count = 0
    if connection.count == 0:
        connection.stalled = 0
    set_congested(state, row, 1 if connection.count > 0 else 0)


@njit(cache=True)
def _append(state, row, slot):
    """Put the packet of a send slot at the end of a queue. Returns whether there was room."""
    connection, thread = state.connections[row], state.thread[0]
    if connection.count == 0:
        connection.first = 0
        connection.end = 0
        connection.begun = 0
    size, end, queue = np.int64(state.tx_size[slot]), np.int64(connection.end), state.frame_queues[row]
    at = _place_of(connection, size)
    if at < 0:
        return False
    if at < end and end + ENTRY_BYTES <= FRAME_QUEUE_BYTES:
        put_u16(queue, end + OWN_BYTES, 0)
    put_u32(queue, at, (np.int64(thread.now_ns) // MS) & 0xFFFFFFFF)
    put_u32(queue, at + 4, np.int64(state.tx_log[slot]) + 1)
    put_u16(queue, at + OWN_BYTES, size)
    target = thread.frame_queues_at + np.uint64(row * FRAME_QUEUE_BYTES + at + ENTRY_BYTES)
    memcpy(target, thread.tx_at + np.uint64(slot * TX_BYTES), np.uint64(size))
    connection.end = at + ENTRY_BYTES + size
    connection.count += 1
    return True


@njit(cache=True)
def _place_of(connection, size):
    """Where the entry of a packet of `size` bytes would be written; -1: there is no room."""
    first, end = np.int64(connection.first), np.int64(connection.end)
    most = FRAME_QUEUE_BYTES if connection.count == 0 or end > first else first
    if end + ENTRY_BYTES + size <= most:
        return end
    return np.int64(0) if most != first and ENTRY_BYTES + size <= first else np.int64(-1)


@njit(cache=True)
def _entry_at(state, row, at):
    """Where the entry lies that is to be found at `at`: there, or at the queue's beginning."""
    if at + ENTRY_BYTES > FRAME_QUEUE_BYTES or get_u16(state.frame_queues[row], at + OWN_BYTES) == 0:
        return np.int64(0)
    return np.int64(at)


@njit(cache=True)
def _gather(state, row):
    """Fill `frame_iov` and `frame_message` with the oldest frames of a queue, and return their bytes."""
    connection, queue = state.connections[row], state.frame_queues[row]
    base = state.thread[0].frame_queues_at + np.uint64(row * FRAME_QUEUE_BYTES)
    at, begun, total = np.int64(connection.first), np.int64(connection.begun), np.int64(0)
    count = min(np.int64(connection.count), FRAMES_AT_ONCE)
    for k in range(count):
        at = _entry_at(state, row, at)
        size = SIZE_BYTES + get_u16(queue, at + OWN_BYTES)
        state.frame_iov[k].base = base + np.uint64(at + OWN_BYTES + begun)
        state.frame_iov[k].bytes = size - begun
        total += size - begun
        at, begun = at + OWN_BYTES + size, 0
    state.frame_message[0].iov_count = count
    return total


@njit(cache=True)
def _pass(state, row, sent):
    """Take what has left out of a queue: `sent` bytes."""
    connection, queue = state.connections[row], state.frame_queues[row]
    connection.begun += sent
    while connection.count > 0:
        at = _entry_at(state, row, np.int64(connection.first))
        size = SIZE_BYTES + get_u16(queue, at + OWN_BYTES)
        if connection.begun < size:
            return
        connection.begun -= size
        connection.first = at + OWN_BYTES + size
        connection.count -= 1
        state.thread[0].packets_sent += 1


@njit(cache=True)
def _is_late(state, row):
    """Whether the oldest frame of a queue that has not begun to leave waits for longer than MAX_QUEUED_MS."""
    connection, queue = state.connections[row], state.frame_queues[row]
    begun = 1 if connection.begun > 0 else 0
    if connection.count <= begun:
        return False
    at = _entry_at(state, row, np.int64(connection.first))
    if begun == 1:
        at = _entry_at(state, row, at + ENTRY_BYTES + get_u16(queue, at + OWN_BYTES))
    now = (np.int64(state.thread[0].now_ns) // MS) & 0xFFFFFFFF
    return (now - get_u32(queue, at)) & 0xFFFFFFFF > MAX_QUEUED_MS


@njit(cache=True)
def _drop_waiting(state, row):
    """Drop what waits and has not begun to leave: until a byte leaves, nothing is queued."""
    connection, queue = state.connections[row], state.frame_queues[row]
    at, kept = np.int64(connection.first), 1 if connection.begun > 0 else 0
    for k in range(np.int64(connection.count)):
        at = _entry_at(state, row, at)
        size = get_u16(queue, at + OWN_BYTES)
        if k >= kept:
            state.drops[Drop.TCP_QUEUE_FULL] += 1
            mark_unsent_number(state, get_u32(queue, at + 4) - 1)
            _interrupt(state, row, np.int64(queue[at + ENTRY_BYTES]), np.int64(queue[at + ENTRY_BYTES + 1]))
        at += ENTRY_BYTES + size
        if k < kept:
            connection.end = at
    connection.count = kept
    connection.stalled = 1


@njit(cache=True)
def _interrupt(state, row, first, second):
    """A packet for a connection, which begins with these two bytes, was dropped: if it is of a video, all of its
    transport begin anew."""
    path = np.int64(state.connections[row].path)
    if path < 0 or not 128 <= first <= 191 or 192 <= second <= 223:
        return
    transport = state.transports[state.paths[path].transport]
    if transport.media >= 0 and np.int64(state.media[transport.media].codec_of_pt[second & 0x7F]) in _VIDEO:
        transport.interrupted = 1
        transport.free_number = 0
