"""Which packets of one stream with spatial or temporal layers (VP9, AV1) a subscriber gets. Called by egress.

With dependency descriptors (AV1 RTP payload format appendix A) a *decode target* is followed: a packet goes out when
its indication for the target is not "not present". Another target is taken when that leaves the receiver with
everything it needs: at a key frame, at a frame that it gets and that says "switch", or when the new target's frames
are all among the old one's. Without descriptors VP9's layer ids decide, and spatial layers rise at key frames only.
"""

import numpy as np
from numba import njit

from sfu.media.send.selection import is_newer
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
    """From a key frame on: everything up to the targets. structure: the packet brings it, with all targets active."""
    _take(state, subscription, stream_row, subscription.target_spatial, subscription.target_temporal, structure)


@njit(cache=True)
def _take(state, subscription, stream_row, spatial, temporal, structure):
    """Forward the layers up to these from now on, and tell the receiver which decode targets that leaves."""
    subscription.spatial = spatial
    subscription.temporal = temporal
    subscription.decode_target = decode_target(state, stream_row, spatial, temporal)
    _tell(state, subscription, stream_row, structure)


@njit(cache=True)
def _tell(state, subscription, stream_row, structure):
    """Choose the active decode targets to write: those that get every one of their frames.

    Descriptors are copied while that says the same: everything produced is forwarded, and nothing else was told before.
    """
    dependency = state.dependencies[stream_row]
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
    """Without descriptors: down at the start of a picture, up in time at a switching point."""
    if newer:
        subscription.spatial = min(np.int64(subscription.spatial), np.int64(subscription.target_spatial))
        subscription.temporal = min(np.int64(subscription.temporal), np.int64(subscription.target_temporal))
        if subscription.spatial < subscription.target_spatial and packet.spatial > subscription.spatial:
            state.streams[stream_row].key_wanted = 1
    if (
        subscription.temporal < packet.temporal <= subscription.target_temporal
        and packet.spatial == 0
        and newer
        and packet.flags & PacketFlag.SWITCH_UP
    ):
        subscription.temporal = packet.temporal
    if packet.spatial > subscription.spatial and packet.spatial <= subscription.target_spatial:
        state.streams[stream_row].key_wanted = 1


@njit(cache=True)
def _move_by_targets(state, subscription, stream_row, packet, newer):
    """With descriptors: to the wanted target if that is possible at this frame, else in time only, else ask."""
    spatial, temporal = np.int64(subscription.target_spatial), np.int64(subscription.target_temporal)
    produced = state.dependencies[stream_row].active_targets
    as_wanted = subscription.spatial == spatial and subscription.temporal == temporal
    if as_wanted and subscription.produced_targets == produced:
        return
    wanted = decode_target(state, stream_row, spatial, temporal)
    if _reachable(state, subscription, stream_row, packet, newer, wanted):
        _take(state, subscription, stream_row, spatial, temporal, 0)
        return
    near = decode_target(state, stream_row, np.int64(subscription.spatial), temporal)
    if near != subscription.decode_target and _reachable(state, subscription, stream_row, packet, newer, near):
        _take(state, subscription, stream_row, np.int64(subscription.spatial), temporal, 0)
    elif subscription.produced_targets != produced:
        subscription.spatial = _spatial_of(state, stream_row, subscription)  # below the wanted one: tried again
        _tell(state, subscription, stream_row, 0)
    if state.dependencies[stream_row].target_spatial[wanted] != _spatial_of(state, stream_row, subscription):
        state.streams[stream_row].key_wanted = 1


@njit(cache=True)
def _spatial_of(state, stream_row, subscription):
    return state.dependencies[stream_row].target_spatial[max(np.int64(subscription.decode_target), 0)]


@njit(cache=True)
def _reachable(state, subscription, stream_row, packet, newer, wanted):
    """Whether the receiver can decode target `wanted` from this frame on. A frame of its own counts as received."""
    present = np.int64(subscription.decode_target)
    if present < 0 or wanted < 0 or wanted == present:
        return True
    if indication(packet, wanted) == SWITCH and indication(packet, present) != 0:
        return True
    if not newer:
        return False
    dependency = state.dependencies[stream_row]
    produced = np.uint64(0)  # what the encoder has made so far; a layer that begins now is missed by nobody
    for target in range(np.int64(dependency.target_count)):
        if (np.int64(subscription.produced_targets) >> target) & 1:
            produced |= np.uint64(3) << np.uint64(2 * target)
    for k in range(np.int64(dependency.template_count)):
        frame = dependency.template_indications[k]
        if frame & produced == 0:
            continue
        needed = (frame >> np.uint64(2 * wanted)) & np.uint64(3) != 0
        if needed and (frame >> np.uint64(2 * present)) & np.uint64(3) == 0:
            return False
    return True


@njit(cache=True)
def is_last_of_picture(state, subscription, stream_row, packet):
    """For a packet with FRAME_END: no higher spatial layer of its picture is forwarded."""
    if packet.template != UNKNOWN_TEMPLATE and subscription.decode_target >= 0:
        return packet.spatial >= _spatial_of(state, stream_row, subscription)
    return packet.spatial >= subscription.spatial
