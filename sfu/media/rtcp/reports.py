"""Sender reports for what we send, RFC 3550 sections 6.4.1 and 6.5.1: those of one subscriber together, in as few
compound packets as they fit into, further apart where its path carries little.

A subscriber gets the publisher's timeline in our clock. One shift per publisher, slewed and the same for all its
streams, leads from its NTP times to ours: what was captured together stays together whatever the shift is.
"""

import numpy as np
from numba import njit

from sfu.media.net.report_share import SENDER_REPORTS_PERMILLE, SRTCP_BYTES, spaced_ns
from sfu.media.net.srtp import can_send, send_rtcp
from sfu.media.net.udp import take_slot
from sfu.media.wire.numbers import put_u16, put_u32
from sfu.media.wire.rtcp import (
    DATAGRAM_BYTES,
    EMPTY_REPORT_BYTES,
    SENDER_INFO_BYTES,
    SENDER_REPORT,
    SOURCE_DESCRIPTION,
    ntp_to_ns,
    put_ntp,
)
from sfu.media.wire.rtp import ticks_of
from sfu.schema.codes import RowState

PERIOD_NS, MAX_PERIOD_NS = 1_000_000_000, 15_000_000_000
MAX_SILENCE_NS = 60_000_000_000
"""A publisher's report or packet that is older says nothing about now."""
MAX_SLEW = 1_000_000
"""ns by which one report moves the shift, so that no receiver sees a step."""
STEP_NS = 500_000_000
"""When the publisher's clock differs by more than this, it was set: follow at once."""
SLEW_DIVISOR = 16

SENDER_REPORT_BYTES = EMPTY_REPORT_BYTES + SENDER_INFO_BYTES
CNAME_ITEM = 1
MAX_CNAME = 32


@njit(cache=True)
def sender_reports_pass(state, now):
    """Send the reports that are due: a first one soon after the start or a switch, then one a second or, where that
    would be too much, less often."""
    thread = state.thread[0]
    for row in range(thread.stream_end):
        stream = state.streams[row]
        if stream.state == RowState.OPEN and stream.report_ntp != 0:
            _follow_clock(state, stream)
    for row in range(thread.subscription_end):
        subscription = state.subscriptions[row]
        if subscription.state != RowState.OPEN or not subscription.started or subscription.stream < 0:
            continue
        if subscription.report_ns != 0 and now - subscription.report_ns < PERIOD_NS:
            continue
        transport_row = np.int64(subscription.transport)
        size = np.int64(state.transports[transport_row].sender_reports_bytes)
        period = spaced_ns(state, transport_row, size, SENDER_REPORTS_PERMILLE, PERIOD_NS, MAX_PERIOD_NS)
        if subscription.report_ns != 0 and now - subscription.report_ns < period:
            continue
        if can_send(state, transport_row):
            thread.row_in_hand = transport_row
            _send_reports(state, transport_row, period, now)
    thread.row_in_hand = -1


@njit(cache=True)
def _send_reports(state, transport_row, period, now):
    """Send what is due on transport `transport_row` soon: those that had their last report half a period ago come
    along, so that all of them are due together from then on."""
    transport = state.transports[transport_row]
    slot, at, total = take_slot(state), 0, SRTCP_BYTES
    number = np.int64(transport.first_subscription)
    while number >= 0:
        row, subscription = number, state.subscriptions[number]
        number = np.int64(subscription.next_of_transport)
        if subscription.state != RowState.OPEN or not subscription.started or subscription.stream < 0:
            continue
        size = _report_bytes(subscription)
        total += size
        if subscription.report_ns != 0 and 2 * (now - subscription.report_ns) < period:
            continue
        if at + size > DATAGRAM_BYTES:
            send_rtcp(state, transport_row, slot, at)
            slot, at, total = take_slot(state), 0, total + SRTCP_BYTES
        at = _write_report(state, row, state.tx[slot], at, now)
    if at > 0:
        send_rtcp(state, transport_row, slot, at)
    transport.sender_reports_bytes = total


