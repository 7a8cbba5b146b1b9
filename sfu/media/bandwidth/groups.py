"""Groups of packets that left together, and how much later each arrived than the one before.

Follows draft-ietf-rmcat-gcc-02 sections 5.1 and 5.2 (inter-arrival model, pre-filtering). Packets come in the order of
their numbers and not of their arrival, so a group has arrived when the last of its packets has.
"""

from numba import njit

from sfu.media.bandwidth.trains import own_queue_ms
from sfu.media.bandwidth.trendline import add_delay, forget_trend

GROUP_NS = 5_000_000
"""Packets that left within this time of the first are one group: burst_time of section 5.2."""
BURST_NS = 5_000_000
"""A later packet that came so soon after, and closer than it left, waited in the same queue: it belongs to it too."""
MAX_BURST_NS = 100_000_000
"""No group takes longer to arrive."""
MAX_REORDERED = 3
"""After so many groups in a row that arrived before their predecessor, the receiver's clock was set back."""
CLOCK_JUMP_NS = 3_000_000_000
"""Arrivals so much further apart than the reports of them mean that the receiver's clock was set forward."""


@njit(cache=True)
def forget_groups(estimate):
    """Begin anew: what left before is compared with nothing."""
    estimate.group_open = 0
    estimate.before_known = 0
    estimate.groups_reordered = 0
    forget_trend(estimate)


@njit(cache=True)
def group_packet(estimate, sent, arrival):
    """Put a received packet into its group; a group that is complete moves the trendline.

    sent: ns, when it left; arrival: ns on the receiver's clock, any number.
    """
    if estimate.group_open == 0:
        _begin_group(estimate, sent, arrival)
        return
    if sent < estimate.group_first_sent_ns:
        return
    if _belongs(estimate, sent, arrival):
        estimate.group_sent_ns = max(estimate.group_sent_ns, sent)
        estimate.group_arrival_ns = max(estimate.group_arrival_ns, arrival)
        estimate.group_feedback_ns = estimate.feedback_ns
        return
    estimate.group_own_ms = own_queue_ms(estimate)
    if estimate.before_known and not _compare(estimate):
        # Skipped for arriving early, or all was forgotten: the next group is compared with an older one or none.
        if estimate.group_open:
            _begin_group(estimate, sent, arrival)
        return
    estimate.before_known = 1
    estimate.before_sent_ns = estimate.group_sent_ns
    estimate.before_arrival_ns = estimate.group_arrival_ns
    estimate.before_feedback_ns = estimate.group_feedback_ns
    _begin_group(estimate, sent, arrival)


@njit(cache=True)
def _begin_group(estimate, sent, arrival):
    estimate.group_open = 1
    estimate.group_first_sent_ns = sent
    estimate.group_sent_ns = sent
    estimate.group_first_arrival_ns = arrival
    estimate.group_arrival_ns = arrival
    estimate.group_feedback_ns = estimate.feedback_ns


@njit(cache=True)
def _belongs(estimate, sent, arrival):
    """Whether a packet is of the open group: by time of leaving, or by the burst rule of section 5.2."""
    if sent - estimate.group_first_sent_ns <= GROUP_NS:
        return True
    apart = arrival - estimate.group_arrival_ns
    whole = arrival - estimate.group_first_arrival_ns
    return apart < sent - estimate.group_sent_ns and -MAX_BURST_NS < apart <= BURST_NS and whole < MAX_BURST_NS


@njit(cache=True)
def _compare(estimate):
    """Give the trendline the distance between the complete group and the one before; whether that made sense."""
    arrived = estimate.group_arrival_ns - estimate.before_arrival_ns
    heard = estimate.group_feedback_ns - estimate.before_feedback_ns
    if arrived >= heard + CLOCK_JUMP_NS:
        forget_groups(estimate)
        return False
    if arrived < 0:
        estimate.groups_reordered += 1
        if estimate.groups_reordered >= MAX_REORDERED:
            forget_groups(estimate)
        return False
    estimate.groups_reordered = 0
    add_delay(estimate, estimate.group_sent_ns - estimate.before_sent_ns, arrived, estimate.group_arrival_ns)
    return True
