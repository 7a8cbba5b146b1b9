"""Only the loudest voices of a room are forwarded, where the room is made so: with many open microphones the rest is
noise, and costs every listener's bandwidth.

Decided for each packet, without a timer, from the levels that publishers send (RFC 6464). Who is forwarded keeps its
place until somebody is clearly louder, so that two voices of one loudness do not cut each other up. A publisher has one
place, whatever it publishes, and a level that never moves ranks below all that do, since no speech is like that.
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
"""Steps that a track which is forwarded already is ahead of others."""
UNMOVED_PACKETS = 50
"""A second of usual packets with one and the same level: a constant tone, or a number that somebody made up."""
MOVING = 1024
"""Added to the loudness of a track whose level moves, as that of speech does: more than all the rest can be."""
FORGOTTEN_NS = 500_000_000
"""A publisher that sends nothing for so long (muted, DTX, gone) holds no place."""


@njit(cache=True)
def join_group(state, row):
    """Enter a track that opens into its group, if it has one. Tracks of one owner stand side by side."""
    track = state.tracks[row]
    if not 0 < track.group < GROUPS:
        return
    before = _owner_in_group(state, track)
    if before >= 0:
        track.group_next = state.tracks[before].group_next
        state.tracks[before].group_next = row
        return
    track.group_next = state.groups[track.group] - 1
    state.groups[track.group] = row + 1


@njit(cache=True)
def _owner_in_group(state, track):
    """A track of the same owner in the group of `track`; -1: none."""
    at = np.int64(state.groups[track.group]) - 1
    while at >= 0 and not same_owner(track, state.tracks[at]):
        at = np.int64(state.tracks[at].group_next)
    return at


@njit(cache=True)
def same_owner(track, other):
    """Whether two tracks are of one publisher."""
    return track.owner != 0 and track.owner == other.owner


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
    track.unmoved = min(np.int64(track.unmoved) + 1, UNMOVED_PACKETS) if level == track.level else 0
    track.level = level
    track.level_ns = arrival


@njit(cache=True)
def loudness_rank(track):
    """How a track stands beside others, as a number that is larger the more it is to be heard."""
    rank = np.int64(track.loudness)
    return rank + MOVING if track.unmoved < UNMOVED_PACKETS else rank


@njit(cache=True)
def _rank(track):
    """How a track stands beside others of its group."""
    return loudness_rank(track) + (ADVANTAGE if track.loud else 0)


@njit(cache=True)
def is_loud(state, row, now):
    """Whether a track of a group is one of its loudest, counting one of each owner; remembered in `track.loud`."""
    track = state.tracks[row]
    mine = _rank(track)
    track.loud = 0
    louder, at = 0, np.int64(state.groups[track.group]) - 1
    while at >= 0:
        first = state.tracks[at]
        theirs = False
        while True:  # the tracks of one owner
            rival = state.tracks[at]
            if at != row and now - rival.level_ns < FORGOTTEN_NS:
                rank = _rank(rival)
                if rank > mine or (rank == mine and at < row):
                    if same_owner(track, rival):
                        return False
                    theirs = True
            at = np.int64(rival.group_next)
            if at < 0 or not same_owner(first, state.tracks[at]):
                break
        louder += theirs
    track.loud = louder < track.group_limit
    return track.loud != 0
