"""Each subscriber's bandwidth, shared among what it is sent: gathers its videos, lets `allocate` decide, and puts the
result in force.

Audio is taken off first (`sfu.media.allocation.audio`). A transport from which no feedback ever came has no estimate,
and is never limited.
"""

import numpy as np
from numba import njit

from sfu.media.allocation.allocate import allocate, reason_unlimited
from sfu.media.allocation.audio import is_active, share_audio
from sfu.media.allocation.costs import key_frame_cost, scalable_costs, simulcast_costs, target_cost
from sfu.media.allocation.due import (
    is_due,
    is_ruled_by_reports,
    is_silent,
    list_transport,
    take_listed,
    usable_estimate,
)
from sfu.media.allocation.ladder import present_cost
from sfu.media.allocation.measure import LEAST, STOPPED, measured_layer
from sfu.media.send.lost_keys import rests
from sfu.media.send.selection import key_frame_leaves, request_target_key_frame
from sfu.media.stream.key_frames import KEY_FRAME_EVERY_NS, request_key_frame
from sfu.media.subscriptions import renew_target
from sfu.media.wire.overhead import GCM_TAG_BYTES, SHA1_80_TAG_BYTES, udp_ip_bytes
from sfu.queues.notices import notice
from sfu.schema.allocation_tables import COST_SPATIAL, COST_TEMPORAL, MAX_SHARED, MEASURED_LAYERS
from sfu.schema.bandwidth_codes import Held, Reason, Rung
from sfu.schema.capacities import MAX_SPATIAL_ID, MAX_TEMPORAL_ID
from sfu.schema.codes import Drop, MediaKind, NoticeKind, RowState

MAX_RUNS = 16
"""Transports whose bandwidth is shared out in one turn."""
MAX_VISITS = 4 * MAX_RUNS
"""Listed transports that are looked at in one turn."""
ABRUPT_PERCENT = 130
"""When what is sent costs more than so much of what there is, pictures stand until key frames of lower layers come."""
RETURN_NS = 3_000_000_000
"""For so long after its feedback came back a viewer may cause key frames as a new one does: it had its layers."""

_HELD_NOTHING, _HELD_KEY_FRAMES, _HELD_SWITCH = int(Held.NOTHING), int(Held.KEY_FRAMES), int(Held.SWITCH)


@njit(cache=True)
def sharing_pass(state, now):
    """Share out the bandwidth of the transports that are listed and due."""
    runs, visits = 0, 0
    first_kept = np.int64(-1)
    while runs < MAX_RUNS and visits < MAX_VISITS:
        row = np.int64(state.thread[0].first_due)
        if row < 0 or row == first_kept:
            return
        take_listed(state)
        visits += 1
        if not is_due(state, row, now):
            list_transport(state, row, False)
            first_kept = row if first_kept < 0 else first_kept
        elif state.transports[row].state == RowState.OPEN:
            runs += 1
            state.thread[0].row_in_hand = row
            share_bandwidth(state, row, now)
            state.thread[0].row_in_hand = -1


@njit(cache=True)
def limited_pass(state):
    """Once a second: list the transports that are sent less than they prefer, because times of backing off end."""
    for row in range(state.thread[0].transport_end):
        if state.transports[row].limited and state.transports[row].state == RowState.OPEN:
            list_transport(state, row, False)


@njit(cache=True)
def share_bandwidth(state, row, now):
    """Decide what each video subscription of transport `row` is sent, and let selection follow that."""
    transport = state.transports[row]
    transport.allocated_ns = now
    transport.allocation_urgent = 0
    estimate = usable_estimate(state, row)
    transport.shared_bps = estimate
    overhead = _packet_overhead(state, transport)
    audio_bps, preferred_audio_bps, limited = share_audio(state, row, estimate, overhead, now)
    count = _gather(state, row, overhead)
    transport.preferred_bps = preferred_audio_bps + _preferred(state, count)
    if estimate == 0:
        for k in range(count):
            _unlimit(state, state.demands[k])
        transport.limited = 0
        transport.allocated_bps = transport.preferred_bps
        return
    abrupt = _present(state, count) * 100 > max(estimate - audio_bps, 0) * ABRUPT_PERCENT
    # Without feedback nothing may be paused: what is sent is the only thing that can be reported.
    silent = is_silent(state, row)
    reported = transport.estimate_bps > 0 and not silent and not is_ruled_by_reports(state, row)
    if silent:
        _prefer_lowest(state, count)
    used = allocate(state.demands, count, estimate, audio_bps, transport.may_pause != 0 and reported, now)
    for k in range(count):
        demand = state.demands[k]
        if silent:
            demand.reason = Reason.BANDWIDTH
        limited |= demand.reason == Reason.BANDWIDTH or demand.reason == Reason.PAUSED
        _apply(state, demand, abrupt, now)
    transport.limited = 1 if limited else 0
    transport.allocated_bps = audio_bps + used
    if used > max(estimate - audio_bps, 0):  # an overdraft ends in time
        list_transport(state, row, False)


