"""What a peer says it received of what we sent it
(transport-cc, draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1).

Every packet that a feedback names is looked up in the transport's send log, and what is new about it goes to the
estimate of the path. A number may be named several times, as lost and later as received; each packet counts once.
Where a path loses by chance, what is reported lost is sent again at once.
"""

import numpy as np
from numba import njit

from sfu.media.allocation.due import list_transport
from sfu.media.bandwidth.estimate import (
    begin_feedback,
    end_feedback,
    packet_lost,
    packet_received,
    packet_recovered,
)
from sfu.media.bandwidth.passes import begin_estimate
from sfu.media.net.send_log import note_burst, sent_at
from sfu.media.net.udp import borrow_arena
from sfu.media.send.repair_share import loses_by_chance
from sfu.media.send.retransmit import answer_nack
from sfu.media.send.selection import receive_key_frame_request
from sfu.media.wire.numbers import extend16, get_u16, get_u24, signed16, signed24
from sfu.media.wire.rtcp import (
    LARGE,
    MAX_RUN,
    NOT_RECEIVED,
    ONE_BIT_STATUSES,
    SMALL,
    TICK_NS,
    TICKS_PER_REFERENCE,
    TWO_BIT_STATUSES,
)
from sfu.schema.capacities import SENT_PACKETS, SEQUENCE_START
from sfu.schema.codes import Drop, SentState

BASE_AT, COUNT_AT, REFERENCE_AT, CHUNKS_AT = 12, 14, 16, 20
"""Offsets from the beginning of the RTCP packet."""
MALFORMED = -1
NEWLY_LOST = 3
"""In `statuses`, of a packet that the feedback in hand is the first to report as not received. No such symbol is valid
on the wire."""
FEEDBACK_COST, STATUSES_OF_A_NACK = 16, 8
"""In numbers that are answered as missing: what a feedback costs, and how many statuses cost as much as one."""


@njit(cache=True)
def receive_transport_feedback(state, row, data, at, end, budget, now):
    """Take the feedback packet at data[at:end] of transport `row`, of which at least CHUNKS_AT bytes are there.

    budget: what its datagram may yet cost; returns what is left of it.
    """
    count = get_u16(data, at + COUNT_AT)
    cost = FEEDBACK_COST + count // STATUSES_OF_A_NACK
    if cost > budget:
        state.drops[Drop.FEEDBACK_UNKNOWN] += 1
        return budget
    return budget - cost - _take_feedback(state, row, data, at, end, count, budget - cost, now)


@njit(cache=True)
def _take_feedback(state, row, data, at, end, count, budget, now):
    """Take the feedback packet at data[at:end] about `count` numbers. Returns how many packets were sent again."""
    log, transport = state.send_logs[row], state.transports[row]
    deltas_at = _read_statuses(state, data, at + CHUNKS_AT, end, count)
    if deltas_at == MALFORMED or _bytes_of_deltas(state, count) > end - deltas_at:
        state.drops[Drop.RTCP_MALFORMED] += 1
        return 0
    first = extend16(get_u16(data, at + BASE_AT), np.int64(transport.next_number) - 1)
    oldest = max(max(transport.next_number - SENT_PACKETS, SEQUENCE_START), log.path_number)
    if first >= transport.next_number or first + count <= oldest:
        state.drops[Drop.FEEDBACK_UNKNOWN] += 1
        return 0
    arrival = _reference_ns(log, get_u24(data, at + REFERENCE_AT))
    log.feedbacks += 1
    begin_estimate(state, row, now)
    estimate = state.estimates[row]
    if estimate.silent:
        log.resumed_number = transport.next_number
        _show_again(state, row, now)
    begin_feedback(estimate, now)
    for k in range(count):
        status = state.statuses[k]
        if status == SMALL:
            arrival += np.int64(data[deltas_at]) * TICK_NS
            deltas_at += 1
        elif status == LARGE:
            arrival += signed16(get_u16(data, deltas_at)) * TICK_NS
            deltas_at += 2
        number = first + k
        known = oldest <= number < transport.next_number
        if known and _take_status(state, log, estimate, number, status != NOT_RECEIVED, arrival):
            state.statuses[k] = NEWLY_LOST
    end_feedback(estimate, now)
    return _repeat_lost(state, row, first, count, budget, now) if loses_by_chance(state, row) else 0


