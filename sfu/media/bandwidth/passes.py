"""Where the estimates of all transports meet the tables: when they begin, and what is noticed without feedback."""

import numpy as np
from numba import njit

from sfu.media.allocation.due import note_estimate, note_silence
from sfu.media.bandwidth.estimate import open_estimate, path_changed, set_wish, tick
from sfu.media.net.srtp import can_send
from sfu.schema.capacities import SEQUENCE_START

FIRST_FEEDBACK_NS = 1_000_000_000
"""A peer whose first feedback takes longer is taken for one that sends none. When some comes, it counts."""


@njit(cache=True)
def begin_estimate(state, row, now):
    """Begin the estimate of transport `row`, unless it has begun: with its first numbered packet, not when it opens,
    since most transports never send one."""
    transport = state.transports[row]
    if not transport.estimated:
        transport.estimated = 1
        open_estimate(state.estimates[row], now)


@njit(cache=True)
def _share(state, row, estimate, now):
    """Let an estimate be shared out among subscriptions, and tell it what these wish."""
    transport = state.transports[row]
    if transport.allocated_ns != 0:
        set_wish(estimate, np.int64(transport.wish_bps), now)
    if estimate.feedbacks > 0:
        note_estimate(state, row, np.int64(estimate.target_bps))
    elif estimate.first_sent_ns != 0 and now - estimate.first_sent_ns >= FIRST_FEEDBACK_NS:
        note_silence(state, row)


@njit(cache=True)
def bandwidth_pass(state, now):
    """Every 20 ms: look at what each transport sent meanwhile, notice that feedback stopped, and begin probes."""
    thread = state.thread[0]
    probing = 0
    for row in range(np.int64(thread.transport_end)):
        transport = state.transports[row]
        if transport.next_number == SEQUENCE_START or not can_send(state, row):
            continue
        begin_estimate(state, row, now)
        estimate, log = state.estimates[row], state.send_logs[row]
        if log.path != transport.path:
            if log.path >= 0:
                path_changed(estimate, now)
            log.path = transport.path
        tick(estimate, now, np.int64(log.bytes))
        _share(state, row, estimate, now)
        if transport.probe_cluster != estimate.probe_cluster:
            transport.probe_cluster = estimate.probe_cluster
            log.probed_ns = now
            log.probed_bytes = log.bytes
            log.probed_count = log.count
        probing += transport.probe_cluster != 0
    if probing and not thread.probing:
        thread.probes_ns = now
    thread.probing = probing
