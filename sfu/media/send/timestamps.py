"""Where a stream's RTP timestamps land on a subscription's timeline when forwarding turns to that stream.

Called by egress at a start, switch or resumption. Layers are aligned by the publisher's sender reports (RFC 3550
section 6.4.1), or by arrival while one of them has no report: a switch never waits. The offset then stays.
"""

import numpy as np
from numba import njit

from sfu.media.wire.numbers import signed32
from sfu.media.wire.rtp import ticks_of
from sfu.schema.codes import RowState

NO_OUTPUT = 0
"""last_ns of a subscription that has sent nothing."""
MAX_DISAGREEMENT_S = 1
"""When reports and arrival differ by more, the reports are wrong."""
FRAMES_PER_SECOND = 30
"""When a new stream does not lead forward by itself, the timestamp advances by one frame at this rate."""
FASTEST_FRAMES_PER_SECOND = 100

_FIXED_HOUR = 3600 << 32


@njit(cache=True)
def align_timestamps(state, subscription, stream_row, packet):
    """Set timestamp_offset so that `packet`, the first one to be sent of its stream, moves the output forward.

    subscription.stream and source_ssrc still name the stream forwarded before.
    """
    if subscription.last_ns == NO_OUTPUT:
        return
    stream = state.streams[stream_row]
    clock_rate = np.int64(stream.clock_rate)
    timestamp, last = np.int64(packet.timestamp), np.int64(subscription.last_timestamp)
    arrived = last + ticks_of(packet.arrival_ns - subscription.last_ns, clock_rate)
    if subscription.stream == stream_row and subscription.source_ssrc == stream.ssrc:
        out = timestamp - np.int64(subscription.timestamp_offset)
    elif _has_reports(state, subscription, stream):
        before = state.streams[subscription.stream]
        apart = np.int64(stream.report_ntp - before.report_ntp)  # 32.32 fixed point, wraps into a signed number
        apart = min(max(apart, -_FIXED_HOUR), _FIXED_HOUR)
        ticks = ((apart >> 16) * clock_rate >> 16) + timestamp - np.int64(stream.report_timestamp)
        out = np.int64(before.report_timestamp) + ticks - np.int64(subscription.timestamp_offset)
    else:
        out = arrived
    if abs(signed32(out - arrived)) > MAX_DISAGREEMENT_S * clock_rate:
        out = arrived
    if signed32(out - last) < clock_rate // FASTEST_FRAMES_PER_SECOND:
        out = last + clock_rate // FRAMES_PER_SECOND
    subscription.timestamp_offset = (timestamp - out) & 0xFFFFFFFF


@njit(cache=True)
def _has_reports(state, subscription, stream):
    """Both streams have a sender report and the same clock."""
    if subscription.stream < 0:
        return False
    before = state.streams[subscription.stream]
    return (
        before.state == RowState.OPEN
        and before.ssrc == subscription.source_ssrc
        and before.track == stream.track
        and before.report_ntp != 0
        and stream.report_ntp != 0
        and before.clock_rate == stream.clock_rate
    )
