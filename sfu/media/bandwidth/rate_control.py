"""The rate that delay allows: up while the queue does not grow, down to what arrives when it does.

Follows draft-ietf-rmcat-gcc-02 section 5.5 (rate control) with libwebrtc's present link capacity estimate in place of
R_max, and its bounds.
"""

import math

from numba import njit

from sfu.media.allocation.due import path_queue_ms
from sfu.media.bandwidth.trains import is_own_queue, overrun_bps, proven_of_queue
from sfu.media.bandwidth.trendline import queue_ms
from sfu.schema.estimate_tables import DELAY_GROWING, DELAY_SHRINKING, MAX_BPS, MIN_BPS

RATE_HOLD, RATE_INCREASE = 0, 1
"""States of figure 1 in section 5.5; Decrease is left as soon as it was entered."""

BETA = 0.85
"""Decrease to this share of what arrives."""
DRAIN_BPS = 5_000
"""A decrease goes this far (bit/s) below BETA times the rate of arrival, so that the queue drains."""
ETA = 1.08
"""Multiplicative increase in a second, far from the known capacity."""
MIN_INCREASE_BPS = 1_000
UNPROVEN_FACTOR, UNPROVEN_BPS = 1.5, 10_000
"""An increase ends at this many times what arrives, and so much more: beyond that only a probe leads."""
FRAME_BITS = 1 / 30
PACKET_BYTES = 1200
RESPONSE_NS = 100_000_000
"""The detector's delay, which section 5.5 adds to the round trip."""
MIN_ADDITIVE_BPS = 4_000
"""Least additive increase in a second."""
UNKNOWN_RTT_NS = 200_000_000
MIN_AGAIN_NS, MAX_AGAIN_NS = 10_000_000, 200_000_000
"""A further decrease comes after a round trip within these bounds."""
CAPACITY_WEIGHT = 0.05
MIN_DEVIATION, MAX_DEVIATION = 0.4, 2.5
"""14 and 35 kbit/s of standard deviation at 500 kbit/s."""
DEVIATIONS = 3.0
"""Within so many standard deviations the rate is near the known capacity."""
SECOND_NS = 1_000_000_000
LIMITED_MS = 50.0
"""Who sends far below the estimate is not the cause of a smaller queue: jitter is, or others."""
STANDING_MS, GONE_MS = 100.0, 40.0
"""A queue of the first size stands, one of the second is gone."""
MAX_DRAINS = 3
"""So many decreases because of a queue that stands: one that is still there belongs to others, such as TCP."""
DRAIN_NS = 400_000_000
"""Time between them."""


@njit(cache=True)
def round_trip(estimate):
    """ns, a guess while it is unknown."""
    return estimate.rtt_ns if estimate.rtt_ns > 0 else UNKNOWN_RTT_NS


@njit(cache=True)
def set_delay_rate(estimate, bps, now):
    """Take a rate that was measured by other means."""
    estimate.delay_bps = min(max(bps, MIN_BPS), MAX_BPS)
    estimate.rate_changed_ns = now


@njit(cache=True)
def control_rate(estimate, now):
    """Once for each feedback: change `delay_bps` by the state of the queue and by what arrives."""
    queue = queue_ms(estimate)
    if queue < GONE_MS:
        estimate.drains = 0
    carried = overrun_bps(estimate)
    if carried > 0.0:
        estimate.delay_state = DELAY_GROWING  # the trendline is going to say so, and nothing is probed until then
        _note_capacity(estimate, carried / 1000.0)
        set_delay_rate(estimate, BETA * carried, now)
        estimate.rate_state = RATE_HOLD
    elif estimate.delay_state == DELAY_GROWING:
        if (estimate.application_limited and queue < LIMITED_MS) or _is_own(estimate):
            estimate.rate_state = RATE_HOLD
        elif _may_decrease(estimate, now):
            _decrease(estimate, now)
    elif queue > STANDING_MS and estimate.drains < MAX_DRAINS:
        # A full drop-tail queue does not grow, so the trendline is content with it; 0.85 of what arrives empties it.
        drained = now - estimate.rate_changed_ns >= DRAIN_NS and not _is_own(estimate)
        if estimate.delay_state != DELAY_SHRINKING and drained:
            estimate.drains += 1
            _decrease(estimate, now)
    elif estimate.delay_state == DELAY_SHRINKING:
        # Section 5.5: hold until the queues are empty, which lets the next decrease be measured well.
        estimate.rate_state = RATE_HOLD
    else:
        if estimate.rate_state == RATE_HOLD:
            estimate.rate_state = RATE_INCREASE
            estimate.rate_changed_ns = now
        _increase(estimate, now)


