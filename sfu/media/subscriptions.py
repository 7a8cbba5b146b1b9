"""Opening, closing and setting of subscriptions, called by `sfu.media.commands` for rows that the control thread
wrote."""

import numpy as np
from numba import njit

from sfu.compiler.rows import row_reset
from sfu.media.allocation.due import list_transport
from sfu.media.bandwidth.report_blocks import uncounted_bytes
from sfu.media.net.lookup import insert_outgoing, remove_outgoing
from sfu.media.net.srtp import forget_srtp_stream
from sfu.media.send.selection import choose_target_layer, renew_temporal, request_target_key_frame
from sfu.media.send.silence import end_silence
from sfu.media.send.waiting import end_waiting
from sfu.media.stream.arrivals import list_track
from sfu.queues.notices import notice
from sfu.schema.capacities import MAX_SPATIAL_ID, MAX_TEMPORAL_ID, SEQUENCE_START
from sfu.schema.codes import MediaKind, NoticeKind, RowState
from sfu.schema.subscription_tables import SUBSCRIPTION

FIRST_SEQUENCE_MASK = 0x7FFF
"""The first output number lies below 32768, so that no rollover of SRTP's index is near when losses may hide it."""

_reset_subscription = row_reset(SUBSCRIPTION.reset_parts(), SUBSCRIPTION.dtype.itemsize)


@njit(cache=True)
def _scramble(ssrc, now):
    """A number that cannot be guessed from one SSRC: xorshift64* over SSRC and clock."""
    x = np.uint64(ssrc) << np.uint64(32) ^ np.uint64(now) | np.uint64(1)
    x ^= x >> np.uint64(12)
    x ^= x << np.uint64(25)
    x ^= x >> np.uint64(27)
    return np.int64((x * np.uint64(0x2545F4914F6CDD1D)) >> np.uint64(33))


@njit(cache=True)
def open_subscription(state, row, now):
    """Start a subscription whose CONTROL columns are written; link it to its track and its transport."""
    subscription, thread = state.subscriptions[row], state.thread[0]
    _reset_subscription(subscription)
    random = _scramble(subscription.ssrc, now)
    subscription.out_highest = SEQUENCE_START + (random & FIRST_SEQUENCE_MASK)
    subscription.first_highest = subscription.block_highest = subscription.out_highest
    subscription.rtx_sequence = (random >> 15) & FIRST_SEQUENCE_MASK
    track, transport = state.tracks[subscription.track], state.transports[subscription.transport]
    subscription.next_of_track = track.first_subscription
    track.first_subscription = row
    subscription.next_of_transport = transport.first_subscription
    transport.first_subscription = row
    if transport.interval_ns == 0:
        transport.interval_ns = now
    insert_outgoing(state, row, 0)
    if subscription.rtx_ssrc != 0:
        insert_outgoing(state, row, 1)
    subscription.state = RowState.OPEN
    thread.subscription_end = max(np.int64(thread.subscription_end), row + 1)
    list_transport(state, np.int64(subscription.transport), True)
    choose_target_layer(state, row)
    if track.state == RowState.OPEN:
        list_track(state, np.int64(subscription.track))  # the packet cache may hold a key frame to start from


@njit(cache=True)
def close_subscription(state, row):
    """Unlink a subscription, let libsrtp forget its SSRCs, and tell the control thread that the row is free."""
    subscription = state.subscriptions[row]
    state.transports[subscription.transport].interval_bytes += uncounted_bytes(subscription)
    _unlink_from_track(state, row)
    _unlink_from_transport(state, row)
    remove_outgoing(state, row, 0)
    session = state.transports[subscription.transport].srtp_out
    forget_srtp_stream(session, np.int64(subscription.ssrc))
    if subscription.rtx_ssrc != 0:
        remove_outgoing(state, row, 1)
        forget_srtp_stream(session, np.int64(subscription.rtx_ssrc))
    end_silence(state, row)
    end_waiting(state, row)
    list_transport(state, np.int64(subscription.transport), False)
    subscription.state = RowState.FREE
    notice(state, NoticeKind.CLOSED_SUBSCRIPTION, row)


