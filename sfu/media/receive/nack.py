"""Sequence numbers that a stream lacks: which to ask for again (RFC 4585 NACK), how often, and when to give up.

The list of a stream is sorted, oldest first. What cannot be repaired (a gap wider than the list, a number asked for
in vain or too old to be forwarded) makes video request a key frame; what precedes a key frame is not worth asking for,
nor is padding. Frames of higher temporal layers are asked for a few times and need no key frame
(`sfu.media.receive.gaps`).
"""

import numpy as np
from numba import njit

from sfu.media.receive.gaps import NOTHING, SPARE, VITAL, judge_gap
from sfu.media.stream.key_frames import need_key_frame
from sfu.schema.capacities import MISSING, PACKETS
from sfu.schema.codes import MediaKind

LATE_NS = 20_000_000
LATE_PACKETS = 2
"""A missing number is asked for once it is this late, by time or by packets that arrived after it: before, it may
only have been overtaken."""
MAX_TRIES = 10
SPARE_TRIES = 3
"""How often packets are asked for that no later frame needs: most senders do not keep them."""
MIN_RETRY_NS = 40_000_000
UNKNOWN_RTT_NS = 100_000_000
"""Retry interval while the round-trip time is unknown."""
MAX_REPAIR_NS = 1_000_000_000
"""No repair is waited for longer before it is asked for again."""


@njit(cache=True)
def _move(stream, source, to):
    entry, place = stream.missing[source], stream.missing[to]
    place.sequence = entry.sequence
    place.noticed_ns = entry.noticed_ns
    place.asked_ns = entry.asked_ns
    place.tries = entry.tries


@njit(cache=True)
def _drop_first(stream, count):
    for k in range(count, np.int64(stream.missing_count)):
        _move(stream, k, k - count)
    stream.missing_count -= count


@njit(cache=True)
def give_up(stream, count):
    """Stop asking for the `count` oldest numbers; without them video needs a key frame."""
    _drop_first(stream, count)
    if count > 0 and stream.kind == MediaKind.VIDEO:
        need_key_frame(stream)


@njit(cache=True)
def note_gap(stream, first, end, now):
    """The extended numbers first to end - 1 were jumped over by a newer one. now: ns."""
    gap = end - first
    if gap <= 0:
        return
    if gap > MISSING:
        give_up(stream, np.int64(stream.missing_count))
        if stream.kind == MediaKind.VIDEO:
            need_key_frame(stream)
        return
    give_up(stream, max(np.int64(stream.missing_count) + gap - MISSING, 0))
    for sequence in range(first, end):
        entry = stream.missing[stream.missing_count]
        entry.sequence = sequence
        entry.noticed_ns = now
        entry.asked_ns = 0
        entry.tries = 0
        stream.missing_count += 1


@njit(cache=True)
def _find(stream, sequence):
    for k in range(np.int64(stream.missing_count)):
        if stream.missing[k].sequence == sequence:
            return k
    return -1


@njit(cache=True)
def recovered(stream, sequence):
    """A number arrived after all, late or as RTX."""
    found, count = _find(stream, sequence), np.int64(stream.missing_count)
    if found < 0:
        return
    for k in range(found, count - 1):
        _move(stream, k + 1, k)
    stream.missing_count = count - 1


@njit(cache=True)
def measure_repair(transport, stream, sequence, now):
    """Learn from a repair that came at `now` (ns) how long the publisher takes to answer a NACK.

    Asked for several times, the number may answer any of the requests: the last one, unless it came too soon for that.
    """
    found = _find(stream, sequence)
    if found < 0 or stream.missing[found].tries == 0:
        return
    entry = stream.missing[found]
    taken = now - entry.asked_ns
    if entry.tries > 1 and (transport.repair_ns == 0 or 2 * taken < transport.repair_ns):
        taken = now - entry.noticed_ns
    taken = min(max(taken, 1), MAX_REPAIR_NS)
    transport.repair_ns = taken if transport.repair_ns == 0 else (7 * transport.repair_ns + taken) // 8


@njit(cache=True)
def drop_before(stream, sequence):
    """A key frame began at `sequence`: nothing older is needed."""
    count = 0
    while count < stream.missing_count and stream.missing[count].sequence < sequence:
        count += 1
    if count:
        _drop_first(stream, count)


@njit(cache=True)
def retry_interval(rtt):
    """ns between two requests for a number; rtt: ns, 0 unknown."""
    return max(rtt, MIN_RETRY_NS) if rtt > 0 else UNKNOWN_RTT_NS


@njit(cache=True)
def is_due(stream, index, rtt, now):
    """Whether entry `index` should be asked for at `now`."""
    entry = stream.missing[index]
    if entry.tries == 0:
        return now - entry.noticed_ns >= LATE_NS or stream.highest - entry.sequence >= LATE_PACKETS
    return now - entry.asked_ns >= retry_interval(rtt)


@njit(cache=True)
def review(state, stream_row, rtt, now):
    """Before a NACK is written, forget numbers that carried padding only, and give up what can no longer be repaired.

    A number is given up after it was asked for in vain as often as it makes sense, or when it is so old that the packet
    would not be stored. Everything older is given up with it. rtt: ns, 0 unknown.
    """
    stream = state.streams[stream_row]
    count, kept, at, lost = np.int64(stream.missing_count), 0, 0, False
    kind, judged = VITAL, np.int64(-1)
    while at < count:
        end, due = at, False
        while end < count and (end == at or stream.missing[end].sequence == stream.missing[end - 1].sequence + 1):
            due |= is_due(stream, end, rtt, now)
            end += 1
        first, following = stream.missing[at].sequence, stream.missing[end - 1].sequence + 1
        if first > judged:
            kind = VITAL
            if due:
                kind, judged = judge_gap(state, stream_row, first, following)
        for k in range(at, end):
            if kind == NOTHING:
                continue
            if _is_hopeless(stream, k, kind, rtt, now):
                if kind == VITAL:
                    kept, lost = 0, True
                continue
            _move(stream, k, kept)
            kept += 1
        at = end
    stream.missing_count = kept
    if lost and stream.kind == MediaKind.VIDEO:
        need_key_frame(stream)


@njit(cache=True)
def _is_hopeless(stream, index, kind, rtt, now):
    entry = stream.missing[index]
    if entry.sequence <= stream.highest - PACKETS:
        return True
    tries = SPARE_TRIES if kind == SPARE else MAX_TRIES
    return entry.tries >= tries and now - entry.asked_ns >= retry_interval(rtt)
