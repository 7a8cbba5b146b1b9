"""Datagrams in and out of the kernel's sockets, in batches. Addresses are for this file, `sfu.schema.memory`,
`sfu.media.net.srtp`, and the files for TCP connections.

In: `receive` fills the receive slots of one socket. Out: a stage takes a slot, writes a whole packet into
`state.tx[slot]`, and commits it to a path; `flush` sends. Consecutive packets of equal size to one path leave as one
UDP_SEGMENT message, which the kernel cuts again: about a third of the cost of separate sends. `frame_queue` sends what
goes over TCP.
"""

import socket

import numpy as np
from numba import carray, njit

from sfu.compiler.atomics import load_i4, pointer
from sfu.compiler.native import errno_location, memcpy, recvmmsg, sendmmsg
from sfu.media.net.frame_queue import send_frames
from sfu.media.net.send_log import NOT_LOGGED, begin_flush, mark_unsent
from sfu.schema.capacities import (
    ARENA_BYTES,
    RX_BYTES,
    RX_CONTROL_BYTES,
    RX_SLOTS,
    TX_BYTES,
    TX_CONTROL_BYTES,
    TX_SLOTS,
)
from sfu.schema.codes import Drop, PathKind
from sfu.schema.transport_tables import path_t

MSG_DONTWAIT = 0x40
EINTR, EAGAIN, EINVAL, EIO, EMSGSIZE, ENOBUFS = 4, 11, 22, 5, 90, 105
SCM_TIMESTAMPNS = 35
UDP_SEGMENT = 103
SOL_UDP = 17
IP_PKTINFO, IPV6_PKTINFO = 8, 50
MAX_SEGMENTS = 48
"""Packets in one UDP_SEGMENT message; Linux allows 128 (64 before 6.9)."""
MAX_SEGMENTED_BYTES = 64_000
SINGLE_NS = 60_000_000_000
"""How long a path that refused UDP_SEGMENT gets single packets: its MTU is smaller than they are, for a while."""

# cmsg level and type as one little-endian word
_CONTROL_TIME = socket.SOL_SOCKET | SCM_TIMESTAMPNS << 32
_CONTROL_PKTINFO = socket.IPPROTO_IP | IP_PKTINFO << 32
_CONTROL_PKTINFO6 = socket.IPPROTO_IPV6 | IPV6_PKTINFO << 32
_CONTROL_SEGMENT = SOL_UDP | UDP_SEGMENT << 32

PATH_BYTES = path_t.itemsize
PATH_ADDRESS_AT = path_t.fields["address"][1]


@njit(cache=True)
def receive(state, index):
    """Read up to RX_SLOTS datagrams from socket `index` into state.rx; returns how many (0: none waits).

    After it state.rx_messages[k].bytes is the size, state.rx_names[k] the sender's address, .flags has MSG_TRUNC.
    """
    thread = state.thread[0]
    for k in range(RX_SLOTS):
        state.rx_messages[k].control_bytes = RX_CONTROL_BYTES  # the kernel overwrites these
        state.rx_messages[k].name_bytes = 28
    count = recvmmsg(state.sockets[index].fd, thread.rx_messages_at, RX_SLOTS, MSG_DONTWAIT, 0)
    return max(np.int64(count), 0)


@njit(cache=True)
def arrival(state, k, now):
    """Kernel arrival time of receive slot k on the monotonic clock, ns; `now` when the kernel gave none."""
    at, end = 0, np.int64(state.rx_messages[k].control_bytes) >> 3
    control = state.rx_control[k]
    while at + 3 < end:
        if control[at + 1] == _CONTROL_TIME:
            wall = np.int64(control[at + 2]) * 1_000_000_000 + np.int64(control[at + 3])
            return min(wall - state.thread[0].wall_offset_ns, now)
        at += max(np.int64(control[at] + np.uint64(7)) >> 3, 2)
    return now


@njit(cache=True)
def store_local(state, k, path):
    """Remember in a path which address of ours receive slot k reached (PKTINFO)."""
    at, end = 0, np.int64(state.rx_messages[k].control_bytes) >> 3
    control = state.rx_control[k]
    while at + 3 < end:
        if control[at + 1] == _CONTROL_PKTINFO:  # {int interface; in_addr spec_dst; in_addr addr}
            word = np.int64(control[at + 2])
            path.local_interface = 0  # let routing choose the interface, we fix the address only
            for n in range(4):
                path.local[n] = (word >> (32 + 8 * n)) & 255
        elif control[at + 1] == _CONTROL_PKTINFO6:  # {in6_addr addr; int interface}
            for n in range(8):
                path.local[n] = (np.int64(control[at + 2]) >> (8 * n)) & 255
                path.local[8 + n] = (np.int64(control[at + 3]) >> (8 * n)) & 255
            path.local_interface = np.int64(control[at + 4]) & 0xFFFFFFFF
        at += max(np.int64(control[at] + np.uint64(7)) >> 3, 2)


