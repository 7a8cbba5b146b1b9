"""Sends what waits for its path, as far as the path's budget goes: one look every 5 ms at transports that wait.

Order: audio never comes here, then repeats, then video by importance. Where more waits than leaves in time, upper
temporal layers are left out, then all that is older than the newest key frame that waits. A key frame that has begun is
sent to its end. What is left out has had no number yet, so its receiver misses nothing.
"""

import numpy as np
from numba import njit

from sfu.media.net.frame_queue import is_backed_up, is_over_tcp
from sfu.media.net.send_log import MOST_AT_ONCE, open_log
from sfu.media.net.srtp import can_send
from sfu.media.net.udp import flush
from sfu.media.send.batch import prepare
from sfu.media.send.budget import (
    KEY_FRAME_REST_NS,
    MAX_BURST_BYTES,
    MAX_TCP_BURST_BYTES,
    is_paced,
    leaves_old,
    refill,
    room_at_once,
    set_free_number,
)
from sfu.media.send.departure import begin, best_start, first_of_turn, forward_packet, is_kept_start
from sfu.media.send.positions import (
    OVERTAKERS,
    count_left_out,
    first_logged,
    first_younger,
    is_lost,
    with_overtakers,
)
from sfu.media.send.retransmit import repeat_waiting
from sfu.media.send.rewrite import send_time
from sfu.media.send.selection import (
    key_frame_leaves,
    lose_layer,
    may_start,
    miss_key_frame,
    renew_temporal,
    request_target_key_frame,
)
from sfu.media.send.waiting import begin_anew, end_waiting, renew_place
from sfu.media.stream.packet_cache import is_stored
from sfu.schema.capacities import PACKETS, TRACK_LOG, TX_SLOTS
from sfu.schema.codes import Drop, RowState

PACE_NS = 5_000_000
"""Between two refills of a transport that goes on waiting: as long as packets may be apart that count as sent
together."""
BEHIND_NS = 150_000_000
"""When what waits is older, upper temporal layers are left out."""
CAUGHT_UP_NS = 50_000_000
"""When it is younger, they are sent again."""
OLD_NS = 400_000_000
"""When it is older, all that comes before the newest key frame that waits is left out, and everything while the peer
reports nothing any more."""
LOOK_AHEAD = 16
"""Log entries that are described at a time."""
PACKET_WORK, TRANSPORT_WORK = 16, 4
"""What a packet that leaves and a transport that is looked at cost, in log entries that are passed over."""
LOST = -2
"""What `_send_by_number` says of a packet that came and is not in the packet cache any more."""
MAX_PASS_WORK = 1 << 14
"""What one pass may cost: a thousand packets. The others are the first ones of the next pass."""


@njit(cache=True)
def pace(state, arena, now):
    """At the end of a turn: send what has begun to wait in it, and every PACE_NS what goes on waiting."""
    thread = state.thread[0]
    if thread.first_paced == 0 and thread.first_fresh == 0:
        return
    thread.send_time = send_time(now + thread.wall_offset_ns)
    thread.pace_work = 0
    if thread.first_paced != 0 and now >= thread.pace_ns:
        thread.pace_ns = now + PACE_NS
        _send_listed(state, arena, now)
    while thread.first_fresh != 0:
        row = np.int64(thread.first_fresh) - 1
        thread.first_fresh = state.transports[row].pace_next
        state.transports[row].pace_listed = 0  # before anything can raise
        if thread.first_paced == 0:
            thread.pace_ns = now + PACE_NS
        if thread.pace_work > MAX_PASS_WORK or send_waiting(state, arena, row, now):
            _append(state, row)
    thread.row_in_hand = -1


@njit(cache=True)
def _send_listed(state, arena, now):
    """Look once at each listed transport, as long as the pass may last; those that go on waiting come last."""
    thread = state.thread[0]
    last = np.int64(thread.last_paced) - 1
    while thread.first_paced != 0 and thread.pace_work <= MAX_PASS_WORK:
        row = np.int64(thread.first_paced) - 1
        thread.first_paced = state.transports[row].pace_next
        state.transports[row].pace_listed = 0  # before anything can raise
        if send_waiting(state, arena, row, now):
            _append(state, row)
        if row == last:
            return


