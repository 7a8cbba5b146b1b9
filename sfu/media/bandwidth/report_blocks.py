"""What the receiver reports of a peer without transport-cc say of all that it is sent, added up for the rule of
`sfu.media.bandwidth.reports`.

A receiver counts every number that it misses (RFC 3550 section 6.4.1). Those that no packet was ever given, because
the publisher's own packet never came or a layer was switched, are subtracted. Loss is counted before repair, since that
is what the path does: a packet that a repeat replaced was lost, and report blocks about repeats count for nothing.
"""

import numpy as np
from numba import njit

from sfu.media.allocation.due import is_ruled_by_reports, list_transport, note_estimate
from sfu.media.bandwidth.estimate import expect_no_feedback, receiver_estimate, receiver_report
from sfu.media.bandwidth.passes import begin_estimate
from sfu.media.bandwidth.reports import DECREASE_NS, GROWTH_NS, HIGH_LOSS
from sfu.media.wire.numbers import extend16
from sfu.media.wire.overhead import GCM_TAG_BYTES, udp_ip_bytes
from sfu.schema.capacities import SEQUENCE_START
from sfu.schema.estimate_tables import MAX_BPS

NEEDED_PACKETS = 20
"""Fewer say nothing about a rate, as in libwebrtc."""
MAX_AHEAD = 512
"""Numbers without a packet that a report may not have reached yet; it is as many as a gap in a stream may have."""
RTP_BYTES = 20
"""Header and header extensions of a usual packet."""


@njit(cache=True)
def take_report_block(state, number, highest, lost, now):
    """Take what a receiver report says of subscription `number`.

    highest: low 16 bits of the highest number that was received; lost: cumulative, as the receiver counts.
    """
    subscription = state.subscriptions[number]
    row = np.int64(subscription.transport)
    if _gives_feedback(state, row) or subscription.packets == 0:
        return
    used = np.int64(subscription.out_highest)
    highest = extend16(highest, used)
    expected = highest - subscription.heard_highest
    if highest > used or expected <= 0:
        return
    holes = used - subscription.first_highest - subscription.packets
    missing = lost - holes
    news = missing - subscription.heard_missing
    sent = max(expected - max(holes - subscription.heard_holes, 0), 1)
    transport = state.transports[row]
    transport.heard_packets += sent
    transport.heard_lost += min(max(news, 0), sent)
    subscription.heard_highest = highest
    subscription.heard_holes = holes
    # Holes that the report has not reached are no packets that came back: they are missed later.
    subscription.heard_missing = min(max(missing, subscription.heard_missing), missing + MAX_AHEAD)
    _conclude(state, row, now)


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
    elapsed, packets = now - transport.heard_ns, np.int64(transport.heard_packets)
    if packets < NEEDED_PACKETS or elapsed < DECREASE_NS + transport.rtt_ns:
        return
    fraction = transport.heard_lost * 256 // packets
    high = fraction > 256 * HIGH_LOSS
    if not high and elapsed < GROWTH_NS:
        return
    sent = _sent_bytes(state, row)
    bps = max(sent - transport.heard_bytes, 0) * 8_000_000 // (elapsed // 1000)
    transport.heard_ns, transport.heard_bytes = now, sent
    transport.heard_packets = transport.heard_lost = 0
    if not is_ruled_by_reports(state, row):
        if not high or not _needs_reports(state, row):
            return  # nothing limits this peer, and a report without much loss changes nothing about that
        begin_estimate(state, row, now)
        expect_no_feedback(state.estimates[row])
    receiver_report(state.estimates[row], fraction, bps, now)
    share_by_reports(state, row)


@njit(cache=True)
def _sent_bytes(state, row):
    """Bytes on the wire of everything that was sent on the subscriptions that transport `row` has now, repeats included
    and taken to be as large as other packets."""
    transport = state.transports[row]
    family = state.paths[transport.path].family if transport.path >= 0 else 4
    head = RTP_BYTES + GCM_TAG_BYTES + udp_ip_bytes(family)
    total = np.int64(0)
    number = np.int64(transport.first_subscription)
    while number >= 0:
        each = state.subscriptions[number]
        if each.packets > 0:
            size = each.octets // each.packets + head
            total += size * (each.packets + each.retransmitted)
        number = np.int64(each.next_of_transport)
    return total
