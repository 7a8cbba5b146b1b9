"""RTCP from a peer (RFC 3550 section 6, RFC 3611, RFC 4585, RFC 5104, RFC 5506): straight into the rows it concerns.

Each packet of a compound is checked before it is obeyed; bad ones are passed over. As a publisher the peer sends
sender reports, BYE, and answers to our reference times; as a subscriber it sends report blocks, NACK, PLI, FIR and
REMB about SSRCs of ours.
"""

import numpy as np
from numba import njit

from sfu.media.bandwidth.estimate import MAX_RTT_NS
from sfu.media.bandwidth.report_blocks import take_receiver_estimate, take_report_block
from sfu.media.net.following import is_newest_rtcp, packet_received
from sfu.media.net.lookup import find_outgoing, find_source
from sfu.media.net.srtp import unprotect_rtcp
from sfu.media.receive.sources import remember_rtcp_sender, unassign
from sfu.media.rtcp.transport_feedback import receive_transport_feedback
from sfu.media.send.relay_out import relay_report
from sfu.media.send.retransmit import answer_nack
from sfu.media.send.selection import receive_key_frame_request
from sfu.media.stream.subscriber_loss import note_subscriber_loss
from sfu.media.wire.numbers import get_u16, get_u24, get_u32, signed24, signed32
from sfu.media.wire.rtcp import (
    BYE,
    EXTENDED_REPORT,
    FEEDBACK_HEADER_BYTES,
    FIR,
    LAST_REFERENCE_TIME,
    NACK,
    PAYLOAD_FEEDBACK,
    PLI,
    RECEIVER_REPORT,
    REMB,
    REPORT_BLOCK_BYTES,
    RTP_FEEDBACK,
    SENDER_INFO_BYTES,
    SENDER_REPORT,
    TRANSPORT_CC,
    middle_ntp,
)
from sfu.schema.codes import Drop, MediaKind

REMB_MARK = 0x52454D42
MAX_NACKED = 512
"""Numbers answered per datagram: HISTORY remembers no more, so a peer that asks for more asks twice."""
MIN_REPORT_NS = 10_000_000
"""Sender reports that follow each other faster are passed over: fifty in each datagram, copied to other media threads,
would leave their packet cache no room for packets."""
MAX_REMB_SHIFT = 44
"""18 bits of mantissa shifted further would leave 63 bits."""


@njit(cache=True)
def receive_rtcp(state, arena, k, size, row, now):
    """Take an SRTCP datagram of `size` bytes in receive slot k from transport `row`, which is secure. now: ns."""
    transport, thread, wire_bytes = state.transports[row], state.thread[0], size
    index = _srtcp_index(transport, state.rx[k], size)
    size = unprotect_rtcp(state, transport.srtp_in, k, size)
    if size < 0:
        state.drops[Drop.SRTCP] += 1
        return
    transport.packets_in += 1
    transport.bytes_in += size
    thread.packets_received += 1
    thread.bytes_received += wire_bytes
    receive_compound(state, arena, state.rx[k, :size], size, row, now)
    if is_newest_rtcp(state, row, get_u32(state.rx[k], 4), index):
        packet_received(state, row, k, now)


@njit(cache=True)
def _srtcp_index(transport, data, size):
    """The index that an SRTCP packet of `size` bytes states, which is true if the packet is authentic."""
    at = size - 4 - np.int64(transport.srtcp_tag_bytes)
    return get_u32(data, at) & 0x7FFFFFFF if at >= 8 else 0


@njit(cache=True)
def _packet_end(data, at, size):
    """The end of the packet of a compound that begins at `at`; -1 when none does, or it is longer than the rest."""
    if at + 4 > size or np.int64(data[at]) >> 6 != 2:
        return -1
    end = at + 4 + 4 * get_u16(data, at + 2)
    return end if end <= size else -1


@njit(cache=True)
def _content_end(data, at, end):
    """The end of a packet without its padding; `at` when it says that it has more, or none.

    Padding may be anywhere and of any length: libwebrtc pads each of several transport-cc packets in a compound.
    """
    if np.int64(data[at]) & 0x20 == 0:
        return end
    padding = np.int64(data[end - 1])
    return end - padding if 0 < padding <= end - at - 4 else at


@njit(cache=True)
def _holds(data, at, end):
    """Whether the packet at `at`, whose content ends at `end`, is long enough for its type and count."""
    count, packet_type, size = np.int64(data[at]) & 31, np.int64(data[at + 1]), end - at
    if size < 4:
        return False
    if packet_type == SENDER_REPORT:
        return size >= 8 + SENDER_INFO_BYTES + REPORT_BLOCK_BYTES * count
    if packet_type == RECEIVER_REPORT:
        return size >= 8 + REPORT_BLOCK_BYTES * count
    if packet_type == BYE:
        return size >= 4 + 4 * count
    if packet_type in (RTP_FEEDBACK, PAYLOAD_FEEDBACK):
        return size >= FEEDBACK_HEADER_BYTES and _feedback_holds(data, at, count, packet_type, size)
    return packet_type != EXTENDED_REPORT or size >= 8


