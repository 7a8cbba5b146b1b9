"""Which layer of a track a subscription follows, where it may change, and who has to send a key frame for it.

Simulcast: the best layer up to the target that is *live*, else the lowest live one; a change waits for a key frame of
the target layer. A layer is dead when its siblings advanced DEAD_FRAMES since its last packet, and it has been silent
for much longer than it usually is. On a still screen nothing advances, so no layer dies; nor does a low frame rate
end one.
`sfu.media.send.scalability` decides about layers inside one stream.
"""

import numpy as np
from numba import njit

from sfu.media.allocation.due import list_subscribers
from sfu.media.net.frame_queue import is_backed_up
from sfu.media.send.lost_keys import rests
from sfu.media.send.pictures import is_dropped, renew_pictures
from sfu.media.send.repair_share import round_trip_ns
from sfu.media.send.voices import is_voice
from sfu.media.stream.key_frames import KEY_FRAME_EVERY_NS, is_denied, key_frame_arrives, request_key_frame
from sfu.media.stream.layers import is_scalable
from sfu.media.stream.switches import request_switch
from sfu.media.wire.numbers import signed32
from sfu.media.wire.red import codec_family
from sfu.parameters import Codec, Extension
from sfu.queues.notices import notice
from sfu.schema.bandwidth_codes import Held
from sfu.schema.capacities import PACKETS
from sfu.schema.codes import MediaKind, NoticeKind, PacketFlag, RowState

DEAD_FRAMES = 15
"""Half a second of a usual sibling."""
REVIVED_FRAMES = 3
"""A dead layer that brings so many frames without another long silence is alive; a key frame revives it at once."""
PATIENCE = 3
"""How many times its usual distance between frames a layer may be silent."""
FIRST_PATIENCE = 15
"""Checks, one in 100 ms, that a layer may be silent whose usual distance is not known, or that sent a key frame within
SETTLED_NS: an encoder pauses after a large one, and who has just turned to the layer is not to be sent back."""
SETTLED_NS = 3_000_000_000
MAX_USUAL_CHECKS = 25
"""A longer distance between two frames is an interruption and says nothing about the next one."""
QUARTERS = 4
"""usual_checks counts quarters: it grows at once and falls by one with each check that finds a frame, so that a
distance of a second is remembered for some seconds of quick frames."""

_NONE, _VP8 = int(Codec.NONE), int(Codec.VP8)
_DEPENDENCY = int(Extension.DEPENDENCY)


@njit(cache=True)
def choose_layer(track, target):
    """The best live layer up to `target`, else the lowest live one; -1: none is live."""
    chosen = -1
    for layer in range(np.int64(track.layer_count)):
        if (track.live >> layer) & 1 and (layer <= target or chosen < 0):
            chosen = layer
    return chosen


@njit(cache=True)
def choose_target_layer(state, row):
    """Choose the target layer of a subscription anew, after its target or the live layers changed. It stays while none
    is live."""
    subscription = state.subscriptions[row]
    track = state.tracks[subscription.track]
    chosen = choose_layer(track, np.int64(subscription.target_spatial))
    if chosen >= 0:
        subscription.target_layer = chosen


@njit(cache=True)
def request_target_key_frame(state, row):
    """Request a key frame of a subscription's target layer, if that is another than is forwarded."""
    subscription = state.subscriptions[row]
    if subscription.paused or subscription.kind != MediaKind.VIDEO or subscription.target_layer == subscription.layer:
        return
    if is_backed_up(state, np.int64(subscription.transport)):
        return  # it would be old when it could leave
    track = state.tracks[subscription.track]
    if not 0 <= subscription.target_layer < track.layer_count:
        return
    stream_row, now = np.int64(track.streams[subscription.target_layer]), state.thread[0].now_ns
    if subscription.layer >= 0 and key_frame_arrives(state, stream_row, now):
        return
    if key_frame_waits(state, subscription, stream_row):
        return
    if subscription.by_bandwidth:
        if rests(state, subscription, now):
            return
        if not _stands(state, subscription, stream_row, now):
            rises = subscription.layer < subscription.target_layer
            request_switch(state, subscription, stream_row, rises, now)
            return
    request_key_frame(state, stream_row)


@njit(cache=True)
def _stands(state, subscription, stream_row, now):
    """Whether a subscription shows a picture that stands, or none, so that it is served like those that are sent key
    frames only: where none came for KEY_FRAME_EVERY_NS."""
    waits = subscription.held == Held.SWITCH or subscription.layer < 0
    return waits and now - state.streams[stream_row].key_ns >= KEY_FRAME_EVERY_NS


@njit(cache=True)
def key_frame_waits(state, subscription, stream_row):
    """Whether the last key frame of a stream, or a part of it, waits to be sent on a subscription."""
    stream = state.streams[stream_row]
    if subscription.waits_at < 0 or stream.key_sequence < 0:
        return False
    if stream.key_position >= subscription.waits_at:
        return True
    return stream_row == subscription.stream and key_frame_leaves(state, subscription)


