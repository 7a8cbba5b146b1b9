"""How much RTCP a client is sent: a part of what the path to it carries, over all of its connections together.

RFC 3550 section 6.2 gives control traffic 5 % of the session's bandwidth. The path is known where the client receives;
transport-cc feedback, which is most of it, leaves on the connection where it publishes. What is rare, and what somebody
waits for (NACK, PLI), is not delayed. Where nothing is known of the path, nothing is spaced.
"""

import numpy as np
from numba import njit

from sfu.media.wire.overhead import GCM_TAG_BYTES, UDP_IP4_BYTES

FEEDBACK_PERMILLE, SENDER_REPORTS_PERMILLE, RECEIVER_REPORTS_PERMILLE = 30, 15, 5
"""Shares of the estimate: together 5 %."""
SRTCP_BYTES = 4 + GCM_TAG_BYTES + UDP_IP4_BYTES
"""What a compound has on the wire beside its content: SRTCP's index and tag, UDP, IP."""


@njit(cache=True)
def spaced_ns(state, row, size, permille, least, most):
    """How far compounds of `size` bytes on the wire are apart towards the client of transport `row`, so that they take
    no more than so many thousandths of what its path carries; from `least` to `most`, ns."""
    down = np.int64(state.transports[row].downlink) - 1
    estimate = np.int64(state.transports[down if down >= 0 else row].estimate_bps)
    if estimate <= 0:
        return np.int64(least)
    return np.int64(min(max(size * 8_000_000_000_000 // (estimate * permille), least), most))
