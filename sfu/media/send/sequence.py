"""Input to output sequence numbers of one subscription, so that what was dropped on purpose leaves no gap.

Called by egress, one call per packet of the stream being forwarded. Every input number not dropped on purpose has an
output number, seen or not: a packet that comes late finds its place by counting the drops after it. That works for the
WINDOW numbers below the highest input (`sfu.media.wire.windows`), as far back as a publisher is asked for a packet.
What is older, or older than the last switch, is not sent.
"""

import numpy as np
from numba import njit

from sfu.media.wire.windows import WINDOW, add_to_past, bit_of, count_after, is_other_block, leave_block, word_of

NOT_SENT = -1


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
        if is_other_block(sequence, subscription.in_highest):
            _leave_block(subscription, sequence)
        subscription.sent = np.uint64(subscription.sent) | bit_of(sequence)
        subscription.in_highest = sequence
        subscription.out_highest += ahead
        return np.int64(subscription.out_highest)
    if not _decide_late(subscription, sequence):
        return NOT_SENT
    subscription.late += 1
    drops = count_after(subscription.dropped_past, subscription.dropped, subscription.in_highest, sequence)
    return subscription.out_highest + ahead + drops


@njit(cache=True)
def drop(subscription, sequence, same_frame):
    """Take an input packet out of the output numbering; if its number was skipped already, a gap stays.

    same_frame: it belongs to the frame of the highest input so far. When that one was dropped too, the packets
    missing between them must be of the same frame and lose their numbers as well.
    """
    highest = np.int64(subscription.in_highest)
    ahead = sequence - highest
    if ahead <= 0:
        _decide_late(subscription, sequence)
        return
    after_drop = same_frame and np.uint64(subscription.dropped) & bit_of(highest) != 0
    taken = ahead if after_drop else np.int64(1)
    for number in range(sequence - min(taken, WINDOW) + 1, sequence + 1):
        if is_other_block(number, subscription.in_highest):
            _leave_block(subscription, number)
        subscription.dropped = np.uint64(subscription.dropped) | bit_of(number)
        subscription.in_highest = number
    subscription.out_highest += ahead - taken


@njit(cache=True)
def _leave_block(subscription, sequence):
    """Make room for `sequence`, the first number above the highest one's block to be decided on."""
    highest = np.int64(subscription.in_highest)
    leave_block(subscription.dropped_past, subscription.dropped, highest, sequence)
    leave_block(subscription.sent_past, subscription.sent, highest, sequence)
    subscription.dropped = 0
    subscription.sent = 0


@njit(cache=True)
def _decide_late(subscription, sequence):
    """Mark a number at or below the highest as decided. False: it was already, or is too old."""
    highest = np.int64(subscription.in_highest)
    if highest - sequence >= WINDOW or sequence < subscription.switch_sequence:
        return False
    dropped = word_of(subscription.dropped_past, subscription.dropped, highest, sequence)
    sent = word_of(subscription.sent_past, subscription.sent, highest, sequence)
    if (dropped | sent) & bit_of(sequence):
        return False
    if is_other_block(sequence, highest):
        add_to_past(subscription.sent_past, sequence)
    else:
        subscription.sent = sent | bit_of(sequence)
    return True