@njit(cache=True)
def key_frame_leaves(state, subscription):
    """Whether a part of the last key frame of the stream that is forwarded has been sent, and the rest waits."""
    if subscription.waits_at < 0 or subscription.layer < 0 or subscription.last_marker:
        return False
    stream = state.streams[subscription.stream]
    if stream.key_sequence < 0:
        return False
    first = state.packets[subscription.stream, stream.key_sequence & (PACKETS - 1)]
    return first.sequence == stream.key_sequence and first.timestamp == subscription.picture_timestamp


@njit(cache=True)
def renew_temporal(subscription):
    """Renew the highest temporal layer to forward. That is the base layer while a lower spatial layer is waited for
    because the one that is forwarded is not allowed any more, and while too much waits for the path.

    Allowed are temporal layers of the highest spatial layer that is. One below that, from whose stream the subscription
    rises, costs less with all of its own."""
    temporal = np.int64(subscription.preferred_temporal)
    if not 0 <= subscription.layer < subscription.target_layer:
        temporal = min(temporal, np.int64(subscription.allowed_temporal))
    subscription.target_temporal = 0 if is_denied(subscription) or subscription.behind else temporal


@njit(cache=True)
def is_held(state, row, packet):
    """Whether a packet of subscription `row` is not sent because of `held`.

    A picture that has begun is sent to its end, unless its rest waits for a path that carries far less than the layer:
    it would only delay the key frame.
    """
    subscription = state.subscriptions[row]
    if subscription.held == Held.EXCESSIVE:
        return True
    if subscription.held == Held.QUIETER:
        return not is_voice(state, row, packet.arrival_ns)
    waits = subscription.held == Held.SWITCH and subscription.waits_at >= 0
    if packet.timestamp == subscription.picture_timestamp and not waits:
        return False
    if subscription.held == Held.KEY_FRAMES and subscription.layer == subscription.target_layer:
        return packet.flags & PacketFlag.KEY_FRAME == 0
    return True


@njit(cache=True)
def completes_key_frame(state, stream_row, packet):
    """Whether a packet, which was stored just now, makes the last key frame of its stream complete."""
    stream = state.streams[stream_row]
    newest = state.packets[stream_row, stream.highest & (PACKETS - 1)]
    if newest.timestamp == packet.timestamp and not newest.marker:
        return False  # it is still arriving
    for sequence in range(max(stream.key_sequence, 0), min(stream.highest + 1, stream.key_sequence + PACKETS)):
        each = state.packets[stream_row, sequence & (PACKETS - 1)]
        if each.sequence != sequence or each.timestamp != packet.timestamp:
            return False
        if each.marker:
            return True
    return False


@njit(cache=True)
def mark_live(state, track_row, layer):
    """A layer advances: tell the control thread, and let its track's subscriptions choose again."""
    track = state.tracks[track_row]
    stream = state.streams[track.streams[layer]]
    stream.dead = 0
    stream.idle_frames = 0
    stream.silent_checks = 0
    _set_live(state, track_row, np.int64(track.live) | 1 << layer)


@njit(cache=True)
def _set_live(state, track_row, live):
    track = state.tracks[track_row]
    track.live = live
    notice(state, NoticeKind.LAYERS_CHANGED, track_row)
    row = np.int64(track.first_subscription)
    while row >= 0:
        choose_target_layer(state, row)
        renew_temporal(state.subscriptions[row])
        row = np.int64(state.subscriptions[row].next_of_track)
    list_subscribers(state, track_row)


@njit(cache=True)
def takes(subscription, codec):
    """Whether a subscription was negotiated for packets of a codec."""
    return subscription.codec == _NONE or subscription.codec == codec_family(codec)


@njit(cache=True)
def may_start(state, subscription, layer, packet):
    """Whether the subscription may turn to `layer` with this packet, which comes from there."""
    if not takes(subscription, packet.codec):
        return False
    if subscription.kind != MediaKind.VIDEO:
        return True
    if packet.flags & PacketFlag.KEY_FRAME == 0 or packet.flags & PacketFlag.FRAME_START == 0:
        return False
    first = subscription.layer < 0 and layer <= subscription.target_spatial  # a lower layer is better than nothing
    if layer != subscription.target_layer and not first:
        return False
    if packet.extension_at[_DEPENDENCY] == 0 or packet.flags & PacketFlag.STRUCTURE:
        return True
    if not is_scalable(state.tracks[subscription.track].layer_count, packet.codec):
        return True  # its descriptors are not forwarded
    # a receiver that was promised descriptors can read them only once it has the structure
    media = state.media[state.transports[subscription.transport].media]
    return media.id_of_extension[_DEPENDENCY] == 0


@njit(cache=True)
def is_newer(subscription, packet):
    """Whether a packet belongs to a newer picture than all that were decided on.

    A timestamp that is another one behind the highest sequence number is newer too: some encoders start their clock
    anew without another SSRC, and half of its range would take hours.
    """
    ahead = signed32(np.int64(packet.timestamp) - np.int64(subscription.picture_timestamp))
    return ahead > 0 or (ahead != 0 and packet.sequence > subscription.in_highest)