@njit(cache=True)
def take_slot(state):
    """A free send slot; flushes when none is left. Not taken before `commit` is called: calling it again without
    committing returns the same slot."""
    if state.thread[0].tx_count >= TX_SLOTS:
        flush(state)
    return np.int64(state.thread[0].tx_count)


@njit(cache=True)
def commit(state, slot, path, size):
    """Queue slot (from take_slot) with `size` bytes for path row `path`."""
    state.tx_path[slot] = path
    state.tx_size[slot] = size
    state.tx_log[slot] = NOT_LOGGED
    state.thread[0].bytes_sent += size
    state.thread[0].tx_count = slot + 1


@njit(cache=True)
def _pktinfo(state, message, words, path):
    """Write the source address as control data at word offset `words`; returns the new offset."""
    control = state.tx_control[message]
    if path.family == 4:
        local = (
            np.uint64(path.local[0])
            | np.uint64(path.local[1]) << np.uint64(8)
            | np.uint64(path.local[2]) << np.uint64(16)
            | np.uint64(path.local[3]) << np.uint64(24)
        )
        if local == 0:
            return words
        control[words] = 28
        control[words + 1] = _CONTROL_PKTINFO
        control[words + 2] = local << np.uint64(32)  # interface 0, spec_dst
        control[words + 3] = 0
        return words + 4
    low, high = np.uint64(0), np.uint64(0)
    for n in range(8):
        low |= np.uint64(path.local[n]) << np.uint64(8 * n)
        high |= np.uint64(path.local[8 + n]) << np.uint64(8 * n)
    if low == 0 and high == 0:
        return words
    control[words] = 36
    control[words + 1] = _CONTROL_PKTINFO6
    control[words + 2] = low
    control[words + 3] = high
    control[words + 4] = np.uint64(path.local_interface)
    return words + 5


@njit(cache=True)
def _run_length(state, first, count):
    """How many slots from `first` on can leave as one message; to a path over TCP: all that follow each other."""
    thread = state.thread[0]
    size, path, run = state.tx_size[first], state.tx_path[first], 1
    if state.paths[path].kind == PathKind.TCP:
        while first + run < count and state.tx_path[first + run] == path:
            run += 1
        return run
    if not thread.segment_offload or thread.now_ns < state.paths[path].single_until_ns:
        return run
    total = np.int64(size)
    while first + run < count and run < MAX_SEGMENTS:
        following = state.tx_size[first + run]
        if state.tx_path[first + run] != path or following > size or total + following > MAX_SEGMENTED_BYTES:
            break
        total += following
        run += 1
        if following < size:  # only the last segment may be shorter
            break
    return run


@njit(cache=True)
def _build_message(state, index, slot, run):
    """Fill tx_messages[index] for `run` slots from `slot` on, which have one path."""
    thread = state.thread[0]
    row = state.tx_path[slot]
    path = state.paths[row]
    for k in range(slot, slot + run):
        state.tx_iov[k].bytes = state.tx_size[k]
    message = state.tx_messages[index]
    message.name = thread.paths_at + np.uint64(row * PATH_BYTES + PATH_ADDRESS_AT)
    message.name_bytes = path.address_bytes
    message.iov = thread.tx_iov_at + np.uint64(slot * 16)
    message.iov_count = run
    words = 0
    if run > 1:
        state.tx_control[index, 0] = 18
        state.tx_control[index, 1] = _CONTROL_SEGMENT
        state.tx_control[index, 2] = state.tx_size[slot]
        words = 3
    if path.socket >= 0 and state.sockets[path.socket].wildcard:
        words = _pktinfo(state, index, words, path)
    message.control = thread.tx_control_at + np.uint64(index * TX_CONTROL_BYTES)
    message.control_bytes = words * 8
    if words == 0:
        message.control = 0
    state.tx_message_first[index] = slot


@njit(cache=True)
def _build_messages(state, count):
    """Fill tx_messages for slots 0 to count - 1; returns the number of messages."""
    messages, slot = 0, 0
    while slot < count:
        run = _run_length(state, slot, count)
        _build_message(state, messages, slot, run)
        messages += 1
        slot += run
    return messages


