"""The video that waits on one subscription: from its position in the track's log on, as far as the budget goes.

Where more waits than leaves in time, upper temporal layers are left out, then all that is older than the newest key
frame that waits (`skipping`). A key frame that has begun is sent to its end. What is left out has had no number yet, so
its receiver misses nothing.
"""

import numpy as np
from numba import njit

from sfu.media.pacing.pass_work import MAX_PASS_WORK, PACKET_WORK, is_used_up
from sfu.media.pacing.positions import OVERTAKERS, first_logged, is_lost
from sfu.media.pacing.skipping import (
    OLD_NS,
    age_of,
    leave_old,
    note_missed_key_frame,
    pass_source,
    set_behind,
    start_layer,
    turn_to,
)
from sfu.media.send.batch import prepare
from sfu.media.send.budget import leaves_old
from sfu.media.send.departure import forward_packet
from sfu.media.send.lost_keys import lose_layer
from sfu.media.send.selection import request_target_key_frame
from sfu.media.stream.packet_cache import is_stored
from sfu.schema.capacities import PACKETS, TRACK_LOG
from sfu.schema.codes import Drop, RowState

LOOK_AHEAD = 16
"""Log entries that are described at a time."""
LOST = -2
"""What `_send_by_number` says of a packet that came and is not in the packet cache any more."""


@njit(cache=True)
def send_video(state, arena, row, end, now):
    """Send what waits of subscription `row` until its transport's budget is used up, or its log.count is `end`.
    Returns whether nothing waits any more."""
    subscription = state.subscriptions[row]
    track = state.tracks[subscription.track]
    if subscription.waits_at < 0:
        return subscription.repairs_from == 0
    if track.state != RowState.OPEN or subscription.paused or subscription.waits_at > track.log_read:
        return True
    position, stopped = _send_forgotten(state, arena, row, end, now)
    if subscription.layer < 0 and not stopped:
        position = start_layer(state, row, position, now)
    while position < track.log_read and not stopped:
        position, stopped = _send_entries(state, arena, row, position, end, now)
    subscription.waits_at = position if stopped else -1
    if subscription.target_layer != subscription.layer:
        request_target_key_frame(state, row)
    return not stopped and subscription.repairs_from == 0


@njit(cache=True)
def _send_forgotten(state, arena, row, end, now):
    """Begin with what waits of a subscription: what the track's log has forgotten is sent by its numbers, as long as
    the packet cache has it. Returns the position to go on from, and whether the rest has to wait."""
    subscription = state.subscriptions[row]
    track, position = state.tracks[subscription.track], np.int64(subscription.waits_at)
    if subscription.layer >= 0 and state.streams[subscription.stream].ssrc != subscription.source_ssrc:
        subscription.layer = -1  # another source goes on in its place
        position = pass_source(state, subscription, position)
    oldest = track.log_written - TRACK_LOG
    if position >= oldest:
        return position, False
    note_missed_key_frame(state, subscription, position, oldest, now)
    lost = oldest - position
    if subscription.layer >= 0 and not leaves_old(state, np.int64(subscription.transport)):
        state.thread[0].pace_work += track.log_read - oldest
        last, number = first_logged(state, subscription, oldest), subscription.in_highest + 1
        lost = 0 if last - number <= PACKETS else last - number
        while number < last and not lost:
            if is_used_up(state, np.int64(subscription.transport), end):
                return position, True
            jump = _send_by_number(state, arena, row, position, number, now)
            if jump >= 0:
                return jump, jump < oldest
            lost = last - number if jump == LOST else 0
            number += 1
    if lost:
        state.drops[Drop.PACER_OVERTAKEN] += lost
        lose_layer(state, subscription, now)
    return oldest, False


@njit(cache=True)
def _send_by_number(state, arena, row, position, number, now):
    """Send packet `number` of the stream that is followed, unless it has not come. Returns -1, LOST if it came and is
    not there any more, or the position to go on from instead; `position`: where the subscription waits."""
    subscription = state.subscriptions[row]
    stream_row = np.int64(subscription.stream)
    stream, packet = state.streams[stream_row], state.packets[stream_row, number & (PACKETS - 1)]
    if packet.sequence < number:
        return np.int64(-1)  # it may come late
    if not is_stored(stream, packet, number):
        return np.int64(LOST)
    if packet.timestamp != subscription.picture_timestamp:
        age = age_of(stream, packet, now)
        if age > OLD_NS and not subscription.held:
            jump = leave_old(state, row, position, number, now)
            if jump >= 0:
                return jump
        set_behind(subscription, age)
    _forward(state, arena, row, number & (PACKETS - 1), 0, now)
    return np.int64(-1)


