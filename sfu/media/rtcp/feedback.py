"""What we tell publishers about what they send: NACK, PLI, transport-cc feedback and receiver reports.

Every datagram is a compound that starts with a receiver report, empty if need be (RFC 3550 section 6.1), and stays
below DATAGRAM_BYTES before protection.
"""

import numpy as np
from numba import njit

from sfu.media.net.report_share import RECEIVER_REPORTS_PERMILLE, SRTCP_BYTES, spaced_ns
from sfu.media.net.srtp import can_send, send_rtcp
from sfu.media.net.udp import take_slot
from sfu.media.receive.nack import is_due, review
from sfu.media.receive.reception import wire_sequence, write_report_block
from sfu.media.receive.transport_cc import feedback_due, send_transport_feedback
from sfu.media.stream.key_frames import is_awaited, key_frame_due
from sfu.media.wire.numbers import put_u16, put_u32
from sfu.media.wire.rtcp import (
    DATAGRAM_BYTES,
    EMPTY_REPORT_BYTES,
    EXTENDED_REPORT,
    FEEDBACK_HEADER_BYTES,
    NACK,
    PAYLOAD_FEEDBACK,
    PLI,
    REFERENCE_TIME,
    REPORT_BLOCK_BYTES,
    RTP_FEEDBACK,
    begin_compound,
    put_ntp,
)

MAX_NACK_PAIRS = 64
"""PID and mask pairs in one NACK packet: MISSING numbers need at most two of them."""
MAX_REPORT_BLOCKS = 31
REFERENCE_TIME_BYTES = 20

REPORT_INTERVAL_NS, MAX_REPORT_INTERVAL_NS = 1_000_000_000, 5_000_000_000
FIRST_REPORT_NS = 100_000_000
"""A newly assigned SSRC is reported this soon: the sender then stops repeating mid and rid."""


