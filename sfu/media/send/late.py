"""Repeats of packets that may only come late: they wait until it is known that these are lost.

libwebrtc sends a NACK as soon as a number is missing, so on a path that reorders packets it asks for many that are on
their way. As RACK does it for TCP (RFC 8985 section 6.2), a packet is taken for lost there once one has arrived that
left later by more than the path reorders. How much that is, the arrival times of transport-cc feedback say: the late
time offset of RFC 4737 section 4.3. On a path that keeps the order nothing waits, nor where no feedback comes.
"""

import numpy as np
from numba import njit

from sfu.media.net.send_log import sent_at
from sfu.schema.capacities import HELD_REPEATS, SENT_PACKETS, SEQUENCE_START
from sfu.schema.codes import SentState

LEAST_LATE_NS, MOST_LATE_NS = 2_000_000, 100_000_000
"""A path that reorders less is taken to keep the order, and none to reorder more."""
FORGOTTEN_PART = 16
"""Each feedback takes one of so many parts of what earlier ones said: after some seconds in order nothing is left."""
MARGIN_PERCENT = 150
"""The latest packet of some seconds is not the latest that may come."""
HELD_NS = 150_000_000
"""How long a repeat waits beyond the round trip since the packet left, if feedback does not tell what became of it:
libwebrtc reports every 50 to 250 ms."""
DOUBTED = 64
"""Bit of `resent` of a packet whose repeat waits."""

OPEN, CAME, MISSING = 0, 1, 2
"""What is known of a packet: nothing yet, that it has arrived, or that it has to be sent again."""


@njit(cache=True)
def note_order(log, late_ns):
    """Feedback says that a packet arrived so long after one that had left later; 0: all came in order."""
    log.late_ns = max(min(late_ns, MOST_LATE_NS), log.late_ns - log.late_ns // FORGOTTEN_PART)


@njit(cache=True)
def repeat_is_held(state, transport_row, copy, sent, now):
    """Whether a repeat is not to leave now: it waits, or is needed no more. `sent` is its history row, copy: what
    `send_logs.copies` says of its packet."""
    log = state.send_logs[transport_row]
    if log.late_ns < LEAST_LATE_NS or log.held_count >= HELD_REPEATS or not state.transports[transport_row].estimated:
        return False
    estimate = state.estimates[transport_row]
    if estimate.feedbacks == 0 or estimate.silent:
        return False
    number = _newest_copy(state, transport_row, copy, now)
    known = fate_of(state, transport_row, number, now)
    if known == OPEN:
        held = log.held[log.held_count]
        held.number, held.copy = number, copy
        log.held_count += 1
        sent.resent |= DOUBTED
    return known != MISSING


@njit(cache=True)
def _newest_copy(state, row, copy, now):
    """The transport-wide number under which a packet left last for transport `row`; below SEQUENCE_START: so long ago
    that it is missing in any case, or the log has forgotten it."""
    log, number = state.send_logs[row], np.int64(state.transports[row].next_number) - 1
    oldest, given_up = max(number + 1 - SENT_PACKETS, SEQUENCE_START), now - state.estimates[row].rtt_ns - HELD_NS
    in_hand = np.int64(state.thread[0].flushes) & 0xFFFFFFFF  # the flush that has no time yet
    while number >= oldest:
        place = number & (SENT_PACKETS - 1)
        if np.int64(log.copies[place]) == copy:
            return number
        entry = log.entries[place]
        if np.int64(entry.flush) != in_hand and sent_at(state, entry) < given_up:
            break
        number -= 1
    return np.int64(SEQUENCE_START - 1)


@njit(cache=True)
def fate_of(state, row, number, now):
    """What is known of the packet that left for transport `row` under a transport-wide number."""
    log = state.send_logs[row]
    if number < max(np.int64(state.transports[row].next_number) - SENT_PACKETS, SEQUENCE_START):
        return MISSING
    entry = log.entries[number & (SENT_PACKETS - 1)]
    sent_ns = sent_at(state, entry)
    if now - sent_ns > state.estimates[row].rtt_ns + HELD_NS or entry.state == SentState.UNSENT:
        return MISSING
    if entry.state == SentState.RECEIVED:
        return CAME
    if entry.state == SentState.LOST:
        later_ns = sent_at(state, log.entries[log.newest_reported & (SENT_PACKETS - 1)]) - sent_ns
        if later_ns * 100 > log.late_ns * MARGIN_PERCENT:
            return MISSING
    return OPEN
