"""The subscription of a transport on which its probes are sent."""

import numpy as np
from numba import njit

from sfu.schema.codes import MediaKind, RowState


@njit(cache=True)
def find_carrier(state, row):
    """The video subscription of transport `row` with RTX that sends most; -1: none. It looks at all of them, so it is
    called once for each cluster."""
    best, most = np.int64(-1), np.int64(-1)
    number = np.int64(state.transports[row].first_subscription)
    while number >= 0:
        each = state.subscriptions[number]
        if can_carry(state, row, number) and each.bitrate_bps > most:
            best, most = number, np.int64(each.bitrate_bps)
        number = np.int64(each.next_of_transport)
    return best


@njit(cache=True)
def can_carry(state, row, number):
    """Whether subscription `number` is transport `row`'s and can carry probes."""
    if number < 0:
        return False
    each = state.subscriptions[number]
    if each.transport != row or each.kind != MediaKind.VIDEO or each.state != RowState.OPEN or not each.started:
        return False
    # A pause for lack of bandwidth ends only by a probe.
    return not each.pause_requested and each.rtx_ssrc != 0 and each.rtx_payload_type >= 0
