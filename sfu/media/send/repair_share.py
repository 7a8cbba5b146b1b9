"""How much of what a subscriber's path carries may be repeats: without a bound, what is lost in a full queue would be
sent again and again, and be most of what fills it."""

import numpy as np
from numba import njit

from sfu.media.allocation.due import path_queue_ms
from sfu.schema.estimate_tables import DELAY_NORMAL

LEAST_SHARE, MOST_SHARE = 0.1, 0.3
"""Repeats may take the share that is lost, but no less and no more than these."""
CHANCE_FACTOR = 2.0
"""Repeats may take so many times the share that is lost where that is not because a queue is full: they are lost as
often, and some are sent twice."""
SAVED_NS = 500_000_000
"""What was not used for so long may be used at once."""
LEAST_SAVED_BYTES = 3_000
"""Bytes that may always be saved, at the lowest rates too: two packets."""
CHANCE_LOSS = 0.02
"""Where less is lost, repeats are lost too rarely to matter."""
EMPTY_QUEUE_MS = 50.0
"""A path on which packets wait longer may lose them because its queue is full."""


@njit(cache=True)
def may_repeat(state, row, size, now):
    """Whether a repeat of `size` bytes may leave for transport `row` at `now` (ns); then it is charged.

    Where neither transport-cc feedback nor receiver reports limit anything, nothing is known that could be shared, and
    all is repeated.
    """
    estimate, log = state.estimates[row], state.send_logs[row]
    if not state.transports[row].estimated or (estimate.feedbacks == 0 and state.transports[row].estimate_bps == 0):
        return True
    rate = _rate(estimate)
    log.repair_bytes = min(log.repair_bytes + rate * (now - log.repair_ns), _most(rate))
    log.repair_ns = now
    if log.repair_bytes < size:
        return False
    log.repair_bytes -= size
    return True


@njit(cache=True)
def may_repeat_twice(state, row, size, now):
    """Whether a repeat of `size` bytes, which leaves for transport `row` at `now` (ns), may leave in two packets at
    once, because its path loses by chance; then the second one is charged.

    Such a path loses repeats as often. A receiver asks again after 100 ms (libwebrtc, which does not know the round
    trip where it only receives), and by then its picture stands still. Half of what may be saved is kept for those
    that have not left once.
    """
    if not loses_by_chance(state, row):
        return False
    kept = _most(_rate(state.estimates[row])) / 2
    return state.send_logs[row].repair_bytes - size >= kept and may_repeat(state, row, size, now)


@njit(cache=True)
def _rate(estimate):
    """Bytes for repeats in a nanosecond."""
    factor = CHANCE_FACTOR if _is_chance(estimate) else 1.0
    return min(max(factor * estimate.average_loss, LEAST_SHARE), MOST_SHARE) * estimate.target_bps / 8e9


@njit(cache=True)
def _most(rate):
    """Bytes that may be saved."""
    return max(rate * SAVED_NS, LEAST_SAVED_BYTES)


@njit(cache=True)
def loses_by_chance(state, row):
    """Whether the path of transport `row` loses packets though its queue is not full."""
    return state.transports[row].estimated != 0 and _is_chance(state.estimates[row])


@njit(cache=True)
def _is_chance(estimate):
    if estimate.feedbacks == 0 or estimate.silent:
        return False
    waits = estimate.delay_state != DELAY_NORMAL or path_queue_ms(estimate) >= EMPTY_QUEUE_MS
    return estimate.average_loss >= CHANCE_LOSS and not waits


@njit(cache=True)
def round_trip_ns(state, row):
    """How long a repeat to transport `row` and the answer to it take, ns; 0: not known.

    Feedback tells sooner than reports that a queue has grown.
    """
    transport = state.transports[row]
    reported = np.int64(transport.rtt_ns)
    if not transport.estimated:
        return reported
    return max(reported, np.int64(state.estimates[row].rtt_ns))
