"""The rate that loss allows: the candidate that best explains what was lost and what was not.

Follows libwebrtc's loss-based estimation, version 2 (the receiver-report rule of draft-ietf-rmcat-gcc-02 section 6 is
`reports`): a path is taken to lose a share of whatever is sent, its inherent loss, and all beyond a bandwidth. Of a few
candidates for the bandwidth, each with the inherent loss that one Newton step finds, the likeliest is taken.
"""

import math

from numba import njit

from sfu.media.allocation.due import path_queue_ms
from sfu.media.bandwidth.trains import proven_bps
from sfu.schema.estimate_tables import MAX_BPS, MIN_BPS, OBSERVATIONS

LOSS_NONE, LOSS_INCREASING, LOSS_DECREASING = 0, 1, 2

OBSERVATION_NS = 250_000_000
"""An observation spans at least so much time of sending."""
NEEDED_OBSERVATIONS = 3
TEMPORAL_WEIGHT = 0.9
"""Each observation weighs so much of the next."""
CANDIDATES = 5
FACTOR_UP, FACTOR_DOWN = 1.02, 0.95
NEWTON_STEP = 0.75
MIN_INHERENT_LOSS = 0.001
INHERENT_OFFSET, INHERENT_BALANCE_BPS = 0.05, 150_000.0
"""Inherent loss is at most the offset, and more where the bandwidth is small: balance / bandwidth."""
INSTANT_OFFSET, INSTANT_BALANCE_BPS = 0.05, 150_000.0
"""With average loss beyond the offset no more is sent than balance / excess. libwebrtc has 100 kbit/s for both: too
little for 2 Mbit/s at 10 % of chance loss."""
PREFERRED_LOSS, PREFERENCE_SMOOTHING = 0.2, 0.002
"""Below so much loss the larger candidate is preferred, above it the smaller."""
BIAS, LOG_BIAS = 0.0002, 0.02
TINY = 1e-6
RAMP_NS, RAMP_FACTOR = 300_000_000, 1.3
"""While loss limits, the rate grows at most RAMP_FACTOR times in RAMP_NS."""
ACKNOWLEDGED_FACTOR, HOLD_FACTOR, HOLD_NEAR = 1.5, 1.2, 1.3
"""While loss limits, the rate is at most ACKNOWLEDGED_FACTOR times what arrives. Where what arrives is below HOLD_NEAR
times the rate at which loss began, HOLD_FACTOR counts instead."""
FIRST_HOLD_NS, MAX_HOLD_NS = 300_000_000, 60_000_000_000
SUDDEN_FACTOR = 2.0
"""Loss of an observation that was sent at so many times the usual rate is no outlier."""
RUINED_LOSS = 0.5
"""An observation that lost so much says what arrives: older arrivals prove nothing any more."""


@njit(cache=True)
def note_reported(estimate, sent, size, lost):
    """Count a packet of `size` bytes, which left at `sent` (ns), that feedback names for the first time."""
    if estimate.observed_ns == 0:
        estimate.observed_ns = sent
    estimate.partial_bytes += size
    if lost:
        estimate.partial_lost += size
    estimate.partial_ns = max(estimate.partial_ns, sent)


@njit(cache=True)
def note_recovered(estimate, sent, size):
    """A packet that was counted as lost was received after all; only the observation that has it is changed."""
    if sent > estimate.observed_ns:
        estimate.partial_lost = max(estimate.partial_lost - size, 0)
        return
    newest, found = estimate.observations - 1, -1
    for back in range(min(estimate.observations, OBSERVATIONS)):
        place = (newest - back) % OBSERVATIONS
        if estimate.observed_end_ns[place] < sent:
            break
        found = place
    if found >= 0:
        estimate.observed_lost[found] = max(estimate.observed_lost[found] - size, 0.0)


@njit(cache=True)
def observe(estimate):
    """Close the observation that grew if it is long enough; whether it was."""
    span = estimate.partial_ns - estimate.observed_ns
    if span < OBSERVATION_NS or estimate.partial_bytes <= 0:
        return False
    place = estimate.observations % OBSERVATIONS
    estimate.observed_bytes[place] = estimate.partial_bytes
    estimate.observed_lost[place] = estimate.partial_lost
    estimate.observed_bps[place] = estimate.partial_bytes * 8e9 / span
    estimate.observed_end_ns[place] = estimate.partial_ns
    estimate.observations += 1
    estimate.observed_ns = estimate.partial_ns
    estimate.partial_bytes = 0
    estimate.partial_lost = 0
    return True


