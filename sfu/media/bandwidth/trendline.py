"""Whether the queue on the path grows: the slope of one-way delay against an adaptive threshold.

Follows draft-ietf-rmcat-gcc-02 section 5.4 (over-use detector) with the filter that libwebrtc uses now, a line through
smoothed delays of the last groups instead of the Kalman filter of section 5.3.
"""

from numba import njit

from sfu.schema.estimate_tables import DELAY_GROWING, DELAY_NORMAL, DELAY_SHRINKING, TREND_GROUPS

SMOOTHING = 0.9
GAIN = 4.0
WARM_GROUPS = 60
"""The slope counts in full after so many changes of delay."""
MAX_COUNT = 1000
GROWING_MS = 10.0
"""Time that the slope has to be beyond the threshold."""
THRESHOLD_UP, THRESHOLD_DOWN = 0.0087, 0.039
"""Gains K_u and K_d of section 5.4, as libwebrtc sets them."""
MIN_THRESHOLD, MAX_THRESHOLD = 6.0, 600.0
SPIKE_MS = 15.0
"""A slope so far beyond the threshold is a spike and does not move it."""
ADAPTING_MS = 100.0
"""A threshold moves for at most so long at once."""
BASE_MS = 10_000.0
"""The least delay of between one and two such times is that of an empty queue."""


@njit(cache=True)
def forget_trend(estimate):
    """Drop the delays seen so far; how many there were and the threshold stay."""
    estimate.trend_length = 0
    estimate.trend_next = 0
    estimate.trend_last_ms = 0.0
    estimate.delay_ms = 0.0
    estimate.smoothed_delay_ms = 0.0
    estimate.base_ms = 0.0
    estimate.base_before_ms = 0.0
    estimate.base_from_ms = 0.0
    estimate.trend = 0.0
    estimate.growing_ms = -1.0
    estimate.growing_count = 0
    estimate.delay_state = DELAY_NORMAL


@njit(cache=True)
def add_delay(estimate, sent_ns, arrival_ns, arrived_ns):
    """A group left `sent_ns` after the one before, arrived `arrival_ns` after it, and did so at `arrived_ns`."""
    if estimate.trend_length == 0:
        estimate.trend_first_ns = arrived_ns
    estimate.delay_count = min(estimate.delay_count + 1, MAX_COUNT)
    sent_ms = sent_ns * 1e-6
    estimate.delay_ms += arrival_ns * 1e-6 - sent_ms
    estimate.smoothed_delay_ms = SMOOTHING * estimate.smoothed_delay_ms + (1.0 - SMOOTHING) * estimate.delay_ms
    arrived_ms = (arrived_ns - estimate.trend_first_ns) * 1e-6
    place = estimate.trend_next
    estimate.trend_arrivals_ms[place] = arrived_ms
    estimate.trend_delays_ms[place] = estimate.smoothed_delay_ms
    estimate.trend_next = place + 1 if place + 1 < TREND_GROUPS else 0
    estimate.trend_length = min(estimate.trend_length + 1, TREND_GROUPS)
    slope = _slope(estimate) if estimate.trend_length == TREND_GROUPS else estimate.trend
    elapsed_ms = arrived_ms - estimate.trend_last_ms
    estimate.trend_last_ms = arrived_ms
    _note_base(estimate, arrived_ms)
    _detect(estimate, slope, sent_ms, elapsed_ms)


@njit(cache=True)
def queue_ms(estimate):
    """How long packets wait on the path, beyond the least of the last 10 to 20 s."""
    return estimate.smoothed_delay_ms - min(estimate.base_ms, estimate.base_before_ms)


@njit(cache=True)
def _note_base(estimate, arrived_ms):
    if arrived_ms - estimate.base_from_ms > BASE_MS:
        estimate.base_from_ms = arrived_ms
        estimate.base_before_ms = estimate.base_ms
        estimate.base_ms = estimate.delay_ms
    estimate.base_ms = min(estimate.base_ms, estimate.delay_ms)


@njit(cache=True)
def _slope(estimate):
    """Least squares through the last groups; the slope before where all arrived at one time."""
    arrivals, delays = estimate.trend_arrivals_ms, estimate.trend_delays_ms
    start = arrivals[estimate.trend_next]  # the oldest: small numbers lose no digits
    sum_x = sum_y = sum_xx = sum_xy = 0.0
    for k in range(TREND_GROUPS):
        x = arrivals[k] - start
        y = delays[k]
        sum_x += x
        sum_y += y
        sum_xx += x * x
        sum_xy += x * y
    spread = TREND_GROUPS * sum_xx - sum_x * sum_x
    if spread <= 0.0:
        return estimate.trend
    return (TREND_GROUPS * sum_xy - sum_x * sum_y) / spread


@njit(cache=True)
def _detect(estimate, slope, sent_ms, elapsed_ms):
    """Compare the slope with the threshold; section 5.4: growth counts when it lasts and does not abate."""
    if estimate.delay_count < 2:
        return
    scaled = min(estimate.delay_count, WARM_GROUPS) * slope * GAIN
    if scaled > estimate.threshold:
        # Half of the time since the group before is taken to have been beyond it.
        estimate.growing_ms = sent_ms / 2 if estimate.growing_ms < 0.0 else estimate.growing_ms + sent_ms
        estimate.growing_count += 1
        if estimate.growing_ms > GROWING_MS and estimate.growing_count > 1 and slope >= estimate.trend:
            estimate.growing_ms = 0.0
            estimate.growing_count = 0
            estimate.delay_state = DELAY_GROWING
    else:
        if scaled < -estimate.threshold:
            estimate.delay_state = DELAY_SHRINKING
        else:
            if estimate.delay_state == DELAY_SHRINKING:
                estimate.delay_recovered = 1
            estimate.delay_state = DELAY_NORMAL
        estimate.growing_ms = -1.0
        estimate.growing_count = 0
    estimate.trend = slope
    _adapt(estimate, abs(scaled), elapsed_ms)


@njit(cache=True)
def _adapt(estimate, size, elapsed_ms):
    """Move the threshold towards the slope, section 5.4: so that a flow does not starve beside TCP."""
    if size > estimate.threshold + SPIKE_MS:
        return
    gain = THRESHOLD_DOWN if size < estimate.threshold else THRESHOLD_UP
    moved = estimate.threshold + gain * (size - estimate.threshold) * min(max(elapsed_ms, 0.0), ADAPTING_MS)
    estimate.threshold = min(max(moved, MIN_THRESHOLD), MAX_THRESHOLD)
