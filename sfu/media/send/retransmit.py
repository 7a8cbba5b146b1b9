"""Answers NACKs (RFC 4585 section 6.2.1) with RTX packets (RFC 4588), in the numbers of the subscriber.

Called by RTCP reception for each sequence number that a peer misses, by a NACK or by its transport-cc feedback. The
packet is written anew from the packet cache, with the ids that it had. Without negotiated RTX nothing is sent: other
bytes under the same SRTP index would break GCM.
"""

import numpy as np
from numba import njit

from sfu.media.net.srtp import send_rtp
from sfu.media.net.udp import take_slot
from sfu.media.send.repair_share import may_repeat, may_repeat_twice, round_trip_ns
from sfu.media.send.rewrite import send_time, write_packet
from sfu.media.send.waiting import repeat_has_to_wait, wait_to_repeat
from sfu.media.stream.packet_cache import is_stored
from sfu.media.wire.numbers import extend16
from sfu.schema.bandwidth_codes import Held
from sfu.schema.capacities import HISTORY, PACKETS, SCRATCH_HISTORY
from sfu.schema.codes import Drop, RowState

MAX_RESENDS = 10
"""How often one packet is sent again: libwebrtc asks for it as often."""
UNKNOWN_ROUND_TRIP_NS = 20_000_000
"""A NACK is taken to have crossed the last repeat for one round trip, or this time."""
RTX_BYTES = 60
"""What a repeat has more than its payload: headers of IP, UDP and RTP, extensions, the tag."""
WAITS = 128
"""Bit of `resent` of a packet that waits to be sent again."""
REPEAT_WORK = 16
"""What a repeat costs the pacer, in history rows that are passed over."""


@njit(cache=True)
def answer_nack(state, arena, row, sequence, now):
    """The peer of subscription `row` misses its packet `sequence` (16 bits, of the primary SSRC)."""
    subscription = state.subscriptions[row]
    if subscription.state != RowState.OPEN or subscription.rtx_payload_type < 0 or subscription.rtx_ssrc == 0:
        return
    if subscription.packets == 0 or subscription.history == SCRATCH_HISTORY:
        return
    extended = extend16(np.int64(sequence), subscription.out_highest)
    sent = state.history[subscription.history, extended & (HISTORY - 1)]
    if not is_remembered(subscription, sent, extended):
        state.drops[Drop.NACK_UNKNOWN] += 1
        return
    if sent.stream != subscription.stream or subscription.held == Held.SWITCH:
        return  # the picture goes on with a key frame of another stream: what came before it would only delay that
    transport = state.transports[subscription.transport]
    if sent.resent >= MAX_RESENDS or not transport.secure or transport.path < 0:
        return  # as often as it may be, or it waits to be
    round_trip = round_trip_ns(state, np.int64(subscription.transport))
    now_us = now // 1000
    crossing = round_trip if round_trip > 0 else UNKNOWN_ROUND_TRIP_NS
    if sent.resent > 0 and ((now_us - sent.resent_us) & 0xFFFFFFFF) * 1000 < crossing:
        return
    if not is_kept(state, row, sent):
        state.drops[Drop.NACK_UNKNOWN] += 1
        return
    if _is_passed(state, subscription, sent, crossing, now):
        return
    transport_row = np.int64(subscription.transport)
    size = np.int64(state.packets[sent.stream, sent.in_sequence & (PACKETS - 1)].size) + RTX_BYTES
    if not may_repeat(state, transport_row, size, now):
        state.drops[Drop.REPAIR_SHARE] += 1
        return
    if repeat_has_to_wait(state, transport_row, now):
        sent.resent |= WAITS
        wait_to_repeat(state, row, extended)
    elif resend(state, arena, row, sent, now):
        sent.resent += 1
        sent.resent_us = now_us
        if may_repeat_twice(state, transport_row, size, now):
            resend(state, arena, row, sent, now)


@njit(cache=True)
def _is_passed(state, subscription, sent, crossing, now):
    """Whether a later key frame has reached the subscriber: nothing that came before it will be shown."""
    stream = state.streams[sent.stream]
    packet = state.packets[sent.stream, sent.in_sequence & (PACKETS - 1)]
    if packet.sequence >= stream.key_sequence or now - stream.key_ns <= crossing:
        return False
    return sent.stream != subscription.stream or stream.key_sequence <= subscription.in_highest


@njit(cache=True)
def repeat_waiting(state, arena, row, end, now):
    """Repeat what waits for that on subscription `row`, lowest number first, until its transport's budget is used up,
    or its log.count is `end`. Returns what that cost, in history rows that are passed over."""
    subscription = state.subscriptions[row]
    log, work = state.send_logs[subscription.transport], 0
    round_trip = round_trip_ns(state, np.int64(subscription.transport))
    last = np.int64(subscription.out_highest)
    number = max(np.int64(subscription.repairs_from), last - HISTORY + 1)
    while number <= last and log.bytes < log.pace_bytes and log.count < end:
        work += 1
        sent = state.history[subscription.history, number & (HISTORY - 1)]
        if sent.resent & WAITS and is_remembered(subscription, sent, number):
            sent.resent &= WAITS - 1
            useful = is_kept(state, row, sent) and not _is_passed(state, subscription, sent, round_trip, now)
            if useful and resend(state, arena, row, sent, now):
                work += REPEAT_WORK
                sent.resent += 1
                sent.resent_us = now // 1000
            else:
                state.drops[Drop.PACER_REPAIR] += 1
        number += 1
    subscription.repairs_from = number if number <= last else 0
    return work


@njit(cache=True)
def is_remembered(subscription, sent, number):
    """Whether `sent`, the history row of output number `number` (extended), still describes that packet."""
    return sent.out_sequence == number & 0xFFFFFFFF and sent.use == subscription.history_use


@njit(cache=True)
def is_kept(state, row, sent):
    """Whether the packet that `sent` (a history row of subscription `row`) describes can still be written."""
    stream = state.streams[sent.stream]
    packet = state.packets[sent.stream, sent.in_sequence & (PACKETS - 1)]
    same = packet.sequence & 0xFFFFFFFF == sent.in_sequence
    return stream.track == state.subscriptions[row].track and same and is_stored(stream, packet, packet.sequence)


@njit(cache=True)
def resend(state, arena, row, sent, now):
    """Send a packet that is kept once more as RTX (RFC 4588), whether or not somebody misses it. False: dropped."""
    subscription = state.subscriptions[row]
    state.thread[0].send_time = send_time(now + state.thread[0].wall_offset_ns)
    slot = take_slot(state)
    subscription.rtx_sequence += 1  # before anything can fail: no two packets may have one index
    size = write_packet(state, arena, slot, row, sent, True)
    index = np.int64(subscription.rtx_sequence)
    if size < 0 or not send_rtp(state, np.int64(subscription.transport), slot, size, index):
        return False
    subscription.retransmitted += 1
    subscription.retransmitted_bytes += size
    state.thread[0].retransmissions_sent += 1
    state.thread[0].retransmission_bytes_sent += size
    return True
