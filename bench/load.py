"""The load generator's kernel: paced SRTP out, and every subscriber's socket read and decrypted, in one loop.

Open loop: burst i is due at start + i * interval whatever happened before. What a burst is made of stands in a table of
packets (`packet_t`), which is sent over and over. The send time travels as 8 bytes of payload, so latency is measured
on one clock. Receivers are live: each packet is received and authenticated.
"""

import platform
from typing import Any

import numpy as np
from numba import njit, types

from sfu.compiler.native import clock_gettime, recvmmsg, sendmmsg, srtp_protect, srtp_unprotect
from sfu.media.wire.numbers import get_u16, get_u32, put_u16, put_u32
from sfu.schema.tables import iovec_t, mmsghdr_t

EVENT_WORDS = 3 if platform.machine() == "x86_64" else 4
"""32-bit words of an epoll_event: packed on x86-64 only."""
DATA_WORD = 1 if EVENT_WORDS == 3 else 2
EVENTS = 256
SLOTS = 64
SLOT_BYTES = 2048
LATENCIES = 1 << 20
CLOCK_MONOTONIC = 1
MSG_DONTWAIT = 0x40
PAYLOAD_TYPE, MID_ID, TRANSPORT_CC_ID = 96, 4, 3
HEADER_BYTES = 12 + 4 + 8
"""RTP header, extension header, one-byte extensions: mid (1 character) and transport-cc, padded."""
DESCRIPTOR_BYTES = 4
"""VP8 payload descriptor with X, I and a 15-bit picture id."""
TIME_AT = HEADER_BYTES + DESCRIPTOR_BYTES + 10
LEAST_BYTES = TIME_AT + 8
"""Of a packet: it carries its send time."""

_i32, _u64 = types.int32, types.uint64
epoll_wait = types.ExternalFunction("epoll_wait", _i32(_i32, _u64, _i32, _i32))

packet_t = np.dtype(
    [
        ("bytes", "i8"),  # plaintext RTP packet, LEAST_BYTES to SLOT_BYTES - 16
        ("first", "u1"),  # of its frame
        ("last", "u1"),  # of its frame
        ("key", "u1"),  # belongs to a key frame
    ],
    align=True,
)
"""A packet of the table that is sent; the first one of the table is the first of a frame, the last one the last."""

load_t = np.dtype(
    [
        # what to send
        ("publisher_fd", "i4"),
        ("publisher_srtp", "u8"),
        ("ssrc", "u4"),
        ("per_burst", "i8"),  # packets sent back to back; 0: a frame
        ("interval_ns", "i8"),  # between bursts
        ("start_ns", "i8"),
        ("measure_ns", "i8"),  # packets sent earlier are warm-up
        ("end_ns", "i8"),
        ("drain_ns", "i8"),
        # where the generator is
        ("at", "i8"),  # in the table of packets
        ("index", "i8"),  # packets so far
        ("frame", "i8"),  # frames so far
        ("transport_sequence", "i8"),
        # what came
        ("sent", "i8"),
        ("received", "i8"),
        ("measured", "i8"),  # received of those sent after measure_ns
        ("offered", "i8"),  # sent after measure_ns
        ("rejected", "i8"),  # did not authenticate
        ("other", "i8"),  # not RTP
        ("epoll_fd", "i4"),
        ("busy_ns", "i8"),  # time not spent waiting
        # addresses of the arrays below
        ("slots_at", "u8"),
        ("messages_at", "u8"),
        ("events_at", "u8"),
        ("scratch_at", "u8"),
    ],
    align=True,
)


@njit(cache=True)
def _clock(load, scratch):
    clock_gettime(CLOCK_MONOTONIC, load.scratch_at)
    return scratch[0] * 1_000_000_000 + scratch[1]


@njit(cache=True)
def write_packet(packet, load, packets, now):
    """Fill a 1-D u1 slot with the next VP8 packet of `packets`, (P,) packet_t; returns its plaintext size in bytes."""
    described = packets[load.at]
    load.frame += np.int64(described.first)
    packet[0] = 0x90
    packet[1] = PAYLOAD_TYPE | (0x80 if described.last else 0)
    put_u16(packet, 2, load.index & 0xFFFF)
    put_u32(packet, 4, (load.frame * 3000) & 0xFFFFFFFF)
    put_u32(packet, 8, load.ssrc)
    put_u16(packet, 12, 0xBEDE)
    put_u16(packet, 14, 2)
    packet[16] = MID_ID << 4
    packet[17] = 48  # mid "0"
    packet[18] = TRANSPORT_CC_ID << 4 | 1
    put_u16(packet, 19, load.transport_sequence & 0xFFFF)
    packet[21] = packet[22] = packet[23] = 0
    at = HEADER_BYTES
    packet[at] = 0x80 | (0x10 if described.first else 0)  # X, S
    packet[at + 1] = 0x80  # I
    put_u16(packet, at + 2, 0x8000 | (load.frame & 0x7FFF))
    packet[at + 4] = 0 if described.first and described.key else 1  # P bit clear: key frame
    put_u32(packet, TIME_AT, now >> 32)
    put_u32(packet, TIME_AT + 4, now & 0xFFFFFFFF)
    load.index += 1
    load.transport_sequence += 1
    load.at = load.at + 1 if load.at + 1 < len(packets) else 0
    return described.bytes


