"""The send-side bandwidth estimate of a transport: what feedback says, put together.

Each feedback is `begin_feedback`, one call for each packet that it names for the first time, and `end_feedback`;
between feedbacks `tick` sees what is sent. What may be sent is `target_bps`, which probe is to be sent `probe_cluster`.
Follows libwebrtc's GoogCcNetworkController: the delay-based rate (draft-ietf-rmcat-gcc-02 section 5) is the upper bound
of what the loss model allows.
"""

import numpy as np
from numba import njit

from sfu.compiler.rows import row_reset
from sfu.media.allocation.due import path_queue_ms
from sfu.media.bandwidth import probing, reports
from sfu.media.bandwidth.acknowledged import acknowledge_packet
from sfu.media.bandwidth.application_limit import spend_budget
from sfu.media.bandwidth.groups import forget_groups, group_packet
from sfu.media.bandwidth.loss import (
    LOSS_NONE,
    NEEDED_OBSERVATIONS,
    note_probe,
    note_recovered,
    note_reported,
    observe,
    update_loss,
)
from sfu.media.bandwidth.probe_result import probe_packet
from sfu.media.bandwidth.rate_control import BETA, control_rate, set_delay_rate
from sfu.media.bandwidth.trains import forget_slow_trains, measure_train, proven_bps, train_packet
from sfu.schema.estimate_tables import (
    DELAY_GROWING,
    DELAY_NORMAL,
    ESTIMATE,
    MAX_BPS,
    MIN_BPS,
    PROBES,
    RTT_REPORTS,
    START_BPS,
)

STREAM_TIMEOUT_NS = 2_000_000_000
"""Groups begin anew after so long without feedback."""
SILENCE_NS = 1_000_000_000
"""Feedback has stopped after this time, or three round trips if that is longer; the rate is then halved as often."""
SILENCE_ROUND_TRIPS = 3
MAX_RTT_NS = 10_000_000_000
"""A longer round trip is not believed."""
MOVE_PROBE_NS = 5_000_000_000
"""A change of the path is not probed after so soon after the last one that was, and does not begin the wait for
feedback anew: a client changes it at will."""

_reset = row_reset(ESTIMATE.reset_parts(), ESTIMATE.dtype.itemsize)


@njit(cache=True)
def open_estimate(estimate, now):
    """Begin at the start rate with nothing known; now: ns."""
    _reset(estimate)
    for k in range(PROBES):
        estimate.probes[k].cluster = 0
    estimate.still_ns = now


@njit(cache=True)
def resume_estimate(estimate, bps, now):
    """Begin at what the same client's path was last known to carry, a moment ago."""
    rate = min(max(bps, MIN_BPS), MAX_BPS)
    set_delay_rate(estimate, float(rate), now)
    estimate.target_bps = rate
    estimate.still_bps = rate
    estimate.still_ns = now
    estimate.start_probes = 0
    estimate.probe_due = 1


@njit(cache=True)
def path_changed(estimate, now):
    """The packets take another path: what was learnt of the old one is dropped, but not exceeded before a probe."""
    rate = float(estimate.target_bps)
    if estimate.acknowledged_bps > 0.0:
        rate = min(rate, estimate.acknowledged_bps)
    preferred, sent, cluster = estimate.preferred_bps, estimate.sent_bytes, estimate.last_cluster
    by_reports, feedbacks, moved = estimate.by_reports, estimate.feedbacks, estimate.moved_ns
    silent, answered, unanswered = estimate.silent, estimate.answered_bytes, estimate.unanswered_ns
    again = moved != 0 and now - moved < MOVE_PROBE_NS
    open_estimate(estimate, now)
    estimate.preferred_bps = preferred
    estimate.sent_bytes = sent
    estimate.answered_bytes = answered if again else sent
    estimate.unanswered_ns = unanswered if again else 0
    estimate.last_cluster = cluster
    estimate.feedbacks = feedbacks
    if by_reports:
        reports.rule_by_reports(estimate)
        return
    resume_estimate(estimate, np.int64(rate), now)
    estimate.silent = silent  # until feedback comes
    if again:
        estimate.probe_due = 0
        estimate.probe_ns = now  # another one comes in its time
        estimate.moved_ns = moved
    else:
        estimate.moved_ns = now


