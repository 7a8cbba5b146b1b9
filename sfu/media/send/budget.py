"""How much may leave for a transport now: the budget of the pacer.

Follows libwebrtc's pacer: somewhat more than the estimate, in bursts of at most 40 ms of it. Everything that is
numbered is charged, also what never waits: the budget is counted against the send log's running total of bytes, so a
packet costs it nothing.
"""

import numpy as np
from numba import njit

from sfu.media.allocation.due import is_ruled_by_reports, is_silent, path_queue_ms, usable_estimate
from sfu.media.net.frame_queue import is_over_tcp
from sfu.media.net.send_log import count_at_once, open_log, unreported_bytes
from sfu.schema.capacities import SENT_PACKETS
from sfu.schema.codes import MediaKind
from sfu.schema.estimate_tables import START_BPS

UNLIMITED = 1 << 62
"""`free_number` of a transport that is not paced."""
PACING_PERCENT = 150
"""The pacing rate in percent of the estimate. With libwebrtc's 110 for a steady rate, frames of screens and of layers
close to the estimate were spread so evenly that it did not grow any more: 15 % less of a link of 700 kbit/s was used,
and upper temporal layers were left out. libwebrtc itself has 250 for cameras."""
STANDING_MS = 100.0
DRAINING_PERCENT = 100
"""While packets wait for so long on the path, nothing leaves faster than the estimate: the key frame of the layer that
fits would otherwise be lost in a full queue. A link that fell from 3 Mbit/s to 700 kbit/s before a queue of 300 ms
showed no picture for 990 ms, and 680 with this."""
KEY_FRAME_STEADY_PERCENT = 110
"""The pacing rate in percent of the estimate while a key frame waits whose end is far, on a path that takes no more:
its queue is to stay short."""
KEY_FRAME_PERCENT = 250
"""The pacing rate in percent of the estimate while a key frame that has begun to leave waits and the path takes it.
Before the first feedback it is the pacing rate in percent of the start rate, which is a low guess."""
KEY_FRAME_FAST_NS = 2_000_000_000
"""How long a key frame may leave at KEY_FRAME_PERCENT."""
KEY_FRAME_REST_NS = 4_000_000_000
"""Least time from the beginning of one key frame that leaves faster than media do to the next."""
BURST_NS = 40_000_000
MAX_BURST_BYTES = 63_000
MAX_TCP_BURST_BYTES = 16_000
"""The most that leaves at once for a transport over TCP that is not paced: what waits on our side shows that there is
too much of it, but not before it has left the pacer."""
MAX_DEBT_NS = 500_000_000
"""What never waits may use up the budget of so long a time in advance. What it uses beyond that is forgotten: once it
ends, video waits no longer than this."""
PACKET_BYTES = 1_500
"""The size that a packet is taken to have where only numbers of packets are compared."""
HEADER_BYTES = 80
"""What a packet has on the wire beside its payload: headers of IP, UDP and RTP, extensions, the tag."""


@njit(cache=True)
def is_paced(state, row):
    """Whether what is sent to transport `row` is spaced: its peer reports what arrives, and video takes numbers."""
    transport = state.transports[row]
    if transport.media < 0 or not state.media[transport.media].numbered[MediaKind.VIDEO]:
        return False
    if is_ruled_by_reports(state, row):
        return False
    return usable_estimate(state, row) > 0


@njit(cache=True)
def leaves_old(state, row):
    """Whether what waits for too long for transport `row` is left out although no key frame waits behind it: its peer
    reports nothing any more, or never does and is sent to over TCP, where nothing else tells that too much is sent."""
    return is_silent(state, row) or (is_over_tcp(state, row) and not is_paced(state, row))


@njit(cache=True)
def pace_bps(state, row, now):
    """The rate at which media leave for a paced transport, bit/s: as fast as a probe while one runs. Before the first
    feedback it follows what the client's last path carried, if that is known.

    What was allocated leaves in time where it exceeds the estimate, as long as no queue stands: on a narrow path audio
    would otherwise use up the rate, and key frames leave packet by packet.
    """
    transport, estimate, log = state.transports[row], state.estimates[row], state.send_logs[row]
    resumed = np.int64(transport.resumed_bps)
    rate = resumed * PACING_PERCENT // 100 if resumed > 0 else np.int64(START_BPS * KEY_FRAME_PERCENT // 100)
    if transport.estimated and estimate.feedbacks > 0:
        percent, target = PACING_PERCENT, np.int64(estimate.target_bps)
        stands = path_queue_ms(estimate) > STANDING_MS
        if stands:
            percent = DRAINING_PERCENT
        elif log.key_waits:
            faster = now - log.overdrawn_ns < KEY_FRAME_FAST_NS and _takes_more(state, row)
            percent = KEY_FRAME_PERCENT if faster else KEY_FRAME_STEADY_PERCENT
        rate = target * percent // 100
        if not stands:
            rate = max(rate, min(np.int64(transport.allocated_bps), target * KEY_FRAME_PERCENT // 100))
    return max(rate, np.int64(estimate.probe_bps)) if transport.probe_cluster else rate


@njit(cache=True)
def _takes_more(state, row):
    """Whether a path is seen to carry more than its estimate: less than it carries in a round trip is not reported."""
    estimate = state.estimates[row]
    if estimate.silent or estimate.rtt_ns == 0:
        return False
    window = estimate.target_bps * estimate.rtt_ns // 8_000_000_000
    return unreported_bytes(state, row, SENT_PACKETS // 4) < window


@njit(cache=True)
def refill(state, row, now):
    """Count what transport `row` has earned until `now`. Returns how many bytes may leave; the last packet may exceed
    them. Not above 0: something has to wait."""
    open_log(state, row)
    log = state.send_logs[row]
    rate = pace_bps(state, row, now)
    burst = min(rate * BURST_NS // 8_000_000_000, MAX_BURST_BYTES)
    debt = rate * MAX_DEBT_NS // 8_000_000_000
    elapsed = min(now - log.paced_ns, MAX_DEBT_NS + BURST_NS)
    credit = max(log.pace_bytes - log.bytes, -debt) + rate * elapsed // 8_000_000_000
    log.pace_bytes = log.bytes + min(credit, burst)
    log.paced_ns = now
    return np.int64(log.pace_bytes - log.bytes)


@njit(cache=True)
def room_at_once(state, row):
    """How many packets may yet leave for transport `row` in the flush that is being filled."""
    most = np.int64(state.send_logs[row].burst_most)
    return most - count_at_once(state, row, most)


@njit(cache=True)
def set_free_number(state, row):
    """Note up to which number video may leave for transport `row` without asking, now that nothing waits. Returns its
    `room_at_once`."""
    transport, log = state.transports[row], state.send_logs[row]
    packets = max(log.pace_bytes - log.bytes, 0) // PACKET_BYTES
    room = room_at_once(state, row)
    transport.free_number = transport.next_number + min(packets, room)
    return room


@njit(cache=True)
def fits(state, row, stream_row, count, room):
    """Whether all that state.batch, of `count` packets, has of a stream may leave for transport `row` now, which has
    `room` for so many packets at once."""
    log = state.send_logs[row]
    packets, total = np.int64(0), np.int64(0)
    for k in range(count):
        arrival = state.batch[k]
        if arrival.stream == stream_row:
            packets += 1
            total += np.int64(state.packets[stream_row, arrival.index].size) + HEADER_BYTES
    if packets <= 1:
        return log.pace_bytes > log.bytes and packets <= room
    return total <= log.pace_bytes - log.bytes and packets <= room