@njit(cache=True)
def _unlink_from_track(state, row):
    track = state.tracks[state.subscriptions[row].track]
    following = state.subscriptions[row].next_of_track
    if track.first_subscription == row:
        track.first_subscription = following
        return
    before = np.int64(track.first_subscription)
    while before >= 0 and state.subscriptions[before].next_of_track != row:
        before = np.int64(state.subscriptions[before].next_of_track)
    if before >= 0:
        state.subscriptions[before].next_of_track = following


@njit(cache=True)
def _unlink_from_transport(state, row):
    transport = state.transports[state.subscriptions[row].transport]
    following = state.subscriptions[row].next_of_transport
    if transport.first_subscription == row:
        transport.first_subscription = following
        return
    before = np.int64(transport.first_subscription)
    while before >= 0 and state.subscriptions[before].next_of_transport != row:
        before = np.int64(state.subscriptions[before].next_of_transport)
    if before >= 0:
        state.subscriptions[before].next_of_transport = following


@njit(cache=True)
def renew_target(state, row):
    """Compute what is sent on a subscription of what its subscriber prefers and what is allowed.

    To be called after a change of either. Egress and selection follow the targets. The columns themselves are read by
    `renew_temporal` as well, by `sfu/media/sharing.py`, which decides what is allowed, and for statistics.
    It requests no key frame: the packet cache may hold one to start from (`request_target_key_frame`).
    """
    subscription = state.subscriptions[row]
    allowed = np.int64(subscription.allowed_spatial)
    subscription.target_spatial = max(min(np.int64(subscription.preferred_spatial), allowed), 0)
    choose_target_layer(state, row)
    renew_temporal(subscription)
    _pause(state, row, subscription.pause_requested != 0 or allowed < 0)


@njit(cache=True)
def _pause(state, row, paused):
    """Stop sending, or go on: video with a key frame, from the packet cache if there is a recent one."""
    subscription = state.subscriptions[row]
    if (subscription.paused != 0) == paused:
        return
    subscription.paused = paused
    subscription.layer = -1
    if paused:
        end_waiting(state, row)
    if not paused and subscription.kind == MediaKind.VIDEO:
        list_track(state, np.int64(subscription.track))


@njit(cache=True)
def prioritise(state, row, priority, pixels):
    """Note how important a video is to its subscriber; by that bandwidth is shared out."""
    subscription = state.subscriptions[row]
    subscription.priority = max(priority, 0)
    subscription.pixels = max(pixels, 0)


@njit(cache=True)
def prefer_layers(state, row, spatial, temporal):
    """Note the highest layers that a new subscriber prefers; numbers out of range mean the nearest one."""
    subscription = state.subscriptions[row]
    subscription.preferred_spatial = min(max(spatial, 0), MAX_SPATIAL_ID)
    subscription.preferred_temporal = min(max(temporal, 0), MAX_TEMPORAL_ID)
    renew_target(state, row)


@njit(cache=True)
def set_layers(state, row, spatial, temporal):
    """Note the highest layers that the subscriber prefers from now on, and request a key frame where that takes one."""
    subscription = state.subscriptions[row]
    before = np.int64(subscription.target_spatial)
    prefer_layers(state, row, spatial, temporal)
    if subscription.target_spatial != before:  # a client repeats what it prefers as often as it likes
        subscription.by_bandwidth = 0
    request_target_key_frame(state, row)
    list_transport(state, np.int64(state.subscriptions[row].transport), False)


@njit(cache=True)
def set_paused(state, row, paused):
    """Note that the subscriber pauses, or goes on with what it prefers."""
    subscription = state.subscriptions[row]
    if subscription.pause_requested and not paused:
        subscription.by_bandwidth = 0  # that its picture begins anew is the client's doing
    subscription.pause_requested = 1 if paused else 0
    renew_target(state, row)
    list_transport(state, np.int64(state.subscriptions[row].transport), False)