@njit(cache=True)
def _send_messages(state, first, end):
    """sendmmsg for messages first to end - 1, all of one socket; a failing one is sent in single packets, or counted
    and skipped when it is one."""
    thread = state.thread[0]
    fd = state.sockets[state.paths[state.tx_path[state.tx_message_first[first]]].socket].fd
    while first < end:
        sent = np.int64(sendmmsg(fd, thread.tx_messages_at + np.uint64(first * 64), end - first, MSG_DONTWAIT))
        if sent > 0:
            for k in range(first, first + sent):
                thread.packets_sent += np.int64(state.tx_messages[k].iov_count)
            thread.messages_sent += sent
            first += sent
            continue
        error = load_i4(errno_location())
        if error == EINTR:
            continue
        run = np.int64(state.tx_messages[first].iov_count)
        if run > 1 and error in (EINVAL, EIO, EMSGSIZE):
            _send_singly(state, fd, first, run)
        else:
            state.drops[Drop.SEND_FAILED] += run
            mark_unsent(state, np.int64(state.tx_message_first[first]), run)
        first += 1


@njit(cache=True)
def _send_singly(state, fd, index, run):
    """Send the slots of message `index`, which its path refuses as segments, one by one; the path's next ones too."""
    thread, slot = state.thread[0], np.int64(state.tx_message_first[index])
    state.paths[state.tx_path[slot]].single_until_ns = thread.now_ns + SINGLE_NS
    for k in range(slot, slot + run):
        _build_message(state, index, k, 1)
        message_at = thread.tx_messages_at + np.uint64(index * 64)
        sent = np.int64(sendmmsg(fd, message_at, 1, MSG_DONTWAIT))
        while sent <= 0 and load_i4(errno_location()) == EINTR:
            sent = np.int64(sendmmsg(fd, message_at, 1, MSG_DONTWAIT))
        if sent > 0:
            thread.packets_sent += 1
            thread.messages_sent += 1
        else:
            state.drops[Drop.SEND_FAILED] += 1
            mark_unsent(state, k, 1)


@njit(cache=True)
def flush(state):
    """Send all committed slots. Never blocks: what a full socket buffer refuses is counted as send_failed."""
    thread = state.thread[0]
    count = np.int64(thread.tx_count)
    if count == 0:
        return
    begin_flush(state)
    messages = _build_messages(state, count)
    first = 0
    while first < messages:
        path = np.int64(state.tx_path[state.tx_message_first[first]])
        index = state.paths[path].socket
        if index < 0:
            slot, run = np.int64(state.tx_message_first[first]), np.int64(state.tx_messages[first].iov_count)
            send_frames(state, path, slot, run)
            first += 1
            continue
        end = first + 1
        while end < messages and state.paths[state.tx_path[state.tx_message_first[end]]].socket == index:
            end += 1
        _send_messages(state, first, end)
        first = end
    thread.tx_count = 0


@njit(cache=True)
def borrow_arena(state):
    """The arena as an array that nobody owns: handing it on costs no reference counts, two locked instructions each."""
    return carray(pointer(state.thread[0].arena_at), ARENA_BYTES, np.uint8)


@njit(cache=True)
def copy_to_arena(state, arena, at, k, offset, size):
    """arena[at : at + size] = receive slot k from `offset` on. Bounds are the caller's; checked in checked builds."""
    arena[at + size - 1] = 0  # an index out of range raises here under NUMBA_BOUNDSCHECK
    state.rx[k, offset + size - 1] += np.uint8(0)
    thread = state.thread[0]
    memcpy(thread.arena_at + np.uint64(at), thread.rx_at + np.uint64(k * RX_BYTES + offset), np.uint64(size))


@njit(cache=True)
def copy_in_arena(state, arena, at, source, size):
    """arena[at : at + size] = arena[source : source + size], which do not overlap."""
    arena[at + size - 1] = arena[source + size - 1]  # checks both ranges under NUMBA_BOUNDSCHECK
    base = state.thread[0].arena_at
    memcpy(base + np.uint64(at), base + np.uint64(source), np.uint64(size))


@njit(cache=True)
def copy_to_slot(state, arena, slot, offset, at, size):
    """Send slot `slot` from `offset` on = arena[at : at + size]."""
    if size <= 0:
        return
    state.tx[slot, offset + size - 1] = arena[at + size - 1]  # checks both ranges under NUMBA_BOUNDSCHECK
    thread = state.thread[0]
    memcpy(thread.tx_at + np.uint64(slot * TX_BYTES + offset), thread.arena_at + np.uint64(at), np.uint64(size))
