"""Which layer of a track a subscription follows, where it may change, and who has to send a key frame for it.

Simulcast: the best layer up to the target that is *live*, else the lowest live one; a change waits for a key frame of
the layer wanted. A layer is dead when its siblings advanced DEAD_FRAMES without it: a still screen, where nothing
advances, kills nobody. `sfu.scalability` decides about layers inside one stream.
"""

import numpy as np
from numba import njit

from sfu.parameters import Codec, Extension
from sfu.pictures import is_dropped
from sfu.ring_size import check_ring
from sfu.rings import notice
from sfu.tables import (
    FRAME_START,
    KEY_FRAME,
    LAYERS_CHANGED,
    OPEN,
    STRUCTURE,
    SWITCH_UP,
    VIDEO,
)
from sfu.wire import signed32

DEAD_FRAMES = 15
"""Half a second of a usual sibling."""
REVIVED_FRAMES = 3
"""A dead layer that brings so many frames between two passes is alive; a key frame revives it at once."""
RATES_NS = 1_000_000_000
RECENT_KEY_NS = 1_000_000_000
REPLAYED_PACKETS = 96
"""A newcomer starts from a key frame in the ring when it is younger and nearer than this."""

_VP8 = int(Codec.VP8)
_DEPENDENCY = int(Extension.DEPENDENCY)


@njit(cache=True)
def want_key(state, stream_row):
    """Ask the publisher for a key frame of a stream; feedback throttles, a key frame that arrives answers it."""
    if stream_row >= 0 and state.streams[stream_row].state == OPEN:
        state.streams[stream_row].key_wanted = 1


@njit(cache=True)
def recent_key(stream, now):
    """Extended number of the first packet of a key frame to start a newcomer from; -1: a new one costs less."""
    first = stream.key_sequence
    if first < 0 or now - stream.key_ns > RECENT_KEY_NS or stream.highest - first >= REPLAYED_PACKETS:
        return np.int64(-1)
    return first


@njit(cache=True)
def choose_layer(track, target):
    """The layer to forward to a subscriber who wants at most `target`; -1: none is live."""
    chosen = -1
    for layer in range(np.int64(track.layer_count)):
        if (track.live >> layer) & 1 and (layer <= target or chosen < 0):
            chosen = layer
    return chosen


@njit(cache=True)
def choose_for(state, row):
    """Renew a subscription's wanted layer, and ask for its key frame when that is another than is forwarded."""
    subscription = state.subscriptions[row]
    track = state.tracks[subscription.track]
    chosen = choose_layer(track, np.int64(subscription.target_spatial))
    if chosen >= 0:
        subscription.wanted_layer = chosen


@njit(cache=True)
def ask_for_wanted(state, row):
    """Want a key frame of the layer that a subscription waits for."""
    subscription = state.subscriptions[row]
    if subscription.paused or subscription.kind != VIDEO or subscription.wanted_layer == subscription.layer:
        return
    track = state.tracks[subscription.track]
    if 0 <= subscription.wanted_layer < track.layer_count:
        want_key(state, np.int64(track.streams[subscription.wanted_layer]))


@njit(cache=True)
def mark_live(state, track_row, layer):
    """A layer advances: tell the control thread, and let its track's subscriptions choose again."""
    track = state.tracks[track_row]
    _set_live(state, track_row, np.int64(track.live) | 1 << layer)


@njit(cache=True)
def _set_live(state, track_row, live):
    track = state.tracks[track_row]
    track.live = live
    notice(state, LAYERS_CHANGED, track_row, track.generation, live, 0)
    row = np.int64(track.first_subscription)
    while row >= 0:
        choose_for(state, row)
        row = np.int64(state.subscriptions[row].next_of_track)


@njit(cache=True)
def may_start(state, subscription, layer, packet):
    """Whether the subscription may turn to `layer` with this packet, which comes from there."""
    if subscription.kind != VIDEO:
        return True
    if packet.flags & KEY_FRAME == 0 or packet.flags & FRAME_START == 0:
        return False
    welcome = subscription.layer < 0 and layer <= subscription.target_spatial
    if layer != subscription.wanted_layer and not welcome:
        return False
    if packet.extension_at[_DEPENDENCY] == 0 or packet.flags & STRUCTURE:
        return True
    # a receiver that was promised descriptors can read them only once it has the structure
    media = state.media[state.transports[subscription.transport].media]
    several = state.tracks[subscription.track].layer_count > 1
    return several or media.id_of_extension[_DEPENDENCY] == 0


