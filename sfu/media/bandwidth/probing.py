"""When a probe is sent, and how fast.

Follows libwebrtc's probe controller and, for an estimate that stands still, str0m's. One cluster is under way at a
time: the first at three times the start rate and, as long as 70 % got through, each next at twice what was measured, so
at six times the start rate after the first. libwebrtc sends both at once; on a slow link that is a quarter of a second
of nothing but probe.
"""

import numpy as np
from numba import njit

from sfu.media.allocation.due import path_queue_ms
from sfu.media.bandwidth.loss import LOSS_DECREASING, LOSS_INCREASING
from sfu.schema.estimate_tables import DELAY_NORMAL, MAX_BPS, PROBES

START_SCALE = 3.0
SCALE = 2.0
"""A probe after the first ones is sent at this many times the known rate."""
FURTHER_SHARE = 0.7
"""A result of at least so much of the rate leads to another probe."""
PREFERRED_SCALE = 2.0
"""No probe exceeds so many times what the client prefers."""
LOSS_SCALE = 1.5
"""While the rate recovers from loss, no probe exceeds so many times the estimate."""
HEADROOM = 1.2
"""Probing ends when the estimate exceeds what is preferred by so much."""
PREFERRED_GREW = 1.2
"""If what is preferred costs so much more than before, that is probed for."""
QUEUE_MS = 100.0
"""No probe is sent while packets wait longer on the path."""
PROBE_NS = 15_000_000
PROBE_PACKETS = 5
"""A cluster lasts so long, and has so many packets at least: small ones where the rate is low."""
RESULT_NS = 1_000_000_000
"""A cluster that is not sent, or a result that has not come, within this time is given up."""
AGAIN_NS = 5_000_000_000
"""Time between probes while application-limited, after a drop, or where no capacity is known."""
RECOVERED_NS = 1_000_000_000
"""Least time between two probes after a drop that begin because a queue has gone."""
STILL_NS = 15_000_000_000
STILL_SHARE = 0.05
"""An estimate that for so long was never higher by this share than it had been stands still."""
DROP_SHARE = 0.66
REGAINED_SHARE = 0.85
DROP_MEMORY_NS = 120_000_000_000
"""A drop below the first share is probed after, until the second share is regained or so much time has passed."""
LAST_CLUSTER = 127
"""Numbers of clusters begin again after this one."""


@njit(cache=True)
def probe_sent(estimate, size, packets, now):
    """So many packets of `size` bytes together were sent as part of `probe_cluster`."""
    if estimate.probe_cluster == 0:
        return
    estimate.probe_bytes_left = max(estimate.probe_bytes_left - size, 0)
    estimate.probe_packets_left = max(estimate.probe_packets_left - packets, 0)
    if estimate.probe_bytes_left == 0 and estimate.probe_packets_left == 0:
        estimate.probe_cluster = 0
        estimate.probe_ns = now  # the result is waited for from here
        estimate.start_probes = max(estimate.start_probes - 1, 0)


@njit(cache=True)
def note_target(estimate, now):
    """After each change of `target_bps`: remember drops and standing still, and follow a probe that got through."""
    target = estimate.target_bps
    if target < DROP_SHARE * estimate.still_bps:
        # However many steps it took: several decreases by 15 % are a drop too.
        if estimate.dropped_ns == 0:
            estimate.dropped_from_bps = estimate.still_bps
        estimate.dropped_ns = now
        _stand(estimate, now)
    elif estimate.dropped_ns and target >= REGAINED_SHARE * estimate.dropped_from_bps:
        estimate.dropped_ns = 0
    if target > (1.0 + STILL_SHARE) * estimate.still_bps:
        _stand(estimate, now)
    if estimate.probe_result_bps > 0:
        estimate.start_probes = 0
        if estimate.probe_waiting and estimate.probe_cluster == 0:
            further = 0.0 < estimate.probe_further_bps <= estimate.probe_result_bps
            estimate.probe_waiting = 0
            if further:
                _begin(estimate, SCALE * target, now)


@njit(cache=True)
def probe_pass(estimate, now):
    """Give up what takes too long, and begin what is due."""
    elapsed = now - estimate.probe_ns
    if elapsed > RESULT_NS:
        estimate.probe_cluster = 0
        estimate.probe_waiting = 0
    if estimate.dropped_ns and now - estimate.dropped_ns > DROP_MEMORY_NS:
        estimate.dropped_ns = 0
    if estimate.probe_cluster or estimate.probe_waiting:
        return
    if estimate.start_probes > 0:
        _begin(estimate, START_SCALE * estimate.target_bps, now)
    elif _is_due(estimate, now):
        # Where feedback had stopped, what was carried before is tried at once.
        _begin(estimate, max(SCALE * estimate.target_bps, float(estimate.silent_from_bps)), now)


@njit(cache=True)
def _stand(estimate, now):
    """Count from here the time in which the estimate gets no further, though it may fall and recover."""
    estimate.still_bps = estimate.target_bps
    estimate.still_ns = now


@njit(cache=True)
def _is_due(estimate, now):
    """Whether something happened after which the path may carry more."""
    if estimate.probe_due or estimate.preferred_bps > PREFERRED_GREW * estimate.probed_preferred_bps:
        return True
    since = now - estimate.probe_ns
    if estimate.application_limited and since >= AGAIN_NS:
        return True
    if estimate.capacity_kbps == 0.0 and since >= AGAIN_NS:
        return True  # no queue has grown yet at this rate
    if estimate.dropped_ns and since >= AGAIN_NS and now - estimate.dropped_ns >= AGAIN_NS:
        return True
    return since >= STILL_NS and now - estimate.still_ns >= STILL_NS


@njit(cache=True)
def _begin(estimate, bps, now):
    """Let the sender send a cluster at about `bps`, unless the path shows that it is full."""
    if estimate.delay_state != DELAY_NORMAL or estimate.loss_state == LOSS_DECREASING or estimate.silent:
        return
    if path_queue_ms(estimate) > QUEUE_MS:
        return
    if estimate.target_bps >= HEADROOM * estimate.preferred_bps:
        return
    most = min(PREFERRED_SCALE * estimate.preferred_bps, float(MAX_BPS))
    if estimate.loss_state == LOSS_INCREASING:
        most = min(most, LOSS_SCALE * estimate.target_bps)
    rate = min(bps, most)
    if rate <= estimate.target_bps:
        return
    number = estimate.last_cluster + 1 if estimate.last_cluster < LAST_CLUSTER else 1
    probe = estimate.probes[number % PROBES]
    probe.cluster = number
    probe.bps = np.int64(rate)
    probe.least_bytes = np.int64(rate * PROBE_NS / 8e9)
    probe.least_packets = PROBE_PACKETS
    probe.packets = 0
    probe.bytes = 0
    estimate.last_cluster = number
    estimate.probe_cluster = number
    estimate.probe_bps = probe.bps
    estimate.probe_bytes_left = probe.least_bytes
    estimate.probe_packets_left = PROBE_PACKETS
    estimate.probe_ns = now
    estimate.probe_waiting = 1
    estimate.probe_due = 0
    estimate.silent_from_bps = 0
    estimate.probed_preferred_bps = estimate.preferred_bps
    _stand(estimate, now)
    estimate.probe_further_bps = FURTHER_SHARE * rate if bps < most else 0.0