@njit(cache=True)
def _repeat_lost(state, row, first, count, budget, now):
    """Repeat what feedback about `count` numbers from `first` on reports as lost, `budget` packets at most, without
    waiting for a NACK: that is lost as often as they are, and is sent again after 100 ms only. Returns how many."""
    log, arena, repeated = state.send_logs[row], borrow_arena(state), 0
    for k in range(count):
        copy = np.int64(log.copies[(first + k) & (SENT_PACKETS - 1)])
        if state.statuses[k] != NEWLY_LOST or copy == 0 or repeated >= budget:
            continue
        if state.subscriptions[copy >> 16].transport == row:
            repeated += 1
            answer_nack(state, arena, copy >> 16, copy & 0xFFFF, now)
    return repeated


@njit(cache=True)
def _show_again(state, row, now):
    """Feedback of transport `row` is back: its videos get key frames as if it had asked for them, since what was sent
    meanwhile hardly arrived, and its bandwidth is shared out anew. What they lost meanwhile says nothing of what the
    path carries."""
    state.transports[row].returned_ns = now
    number = np.int64(state.transports[row].first_subscription)
    while number >= 0:
        subscription = state.subscriptions[number]
        if subscription.layer < 0:
            subscription.by_bandwidth = subscription.lost_keys = 0
        receive_key_frame_request(state, number, now)
        number = np.int64(subscription.next_of_transport)
    list_transport(state, row, True)


@njit(cache=True)
def _take_status(state, log, estimate, number, received, arrival):
    """What one feedback says of one packet, if it is news. Returns whether the packet is lost, and was not known to
    be."""
    entry = log.entries[number & (SENT_PACKETS - 1)]
    size = np.int64(entry.size)
    if entry.state == SentState.SENT:
        sent_ns = sent_at(state, entry)
        if sent_ns == 0:
            return False
        note_burst(log, entry, received)
        if received:
            entry.state = SentState.RECEIVED
            log.newest_reported = max(log.newest_reported, number)
            packet_received(estimate, sent_ns, arrival, size, np.int64(entry.cluster))
        else:
            entry.state = SentState.LOST
            log.reported_lost += 1
            if number >= log.resumed_number:  # an interruption is no sign of too much
                packet_lost(estimate, sent_ns, size)
            return True
    elif entry.state == SentState.LOST and received:
        entry.state = SentState.RECEIVED
        log.reported_lost -= 1
        if number >= log.resumed_number:
            packet_recovered(estimate, sent_at(state, entry), size)
    return False


@njit(cache=True)
def _read_statuses(state, data, at, end, count):
    """Spread the packet status chunks at data[at:end] over state.statuses[:count]; returns where the deltas begin.

    MALFORMED: the chunks end too early, have a reserved symbol, or are about more packets than anybody remembers.
    """
    if count == 0 or count > SENT_PACKETS:
        return MALFORMED
    statuses = state.statuses
    k = 0
    while k < count:
        if at + 2 > end:
            return MALFORMED
        chunk = get_u16(data, at)
        at += 2
        if chunk & 0x8000 == 0:  # section 3.1.3: a run
            symbol, run = chunk >> 13, min(chunk & MAX_RUN, count - k)
            if symbol == 3 or run == 0:
                return MALFORMED
            for n in range(run):
                statuses[k + n] = symbol
            k += run
        elif chunk & 0x4000:  # section 3.1.4: seven symbols of two bits
            for n in range(min(TWO_BIT_STATUSES, count - k)):
                symbol = chunk >> (12 - 2 * n) & 3
                if symbol == 3:
                    return MALFORMED
                statuses[k + n] = symbol
            k += min(TWO_BIT_STATUSES, count - k)
        else:  # fourteen of one bit
            for n in range(min(ONE_BIT_STATUSES, count - k)):
                statuses[k + n] = chunk >> (13 - n) & 1
            k += min(ONE_BIT_STATUSES, count - k)
    return at


@njit(cache=True)
def _bytes_of_deltas(state, count):
    """How many bytes the receive deltas of state.statuses[:count] take."""
    total = 0
    for k in range(count):
        total += np.int64(state.statuses[k])  # a small delta has one byte, a large one two
    return total


@njit(cache=True)
def _reference_ns(log, low):
    """The reference time of a feedback in ns, its 24 bits counted on from the one before."""
    if log.feedbacks == 0:
        log.reference = low
    else:
        log.reference += signed24(low - log.reference)
    return log.reference * TICKS_PER_REFERENCE * TICK_NS