@njit(cache=True)
def _append(state, row):
    """Put a transport at the end of the list of those that go on waiting."""
    thread = state.thread[0]
    state.transports[row].pace_listed = 1
    state.transports[row].pace_next = 0
    if thread.first_paced == 0:
        thread.first_paced = row + 1
    else:
        state.transports[thread.last_paced - 1].pace_next = row + 1
    thread.last_paced = row + 1


@njit(cache=True)
def send_waiting(state, arena, row, now):
    """Send what waits for transport `row` as far as its budget goes, into one flush. Returns whether it is to be looked
    at again."""
    transport, thread = state.transports[row], state.thread[0]
    thread.pace_work += TRANSPORT_WORK
    if transport.state != RowState.OPEN or transport.first_waiting == 0:
        return False
    if not can_send(state, row):
        return True
    thread.row_in_hand = row
    if transport.interrupted:
        begin_anew(state, row, now)
    if is_backed_up(state, row):
        return True
    if thread.tx_count + MOST_AT_ONCE > TX_SLOTS:
        flush(state)
    log = state.send_logs[row]
    paced = is_paced(state, row)
    if paced:
        refill(state, row, now)
    else:
        open_log(state, row)
        log.pace_bytes = log.bytes + (MAX_TCP_BURST_BYTES if is_over_tcp(state, row) else MAX_BURST_BYTES)
    end = log.count + room_at_once(state, row)
    _send_repeats(state, arena, row, end, now)
    waiting = np.int64(transport.first_waiting)
    while waiting:
        following = np.int64(state.subscriptions[waiting - 1].waits_next)
        if _is_used_up(state, row, end):
            break
        if not renew_place(state, waiting - 1, now) and _send_video(state, arena, waiting - 1, end, now):
            end_waiting(state, waiting - 1)
        waiting = following
    if transport.first_waiting == 0:
        log.key_waits = 0
        if paced:
            set_free_number(state, row)
        return False
    _note_key_frame(state, row, now)
    return True


@njit(cache=True)
def _is_used_up(state, row, end):
    """Whether transport `row` is sent nothing more in this pass: for its budget, because its log.count is `end`, or
    because the pass has cost enough."""
    log = state.send_logs[row]
    return log.bytes >= log.pace_bytes or log.count >= end or state.thread[0].pace_work > MAX_PASS_WORK


@njit(cache=True)
def _send_repeats(state, arena, row, end, now):
    """Repeat what waits to be repeated for transport `row`, before any video."""
    thread = state.thread[0]
    waiting = np.int64(state.transports[row].first_waiting)
    while waiting:
        each = state.subscriptions[waiting - 1]
        following = np.int64(each.waits_next)
        thread.pace_work += 1
        if each.repairs_from:
            thread.pace_work += repeat_waiting(state, arena, waiting - 1, end, now)
            if each.repairs_from:
                return
            if each.waits_at < 0:
                end_waiting(state, waiting - 1)
        if _is_used_up(state, row, end):
            return
        waiting = following


@njit(cache=True)
def _note_key_frame(state, row, now):
    """Note whether what waits first for transport `row` is the rest of a key frame, which may leave faster."""
    log = state.send_logs[row]
    subscription = state.subscriptions[state.transports[row].first_waiting - 1]
    if not key_frame_leaves(state, subscription):
        log.key_waits = 0
    elif not log.key_waits:
        log.key_waits = 1
        if now - log.overdrawn_ns >= KEY_FRAME_REST_NS:
            log.overdrawn_ns = now