@njit(cache=True)
def _gather(state, row, overhead):
    """Write a row of `demands` for each video subscription of a transport. Returns how many."""
    count = np.int64(0)
    number = np.int64(state.transports[row].first_subscription)
    while number >= 0:
        subscription = state.subscriptions[number]
        if subscription.kind == MediaKind.VIDEO and is_active(state, subscription):
            if count < MAX_SHARED:
                _demand(state, number, count, overhead)
                count += 1
            else:
                state.drops[Drop.ALLOCATION_FULL] += 1
                _limit_to_key_frames(state, number)
        number = np.int64(subscription.next_of_transport)
    return count


@njit(cache=True)
def _packet_overhead(state, transport):
    """Bytes on the wire that a packet to this transport has beside the RTP packet."""
    tag = GCM_TAG_BYTES if transport.cipher != 0 else SHA1_80_TAG_BYTES
    family = state.paths[transport.path].family if transport.path >= 0 else 4
    return tag + udp_ip_bytes(family)


@njit(cache=True)
def _demand(state, number, k, overhead):
    """Say in row k of `demands` what is preferred for subscription `number`, what that costs, and what it has."""
    subscription, demand = state.subscriptions[number], state.demands[k]
    track = state.tracks[subscription.track]
    demand.subscription = number
    demand.screen = track.screen
    demand.priority = subscription.priority
    demand.pixels = subscription.pixels
    demand.preferred_spatial = subscription.preferred_spatial
    demand.preferred_temporal = subscription.preferred_temporal
    track_costs(state, track, demand, overhead)
    demand.rung = subscription.rung
    demand.spatial = subscription.allowed_spatial
    demand.temporal = subscription.allowed_temporal
    known = subscription.rung != Rung.NONE
    demand.raised_ns = subscription.raised_ns if known else 0
    demand.raised_bps = subscription.raised_bps if known else 0
    demand.failed_ns = subscription.failed_ns if known else 0
    demand.failed_bps = subscription.failed_bps if known else 0
    demand.failures = subscription.failures if known else 0
    demand.overdrawn_ns = subscription.overdrawn_ns if known else 0


@njit(cache=True)
def track_costs(state, track, demand, overhead):
    """Write what each layer of a track costs now. A track of several streams has a spatial layer in each. A layer that
    rests counts as well: its publisher sends it again as soon as somebody may have it."""
    several = track.layer_count > 1
    _targets(state, track, demand, several)
    for spatial in range(COST_SPATIAL):
        for temporal in range(COST_TEMPORAL):
            demand.measured[spatial, temporal] = 0
            if not several:
                demand.measured[spatial, temporal] = _measured(state, track, 0, spatial, temporal, overhead)
            elif spatial < track.layer_count:
                for inner in range(COST_SPATIAL):
                    bps = _measured(state, track, spatial, inner, temporal, overhead)
                    demand.measured[spatial, temporal] += bps
    if several:
        simulcast_costs(demand.cost, demand.measured, demand.target, _live_or_resting(track))
    else:
        scalable_costs(demand.cost, demand.measured, demand.target, np.int64(track.live))
    demand.key_cost = key_frame_cost(demand.cost)


@njit(cache=True)
def _live_or_resting(track):
    """Bit mask of layers that come, or would if somebody could have them; none while nothing comes."""
    resting = np.int64(track.resting) & ((1 << np.int64(track.layer_count)) - 1)
    return np.int64(track.live) | resting if track.live else np.int64(0)


