"""Which microphones a subscriber is sent whose path does not carry all of them: the loudest VOICES.

As in rooms that forward only their loudest voices (`sfu.media.stream.loudest`), that is decided at each packet, a
publisher has one place, and who has a place keeps it until another one is clearly louder. But here it is one
subscriber's matter, who may hear some of a room's publishers only. A microphone is compared with those that have a
place, so a packet costs the same in rooms of any size.
"""

import numpy as np
from numba import njit

from sfu.media.stream.loudest import ADVANTAGE, FORGOTTEN_NS, loudness_rank, same_owner
from sfu.schema.bandwidth_codes import Held
from sfu.schema.capacities import VOICES
from sfu.schema.codes import MediaKind, RowState

_FREE = -1


@njit(cache=True)
def is_voice(state, row, now):
    """Whether audio subscription `row` has a place among the voices of its transport, or takes one now."""
    subscription = state.subscriptions[row]
    transport = state.transports[subscription.transport]
    track = state.tracks[subscription.track]
    lowest, place = np.int64(1) << 32, 0
    for k in range(VOICES):
        if transport.voices[k] == row + 1:
            return True
        holder = np.int64(transport.voices[k]) - 1
        if not _is_microphone(state, subscription, holder):
            holder = np.int64(-1)
        rank = _rank_of_holder(state, holder, now)
        if holder >= 0 and same_owner(track, state.tracks[state.subscriptions[holder].track]):
            lowest, place = rank, k
            break  # its publisher's own place, also while nothing is said there
        if rank < lowest:
            lowest, place = rank, k
    if loudness_rank(track) <= lowest:
        return False
    transport.voices[place] = row + 1
    return True


@njit(cache=True)
def _is_microphone(state, subscription, holder):
    """Whether row `holder` of subscriptions, -1 for none, still is one to audio of the same transport."""
    if holder < 0:
        return False
    other = state.subscriptions[holder]
    return other.transport == subscription.transport and other.kind == MediaKind.AUDIO and other.state == RowState.OPEN


@njit(cache=True)
def _rank_of_holder(state, holder, now):
    """What a microphone has to exceed to take the place of subscription `holder`, -1 for none."""
    if holder < 0:
        return np.int64(_FREE)
    other = state.subscriptions[holder]
    if other.paused or other.held == Held.EXCESSIVE:
        return np.int64(_FREE)  # it sends nothing
    track = state.tracks[other.track]
    if track.streams[0] < 0 or now - state.streams[track.streams[0]].last_ns >= FORGOTTEN_NS:
        return np.int64(_FREE)
    return loudness_rank(track) + ADVANTAGE