@njit(cache=True)
def _send_video(state, arena, row, end, now):
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
        position = _start(state, row, position, now)
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
        position = _pass_source(state, subscription, position)
    oldest = track.log_written - TRACK_LOG
    if position >= oldest:
        return position, False
    _note_missed_key_frame(state, subscription, position, oldest, now)
    lost = oldest - position
    if subscription.layer >= 0 and not leaves_old(state, np.int64(subscription.transport)):
        state.thread[0].pace_work += track.log_read - oldest
        last, number = first_logged(state, subscription, oldest), subscription.in_highest + 1
        lost = 0 if last - number <= PACKETS else last - number
        while number < last and not lost:
            if _is_used_up(state, np.int64(subscription.transport), end):
                return position, True
            jump = _send_by_number(state, arena, row, position, number, now)
            if jump >= 0:
                return jump, jump < oldest
            lost = last - number if jump == LOST else 0
            number += 1
    if lost:
        state.drops[Drop.PACER_OVERTAKEN] += lost
        lose_layer(subscription, now)
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
        age = _age(stream, packet, now)
        if age > OLD_NS and not subscription.held:
            jump = _leave_old(state, row, position, number, now)
            if jump >= 0:
                return jump
        _set_behind(subscription, age)
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
def _note_missed_key_frame(state, subscription, first, last, now):
    """Note it where the key frame with which another layer was to begin is gone, among the entries `first` to
    `last` - 1."""
    track, target = state.tracks[subscription.track], np.int64(subscription.target_layer)
    if not 0 <= target < track.layer_count or target == subscription.layer:
        return
    stream_row = np.int64(track.streams[target])
    stream = state.streams[stream_row]
    if stream.key_sequence < 0 or not first <= stream.key_position < last:
        return
    packet = state.packets[stream_row, stream.key_sequence & (PACKETS - 1)]
    if stream.key_position < track.log_written - TRACK_LOG or not is_stored(stream, packet, stream.key_sequence):
        miss_key_frame(subscription, now)


@njit(cache=True)
def _pass_source(state, subscription, position):
    """Leave out what waits from `position` on of a source that has ended. Returns where its successor begins."""
    stream = state.streams[subscription.stream]
    following = np.int64(state.tracks[subscription.track].log_read)
    if stream.key_sequence >= 0:
        following = min(max(np.int64(stream.key_position), position), following)
    state.drops[Drop.PACER_OLD] += following - position
    return following


@njit(cache=True)
def _start(state, row, position, now):
    """Turn to the best layer that had a key frame just now, if one had. Returns the position to go on from."""
    subscription = state.subscriptions[row]
    track = state.tracks[subscription.track]
    layer = best_start(state, subscription, now)
    if layer < 0:
        return position
    stream_row = np.int64(track.streams[layer])
    stream = state.streams[stream_row]
    if track.log_written - stream.key_position > TRACK_LOG:
        return position
    if now - stream.key_ns > OLD_NS and leaves_old(state, np.int64(subscription.transport)):
        return position
    begin(state, row, layer, stream_row, state.packets[stream_row, stream.key_sequence & (PACKETS - 1)])
    return with_overtakers(state, track, stream_row, np.int64(stream.key_sequence), np.int64(stream.key_position))


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
        _note_missed_key_frame(state, subscription, position, following, now)
    if count < following - position and is_lost(state, track, subscription, position, following):
        state.drops[Drop.PACER_OVERTAKEN] += 1
        lose_layer(subscription, now)
        return _start(state, row, following, now), thread.pace_work > MAX_PASS_WORK
    for k in range(count):
        at = np.int64(state.batch[k].position)
        if _is_used_up(state, np.int64(subscription.transport), end):
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
    age = _age(state.streams[stream_row], packet, now)
    if arrival.layer != subscription.layer:
        if age > OLD_NS and leaves_old(state, np.int64(subscription.transport)):
            return np.int64(-1)
        return _turn(state, row, arrival, stream_row, now)
    if packet.sequence < subscription.switch_sequence:
        return np.int64(-1)  # it comes before the key frame that was begun with
    between_frames = packet.sequence > subscription.in_highest and packet.timestamp != subscription.picture_timestamp
    if between_frames or (age > OLD_NS and leaves_old(state, np.int64(subscription.transport))):
        if age > OLD_NS and not subscription.held:
            jump = _leave_old(state, row, np.int64(arrival.position), np.int64(packet.sequence), now)
            if jump >= 0:
                return jump
        _set_behind(subscription, age)
    _send_missed(state, arena, row, stream_row, np.int64(packet.sequence), now)
    _forward(state, arena, row, np.int64(arrival.index), np.int64(arrival.padding), now)
    return np.int64(-1)


