"""Sends what a probe cluster lacks, so that the path is seen to carry more than the media alone need.

Media that leave meanwhile belong to the cluster. What is missing is first a repetition of recent packets as RTX, which
also repairs, and padding where no packet is left (libwebrtc sends padding in this order too).
"""

import numpy as np
from numba import njit

from sfu.media.bandwidth.carrier import can_carry
from sfu.media.bandwidth.estimate import probe_sent
from sfu.media.net.frame_queue import is_backed_up
from sfu.media.net.srtp import can_send, send_rtp
from sfu.media.net.udp import borrow_arena, take_slot
from sfu.media.send.retransmit import is_kept, is_remembered, resend
from sfu.media.send.rewrite import pad_packet, send_time, write_bare_header
from sfu.schema.capacities import HISTORY

MAX_PADDING = 255
"""Bytes of padding in one packet (RFC 3550 section 5.1)."""
MAX_BURST_NS = 10_000_000
"""A pass that comes late makes up for so much of its time."""
REPEATED = 64
"""Newest packets of a subscription that are repeated."""
SMALL_BELOW_BPS = 1_000_000
"""A slower cluster is made of padding, since a cluster has five packets at least: as large as media they would fill a
link of 150 kbit/s for a third of a second."""
MAX_IN_PASS = 64
"""Packets of one transport in one pass."""
OWN_SHARE = 8
"""One of so many bytes of a transport may be sent for nothing but probing: nobody uses up what the others may send."""
OWN_FREELY = 200_000
"""The most bytes for probing that a transport may save, and what it begins with."""


@njit(cache=True)
def probes_pass(state, now):
    """Every 5 ms while a transport has a probe cluster: send what is due of each."""
    thread = state.thread[0]
    for row in range(np.int64(thread.transport_end)):
        if state.transports[row].probe_cluster and can_send(state, row):
            thread.row_in_hand = row
            _continue_cluster(state, row, now)
    thread.row_in_hand = -1


@njit(cache=True)
def _continue_cluster(state, row, now):
    transport, estimate, log = state.transports[row], state.estimates[row], state.send_logs[row]
    _account(state, row, now)
    elapsed = min(now - log.probed_ns, MAX_BURST_NS)
    log.probed_ns = now
    due = estimate.probe_bps * elapsed // 8_000_000_000
    before = np.int64(log.bytes)
    if not can_carry(state, row, np.int64(log.carrier)):
        log.carrier = -1  # it was closed, or paused: bandwidth_pass looks for another one
    elif transport.first_waiting == 0 and not is_backed_up(state, row):  # what waits is sent at the rate of the probe
        _renew_credit(log)
        _send_due(state, row, np.int64(log.carrier), before + due, now)
        log.credited_bytes = log.bytes  # probes earn nothing
    _account(state, row, now)
    transport.probe_cluster = estimate.probe_cluster


@njit(cache=True)
def _account(state, row, now):
    """Tell the estimate what left since the last time: it belongs to the cluster."""
    log = state.send_logs[row]
    count, size = log.count - log.probed_count, log.bytes - log.probed_bytes
    log.probed_count, log.probed_bytes = log.count, log.bytes
    if count > 0:
        probe_sent(state.estimates[row], size, count, now)


@njit(cache=True)
def _renew_credit(log):
    """Add a part of what was sent to what a transport may be sent for nothing but probing."""
    if log.credited_bytes == 0:
        log.probe_credit = OWN_FREELY
    more = (log.bytes - log.credited_bytes) // OWN_SHARE
    log.probe_credit = min(log.probe_credit + more, OWN_FREELY)


@njit(cache=True)
def _send_due(state, row, carrier, until, now):
    """Send on subscription `carrier` until the transport has sent `until` bytes in all, as far as probing may."""
    thread, log, estimate = state.thread[0], state.send_logs[row], state.estimates[row]
    arena = borrow_arena(state)
    number = np.int64(state.subscriptions[carrier].out_highest)
    oldest = number - REPEATED
    small = estimate.probe_bps < SMALL_BELOW_BPS
    for _ in range(MAX_IN_PASS):
        if log.bytes >= until or log.probe_credit <= 0 or thread.probe_credit <= 0:
            return
        before = np.int64(log.bytes)
        while number > oldest and not _can_repeat(state, carrier, number):
            number -= 1
        if number > oldest and not small:
            repeated = state.history[state.subscriptions[carrier].history, number & (HISTORY - 1)]
            done = resend(state, arena, carrier, repeated, now)
            number -= 1
        else:
            done = _send_padding(state, carrier, now)
        sent = log.bytes - before
        log.probe_credit -= sent
        thread.probe_credit -= sent
        thread.probe_bytes += sent
        if not done:
            return


@njit(cache=True)
def _can_repeat(state, row, number):
    """Whether the packet with output number `number` (extended) of a subscription can be repeated."""
    subscription = state.subscriptions[row]
    sent = state.history[subscription.history, number & (HISTORY - 1)]
    return is_remembered(subscription, sent, number) and is_kept(state, row, sent)


@njit(cache=True)
def _send_padding(state, row, now):
    """One packet of padding only under the RTX SSRC, which carries no media. False: dropped."""
    subscription = state.subscriptions[row]
    state.thread[0].send_time = send_time(now + state.thread[0].wall_offset_ns)
    slot = take_slot(state)
    subscription.rtx_sequence += 1
    at = write_bare_header(state, slot, subscription, np.int64(subscription.last_timestamp), True)
    size = pad_packet(state.tx[slot], at, MAX_PADDING)
    return send_rtp(state, np.int64(subscription.transport), slot, size, np.int64(subscription.rtx_sequence))