@njit(cache=True)
def _feedback_holds(data, at, packet_format, packet_type, size):
    content = size - FEEDBACK_HEADER_BYTES
    if packet_type == RTP_FEEDBACK:
        if packet_format == TRANSPORT_CC:
            return content >= 8
        return packet_format != NACK or content >= 4
    if packet_format == FIR:
        return content >= 8 and content % 8 == 0
    if packet_format == REMB and content >= 8 and get_u32(data, at + 12) == REMB_MARK:
        return content >= 8 + 4 * np.int64(data[at + 16])
    return True


@njit(cache=True)
def receive_compound(state, arena, data, size, row, now):
    """Obey what is good in a decrypted compound; data: u1 array of `size` bytes.

    A packet that is shorter than it says is passed over and counted. Where no packet begins, the rest ends.
    """
    if size >= 8 and np.int64(data[0]) >> 6 == 2:
        sender = get_u32(data, 4)
        if find_source(state, row, sender) < 0:
            remember_rtcp_sender(state, row, sender)
    at, budget = 0, MAX_NACKED
    while at == 0 or at < size:
        following = _packet_end(data, at, size)
        if following < 0:
            state.drops[Drop.RTCP_MALFORMED] += 1
            return
        end = _content_end(data, at, following)
        if _holds(data, at, end):
            budget = _obey(state, arena, row, data, at, end, budget, now)
        else:
            state.drops[Drop.RTCP_MALFORMED] += 1
        at = following


@njit(cache=True)
def _obey(state, arena, row, data, at, end, budget, now):
    """Do what one packet that is long enough asks for. Returns what is left of the datagram's budget of NACKs."""
    count, packet_type = np.int64(data[at]) & 31, np.int64(data[at + 1])
    if packet_type == SENDER_REPORT:
        _sender_info(state, row, data, at, now)
        _report_blocks(state, row, data, at + 8 + SENDER_INFO_BYTES, count, now)
    elif packet_type == RECEIVER_REPORT:
        _report_blocks(state, row, data, at + 8, count, now)
    elif packet_type == BYE:
        _bye(state, row, data, at, count, now)
    elif packet_type == RTP_FEEDBACK and count == TRANSPORT_CC:
        budget = receive_transport_feedback(state, row, data, at, end, budget, now)
    elif packet_type == RTP_FEEDBACK and count == NACK:
        budget = _nack(state, arena, row, data, at, end, budget, now)
    elif packet_type == PAYLOAD_FEEDBACK:
        _payload_feedback(state, row, data, at, end, count, now)
    elif packet_type == EXTENDED_REPORT:
        _extended_report(state, row, data, at + 8, end, now)
    return budget


@njit(cache=True)
def _extended_report(state, row, data, at, end, now):
    """RFC 3611 section 4.5: when our last reference time came, and how long the peer has kept its answer."""
    transport = state.transports[row]
    while at + 4 <= end:
        block_end = at + 4 + 4 * get_u16(data, at + 2)
        if block_end > end:
            state.drops[Drop.RTCP_MALFORMED] += 1
            return
        if np.int64(data[at]) == LAST_REFERENCE_TIME:
            for entry in range(at + 4, block_end - 11, 12):
                sent = get_u32(data, entry + 4)
                if get_u32(data, entry) == np.int64(transport.ssrc) and sent != 0:
                    _note_rtt(state, row, sent, get_u32(data, entry + 8), now)
        at = block_end


@njit(cache=True)
def _sender_info(state, row, data, at, now):
    """RFC 3550 section 6.4.1: NTP and RTP time of the same instant at the publisher."""
    source_row = find_source(state, row, get_u32(data, at + 4))
    if source_row < 0:
        return
    source = state.sources[source_row]
    if source.stream < 0 or source.rtx:
        return
    stream = state.streams[source.stream]
    ntp = np.uint64(get_u32(data, at + 8)) << np.uint64(32) | np.uint64(get_u32(data, at + 12))
    if ntp == np.uint64(0):  # a sender without a wall clock; and 0 stands for "none yet"
        return
    if stream.report_ntp != np.uint64(0) and now - stream.report_ns < MIN_REPORT_NS:
        return
    stream.report_ntp = ntp
    stream.report_timestamp = get_u32(data, at + 16)
    stream.report_ns = now
    relay_report(state, np.int64(source.stream))


@njit(cache=True)
def _report_blocks(state, row, data, at, count, now):
    for k in range(count):
        _report_block(state, row, data, at + REPORT_BLOCK_BYTES * k, now)


