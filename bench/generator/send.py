"""What the generator's publishers send: frames and sound on an absolute schedule, each packet with a mark at its end.

The mark is in the last bytes of the payload, where no forwarding unit looks. It names the stream, the packet's number
in it and its send time, and survives new headers, rewritten payload descriptors and RTX.
"""

import numpy as np
from numba import njit

from bench.generator.tables import SLOT_BYTES, SLOTS, VIDEO
from sfu.compiler.native import clock_gettime, sendmmsg, srtp_protect
from sfu.media.wire.numbers import get_u32, put_u16, put_u32

CLOCK_REALTIME, CLOCK_MONOTONIC = 0, 1
MSG_DONTWAIT = 0x40
KEY_INTERVAL_FRAMES = 90
"""Frames between regular key frames. A scenario may have more; those add to the rate, as requested ones do."""
KEY_WEIGHT = 5
"""A key frame takes as many bytes as so many others."""
MARK = 0x61696F73
MARK_BYTES = 20
"""Mark, row of the stream, place in it, send time on the monotonic clock (8 bytes)."""
WIDTH, HEIGHT = 1280, 720
"""The size that key frames announce."""
_SECOND = 1_000_000_000
_LENGTH = 4


@njit(cache=True)
def read_clock(g, clock):
    """Read a clock of clock_gettime(2), in nanoseconds."""
    clock_gettime(clock, g.control[0].scratch_at)
    return g.scratch[0] * _SECOND + g.scratch[1]


@njit(cache=True)
def _sift_up(g, place):
    due, row = g.heap_due[place], g.heap_row[place]
    while place > 0:
        parent = (place - 1) // 2
        if g.heap_due[parent] <= due:
            break
        g.heap_due[place], g.heap_row[place] = g.heap_due[parent], g.heap_row[parent]
        place = parent
    g.heap_due[place], g.heap_row[place] = due, row


@njit(cache=True)
def schedule(g, row, due):
    """Let stream `row` send at `due` ns."""
    control = g.control[0]
    place = control.scheduled
    control.scheduled += 1
    g.heap_due[place], g.heap_row[place] = due, row
    _sift_up(g, place)


@njit(cache=True)
def _take_first(g):
    """Take the stream that is due first out of the schedule; returns its row."""
    control = g.control[0]
    first = np.int64(g.heap_row[0])
    control.scheduled -= 1
    last = control.scheduled
    due, row = g.heap_due[last], g.heap_row[last]
    place = 0
    while 2 * place + 1 < last:
        child = 2 * place + 1
        if child + 1 < last and g.heap_due[child + 1] < g.heap_due[child]:
            child += 1
        if g.heap_due[child] >= due:
            break
        g.heap_due[place], g.heap_row[place] = g.heap_due[child], g.heap_row[child]
        place = child
    g.heap_due[place], g.heap_row[place] = due, row
    return first


@njit(cache=True)
def rtp_time(at_ns, clock_rate):
    """Return the RTP timestamp of a moment; all layers of a camera share one clock."""
    return at_ns // 1000 * clock_rate // 1_000_000 & 0xFFFFFFFF


@njit(cache=True)
def _write_payload(packet, at, send, first, key):
    """Write a VP8 payload descriptor with a 15-bit picture id and the first bytes of the frame; audio has neither."""
    if send.kind != VIDEO:
        return
    packet[at] = 0x80 | (0x10 if first else 0)  # X, S
    packet[at + 1] = 0x80  # I
    put_u16(packet, at + 2, 0x8000 | (send.frame & 0x7FFF))
    packet[at + 4] = 0 if key else 1  # P bit clear: key frame
    if key and first:
        packet[at + 7], packet[at + 8], packet[at + 9] = 0x9D, 0x01, 0x2A
        put_u16(packet, at + 10, (WIDTH & 0xFF) << 8 | WIDTH >> 8)
        put_u16(packet, at + 12, (HEIGHT & 0xFF) << 8 | HEIGHT >> 8)


@njit(cache=True)
def _write_packet(g, row, packet, size, first, last, key, now):
    """Fill `packet` with `size` bytes of plaintext, the first or last of its frame, which may be a key frame."""
    send = g.sends[row]
    endpoint = g.transports[send.endpoint]
    header = np.int64(send.header_bytes)
    for k in range(header):
        packet[k] = send.header[k]
    if last and send.kind == VIDEO:
        packet[1] |= 0x80
    put_u16(packet, 2, send.index & 0xFFFF)
    put_u32(packet, 4, send.timestamp)
    if send.transport_cc_at:
        put_u16(packet, np.int64(send.transport_cc_at), endpoint.transport_sequence & 0xFFFF)
        endpoint.transport_sequence += 1
    _write_payload(packet, header, send, first, key)
    at = size - MARK_BYTES
    put_u32(packet, at, MARK)
    put_u32(packet, at + 4, row)
    put_u32(packet, at + 8, send.index & 0xFFFFFFFF)
    put_u32(packet, at + 12, now >> 32)
    put_u32(packet, at + 16, now & 0xFFFFFFFF)
    send.index += 1
    send.octets += size - header


