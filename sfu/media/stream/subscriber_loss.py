"""What the subscribers of an audio track lose, so that its publisher can protect it (Opus FEC, RFC 7587 section 3.3):
the worst of them decides, as in livekit-server. Kept for as long as receivers of audio take from report to report."""

from numba import njit

WINDOW_NS = 5_000_000_000
"""libwebrtc reports what it receives of audio once in so long."""


@njit(cache=True)
def note_subscriber_loss(stream, fraction, now):
    """A subscriber lost so many 256ths. Returns whether its publisher is to be told more than before."""
    before = subscriber_loss(stream, now)
    if stream.subscriber_loss_ns == 0:
        stream.subscriber_loss_ns = now
    stream.subscriber_loss = max(stream.subscriber_loss, fraction)
    return fraction > before


@njit(cache=True)
def subscriber_loss(stream, now):
    """What to tell the publisher: the most that a subscriber lost of late, in 256ths."""
    since = now - stream.subscriber_loss_ns
    if stream.subscriber_loss_ns != 0 and since >= WINDOW_NS:
        stream.subscriber_loss_before = stream.subscriber_loss if since < 2 * WINDOW_NS else 0
        stream.subscriber_loss = 0
        stream.subscriber_loss_ns = now if stream.subscriber_loss_before else 0
    return max(stream.subscriber_loss, stream.subscriber_loss_before)