@njit(cache=True)
def update_loss(estimate):
    """After each observation: move `loss_bps`, and say in `loss_result_bps` what may be sent."""
    estimate.average_loss = _average_loss(estimate)
    if estimate.loss_bps <= 0.0:
        estimate.loss_bps = estimate.delay_bps
        estimate.loss_result_bps = estimate.delay_bps
    bps, inherent = _best_candidate(estimate)
    if estimate.average_loss > inherent:
        bps = min(bps, estimate.loss_bps)
    if estimate.loss_state != LOSS_NONE:
        bps = _bound_increase(estimate, bps)
    floor = _lower_bound(estimate)
    bounded = max(floor, min(bps, _instant_bound(estimate), estimate.delay_bps))
    if bounded < bps:
        estimate.loss_bps = bounded
        estimate.inherent_loss = 0.0
    else:
        estimate.loss_bps = max(bps, floor)
        estimate.inherent_loss = inherent
    _enter_state(estimate, bounded, floor)


@njit(cache=True)
def note_probe(estimate, bps):
    """A probe got through at so many bit/s: what was lost earlier no longer limits to less. Returns whether it did.

    Without this a subscriber that is sent two thirds of the estimate would stay there, because an increase is bound by
    what arrives. libwebrtc pads up to the estimate instead.
    """
    if estimate.loss_state != LOSS_INCREASING or bps <= estimate.loss_result_bps:
        return False
    estimate.loss_bps = max(estimate.loss_bps, float(bps))
    estimate.loss_result_bps = float(bps)
    estimate.loss_state = LOSS_NONE
    estimate.hold_until_ns = 0
    estimate.hold_bps = 0.0
    estimate.ramp_ns = 0
    return True


@njit(cache=True)
def _bound_increase(estimate, bps):
    """While limited by loss: 1.3 x in 300 ms, and within what arrives."""
    known, arriving = estimate.loss_bps, estimate.acknowledged_bps
    if estimate.ramp_ns and estimate.ramp_ns + RAMP_NS > estimate.observed_ns:
        bps = min(bps, estimate.ramp_bps)
    increases = bps > known or (bps == known and estimate.loss_state == LOSS_INCREASING)
    if not increases or arriving <= 0.0:
        return bps
    near = estimate.hold_bps > 0.0 and arriving < HOLD_NEAR * estimate.hold_bps
    bps = max(known, min(bps, (HOLD_FACTOR if near else ACKNOWLEDGED_FACTOR) * arriving))
    if estimate.loss_state == LOSS_DECREASING and bps == known:
        bps = known + 1.0  # so that the state becomes increasing and probes may follow
    return bps


@njit(cache=True)
def _enter_state(estimate, bounded, floor):
    """What is limited by loss decreases, is held for a time that doubles, and increases again."""
    below = bounded < estimate.delay_bps
    now = estimate.observed_ns
    if estimate.loss_state == LOSS_DECREASING and below and estimate.hold_until_ns > now:
        estimate.hold_bps = max(floor, estimate.hold_bps)
        estimate.loss_result_bps = min(estimate.hold_bps, bounded)
        return
    before = estimate.loss_result_bps
    grows = before < bounded or (before == bounded and estimate.loss_state == LOSS_INCREASING)
    if not below:
        estimate.hold_until_ns = 0
        estimate.hold_ns = FIRST_HOLD_NS
        estimate.hold_bps = 0.0
        estimate.loss_state = LOSS_NONE
    elif grows and estimate.loss_state != LOSS_NONE:
        estimate.loss_state = LOSS_INCREASING
    else:
        if estimate.loss_state != LOSS_DECREASING:
            estimate.hold_until_ns = now + estimate.hold_ns
            estimate.hold_ns = min(2 * estimate.hold_ns, MAX_HOLD_NS)
            estimate.hold_bps = bounded
        estimate.loss_state = LOSS_DECREASING
    estimate.loss_result_bps = bounded
    if estimate.loss_state != LOSS_NONE and (estimate.ramp_ns == 0 or estimate.ramp_ns + RAMP_NS < now):
        estimate.ramp_bps = max(MIN_BPS, estimate.loss_bps * RAMP_FACTOR)
        estimate.ramp_ns = now


@njit(cache=True)
def _lower_bound(estimate):
    """bit/s: what arrives can be sent, whatever is lost, and what bursts have shown to arrive; of a ruined observation,
    what of it arrived."""
    place = (estimate.observations - 1) % OBSERVATIONS
    size, lost = estimate.observed_bytes[place], estimate.observed_lost[place]
    arriving = estimate.acknowledged_bps
    if lost >= RUINED_LOSS * size:
        arriving = min(arriving, estimate.observed_bps[place] * (size - lost) / size)
    return max(arriving, proven_bps(estimate, path_queue_ms(estimate)), MIN_BPS)


@njit(cache=True)
def _instant_bound(estimate):
    """bit/s that the average loss allows at once."""
    excess = estimate.average_loss - INSTANT_OFFSET
    return INSTANT_BALANCE_BPS / excess if excess > INSTANT_BALANCE_BPS / MAX_BPS else float(MAX_BPS)


