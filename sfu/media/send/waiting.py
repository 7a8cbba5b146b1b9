"""What waits for its path: lists of transports, and of the subscriptions of each.

A subscription that waits is a position in its track's log (packet cache), or the lowest number that is to be repeated.
So waiting costs no memory per packet, and each row is in its list once, whatever its peer does.
"""

import numpy as np
from numba import njit

from sfu.media.allocation.allocate import importance_of
from sfu.media.net.frame_queue import is_backed_up, is_over_tcp
from sfu.media.send.budget import (
    KEY_FRAME_FAST_NS,
    KEY_FRAME_REST_NS,
    UNLIMITED,
    fits,
    is_paced,
    refill,
    set_free_number,
)
from sfu.media.send.lost_keys import lose_layer
from sfu.media.send.selection import renew_temporal
from sfu.media.stream.arrivals import logged_packet
from sfu.schema.bandwidth_codes import Held
from sfu.schema.capacities import TRACK_LOG
from sfu.schema.codes import Drop, MediaKind

MAX_COMPARED = 64
"""Subscriptions with which one that begins to wait is compared to find its place; with more, order matters less."""


@njit(cache=True)
def has_to_wait(state, row, first, count, now):
    """Whether new video on subscription `row`, state.batch of `count` packets, has to wait; then it is noted.

    first: the position in the track's log where the batch begins. What waits already keeps its place.
    """
    subscription = state.subscriptions[row]
    if subscription.waits_at >= 0:
        return True
    transport_row = np.int64(subscription.transport)
    transport = state.transports[transport_row]
    if transport.interrupted or is_backed_up(state, transport_row):
        wait_from(state, row, first)
        return True
    if not is_paced(state, transport_row):
        if transport.first_waiting == 0 and not is_over_tcp(state, transport_row):
            transport.free_number = UNLIMITED
        return False
    if transport.first_waiting == 0 and subscription.layer >= 0:
        refill(state, transport_row, now)
        room = set_free_number(state, transport_row)
        if fits(state, transport_row, np.int64(subscription.stream), count, room):
            return False
    wait_from(state, row, first)
    return True


@njit(cache=True)
def wait_from(state, row, position):
    """Let a subscription send nothing from `position` in its track's log on before the pacer says so."""
    state.subscriptions[row].waits_at = position
    _queue(state, row)


@njit(cache=True)
def begin_anew(state, row, now):
    """Let every video of transport `row` go on with a key frame, because packets of it were lost on our side. What
    waits is left out."""
    state.transports[row].interrupted = 0
    number = np.int64(state.transports[row].first_subscription)
    while number >= 0:
        subscription = state.subscriptions[number]
        if subscription.kind == MediaKind.VIDEO and subscription.layer >= 0:
            track, position = state.tracks[subscription.track], np.int64(subscription.waits_at)
            if 0 <= position < track.log_read:
                count_left_out(state, track, np.int64(subscription.layer), position, np.int64(track.log_read))
                subscription.waits_at = track.log_read
            lose_layer(state, subscription, now)
        number = np.int64(subscription.next_of_transport)


@njit(cache=True)
def repeat_has_to_wait(state, row, now):
    """Whether a repeat for transport `row` has to wait: something does already, or there is no budget."""
    transport = state.transports[row]
    if transport.first_waiting != 0 or is_backed_up(state, row):
        return True
    if transport.next_number < transport.free_number or not is_paced(state, row):
        return False
    credit = refill(state, row, now)
    return set_free_number(state, row) <= 0 or credit <= 0


@njit(cache=True)
def wait_to_repeat(state, row, number):
    """Let the packet with output number `number` of a subscription, which is marked, be repeated when the pacer says
    so."""
    subscription = state.subscriptions[row]
    if subscription.repairs_from == 0 or number < subscription.repairs_from:
        subscription.repairs_from = number
    _queue(state, row)