@njit(cache=True)
def _protect(g, endpoint, k, size):
    """Protect send slot k; returns its new size."""
    if endpoint.outgoing == 0:
        return size
    control = g.control[0]
    g.scratch[_LENGTH] = size
    srtp_protect(
        endpoint.outgoing, control.tx_at + np.uint64(k * SLOT_BYTES), control.scratch_at + np.uint64(8 * _LENGTH)
    )
    return g.scratch[_LENGTH] & 0xFFFFFFFF


@njit(cache=True)
def send_slots(g, endpoint, count):
    """Send the first `count` slots; return how many the socket took."""
    control = g.control[0]
    done = 0
    while done < count:
        sent = np.int64(
            sendmmsg(endpoint.fd, control.tx_messages_at + np.uint64(64 * done), count - done, MSG_DONTWAIT)
        )
        if sent <= 0:
            control.unsent += count - done
            break
        done += sent
    return done


@njit(cache=True)
def _frame_packets(g, send, key):
    """Return how many packets the frame that is due has. A fraction of a packet is carried over to the next."""
    if send.frames_per_second == 0:
        return 1
    weight = KEY_WEIGHT if key else 1
    share = KEY_INTERVAL_FRAMES / (KEY_INTERVAL_FRAMES - 1 + KEY_WEIGHT)
    send.credit += weight * share * send.rate * g.control[0].load / send.frames_per_second
    count = np.int64(send.credit)
    send.credit -= count
    return count


@njit(cache=True)
def _send_frame(g, row, due):
    """Send everything that stream `row` has at `due`."""
    control, send = g.control[0], g.sends[row]
    endpoint = g.transports[send.endpoint]
    key = send.kind == VIDEO and (send.key_requested != 0 or send.frame - send.key_frame >= control.key_interval)
    count = _frame_packets(g, send, key)
    if count == 0:
        send.frame += 1
        return
    if key:
        send.key_requested = 0
        send.key_frame = send.frame
    send.timestamp = rtp_time(due, send.clock_rate)
    size = np.int64(send.packet_bytes)
    first = 0
    while first < count:
        slots = min(count - first, SLOTS)
        now = read_clock(g, CLOCK_MONOTONIC)
        for k in range(slots):
            place = first + k
            _write_packet(g, row, g.tx[k], size, place == 0, place == count - 1, key, now)
            g.tx_iov[k].bytes = _protect(g, endpoint, k, size)
        _send_written(g, send, slots, due, now)
        first += slots
    send.frame += 1


@njit(cache=True)
def _send_written(g, send, slots, due, now):
    """Send the first `slots` slots, written at `now`, which were due at `due`."""
    control = g.control[0]
    send_slots(g, g.transports[send.endpoint], slots)
    if control.measure_ns <= now < control.end_ns:
        send.offered += slots
        control.late_ns = max(control.late_ns, now - due)


@njit(cache=True)
def send_burst(g, row, due):
    """Send the next burst of stream `row`, which has a pattern."""
    send = g.sends[row]
    endpoint = g.transports[send.endpoint]
    count, complete = 0, False
    while not complete:
        slots = 0
        now = read_clock(g, CLOCK_MONOTONIC)
        while slots < SLOTS and not complete:
            described = g.patterns[send.pattern_first + send.pattern_at]
            if described.first:
                send.frame += 1
                send.timestamp = rtp_time(due, send.clock_rate)
            size = np.int64(described.bytes)
            _write_packet(g, row, g.tx[slots], size, described.first, described.last, described.key, now)
            g.tx_iov[slots].bytes = _protect(g, endpoint, slots, size)
            send.pattern_at = send.pattern_at + 1 if send.pattern_at + 1 < send.pattern_packets else 0
            slots += 1
            count += 1
            complete = described.last != 0 if send.per_burst == 0 else count >= send.per_burst
        _send_written(g, send, slots, due, now)


@njit(cache=True)
def _period(g, send):
    if send.pattern_packets > 0:
        return np.int64(_SECOND / (send.frames_per_second * g.control[0].load))
    if send.frames_per_second > 0:
        return np.int64(_SECOND / send.frames_per_second)
    return np.int64(_SECOND / (send.rate * g.control[0].load))


@njit(cache=True)
def send_due(g, now, most):
    """Send what is due at `now`, at most `most` frames; return when the next is due, in ns."""
    control = g.control[0]
    for _ in range(most):
        if control.scheduled == 0 or g.heap_due[0] > now:
            break
        due = g.heap_due[0]
        row = _take_first(g)
        send = g.sends[row]
        if not send.active:
            continue
        if not send.muted and send.pattern_packets > 0:
            send_burst(g, row, due)
        elif not send.muted:
            _send_frame(g, row, due)
        schedule(g, row, due + _period(g, send))
    return g.heap_due[0] if control.scheduled > 0 else now + _SECOND


@njit(cache=True)
def hold(g, now):
    """Postpone what is due at `now`. Patterns begin again with their key frame."""
    control = g.control[0]
    for place in range(control.scheduled):
        g.heap_due[place] = max(g.heap_due[place], now)
    for row in range(control.adopted):
        g.sends[row].pattern_at = 0


@njit(cache=True)
def mark_at(packet, start, size):
    """Return the offset of a packet's mark; -1: it has none, as padding and probes."""
    at = size - MARK_BYTES
    if at < start or get_u32(packet, at) != MARK:
        return -1
    return at