@njit(cache=True)
def admit_temporal(subscription, packet):
    """Whether a packet of a stream with temporal layers only goes out; down at frame starts, up at switching points."""
    temporal = np.int64(packet.temporal)
    if is_newer(subscription, packet):
        subscription.picture_timestamp = packet.timestamp
        if packet.flags & PacketFlag.KEY_FRAME and packet.codec == _VP8:
            renew_pictures(subscription, packet)
        if subscription.temporal != subscription.target_temporal and packet.flags & PacketFlag.FRAME_START:
            if subscription.temporal > subscription.target_temporal or packet.flags & PacketFlag.KEY_FRAME:
                subscription.temporal = subscription.target_temporal
            elif temporal > subscription.temporal and packet.flags & PacketFlag.SWITCH_UP:
                subscription.temporal = min(temporal, np.int64(subscription.target_temporal))
    if packet.codec == _VP8:
        if packet.picture_id < 0:
            return True
        if is_dropped(subscription, packet):
            return False
    return temporal <= subscription.temporal


@njit(cache=True)
def receive_key_frame_request(state, row, now):
    """Take a PLI or FIR of a subscriber, and pass it on unless the key frame that it requests is on its way already."""
    subscription = state.subscriptions[row]
    if subscription.state != RowState.OPEN or subscription.kind != MediaKind.VIDEO or subscription.paused:
        return
    track = state.tracks[subscription.track]
    request_target_key_frame(state, row)
    if not 0 <= subscription.layer < track.layer_count:
        return
    if is_denied(subscription):
        # Nobody is asked for the layer that is denied. A lower one is, now and then, because the picture stands.
        lower = np.int64(track.streams[subscription.target_layer])
        if now - state.streams[lower].key_ns >= KEY_FRAME_EVERY_NS and not key_frame_waits(state, subscription, lower):
            request_key_frame(state, lower)
        return
    stream_row = np.int64(track.streams[subscription.layer])
    if key_frame_waits(state, subscription, stream_row):
        return
    left_ns = max(state.streams[stream_row].key_ns, subscription.key_left_ns)
    on_its_way = now - left_ns < round_trip_ns(state, np.int64(subscription.transport))
    if not on_its_way and not key_frame_arrives(state, stream_row, now):
        request_key_frame(state, stream_row)


@njit(cache=True)
def liveness_pass(state, now):
    """Every 100 ms or so: which layers live, and repeated requests for key frames."""
    for row in range(state.thread[0].track_end):
        track = state.tracks[row]
        if track.state == RowState.OPEN and track.layer_count > 1:
            _check_layers(state, row, now)
    for row in range(state.thread[0].subscription_end):
        subscription = state.subscriptions[row]
        if subscription.state == RowState.OPEN and subscription.target_layer != subscription.layer:
            transport = state.transports[subscription.transport]
            if transport.secure and transport.path >= 0:
                request_target_key_frame(state, row)


@njit(cache=True)
def _check_layers(state, row, now):
    track = state.tracks[row]
    count = np.int64(track.layer_count)
    most = np.int64(0)
    for layer in range(count):
        stream = state.streams[track.streams[layer]]
        most = max(most, stream.frames - stream.frames_at_check)
    live = np.int64(track.live)
    for layer in range(count):
        stream = state.streams[track.streams[layer]]
        frames = _note_silence(stream, most)
        silent = stream.silent_checks >= _patience(stream, now)
        if (live >> layer) & 1 and silent and stream.idle_frames >= DEAD_FRAMES:
            live &= ~(1 << layer)
            stream.dead = 1
            stream.revived_frames = 0
        elif stream.dead:
            stream.revived_frames = 0 if silent else stream.revived_frames + frames
            if stream.revived_frames >= REVIVED_FRAMES:
                live |= 1 << layer
                stream.dead = 0
    if live != track.live:
        _set_live(state, row, live)


@njit(cache=True)
def _note_silence(stream, most):
    """Count the checks since a layer's last packet and since its last frame start; learn how far frames usually lie
    apart. most: frames of the quickest layer since the last check. Returns how many frames this one started."""
    frames = stream.frames - stream.frames_at_check
    first = stream.frames_at_check == 0
    stream.frames_at_check = stream.frames
    stream.silent_checks += 1
    stream.frame_checks += 1
    stream.idle_frames += most
    if stream.cache_written != stream.written_at_check:  # any packet: a large frame takes long to arrive
        stream.written_at_check = stream.cache_written
        stream.silent_checks = 0
        stream.idle_frames = 0
    if frames > 0:
        if not first and stream.frame_checks <= MAX_USUAL_CHECKS:
            stream.usual_checks = max(QUARTERS * stream.frame_checks, stream.usual_checks - 1)
        stream.frame_checks = 0
    return frames


@njit(cache=True)
def _patience(stream, now):
    """How many checks a layer may be silent before it counts as dead."""
    patience = (PATIENCE * np.int64(stream.usual_checks) + QUARTERS - 1) // QUARTERS
    if patience == 0 or now - stream.key_ns < SETTLED_NS:
        return max(patience, np.int64(FIRST_PATIENCE))
    return patience
