"""Which packets of one stream with spatial or temporal layers (VP9, AV1) a subscriber gets. Called by egress.

With dependency descriptors (AV1 RTP payload format appendix A) a *decode target* is followed: a packet goes out when
its indication for the target is not "not present". Another target is taken when that leaves the receiver with
everything it needs: at a key frame, at a frame that it gets and that says "switch", or when the new target's frames
are all among the old one's. Without descriptors VP9's layer ids decide, and spatial layers rise at key frames only.
"""

import numpy as np
from numba import njit

from sfu.media.send.selection import is_newer
from sfu.media.stream.key_frames import need_key_frame
from sfu.media.stream.switches import request_switch
from sfu.media.wire.dependency import SWITCH, decode_target, indication
from sfu.media.wire.describe import UNKNOWN_TEMPLATE
from sfu.schema.codes import PacketFlag


@njit(cache=True)
def admit_scalable(state, subscription, stream_row, packet):
    """Whether a packet goes to the subscriber; moves the subscriber's layers towards its targets."""
    newer = is_newer(subscription, packet)
    if newer:
        subscription.picture_timestamp = packet.timestamp
    if packet.flags & PacketFlag.FRAME_START:
        if packet.flags & PacketFlag.KEY_FRAME and (newer or packet.flags & PacketFlag.STRUCTURE):
            follow(state, subscription, stream_row, packet.flags & PacketFlag.STRUCTURE)
        elif packet.template == UNKNOWN_TEMPLATE:
            _move_by_layers(state, subscription, stream_row, packet, newer)
        else:
            _move_by_targets(state, subscription, stream_row, packet, newer)
    if packet.template == UNKNOWN_TEMPLATE:
        return packet.spatial <= subscription.spatial and packet.temporal <= subscription.temporal
    target = np.int64(subscription.decode_target)
    return target < 0 or indication(packet, target) != 0


@njit(cache=True)
def follow(state, subscription, stream_row, structure):
    """Forward everything up to the target layers, from a key frame on. structure: the packet brings one, in which all
    decode targets are active."""
    dependency = state.dependencies[stream_row]
    _take(dependency, subscription, subscription.target_spatial, subscription.target_temporal, structure)


@njit(cache=True)
def _take(dependency, subscription, spatial, temporal, structure):
    """Forward the layers up to these from now on, and tell the receiver which decode targets that leaves."""
    subscription.spatial = spatial
    subscription.temporal = temporal
    subscription.decode_target = decode_target(dependency, spatial, temporal)
    _tell(dependency, subscription, structure)


@njit(cache=True)
def _tell(dependency, subscription, structure):
    """Choose the active decode targets to write: those that get every one of their frames.

    Descriptors are copied while that says the same: everything produced is forwarded, and nothing else was told before.
    """
    produced = np.int64(dependency.active_targets)
    subscription.produced_targets = produced
    if subscription.decode_target < 0:
        subscription.targets = 0
        return
    present = np.uint64(2 * np.int64(subscription.decode_target))
    lacking = np.uint64(0)
    for k in range(np.int64(dependency.template_count)):
        indications = dependency.template_indications[k]
        if (indications >> present) & np.uint64(3) == 0:
            lacking |= indications
    mask = np.int64(0)
    for target in range(np.int64(dependency.target_count)):
        if (lacking >> np.uint64(2 * target)) & np.uint64(3) == 0:
            mask |= np.int64(1) << target
    if mask & produced == produced and (structure or subscription.targets == 0):
        mask = np.int64(0)
    subscription.targets = mask


@njit(cache=True)
def _move_by_layers(state, subscription, stream_row, packet, newer):
    """Move to the target layers without descriptors: down where a picture starts, up in time at a switching point."""
    if newer:
        subscription.spatial = min(np.int64(subscription.spatial), np.int64(subscription.target_spatial))
        subscription.temporal = min(np.int64(subscription.temporal), np.int64(subscription.target_temporal))
        if subscription.spatial < subscription.target_spatial and packet.spatial > subscription.spatial:
            _request_key_frame(state, subscription, stream_row)
    if (
        subscription.temporal < packet.temporal <= subscription.target_temporal
        and packet.spatial == 0
        and newer
        and packet.flags & PacketFlag.SWITCH_UP
    ):
        subscription.temporal = packet.temporal
    if packet.spatial > subscription.spatial and packet.spatial <= subscription.target_spatial:
        _request_key_frame(state, subscription, stream_row)


@njit(cache=True)
def _move_by_targets(state, subscription, stream_row, packet, newer):
    """Move to the target layers by descriptors: to the best decode target if it can be reached at this frame, else in
    time only. Request a key frame for what is left."""
    spatial, temporal = np.int64(subscription.target_spatial), np.int64(subscription.target_temporal)
    dependency = state.dependencies[stream_row]
    produced = dependency.active_targets
    at_target = subscription.spatial == spatial and subscription.temporal == temporal
    if at_target and subscription.produced_targets == produced:
        return
    best = decode_target(dependency, spatial, temporal)
    if _reachable(dependency, subscription, packet, newer, best):
        _take(dependency, subscription, spatial, temporal, 0)
        return
    near = decode_target(dependency, np.int64(subscription.spatial), temporal)
    if near != subscription.decode_target and _reachable(dependency, subscription, packet, newer, near):
        _take(dependency, subscription, np.int64(subscription.spatial), temporal, 0)
    elif subscription.produced_targets != produced:
        subscription.spatial = _spatial_of(dependency, subscription)  # below the best one: tried again
        _tell(dependency, subscription, 0)
    if dependency.target_spatial[best] != _spatial_of(dependency, subscription):
        _request_key_frame(state, subscription, stream_row)


@njit(cache=True)
def _request_key_frame(state, subscription, stream_row):
    """Request a key frame because a subscription is to follow more spatial layers than without one."""
    if subscription.by_bandwidth:
        request_switch(state, subscription, stream_row, True, state.thread[0].now_ns)
    else:
        need_key_frame(state.streams[stream_row])


@njit(cache=True)
def _spatial_of(dependency, subscription):
    return dependency.target_spatial[max(np.int64(subscription.decode_target), 0)]


@njit(cache=True)
def _reachable(dependency, subscription, packet, newer, target):
    """Whether the receiver can decode target `target` from this frame on. A frame of its own counts as received."""
    present = np.int64(subscription.decode_target)
    if present < 0 or target < 0 or target == present:
        return True
    if indication(packet, target) == SWITCH and indication(packet, present) != 0:
        return True
    if not newer:
        return False
    produced = np.uint64(0)  # what the encoder has made so far; no receiver lacks a layer that begins now
    for each in range(np.int64(dependency.target_count)):
        if (np.int64(subscription.produced_targets) >> each) & 1:
            produced |= np.uint64(3) << np.uint64(2 * each)
    for k in range(np.int64(dependency.template_count)):
        frame = dependency.template_indications[k]
        if frame & produced == 0:
            continue
        needed = (frame >> np.uint64(2 * target)) & np.uint64(3) != 0
        if needed and (frame >> np.uint64(2 * present)) & np.uint64(3) == 0:
            return False
    return True


@njit(cache=True)
def is_last_of_picture(dependency, subscription, packet):
    """Whether a packet with FRAME_END ends its picture: no higher spatial layer of it is forwarded."""
    if packet.template != UNKNOWN_TEMPLATE and subscription.decode_target >= 0:
        return packet.spatial >= _spatial_of(dependency, subscription)
    return packet.spatial >= subscription.spatial
