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
from sfu.schema.send_log_tables import SEND_LOG

NOT_LOGGED = -1

_reset_log = row_reset(SEND_LOG.reset_parts(), SEND_LOG.dtype.itemsize)


@njit(cache=True)
def begin_log(state, row):
    """Forget what the row of a transport's log held for another one."""
    _reset_log(state.send_logs[row])


@njit(cache=True)
def log_sent(state, row, slot):
    """The packet in send slot `slot`, just queued for transport `row`, carries the number `next_number`,
    and belongs to the probe cluster that runs, if one does."""
    transport, log = state.transports[row], state.send_logs[row]
    if transport.next_number == SEQUENCE_START:  # most transports send nothing: a page not written costs nothing
        begin_log(state, row)
    place = np.int64(transport.next_number) & (SENT_PACKETS - 1)
    transport.next_number += 1
    size = np.int64(state.tx_size[slot]) + udp_ip_bytes(state.paths[state.tx_path[slot]].family)
    entry = log.entries[place]
    entry.flush = np.int64(state.thread[0].flushes) & 0xFFFFFFFF
    entry.size = size
    entry.cluster = transport.probe_cluster
    entry.state = SentState.SENT
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
        logged = np.int64(state.tx_log[slot])
        if logged == NOT_LOGGED:
            continue
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