@njit(cache=True)
def _targets(state, track, demand, several):
    """Write what the publisher of a track means to send: as its packets say, else as it announced."""
    demand.target[:] = 0
    for layer in range(min(np.int64(track.layer_count), COST_SPATIAL)):
        if track.streams[layer] < 0:
            continue
        stream = state.streams[track.streams[layer]]
        for spatial in range(1 if several else COST_SPATIAL):
            for temporal in range(COST_TEMPORAL):
                kbps = np.int64(stream.target_kbps[spatial * COST_TEMPORAL + temporal])
                demand.target[layer + spatial, temporal] = target_cost(kbps)
        if (several and not demand.target[layer].any()) or (not several and not demand.target.any()):
            demand.target[layer, 0] = target_cost(np.int64(stream.announced_bps) // 1_000)


@njit(cache=True)
def _measured(state, track, layer, spatial, temporal, overhead):
    if track.streams[layer] < 0:
        return np.int64(0)
    muted = track.streams[0] >= 0 and state.streams[track.streams[0]].quiet_checks == STOPPED
    stopped = (track.resting >> layer) & 1 != 0 and not muted
    return measured_layer(state.streams[track.streams[layer]], spatial, temporal, overhead, stopped)


@njit(cache=True)
def _preferred(state, count):
    """Bit/s of everything that the first `count` rows of `demands` prefer."""
    total = np.int64(0)
    for k in range(count):
        total += _preferred_cost(state.demands[k])
    return total


@njit(cache=True)
def _preferred_cost(demand):
    """Bit/s of the highest layer that is preferred and live."""
    highest = np.int64(0)
    for spatial in range(min(np.int64(demand.preferred_spatial), COST_SPATIAL - 1) + 1):
        for temporal in range(min(np.int64(demand.preferred_temporal), COST_TEMPORAL - 1) + 1):
            highest = max(highest, np.int64(demand.cost[spatial, temporal]))
    return highest


@njit(cache=True)
def _prefer_lowest(state, count):
    """While feedback has stopped, nobody is given more than the lowest layer; that is no upgrade which failed."""
    for k in range(count):
        demand = state.demands[k]
        demand.preferred_spatial = demand.preferred_temporal = 0
        demand.raised_ns = 0


@njit(cache=True)
def _present(state, count):
    """Bit/s of what the first `count` rows of `demands` have been allowed so far: everything before the first time."""
    total = np.int64(0)
    for k in range(count):
        demand = state.demands[k]
        total += _preferred_cost(demand) if demand.rung == Rung.NONE else present_cost(demand)
    return total


@njit(cache=True)
def _apply(state, demand, abrupt, now):
    """Put an allocation in force, and keep what the next one has to know. abrupt: much more is sent than fits."""
    number = np.int64(demand.subscription)
    subscription = state.subscriptions[number]
    was_paused, paused = subscription.rung == Rung.PAUSED, demand.rung == Rung.PAUSED
    subscription.rung = demand.rung
    subscription.reason = demand.reason
    subscription.raised_ns = demand.raised_ns
    subscription.raised_bps = demand.raised_bps
    subscription.failed_ns = demand.failed_ns
    subscription.failed_bps = demand.failed_bps
    subscription.failures = demand.failures
    subscription.overdrawn_ns = demand.overdrawn_ns
    spatial = np.int64(-1) if paused else np.int64(demand.spatial)
    _allow(state, number, spatial, np.int64(demand.temporal), demand.rung == Rung.KEY_FRAMES_ONLY, abrupt)
    if paused != was_paused:
        notice(state, NoticeKind.ALLOWANCE_CHANGED, number)
    if demand.rung == Rung.KEY_FRAMES_ONLY:
        _request_now_and_then(state, number, now)


@njit(cache=True)
def _unlimit(state, demand):
    """Let a subscription be sent all that its subscriber prefers."""
    subscription = state.subscriptions[demand.subscription]
    subscription.reason = reason_unlimited(demand)
    if subscription.rung != Rung.NONE:
        subscription.rung = Rung.NONE
        number = np.int64(demand.subscription)
        _allow(state, number, np.int64(MAX_SPATIAL_ID), np.int64(MAX_TEMPORAL_ID), False, False)


@njit(cache=True)
def _allow(state, number, spatial, temporal, key_frames_only, abrupt):
    """Let a subscription be sent no more than these layers, and of them only key frames if so said."""
    subscription = state.subscriptions[number]
    only_keys = subscription.held == Held.KEY_FRAMES
    unchanged = subscription.allowed_spatial == spatial and subscription.allowed_temporal == temporal
    # what is preferred may have changed, or what is live
    stands_for_nothing = subscription.held == Held.SWITCH and subscription.target_layer >= subscription.layer
    if unchanged and only_keys == key_frames_only and not stands_for_nothing:
        return
    subscription.allowed_spatial = spatial
    subscription.allowed_temporal = temporal
    returned_ns = state.transports[subscription.transport].returned_ns
    returns = returned_ns != 0 and state.thread[0].now_ns - returned_ns < RETURN_NS
    if not unchanged or only_keys != key_frames_only:
        # a new viewer's first picture is no switch, nor what an interrupted one had before
        subscription.by_bandwidth = subscription.started and not returns
    renew_target(state, number)
    held = _hold(state, number, key_frames_only, abrupt)
    if subscription.held and not held and not key_frame_leaves(state, subscription):
        subscription.layer = -1  # what was left out is missed by what comes now: it goes on with a key frame
    subscription.held = held
    if subscription.target_layer == subscription.layer and state.tracks[subscription.track].layer_count > 1:
        subscription.by_bandwidth = 0  # no other stream is waited for, nor this one anew
    request_target_key_frame(state, number)


@njit(cache=True)
def _hold(state, number, key_frames_only, abrupt):
    """What a subscription is not sent of the layer that it follows.

    On the way down to another stream the upper temporal layers of the old one are left out until the key frame comes.
    Where it has none, or that would not be enough, the picture stands.
    """
    if key_frames_only:
        return _HELD_KEY_FRAMES
    subscription = state.subscriptions[number]
    if not 0 <= subscription.target_layer < subscription.layer:
        return _HELD_NOTHING
    if abrupt or subscription.held or not _has_upper_temporal(state.streams[subscription.stream]):
        return _HELD_SWITCH
    return _HELD_NOTHING


@njit(cache=True)
def _has_upper_temporal(stream):
    """Whether a stream has been sending more than its base temporal layer."""
    most = np.int64(0)
    for layer in range(MEASURED_LAYERS):
        if layer % COST_TEMPORAL > 0:
            most = max(most, np.int64(stream.layer_bytes[layer]))
    return most > LEAST


@njit(cache=True)
def _limit_to_key_frames(state, number):
    """What a video is given beyond MAX_SHARED of them, where bandwidth is limited at all."""
    subscription = state.subscriptions[number]
    if usable_estimate(state, np.int64(subscription.transport)) == 0:
        if subscription.rung != Rung.NONE:
            subscription.rung = Rung.NONE
            _allow(state, number, np.int64(MAX_SPATIAL_ID), np.int64(MAX_TEMPORAL_ID), False, False)
    else:
        if subscription.rung == Rung.NONE:  # what stands there is of an earlier use of the row
            subscription.raised_ns = subscription.failed_ns = subscription.overdrawn_ns = 0
            subscription.failures = 0
        subscription.rung = Rung.KEY_FRAMES_ONLY
        subscription.reason = Reason.BANDWIDTH
        _allow(state, number, np.int64(0), np.int64(0), True, False)


@njit(cache=True)
def _request_now_and_then(state, number, now):
    """One key frame in KEY_FRAME_EVERY_NS for those who get nothing else: the last one serves all of them."""
    subscription = state.subscriptions[number]
    track = state.tracks[subscription.track]
    layer = np.int64(subscription.target_layer)
    if 0 <= layer < track.layer_count and track.streams[layer] >= 0:
        stream = state.streams[track.streams[layer]]
        if now - stream.key_ns >= KEY_FRAME_EVERY_NS and not rests(state, subscription, now):
            request_key_frame(state, np.int64(track.streams[layer]))
