"""Viewers whose path is too slow for the key frames that they begin with: what they lose, and when they may ask again.

A publisher answers each request with key frames for all of its viewers. So one that loses key frame after key frame
rests longer and longer, until its path is seen to carry far more than when it lost them.
"""

import numpy as np
from numba import njit

from sfu.media.allocation.due import usable_estimate
from sfu.media.stream.key_frames import KEY_FRAME_EVERY_NS

LOST_KEY_DOUBLINGS = 4
"""A viewer that loses key frame after key frame waits KEY_FRAME_EVERY_NS until it may ask for another, and twice as
long each time, so often: from 4 s to 64."""
ANOTHER_PATH = 2
"""Nobody rests whose path carries so many times the most that it carried when key frames were lost: it is another path
by now. One that is wrong about that loses one more key frame, and rests on with what it carried then."""


@njit(cache=True)
def rests(state, subscription, now):
    """Whether a viewer that was too slow for the last key frames may not ask for another one yet."""
    if subscription.layer >= 0 or subscription.lost_keys <= 1:
        return False
    enough = ANOTHER_PATH * np.int64(subscription.lost_bps)
    if 0 < enough <= usable_estimate(state, np.int64(subscription.transport)):
        return False
    rest_ns = np.int64(KEY_FRAME_EVERY_NS) << min(np.int64(subscription.lost_keys) - 2, LOST_KEY_DOUBLINGS)
    return now - subscription.lost_ns < rest_ns


@njit(cache=True)
def miss_key_frame(state, subscription, now):
    """A viewer was too slow for a key frame with which another layer was to begin: the next one is requested as caused
    by bandwidth."""
    subscription.by_bandwidth = 1
    if subscription.layer < 0:
        _count_loss(state, subscription, now)


@njit(cache=True)
def lose_layer(state, subscription, now):
    """A viewer was too slow for what it follows: it goes on with a later key frame than the one that it began with, and
    requests that as caused by bandwidth."""
    if subscription.layer >= 0:
        subscription.by_bandwidth = 1
        _count_loss(state, subscription, now)
    subscription.in_highest = max(subscription.in_highest, subscription.switch_sequence)
    subscription.layer = -1


@njit(cache=True)
def _count_loss(state, subscription, now):
    if now - subscription.lost_ns > np.int64(KEY_FRAME_EVERY_NS) << (LOST_KEY_DOUBLINGS + 1):
        subscription.lost_keys = 0  # those before were lost too long ago to tell of the path
    if subscription.lost_keys == 0:
        subscription.lost_bps = 0
    subscription.lost_keys = min(np.int64(subscription.lost_keys) + 1, LOST_KEY_DOUBLINGS + 2)
    carried = usable_estimate(state, np.int64(subscription.transport))
    subscription.lost_bps = max(np.int64(subscription.lost_bps), carried)
    subscription.lost_ns = now
