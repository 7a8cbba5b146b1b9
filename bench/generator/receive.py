"""What the generator's subscribers receive: packets are decrypted, assigned to a stream, counted and timed."""

import socket

import numpy as np
from numba import njit

from bench.generator.histogram import bucket_of
from bench.generator.rtcp import EARLY_FEEDBACK, note_found, note_missing, receive_rtcp, send_feedback, send_nacks
from bench.generator.send import CLOCK_MONOTONIC, mark_at, read_clock
from bench.generator.tables import CONTROL_WORDS, SLOT_BYTES, SLOTS, SOURCE_SLOTS, SOURCES
from bench.plans import RTX_PAYLOAD_TYPE
from sfu.compiler.native import recvmmsg, srtp_unprotect
from sfu.media.receive.transport_cc import log_arrival
from sfu.media.wire.numbers import extend16, get_u16, get_u32, signed32

PADDED = 0x20
"""The padding bit in the first byte of RTP (RFC 3550 section 5.1)."""
MSG_DONTWAIT = 0x40
SCM_TIMESTAMPNS = 35
FIRST_RTCP_TYPE, LAST_RTCP_TYPE = 192, 223
"""Second bytes that are RTCP (RFC 5761 section 4)."""
_CONTROL_TIME = socket.SOL_SOCKET | SCM_TIMESTAMPNS << 32
_SECOND = 1_000_000_000
_LENGTH = 4
_MULTIPLIER, _INCREMENT = np.uint64(6364136223846793005), np.uint64(1442695040888963407)


@njit(cache=True)
def _chance(control):
    """Return the next pseudo-random number from 0 to 1."""
    control.random = control.random * _MULTIPLIER + _INCREMENT
    return np.float64(control.random >> np.uint64(11)) / 9007199254740992.0


@njit(cache=True)
def find_source(g, row, ssrc):
    """Return the source row of an SSRC at endpoint `row`, which is made if it is new; -1: the table is full."""
    place = (row * 2654435761 ^ ssrc * 40503) & (SOURCE_SLOTS - 1)
    while g.source_slots[place] != 0:
        found = np.int64(g.source_slots[place]) - 1
        source = g.sources[found]
        if source.ssrc == ssrc and source.endpoint == row:
            return found
        place = (place + 1) & (SOURCE_SLOTS - 1)
    control = g.control[0]
    new = control.source_end
    if new == SOURCES:
        control.sources_full += 1
        return -1
    control.source_end += 1
    g.source_slots[place] = new + 1
    source, endpoint = g.sources[new], g.transports[row]
    source.endpoint = row
    source.ssrc = ssrc
    source.highest = -1
    source.send = -1
    source.next = endpoint.first_source
    endpoint.first_source = new + 1
    return new


@njit(cache=True)
def _arrival(g, k, now):
    """Return the kernel's arrival time of slot k, in ns of the monotonic clock."""
    control = g.rx_control[k]
    if g.rx_messages[k].control_bytes >= 32 and control[1] == _CONTROL_TIME:
        wall = np.int64(control[2]) * _SECOND + np.int64(control[3])
        return min(wall - g.control[0].wall_offset_ns, now)
    return now


@njit(cache=True)
def _payload_at(packet, size):
    """Return the offset of the payload; -1: the packet is malformed."""
    at = 12 + 4 * (np.int64(packet[0]) & 15)
    if packet[0] & 0x10:
        if at + 4 > size:
            return -1
        at += 4 + 4 * get_u16(packet, at + 2)
    return at if at <= size else -1


@njit(cache=True)
def _log_transport_sequence(g, row, packet, end, ssrc, arrival):
    """Find the transport-wide number in a one-byte extension block that ends at `end`, and log it."""
    wanted = g.transports[row].transport_cc_id
    if wanted == 0 or not packet[0] & 0x10:
        return
    at = 12 + 4 * (np.int64(packet[0]) & 15)
    if get_u16(packet, at) != 0xBEDE:
        return
    at += 4
    while at < end:
        identifier, size = np.int64(packet[at]) >> 4, (np.int64(packet[at]) & 15) + 1
        if packet[at] == 0:
            at += 1
            continue
        if identifier == wanted and at + 2 < end:
            log_arrival(g, row, get_u16(packet, at + 1), ssrc, arrival)
            return
        at += 1 + size


@njit(cache=True)
def _count(source, endpoint, packet, arrival):
    """Update the reception statistics and gaps of a source (RFC 3550 appendix A)."""
    sequence = get_u16(packet, 2)
    extended = extend16(sequence, source.highest)
    if source.highest < 0:
        source.base = extended
        source.highest = extended - 1
    source.received += 1
    if extended <= source.highest:
        note_found(source, sequence)
        return
    if not source.repair:
        for number in range(max(source.highest + 1, extended - SLOTS), extended):
            note_missing(endpoint, source, number)
    source.highest = extended
    ticks = arrival // 1000 * source.clock_rate // 1_000_000
    transit = signed32(ticks - get_u32(packet, 4))
    if source.transit != 0:
        source.jitter += abs(signed32(transit - source.transit)) - ((source.jitter + 8) >> 4)
    source.transit = transit if transit != 0 else 1


