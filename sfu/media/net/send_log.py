"""What leaves for each transport under a transport-wide number, until its feedback comes
(draft-holmer-rmcat-transport-wide-cc-extensions-01).

A packet is logged when it is queued, and only then its number is used up, so that a number in no packet never looks
like a loss. When it left is written once for all packets of a flush. What the socket refused is marked.
"""

import numpy as np
from numba import njit

from sfu.compiler.rows import row_reset
from sfu.media.net.clock import present
from sfu.media.wire.overhead import udp_ip_bytes
from sfu.schema.capacities import FLUSHES, SENT_PACKETS, SEQUENCE_START
from sfu.schema.codes import SentState
from sfu.schema.send_log_tables import AT_ONCE, SEND_LOG

NOT_LOGGED = -1
MOST_AT_ONCE = 48
"""Packets that leave at once for a path that takes them: as many as fit into one UDP_SEGMENT message."""

_reset_log = row_reset(SEND_LOG.reset_parts(), SEND_LOG.dtype.itemsize)


@njit(cache=True)
def open_log(state, row):
    """Begin the send log of transport `row`, unless it has begun: with what is sent first, since most transports send
    nothing, and a page not written costs nothing."""
    transport = state.transports[row]
    if not transport.logged:
        transport.logged = 1
        _reset_log(state.send_logs[row])


@njit(cache=True)
def log_sent(state, row, slot):
    """The packet in send slot `slot`, just written and queued for transport `row`, carries the number `next_number`,
    and belongs to the probe cluster that runs, if one does."""
    transport, log = state.transports[row], state.send_logs[row]
    if not transport.logged:
        open_log(state, row)
    place = np.int64(transport.next_number) & (SENT_PACKETS - 1)
    transport.next_number += 1
    size = np.int64(state.tx_size[slot]) + udp_ip_bytes(state.paths[state.tx_path[slot]].family)
    entry = log.entries[place]
    entry.flush = np.int64(state.thread[0].flushes) & 0xFFFFFFFF
    entry.size = size
    entry.cluster = transport.probe_cluster
    entry.state = SentState.SENT
    copy = np.int64(state.thread[0].copy)
    if np.int64(log.copies[place]) != copy:  # a page that is only read costs no memory
        log.copies[place] = copy
    log.bytes += size
    log.count += 1
    state.tx_log[slot] = row * SENT_PACKETS + place


@njit(cache=True)
def begin_flush(state):
    """Note that what is queued leaves now."""
    thread = state.thread[0]
    state.flush_ns[thread.flushes & (FLUSHES - 1)] = present(state)
    thread.flushes += 1


@njit(cache=True)
def mark_unsent(state, first, count):
    """The socket refused the packets in `count` send slots from `first` on: nobody can have lost them."""
    for slot in range(first, first + count):
        mark_unsent_number(state, np.int64(state.tx_log[slot]))


@njit(cache=True)
def mark_unsent_number(state, logged):
    """A packet did not leave, so nobody can have lost it. logged: its `tx_log`; NOT_LOGGED: nothing happens."""
    if logged == NOT_LOGGED:
        return
    log = state.send_logs[logged // SENT_PACKETS]
    entry = log.entries[logged % SENT_PACKETS]
    entry.state = SentState.UNSENT
    log.bytes -= np.int64(entry.size)


@njit(cache=True)
def sent_at(state, entry):
    """When a logged packet left, ns; 0: so long ago that nobody knows."""
    flushes = np.int64(state.thread[0].flushes)
    ago = (flushes - np.int64(entry.flush)) & 0xFFFFFFFF
    if ago > FLUSHES:
        return np.int64(0)
    return np.int64(state.flush_ns[(flushes - ago) & (FLUSHES - 1)])


@njit(cache=True)
def note_burst(log, entry, received):
    """Feedback names a packet: learn how many packets at once the path takes.

    Twice as many as now, when a flush of so many was received; AT_ONCE again when something of a larger one was lost.
    """
    if entry.flush != log.burst_flush:
        log.burst_flush = entry.flush
        log.burst_packets = 0
    if received:
        log.burst_packets += 1
        if log.burst_packets >= log.burst_most:
            log.burst_most = min(2 * log.burst_most, MOST_AT_ONCE)
    elif log.burst_packets > AT_ONCE:
        log.burst_most = AT_ONCE
        log.burst_packets = 0


@njit(cache=True)
def count_at_once(state, row, most):
    """How many packets of transport `row`, up to `most`, leave in the flush that is being filled."""
    transport, log = state.transports[row], state.send_logs[row]
    flush = np.int64(state.thread[0].flushes) & 0xFFFFFFFF
    first = max(transport.next_number - most, SEQUENCE_START)
    number = np.int64(transport.next_number)
    while number > first and log.entries[(number - 1) & (SENT_PACKETS - 1)].flush == flush:
        number -= 1
    return transport.next_number - number


@njit(cache=True)
def unreported_bytes(state, row, most):
    """Bytes that left for transport `row` after the newest packet that its feedback reported; of at most `most`
    packets."""
    transport, log = state.transports[row], state.send_logs[row]
    first = max(log.newest_reported + 1, max(transport.next_number - most, SEQUENCE_START))
    total = np.int64(0)
    for number in range(first, transport.next_number):
        total += np.int64(log.entries[number & (SENT_PACKETS - 1)].size)
    return total