@njit(cache=True)
def _is_own(estimate):
    """Whether what queues is a burst of ours that fits on the whole: 0.85 of what arrives would be far too little."""
    return is_own_queue(estimate, path_queue_ms(estimate))


@njit(cache=True)
def _may_decrease(estimate, now):
    """Whether the last change has had a round trip to show, or far less arrives than is thought to."""
    wait = min(max(round_trip(estimate), MIN_AGAIN_NS), MAX_AGAIN_NS)
    if now - estimate.rate_changed_ns >= wait:
        return True
    return 0.0 < estimate.acknowledged_bps < 0.5 * estimate.delay_bps


@njit(cache=True)
def _decrease(estimate, now):
    """Section 5.5, A_hat(i) = beta * R_hat(i); what arrived is a sample of the capacity."""
    arriving = estimate.acknowledged_bps
    if arriving <= 0.0:
        set_delay_rate(estimate, estimate.delay_bps / 2, now)
        estimate.rate_state = RATE_HOLD
        return
    lowered = BETA * arriving
    if lowered > DRAIN_BPS:
        lowered -= DRAIN_BPS
    if lowered > estimate.delay_bps and estimate.capacity_kbps > 0.0:
        lowered = BETA * 1000.0 * estimate.capacity_kbps
    lowered = max(lowered, proven_of_queue(estimate, path_queue_ms(estimate)))
    if arriving < _capacity_bound(estimate, -DEVIATIONS):
        estimate.capacity_kbps = 0.0
    _note_capacity(estimate, arriving / 1000.0)
    set_delay_rate(estimate, min(lowered, estimate.delay_bps), now)
    estimate.rate_state = RATE_HOLD


@njit(cache=True)
def _increase(estimate, now):
    """Section 5.5: additive near the known capacity, multiplicative elsewhere, never far beyond what arrives."""
    arriving = estimate.acknowledged_bps
    if estimate.capacity_kbps > 0.0 and arriving > _capacity_bound(estimate, DEVIATIONS):
        estimate.capacity_kbps = 0.0
    limit = UNPROVEN_FACTOR * arriving + UNPROVEN_BPS if arriving > 0.0 else 0.0
    rate = estimate.delay_bps
    if rate < limit:
        elapsed = min(max(now - estimate.rate_changed_ns, 0), SECOND_NS) / SECOND_NS
        if estimate.capacity_kbps > 0.0:
            more = _additive_bps(estimate) * elapsed
        else:
            more = max(rate * (ETA**elapsed - 1.0), MIN_INCREASE_BPS)
        rate = min(rate + more, limit)
    set_delay_rate(estimate, rate, now)


@njit(cache=True)
def _additive_bps(estimate):
    """bit/s in a second: half a packet of the present size for each response time, section 5.5."""
    frame = estimate.delay_bps * FRAME_BITS / 8.0
    packet = frame / math.ceil(frame / PACKET_BYTES)
    response = 2.0 * (round_trip(estimate) + RESPONSE_NS) / SECOND_NS
    return max(packet * 8.0 / response, MIN_ADDITIVE_BPS)


@njit(cache=True)
def _capacity_bound(estimate, deviations):
    """bit/s at so many standard deviations from the known capacity; 0 while it is unknown."""
    kbps = estimate.capacity_kbps
    return 1000.0 * max(kbps + deviations * math.sqrt(estimate.capacity_deviation * kbps), 0.0)


@njit(cache=True)
def _note_capacity(estimate, sample):
    """Smooth the rate at which queues grew, and its variance normalised by it (kbit/s)."""
    known = estimate.capacity_kbps
    known = sample if known <= 0.0 else (1.0 - CAPACITY_WEIGHT) * known + CAPACITY_WEIGHT * sample
    error = known - sample
    spread = CAPACITY_WEIGHT * error * error / max(known, 1.0)
    deviation = (1.0 - CAPACITY_WEIGHT) * estimate.capacity_deviation + spread
    estimate.capacity_kbps = known
    estimate.capacity_deviation = min(max(deviation, MIN_DEVIATION), MAX_DEVIATION)