@njit(cache=True)
def _average_loss(estimate):
    """Share of bytes lost in all observations, by age, without the best and the worst: a spike is not a state."""
    count = min(estimate.observations, OBSERVATIONS)
    total = lost = 0.0
    least, most = 2.0, -1.0
    least_total = least_lost = most_total = most_lost = most_bps = 0.0
    weight = 1.0
    for back in range(count):
        place = (estimate.observations - 1 - back) % OBSERVATIONS
        size, missing = estimate.observed_bytes[place] * weight, estimate.observed_lost[place] * weight
        total += size
        lost += missing
        share = estimate.observed_lost[place] / estimate.observed_bytes[place]
        if share > most:
            most, most_total, most_lost, most_bps = share, size, missing, estimate.observed_bps[place]
        if share < least:
            least, least_total, least_lost = share, size, missing
        weight *= TEMPORAL_WEIGHT
    rest = total - least_total - most_total
    sudden = SUDDEN_FACTOR * _median_rate(estimate, count) <= most_bps
    if count <= NEEDED_OBSERVATIONS or sudden or rest <= 0.0:
        return lost / total
    return max(lost - least_lost - most_lost, 0.0) / rest


@njit(cache=True)
def _median_rate(estimate, count):
    """bit/s: the middle one of the observed rates, found by counting what lies below each."""
    rates = estimate.observed_bps
    for k in range(count):
        below = equal = 0
        for other in range(count):
            below += rates[other] < rates[k]
            equal += rates[other] == rates[k]
        if below <= count // 2 < below + equal:
            return rates[k]
    return 0.0


@njit(cache=True)
def _best_candidate(estimate):
    """(bit/s, inherent loss) of the candidate that explains the observations best."""
    best, best_inherent, best_value = estimate.loss_bps, estimate.inherent_loss, -math.inf
    for k in range(CANDIDATES):
        bps = _candidate(estimate, k)
        if bps <= 0.0:
            continue
        inherent = _newton_step(estimate, bps, _feasible(estimate.inherent_loss, bps))
        value = _likelihood(estimate, bps, inherent)
        if value > best_value:
            best, best_inherent, best_value = bps, inherent, value
    return best, best_inherent


@njit(cache=True)
def _candidate(estimate, number):
    """bit/s of candidate `number`; 0: there is none."""
    known = estimate.loss_bps
    ceiling = float(MAX_BPS)
    if estimate.loss_state != LOSS_NONE and estimate.ramp_bps > 0.0:
        ceiling = estimate.ramp_bps
    bps = known
    if number == 0:
        bps = FACTOR_UP * known
    elif number == 2:
        bps = FACTOR_DOWN * known
    elif number == 3:
        bps = 0.0 if estimate.application_limited else estimate.acknowledged_bps
    elif number == 4:
        bps = estimate.delay_bps if estimate.delay_bps > known else 0.0
    return min(bps, max(known, ceiling))


@njit(cache=True)
def _feasible(inherent, bps):
    """Inherent loss within what is believed of a path of such bandwidth."""
    return min(max(inherent, MIN_INHERENT_LOSS), INHERENT_OFFSET + INHERENT_BALANCE_BPS / bps, 1.0)


@njit(cache=True)
def _loss_probability(inherent, bps, sending):
    """Share that such a path loses of what is sent at a rate."""
    share = inherent + (1.0 - inherent) * (sending - bps) / sending if sending > bps else inherent
    return min(max(share, TINY), 1.0 - TINY)


@njit(cache=True)
def _newton_step(estimate, bps, inherent):
    """Inherent loss after one step towards the likeliest."""
    first = second = 0.0
    weight = 1.0
    for back in range(min(estimate.observations, OBSERVATIONS)):
        place = (estimate.observations - 1 - back) % OBSERVATIONS
        lost = estimate.observed_lost[place] / 1000.0
        kept = estimate.observed_bytes[place] / 1000.0 - lost
        share = _loss_probability(inherent, bps, estimate.observed_bps[place])
        first += weight * (lost / share - kept / (1.0 - share))
        second -= weight * (lost / (share * share) + kept / ((1.0 - share) * (1.0 - share)))
        weight *= TEMPORAL_WEIGHT
    if second >= 0.0:
        return inherent
    return _feasible(inherent - NEWTON_STEP * first / second, bps)


@njit(cache=True)
def _likelihood(estimate, bps, inherent):
    """Log likelihood of what was observed, with the preference for large or small rates."""
    margin = PREFERRED_LOSS - estimate.average_loss
    kbps = bps / 1000.0
    bias = (BIAS * kbps + LOG_BIAS * math.log(1.0 + kbps)) * margin / (PREFERENCE_SMOOTHING + abs(margin))
    value, weight = 0.0, 1.0
    for back in range(min(estimate.observations, OBSERVATIONS)):
        place = (estimate.observations - 1 - back) % OBSERVATIONS
        size = estimate.observed_bytes[place] / 1000.0
        lost = estimate.observed_lost[place] / 1000.0
        share = _loss_probability(inherent, bps, estimate.observed_bps[place])
        value += weight * (lost * math.log(share) + (size - lost) * math.log(1.0 - share) + bias * size)
        weight *= TEMPORAL_WEIGHT
    return value
