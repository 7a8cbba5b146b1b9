"""What the receiver reports of a peer without transport-cc say of all that it is sent, added up for the rule of
`sfu.media.bandwidth.reports`.

A receiver counts every number that it misses (RFC 3550 section 6.4.1). Those that no packet was ever given, because
the publisher's own packet never came or a layer was switched, are subtracted; that much is counted for every
subscription, for its statistics. Loss is counted before repair, since that
is what the path does: a packet that a repeat replaced was lost, and report blocks about repeats count for nothing.
"""

import numpy as np
from numba import njit

from sfu.media.allocation.due import is_ruled_by_reports, list_transport, note_estimate
from sfu.media.bandwidth.estimate import expect_no_feedback, receiver_estimate, receiver_report
from sfu.media.bandwidth.passes import begin_estimate
from sfu.media.bandwidth.reports import DECREASE_NS, GROWTH_NS, HIGH_LOSS
from sfu.media.net.frame_queue import is_over_tcp
from sfu.media.wire.numbers import extend16
from sfu.media.wire.overhead import GCM_TAG_BYTES, UDP_IP4_BYTES
from sfu.schema.capacities import SEQUENCE_START
from sfu.schema.estimate_tables import MAX_BPS

NEEDED_PACKETS = 20
"""Fewer say nothing about a rate, as in libwebrtc."""
RTP_BYTES = 20
"""Header and header extensions of a usual packet."""
WIRE_BYTES = RTP_BYTES + GCM_TAG_BYTES + UDP_IP4_BYTES
"""What a usual packet has beside its payload; the 20 bytes more of IPv6 do not matter here."""


@njit(cache=True)
def take_report_block(state, number, highest, lost, now):
    """Take what a receiver report says of subscription `number`.

    highest: low 16 bits of the highest number that was received; lost: cumulative, as the receiver counts.
    """
    subscription = state.subscriptions[number]
    used = np.int64(subscription.out_highest)
    highest = extend16(highest, used)
    if subscription.packets == 0 or highest > used or highest <= subscription.block_highest:
        return
    sent, news = _count(subscription, used, highest, lost)
    subscription.own_lost += news
    subscription.own_fraction = min(256 * news // max(sent, 1), 255)
    row = np.int64(subscription.transport)
    if _gives_feedback(state, row):
        return
    transport = state.transports[row]
    transport.interval_packets += sent
    if not is_over_tcp(state, row):  # there all that is lost was dropped here, when the connection stood still
        transport.interval_lost = min(transport.interval_lost + news, transport.interval_packets)
    _conclude(state, row, now)


@njit(cache=True)
def _count(subscription, used, highest, lost):
    """(packets sent, packets lost) that a report tells of beyond the one before. used: the highest number that was
    given; highest: the highest one that had arrived.

    How many packets were lost is known within two bounds only. Numbers without a packet that lie above `highest` were
    not missed yet. A packet of the publisher's that came late, and filled such a number since the last report, may
    still be missed: it is on its way.
    """
    holes = used - subscription.first_highest - subscription.packets
    late = subscription.late - subscription.block_late
    missing = lost - holes - late
    news = min(max(missing - subscription.block_missing, 0), highest - subscription.block_highest)
    sent = np.int64(subscription.packets - subscription.block_packets)
    most = missing + late + (used - highest)
    subscription.block_missing = min(max(missing, subscription.block_missing), most)
    subscription.block_highest = highest
    subscription.block_packets = subscription.packets
    subscription.block_late = subscription.late
    return sent, news


@njit(cache=True)
def uncounted_bytes(subscription):
    """Bytes on the wire of everything that was sent on a subscription since reports last decided, repeats included."""
    return _wire_bytes(subscription) - subscription.counted_bytes


@njit(cache=True)
def take_receiver_estimate(state, row, bps, now):
    """Take a REMB message of the peer of transport `row`."""
    transport = state.transports[row]
    if transport.first_subscription < 0 or _gives_feedback(state, row) or not _needs_reports(state, row):
        return
    if not is_ruled_by_reports(state, row):
        if bps >= MAX_BPS:
            return
        begin_estimate(state, row, now)
        expect_no_feedback(state.estimates[row])
    receiver_estimate(state.estimates[row], bps, now)
    share_by_reports(state, row)


@njit(cache=True)
def share_by_reports(state, row):
    """Let what reports allow be shared out among the subscriptions of transport `row`, or all be sent again."""
    transport, target = state.transports[row], np.int64(state.estimates[row].target_bps)
    if target < MAX_BPS:
        note_estimate(state, row, target)
    elif transport.estimate_bps != 0:
        transport.estimate_bps = 0
        list_transport(state, row, False)


@njit(cache=True)
def _gives_feedback(state, row):
    return state.transports[row].estimated and state.estimates[row].feedbacks > 0


@njit(cache=True)
def _needs_reports(state, row):
    """Whether transport-cc feedback is not to be expected: nothing was numbered, or it was in vain."""
    transport = state.transports[row]
    return transport.next_number == SEQUENCE_START or transport.unreported != 0


@njit(cache=True)
def _conclude(state, row, now):
    """Let the rule decide, once reports are about enough packets of a long enough time."""
    transport = state.transports[row]
    elapsed, packets = now - transport.interval_ns, np.int64(transport.interval_packets)
    if packets < NEEDED_PACKETS or elapsed < DECREASE_NS + transport.rtt_ns:
        return
    fraction = transport.interval_lost * 256 // packets
    high = fraction > 256 * HIGH_LOSS
    if not high and elapsed < GROWTH_NS:
        return
    # Who was sent nothing for long is not sent less for that.
    bps = max(_take_sent_bytes(state, row) * 8_000_000 // (elapsed // 1000), _measured_bps(state, row))
    transport.interval_ns = now
    transport.interval_packets = transport.interval_lost = 0
    if not is_ruled_by_reports(state, row):
        if not high or not _needs_reports(state, row):
            return  # nothing limits this peer, and a report without much loss changes nothing about that
        begin_estimate(state, row, now)
        expect_no_feedback(state.estimates[row])
    receiver_report(state.estimates[row], fraction, bps, now)
    share_by_reports(state, row)


@njit(cache=True)
def _take_sent_bytes(state, row):
    """Bytes on the wire of everything that transport `row` was sent since this was last asked."""
    transport = state.transports[row]
    total = np.int64(transport.interval_bytes)
    transport.interval_bytes = 0
    number = np.int64(transport.first_subscription)
    while number >= 0:
        each = state.subscriptions[number]
        total += uncounted_bytes(each)
        each.counted_bytes = _wire_bytes(each)
        number = np.int64(each.next_of_transport)
    return total


@njit(cache=True)
def _wire_bytes(subscription):
    """Bytes on the wire of everything that was sent on a subscription; it never falls."""
    repeats = subscription.retransmitted_bytes + subscription.retransmitted * (WIRE_BYTES - RTP_BYTES)
    return np.int64(subscription.octets + subscription.packets * WIRE_BYTES + repeats)


@njit(cache=True)
def _measured_bps(state, row):
    """Bit/s of RTP payload that transport `row` was sent of late."""
    total = np.int64(0)
    number = np.int64(state.transports[row].first_subscription)
    while number >= 0:
        total += np.int64(state.subscriptions[number].bitrate_bps)
        number = np.int64(state.subscriptions[number].next_of_transport)
    return total
