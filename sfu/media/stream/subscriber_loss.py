"""What the subscribers of an audio track lose, so that its publisher can protect it (Opus FEC, RFC 7587 section 3.3):
the worst of them decides, as in livekit-server. Kept for as long as receivers of audio take from report to report."""

import numpy as np
from numba import njit

WINDOW_NS = 5_000_000_000
"""libwebrtc reports what it receives of audio once in so long."""


TELL_NS = 500_000_000
"""Another media thread hears of a stream's subscribers no more often: a client can report other losses in each of
many packets."""
NOTHING_NEW = -1


@njit(cache=True)
def note_subscriber_loss(stream, fraction, now):
    """A subscriber lost so many 256ths."""
    subscriber_loss(stream, now)
    if stream.subscriber_loss_ns == 0:
        stream.subscriber_loss_ns = now
    stream.subscriber_loss = max(stream.subscriber_loss, fraction)


@njit(cache=True)
def loss_to_tell(stream, now):
    """What the media thread of the publisher is to hear now of a mirrored stream, in 256ths; NOTHING_NEW: nothing.

    That is the most that was noted since the beginning of the WINDOW_NS that goes on: at most once in TELL_NS when it
    has risen, else once in WINDOW_NS, after which it would be forgotten there.
    """
    since = now - stream.subscriber_loss_told_ns
    if stream.subscriber_loss_ns == 0 or since < TELL_NS:
        return NOTHING_NEW
    subscriber_loss(stream, now)
    loss = np.int64(stream.subscriber_loss)
    if loss == 0 or (loss <= stream.subscriber_loss_told and since < WINDOW_NS):
        return NOTHING_NEW
    stream.subscriber_loss_told = loss
    stream.subscriber_loss_told_ns = now
    return loss


@njit(cache=True)
def subscriber_loss(stream, now):
    """What to tell the publisher: the most that a subscriber lost of late, in 256ths."""
    since = now - stream.subscriber_loss_ns
    if stream.subscriber_loss_ns != 0 and since >= WINDOW_NS:
        stream.subscriber_loss_before = stream.subscriber_loss if since < 2 * WINDOW_NS else 0
        stream.subscriber_loss = 0
        stream.subscriber_loss_ns = now if stream.subscriber_loss_before else 0
    return max(stream.subscriber_loss, stream.subscriber_loss_before)