@njit(cache=True)
def _age(stream, packet, now):
    """How long a packet has waited, ns. One that overtook the beginning of a key frame waited for that too, and is no
    older."""
    came_ns = np.int64(packet.arrival_ns)
    if 0 <= stream.key_sequence < packet.sequence:
        came_ns = max(came_ns, np.int64(stream.key_ns))
    return now - came_ns


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


@njit(cache=True)
def _turn(state, row, arrival, stream_row, now):
    """Turn to the layer of `arrival`, if this packet lets the subscription do so. Returns the position to go on from,
    -1: it does not turn."""
    subscription = state.subscriptions[row]
    start = first_of_turn(state, subscription, arrival)
    if start < 0:
        return np.int64(-1)
    track, stream, packet = (
        state.tracks[subscription.track],
        state.streams[stream_row],
        state.packets[stream_row, start],
    )
    newest = packet.sequence == stream.key_sequence
    if subscription.layer < 0 and (not newest or _has_had(subscription, stream, stream_row)):
        return np.int64(-1)  # a later one waits, or is waited for, or it came from a source that has ended
    position = np.int64(stream.key_position) if newest else np.int64(arrival.position)
    if track.log_written - position > TRACK_LOG or not is_kept_start(state, stream_row, start):
        miss_key_frame(subscription, now)
        return np.int64(-1)
    begin(state, row, np.int64(arrival.layer), stream_row, packet)
    return with_overtakers(state, track, stream_row, np.int64(packet.sequence), position)


@njit(cache=True)
def _has_had(subscription, stream, stream_row):
    """Whether the last key frame of a stream was sent, or given up, on a subscription that follows nothing now."""
    same = stream_row == subscription.stream and stream.ssrc == subscription.source_ssrc
    return same and stream.key_sequence <= subscription.in_highest


@njit(cache=True)
def _set_behind(subscription, age):
    """Leave upper temporal layers out, or no longer, by the age of what waits."""
    behind = 1 if age > (CAUGHT_UP_NS if subscription.behind else BEHIND_NS) else 0
    if behind != subscription.behind:
        subscription.behind = behind
        renew_temporal(subscription)


@njit(cache=True)
def _leave_old(state, row, position, sequence, now):
    """Leave out what waits from `position` on, where packet `sequence` begins a frame, up to the newest key frame; all
    that is old, if the peer reports nothing any more. Returns the position to go on from, -1: nothing is left out."""
    subscription = state.subscriptions[row]
    track = state.tracks[subscription.track]
    layer, target = np.int64(subscription.layer), np.int64(subscription.target_layer)
    own = not 0 <= target < layer
    chosen = layer if own else target
    stream_row = np.int64(track.streams[chosen])
    stream = state.streams[stream_row]
    silent = leaves_old(state, np.int64(subscription.transport))
    old = silent and now - stream.key_ns > OLD_NS
    later = not own or stream.key_sequence > max(sequence, subscription.in_highest)
    if stream.key_sequence >= 0 and stream.key_position > position and later and not old:
        first = state.packets[stream_row, stream.key_sequence & (PACKETS - 1)]
        if is_stored(stream, first, stream.key_sequence) and (own or may_start(state, subscription, chosen, first)):
            count_left_out(state, track, layer, position, np.int64(stream.key_position))
            asked = subscription.by_bandwidth
            begin(state, row, chosen, stream_row, first)
            if own:
                subscription.by_bandwidth = asked  # another layer is still waited for
            return with_overtakers(
                state, track, stream_row, np.int64(stream.key_sequence), np.int64(stream.key_position)
            )
    if not silent:
        return np.int64(-1)
    young = first_younger(state, track, position, now - OLD_NS)
    count_left_out(state, track, layer, position, young)
    lose_layer(subscription, now)
    return _start(state, row, young, now)
