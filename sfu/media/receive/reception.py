"""What is counted about an incoming stream, and the report block made of it (RFC 3550 sections 6.4.1, A.1, A.3, A.8).

Sequence numbers of a stream are extended ones that never go back, also when its SSRC changes: `sequence_shift` is the
difference to the (extended) number of the wire.
"""

import numpy as np
from numba import njit

from sfu.media.stream.subscriber_loss import subscriber_loss
from sfu.media.wire.numbers import extend16, put_u24, put_u32, signed32
from sfu.schema.capacities import SEQUENCE_START

REPLAY_WINDOW = 1024
"""libsrtp's window as the transports set it: it has refused what is older, so such a number is really a wrap ahead."""
RESTART_GAP = 4
"""Numbers left free when the SSRC of a stream changes, for packets that overtook each other at the change."""
MAX_LOST = 0x7FFFFF
"""Cumulative loss is a signed 24-bit number."""


@njit(cache=True)
def extend_primary(stream, sequence):
    """The stream's extended number for a sequence number (16 bits) of its own SSRC."""
    if stream.highest < 0:
        return extend16(sequence, -1) + stream.sequence_shift
    extended = extend16(sequence, stream.highest - stream.sequence_shift) + stream.sequence_shift
    if extended < stream.highest - REPLAY_WINDOW:
        extended += 0x10000
    return extended


@njit(cache=True)
def extend_repair(stream, sequence):
    """The stream's extended number for the original one (16 bits) in an RTX packet, which no replay window has seen."""
    return extend16(sequence, stream.highest - stream.sequence_shift) + stream.sequence_shift


@njit(cache=True)
def wire_sequence(stream, extended):
    """The 16-bit number that the publisher used."""
    return (extended - stream.sequence_shift) & 0xFFFF


@njit(cache=True)
def restart(stream, sequence):
    """A new SSRC continues a stream, its first packet being `sequence`: choose the shift so that numbers only grow."""
    first = stream.highest + RESTART_GAP
    stream.sequence_shift = first - (SEQUENCE_START + sequence)
    stream.highest = first - 1
    stream.base = first - stream.received  # as if nothing had been lost so far
    stream.expected_prior = stream.received
    stream.received_prior = stream.received
    stream.transit = 0
    stream.jitter = 0
    stream.missing_count = 0
    stream.report_ntp = 0
    stream.key_sequence = -1
    stream.sets_sequence = 0
    stream.acknowledged = 0


@njit(cache=True)
def count_packet(stream, extended, size, timestamp, arrival):
    """Count a packet of the stream's own SSRC (not RTX) whose clock rate is known. arrival: ns."""
    if stream.highest < 0 or stream.received == 0 or extended < stream.base:
        stream.base = extended
    stream.received += 1
    stream.bytes += size
    if extended <= stream.highest:
        return
    stream.highest = extended
    # in microseconds, so that uptime times clock rate stays within 64 bits
    ticks = (arrival // 1000) * np.int64(stream.clock_rate) // 1_000_000
    transit = signed32(ticks - np.int64(timestamp))
    if stream.transit != 0:
        difference = abs(signed32(transit - stream.transit))
        stream.jitter += difference - ((stream.jitter + 8) >> 4)
    stream.transit = transit if transit != 0 else 1


@njit(cache=True)
def write_report_block(stream, data, at, now):
    """Write the 24 bytes about a stream that has received something, and close its interval. now: ns."""
    expected = stream.highest - stream.base + 1
    lost = expected - stream.received
    expected_interval = expected - stream.expected_prior
    lost_interval = expected_interval - (stream.received - stream.received_prior)
    stream.expected_prior = expected
    stream.received_prior = stream.received
    stream.lost = lost
    fraction = 0
    if expected_interval > 0 and lost_interval > 0:
        fraction = min((lost_interval << 8) // expected_interval, 255)
    if stream.subscriber_loss_ns != 0:  # of audio, where the operator chose that
        fraction = max(fraction, np.int64(subscriber_loss(stream, now)))
    put_u32(data, at, np.int64(stream.ssrc))
    data[at + 4] = fraction
    put_u24(data, at + 5, min(max(lost, -MAX_LOST), MAX_LOST))
    put_u32(data, at + 8, stream.highest - stream.sequence_shift - SEQUENCE_START)
    put_u32(data, at + 12, stream.jitter >> 4)
    if stream.report_ntp == 0:
        put_u32(data, at + 16, 0)
        put_u32(data, at + 20, 0)
        return
    put_u32(data, at + 16, np.int64(stream.report_ntp >> np.uint64(16)) & 0xFFFFFFFF)
    put_u32(data, at + 20, delay_units(now - stream.report_ns))


@njit(cache=True)
def delay_units(duration):
    """ns as units of 1/65536 s, the form of DLSR."""
    return min((max(duration, 0) // 1000 * 65536) // 1_000_000, 0xFFFFFFFF)
