"""A stream's key frames: requests for one, when they are passed on to the publisher, and the last one that came."""

import numpy as np
from numba import njit

from sfu.schema.capacities import PACKETS
from sfu.schema.codes import KeyFrameRequest, MediaKind, RowState

RECENT_KEY_NS = 1_000_000_000
REPLAYED_PACKETS = 96
"""A newcomer starts from a key frame in the packet cache when so few packets lie behind it, and it is as young."""
ARRIVING_NS = 500_000_000
"""A key frame of which no packet came for so long is not on its way any more."""

KEY_FRAME_RETRY_NS = 500_000_000
"""PLIs for one stream are at least so far apart, unless its layer was given another time; the first leaves in the next
pass."""
KEY_FRAME_IDLE_RETRY_NS = 2_000_000_000
"""How far PLIs lie apart for a stream that sends nothing: a layer that is switched off must not cost its siblings key
frames."""
MAX_ASKED = 256
"""Subscriptions that are looked at before a key frame of a layer is requested. Beyond, one is requested in any case: it
costs less than to look on."""
KEY_FRAME_EVERY_NS = 4_000_000_000
"""Viewers that are sent key frames only get one so often at least: one request serves all of a track."""


_NEEDED, _ORDERED = int(KeyFrameRequest.NEEDED), int(KeyFrameRequest.ORDERED)
_SWITCHES = (int(KeyFrameRequest.SWITCH_DOWN), int(KeyFrameRequest.SWITCH_UP))


@njit(cache=True)
def request_key_frame(state, stream_row):
    """Request a key frame of a stream from its publisher. Feedback sends the PLI, not too often; a key frame that
    arrives answers the request."""
    if stream_row >= 0 and state.streams[stream_row].state == RowState.OPEN:
        need_key_frame(state.streams[stream_row])


@njit(cache=True)
def need_key_frame(stream):
    """Note that somebody cannot go on without a key frame of a stream."""
    if stream.key_frame_requested in _SWITCHES:
        stream.pli_ns = 0  # the publisher's thread may have refused that
    if stream.key_frame_requested != _ORDERED:
        stream.key_frame_requested = _NEEDED


@njit(cache=True)
def is_denied(subscription):
    """Whether bandwidth does not permit any more the layer that a subscription still follows: a lower one is waited
    for."""
    layer = subscription.layer
    return 0 <= subscription.target_layer < layer and layer > subscription.allowed_spatial


@njit(cache=True)
def is_awaited(state, stream_row):
    """Whether somebody is to be sent a key frame of a stream, if that can be told here: where there are other layers,
    and no other thread has viewers of them."""
    stream = state.streams[stream_row]
    track = state.tracks[stream.track]
    if track.layer_count <= 1 or track.mirrors != 0 or stream.key_frame_requested == _ORDERED:
        return True
    row = np.int64(track.first_subscription)
    for _ in range(MAX_ASKED):
        if row < 0:
            return False
        each = state.subscriptions[row]
        follows = each.layer == stream.layer and not is_denied(each)
        if not each.paused and (follows or each.target_layer == stream.layer):
            return True
        row = np.int64(each.next_of_track)
    return True


@njit(cache=True)
def recent_key_frame(stream, now):
    """Extended number of the first packet of a key frame to start a newcomer from; -1: a new one costs less."""
    first = stream.key_sequence
    if first < 0 or now - stream.key_ns > RECENT_KEY_NS or stream.highest - first >= REPLAYED_PACKETS:
        return np.int64(-1)
    return first


@njit(cache=True)
def key_frame_arrives(state, stream_row, now):
    """Whether the newest packet of a stream belongs to its last key frame and does not end it: a large one takes long,
    and whoever sees nothing meanwhile requests another."""
    stream = state.streams[stream_row]
    if stream.key_sequence < 0:
        return False
    first = state.packets[stream_row, stream.key_sequence & (PACKETS - 1)]
    newest = state.packets[stream_row, stream.highest & (PACKETS - 1)]
    if first.sequence != stream.key_sequence or newest.sequence != stream.highest:
        return False
    same = first.timestamp == newest.timestamp and newest.sequence >= first.sequence
    return same and not newest.marker and now - newest.arrival_ns < ARRIVING_NS


@njit(cache=True)
def key_frame_due(stream, now):
    """Whether a stream's publisher is to be sent a PLI now."""
    if not stream.key_frame_requested or stream.kind != MediaKind.VIDEO:
        return False
    if stream.pli_ns == 0:
        return True
    retry = stream.key_frame_retry_ns if stream.key_frame_retry_ns > 0 else KEY_FRAME_RETRY_NS
    if stream.last_ns < stream.pli_ns:
        retry = max(retry, KEY_FRAME_IDLE_RETRY_NS)
    return now - stream.pli_ns >= retry
