"""Key frames that are requested because the bandwidth of a viewer changed, and how many of them there may be.

A publisher answers with key frames of all its layers, which cost all viewers of its track. So a track is asked for
TRACK_SWITCHES of them in a minute at most, and for no more than VIEWER_SWITCHES in ten seconds because of one viewer.
Some of both are kept for viewers that need less. Only the thread that has the publisher counts those of a track: a
mirror notes what it needs, and `sfu.media.send.relay_out` asks there.
"""

import numpy as np
from numba import njit

from sfu.schema.codes import KeyFrameRequest

TRACK_WINDOW_NS = 60_000_000_000
"""Within this time a track is asked TRACK_SWITCHES times at most."""
TRACK_KEPT = 1
"""How many of these only viewers may cause that need less. More would leave too few to a viewer whose path narrows and
widens again within the time: it needs one to fall and two to rise by two layers. Who falls has its picture anyway."""
VIEWER_WINDOW_NS = 10_000_000_000
"""Within this time one viewer of a track causes VIEWER_SWITCHES of them at most, as at Jitsi."""
VIEWER_KEPT = 1
"""How many of these it may only cause when it needs less."""
SWITCH_SHARED_NS = 300_000_000
"""Switches of one track within this time share a request."""

_NEEDED = int(KeyFrameRequest.NEEDED)
_SWITCH_DOWN, _SWITCH_UP = int(KeyFrameRequest.SWITCH_DOWN), int(KeyFrameRequest.SWITCH_UP)


@njit(cache=True)
def request_switch(state, subscription, stream_row, rises, now):
    """Request a key frame of a stream because bandwidth gives a subscription another layer, unless that was done too
    often. rises: the layer is higher than the present one."""
    stream = state.streams[stream_row]
    if stream.key_frame_requested:  # it was counted, or somebody else needs it
        if stream.key_frame_requested == _SWITCH_UP and not rises:
            stream.key_frame_requested = _SWITCH_DOWN
        return
    track = state.tracks[subscription.track]
    if _is_shared(track, now) or not _has_room(
        subscription.switches_ns, VIEWER_WINDOW_NS, VIEWER_KEPT if rises else 0, now
    ):
        return
    if state.transports[track.transport].relayed:
        track.switch_request_ns = now
        stream.key_frame_requested = _SWITCH_UP if rises else _SWITCH_DOWN
    elif grant_switch(track, rises, now):
        stream.key_frame_requested = _NEEDED
    else:
        return
    _count(subscription.switches_ns, now)


@njit(cache=True)
def grant_switch(track, rises, now):
    """Whether one more key frame of a track may be requested because the bandwidth of a viewer in any thread changed.
    If so, it is counted."""
    if _is_shared(track, now) or not _has_room(track.switches_ns, TRACK_WINDOW_NS, TRACK_KEPT if rises else 0, now):
        return False
    track.switch_request_ns = now
    _count(track.switches_ns, now)
    return True


@njit(cache=True)
def _is_shared(track, now):
    return track.switch_request_ns != 0 and now - track.switch_request_ns < SWITCH_SHARED_NS


@njit(cache=True)
def _has_room(times, window, kept, now):
    """Whether fewer than all but `kept` of the times that can be remembered lie within `window`."""
    first = np.int64(times[len(times) - 1 - kept])
    return first == 0 or now - first >= window


@njit(cache=True)
def _count(times, now):
    for k in range(len(times) - 1, 0, -1):
        times[k] = times[k - 1]
    times[0] = now
