"""What goes over TCP connections in frames (RFC 4571): packets in, and what the control thread sends.

A connection whose first frame is no valid check, or that brings a frame of more than RX_BYTES, is closed. One that ends
takes its path with it; its transport lives on.
"""

import numpy as np
from numba import njit

from sfu.compiler.atomics import load_acquire, load_i4, store_release
from sfu.compiler.native import epoll_wait, errno_location, memcpy, recv
from sfu.media.demux import route_frame
from sfu.media.net.connections import EPOLLOUT, close_connection
from sfu.media.net.frame_queue import EAGAIN, EINTR, MSG_DONTWAIT, SIZE_BYTES, write_frames
from sfu.media.net.paths import lose_path
from sfu.media.net.udp import commit, take_slot
from sfu.media.send.egress import forward_all
from sfu.media.wire.numbers import get_u16
from sfu.schema.capacities import (
    EPOLL_EVENTS,
    FRAME_QUEUE,
    FRAME_SLOTS,
    HALF_FRAME_BYTES,
    PATHS,
    RX_BYTES,
    RX_SLOTS,
    STREAM_BYTES,
    TRANSPORTS,
)
from sfu.schema.codes import Drop, RowState
from sfu.schema.connection_tables import EVENT_DATA_WORD, EVENT_WORDS

SERVED_AT_ONCE = 4
"""Connections that are served before it is looked how many frames there were. Those that are still ready then come
after all others."""
MAX_FRAMES = 512
"""Frames in one turn, as datagrams of a socket (`loop.MAX_BATCHES`); those that were read already are handled too.
Without it, tiny frames of a few connections, sent on to a whole room, kept everybody waiting."""


@njit(cache=True)
def serve_connections(state, arena, now):
    """Read and write the TCP connections that are ready, EPOLL_EVENTS times at most, until MAX_FRAMES have come."""
    thread, frames = state.thread[0], np.int64(0)
    for _ in range(EPOLL_EVENTS // SERVED_AT_ONCE):
        count = np.int64(epoll_wait(thread.epoll_fd, thread.epoll_events_at, SERVED_AT_ONCE, 0))
        for k in range(count):
            frames += _serve(state, arena, k, now)
        if count < SERVED_AT_ONCE or frames >= MAX_FRAMES:
            return


@njit(cache=True)
def _serve(state, arena, k, now):
    """Read and write the connection that event k of `epoll_events` is about. Returns how many frames came."""
    frames = np.int64(0)
    events = np.int64(state.epoll_events[EVENT_WORDS * k])
    row = np.int64(state.epoll_events[EVENT_WORDS * k + EVENT_DATA_WORD])
    if state.connections[row].state == RowState.OPEN and events & ~EPOLLOUT:
        frames = _read(state, arena, row, now)
    if state.connections[row].state == RowState.OPEN and events & EPOLLOUT:
        write_frames(state, row)
    return frames


@njit(cache=True)
def _read(state, arena, row, now):
    """Read a connection once, after what is left of it from the last time, and handle the frames that are whole.
    Returns how many."""
    thread, connection = state.thread[0], state.connections[row]
    half = np.int64(connection.half_bytes)
    half_at = thread.half_frames_at + np.uint64(row * HALF_FRAME_BYTES)
    memcpy(thread.stream_at, half_at, np.uint64(half))
    room = np.uint64(STREAM_BYTES - half)
    came = np.int64(recv(connection.fd, thread.stream_at + np.uint64(half), room, MSG_DONTWAIT))
    if came <= 0:
        error = load_i4(errno_location()) if came < 0 else 0
        if error not in (EAGAIN, EINTR):
            _end(state, row, now)
        return np.int64(0)
    end = half + came
    at, count = _take_frames(state, arena, row, end, now)
    if connection.state == RowState.OPEN and at < 0:
        _end(state, row, now)
    elif connection.state == RowState.OPEN:
        connection.half_bytes = end - at
        memcpy(half_at, thread.stream_at + np.uint64(at), np.uint64(end - at))
    return count


@njit(cache=True)
def _take_frames(state, arena, row, end, now):
    """Handle the frames in the first `end` bytes of `stream`. Returns where the first unfinished one begins, -1: the
    connection has to end; and how many were handled."""
    at, count = np.int64(0), np.int64(0)
    while end - at >= SIZE_BYTES:
        size = get_u16(state.stream, at)
        if size > RX_BYTES:
            state.drops[Drop.TCP_FRAME_TOO_LONG] += 1
            return np.int64(-1), count
        if end - at < SIZE_BYTES + size:
            break
        _take_frame(state, arena, row, at + SIZE_BYTES, size, now)
        if state.connections[row].state != RowState.OPEN:
            return np.int64(-1), count
        if state.connections[row].path < 0:
            state.drops[Drop.TCP_UNPROVEN] += 1
            return np.int64(-1), count
        at += SIZE_BYTES + size
        count += 1
        if count % RX_SLOTS == 0:
            forward_all(state, arena, now)
    if count % RX_SLOTS:
        forward_all(state, arena, now)
    return at, count


@njit(cache=True)
def _take_frame(state, arena, row, at, size, now):
    """Handle the packet of `size` bytes that lies in `stream` at `at`."""
    thread = state.thread[0]
    if size > 0:
        state.stream[at + size - 1] += np.uint8(0)  # an index out of range raises here under NUMBA_BOUNDSCHECK
    memcpy(thread.rx_at, thread.stream_at + np.uint64(at), np.uint64(size))
    route_frame(state, arena, 0, size, row, now)


@njit(cache=True)
def _end(state, row, now):
    """Close a connection, with its path if it has one."""
    path = np.int64(state.connections[row].path)
    if path >= 0:
        lose_path(state, path, now)
    else:
        close_connection(state, row)


@njit(cache=True)
def send_of_control(state):
    """Send what the control thread has queued for TCP connections. What has no path any more is dropped, as on its way:
    its transport repeats it."""
    first = state.queues[FRAME_QUEUE].read
    end = load_acquire(state.queues.written, FRAME_QUEUE)
    for index in range(first, end):
        frame = state.frames[index & (FRAME_SLOTS - 1)]
        if _has_path(state, frame):
            slot, size = take_slot(state), np.int64(frame.size)
            for n in range(size):
                state.tx[slot, n] = frame.data[n]
            commit(state, slot, np.int64(frame.path), size)
        else:
            state.drops[Drop.NOT_READY] += 1
        store_release(state.queues.read, FRAME_QUEUE, index + 1)


@njit(cache=True)
def _has_path(state, frame):
    """Whether a datagram of the control thread can be sent over the path that it names."""
    row, path = np.int64(frame.transport), np.int64(frame.path)
    if not (0 <= row < TRANSPORTS and 0 <= path < PATHS and 0 < frame.size <= frame.data.size):
        return False
    transport, pair = state.transports[row], state.paths[path]
    is_open = transport.state == RowState.OPEN and pair.state == RowState.OPEN
    return is_open and transport.generation == frame.generation and pair.transport == row
