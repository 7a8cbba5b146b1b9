"""What rules where transport-cc feedback never came: receiver reports and REMB.

Follows draft-ietf-rmcat-gcc-02 section 6 (loss-based controller). Since nothing probes here, the rate begins where it
limits nothing, and a report that tells of loss brings it below what was sent.
"""

from numba import njit

from sfu.schema.estimate_tables import MAX_BPS, MIN_BPS

LOW_LOSS, HIGH_LOSS = 0.02, 0.1
GROWTH, GROWTH_BPS = 1.08, 1_000
"""In a second with little loss: 1.05 in the draft, 1.08 in libwebrtc."""
GROWTH_NS = 1_000_000_000
DECREASE_NS = 300_000_000
"""And a round trip between two decreases."""
PATIENCE_NS = 3_000_000_000
"""Without feedback for so long after the first packet, reports rule."""


@njit(cache=True)
def rule_by_reports(estimate):
    """Say that no feedback will come, since it was not negotiated or does not come: nothing limits until reports do."""
    estimate.by_reports = 1
    _limit(estimate)


@njit(cache=True)
def take_report(estimate, fraction_lost, now):
    """fraction_lost: 0 to 256ths, what of our packets was lost since the last report (RFC 3550 section 6.4.1)."""
    if estimate.feedbacks > 0:
        return
    if not estimate.by_reports:
        if estimate.first_sent_ns == 0 or now - estimate.first_sent_ns < PATIENCE_NS:
            return
        estimate.by_reports = 1
    loss = min(max(fraction_lost, 0), 255) / 256.0
    elapsed = now - estimate.report_ns
    sent = max(estimate.sent_bytes - estimate.report_sent_bytes, 0)
    if loss > HIGH_LOSS and elapsed >= DECREASE_NS + estimate.rtt_ns:
        sent_bps = sent * 8e9 / elapsed if estimate.report_ns else float(MAX_BPS)
        estimate.report_bps = min(estimate.report_bps, max(sent_bps, MIN_BPS)) * (1.0 - loss / 2.0)
    elif loss <= LOW_LOSS and elapsed >= GROWTH_NS:
        estimate.report_bps = estimate.report_bps * GROWTH + GROWTH_BPS
    elif estimate.report_ns:
        _limit(estimate)
        return
    estimate.report_bps = min(max(estimate.report_bps, MIN_BPS), MAX_BPS)
    estimate.report_ns = now
    estimate.report_sent_bytes = estimate.sent_bytes
    _limit(estimate)


@njit(cache=True)
def take_receiver_estimate(estimate, bps):
    """bps: of a REMB message (draft-alvestrand-rmcat-remb-03), any number."""
    estimate.receiver_bps = min(max(bps, MIN_BPS), MAX_BPS)
    if estimate.by_reports:
        _limit(estimate)


@njit(cache=True)
def _limit(estimate):
    estimate.target_bps = max(min(int(estimate.report_bps), estimate.receiver_bps), MIN_BPS)