@njit(cache=True)
def _queue(state, row):
    """Put a subscription into the list of its transport, and that into the list of those that begin to wait."""
    subscription, thread = state.subscriptions[row], state.thread[0]
    if not subscription.queued:
        subscription.queued = 1
        subscription.comes_last = 0
        subscription.comes_last = _has_to_come_last(subscription, thread.now_ns)
        _insert(state, row)
    transport = state.transports[subscription.transport]
    transport.free_number = 0
    if not transport.pace_listed:
        transport.pace_listed = 1
        transport.pace_next = thread.first_fresh
        thread.first_fresh = subscription.transport + 1


@njit(cache=True)
def _insert(state, row):
    """Link a subscription behind those of its transport that wait and are as important or more."""
    subscription = state.subscriptions[row]
    transport = state.transports[subscription.transport]
    importance = _importance(state, subscription)
    before, following = np.int64(0), np.int64(transport.first_waiting)
    for _ in range(MAX_COMPARED):
        if following == 0 or _importance(state, state.subscriptions[following - 1]) < importance:
            break
        before, following = following, np.int64(state.subscriptions[following - 1].waits_next)
    subscription.waits_before = before
    subscription.waits_next = following
    if following:
        state.subscriptions[following - 1].waits_before = row + 1
    if before:
        state.subscriptions[before - 1].waits_next = row + 1
    else:
        transport.first_waiting = row + 1


@njit(cache=True)
def _importance(state, subscription):
    """A number that is larger for what is sent first, in the order in which bandwidth is given."""
    if subscription.comes_last:
        return np.int64(-1)
    return importance_of(subscription.priority, state.tracks[subscription.track].screen, subscription.pixels)


@njit(cache=True)
def _has_to_come_last(subscription, now):
    """Whether a video that waits is now less important than all others.

    Of one that is sent key frames only these may exceed its share for KEY_FRAME_FAST_NS in every KEY_FRAME_REST_NS. A
    publisher that sends nothing else would otherwise keep the viewer's other videos waiting for ever.
    """
    if subscription.held != Held.KEY_FRAMES:
        return False
    if subscription.comes_last:
        return True
    if subscription.keys_since_ns == 0 or now - subscription.keys_since_ns >= KEY_FRAME_REST_NS:
        subscription.keys_since_ns = now
    return now - subscription.keys_since_ns >= KEY_FRAME_FAST_NS


@njit(cache=True)
def renew_place(state, row, now):
    """Put a subscription that waits where it belongs among the others by now. Returns whether it has become the
    last."""
    subscription = state.subscriptions[row]
    comes_last = _has_to_come_last(subscription, now)
    if comes_last == (subscription.comes_last != 0):
        return False
    subscription.comes_last = comes_last
    _unlink(state, row)
    _insert(state, row)
    return comes_last


@njit(cache=True)
def end_waiting(state, row):
    """Nothing of a subscription waits any more. Nothing happens to one of which nothing did."""
    subscription = state.subscriptions[row]
    subscription.waits_at = -1
    subscription.repairs_from = 0
    if subscription.behind:
        subscription.behind = 0
        renew_temporal(subscription)
    if not subscription.queued:
        return
    subscription.queued = 0
    _unlink(state, row)


@njit(cache=True)
def _unlink(state, row):
    """Take a subscription out of the list of those of its transport that wait."""
    subscription = state.subscriptions[row]
    before, following = np.int64(subscription.waits_before), np.int64(subscription.waits_next)
    if before:
        state.subscriptions[before - 1].waits_next = following
    else:
        state.transports[subscription.transport].first_waiting = following
    if following:
        state.subscriptions[following - 1].waits_before = before


@njit(cache=True)
def count_left_out(state, track, layer, first, last):
    """Count the packets of a layer among the entries `first` to `last` - 1 as left out because they are old."""
    first = max(first, track.log_written - TRACK_LOG)
    state.thread[0].pace_work += max(last - first, 0)
    for position in range(first, last):
        if logged_packet(track, position)[0] == layer:
            state.drops[Drop.PACER_OLD] += 1
