"""What bursts of packets tell of the path: how fast they arrive, and the queue that they make by themselves.

A picture leaves in one burst, and a key frame faster than the path may carry. Its packets then wait for each other, and
the delay grows though less is sent than the path carries: no reason to send less, as the queue is gone before the next
picture. The first filter of draft-ietf-rmcat-gcc-02 (section 5.3, later replaced) had a term for the size of what was
sent; the trendline has none and relies on packets that are spaced evenly. Here the rate at which the packets of a burst
arrive (a packet train: Dovrolis, Ramanathan and Moore 2001) gives the queue that is our own.
"""

import numpy as np
from numba import njit

APART_NS = 40_000_000
"""Packets that leave further apart belong to different trains: a pacer lets large ones leave one by one."""
TOGETHER_NS = 1_000_000
"""Packets that leave further apart belong to one train only if the later one arrived right after the other."""
REST = 1.3
"""One that took so many times longer than a packet of its size did before came after a rest of the path."""
ALIKE = 1.25
"""The first two packets, of which nothing is known before, differ in size by no more than this factor."""
TRAIN_PACKETS = 4
TRAIN_NS = 5_000_000
"""A train of fewer packets, or that arrives in less time, measures nothing."""
STRETCHED = 1.25
"""A train that takes so much longer to arrive than it took to leave has filled the path."""
VALID_NS = 10_000_000_000
"""The rate of trains is unknown after so long without one that filled the path."""
MEAN_NS = 1_000_000_000
"""The time over which what is sent is averaged."""
BUSY_SHARE = 0.85
"""Who sends more than this share of what trains arrive at, on the average, fills the path."""
BUSY_FAST_SHARE = 0.5
"""BUSY_SHARE for paths faster than TRUSTED_BPS: two senders that share a path have about half of it each."""
OTHERS_MS = 10.0
"""A queue that exceeds our own by more is that of others, or of a path that carries less than trains told."""
TRUSTED_BPS = 1_000_000
"""Trains that arrive faster prove nothing: what a radio link bunches up seems to arrive so."""
DISPROVED_MS = 100.0
"""A queue that is so much shorter than ours would be at the rate of trains: the path carries more by now."""
OVERRUN_NS = 50_000_000
"""A train that takes so long to arrive is longer than the jitter of usual paths."""
OVERRUN_PARTS = 3
"""No pause in it may be longer than one of so many parts of it: the path was busy, and did not stand still."""
OVERRUN_SHARE = 0.7
"""A path that carries less than this share of what is sent on the average is overrun."""
PROVEN_NS = 5_000_000_000
"""How long a train proves what may be sent."""


@njit(cache=True)
def train_packet(estimate, sent, arrival, size):
    """Count a received packet of `size` bytes that left at `sent` and arrived at `arrival` (ns, the receiver's)."""
    _queue(estimate, sent, size)
    if not _follows(estimate, sent, arrival, size):
        measure_train(estimate)
        estimate.train_packets = 1
        estimate.train_bytes = size
        estimate.train_first_sent_ns = estimate.train_sent_ns = sent
        estimate.train_first_arrival_ns = estimate.train_arrival_ns = arrival
        estimate.train_pause_ms = 0.0
        return
    if estimate.train_packets == 1:
        estimate.train_bytes = 0  # the path was not seen to begin with the first
    estimate.train_packets += 1
    estimate.train_bytes += size
    estimate.train_sent_ns = sent
    estimate.train_pause_ms = max(estimate.train_pause_ms, (arrival - estimate.train_arrival_ns) * 1e-6)
    estimate.train_arrival_ns = max(estimate.train_arrival_ns, arrival)


@njit(cache=True)
def _follows(estimate, sent, arrival, size):
    """Whether a packet belongs to the train that grows."""
    apart = sent - estimate.train_sent_ns
    if estimate.train_packets == 0 or not 0 <= apart <= APART_NS:
        return False
    if apart <= TOGETHER_NS:
        return True
    took = np.float64(arrival - estimate.train_arrival_ns)
    if estimate.train_packets == 1:
        alike = size <= ALIKE * estimate.train_bytes and estimate.train_bytes <= ALIKE * size
        return alike and took > STRETCHED * apart
    span = np.float64(estimate.train_arrival_ns - estimate.train_first_arrival_ns)
    return took * estimate.train_bytes <= REST * size * span


@njit(cache=True)
def own_queue_ms(estimate):
    """How long the newest packet would wait for ours before it, at the rate at which trains arrive."""
    return estimate.own_bytes * 8e3 / estimate.train_bps if estimate.train_bps > 0.0 else 0.0


