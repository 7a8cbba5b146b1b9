"""How much of what a subscriber's path carries may be repeats: without a bound, what is lost in a full queue would be
sent again and again, and be most of what fills it."""

import numpy as np
from numba import njit

from sfu.media.allocation.due import path_queue_ms
from sfu.schema.estimate_tables import DELAY_NORMAL

LEAST_SHARE, MOST_SHARE = 0.1, 0.3
"""Repeats may take the share that is lost, but no less and no more than these."""
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
    share = min(max(estimate.average_loss, LEAST_SHARE), MOST_SHARE)
    rate = share * estimate.target_bps / 8e9
    most = max(rate * SAVED_NS, LEAST_SAVED_BYTES)
    log.repair_bytes = min(log.repair_bytes + rate * (now - log.repair_ns), most)
    log.repair_ns = now
    if log.repair_bytes < size:
        return False
    log.repair_bytes -= size
    return True


@njit(cache=True)
def repeats_twice(state, row):
    """Whether what transport `row` misses is sent again in two packets at once, because its path loses by chance.

    Such a path loses repeats as often. A receiver asks again after 100 ms (libwebrtc, which does not know the round
    trip where it only receives), and by then its picture stands still.
    """
    estimate = state.estimates[row]
    if not state.transports[row].estimated or estimate.feedbacks == 0 or estimate.silent:
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
