"""Sequence numbers that a stream lacks: which to ask for again (RFC 4585 NACK), how often, and when to give up.

The list of a stream is sorted, oldest first. What cannot be repaired (a gap wider than the list, a number asked for
in vain) makes video want a key frame; what precedes a key frame is not worth asking for.
"""

from numba import njit

from sfu.tables import MISSING, VIDEO

LATE_NS = 20_000_000
LATE_PACKETS = 2
"""A missing number is asked for once it is this late, by time or by packets that arrived after it: before, it may
only have been overtaken."""
MAX_TRIES = 10
MIN_RETRY_NS = 40_000_000
UNKNOWN_RTT_NS = 100_000_000
"""Retry interval while the round-trip time is unknown."""


@njit(cache=True)
def _drop_first(stream, count):
    for k in range(count, int(stream.missing_count)):
        to, entry = stream.missing[k - count], stream.missing[k]
        to.sequence = entry.sequence
        to.noticed_ns = entry.noticed_ns
        to.asked_ns = entry.asked_ns
        to.tries = entry.tries
    stream.missing_count -= count


@njit(cache=True)
def give_up(stream, count):
    """Stop asking for the `count` oldest numbers; without them video needs a key frame."""
    _drop_first(stream, count)
    if count > 0 and stream.kind == VIDEO:
        stream.key_wanted = 1


@njit(cache=True)
def note_gap(stream, first, end, now):
    """The extended numbers first to end - 1 were jumped over by a newer one. now: ns."""
    gap = end - first
    if gap <= 0:
        return
    if gap > MISSING:
        give_up(stream, int(stream.missing_count))
        if stream.kind == VIDEO:
            stream.key_wanted = 1
        return
    give_up(stream, max(int(stream.missing_count) + gap - MISSING, 0))
    for sequence in range(first, end):
        entry = stream.missing[stream.missing_count]
        entry.sequence = sequence
        entry.noticed_ns = now
        entry.asked_ns = 0
        entry.tries = 0
        stream.missing_count += 1


@njit(cache=True)
def recovered(stream, sequence):
    """A number arrived after all, late or as RTX."""
    count = int(stream.missing_count)
    for k in range(count):
        if stream.missing[k].sequence == sequence:
            for n in range(k, count - 1):
                to, entry = stream.missing[n], stream.missing[n + 1]
                to.sequence = entry.sequence
                to.noticed_ns = entry.noticed_ns
                to.asked_ns = entry.asked_ns
                to.tries = entry.tries
            stream.missing_count = count - 1
            return


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
def give_up_tried(stream, rtt, now):
    """Give up numbers that were asked for MAX_TRIES times in vain, with everything older."""
    last = -1
    for k in range(int(stream.missing_count)):
        entry = stream.missing[k]
        if entry.tries >= MAX_TRIES and now - entry.asked_ns >= retry_interval(rtt):
            last = k
    give_up(stream, last + 1)
