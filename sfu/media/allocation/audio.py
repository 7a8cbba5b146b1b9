"""What of a subscriber's audio is sent. It is taken off its estimate before all video, but not whatever it costs:

* Where all audio would take more than VOICES_PERCENT of the estimate, only the loudest microphones are sent. Which ones
  is decided at each packet (`sfu.media.send.voices`).
* Below PLAIN_BPS, RED (RFC 2198) is left out, and each packet is sent once, as the Opus packet that it holds.
* Beside video, one track has no more than its part of VOICES_PERCENT, and no more than MOST_TRACK_BPS: from one that
  takes more, first RED is left out, and then it is not sent. Up to LEAST_TRACK_BPS it is always sent.

All end only when there is clearly more, so that they do not come and go with every estimate. Without video a path
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
LEAST_TRACK_BPS, MOST_TRACK_BPS = 160_000, 550_000
"""What one audio track may claim before all video, however little the path carries and however much: Opus of 128 kbit/s
without RED, and the most that Opus can have (RFC 6716: 510 kbit/s), with their headers. So all audio of a narrow path
claims no more than the first for each of VOICES microphones, and of as many sounds of shared screens."""

MOST_NOTED_BPS = 1 << 30
"""A track that costs more is taken to cost this."""

_NOTHING, _QUIETER, _EXCESSIVE = int(Held.NOTHING), int(Held.QUIETER), int(Held.EXCESSIVE)
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
def track_claim(estimate_bps, tracks, reduced):
    """Bit/s that one of `tracks` audio tracks may take before all video. reduced: it has been sent less than it has."""
    percent = ALL_VOICES_PERCENT if reduced else VOICES_PERCENT
    share = estimate_bps * percent // (100 * max(tracks, 1))
    return min(max(share, LEAST_TRACK_BPS), MOST_TRACK_BPS)


@njit(cache=True)
def share_audio(state, row, estimate_bps, overhead, now):
    """Decide what of its audio transport `row` is sent, and let egress follow that.

    overhead: bytes that a packet has on the wire beside RTP. Returns the bit/s that this costs, what all audio with its
    redundancy would cost, and whether anything is left out.
    """
    transport = state.transports[row]
    plain = is_plain(transport.plain_audio != 0, estimate_bps)
    tracks, probed = _count_tracks(state, row, overhead)
    bounded = probed and estimate_bps > 0
    preferred, sounds, voices, largest = np.int64(0), np.int64(0), np.int64(0), (np.int64(0), np.int64(0), np.int64(0))
    excessive, heard = False, np.int64(0)
    number = np.int64(transport.first_subscription)
    while number >= 0:
        subscription = state.subscriptions[number]
        if subscription.kind == MediaKind.AUDIO:
            bps = _grant(subscription, plain, estimate_bps if bounded else np.int64(0), tracks)
            if is_active(state, subscription):
                preferred += min(_whole_bps(subscription), MOST_TRACK_BPS)
                excessive |= subscription.held == _EXCESSIVE
                if state.tracks[subscription.track].screen:
                    sounds += bps
                    heard += subscription.primary_bps > 0 and subscription.held == _NOTHING
                else:
                    voices += bps
                    largest = _three_largest(largest, bps)
        number = np.int64(subscription.next_of_transport)
    limited = is_limited(transport, sounds + voices, estimate_bps, probed, now)
    _put_in_force(transport, plain, limited, now)
    if limited:
        sounds, voices = _hold_others(state, row, heard - VOICES), largest[0] + largest[1] + largest[2]
    return sounds + voices, preferred, excessive or limited


@njit(cache=True)
def _three_largest(largest, bps):
    """The VOICES largest of `largest`, which are in falling order, and one more."""
    first, second, third = largest
    return max(first, bps), max(second, min(first, bps)), max(third, min(second, bps))


@njit(cache=True)
def _count_tracks(state, row, overhead):
    """Write what each audio track of transport `row` costs. Returns how many of them it may hear at once where
    bandwidth is short, and whether it has video."""
    voices, sounds, video = np.int64(0), np.int64(0), False
    number = np.int64(state.transports[row].first_subscription)
    while number >= 0:
        subscription = state.subscriptions[number]
        active = is_active(state, subscription)
        if subscription.kind == MediaKind.VIDEO:
            video |= active
        else:
            _note_costs(state, subscription, overhead)
            if active and subscription.primary_bps > 0:
                screen = state.tracks[subscription.track].screen != 0
                sounds += screen
                voices += not screen
        number = np.int64(subscription.next_of_transport)
    return min(voices, VOICES) + min(sounds, VOICES), video


@njit(cache=True)
def _grant(subscription, plain, estimate_bps, tracks):
    """Write into an audio subscription what of its track may be sent beside others: all, all but what RED repeats, or
    nothing. estimate_bps: 0: everything may. Returns what that costs."""
    primary, whole = np.int64(subscription.primary_bps), _whole_bps(subscription)
    reduced = subscription.held == _EXCESSIVE or (subscription.unwrapped != 0 and not plain)
    claim = track_claim(estimate_bps, tracks, reduced) if estimate_bps > 0 else whole
    unwrapped = plain or whole > claim
    excessive = primary * 8 > claim * (9 if subscription.held == _EXCESSIVE else 10)
    subscription.unwrapped = 1 if unwrapped else 0
    subscription.held = _EXCESSIVE if excessive else _NOTHING
    subscription.reason = _BANDWIDTH if excessive else _CLIENT
    if excessive:
        return np.int64(0)
    return primary if unwrapped else whole


@njit(cache=True)
def is_active(state, subscription):
    """Whether a subscription is open to a track that is, and its subscriber did not pause it."""
    track = state.tracks[subscription.track]
    return subscription.state == RowState.OPEN and not subscription.pause_requested and track.state == RowState.OPEN


@njit(cache=True)
def _note_costs(state, subscription, overhead):
    """Write what an audio track costs: nothing while others of its room are louder, or before it was measured."""
    track = state.tracks[subscription.track]
    if (track.group > 0 and not track.loud) or track.streams[0] < 0:
        subscription.primary_bps = subscription.redundant_bps = 0
        return
    stream = state.streams[track.streams[0]]
    subscription.primary_bps = min(measured_layer(stream, 0, 0, overhead), MOST_NOTED_BPS)
    subscription.redundant_bps = min(measured_layer(stream, 0, REDUNDANCY, overhead), MOST_NOTED_BPS)


@njit(cache=True)
def _whole_bps(subscription):
    """Bit/s of an audio track with what RED repeats."""
    return np.int64(subscription.primary_bps) + np.int64(subscription.redundant_bps)


@njit(cache=True)
def _put_in_force(transport, plain, limited, now):
    """Write what was decided about all audio of a transport."""
    if limited != (transport.voices_only != 0):
        transport.voices_ns = now
        for k in range(VOICES):
            transport.voices[k] = 0
    transport.plain_audio = 1 if plain else 0
    transport.voices_only = 1 if limited else 0


@njit(cache=True)
def _hold_others(state, row, surplus):
    """Let only the loudest microphones be sent to transport `row`, and all sounds of shared screens but the `surplus`
    newest. Returns what these sounds cost, bit/s."""
    sounds = np.int64(0)
    number = np.int64(state.transports[row].first_subscription)
    while number >= 0:  # the newest come first, and the oldest sounds stay
        subscription = state.subscriptions[number]
        if subscription.kind == MediaKind.AUDIO and subscription.held == _NOTHING:
            primary = np.int64(subscription.primary_bps)
            if not state.tracks[subscription.track].screen:
                subscription.held = _QUIETER
                subscription.reason = _BANDWIDTH
            elif primary > 0 and is_active(state, subscription):
                if surplus <= 0:
                    sounds += primary if subscription.unwrapped else _whole_bps(subscription)
                else:
                    surplus -= 1
                    subscription.held = _EXCESSIVE
                    subscription.reason = _BANDWIDTH
        number = np.int64(subscription.next_of_transport)
    return sounds
