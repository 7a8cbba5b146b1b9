"""The rungs on which one video subscription can stand, each with what it costs.

A rung's *place* is one number: `Rung.PAUSED`, `Rung.KEY_FRAMES_ONLY`, and from FIRST_LAYER on the layers, ordered by
spatial and then by temporal layer. A ladder leaves out every rung above which a higher one costs no more, so that its
costs rise from rung to rung, and a higher layer that costs less is taken.
"""

import numpy as np
from numba import njit

from sfu.schema.allocation_tables import COST_SPATIAL, COST_TEMPORAL
from sfu.schema.bandwidth_codes import Rung

FIRST_LAYER = int(Rung.BASE_TEMPORAL)
"""Place of spatial layer 0 with temporal layer 0."""
LEFT_OUT = 1
"""Temporal layers that a camera may lack above its lowest spatial layer: at half its frame rate a picture of more
pixels is still the better one, at a quarter it is not."""

_PAUSED, _KEY_FRAMES_ONLY = int(Rung.PAUSED), int(Rung.KEY_FRAMES_ONLY)


@njit(cache=True)
def place_of(spatial, temporal):
    """The place of a layer."""
    return FIRST_LAYER + spatial * COST_TEMPORAL + temporal


@njit(cache=True)
def layer_at(place):
    """(spatial, temporal) of a place that is a layer's."""
    return (place - FIRST_LAYER) // COST_TEMPORAL, (place - FIRST_LAYER) % COST_TEMPORAL


@njit(cache=True)
def highest_temporal(demand, spatial):
    """The highest temporal layer up to the preferred one that a spatial layer has; -1: none, so it is not live."""
    highest = -1
    for temporal in range(min(np.int64(demand.preferred_temporal), COST_TEMPORAL - 1) + 1):
        if demand.cost[spatial, temporal] > 0:
            highest = temporal
    return highest


@njit(cache=True)
def lowest_spatial(demand):
    """The lowest spatial layer that is live; -1: none."""
    for spatial in range(COST_SPATIAL):
        if highest_temporal(demand, spatial) >= 0:
            return spatial
    return -1


@njit(cache=True)
def highest_spatial(demand):
    """The highest live spatial layer up to the preferred one, else the lowest live one, which is what the selection of
    layers falls back to; -1: none is live."""
    highest = lowest_spatial(demand)
    for spatial in range(min(np.int64(demand.preferred_spatial), COST_SPATIAL - 1) + 1):
        if highest_temporal(demand, spatial) >= 0:
            highest = spatial
    return highest


@njit(cache=True)
def build_ladder(demand, may_pause):
    """Write the rungs of a subscription, from the lowest; none when no layer is live."""
    demand.rungs = 0
    lowest = lowest_spatial(demand)
    if lowest < 0:
        return
    if may_pause:
        _add(demand, _PAUSED, 0)
    _add(demand, _KEY_FRAMES_ONLY, np.int64(demand.key_cost))
    for spatial in range(lowest, highest_spatial(demand) + 1):
        top = highest_temporal(demand, spatial)
        first = 0
        if spatial > lowest and not demand.screen:
            first = max(top - LEFT_OUT, 0)
        for temporal in range(first, top + 1):
            if demand.cost[spatial, temporal] > 0:
                _add(demand, place_of(spatial, temporal), np.int64(demand.cost[spatial, temporal]))


@njit(cache=True)
def _add(demand, place, cost):
    """Put a rung on top, in place of those that cost as much or more."""
    count = np.int64(demand.rungs)
    while count > 0 and demand.ladder_cost[count - 1] >= cost:
        count -= 1
    demand.ladder_cost[count] = cost
    demand.ladder_place[count] = place
    demand.rungs = count + 1


@njit(cache=True)
def present_place(demand):
    """The place of what was allocated last; -1: nothing was."""
    if demand.rung < FIRST_LAYER:
        return np.int64(demand.rung)
    return place_of(min(np.int64(demand.spatial), COST_SPATIAL - 1), min(np.int64(demand.temporal), COST_TEMPORAL - 1))


@njit(cache=True)
def present_cost(demand):
    """What the layer that was allocated last costs now, in bit/s; 0 when it was none or is no longer live."""
    if demand.rung < FIRST_LAYER:
        return np.int64(0)
    spatial, temporal = layer_at(present_place(demand))
    for each in range(temporal, -1, -1):
        if demand.cost[spatial, each] > 0:
            return np.int64(demand.cost[spatial, each])
    return np.int64(0)