@njit(cache=True)
def _write_feedback_header(data, at, packet_type, packet_format, sender, ssrc, end):
    """Write the header of RFC 4585 section 6.1 at `at`, for a packet of ours (SSRC `sender`) that ends at `end`."""
    data[at] = 0x80 | packet_format
    data[at + 1] = packet_type
    put_u16(data, at + 2, (end - at) // 4 - 1)
    put_u32(data, at + 4, np.int64(sender))
    put_u32(data, at + 8, np.int64(ssrc))


@njit(cache=True)
def write_nack(thread, stream, data, at, sender, rtt, now):
    """Write a NACK for what is due; returns the offset behind it, or `at` when nothing is. thread: counts the packets
    asked for. sender: our SSRC.

    RFC 4585 section 6.2.1: pairs of a number and a mask of the 16 that follow it. What does not fit waits.
    """
    end, pairs, first = at + FEEDBACK_HEADER_BYTES, 0, 0
    for k in range(np.int64(stream.missing_count)):
        if not is_due(stream, k, rtt, now):
            continue
        entry = stream.missing[k]
        sequence = entry.sequence
        if pairs > 0 and sequence - first <= 16:
            mask = 1 << (sequence - first - 1)
            position = end - 2
            data[position] |= mask >> 8
            data[position + 1] |= mask & 255
        elif pairs < MAX_NACK_PAIRS:
            put_u16(data, end, wire_sequence(stream, sequence))
            put_u16(data, end + 2, 0)
            end += 4
            pairs += 1
            first = sequence
        else:
            break
        entry.asked_ns = now
        entry.tries += 1
        thread.nacks_sent += 1
    if pairs == 0:
        return at
    _write_feedback_header(data, at, RTP_FEEDBACK, NACK, sender, stream.ssrc, end)
    return end


@njit(cache=True)
def write_pli(stream, data, at, sender, now):
    """Write a picture loss indication (RFC 4585 section 6.3.1) if one is due; returns the offset behind it. sender: our
    SSRC."""
    if not key_frame_due(stream, now):
        return at
    stream.pli_ns = now
    end = at + FEEDBACK_HEADER_BYTES
    _write_feedback_header(data, at, PAYLOAD_FEEDBACK, PLI, sender, stream.ssrc, end)
    return end


@njit(cache=True)
def _streams_feedback(state, transport_row, now):
    """Send NACKs and PLIs for the streams of one transport."""
    transport = state.transports[transport_row]
    rtt = max(transport.rtt_ns, transport.repair_ns)
    slot, at = take_slot(state), 0
    track_row = np.int64(transport.first_track)
    while track_row >= 0:
        track = state.tracks[track_row]
        for layer in range(np.int64(track.layer_count)):
            stream = state.streams[track.streams[layer]]
            if stream.source < 0:
                continue
            if stream.missing_count > 0:
                review(state, np.int64(track.streams[layer]), rtt, now)
            if key_frame_due(stream, now) and not is_awaited(state, np.int64(track.streams[layer])):
                stream.key_frame_requested = 0
            if stream.missing_count == 0 and not stream.key_frame_requested:
                continue
            if at > DATAGRAM_BYTES - 2 * FEEDBACK_HEADER_BYTES - 4 * MAX_NACK_PAIRS:
                send_rtcp(state, transport_row, slot, at)
                slot, at = take_slot(state), 0
            if at == 0:
                at = begin_compound(state.tx[slot], np.int64(transport.ssrc))
            at = write_nack(state.thread[0], stream, state.tx[slot], at, transport.ssrc, rtt, now)
            before_pli = at
            at = write_pli(stream, state.tx[slot], at, transport.ssrc, now)
            if at > before_pli:
                state.thread[0].plis_sent += 1
        track_row = np.int64(track.next)
    if at > EMPTY_REPORT_BYTES:
        send_rtcp(state, transport_row, slot, at)


@njit(cache=True)
def feedback_pass(state, now):
    """Every 20 ms: NACKs, key frame requests, transport-cc feedback. now: ns."""
    for row in range(np.int64(state.thread[0].transport_end)):
        if not can_send(state, row):
            continue
        state.thread[0].row_in_hand = row
        if state.transports[row].first_track >= 0:
            _streams_feedback(state, row, now)
        if feedback_due(state, row, now):
            send_transport_feedback(state, row, now)
    state.thread[0].row_in_hand = -1


@njit(cache=True)
def _report_due(state, transport_row, now):
    """Whether a report is due; without streams that have a source there is none."""
    transport = state.transports[transport_row]
    elapsed = now - transport.reported_ns
    if elapsed < FIRST_REPORT_NS:
        return False
    interval = spaced_ns(
        state,
        transport_row,
        np.int64(transport.receiver_reports_bytes),
        RECEIVER_REPORTS_PERMILLE,
        REPORT_INTERVAL_NS,
        MAX_REPORT_INTERVAL_NS,
    )
    track_row = np.int64(transport.first_track)
    while track_row >= 0:
        track = state.tracks[track_row]
        for layer in range(np.int64(track.layer_count)):
            stream = state.streams[track.streams[layer]]
            if stream.source >= 0 and stream.received > 0 and (elapsed >= interval or stream.acknowledged == 0):
                return True
        track_row = np.int64(track.next)
    return False


@njit(cache=True)
def _write_report_header(data, blocks):
    data[0] = 0x80 | blocks
    put_u16(data, 2, 1 + 6 * blocks)


@njit(cache=True)
def _write_reference_time(data, at, sender, wall):
    """Write an extended report with the time (RFC 3611 section 4.4); returns the offset behind it.

    sender: our SSRC. wall: ns of our wall clock. The peer's answer (section 4.5) tells the round trip to a publisher
    that subscribes to nothing: one that gets no sender reports has none to echo.
    """
    end = at + REFERENCE_TIME_BYTES
    data[at] = 0x80
    data[at + 1] = EXTENDED_REPORT
    put_u16(data, at + 2, (end - at) // 4 - 1)
    put_u32(data, at + 4, np.int64(sender))
    data[at + 8] = REFERENCE_TIME
    data[at + 9] = 0
    put_u16(data, at + 10, 2)
    put_ntp(data, at + 12, wall)
    return end


@njit(cache=True)
def _receiver_report(state, transport_row, now):
    """Send reports about all streams that have a source, 31 in each, and the time."""
    transport = state.transports[transport_row]
    transport.reported_ns = now
    slot, blocks, total = take_slot(state), 0, 0
    track_row = np.int64(transport.first_track)
    while track_row >= 0:
        track = state.tracks[track_row]
        for layer in range(np.int64(track.layer_count)):
            stream = state.streams[track.streams[layer]]
            if stream.source < 0 or stream.received == 0:
                continue
            if blocks == MAX_REPORT_BLOCKS:
                _write_report_header(state.tx[slot], blocks)
                send_rtcp(state, transport_row, slot, EMPTY_REPORT_BYTES + REPORT_BLOCK_BYTES * blocks)
                total += SRTCP_BYTES + EMPTY_REPORT_BYTES + REPORT_BLOCK_BYTES * blocks
                slot, blocks = take_slot(state), 0
            if blocks == 0:
                begin_compound(state.tx[slot], np.int64(transport.ssrc))
            write_report_block(stream, state.tx[slot], EMPTY_REPORT_BYTES + REPORT_BLOCK_BYTES * blocks, now)
            stream.acknowledged = 1
            blocks += 1
        track_row = np.int64(track.next)
    if blocks > 0:
        _write_report_header(state.tx[slot], blocks)
        at = EMPTY_REPORT_BYTES + REPORT_BLOCK_BYTES * blocks
        wall = now + state.thread[0].wall_offset_ns
        end = _write_reference_time(state.tx[slot], at, transport.ssrc, wall)
        send_rtcp(state, transport_row, slot, end)
        total += SRTCP_BYTES + end
    transport.receiver_reports_bytes = total


@njit(cache=True)
def receiver_reports_pass(state, now):
    """About once a second per transport, sooner for a new SSRC: receiver reports. Call every 100 ms or so."""
    for row in range(np.int64(state.thread[0].transport_end)):
        if state.transports[row].first_track >= 0 and can_send(state, row) and _report_due(state, row, now):
            state.thread[0].row_in_hand = row
            _receiver_report(state, row, now)
    state.thread[0].row_in_hand = -1
