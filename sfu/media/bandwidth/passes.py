"""Where the estimates of all transports meet the tables: when they begin, and what is noticed without feedback."""

import numpy as np
from numba import njit

from sfu.media.allocation.due import list_transport, note_estimate, note_silence
from sfu.media.bandwidth.carrier import find_carrier
from sfu.media.bandwidth.estimate import open_estimate, path_changed, resume_estimate, set_preferred, tick
from sfu.media.net.send_log import open_log
from sfu.media.net.srtp import can_send
from sfu.media.send.budget import UNLIMITED, is_paced
from sfu.schema.capacities import SEQUENCE_START

FIRST_FEEDBACK_NS = 1_000_000_000
"""A peer whose first feedback takes longer is taken for one that sends none. When some comes, it counts."""
PROBED_SHARE, PROBED_A_SECOND = 20, 50_000
"""One of so many bytes of a media thread, and so many in any case, may be sent for nothing but probing."""
PROBED_FREELY = 1_000_000
"""The most bytes for probing that all transports together may save."""
SECOND_NS = 1_000_000_000


@njit(cache=True)
def begin_estimate(state, row, now):
    """Begin the estimate of transport `row`, unless it has begun: with its first numbered packet or the first report
    that limits it, not when it opens, since most transports never have one. What its client's path carried a moment
    ago, on a transport before this one, is where it begins."""
    transport = state.transports[row]
    if transport.estimated:
        return
    transport.estimated = 1
    open_estimate(state.estimates[row], now)
    if transport.resumed_bps > 0:
        resume_estimate(state.estimates[row], np.int64(transport.resumed_bps), now)
    open_log(state, row)


@njit(cache=True)
def _share(state, row, estimate, now):
    """Let an estimate be shared out among subscriptions, and tell it what these prefer."""
    transport = state.transports[row]
    if transport.allocated_ns != 0 and not state.thread[0].unlimited:
        set_preferred(estimate, np.int64(transport.preferred_bps), now)
    if estimate.feedbacks > 0:
        note_estimate(state, row, np.int64(estimate.target_bps))
    elif estimate.first_sent_ns != 0 and now - estimate.first_sent_ns >= FIRST_FEEDBACK_NS:
        note_silence(state, row)
    if transport.free_number == UNLIMITED and is_paced(state, row):
        transport.free_number = 0


@njit(cache=True)
def _leave_path(state, row, now):
    """What was learnt of the path of transport `row`, and what is still to be reported of it, says nothing any more."""
    transport, estimate = state.transports[row], state.estimates[row]
    path_changed(estimate, now)
    state.send_logs[row].path_number = transport.next_number
    transport.interval_packets = transport.interval_lost = 0
    if estimate.by_reports:
        transport.estimate_bps = 0
        list_transport(state, row, False)


@njit(cache=True)
def _renew_credit(state, now):
    """Add to what the media thread may send for nothing but probing: a part of what it sent, and some in any case. What
    is saved is bounded, so that quiet hours do not pay for a flood."""
    thread = state.thread[0]
    if thread.credited_ns == 0:
        thread.probe_credit = PROBED_FREELY
    else:
        more = (thread.bytes_sent - thread.credited_bytes) // PROBED_SHARE
        more += PROBED_A_SECOND * min(now - thread.credited_ns, SECOND_NS) // SECOND_NS
        thread.probe_credit = min(thread.probe_credit + more, PROBED_FREELY)
    thread.credited_ns, thread.credited_bytes = now, thread.bytes_sent


@njit(cache=True)
def bandwidth_pass(state, now):
    """Every 20 ms: look at what each transport sent meanwhile, notice that feedback stopped, and begin probes."""
    thread = state.thread[0]
    _renew_credit(state, now)
    probing = 0
    for row in range(np.int64(thread.transport_end)):
        transport = state.transports[row]
        if (transport.next_number == SEQUENCE_START and not transport.estimated) or not can_send(state, row):
            continue
        begin_estimate(state, row, now)
        estimate, log = state.estimates[row], state.send_logs[row]
        if log.path != transport.path:
            if log.path >= 0:
                _leave_path(state, row, now)
            log.path = transport.path
        tick(estimate, now, np.int64(log.bytes))
        _share(state, row, estimate, now)
        if transport.probe_cluster != estimate.probe_cluster:
            transport.probe_cluster = estimate.probe_cluster
            log.probed_ns = now
            log.probed_bytes = log.bytes
            log.probed_count = log.count
            log.carrier = -1
        if estimate.probe_cluster and log.carrier < 0:
            log.carrier = find_carrier(state, row)
        probing += transport.probe_cluster != 0
    if probing and not thread.probing:
        thread.probes_ns = now
    thread.probing = probing