@njit(cache=True)
def _forward(state, arena, row, index, padding, now):
    """Send the packet at `index` of the stream that is followed, or take it out of the numbering; charge the pass."""
    subscription = state.subscriptions[row]
    before = subscription.packets
    forward_packet(state, arena, row, np.int64(subscription.stream), index, padding)
    if subscription.packets != before:
        state.thread[0].pace_work += PACKET_WORK
        if subscription.last_marker:
            _note_whole_picture(state, subscription, now)
    elif subscription.behind and state.packets[subscription.stream, index].temporal > 0:
        state.drops[Drop.PACER_TEMPORAL] += 1


@njit(cache=True)
def _send_entries(state, arena, row, position, end, now):
    """Go through some of what waits, from `position` on. Returns the position to go on from, and whether what may leave
    now is used up."""
    subscription, thread = state.subscriptions[row], state.thread[0]
    track = state.tracks[subscription.track]
    following = min(position + LOOK_AHEAD, track.log_read)
    count = prepare(state, np.int64(subscription.track), position, following)
    thread.pace_work += following - position
    if count < following - position:
        note_missed_key_frame(state, subscription, position, following, now)
    if count < following - position and is_lost(state, track, subscription, position, following):
        state.drops[Drop.PACER_OVERTAKEN] += 1
        lose_layer(state, subscription, now)
        return start_layer(state, row, following, now), thread.pace_work > MAX_PASS_WORK
    for k in range(count):
        at = np.int64(state.batch[k].position)
        if is_used_up(state, np.int64(subscription.transport), end):
            return at, True
        jump = _send_entry(state, arena, row, k, now)
        if jump >= 0:
            return jump, False
    return following, False


@njit(cache=True)
def _send_entry(state, arena, row, k, now):
    """Do with arrival k of state.batch what egress would have done. Returns -1, or the position to go on from instead
    of the next entry."""
    subscription, arrival = state.subscriptions[row], state.batch[k]
    stream_row = np.int64(arrival.stream)
    packet = state.packets[stream_row, arrival.index]
    age = age_of(state.streams[stream_row], packet, now)
    if arrival.layer != subscription.layer:
        if age > OLD_NS and leaves_old(state, np.int64(subscription.transport)):
            return np.int64(-1)
        return turn_to(state, row, arrival, stream_row, now)
    if packet.sequence < subscription.switch_sequence:
        return np.int64(-1)  # it comes before the key frame that was begun with
    between_frames = packet.sequence > subscription.in_highest and packet.timestamp != subscription.picture_timestamp
    if between_frames or (age > OLD_NS and leaves_old(state, np.int64(subscription.transport))):
        if age > OLD_NS and not subscription.held:
            jump = leave_old(state, row, np.int64(arrival.position), np.int64(packet.sequence), now)
            if jump >= 0:
                return jump
        set_behind(subscription, age)
    _send_missed(state, arena, row, stream_row, np.int64(packet.sequence), now)
    _forward(state, arena, row, np.int64(arrival.index), np.int64(arrival.padding), now)
    return np.int64(-1)


@njit(cache=True)
def _note_whole_picture(state, subscription, now):
    """The last packet of a picture was sent: the path is fast enough for the key frame that came before, or was it."""
    subscription.lost_keys = 0
    stream = state.streams[subscription.stream]
    if stream.key_sequence < 0:
        return
    first = state.packets[subscription.stream, stream.key_sequence & (PACKETS - 1)]
    if first.sequence == stream.key_sequence and first.timestamp == subscription.picture_timestamp:
        subscription.key_left_ns = now


@njit(cache=True)
def _send_missed(state, arena, row, stream_row, sequence, now):
    """Send what comes before packet `sequence` and arrived after it, so that its receiver does not miss it first. Its
    own entry is then known as sent."""
    stream = state.streams[stream_row]
    first = max(state.subscriptions[row].in_highest + 1, sequence - OVERTAKERS)
    for number in range(first, sequence):
        index = number & (PACKETS - 1)
        if is_stored(stream, state.packets[stream_row, index], number):
            _forward(state, arena, row, index, 0, now)
