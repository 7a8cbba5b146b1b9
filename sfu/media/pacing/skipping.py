"""Where a subscription that waits goes on instead of with the next packet: with a layer that has had a key frame, or
behind what is too old."""

import numpy as np
from numba import njit

from sfu.media.pacing.positions import first_younger, with_overtakers
from sfu.media.send.budget import leaves_old
from sfu.media.send.departure import begin, best_start, first_of_turn, is_kept_start
from sfu.media.send.lost_keys import lose_layer, miss_key_frame
from sfu.media.send.selection import may_start, renew_temporal
from sfu.media.send.waiting import count_left_out
from sfu.media.stream.packet_cache import is_stored
from sfu.schema.capacities import PACKETS, TRACK_LOG
from sfu.schema.codes import Drop

BEHIND_NS = 150_000_000
"""When what waits is older, upper temporal layers are left out."""
CAUGHT_UP_NS = 50_000_000
"""When it is younger, they are sent again."""
OLD_NS = 400_000_000
"""When it is older, all that comes before the newest key frame that waits is left out, and everything while the peer
reports nothing any more."""


@njit(cache=True)
def start_layer(state, row, position, now):
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
def turn_to(state, row, arrival, stream_row, now):
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
        miss_key_frame(state, subscription, now)
        return np.int64(-1)
    begin(state, row, np.int64(arrival.layer), stream_row, packet)
    return with_overtakers(state, track, stream_row, np.int64(packet.sequence), position)


@njit(cache=True)
def _has_had(subscription, stream, stream_row):
    """Whether the last key frame of a stream was sent, or given up, on a subscription that follows nothing now."""
    same = stream_row == subscription.stream and stream.ssrc == subscription.source_ssrc
    return same and stream.key_sequence <= subscription.in_highest


@njit(cache=True)
def note_missed_key_frame(state, subscription, first, last, now):
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
        miss_key_frame(state, subscription, now)


@njit(cache=True)
def pass_source(state, subscription, position):
    """Leave out what waits from `position` on of a source that has ended. Returns where its successor begins."""
    stream = state.streams[subscription.stream]
    following = np.int64(state.tracks[subscription.track].log_read)
    if stream.key_sequence >= 0:
        following = min(max(np.int64(stream.key_position), position), following)
    state.drops[Drop.PACER_OLD] += following - position
    return following


@njit(cache=True)
def age_of(stream, packet, now):
    """How long a packet has waited, ns. One that overtook the beginning of a key frame waited for that too, and is no
    older."""
    came_ns = np.int64(packet.arrival_ns)
    if 0 <= stream.key_sequence < packet.sequence:
        came_ns = max(came_ns, np.int64(stream.key_ns))
    return now - came_ns


@njit(cache=True)
def set_behind(subscription, age):
    """Leave upper temporal layers out, or no longer, by the age of what waits."""
    behind = 1 if age > (CAUGHT_UP_NS if subscription.behind else BEHIND_NS) else 0
    if behind != subscription.behind:
        subscription.behind = behind
        renew_temporal(subscription)


@njit(cache=True)
def leave_old(state, row, position, sequence, now):
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
    lose_layer(state, subscription, now)
    return start_layer(state, row, young, now)
