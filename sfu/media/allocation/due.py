"""Which transports are to have their bandwidth shared out anew, and when: a list, first come, first served.

Whoever changes what an allocation depends on lists the transport; that costs no more however often it is done. At most
MAX_RUNS are worked on in a turn. On the way down that is as soon as possible, else at most once in INTERVAL_NS.
"""

import numpy as np
from numba import njit

from sfu.parameters import Extension
from sfu.schema.codes import MediaKind, RowState
from sfu.schema.estimate_tables import START_BPS

FALL_PERCENT = 5
"""An estimate that is so much lower than at the last allocation is acted on at once."""
RISE_PERCENT = 15
"""One that is so much higher is acted on."""
INTERVAL_NS = 200_000_000

_TRANSPORT_CC = int(Extension.TRANSPORT_CC)


@njit(cache=True)
def list_transport(state, row, urgent):
    """Let the bandwidth of transport `row` be shared out anew; urgent: at once."""
    transport, thread = state.transports[row], state.thread[0]
    if urgent:
        transport.allocation_urgent = 1
    if transport.allocation_listed:
        return
    transport.allocation_listed = 1
    transport.allocation_next = -1
    if thread.first_due < 0:
        thread.first_due = row
    else:
        state.transports[thread.last_due].allocation_next = row
    thread.last_due = row


@njit(cache=True)
def take_listed(state):
    """Take the first transport off the list; -1: none is listed."""
    thread = state.thread[0]
    row = np.int64(thread.first_due)
    if row >= 0:
        thread.first_due = state.transports[row].allocation_next
        state.transports[row].allocation_listed = 0
    return row


@njit(cache=True)
def list_subscribers(state, track_row):
    """Let every subscriber of a track have its bandwidth shared out anew: costs or layers of the track have changed."""
    row = np.int64(state.tracks[track_row].first_subscription)
    while row >= 0:
        subscription = state.subscriptions[row]
        if not subscription.pause_requested:
            list_transport(state, np.int64(subscription.transport), False)
        row = np.int64(subscription.next_of_track)


@njit(cache=True)
def usable_estimate(state, row):
    """What may be shared out among the subscriptions of transport `row`, in bit/s; 0: nothing is limited.

    A peer that negotiated transport-cc for video is believed to send feedback until it turns out that it does not, and
    begins where the estimate does.
    """
    transport = state.transports[row]
    if state.thread[0].unlimited:
        return np.int64(0)
    if transport.estimate_bps > 0 or transport.unreported or transport.media < 0:
        return np.int64(transport.estimate_bps)
    media = state.media[transport.media]
    if media.numbered[MediaKind.VIDEO] and media.id_of_extension[_TRANSPORT_CC] != 0:
        return np.int64(transport.resumed_bps) if transport.resumed_bps > 0 else np.int64(START_BPS)
    return np.int64(0)


@njit(cache=True)
def is_silent(state, row):
    """Whether the feedback of transport `row` has stopped while it is sent something."""
    return state.transports[row].estimated != 0 and state.estimates[row].silent != 0


@njit(cache=True)
def is_ruled_by_reports(state, row):
    """Whether receiver reports and REMB say what transport `row` is sent, for lack of feedback."""
    return state.transports[row].estimated != 0 and state.estimates[row].by_reports != 0


@njit(cache=True)
def path_queue_ms(estimate):
    """How long the newest packets that feedback is about waited on the path, ms, beyond the least of some seconds."""
    return estimate.delay_ms - min(estimate.base_ms, estimate.base_before_ms)


@njit(cache=True)
def note_silence(state, row):
    """No feedback came from transport `row` since its first packet left: nothing that it is sent is limited."""
    transport = state.transports[row]
    if not transport.unreported and transport.estimate_bps == 0:
        transport.unreported = 1
        list_transport(state, row, False)


@njit(cache=True)
def note_estimate(state, row, estimate_bps):
    """What the path of transport `row` carries, from feedback or reports. The transport is listed when that moved far
    enough from what was shared out last."""
    transport = state.transports[row]
    transport.estimate_bps = max(estimate_bps, 1)
    shared = np.int64(transport.shared_bps)
    if shared == 0 or estimate_bps * 100 <= shared * (100 - FALL_PERCENT):
        list_transport(state, row, True)
    elif estimate_bps * 100 >= shared * (100 + RISE_PERCENT):
        list_transport(state, row, False)


@njit(cache=True)
def is_due(state, row, now):
    """Whether a listed transport's turn has come, rather than that of a later time."""
    transport = state.transports[row]
    return (
        transport.state != RowState.OPEN
        or transport.allocation_urgent != 0
        or transport.allocated_ns == 0
        or now - transport.allocated_ns >= INTERVAL_NS
    )