@njit(cache=True)
def _report_block(state, row, data, at, now):
    """What the peer received of one SSRC of ours."""
    found = find_outgoing(state, row, get_u32(data, at))
    if found < 0:
        state.drops[Drop.FOREIGN_SSRC] += 1
        return
    subscription = state.subscriptions[found >> 1]
    if found & 1:
        subscription.rtx_mid_acknowledged = 1
        return
    subscription.mid_acknowledged = 1
    subscription.lost = signed24(get_u24(data, at + 5))
    subscription.jitter = get_u32(data, at + 12)
    subscription.reported_ns = now
    subscription.reported_packets = subscription.packets
    take_report_block(state, found >> 1, get_u16(data, at + 10), np.int64(subscription.lost), now)
    if subscription.kind == MediaKind.AUDIO and subscription.stream >= 0 and state.thread[0].loss_proxying:
        note_subscriber_loss(state.streams[subscription.stream], np.int64(data[at + 4]), now)
    last_report = get_u32(data, at + 16)
    if last_report != 0:
        _note_rtt(state, row, last_report, get_u32(data, at + 20), now)


@njit(cache=True)
def _note_rtt(state, row, sent, kept, now):
    """An answer came now that the peer kept for `kept` / 65536 s, to what left at `sent` (middle NTP). Round trips are
    averaged as TCP does (RFC 6298); out of range: a clock was set."""
    transport = state.transports[row]
    units = signed32(middle_ntp(now + state.thread[0].wall_offset_ns) - sent - kept)
    rtt = units * 1_000_000_000 // 65536
    if rtt < 0 or rtt > MAX_RTT_NS:
        return
    rtt = max(rtt, 1)
    transport.rtt_ns = rtt if transport.rtt_ns == 0 else (7 * transport.rtt_ns + rtt) // 8


@njit(cache=True)
def _bye(state, row, data, at, count, now):
    """Take a BYE (RFC 3550 section 6.6). The streams keep their numbers. Packets that the BYE overtook do not assign
    its SSRCs again, newer ones do."""
    for k in range(count):
        source_row = find_source(state, row, get_u32(data, at + 4 + 4 * k))
        if source_row < 0:
            continue
        source = state.sources[source_row]
        if source.stream < 0 or source.rtx:
            continue
        unassign(state, source_row)
        source.displaced_ns = now
        source.ended = 1


@njit(cache=True)
def _nack(state, arena, row, data, at, end, budget, now):
    """RFC 4585 section 6.2.1. Returns what is left of the datagram's budget."""
    found = find_outgoing(state, row, get_u32(data, at + 8))
    if found < 0:
        state.drops[Drop.FOREIGN_SSRC] += 1
        return budget
    if found & 1:  # a lost repair is asked for again by its original number
        return budget
    at += FEEDBACK_HEADER_BYTES
    before = budget
    while at + 4 <= end and budget > 0:
        first, mask = get_u16(data, at), get_u16(data, at + 2)
        answer_nack(state, arena, found >> 1, first, now)
        budget -= 1
        for bit in range(16):
            if mask >> bit & 1 and budget > 0:
                answer_nack(state, arena, found >> 1, (first + 1 + bit) & 0xFFFF, now)
                budget -= 1
        at += 4
    state.thread[0].nacks_received += before - budget
    return budget


@njit(cache=True)
def _payload_feedback(state, row, data, at, end, packet_format, now):
    if packet_format == PLI:
        state.thread[0].plis_received += _key_frame_request(state, row, get_u32(data, at + 8), now)
    elif packet_format == FIR:  # RFC 5104 section 4.3.1: the SSRC is in each entry
        for entry in range(at + FEEDBACK_HEADER_BYTES, end - 7, 8):
            state.thread[0].firs_received += _key_frame_request(state, row, get_u32(data, entry), now)
    elif packet_format == REMB and end - at >= 20 and get_u32(data, at + 12) == REMB_MARK:
        exponent, mantissa = np.int64(data[at + 17]) >> 2, get_u24(data, at + 17) & 0x3FFFF
        transport = state.transports[row]
        transport.remb_bps = mantissa << min(np.int64(exponent), MAX_REMB_SHIFT)
        take_receiver_estimate(state, row, np.int64(transport.remb_bps), now)


@njit(cache=True)
def _key_frame_request(state, row, ssrc, now):
    """Pass a request for a key frame of our `ssrc` on. Returns how many requests it was: 1, or 0 for none of ours."""
    found = find_outgoing(state, row, ssrc)
    if found < 0:
        state.drops[Drop.FOREIGN_SSRC] += 1
        return 0
    if found & 1:
        return 0
    receive_key_frame_request(state, found >> 1, now)
    return 1