@njit(cache=True)
def ends_burst(load, packets, count):
    """Whether a burst is complete with the `count` packets that were written of it."""
    if load.per_burst > 0:
        return count >= load.per_burst
    return packets[load.at].first != 0


@njit(cache=True)
def send_burst(load, packets, slots, iov, scratch, now):
    """Write, protect and send the next burst, SLOTS packets at a time. Arguments as of `run`; now: ns."""
    count, complete = 0, False
    while not complete:
        k = 0
        while k < SLOTS and not complete:
            scratch[4] = write_packet(slots[k], load, packets, now)
            at = load.slots_at + np.uint64(k * SLOT_BYTES)
            srtp_protect(load.publisher_srtp, at, load.scratch_at + np.uint64(32))
            iov[k].bytes = scratch[4] & 0xFFFFFFFF
            k += 1
            complete = ends_burst(load, packets, count + k)
        sendmmsg(load.publisher_fd, load.messages_at, k, 0)
        count += k
    load.sent += count
    if now >= load.measure_ns:
        load.offered += count


@njit(cache=True)
def _read_socket(load, fd, session, slots, iov, messages, scratch, latencies):
    for k in range(SLOTS):
        iov[k].bytes = SLOT_BYTES
    count = recvmmsg(fd, load.messages_at, SLOTS, MSG_DONTWAIT, 0)
    if count <= 0:
        return
    now = _clock(load, scratch)
    for k in range(count):
        packet = slots[k]
        if packet[0] >> 6 != 2 or 192 <= packet[1] <= 223:
            load.other += 1
            continue
        scratch[4] = messages[k].bytes
        code = srtp_unprotect(session, load.slots_at + np.uint64(k * SLOT_BYTES), load.scratch_at + np.uint64(32))
        if code != 0:
            load.rejected += 1
            continue
        load.received += 1
        at = 12 + (4 + 4 * get_u16(packet, 14) if packet[0] & 0x10 else 0) + DESCRIPTOR_BYTES + 10
        sent = get_u32(packet, at) << 32 | get_u32(packet, at + 4)
        if sent >= load.measure_ns:
            latencies[load.measured & (LATENCIES - 1)] = now - sent
            load.measured += 1


@njit(nogil=True, cache=True)
def run(load, packets, fds, sessions, slots, iov, messages, events, scratch, latencies):
    """Send and receive until `end_ns`, then receive what is still on its way until `drain_ns`.

    load: one load_t record; packets: (P,) packet_t; fds: (N,) i4 and sessions: (N,) u8 of the subscribers; the rest
    are the generator's own buffers as made by `Generator`. Returns nothing; the counters are in `load`, latencies in
    ns in `latencies`.
    """
    due = load.start_ns
    now = _clock(load, scratch)
    while now < load.drain_ns:
        while due <= now and now < load.end_ns:
            send_burst(load, packets, slots, iov, scratch, now)
            due += load.interval_ns
            now = _clock(load, scratch)
        before = now
        # never asleep: over loopback the server would pay for each time that it wakes us up
        count = epoll_wait(load.epoll_fd, load.events_at, EVENTS, 0)
        now = _clock(load, scratch)
        if count <= 0:
            continue
        for e in range(count):
            k = np.int64(events[e * EVENT_WORDS + DATA_WORD])
            _read_socket(load, fds[k], sessions[k], slots, iov, messages, scratch, latencies)
        after = _clock(load, scratch)
        load.busy_ns += after - before
        now = after


class Generator:
    """The buffers of one generator; `run` them with `start`."""

    def __init__(self) -> None:
        self.load = np.zeros(1, load_t)
        self.slots = np.zeros((SLOTS, SLOT_BYTES), np.uint8)
        self.iov = np.zeros(SLOTS, iovec_t)
        self.messages = np.zeros(SLOTS, mmsghdr_t)
        self.events = np.zeros(EVENTS * EVENT_WORDS, np.int32)
        self.scratch = np.zeros(16, np.int64)
        self.latencies = np.zeros(LATENCIES, np.int64)
        numbers = np.arange(SLOTS, dtype=np.uint64)
        self.iov["base"] = self.slots.ctypes.data + numbers * SLOT_BYTES
        self.messages["iov"] = self.iov.ctypes.data + numbers * 16
        self.messages["iov_count"] = 1
        record: Any = self.load[0]
        record["slots_at"] = self.slots.ctypes.data
        record["messages_at"] = self.messages.ctypes.data
        record["events_at"] = self.events.ctypes.data
        record["scratch_at"] = self.scratch.ctypes.data

    def warm_up(self) -> None:
        """Compile the kernel, or load it, before any schedule begins."""
        self.run(np.zeros(1, packet_t), np.zeros(1, np.int32), np.zeros(1, np.uint64))

    def run(self, packets: Any, fds: Any, sessions: Any) -> None:
        """Run the loop as `load` describes it; see `run`."""
        run(
            self.load[0],
            packets,
            fds,
            sessions,
            self.slots,
            self.iov,
            self.messages,
            self.events,
            self.scratch,
            self.latencies,
        )

    def latencies_us(self) -> Any:
        """What was measured, in microseconds, unsorted."""
        return self.latencies[: min(int(self.load[0]["measured"]), LATENCIES)] / 1e3
