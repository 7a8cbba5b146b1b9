"""What each layer of a stream sends: counted at every packet that is stored, measured once a second.

Tracks that another media thread relays are stored there too, so each thread measures what it forwards.
"""

import numpy as np
from numba import njit

from sfu.media.allocation.costs import wire_bps
from sfu.schema.allocation_tables import COST_SPATIAL, COST_TEMPORAL, MEASURED_LAYERS

CAMERA_MEAN_NS = 2_000_000_000
SCREEN_MEAN_NS = 5_000_000_000
"""Rates are exponential means with these time constants: a slide of a shared screen is a burst and not a rate."""
STARTED = -1
"""Mean of a layer whose first packet came within the last interval, of which it sent an unknown part."""
LEAST = 1
"""Mean of a layer that has sent something at some time: it may go on, so it does not cost nothing."""
CHANGE_PERCENT = 15
"""A stream whose rate moved by so much since it was last told of is told of again, as at Jitsi."""

_PACKET_SHIFT = 40
_BYTES = (1 << _PACKET_SHIFT) - 1
_SECOND_NS = 1_000_000_000


@njit(cache=True)
def count_layer(stream, packet, size):
    """Count a packet of `size` bytes (whole plaintext RTP) for its layer: one word holds packets and bytes."""
    spatial, temporal = (
        min(np.int64(packet.spatial), COST_SPATIAL - 1),
        min(np.int64(packet.temporal), COST_TEMPORAL - 1),
    )
    stream.layer_traffic[spatial * COST_TEMPORAL + temporal] += (1 << _PACKET_SHIFT) + size


@njit(cache=True)
def begin_layers(stream):
    """The row of a stream is used again: what was counted before does not matter."""
    for layer in range(MEASURED_LAYERS):
        stream.layer_checked[layer] = stream.layer_traffic[layer]


@njit(cache=True)
def measure_layers(stream, elapsed_ns, mean_ns):
    """Bring the means of a stream's layers up to date with what was counted in the last `elapsed_ns`. Returns whether
    its rate has changed so much that costs are to be looked at again."""
    total = np.int64(0)
    for layer in range(MEASURED_LAYERS):
        traffic = np.int64(stream.layer_traffic[layer])
        news = traffic - stream.layer_checked[layer]
        mean = np.int64(stream.layer_bytes[layer])
        if news == 0 and mean == 0:
            continue
        stream.layer_checked[layer] = traffic
        byte_rate = (news & _BYTES) * _SECOND_NS // elapsed_ns
        packet_rate = (news >> _PACKET_SHIFT) * _SECOND_NS // elapsed_ns
        if mean == 0:
            stream.layer_bytes[layer] = STARTED
        elif mean == STARTED:
            stream.layer_bytes[layer] = max(byte_rate, LEAST)
            stream.layer_packets[layer] = packet_rate
        else:
            step = min(elapsed_ns, mean_ns)
            stream.layer_bytes[layer] = max(mean + (byte_rate - mean) * step // mean_ns, LEAST)
            packets = np.int64(stream.layer_packets[layer])
            stream.layer_packets[layer] = packets + (packet_rate - packets) * step // mean_ns
        total += max(np.int64(stream.layer_bytes[layer]), 0)
    told = np.int64(stream.rate_told)
    if abs(total - told) * 100 <= told * CHANGE_PERCENT:
        return False
    stream.rate_told = total
    return True


@njit(cache=True)
def measured_layer(stream, spatial, temporal, packet_overhead):
    """Bit/s on the wire of one layer alone, with the margin of costs; 0: it sends nothing or was not measured yet."""
    layer = spatial * COST_TEMPORAL + temporal
    if stream.layer_bytes[layer] <= 0:
        return np.int64(0)
    return wire_bps(np.int64(stream.layer_bytes[layer]), np.int64(stream.layer_packets[layer]), packet_overhead)
