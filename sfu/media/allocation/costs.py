"""What each layer of a video costs on the wire, from what was measured of it.

A stream counts bytes and packets of each layer that it carries; `sfu.media.rates` makes means of them. What a packet
costs beyond its stored bytes is added here, because it depends on who receives it: the tag of SRTP and the headers of
UDP and IP.
"""

import numpy as np
from numba import njit

from sfu.schema.allocation_tables import COST_SPATIAL, COST_TEMPORAL

UNMEASURED_FACTOR = 3
"""A layer that was not measured yet costs so many times what the layer below costs."""
MAX_TARGET_KBPS = 65_000
"""The highest target of a layer that is believed: a higher one counts as this."""
TARGET_PERCENT = 110
"""A publisher's target is its encoder's: headers of usual packets add about a tenth."""
FIRST_LAYER_BPS = 150_000
"""A lowest layer, or a single one, that was not measured yet."""
KEY_FRAME_SHARE = 4
"""Key frames only, one in four seconds, cost one part in so many of the base layer: each is as large as about eight of
its frames, of which there are about eight a second."""
MAX_KEY_FRAMES_BPS = 100_000
"""One picture in four seconds costs no more, whatever a publisher sends: it is charged before anything is given."""


@njit(cache=True)
def wire_bps(bytes_per_second, packets_per_second, packet_overhead):
    """Bit/s on the wire of packets of so many bytes (whole plaintext RTP)."""
    return (bytes_per_second + packets_per_second * packet_overhead) * 8


@njit(cache=True)
def simulcast_costs(cost, measured, target, live):
    """Costs of a track with one stream for each spatial layer: a layer costs what its own stream sends.

    cost: written, [spatial][temporal] in bit/s, cumulative over temporal layers. measured: bit/s of each temporal
    layer alone; a row of zeros: not measured yet. target: what the publisher means to send, as `target_cost` says it,
    which counts until then; zeros: unknown. live: bit mask of spatial layers; others cost 0.
    """
    for spatial in range(COST_SPATIAL):
        cost[spatial, :] = 0
        if (live >> spatial) & 1:
            _sum_up(cost, measured, spatial, spatial)
            if not cost[spatial].any():
                cost[spatial, :] = target[spatial]
            if not cost[spatial].any():
                _guess(cost, spatial)


@njit(cache=True)
def scalable_costs(cost, measured, target, live):
    """Costs of a track whose one stream has all layers: a layer costs what it sends itself and all below it.

    cost: written, [spatial][temporal] in bit/s, cumulative. measured: bit/s of each layer alone; what sends nothing is
    not there. target: what the publisher means to send, as `target_cost` says it, which counts before anything is
    measured; zeros: unknown. live: 0 if the stream sends nothing, then nothing has a cost.
    """
    for spatial in range(COST_SPATIAL):
        cost[spatial, :] = 0
        if live:
            _sum_up(cost, measured, 0, spatial)
    if live and not cost.any():
        cost[:] = target
        if not cost.any():
            cost[0, 0] = FIRST_LAYER_BPS


@njit(cache=True)
def target_cost(kbps):
    """Bit/s that an allocation counts for a layer of which a publisher means to send so much: `kbps` is the rate of its
    encoder for the layer and all that it needs."""
    return min(np.int64(kbps), MAX_TARGET_KBPS) * 1_000 * TARGET_PERCENT // 100


@njit(cache=True)
def key_frame_cost(cost):
    """Bit/s of key frames only, of the lowest layer that has a cost; 0: none has."""
    for spatial in range(COST_SPATIAL):
        for temporal in range(COST_TEMPORAL):
            if cost[spatial, temporal] > 0:
                return min(max(np.int64(cost[spatial, temporal]) // KEY_FRAME_SHARE, 1), MAX_KEY_FRAMES_BPS)
    return np.int64(0)


@njit(cache=True)
def _sum_up(cost, measured, lowest, spatial):
    """Write what `spatial` and the spatial layers from `lowest` to it cost, for each temporal layer that it has."""
    total = np.int64(0)
    for temporal in range(COST_TEMPORAL):
        for each in range(lowest, spatial + 1):
            total += measured[each, temporal]
        cost[spatial, temporal] = total if measured[spatial, temporal] > 0 else 0


@njit(cache=True)
def _guess(cost, spatial):
    """Costs of a live layer of which nothing was measured: several times those of the next one below."""
    factor = np.int64(1)
    for below in range(spatial - 1, -1, -1):
        factor *= UNMEASURED_FACTOR
        if cost[below].any():
            for temporal in range(COST_TEMPORAL):
                cost[spatial, temporal] = factor * cost[below, temporal]
            return
    cost[spatial, 0] = factor * FIRST_LAYER_BPS
