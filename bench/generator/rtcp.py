"""RTCP of the generator's endpoints: reports, transport-cc feedback and NACK as clients send them; key frame requests.

The arrival log and the form of transport-cc feedback are those of `sfu.media.receive.transport_cc`, used from the other
side.
"""

import numpy as np
from numba import njit

from bench.generator.send import CLOCK_REALTIME, read_clock, rtp_time, send_slots
from bench.generator.tables import MISSING, SLOT_BYTES
from sfu.compiler.native import srtp_protect_rtcp, srtp_unprotect_rtcp
from sfu.media.receive.reception import delay_units
from sfu.media.receive.transport_cc import write_feedback
from sfu.media.wire.numbers import get_u16, get_u32, put_u16, put_u24, put_u32

SENDER_REPORT, RECEIVER_REPORT, DESCRIPTION, RTP_FEEDBACK, PAYLOAD_FEEDBACK = 200, 201, 202, 205, 206
NACK, PLI, FIR = 1, 1, 4
CHECK_NS = 2_500_000_000
EARLY_FEEDBACK = 256
"""Transport-wide numbers after which feedback does not wait for its turn: half of the log."""
MAX_BLOCKS = 31
MAX_TRIES = 5
"""Requests for one packet; libwebrtc's is 10, but what comes after half a second counts as lost here."""
SEQUENCE_START = 1 << 16
NTP_UNIX_SECONDS = 2_208_988_800
_SECOND = 1_000_000_000
_LENGTH = 4


@njit(cache=True)
def _send(g, row, size):
    """Protect and send the compound packet in slot 0."""
    endpoint, control = g.transports[row], g.control[0]
    if endpoint.outgoing == 0:
        return
    g.scratch[_LENGTH] = size
    srtp_protect_rtcp(endpoint.outgoing, control.tx_at, control.scratch_at + np.uint64(8 * _LENGTH))
    g.tx_iov[0].bytes = g.scratch[_LENGTH] & 0xFFFFFFFF
    send_slots(g, endpoint, 1)


@njit(cache=True)
def _begin(g, row, blocks):
    """Start a compound in slot 0 with a receiver report; returns the offset behind its fixed part."""
    data = g.tx[0]
    data[0] = 0x80 | blocks
    data[1] = RECEIVER_REPORT
    put_u16(data, 2, 1 + 6 * blocks)
    put_u32(data, 4, np.int64(g.transports[row].ssrc))
    return 8