@njit(cache=True)
def begin_feedback(estimate, now):
    """Feedback came at `now` (ns); what it says follows."""
    if estimate.feedback_ns and now - estimate.feedback_ns > STREAM_TIMEOUT_NS:
        forget_groups(estimate)
    estimate.feedback_ns = now
    estimate.received = 0
    estimate.newest_sent_ns = 0
    estimate.delay_recovered = 0
    estimate.probe_result_bps = 0


@njit(cache=True)
def packet_received(estimate, sent_ns, arrival_ns, size, cluster):
    """A packet that is reported as received for the first time, in the order of the numbers.

    sent_ns: when it left; arrival_ns: on the receiver's clock; size: bytes on the wire; cluster: its probe, 0: none.
    """
    estimate.received += 1
    estimate.newest_sent_ns = max(estimate.newest_sent_ns, sent_ns)
    note_reported(estimate, sent_ns, size, False)
    acknowledge_packet(estimate, sent_ns, arrival_ns, size)
    group_packet(estimate, sent_ns, arrival_ns)
    train_packet(estimate, sent_ns, arrival_ns, size)
    if cluster:
        probe_packet(estimate, cluster, sent_ns, arrival_ns, size)


@njit(cache=True)
def packet_lost(estimate, sent_ns, size):
    """A packet that is reported as missing for the first time."""
    note_reported(estimate, sent_ns, size, True)


@njit(cache=True)
def packet_recovered(estimate, sent_ns, size):
    """A packet that was reported as missing, and now is as received; `packet_received` is not called for it."""
    note_recovered(estimate, sent_ns, size)


@njit(cache=True)
def end_feedback(estimate, now):
    """All that the feedback says is known: change `target_bps`."""
    if estimate.by_reports or estimate.feedbacks == 0:
        _first_feedback(estimate, now)
    estimate.feedbacks += 1
    estimate.answered_bytes = estimate.sent_bytes
    estimate.unanswered_ns = 0
    if estimate.silent:
        estimate.silent = 0
        estimate.probe_due = 1
    if estimate.received:
        _measure_round_trip(estimate, now - estimate.newest_sent_ns)
        forget_slow_trains(estimate, path_queue_ms(estimate))
        measure_train(estimate)
        _delay_rate(estimate, now)
    if observe(estimate):
        update_loss(estimate)
    _set_target(estimate)
    if estimate.delay_recovered and estimate.dropped_ns and now - estimate.probe_ns >= probing.RECOVERED_NS:
        estimate.probe_due = 1
    probing.note_target(estimate, now)


@njit(cache=True)
def tick(estimate, now, sent_bytes):
    """Every 5 to 25 ms while the transport sends; sent_bytes: running total of packets with transport-wide numbers."""
    if sent_bytes != estimate.sent_bytes and estimate.first_sent_ns == 0:
        estimate.first_sent_ns = now
    spend_budget(estimate, now, sent_bytes)
    if estimate.feedbacks == 0 or estimate.by_reports:
        if estimate.feedbacks == 0 and not estimate.by_reports:
            probing.probe_pass(estimate, now)
        return
    _notice_silence(estimate, now)
    probing.probe_pass(estimate, now)


@njit(cache=True)
def set_preferred(estimate, bps, now):
    """What all that the client prefers would cost, in bit/s: probes lead there, and not much further."""
    preferred = min(max(bps, 0), MAX_BPS)
    estimate.preferred_bps = preferred
    estimate.probed_preferred_bps = min(estimate.probed_preferred_bps, preferred)


@njit(cache=True)
def probe_sent(estimate, size, packets, now):
    """So many packets of `size` bytes together were sent as part of `probe_cluster`."""
    probing.probe_sent(estimate, size, packets, now)


