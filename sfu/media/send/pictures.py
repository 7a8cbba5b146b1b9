"""Picture ids and TL0PICIDX of VP8 (RFC 7741 section 4.2) and VP9 (RFC 9628 section 4.2) on their way out.

Called by egress per packet. VP8 frames that are dropped on purpose give up their picture ids, by the same counting as
in `sfu.media.send.sequence`; all arithmetic is modulo the width in the packet, 7 or 15 bits, which stays as it is. VP9
pictures refer to each other by id, so there only the offset changes, at a switch between streams.
"""

import numpy as np
from numba import njit

from sfu.media.wire.windows import WINDOW, bit_of, count_after, is_other_block, leave_block, word_of

_WIDEST = 0x7FFF


@njit(cache=True)
def _distance(packet, highest):
    """Signed way from `highest` to the packet's picture id, modulo its width."""
    mask = 0x7FFF if packet.picture_bytes == 2 else 0x7F
    half = (mask + 1) >> 1
    return ((np.int64(packet.picture_id) - np.int64(highest) + half) & mask) - half


@njit(cache=True)
def synchronise_pictures(subscription, packet):
    """Start over at `packet`, the first of a key frame: ids go on from what the receiver saw last."""
    if packet.picture_id >= 0:
        first = subscription.last_picture < 0
        subscription.last_picture = packet.picture_id if first else (subscription.last_picture + 1) & _WIDEST
        subscription.picture_highest = packet.picture_id
        subscription.pictures_dropped = 0
        subscription.picture_offset = packet.picture_id - subscription.last_picture
    if packet.tl0_at:
        following = np.int64(packet.tl0) if subscription.last_tl0 < 0 else np.int64(subscription.last_tl0) + 1
        subscription.tl0_offset = np.int64(packet.tl0) - following


@njit(cache=True)
def renew_pictures(subscription, packet):
    """Start over at a key frame of VP8 whose picture id does not follow the newest one: its encoder did so too."""
    if packet.picture_id >= 0 and not 0 <= _distance(packet, subscription.picture_highest) <= WINDOW:
        synchronise_pictures(subscription, packet)


@njit(cache=True)
def send_picture(subscription, packet):
    """The output picture id (15 bits; the writer cuts it to the packet's width) of a VP8 packet to be sent."""
    ahead = _distance(packet, subscription.picture_highest)
    if ahead > 0:
        _advance(subscription, ahead)
        subscription.last_picture = (subscription.last_picture + ahead) & _WIDEST
        return np.int64(subscription.last_picture)
    highest = np.int64(subscription.picture_highest)
    oldest = max(highest + ahead, highest - WINDOW + 1)
    drops = count_after(subscription.pictures_past, subscription.pictures_dropped, highest, oldest)
    return (subscription.last_picture + ahead + drops) & _WIDEST


@njit(cache=True)
def drop_picture(subscription, packet):
    """Take the frame of a VP8 packet out of the numbering; an older frame keeps the id that was skipped for it."""
    ahead = _distance(packet, subscription.picture_highest)
    if ahead > 0:
        _advance(subscription, ahead)
        highest = np.int64(subscription.picture_highest)
        subscription.pictures_dropped = np.uint64(subscription.pictures_dropped) | bit_of(highest)
        subscription.last_picture = (subscription.last_picture + ahead - 1) & _WIDEST


@njit(cache=True)
def _advance(subscription, ahead):
    """Let picture_highest grow by `ahead`."""
    highest = np.int64(subscription.picture_highest)
    if is_other_block(highest + ahead, highest):
        leave_block(subscription.pictures_past, subscription.pictures_dropped, highest, highest + ahead)
        subscription.pictures_dropped = 0
    subscription.picture_highest = highest + ahead


@njit(cache=True)
def is_dropped(subscription, packet):
    """Whether the frame of a VP8 packet was dropped; then the rest of it is dropped too."""
    behind = -_distance(packet, subscription.picture_highest)
    if behind < 0 or behind >= WINDOW:
        return False
    highest = np.int64(subscription.picture_highest)
    word = word_of(subscription.pictures_past, subscription.pictures_dropped, highest, highest - behind)
    return word & bit_of(highest - behind) != 0


@njit(cache=True)
def offset_picture(subscription, packet):
    """The output picture id (15 bits) of a VP9 packet of a stream that was switched to."""
    picture = (np.int64(packet.picture_id) - np.int64(subscription.picture_offset)) & _WIDEST
    if _distance(packet, subscription.picture_highest) >= 0:
        subscription.picture_highest = packet.picture_id
        subscription.last_picture = picture
    return picture


@njit(cache=True)
def send_tl0(subscription, packet):
    """The output TL0PICIDX of a packet that has one."""
    tl0 = (np.int64(packet.tl0) - np.int64(subscription.tl0_offset)) & 255
    if subscription.last_tl0 < 0 or ((tl0 - np.int64(subscription.last_tl0)) & 255) < 128:
        subscription.last_tl0 = tl0
    return tl0
