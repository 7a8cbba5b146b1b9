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
QUIET_NS = 300_000_000
"""A stream whose last packet is so old may have stopped."""
STOPPED = 2
"""`quiet_checks` of a stream from which no packet came for a whole interval."""
CHANGE_PERCENT = 15
"""A stream whose rate moved by so much since it was last told of is told of again, as at Jitsi."""

REDUNDANCY = 1
"""Where what RED repeats is counted: the place of a temporal layer, of which audio has one."""

_PACKET_SHIFT = 40
_BYTES = (1 << _PACKET_SHIFT) - 1
_SECOND_NS = 1_000_000_000


@njit(cache=True)
def count_layer(stream, packet, size):
    """Count a packet of `size` bytes (whole plaintext RTP) for its layer: one word holds packets and bytes. What RED
    repeats of earlier packets is counted apart, because it can be left out."""
    redundant = np.int64(packet.primary_at)
    if redundant:
        stream.layer_traffic[REDUNDANCY] += redundant
        size -= redundant
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
def measure_stream(stream, elapsed_ns, screen, now):
    """Bring the means of a stream's layers up to date with what was counted in the last `elapsed_ns`. Returns whether
    its rate has changed so much that costs are to be looked at again.

    A camera or microphone that falls silent has been muted, or its layer switched off: meanwhile it costs nothing, and
    what it cost before counts again as soon as it goes on. A second in which it began or ended says nothing of it. A
    screen may stand still for long, and then costs little.
    """
    quiet = not screen and now - stream.last_ns > QUIET_NS
    if not quiet and stream.quiet_checks < STOPPED:
        stream.quiet_checks = 0
        return _measure(stream, elapsed_ns, SCREEN_MEAN_NS if screen else CAMERA_MEAN_NS)
    if not quiet:
        resume_stream(stream)
    elif stream.quiet_checks == 0:
        stream.quiet_checks = 1
    elif _has_news(stream):
        return _measure(stream, elapsed_ns, CAMERA_MEAN_NS)  # it is slow, not silent
    elif stream.quiet_checks == 1:
        stream.quiet_checks = STOPPED
        stream.rate_told = 0
        begin_layers(stream)
        return True
    begin_layers(stream)
    return not quiet


@njit(cache=True)
def resume_stream(stream):
    """A packet came: a stream that had stopped costs what it did before."""
    stream.quiet_checks = 0


@njit(cache=True)
def _has_news(stream):
    """Whether a packet came since the last pass."""
    news = np.int64(0)
    for layer in range(MEASURED_LAYERS):
        news |= stream.layer_traffic[layer] ^ stream.layer_checked[layer]
    return news != 0


@njit(cache=True)
def _measure(stream, elapsed_ns, mean_ns):
    """Take what was counted in the last `elapsed_ns` into the means; whether they moved so far as to be told."""
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
def measured_layer(stream, spatial, temporal, packet_overhead, rests=False):
    """Bit/s on the wire of one layer alone; 0: it sends nothing or was not measured yet. rests: its publisher was told
    to stop the stream, so that what it sent before counts."""
    layer = spatial * COST_TEMPORAL + temporal
    if stream.layer_bytes[layer] <= 0:
        return np.int64(0)
    if stream.quiet_checks == STOPPED and not rests:
        return wire_bps(LEAST, np.int64(0), packet_overhead)
    return wire_bps(np.int64(stream.layer_bytes[layer]), np.int64(stream.layer_packets[layer]), packet_overhead)
