"""How the bandwidth of one subscriber is shared among its videos.

As mediasoup (`Transport::DistributeAvailableOutgoingBitrate`) and Jitsi (`doc/allocation.md`) do it: everybody begins
on the lowest rung of its ladder, and then in rounds each, the most important first, is given one rung more, as long as
that fits. One whose next rung does not fit stays where it is, and those behind it go on. So a screen that needs much
does not keep thumbnails at nothing, and thumbnails do not grow before the screen has had its turn.

The estimate is never exceeded, but for the lowest rungs themselves, and for a while by the most important shared
screen if it had its layer already: one new slide is no reason to send a worse picture of it.

What was allocated last may be kept as long as it fits into the estimate; more than that has to fit into 0.9 of it.
Nothing that was refused once can fit at the next time with the same estimate and costs, so the result stands still.
An upgrade that had to be taken back soon is not tried again for a time that doubles with each failure.
"""

import numpy as np
from numba import njit

from sfu.media.allocation.ladder import (
    FIRST_LAYER,
    build_ladder,
    highest_spatial,
    highest_temporal,
    layer_at,
    lowest_spatial,
    present_cost,
    present_place,
)
from sfu.schema.allocation_tables import COST_SPATIAL, MAX_SHARED
from sfu.schema.bandwidth_codes import Reason, Rung

UPGRADE_PERCENT = 90
"""An upgrade has to fit into so much of the estimate: encoders do not keep to their means, nor are estimates exact.
What is sent already may take all of it, since it has shown what it does to the path."""
FAILED_WITHIN_NS = 10_000_000_000
"""An upgrade that bandwidth takes back within this time has failed."""
PROMISING_PERCENT = 150
"""An estimate that is so much higher than at the failed upgrade is another matter: nothing backs off."""
BACK_OFF_NS = 8_000_000_000
"""How long an upgrade is not tried again after it failed once; doubles with each failure in a row."""
MAX_BACK_OFF_NS = 120_000_000_000
FORGIVEN_NS = 60_000_000_000
"""An upgrade that held so long ends the row of failures."""
OVERDRAFT_BPS = 500_000
"""How far a shared screen may exceed the budget, as at Jitsi."""
OVERDRAFT_NS = 5_000_000_000
"""How long a shared screen may exceed the budget."""
OVERDRAFT_REST_NS = 30_000_000_000
"""Least time from the beginning of one overdraft to that of the next."""

PIXELS_OF_LAYER = (320 * 180, 640 * 360, 1280 * 720)
"""What a client that prefers this layer shows, when it has told no dimensions."""
_NO_PRIORITY = (1 << 20) - 1


