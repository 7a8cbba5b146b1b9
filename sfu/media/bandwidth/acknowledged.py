"""The rate at which packets arrive, by windows of the receiver's clock.

draft-ietf-rmcat-gcc-02 section 5.5 asks for R_hat, the incoming rate over 0.5 s. This is libwebrtc's Bayesian estimate
over 150 ms instead: a window far from what was believed counts less, and more when several agree. Beyond it, a window
counts for no more than was sent in the same time: arrivals that bunched up, or are invented, prove nothing.
"""

from numba import njit

FIRST_WINDOW_NS = 500_000_000
WINDOW_NS = 150_000_000
REORDERING_NS = 1_000_000_000
"""An arrival so far before the last means that the receiver's clock was set back."""
SEND_SLACK = 1.25
"""How much faster than sent a window may count as received: its ends cut frames in two."""
SAMPLE_DOUBT = 10.0
DRIFT = 5.0
"""Variance that each window adds: rates change."""
SUDDEN_VARIANCE = 200.0
"""Variance that is added when a change is expected."""


@njit(cache=True)
def acknowledge_packet(estimate, sent, arrival, size):
    """Count a received packet of `size` bytes that left at `sent` and arrived at `arrival` (ns, the receiver's)."""
    if estimate.limited_ended_ns and sent > estimate.limited_ended_ns:
        # After application-limited times the rate may change fast.
        estimate.acknowledged_variance += SUDDEN_VARIANCE
        estimate.limited_ended_ns = 0
    length = WINDOW_NS if estimate.acknowledged_bps > 0.0 else FIRST_WINDOW_NS
    apart = arrival - estimate.window_arrival_ns
    if estimate.window_open == 0 or apart < -REORDERING_NS or apart > length:
        # Nothing came for a whole window: what came before says nothing about now.
        _begin_window(estimate, sent, 0)
        estimate.window_arrival_ns = arrival
        apart = 0
    if apart > 0:
        estimate.window_ns += apart
        estimate.window_arrival_ns = arrival
    if estimate.window_ns >= length:
        _take_sample(estimate, _window_kbps(estimate, length))
        _begin_window(estimate, estimate.window_last_sent_ns, estimate.window_ns - length)
    estimate.window_bytes += size
    estimate.window_last_sent_ns = max(estimate.window_last_sent_ns, sent)


@njit(cache=True)
def _begin_window(estimate, sent, elapsed):
    estimate.window_open = 1
    estimate.window_ns = elapsed
    estimate.window_bytes = 0
    estimate.window_first_sent_ns = sent
    estimate.window_last_sent_ns = sent


@njit(cache=True)
def _window_kbps(estimate, length):
    """kbit/s of a window that is full: as received, within what was sent."""
    bits = estimate.window_bytes * 8.0
    sent_ns = estimate.window_last_sent_ns - estimate.window_first_sent_ns
    return bits * 1e6 / max(length, sent_ns / SEND_SLACK, 1.0)


@njit(cache=True)
def _take_sample(estimate, sample):
    """Weigh a window's rate against what was believed, by their variances (kbit/s)."""
    known = estimate.acknowledged_bps / 1000.0
    if known <= 0.0:
        estimate.acknowledged_bps = sample * 1000.0
        return
    # Relative to both, so that a rise by a probe is believed as fast as a fall.
    doubt = SAMPLE_DOUBT * abs(known - sample) / (known + sample)
    variance = estimate.acknowledged_variance + DRIFT
    weight = doubt * doubt + variance
    estimate.acknowledged_bps = 1000.0 * max((doubt * doubt * known + variance * sample) / weight, 1.0)
    estimate.acknowledged_variance = doubt * doubt * variance / weight
