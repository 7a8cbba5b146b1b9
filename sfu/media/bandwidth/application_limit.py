"""Whether less is sent than could be: then arrivals say little about the path and only probes do.

Follows libwebrtc's application-limited region detector: a budget that fills at 65 % of the estimate, holds 500 ms of
it and is emptied by what is sent.
"""

from numba import njit

USED_SHARE = 0.65
BUDGET_NS = 500_000_000
BEGIN_LEVEL, END_LEVEL = 0.8, 0.5
"""Application-limited from the first level of the budget on, until it falls below the second."""


@njit(cache=True)
def spend_budget(estimate, now, sent_bytes):
    """Count what was sent since the last call; sent_bytes: running total."""
    used = max(sent_bytes - estimate.sent_bytes, 0)
    elapsed = min(max(now - estimate.budget_ns, 0), BUDGET_NS)
    estimate.sent_bytes = sent_bytes
    if estimate.budget_ns == 0:
        estimate.budget_ns = now
        return
    estimate.budget_ns = now
    per_ns = USED_SHARE * estimate.target_bps / 8e9
    most = per_ns * BUDGET_NS
    left = min(max(estimate.budget_bytes - used, -most) + per_ns * elapsed, most)
    estimate.budget_bytes = left
    if left > BEGIN_LEVEL * most:
        estimate.application_limited = 1
    elif left < END_LEVEL * most and estimate.application_limited:
        estimate.application_limited = 0
        estimate.limited_ended_ns = now