@njit(cache=True)
def receiver_report(estimate, fraction_lost, sent_bps, now):
    """Receiver reports say that so many 256ths were lost of what was sent at this rate; they rule after
    `expect_no_feedback`."""
    reports.take_report(estimate, fraction_lost, sent_bps, now)


@njit(cache=True)
def receiver_estimate(estimate, bps, now):
    """A REMB message says what its sender can receive; it rules after `expect_no_feedback`."""
    reports.take_receiver_estimate(estimate, bps, now)


@njit(cache=True)
def expect_no_feedback(estimate):
    """Transport-cc was not negotiated: nothing limits what is sent until receiver reports or REMB do."""
    reports.rule_by_reports(estimate)


@njit(cache=True)
def _first_feedback(estimate, now):
    """From now on feedback rules; what reports allowed was not measured."""
    if estimate.by_reports:
        estimate.by_reports = 0
        estimate.average_loss = 0.0
        set_delay_rate(estimate, float(min(estimate.target_bps, START_BPS)), now)


@njit(cache=True)
def _measure_round_trip(estimate, sample):
    """Keep the least of the last round trips: what the receiver waited before it reported is in each."""
    if not 0 < sample < MAX_RTT_NS:
        return
    estimate.rtts_ns[estimate.rtt_next] = sample
    estimate.rtt_next = (estimate.rtt_next + 1) % RTT_REPORTS
    least = MAX_RTT_NS
    for k in range(RTT_REPORTS):
        if 0 < estimate.rtts_ns[k] < least:
            least = estimate.rtts_ns[k]
    estimate.rtt_ns = least


@njit(cache=True)
def _delay_rate(estimate, now):
    """Take a probe's result if the queue does not grow, else let the rate control decide."""
    if estimate.probe_result_bps == 0 or estimate.delay_state == DELAY_GROWING:
        control_rate(estimate, now)
        _rise_to_proven(estimate, now)
        return
    # A result far below what arrives is no good measurement, and one below the estimate is no reason to rise.
    proven = proven_bps(estimate, path_queue_ms(estimate))
    floor = min(estimate.delay_bps, max(BETA * estimate.acknowledged_bps, proven))
    set_delay_rate(estimate, max(float(estimate.probe_result_bps), floor), now)
    if note_probe(estimate, np.int64(estimate.delay_bps)):
        estimate.probe_due = 1  # the next one need not be as careful


@njit(cache=True)
def _rise_to_proven(estimate, now):
    """Bursts of our own that arrived are as good as a probe."""
    proven = proven_bps(estimate, path_queue_ms(estimate))
    if estimate.delay_state == DELAY_NORMAL and proven > estimate.delay_bps:
        set_delay_rate(estimate, proven, now)
        note_probe(estimate, np.int64(proven))


@njit(cache=True)
def _set_target(estimate):
    rate = estimate.delay_bps
    if estimate.loss_state != LOSS_NONE and estimate.observations >= NEEDED_OBSERVATIONS:
        rate = min(rate, estimate.loss_result_bps)
    estimate.target_bps = min(max(np.int64(rate), MIN_BPS), MAX_BPS)


@njit(cache=True)
def _notice_silence(estimate, now):
    """Halve the rate when what is sent is not answered, and again each second (RFC 8083 is the last resort beyond)."""
    if estimate.sent_bytes == estimate.answered_bytes:
        return
    if estimate.unanswered_ns == 0:
        estimate.unanswered_ns = now
        return
    wait = max(SILENCE_NS, SILENCE_ROUND_TRIPS * estimate.rtt_ns) if not estimate.silent else SILENCE_NS
    if now - estimate.unanswered_ns < wait:
        return
    if not estimate.silent:
        estimate.silent = 1
        estimate.silent_from_bps = estimate.target_bps
    estimate.unanswered_ns = now
    estimate.answered_bytes = estimate.sent_bytes
    estimate.target_bps = max(estimate.target_bps // 2, MIN_BPS)
    set_delay_rate(estimate, float(estimate.target_bps), now)
    probing.note_target(estimate, now)
