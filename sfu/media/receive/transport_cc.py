"""Transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01).

Every authenticated packet of a transport is logged by its transport-wide sequence number before it is known whose it
is, because the sender's bandwidth estimate is made of all of them. The log holds the last ARRIVALS numbers;
a number that comes late moves the base of the next feedback back, as libwebrtc's receivers do.
"""

import numpy as np
from numba import njit

from sfu.media.net.report_share import FEEDBACK_PERMILLE, SRTCP_BYTES, spaced_ns
from sfu.media.net.srtp import send_rtcp
from sfu.media.net.udp import take_slot
from sfu.media.wire.numbers import extend16, put_u16, put_u24, put_u32
from sfu.media.wire.rtcp import (
    LARGE,
    MAX_RUN,
    NOT_RECEIVED,
    ONE_BIT_STATUSES,
    RTP_FEEDBACK,
    SMALL,
    TICK_NS,
    TICKS_PER_REFERENCE,
    TRANSPORT_CC,
    TWO_BIT_STATUSES,
    begin_compound,
)
from sfu.schema.capacities import ARRIVALS

INTERVAL_NS, MAX_INTERVAL_NS = 50_000_000, 250_000_000
"""Least time between two feedback packets, but for a log that fills up; and most, where the path to the publisher
carries little: the range of libwebrtc's receivers."""
EARLY_COUNT = ARRIVALS // 2
MAX_STATUSES = 400
"""Numbers in one feedback packet: even if all deltas take two bytes it stays below 1000 bytes."""


@njit(cache=True)
def log_arrival(state, transport_row, sequence, ssrc, arrival):
    """A packet with transport-wide number `sequence` (16 bits) arrived at `arrival` ns."""
    log = state.arrivals[transport_row]
    log.media_ssrc = ssrc
    if log.highest <= 0:  # extended numbers start at SEQUENCE_START
        log.highest = extend16(sequence, -1)
        log.first = log.highest
        log.arrival_ns[log.highest & (ARRIVALS - 1)] = max(arrival, 1)
        log.count = 1
        return
    extended = extend16(sequence, log.highest)
    if extended <= log.highest - ARRIVALS:
        return
    if extended > log.highest:
        for missing in range(max(log.highest + 1, extended - ARRIVALS + 1), extended):
            log.arrival_ns[missing & (ARRIVALS - 1)] = 0
        log.highest = extended
        log.first = max(log.first, extended - ARRIVALS + 1)
    elif log.arrival_ns[extended & (ARRIVALS - 1)] != 0:
        return
    log.first = min(log.first, extended)
    log.arrival_ns[extended & (ARRIVALS - 1)] = max(arrival, 1)
    log.count += 1


@njit(cache=True)
def feedback_due(state, transport_row, now):
    """Whether a feedback packet should be written now (ns)."""
    log = state.arrivals[transport_row]
    if log.count == 0:
        return False
    if log.highest - log.first >= EARLY_COUNT:
        return True
    if now - log.sent_ns < INTERVAL_NS:
        return False
    size = np.int64(log.sent_bytes)
    return now - log.sent_ns >= spaced_ns(state, transport_row, size, FEEDBACK_PERMILLE, INTERVAL_NS, MAX_INTERVAL_NS)


@njit(cache=True)
def _reference_of(log):
    """The reference time: of the first number received from log.first on, which the reference has to precede.

    Numbers before it are reported as lost, unless they alone would fill the packet: then the base moves on.
    """
    received = log.first
    while received < log.highest and log.arrival_ns[received & (ARRIVALS - 1)] == 0:
        received += 1
    if received - log.first >= MAX_STATUSES:
        log.first = received
    return log.arrival_ns[received & (ARRIVALS - 1)] // (TICK_NS * TICKS_PER_REFERENCE)


@njit(cache=True)
def _gather(state, log, base, reference):
    """Fill state.symbols with the statuses from `base` on. Returns how many one packet takes; the last is received."""
    previous = reference * TICKS_PER_REFERENCE
    count = 0
    for k in range(min(log.highest - base + 1, MAX_STATUSES)):
        arrival = log.arrival_ns[(base + k) & (ARRIVALS - 1)]
        if arrival == 0:
            state.symbols[k] = NOT_RECEIVED
            continue
        ticks = arrival // TICK_NS
        delta = ticks - previous
        if delta < -0x8000 or delta > 0x7FFF:
            break
        state.symbols[k] = SMALL if 0 <= delta <= 0xFF else LARGE
        previous = ticks
        count = k + 1
    return count


