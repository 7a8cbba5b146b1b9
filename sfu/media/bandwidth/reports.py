"""What rules where transport-cc feedback never came: receiver reports and REMB.

Follows draft-ietf-rmcat-gcc-02 section 6 (loss-based controller). Since nothing probes here, the rate begins where it
limits nothing, and a report that tells of loss brings it below what was sent.
"""

import numpy as np
from numba import njit

from sfu.schema.estimate_tables import MAX_BPS, MIN_BPS

LOW_LOSS, HIGH_LOSS = 0.02, 0.1
GROWTH, GROWTH_BPS = 1.08, 1_000
"""How much the rate grows in a second with little loss: 1.05 times in the draft, 1.08 times in libwebrtc."""
GROWTH_NS, MAX_GROWTH_NS = 1_000_000_000, 10_000_000_000
"""Least time between two increases, and most that one makes up for where reports are rare."""
DECREASE_NS = 300_000_000
"""Least time between two decreases, beside one round trip."""
RECEIVER_NS = 10_000_000_000
"""A REMB holds so long: who sends them sends one a second or more."""
RECEIVER_FELL = 0.85
"""A REMB that falls to this share of the one before tells of congestion."""
MAX_RECEIVER_FACTOR = 4.0
"""A receiver grants half more than arrives. Where a layer costs three times the one below, it would never be granted,
so as much again as the reports allow is tried: the step to the next layer and a little more."""


@njit(cache=True)
def rule_by_reports(estimate):
    """Say that no feedback will come, since it was not negotiated or does not come: nothing limits until reports do."""
    estimate.by_reports = 1
    _limit(estimate)


@njit(cache=True)
def take_report(estimate, fraction_lost, sent_bps, now):
    """Change the rate by what was lost since the last report.

    fraction_lost: 0 to 256ths of our packets (RFC 3550 section 6.4.1); sent_bps: the rate at which these were sent.
    """
    if estimate.feedbacks > 0 or not estimate.by_reports:
        return
    loss = min(max(fraction_lost, 0), 255) / 256.0
    estimate.average_loss = loss  # as much may be repeated
    elapsed = now - estimate.report_ns if estimate.report_ns else GROWTH_NS
    if loss > HIGH_LOSS and elapsed >= DECREASE_NS + estimate.rtt_ns:
        estimate.report_bps = min(estimate.report_bps, max(float(sent_bps), MIN_BPS)) * (1.0 - loss / 2.0)
        estimate.report_ns = now
    elif loss <= LOW_LOSS and elapsed >= GROWTH_NS:
        growth = GROWTH ** (min(elapsed, MAX_GROWTH_NS) / 1e9)
        estimate.report_bps = estimate.report_bps * growth + GROWTH_BPS
        estimate.receiver_factor = min(estimate.receiver_factor * growth, MAX_RECEIVER_FACTOR)
        estimate.report_ns = now
    if loss > LOW_LOSS:
        estimate.receiver_factor = 1.0
    if estimate.receiver_ns and now - estimate.receiver_ns > RECEIVER_NS:
        estimate.receiver_bps = MAX_BPS
    estimate.report_bps = min(max(estimate.report_bps, MIN_BPS), MAX_BPS)
    _limit(estimate)


@njit(cache=True)
def take_receiver_estimate(estimate, bps, now):
    """bps: of a REMB message (draft-alvestrand-rmcat-remb-03), any number."""
    granted = min(max(bps, MIN_BPS), MAX_BPS)
    if granted < RECEIVER_FELL * estimate.receiver_bps:
        estimate.receiver_factor = 1.0
    estimate.receiver_bps = granted
    estimate.receiver_ns = now
    if estimate.by_reports:
        _limit(estimate)


@njit(cache=True)
def _limit(estimate):
    granted = estimate.receiver_factor * estimate.receiver_bps
    estimate.target_bps = max(np.int64(min(estimate.report_bps, granted)), MIN_BPS)