@njit(cache=True)
def _measure(g, source, row, index, sent, arrival):
    """Count a packet that was sent in the window: number `index` of stream `row`."""
    control = g.control[0]
    control.delivered += 1
    source.delivered += 1
    if sent >= source.first_ns:  # a new viewer may be given what was sent before it came
        g.histogram[bucket_of(arrival - sent)] += 1
    if source.repair:
        return
    if source.runs == 0 or source.send != row:
        if source.runs > 0:
            source.expected += source.run_highest - source.run_first + 1
        source.runs += 1
        source.run_first = source.run_highest = index
    source.run_first = min(source.run_first, index)
    source.run_highest = max(source.run_highest, index)


@njit(cache=True)
def _repaired(g, row, send, packet, at):
    """Tell whether the RTX packet with its payload at `at` brings a missing packet."""
    original = get_u16(packet, at)
    k = np.int64(g.transports[row].first_source) - 1
    while k >= 0:
        source = g.sources[k]
        if not source.repair and source.send == send and note_found(source, original):
            g.control[0].repaired += 1
            return True
        k = np.int64(source.next) - 1
    return False


@njit(cache=True)
def _receive_rtp(g, row, packet, size, arrival):
    """Handle a decrypted RTP packet of `size` bytes."""
    control, endpoint = g.control[0], g.transports[row]
    at = _payload_at(packet, size)
    if at < 0:
        control.rejected += 1
        return
    control.received += 1
    endpoint.received += 1
    if packet[0] & PADDED:
        size -= np.int64(packet[size - 1])
    if endpoint.first_media_ns == 0:
        endpoint.first_media_ns = arrival
    ssrc = get_u32(packet, 8)
    _log_transport_sequence(g, row, packet, at, ssrc, arrival)
    found = find_source(g, row, ssrc)
    mark = mark_at(packet, at, size)
    if mark < 0 or found < 0:
        control.stranger += 1
        return
    source = g.sources[found]
    send = get_u32(packet, mark + 4)
    if send >= control.send_end:
        control.stranger += 1
        return
    if source.first_ns == 0:
        source.first_ns = arrival
    source.repair = packet[1] & 127 == RTX_PAYLOAD_TYPE
    source.clock_rate = g.sends[send].clock_rate
    _count(source, endpoint, packet, arrival)
    if source.repair and not _repaired(g, row, send, packet, at):
        return
    sent = get_u32(packet, mark + 12) << 32 | get_u32(packet, mark + 16)
    if endpoint.counted and control.measure_ns <= sent < control.end_ns:
        _measure(g, source, send, get_u32(packet, mark + 8), sent, arrival)
    source.send = send


@njit(cache=True)
def _receive_slot(g, row, k, now):
    control, endpoint, packet = g.control[0], g.transports[row], g.rx[k]
    size = np.int64(g.rx_messages[k].bytes)
    if size < 12 or packet[0] >> 6 != 2:
        return  # answers to connectivity checks
    if FIRST_RTCP_TYPE <= packet[1] <= LAST_RTCP_TYPE:
        receive_rtcp(g, row, k, size, now)
        return
    if control.loss > 0 and _chance(control) < control.loss:
        control.thrown += 1
        return
    if endpoint.incoming != 0:
        g.scratch[_LENGTH] = size
        at = control.rx_at + np.uint64(k * SLOT_BYTES)
        if srtp_unprotect(endpoint.incoming, at, control.scratch_at + np.uint64(8 * _LENGTH)) != 0:
            control.rejected += 1
            return
        size = g.scratch[_LENGTH] & 0xFFFFFFFF
    _receive_rtp(g, row, packet, size, _arrival(g, k, now))


@njit(cache=True)
def receive_endpoint(g, row):
    """Read up to SLOTS datagrams of one endpoint and answer what cannot wait; return the time, in ns."""
    endpoint = g.transports[row]
    for k in range(SLOTS):
        g.rx_messages[k].control_bytes = CONTROL_WORDS * 8
    count = np.int64(recvmmsg(endpoint.fd, g.control[0].rx_messages_at, SLOTS, MSG_DONTWAIT, 0))
    now = read_clock(g, CLOCK_MONOTONIC)
    for k in range(count):
        _receive_slot(g, row, k, now)
    if endpoint.nack_now:
        send_nacks(g, row)
    if g.arrivals[row].highest - g.arrivals[row].first >= EARLY_FEEDBACK:
        send_feedback(g, row, now)
    return now
