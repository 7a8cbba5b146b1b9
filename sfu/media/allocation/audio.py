"""What of a subscriber's audio is sent. It is taken off its estimate before all video, but not whatever it costs:

* Where all audio would take more than VOICES_PERCENT of the estimate, only the loudest microphones are sent. Which ones
  is decided at each packet (`sfu.media.send.voices`).
* Below PLAIN_BPS, RED (RFC 2198) is left out, and each packet is sent once, as the Opus packet that it holds.

Both end only when there is clearly more, so that they do not come and go with every estimate. Without video a path
cannot be probed. There, audio is limited only after delay or loss has shown that the path is narrow, and is then tried
whole again from time to time.
"""

import numpy as np
from numba import njit

from sfu.media.allocation.measure import REDUNDANCY, measured_layer
from sfu.schema.bandwidth_codes import Held, Reason
from sfu.schema.capacities import VOICES
from sfu.schema.codes import MediaKind, RowState
from sfu.schema.estimate_tables import START_BPS

VOICES_PERCENT, ALL_VOICES_PERCENT = 70, 60
"""Audio that takes more of the estimate than the first is limited to the loudest microphones, until all of it would
take no more than the second."""
PLAIN_BPS, REDUNDANT_BPS = 250_000, 300_000
"""With a lower estimate than the first, RED goes out unwrapped, until it is at least the second."""
TRY_EVERY_NS = 30_000_000_000
"""Without video, all microphones are tried again so often."""
TRIED_NS = 3_000_000_000
"""How long all microphones are tried: feedback needs so long to show what comes of it."""

_NOTHING, _QUIETER = int(Held.NOTHING), int(Held.QUIETER)
_CLIENT, _BANDWIDTH = int(Reason.CLIENT), int(Reason.BANDWIDTH)


@njit(cache=True)
def is_plain(was, estimate_bps):
    """Whether RED goes out unwrapped with this estimate (0: none is known). was: whether it did before."""
    return 0 < estimate_bps < (REDUNDANT_BPS if was else PLAIN_BPS)


@njit(cache=True)
def is_limited(transport, audio_bps, estimate_bps, probed, now):
    """Whether only the loudest microphones are sent to `transport`.

    audio_bps: what all of its audio costs; estimate_bps: what its path carries, 0 if that is not known; probed: it has
    video, with which it is found out whether the path carries more.
    """
    if estimate_bps == 0:
        return False
    since = now - transport.voices_ns
    if transport.voices_only:
        if audio_bps * 100 <= estimate_bps * ALL_VOICES_PERCENT:
            return False
        return probed or since < TRY_EVERY_NS
    if audio_bps * 100 <= estimate_bps * VOICES_PERCENT:
        return False
    tried = transport.voices_ns != 0 and since < TRIED_NS
    return probed or (estimate_bps < START_BPS and not tried)


@njit(cache=True)
def share_audio(state, row, estimate_bps, overhead, now):
    """Decide what of its audio transport `row` is sent, and let egress follow that.

    overhead: bytes that a packet has on the wire beside RTP. Returns the bit/s that this costs, and what all audio with
    its redundancy would cost.
    """
    transport = state.transports[row]
    plain = is_plain(transport.plain_audio != 0, estimate_bps)
    wished, sounds, all_voices, loudest = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    second, third, probed = np.int64(0), np.int64(0), False
    number = np.int64(transport.first_subscription)
    while number >= 0:
        subscription = state.subscriptions[number]
        if is_wanted(state, subscription):
            if subscription.kind == MediaKind.VIDEO:
                probed = True
            else:
                track = state.tracks[subscription.track]
                once, again = _audio_costs(state, track, overhead)
                wished += once + again
                bps = once if plain else once + again
                if track.screen:
                    sounds += bps
                else:
                    all_voices += bps
                    third = max(third, min(second, bps))
                    second = max(second, min(loudest, bps))
                    loudest = max(loudest, bps)
        number = np.int64(subscription.next_of_transport)
    limited = is_limited(transport, sounds + all_voices, estimate_bps, probed, now)
    _put_in_force(state, row, plain, limited, now)
    return sounds + (loudest + second + third if limited else all_voices), wished


@njit(cache=True)
def is_wanted(state, subscription):
    """Whether a subscription is open to a track that is, and its subscriber did not pause it."""
    track = state.tracks[subscription.track]
    return subscription.state == RowState.OPEN and not subscription.pause_requested and track.state == RowState.OPEN


@njit(cache=True)
def _audio_costs(state, track, overhead):
    """Bit/s of an audio track without what RED repeats, and of that; 0 while others of its room are louder, or before
    it was measured."""
    if (track.group > 0 and not track.loud) or track.streams[0] < 0:
        return np.int64(0), np.int64(0)
    stream = state.streams[track.streams[0]]
    return measured_layer(stream, 0, 0, overhead), measured_layer(stream, 0, REDUNDANCY, overhead)


@njit(cache=True)
def _put_in_force(state, row, plain, limited, now):
    """Write what was decided into the audio subscriptions of a transport."""
    transport = state.transports[row]
    if not (plain or limited or transport.plain_audio != 0 or transport.voices_only != 0):
        return
    if limited != (transport.voices_only != 0):
        transport.voices_ns = now
        for k in range(VOICES):
            transport.voices[k] = 0
    transport.plain_audio = 1 if plain else 0
    transport.voices_only = 1 if limited else 0
    number = np.int64(transport.first_subscription)
    while number >= 0:
        subscription = state.subscriptions[number]
        if subscription.kind == MediaKind.AUDIO:
            held = limited and not state.tracks[subscription.track].screen
            subscription.unwrapped = 1 if plain else 0
            subscription.held = _QUIETER if held else _NOTHING
            subscription.reason = _BANDWIDTH if held else _CLIENT
        number = np.int64(subscription.next_of_transport)
