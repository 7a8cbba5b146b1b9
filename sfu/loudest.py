"""Only the loudest voices of a room are forwarded, where the room wants it so: with many open microphones the rest is
noise, and costs every listener's bandwidth.

Decided for each packet, without a timer, from the levels that publishers send (RFC 6464). Who is forwarded keeps its
place until somebody is clearly louder, so that two voices of one loudness do not cut each other up.
"""

import numpy as np
from numba import njit

from sfu.parameters import GROUPS

QUIETEST = 127
"""-dBov that RFC 6464 calls silence."""
STEPS_PER_DB = 4
RELEASE = 2
"""Steps that loudness may fall from one packet to the next: 25 dB a second, so that a pause between words keeps the
place."""
ADVANTAGE = 6 * STEPS_PER_DB
"""Of who is forwarded already."""
FORGOTTEN_NS = 500_000_000
"""A publisher that sends nothing for so long (muted, DTX, gone) holds no place."""


@njit(cache=True)
def join_group(state, row):
    """Enter a track that opens into its group, if it has one."""
    track = state.tracks[row]
    track.loudness = 0
    track.loud = 0
    track.heard_ns = 0
    if 0 < track.group < GROUPS:
        track.group_next = state.groups[track.group] - 1
        state.groups[track.group] = row + 1


@njit(cache=True)
def leave_group(state, row):
    """Take a track that closes out of its group."""
    track = state.tracks[row]
    if not 0 < track.group < GROUPS:
        return
    at = np.int64(state.groups[track.group]) - 1
    if at == row:
        state.groups[track.group] = track.group_next + 1
        return
    while at >= 0 and state.tracks[at].group_next != row:
        at = np.int64(state.tracks[at].group_next)
    if at >= 0:
        state.tracks[at].group_next = track.group_next


@njit(cache=True)
def note_loudness(track, level, arrival):
    """A packet with this level (-dBov, 127: silence) arrived at `arrival` ns."""
    loudness = (QUIETEST - level) * STEPS_PER_DB
    track.loudness = max(loudness, np.int64(track.loudness) - RELEASE)
    track.heard_ns = arrival


@njit(cache=True)
def is_loud(state, row, now):
    """Whether a track of a group is one of its loudest; remembered in `track.loud`."""
    track = state.tracks[row]
    mine = np.int64(track.loudness) + (ADVANTAGE if track.loud else 0)
    louder = 0
    other = np.int64(state.groups[track.group]) - 1
    while other >= 0:
        rival = state.tracks[other]
        if other != row and now - rival.heard_ns < FORGOTTEN_NS:
            theirs = np.int64(rival.loudness) + (ADVANTAGE if rival.loud else 0)
            if theirs > mine or (theirs == mine and other < row):
                louder += 1
        other = np.int64(rival.group_next)
    track.loud = louder < track.group_limit
    return track.loud != 0
