"""Sender reports for what we send, RFC 3550 sections 6.4.1 and 6.5.1: one compound packet per subscription.

A subscriber gets the publisher's timeline in our clock. One shift per publisher, slewed and the same for all its
streams, leads from its NTP times to ours: what was captured together stays together whatever the shift is.
"""

import numpy as np
from numba import njit

from sfu.media.net.srtp import send_rtcp
from sfu.media.net.udp import take_slot
from sfu.media.wire.numbers import put_u16, put_u32
from sfu.media.wire.rtcp import (
    EMPTY_REPORT_BYTES,
    SENDER_INFO_BYTES,
    SENDER_REPORT,
    SOURCE_DESCRIPTION,
    ntp_to_ns,
    put_ntp,
)
from sfu.media.wire.rtp import ticks_of
from sfu.schema.codes import RowState

PERIOD_NS = 1_000_000_000
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
    """Send the reports that are due: a first one soon after the start or a switch, then one a second."""
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
        transport = state.transports[subscription.transport]
        if transport.secure and transport.path >= 0:
            thread.row_in_hand = subscription.transport
            send_report(state, row, now)
    thread.row_in_hand = -1


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
def send_report(state, row, now):
    """Queue a sender report with CNAME for subscription `row`, which has sent something."""
    subscription = state.subscriptions[row]
    timestamp = _timestamp_at(state, subscription, now)
    subscription.report_ns = now
    if timestamp < 0:
        return
    slot = take_slot(state)
    out = state.tx[slot]
    ssrc = np.int64(subscription.ssrc)
    wall = now + state.thread[0].wall_offset_ns
    out[0] = 0x80
    out[1] = SENDER_REPORT
    put_u16(out, 2, SENDER_REPORT_BYTES // 4 - 1)
    put_u32(out, 4, ssrc)
    put_ntp(out, 8, wall)
    put_u32(out, 16, timestamp)
    put_u32(out, 20, subscription.packets)
    put_u32(out, 24, subscription.octets)
    size = _write_description(out, SENDER_REPORT_BYTES, ssrc, subscription)
    send_rtcp(state, np.int64(subscription.transport), slot, size)


@njit(cache=True)
def _write_description(out, at, ssrc, subscription):
    """SDES with one chunk: the CNAME, a zero byte, zeros up to a whole word. Returns the end."""
    size = min(np.int64(subscription.cname_bytes), MAX_CNAME)
    end = (at + 10 + size + 4) & ~3
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