@njit(cache=True)
def measure_train(estimate):
    """Note the rate at which it arrived so far, if it filled the path; less is believed at once, more by half."""
    arrived = estimate.train_arrival_ns - estimate.train_first_arrival_ns
    if estimate.train_packets < TRAIN_PACKETS or arrived < TRAIN_NS:
        return
    if arrived < STRETCHED * (estimate.train_sent_ns - estimate.train_first_sent_ns):
        return
    sample = estimate.train_bytes * 8e9 / arrived
    known = estimate.train_bps if estimate.feedback_ns - estimate.train_ns <= VALID_NS else 0.0
    estimate.train_bps = sample if known <= 0.0 or sample < known else (known + sample) / 2
    if known <= 0.0:  # the train itself is what waits
        leaving = np.float64(estimate.train_sent_ns - estimate.train_first_sent_ns)
        estimate.own_bytes = max(estimate.train_bytes - sample * leaving / 8e9, 0.0)
        estimate.group_own_ms = own_queue_ms(estimate)
    estimate.train_ns = estimate.feedback_ns


@njit(cache=True)
def overrun_bps(estimate):
    """bit/s that the path carries, if the train in the feedback in hand shows that far more is sent; else 0.

    The trendline sees that half a second later, when a queue of 300 ms is full and what comes behind it is lost.
    """
    arrived = estimate.train_arrival_ns - estimate.train_first_arrival_ns
    if estimate.train_ns != estimate.feedback_ns or arrived < OVERRUN_NS:
        return 0.0
    if estimate.train_pause_ms * OVERRUN_PARTS > arrived * 1e-6:
        return 0.0
    sent = min(estimate.mean_bytes * 8e9 / MEAN_NS, estimate.delay_bps)
    return estimate.train_bps if estimate.train_bps < OVERRUN_SHARE * sent else 0.0


@njit(cache=True)
def forget_slow_trains(estimate, queue):
    """Forget the rate of trains if a queue of `queue` ms shows that the path carries more than that by now."""
    if estimate.group_own_ms > queue + DISPROVED_MS:
        estimate.train_bps = 0.0
        estimate.own_bytes = estimate.group_own_ms = 0.0


@njit(cache=True)
def is_own_queue(estimate, queue):
    """Whether a queue of `queue` ms, the newest one, is what our own bursts explain: then it goes by itself."""
    if estimate.train_bps <= 0.0 or estimate.feedback_ns - estimate.train_ns > VALID_NS:
        return False
    if estimate.train_sent_ns - estimate.first_sent_ns < MEAN_NS:
        return False  # the mean has only begun
    share = BUSY_SHARE if estimate.train_bps <= TRUSTED_BPS else BUSY_FAST_SHARE
    if estimate.mean_bytes * 8e9 > share * estimate.train_bps * MEAN_NS:
        return False
    return queue <= estimate.group_own_ms + OTHERS_MS


@njit(cache=True)
def proven_bps(estimate, queue):
    """bit/s that a slow path is known to carry by what arrived of our bursts, while a queue of `queue` ms is our own.

    0: nothing is known. A few packets in between arrive at less, because less is sent.
    """
    if not 0.0 < estimate.train_bps <= TRUSTED_BPS or estimate.feedback_ns - estimate.train_ns > PROVEN_NS:
        return 0.0
    return BUSY_SHARE * estimate.train_bps if queue <= estimate.group_own_ms + OTHERS_MS else 0.0


@njit(cache=True)
def proven_of_queue(estimate, queue):
    """`proven_bps` when a queue of `queue` ms is a reason to send less. If it is not our own, the path does not carry
    any more what trains told: that is forgotten until the next one."""
    if queue > estimate.group_own_ms + OTHERS_MS:
        estimate.train_bps = 0.0
    return proven_bps(estimate, queue)


@njit(cache=True)
def _queue(estimate, sent, size):
    """Add a packet to the mean and to the queue that drains at the rate of trains."""
    elapsed = np.float64(max(sent - estimate.train_sent_ns, 0))
    estimate.mean_bytes = estimate.mean_bytes * max(1.0 - elapsed / MEAN_NS, 0.0) + size
    drained = estimate.train_bps * elapsed / 8e9 if estimate.train_bps > 0.0 else np.float64(estimate.own_bytes)
    estimate.own_bytes = max(estimate.own_bytes - drained, 0.0) + size