@njit(cache=True)
def admit_temporal(subscription, packet):
    """Whether a packet of a stream with temporal layers only goes out; down at frame starts, up at switching points."""
    temporal = np.int64(packet.temporal)
    if signed32(np.int64(packet.timestamp) - np.int64(subscription.picture_timestamp)) > 0:
        subscription.picture_timestamp = packet.timestamp
        if subscription.temporal != subscription.target_temporal and packet.flags & FRAME_START:
            if subscription.temporal > subscription.target_temporal or packet.flags & KEY_FRAME:
                subscription.temporal = subscription.target_temporal
            elif temporal > subscription.temporal and packet.flags & SWITCH_UP:
                subscription.temporal = min(temporal, np.int64(subscription.target_temporal))
    if packet.codec == _VP8:
        if packet.picture_id < 0:
            return True
        if subscription.pictures_dropped != 0 and is_dropped(subscription, packet):
            return False
    return temporal <= subscription.temporal


@njit(cache=True)
def key_frame_asked(state, row, now):
    """The subscriber sent PLI or FIR: pass it on, unless the key frame that it wants is on its way already."""
    subscription = state.subscriptions[row]
    if subscription.state != OPEN or subscription.kind != VIDEO or subscription.paused:
        return
    subscription.key_asked_ns = now
    track = state.tracks[subscription.track]
    ask_for_wanted(state, row)
    if not 0 <= subscription.layer < track.layer_count:
        return
    stream_row = np.int64(track.streams[subscription.layer])
    on_its_way = now - state.streams[stream_row].key_ns < state.transports[subscription.transport].rtt_ns
    if not on_its_way:
        want_key(state, stream_row)


@njit(cache=True)
def liveness_pass(state, now):
    """Every 100 ms or so: which layers live, repeated wishes for key frames, once a second bit rates."""
    for row in range(state.thread[0].track_end):
        track = state.tracks[row]
        if track.state == OPEN and track.layer_count > 1:
            _check_layers(state, row)
    for row in range(state.thread[0].subscription_end):
        subscription = state.subscriptions[row]
        if subscription.state == OPEN and subscription.wanted_layer != subscription.layer:
            transport = state.transports[subscription.transport]
            if transport.secure and transport.path >= 0:
                ask_for_wanted(state, row)
    elapsed = now - state.thread[0].rates_ns
    if elapsed >= RATES_NS:
        state.thread[0].rates_ns = now
        _measure_rates(state, elapsed)


@njit(cache=True)
def _check_layers(state, row):
    track = state.tracks[row]
    count = np.int64(track.layer_count)
    most = np.int64(0)
    for layer in range(count):
        stream = state.streams[track.streams[layer]]
        most = max(most, stream.frames - stream.frames_at_check)
    live = np.int64(track.live)
    for layer in range(count):
        stream = state.streams[track.streams[layer]]
        advanced = stream.frames - stream.frames_at_check
        stream.frames_at_check = stream.frames
        stream.idle_frames = 0 if advanced > 0 else stream.idle_frames + most
        if stream.idle_frames >= DEAD_FRAMES:
            live &= ~(1 << layer)
        elif advanced >= REVIVED_FRAMES:
            live |= 1 << layer
    if live != track.live:
        _set_live(state, row, live)


@njit(cache=True)
def _measure_rates(state, elapsed):
    """Bits per second since the last time, of streams as received and of subscriptions as sent (RTP payload)."""
    for row in range(state.thread[0].stream_end):
        stream = state.streams[row]
        if stream.state == OPEN:
            stream.bitrate_bps = (stream.bytes - stream.bytes_at_check) * 8_000_000 // (elapsed // 1000)
            stream.bytes_at_check = stream.bytes
            if stream.ring_written > 0:
                check_ring(state, row)
    for row in range(state.thread[0].subscription_end):
        subscription = state.subscriptions[row]
        if subscription.state == OPEN:
            octets = subscription.octets - subscription.bytes_at_check
            subscription.bitrate_bps = octets * 8_000_000 // (elapsed // 1000)
            subscription.bytes_at_check = subscription.octets