@njit(cache=True)
def _write_chunks(state, data, at, count):
    """Packet status chunks for state.symbols[:count]; returns the offset behind them."""
    symbols = state.symbols
    k = 0
    while k < count:
        run = 1
        while k + run < count and run < MAX_RUN and symbols[k + run] == symbols[k]:
            run += 1
        if run > ONE_BIT_STATUSES or k + run == count:
            put_u16(data, at, np.int64(symbols[k]) << 13 | run)
            k += run
            at += 2
            continue
        wide = min(ONE_BIT_STATUSES, count - k)
        large = False
        for n in range(wide):
            large = large or symbols[k + n] == LARGE
        chunk = np.int64(0)
        if large:
            wide = min(TWO_BIT_STATUSES, count - k)
            for n in range(wide):
                chunk |= np.int64(symbols[k + n]) << (12 - 2 * n)
            chunk |= 0xC000
        else:
            for n in range(wide):
                chunk |= np.int64(symbols[k + n]) << (13 - n)
            chunk |= 0x8000
        put_u16(data, at, chunk)
        k += wide
        at += 2
    return at


@njit(cache=True)
def _write_deltas(state, log, data, at, base, reference, count):
    previous = reference * TICKS_PER_REFERENCE
    for k in range(count):
        if state.symbols[k] == NOT_RECEIVED:
            continue
        ticks = log.arrival_ns[(base + k) & (ARRIVALS - 1)] // TICK_NS
        if state.symbols[k] == SMALL:
            data[at] = ticks - previous
            at += 1
        else:
            put_u16(data, at, (ticks - previous) & 0xFFFF)
            at += 2
        previous = ticks
    return at


@njit(cache=True)
def write_feedback(state, transport_row, data, at, now):
    """Write one feedback packet at data[at:] (about 1000 bytes of room) and move the log's base behind it.

    Returns the offset behind the packet, `at` itself when nothing is left to report. It ends in padding, so it must
    be the last packet of its compound. Call again while log.first <= log.highest.
    """
    log = state.arrivals[transport_row]
    log.sent_ns = now
    if log.highest <= 0 or log.first > log.highest:
        log.count = 0
        return at
    reference = _reference_of(log)
    base = log.first
    count = _gather(state, log, base, reference)
    end = _write_chunks(state, data, at + 20, count)
    end = _write_deltas(state, log, data, end, base, reference, count)
    padding = (at - end) & 3
    for k in range(padding):
        data[end + k] = padding if k == padding - 1 else 0
    end += padding
    data[at] = 0x80 | (0x20 if padding else 0) | TRANSPORT_CC
    data[at + 1] = RTP_FEEDBACK
    put_u16(data, at + 2, (end - at) // 4 - 1)
    put_u32(data, at + 4, np.int64(state.transports[transport_row].ssrc))
    put_u32(data, at + 8, np.int64(log.media_ssrc))
    put_u16(data, at + 12, base & 0xFFFF)
    put_u16(data, at + 14, count)
    put_u24(data, at + 16, reference & 0xFFFFFF)
    data[at + 19] = log.feedback_count
    log.feedback_count = (np.int64(log.feedback_count) + 1) & 255
    log.first = base + count
    if log.first > log.highest:
        log.count = 0
    return end


@njit(cache=True)
def send_transport_feedback(state, transport_row, now):
    """Send the transport-cc feedback of one transport, in as many packets as it takes. What all of them take decides
    when the next is due."""
    log, total = state.arrivals[transport_row], 0
    while log.count > 0:
        slot = take_slot(state)
        at = begin_compound(state.tx[slot], np.int64(state.transports[transport_row].ssrc))
        end = write_feedback(state, transport_row, state.tx[slot], at, now)
        if end == at or not send_rtcp(state, transport_row, slot, end):
            break
        total += end + SRTCP_BYTES
    log.sent_bytes = total
