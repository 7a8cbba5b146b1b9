"""Input to output sequence numbers of one subscription, so that what was dropped on purpose leaves no gap.

Called by egress, one call per packet of the stream being forwarded. Every input number not dropped on purpose has an
output number, seen or not: a packet that comes late finds its place by counting the drops after it, with two 64-bit
masks relative to the highest input. What is older than the masks or than the last switch is not sent.
"""

import numpy as np
from numba import njit

NOT_SENT = -1
WINDOW = 64
"""Late packets are mapped up to this distance: bits in the masks."""

_ONE = np.uint64(1)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


@njit(cache=True)
def count_bits(word):
    """How many bits of a u8 are set."""
    x = np.uint64(word)
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((x * np.uint64(0x0101010101010101)) >> np.uint64(56))


@njit(cache=True)
def shift(mask, distance):
    """mask << distance, 0 from 64 on (a plain shift by 64 is undefined)."""
    return np.uint64(mask) << np.uint64(distance) if distance < WINDOW else np.uint64(0)


@njit(cache=True)
def below(distance):
    """A mask of the lowest `distance` bits (0 to 64)."""
    return (_ONE << np.uint64(distance)) - _ONE if distance < WINDOW else _ALL


@njit(cache=True)
def synchronise(subscription, sequence, gap):
    """Start over at extended input `sequence` (not decided yet): it and what follows continue the output.

    gap: output numbers left free before it, so that the receiver sees that what came before is incomplete.
    """
    subscription.in_highest = sequence - 1
    subscription.switch_sequence = sequence
    subscription.out_highest += gap
    subscription.dropped = 0
    subscription.sent = 0


@njit(cache=True)
def send(subscription, sequence):
    """The extended output number of an input packet to be sent now; NOT_SENT if it came twice or too late."""
    ahead = sequence - subscription.in_highest
    if ahead > 0:
        subscription.dropped = shift(subscription.dropped, ahead)
        subscription.sent = shift(subscription.sent, ahead) | _ONE
        subscription.in_highest = sequence
        subscription.out_highest += ahead
        return np.int64(subscription.out_highest)
    if not _decide_late(subscription, sequence):
        return NOT_SENT
    later = below(-ahead)
    return subscription.out_highest + ahead + count_bits(subscription.dropped & later)


@njit(cache=True)
def drop(subscription, sequence, same_frame):
    """Take an input packet out of the output numbering; if its number was skipped already, a gap stays.

    same_frame: it belongs to the frame of the highest input so far. When that one was dropped too, the packets
    missing between them must be of the same frame and lose their numbers as well.
    """
    ahead = sequence - subscription.in_highest
    if ahead <= 0:
        _decide_late(subscription, sequence)
        return
    dropped = np.uint64(subscription.dropped)
    taken = ahead if same_frame and dropped & _ONE else np.int64(1)
    subscription.dropped = shift(dropped, ahead) | below(min(taken, WINDOW))
    subscription.sent = shift(subscription.sent, ahead)
    subscription.in_highest = sequence
    subscription.out_highest += ahead - taken


@njit(cache=True)
def _decide_late(subscription, sequence):
    """Mark a number at or below the highest as decided. False: it was already, or is too old."""
    behind = subscription.in_highest - sequence
    if behind >= WINDOW or sequence < subscription.switch_sequence:
        return False
    bit = shift(_ONE, behind)
    if (np.uint64(subscription.dropped) | np.uint64(subscription.sent)) & bit:
        return False
    subscription.sent = np.uint64(subscription.sent) | bit
    return True
