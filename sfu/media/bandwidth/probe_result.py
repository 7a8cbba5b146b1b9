"""What a probe measured: how fast its packets left and how fast they came.

Follows libwebrtc's probe bitrate estimator. Since there may be no pacer a whole cluster can leave at once: then only
its arrivals say something, and no result exceeds the rate that was meant.
"""

import numpy as np
from numba import njit

from sfu.schema.estimate_tables import MIN_BPS, PROBES

NEEDED_SHARE = 0.8
"""The share of a cluster's packets, and of its bytes, that must be received for a result."""
MAX_SPAN_NS = 1_000_000_000
"""A cluster leaves and arrives within this time."""
BURST_NS = 1_000_000
"""What leaves within this time leaves at once."""
MAX_RATIO = 2.0
"""Nothing can arrive so many times faster than it was sent."""
SATURATED_RATIO, SATURATED_SHARE = 0.9, 0.95
"""What arrives slower than this share of the sending rate has filled the link: a little less than it is the result."""
SENT_SHARE = 0.7
"""A cluster that was sent slower than this share of its rate measured nothing below the estimate."""


@njit(cache=True)
def probe_packet(estimate, cluster, sent, arrival, size):
    """Count a received packet of a cluster; leaves in `probe_result_bps` what the cluster measured, once it has."""
    probe = estimate.probes[cluster % PROBES]
    if cluster <= 0 or probe.cluster != cluster:
        return
    if probe.packets == 0:
        probe.first_sent_ns = probe.last_sent_ns = sent
        probe.first_arrival_ns = probe.last_arrival_ns = arrival
        probe.first_bytes = size
        probe.last_burst_bytes = 0
    if sent < probe.first_sent_ns:
        probe.first_sent_ns = sent
    if sent > probe.last_sent_ns + BURST_NS:
        probe.last_sent_ns = sent
        probe.last_burst_bytes = 0
    if sent >= probe.last_sent_ns:
        probe.last_burst_bytes += size
    if arrival < probe.first_arrival_ns:
        probe.first_arrival_ns = arrival
        probe.first_bytes = size
    probe.last_arrival_ns = max(probe.last_arrival_ns, arrival)
    probe.packets += 1
    probe.bytes += size
    enough = probe.packets >= NEEDED_SHARE * probe.least_packets and probe.bytes >= NEEDED_SHARE * probe.least_bytes
    if enough:
        _measure(estimate, probe)


@njit(cache=True)
def _measure(estimate, probe):
    """Take the lesser of both rates; the last burst did not take the time in which the others left, nor did the first
    packet take that in which the others came."""
    sent_ns = probe.last_sent_ns - probe.first_sent_ns
    arrival_ns = probe.last_arrival_ns - probe.first_arrival_ns
    if not (0 <= sent_ns <= MAX_SPAN_NS and 0 <= arrival_ns <= MAX_SPAN_NS):
        return
    meant = float(probe.bps)
    sending = (probe.bytes - probe.last_burst_bytes) * 8e9 / sent_ns if sent_ns > 0 else meant
    arriving = (probe.bytes - probe.first_bytes) * 8e9 / arrival_ns if arrival_ns > 0 else meant
    if sent_ns > 0 and (sending <= 0.0 or (arriving > MAX_RATIO * sending and arriving > MAX_RATIO * meant)):
        return
    sending = min(sending, meant)
    result = min(sending, arriving)
    if arriving < SATURATED_RATIO * sending:
        result = SATURATED_SHARE * arriving
    elif sending < SENT_SHARE * meant and result < estimate.delay_bps:
        return  # media alone filled the cluster, too slowly to say anything of the path
    estimate.probe_result_bps = max(np.int64(result), MIN_BPS)