@njit(cache=True)
def _write_block(source, data, at, now):
    """The 24 bytes about one source, RFC 3550 section 6.4.1; closes its interval."""
    expected = source.highest - source.base + 1
    lost = expected - source.received
    interval = expected - source.expected_prior
    lost_interval = interval - (source.received - source.received_prior)
    source.expected_prior = expected
    source.received_prior = source.received
    fraction = min((max(lost_interval, 0) << 8) // interval, 255) if interval > 0 else 0
    put_u32(data, at, np.int64(source.ssrc))
    data[at + 4] = fraction
    put_u24(data, at + 5, max(lost, 0))
    put_u32(data, at + 8, source.highest - SEQUENCE_START)
    put_u32(data, at + 12, source.jitter >> 4)
    put_u32(data, at + 16, source.report_middle)
    put_u32(data, at + 20, delay_units(now - source.report_ns) if source.report_ns else 0)


@njit(cache=True)
def send_receiver_reports(g, row, now):
    """Send reports about every source that brought something since the last report."""
    endpoint = g.transports[row]
    count, at = 0, 8
    k = np.int64(endpoint.first_source) - 1
    while k >= 0:
        source = g.sources[k]
        if source.received > source.received_prior:
            _write_block(source, g.tx[0], at, now)
            count += 1
            at += 24
        k = np.int64(source.next) - 1
        if count == MAX_BLOCKS or (k < 0 and count > 0):
            _begin(g, row, count)
            _send(g, row, at)
            count, at = 0, 8


@njit(cache=True)
def send_sender_reports(g, row, now):
    """Send one compound with a sender report and the CNAME for each stream of the endpoint."""
    k = np.int64(g.transports[row].first_send)
    while k >= 0:
        send = g.sends[k]
        if send.index > 0 and not send.muted:
            wall = read_clock(g, CLOCK_REALTIME)
            data, ssrc = g.tx[0], np.int64(send.ssrc)
            data[0] = 0x80
            data[1] = SENDER_REPORT
            put_u16(data, 2, 6)
            put_u32(data, 4, ssrc)
            put_u32(data, 8, wall // _SECOND + NTP_UNIX_SECONDS)
            put_u32(data, 12, ((wall % _SECOND) << 32) // _SECOND)
            put_u32(data, 16, rtp_time(now, send.clock_rate))
            put_u32(data, 20, send.index)
            put_u32(data, 24, send.octets & 0xFFFFFFFF)
            data[28] = 0x81
            data[29] = DESCRIPTION
            put_u16(data, 30, 2)
            put_u32(data, 32, ssrc)
            put_u32(data, 36, 0x01016200)  # CNAME "b"
            _send(g, row, 40)
        k = np.int64(send.next)


@njit(cache=True)
def send_feedback(g, row, now):
    """Send transport-cc feedback about what arrived since the last one."""
    log = g.arrivals[row]
    while log.count > 0:
        before = log.first
        at = _begin(g, row, 0)
        end = write_feedback(g, row, g.tx[0], at, now)
        if end == at:
            return
        _send(g, row, end)
        if log.first <= before:
            return


@njit(cache=True)
def send_nacks(g, row):
    """Request missing packets again. What was requested MAX_TRIES times is given up."""
    endpoint = g.transports[row]
    endpoint.nack_now = 0
    endpoint.missing = 0
    k = np.int64(endpoint.first_source) - 1
    while k >= 0:
        source = g.sources[k]
        if source.missing_count > 0:
            _send_nack(g, row, source)
            endpoint.missing += source.missing_count
        k = np.int64(source.next) - 1


@njit(cache=True)
def _send_nack(g, row, source):
    data = g.tx[0]
    at = _begin(g, row, 0)
    end, kept = at + 12, 0
    for n in range(np.int64(source.missing_count)):
        if source.missing_tries[n] >= MAX_TRIES:
            continue
        source.missing[kept] = source.missing[n]
        source.missing_tries[kept] = source.missing_tries[n] + 1
        put_u16(data, end, source.missing[kept] & 0xFFFF)
        put_u16(data, end + 2, 0)
        end += 4
        kept += 1
    source.missing_count = kept
    if kept == 0:
        return
    g.control[0].nacked += kept
    data[at] = 0x80 | NACK
    data[at + 1] = RTP_FEEDBACK
    put_u16(data, at + 2, (end - at) // 4 - 1)
    put_u32(data, at + 4, np.int64(g.transports[row].ssrc))
    put_u32(data, at + 8, np.int64(source.ssrc))
    _send(g, row, end)


@njit(cache=True)
def note_missing(endpoint, source, sequence):
    """Note that the packet with extended number `sequence` is missing."""
    if source.missing_count < MISSING:
        source.missing[source.missing_count] = sequence
        source.missing_tries[source.missing_count] = 0
        source.missing_count += 1
        endpoint.missing += 1
        endpoint.nack_now = 1


@njit(cache=True)
def note_found(source, sequence):
    """Note that a packet came; return whether it was missing."""
    for n in range(np.int64(source.missing_count)):
        if source.missing[n] & 0xFFFF == sequence & 0xFFFF:
            source.missing_count -= 1
            source.missing[n] = source.missing[source.missing_count]
            source.missing_tries[n] = source.missing_tries[source.missing_count]
            return True
    return False


@njit(cache=True)
def _request_key(g, row, ssrc):
    k = np.int64(g.transports[row].first_send)
    while k >= 0:
        if g.sends[k].ssrc == ssrc:
            g.sends[k].key_requested = 1
            g.control[0].key_requests += 1
        k = np.int64(g.sends[k].next)


@njit(cache=True)
def _note_report(g, row, ssrc, middle, now):
    k = np.int64(g.transports[row].first_source) - 1
    while k >= 0:
        if g.sources[k].ssrc == ssrc:
            g.sources[k].report_middle = middle
            g.sources[k].report_ns = now
            return
        k = np.int64(g.sources[k].next) - 1


@njit(cache=True)
def receive_rtcp(g, row, k, size, now):
    """Handle the compound in receive slot k: sender reports and key frame requests."""
    endpoint, control, data = g.transports[row], g.control[0], g.rx[k]
    if endpoint.incoming != 0:
        g.scratch[_LENGTH] = size
        at = control.rx_at + np.uint64(k * SLOT_BYTES)
        if srtp_unprotect_rtcp(endpoint.incoming, at, control.scratch_at + np.uint64(8 * _LENGTH)) != 0:
            control.rejected += 1
            return
        size = g.scratch[_LENGTH] & 0xFFFFFFFF
    control.rtcp += 1
    at = 0
    while at + 12 <= size:
        end = at + 4 + 4 * get_u16(data, at + 2)
        packet_format, packet_type = data[at] & 31, data[at + 1]
        if end > size:
            return
        if packet_type == SENDER_REPORT and end - at >= 28:
            _note_report(g, row, get_u32(data, at + 4), get_u32(data, at + 10), now)
        elif packet_type == PAYLOAD_FEEDBACK and packet_format == PLI:
            _request_key(g, row, get_u32(data, at + 8))
        elif packet_type == PAYLOAD_FEEDBACK and packet_format == FIR:
            for entry in range(at + 12, end - 7, 8):
                _request_key(g, row, get_u32(data, entry))
        at = end