@njit(cache=True)
def allocate(demands, count, estimate_bps, audio_bps, may_pause, now):
    """Share the bandwidth of a subscriber among the first `count` rows of `demands`.

    estimate_bps: what the path carries; audio_bps: of that is taken off first; may_pause: a video may be sent nothing
    at all; now: ns. Each row says what is preferred, what it costs, and what was allocated last; it is given its new
    allocation, the reason, and what has to be remembered for the next time. Rows from MAX_SHARED on are given the
    lowest rung. Returns the bit/s that all of them cost.
    """
    shared = min(count, MAX_SHARED)
    _put_in_order(demands, shared)
    budget = max(estimate_bps - audio_bps, 0)
    upgrade_budget = max(estimate_bps * UPGRADE_PERCENT // 100 - audio_bps, 0)
    used = np.int64(0)
    for k in range(count):
        build_ladder(demands[k], may_pause)
        demands[k].at = 0
        demands[k].ended = 1 if demands[k].rungs <= 1 or k >= shared else 0
        if demands[k].rungs > 0:
            used += demands[k].ladder_cost[0]
    raised = True
    while raised:
        raised = False
        for k in range(shared):
            demand = demands[demands[k].order]
            if demand.ended:
                continue
            step = demand.ladder_cost[demand.at + 1] - demand.ladder_cost[demand.at]
            excess = OVERDRAFT_BPS if k == 0 and _may_overdraw(demand, now) else 0
            if used + step <= _limit(demand, estimate_bps, budget + excess, upgrade_budget, now):
                used += step
                demand.at += 1
                demand.ended = 1 if demand.at + 1 >= demand.rungs else 0
                raised = True
            else:
                demand.ended = 1
    if shared > 0 and used > budget:
        _note_overdraft(demands[demands[0].order], now)
    for k in range(count):
        _conclude(demands[k], estimate_bps, now)
    return used


@njit(cache=True)
def importance(demand):
    """A number that is larger the more important a video is: what the client gave a priority, then shared screens,
    then what it shows large. Its publisher says that a video is a screen, so the client's word goes before."""
    pixels = np.int64(demand.pixels)
    if pixels <= 0:
        pixels = PIXELS_OF_LAYER[min(max(np.int64(demand.preferred_spatial), 0), len(PIXELS_OF_LAYER) - 1)]
    return importance_of(demand.priority, demand.screen, pixels)


@njit(cache=True)
def importance_of(priority, screen, pixels):
    """`importance` of a video, by what its subscription and track say of it, and its pixels."""
    rank = min(np.int64(priority), _NO_PRIORITY) if priority > 0 else _NO_PRIORITY
    return ((_NO_PRIORITY - rank) << 33) + (np.int64(screen != 0) << 32) + min(np.int64(pixels), (1 << 32) - 1)


@njit(cache=True)
def _put_in_order(demands, count):
    """Write into `order` the rows by falling importance; equals stay as they stand."""
    for k in range(count):
        mine, place = importance(demands[k]), k
        while place > 0 and importance(demands[demands[place - 1].order]) < mine:
            demands[place].order = demands[place - 1].order
            place -= 1
        demands[place].order = k


@njit(cache=True)
def _limit(demand, estimate_bps, budget, upgrade_budget, now):
    """Up to how many bit/s in all the next rung of a video may be given: `budget` for what it had already, or what
    costs no more than that."""
    cost, place = demand.ladder_cost[demand.at + 1], demand.ladder_place[demand.at + 1]
    if demand.rung != Rung.NONE and (place <= present_place(demand) or cost <= present_cost(demand)):
        return budget
    if _backs_off(demand, estimate_bps, now):
        return np.int64(-1)
    return upgrade_budget


@njit(cache=True)
def _may_overdraw(demand, now):
    """Whether a video is a screen that may exceed the budget."""
    if not demand.screen:
        return False
    since = now - demand.overdrawn_ns
    return demand.overdrawn_ns == 0 or since < OVERDRAFT_NS or since >= OVERDRAFT_REST_NS


@njit(cache=True)
def _note_overdraft(demand, now):
    """The budget is exceeded: note since when, if it is the most important video that does it."""
    rested = demand.overdrawn_ns == 0 or now - demand.overdrawn_ns >= OVERDRAFT_REST_NS
    if demand.screen and demand.at > 0 and rested:
        demand.overdrawn_ns = now


@njit(cache=True)
def _backs_off(demand, estimate_bps, now):
    """Whether the last upgrade of a video failed so recently, with an estimate such as this one, that none is tried."""
    if demand.failures == 0 or estimate_bps * 100 >= demand.failed_bps * PROMISING_PERCENT:
        return False
    wait = min(BACK_OFF_NS << min(np.int64(demand.failures) - 1, 16), MAX_BACK_OFF_NS)
    return now - demand.failed_ns < wait


@njit(cache=True)
def _conclude(demand, estimate_bps, now):
    """Turn the rung that a video has reached into layers, a reason, and what is remembered of it."""
    before, present_bps = present_place(demand), present_cost(demand)
    if demand.rungs == 0:
        if demand.rung != Rung.NONE:
            demand.rung = Rung.LOWEST
        demand.spatial = 0
        demand.temporal = demand.preferred_temporal
        demand.reason = Reason.NOT_LIVE
        return
    at = np.int64(demand.at)
    place = np.int64(demand.ladder_place[at])
    _remember(demand, before, present_bps, estimate_bps, now)
    lowest = lowest_spatial(demand)
    if place < FIRST_LAYER:
        demand.rung = place
        demand.spatial = lowest
        demand.temporal = 0
    else:
        spatial, temporal = layer_at(place)
        if spatial > lowest:
            demand.rung = Rung.HIGHER
        elif temporal == 0 and highest_temporal(demand, lowest) > 0:
            demand.rung = Rung.BASE_TEMPORAL
        else:
            demand.rung = Rung.LOWEST
        whole = temporal == highest_temporal(demand, spatial)
        demand.spatial = spatial
        demand.temporal = demand.preferred_temporal if whole else temporal  # none is held back that begins later
    demand.reason = _reason(demand, place)


@njit(cache=True)
def _remember(demand, before, present_bps, estimate_bps, now):
    """Note an upgrade, an upgrade that bandwidth takes back, and one that has held."""
    if demand.rung == Rung.NONE:
        return
    place, cost = np.int64(demand.ladder_place[demand.at]), np.int64(demand.ladder_cost[demand.at])
    top = np.int64(demand.ladder_place[demand.rungs - 1])
    if place > before and cost > present_bps:
        demand.raised_ns = now
        demand.raised_bps = estimate_bps
    elif place < min(before, top) and cost < present_bps:
        if demand.raised_ns != 0 and now - demand.raised_ns < FAILED_WITHIN_NS:
            another = demand.raised_bps * 100 >= demand.failed_bps * PROMISING_PERCENT
            demand.failures = 1 if another else demand.failures + 1  # of a narrower link than this one
            demand.failed_ns = now
            demand.failed_bps = demand.raised_bps
        demand.raised_ns = 0
    if demand.raised_ns != 0 and now - demand.raised_ns >= FORGIVEN_NS:
        demand.failures = 0


@njit(cache=True)
def _reason(demand, place):
    if demand.at + 1 < demand.rungs:
        return Reason.PAUSED if place == Rung.PAUSED else Reason.BANDWIDTH
    return reason_unlimited(demand)


@njit(cache=True)
def reason_unlimited(demand):
    """Why a video that is sent all that there is is not sent more."""
    preferred = min(np.int64(demand.preferred_spatial), COST_SPATIAL - 1)
    return Reason.CLIENT if highest_spatial(demand) >= preferred else Reason.NOT_LIVE
