"""TCP connections over which paths go: when they open and close, and when they can be read or written (epoll).

The control thread accepts a connection and hands it over when its first frame has come whole. From then on only the
media thread reads and writes it. Its descriptor stays the control thread's, which closes it after CLOSED_CONNECTION.
"""

import numpy as np
from numba import njit

from sfu.compiler.native import epoll_ctl, madvise, shutdown
from sfu.compiler.rows import row_reset
from sfu.queues.notices import notice
from sfu.schema.capacities import FRAME_QUEUE_BYTES
from sfu.schema.codes import NoticeKind, RowState, Scratch
from sfu.schema.connection_tables import CONNECTION, EVENT_WORDS

EPOLLIN, EPOLLOUT = 1, 4
EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD = 1, 2, 3
SHUT_RDWR = 2
MADV_DONTNEED = 4
PAGE_BYTES = 4096

_reset_connection = row_reset(CONNECTION.reset_parts(), CONNECTION.dtype.itemsize)


@njit(cache=True)
def open_connection(state, row):
    """Begin to read a connection whose CONTROL columns are written. One that cannot be waited for is closed at once."""
    connection = state.connections[row]
    _reset_connection(connection)
    connection.state = RowState.OPEN
    state.thread[0].open_connections += 1
    if _poll(state, row, EPOLL_CTL_ADD, EPOLLIN) != 0:
        close_connection(state, row)


@njit(cache=True)
def close_connection(state, row):
    """End a connection that has no path any more; its peer is told. What has not left is forgotten."""
    thread, connection = state.thread[0], state.connections[row]
    _poll(state, row, EPOLL_CTL_DEL, 0)
    shutdown(connection.fd, SHUT_RDWR)
    first = thread.frame_queues_at + np.uint64(row * FRAME_QUEUE_BYTES)
    inside = (first + np.uint64(PAGE_BYTES - 1)) & ~np.uint64(PAGE_BYTES - 1)
    madvise(inside, np.uint64(FRAME_QUEUE_BYTES - PAGE_BYTES), MADV_DONTNEED)
    connection.state = RowState.FREE
    connection.count = 0
    thread.open_connections -= 1
    notice(state, NoticeKind.CLOSED_CONNECTION, row)


@njit(cache=True)
def set_congested(state, row, congested):
    """Wait, or no longer wait, for the time when the operating system takes bytes of a connection again."""
    connection = state.connections[row]
    if connection.congested != congested:
        connection.congested = congested
        _poll(state, row, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT if congested else EPOLLIN)


@njit(cache=True)
def _poll(state, row, operation, events):
    """epoll_ctl(2) for a connection; returns its result."""
    thread = state.thread[0]
    if EVENT_WORDS == 3:  # packed: the row follows the events at once
        state.scratch[Scratch.EPOLL] = events | row << 32
        state.scratch[Scratch.EPOLL + 1] = 0
    else:
        state.scratch[Scratch.EPOLL] = events
        state.scratch[Scratch.EPOLL + 1] = row
    event_at = thread.scratch_at + np.uint64(8 * Scratch.EPOLL)
    return epoll_ctl(thread.epoll_fd, operation, state.connections[row].fd, event_at)