@njit(cache=True)
def _follow_clock(state, stream):
    """Let the publisher's shift follow a report that it has not seen."""
    publisher = state.transports[stream.transport]
    if stream.report_ns <= publisher.ntp_sampled_ns:
        return
    sample = stream.report_ns + state.thread[0].wall_offset_ns - ntp_to_ns(stream.report_ntp)
    difference = sample - publisher.ntp_shift_ns
    if publisher.ntp_sampled_ns != 0 and abs(difference) < STEP_NS:
        difference = min(max(difference // SLEW_DIVISOR, -MAX_SLEW), MAX_SLEW)
    publisher.ntp_shift_ns += difference
    publisher.ntp_sampled_ns = stream.report_ns


@njit(cache=True)
def _timestamp_at(state, subscription, now):
    """The subscription's RTP time at `now`; -1 when nothing says what it is."""
    stream = state.streams[subscription.stream]
    wall = now + state.thread[0].wall_offset_ns
    if stream.report_ntp != 0:
        shift = state.transports[stream.transport].ntp_shift_ns
        elapsed = wall - shift - ntp_to_ns(stream.report_ntp)
        if abs(elapsed) < MAX_SILENCE_NS:
            timestamp = np.int64(stream.report_timestamp) + ticks_of(elapsed, stream.clock_rate)
            return (timestamp - np.int64(subscription.timestamp_offset)) & 0xFFFFFFFF
    elapsed = now - subscription.last_ns
    if elapsed >= MAX_SILENCE_NS:
        return np.int64(-1)
    return (np.int64(subscription.last_timestamp) + ticks_of(elapsed, stream.clock_rate)) & 0xFFFFFFFF


@njit(cache=True)
def _report_bytes(subscription):
    """What a sender report with CNAME takes for a subscription."""
    return SENDER_REPORT_BYTES + _description_bytes(subscription)


@njit(cache=True)
def _description_bytes(subscription):
    """What `_write_description` writes for a subscription: the CNAME, a zero byte, zeros up to a whole word."""
    size = min(np.int64(subscription.cname_bytes), MAX_CNAME)
    return (10 + size + 4) & ~3


@njit(cache=True)
def _write_report(state, row, out, start, now):
    """Write a sender report with CNAME for subscription `row`, which has sent something, at out[start:]; returns the
    offset behind it, or `start` when nothing says what its time is."""
    subscription = state.subscriptions[row]
    timestamp = _timestamp_at(state, subscription, now)
    subscription.report_ns = now
    if timestamp < 0:
        return start
    ssrc = np.int64(subscription.ssrc)
    wall = now + state.thread[0].wall_offset_ns
    out[start] = 0x80
    out[start + 1] = SENDER_REPORT
    put_u16(out, start + 2, SENDER_REPORT_BYTES // 4 - 1)
    put_u32(out, start + 4, ssrc)
    put_ntp(out, start + 8, wall)
    put_u32(out, start + 16, timestamp)
    put_u32(out, start + 20, subscription.packets)
    put_u32(out, start + 24, subscription.octets)
    return _write_description(out, start + SENDER_REPORT_BYTES, ssrc, subscription)


@njit(cache=True)
def _write_description(out, at, ssrc, subscription):
    """SDES with one chunk: the CNAME, a zero byte, zeros up to a whole word. Returns the end."""
    size = min(np.int64(subscription.cname_bytes), MAX_CNAME)
    end = at + _description_bytes(subscription)
    for k in range(at + 10, end):
        out[k] = 0
    out[at] = 0x81
    out[at + 1] = SOURCE_DESCRIPTION
    put_u16(out, at + 2, (end - at) // 4 - 1)
    put_u32(out, at + 4, ssrc)
    out[at + 8] = CNAME_ITEM
    out[at + 9] = size
    for k in range(size):
        out[at + 10 + k] = subscription.cname[k]
    return end
