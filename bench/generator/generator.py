"""The load generator: thousands of WebRTC endpoints in one compiled loop, which runs in a thread without the GIL.

The loop is open: it sends what is due, however late that is, and waits for no answer. Signalling, ICE and DTLS run in
asyncio beside it (`bench.clients.livekit`); a participant that is connected is handed over with `add`.
"""

import asyncio
import contextlib
import os
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit, types

from bench.generator.histogram import latency
from bench.generator.receive import receive_endpoint
from bench.generator.recording import pattern, per_frame
from bench.generator.rtcp import (
    CHECK_NS,
    send_feedback,
    send_nacks,
    send_receiver_reports,
    send_sender_reports,
)
from bench.generator.send import (
    CLOCK_MONOTONIC,
    CLOCK_REALTIME,
    KEY_INTERVAL_FRAMES,
    hold,
    read_clock,
    schedule,
    send_due,
)
from bench.generator.tables import (
    AUDIO,
    CHECK_BYTES,
    DATA_WORD,
    DESCRIPTORS,
    ENDPOINTS,
    EVENT_SLOTS,
    EVENT_WORDS,
    HEADER_BYTES,
    PATTERN_PACKETS,
    SENDS,
    VIDEO,
    Tables,
    endpoint_t,
)
from bench.plans import Connected, Layer, SendStream
from bench.results import Latency
from sfu.compiler.atomics import load_acquire, store_release
from sfu.compiler.native import ppoll
from sfu.control.scheduling import raise_priority

TICK_NS = 10_000_000
FEEDBACK_TICKS = 10
"""Each endpoint has its turn for transport-cc feedback every 100 ms, a tenth of them in each tick."""
REPORT_NS = 1_000_000_000
"""The time between two RTCP reports of an endpoint, unless `set_report_interval` sets another."""
FRAMES_AT_ONCE = 32
"""Frames sent before the sockets are looked at again."""
RECEIVE_BYTES = 4 << 20
SO_RCVBUFFORCE, SO_TIMESTAMPNS = 33, 35
NEVER_NS = 1 << 62
PHASES_NS = 33_000_000
"""Publishers begin at random moments within about one frame, so that not all send at once."""
AUDIO_CLOCK, VIDEO_CLOCK = 48_000, 90_000
STOP_TIMEOUT_S = 5.0
SIGNALLING_NICE = 15

ENDPOINT_BYTES, CHECK_AT = endpoint_t.itemsize, endpoint_t.fields["check"][1]

_i32, _u64 = types.int32, types.uint64
epoll_wait = types.ExternalFunction("epoll_wait", _i32(_i32, _u64, _i32, _i32))
send = types.ExternalFunction("send", types.int64(_i32, _u64, _u64, _i32))
MSG_DONTWAIT = 0x40
POLLIN = 1


@njit(cache=True)
def _adopt(g):
    """Add newly published streams to the schedule."""
    control = g.control[0]
    end = load_acquire(g.control.send_end, 0)
    while control.adopted < end:
        schedule(g, control.adopted, g.sends[control.adopted].due_ns)
        control.adopted += 1


@njit(cache=True)
def _serve(g, row, now):
    """Send what endpoint `row` sends periodically: feedback, reports and connectivity checks."""
    endpoint, control = g.transports[row], g.control[0]
    send_feedback(g, row, now)
    if endpoint.missing > 0:
        send_nacks(g, row)
    if now - endpoint.report_ns >= control.report_interval_ns:
        endpoint.report_ns = now
        send_receiver_reports(g, row, now)
        send_sender_reports(g, row, now)
    if endpoint.check_bytes > 0 and now - endpoint.check_ns >= CHECK_NS:
        endpoint.check_ns = now
        at = control.endpoints_at + np.uint64(row * ENDPOINT_BYTES + CHECK_AT)
        send(endpoint.fd, at, np.uint64(endpoint.check_bytes), MSG_DONTWAIT)


@njit(cache=True)
def _tick(g, now):
    control = g.control[0]
    control.tick_ns = now + TICK_NS
    control.tick += 1
    control.wall_offset_ns = read_clock(g, CLOCK_REALTIME) - read_clock(g, CLOCK_MONOTONIC)
    for row in range(control.tick % FEEDBACK_TICKS, load_acquire(g.control.endpoint_end, 0), FEEDBACK_TICKS):
        if load_acquire(g.transports.active, row):
            _serve(g, row, now)


@njit(cache=True)
def _read_ready(g):
    """Read every socket that has something; return how many had."""
    control = g.control[0]
    count = np.int64(epoll_wait(control.epoll_fd, control.events_at, EVENT_SLOTS, 0))
    for e in range(count):
        row = np.int64(g.endpoint_of_fd[g.events[e * EVENT_WORDS + DATA_WORD]]) - 1
        if row >= 0 and load_acquire(g.transports.active, row):
            now = receive_endpoint(g, row)
            if control.paused == 0 and control.scheduled > 0 and g.heap_due[0] <= now:
                send_due(g, now, FRAMES_AT_ONCE)  # many full sockets must not hold up the schedule
    return count


@njit(cache=True)
def _wait(g, until):
    """Sleep until a socket has something, or `until` ns."""
    control = g.control[0]
    timeout = min(until, control.tick_ns) - read_clock(g, CLOCK_MONOTONIC)
    if timeout <= 0:
        return
    g.poll[0].fd = control.epoll_fd
    g.poll[0].events = POLLIN
    g.scratch[2], g.scratch[3] = 0, min(timeout, TICK_NS)
    ppoll(control.poll_at, np.uint64(1), control.scratch_at + np.uint64(16), np.uint64(0))


@njit(cache=True)
def _send_or_hold(g, now):
    """Send what is due, unless paused; return when there is more to send, in ns."""
    if g.control[0].paused:
        hold(g, now)
        return now + TICK_NS
    return send_due(g, now, FRAMES_AT_ONCE)


@njit(nogil=True, cache=True)
def run(g):
    """Send, receive and answer until `control.stop` is set. `g` is the record of `Tables`."""
    control = g.control[0]
    while load_acquire(g.control.stop, 0) == 0:
        _adopt(g)
        now = read_clock(g, CLOCK_MONOTONIC)
        due = _send_or_hold(g, now)
        if now >= control.tick_ns:
            _tick(g, now)
        ready = _read_ready(g)
        if control.paused or not control.sleepless:
            if ready == 0:
                _wait(g, due)
        elif ready > 0 and control.measure_ns <= now < control.end_ns:
            control.busy_ns += read_clock(g, CLOCK_MONOTONIC) - now
        store_release(g.control.turns, 0, control.turns + 1)


class GeneratorFailed(Exception):
    """The loop ended by an error: its text is the kernel's."""


@dataclass(frozen=True, slots=True)
class Window:
    """What was counted of the packets that were sent in one window."""

    delivered: int
    latency: Latency
    """Packets that were sent before their receiver got anything do not count: servers begin with a stored key frame."""
    late_us: float
    """The largest delay of a frame behind its schedule."""
    busy_ns: int
    """The time in which a generator that does not sleep had something to do; 0 for one that sleeps."""


class Generator:
    """The loop with its tables and its thread."""

    def __init__(self, seed: int = 1) -> None:
        """`seed` decides which packets `set_loss` drops, and when within a frame's time streams begin."""
        self._tables = Tables()
        self._epoll = select.epoll()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._participants: dict[int, Connected] = {}
        self._phase = np.random.default_rng(seed)
        control = self._tables.control
        control["epoll_fd"] = self._epoll.fileno()
        control["random"] = seed
        control["load"] = 1.0
        control["key_interval"] = KEY_INTERVAL_FRAMES
        control["report_interval_ns"] = REPORT_NS
        control["measure_ns"] = control["end_ns"] = NEVER_NS

    # Life.

    def warm_up(self) -> None:
        """Compile the loop, or load it from the cache."""
        self._tables.control["stop"] = 1
        run(self._tables.record)
        self._tables.control["stop"] = 0

    def start(self, sleepless: bool = False) -> None:
        """Start the thread. If `sleepless`, it begins paused, and takes a whole core while it is not paused."""
        self.warm_up()
        self._tables.control["sleepless"] = self._tables.control["paused"] = sleepless
        self._thread = threading.Thread(target=self._run, name="generator", args=(not sleepless,), daemon=True)
        self._thread.start()
        if not sleepless:
            # the loop must not wait for a time slice of the signalling beside it
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), SIGNALLING_NICE)

    def _run(self, raised_priority: bool) -> None:
        if raised_priority:
            raise_priority()  # what waits for the signalling beside it would count as the server's latency
        try:
            run(self._tables.record)
        except BaseException as error:
            self._failure = error

    def stop(self) -> None:
        """End the thread. The participants' sockets stay open; whoever made them closes them."""
        self._tables.control["stop"] = 1
        if self._thread is not None:
            self._thread.join(STOP_TIMEOUT_S)
        self._epoll.close()

    def check(self) -> None:
        """Raise GeneratorFailed if the loop has ended by an error."""
        if self._failure is not None:
            raise GeneratorFailed(f"the load generator failed: {self._failure!r}") from self._failure

    # Participants.

    def add(self, participant: Connected, counted: bool = True) -> int:
        """Let a connected participant send and receive from now on; return its row.

        counted: whether what it receives is measured.
        """
        tables, control = self._tables, self._tables.control
        row, fd = int(control["endpoint_end"]), participant.socket.fileno()
        if row >= ENDPOINTS or fd >= DESCRIPTORS or len(participant.check) > CHECK_BYTES:
            raise ValueError(f"no room for participant {row}: {ENDPOINTS} is the most of one generator process")
        prepare(participant.socket)
        endpoint = tables.table("transports")[row]
        endpoint["fd"], endpoint["counted"] = fd, counted
        endpoint["incoming"], endpoint["outgoing"] = participant.incoming, participant.outgoing
        endpoint["ssrc"] = participant.sends[0].ssrc if participant.sends else int.from_bytes(os.urandom(4), "big")
        endpoint["transport_cc_id"] = participant.receive_transport_cc_id
        endpoint["check"][: len(participant.check)] = np.frombuffer(participant.check, np.uint8)
        endpoint["check_bytes"] = len(participant.check)
        endpoint["first_send"] = -1
        tables.table("endpoint_of_fd")[fd] = row + 1
        self._participants[row] = participant
        endpoint["active"] = 1
        control["endpoint_end"] = row + 1
        self._add_sends(row, participant.sends)
        self._epoll.register(fd, select.EPOLLIN)
        return row

    def _add_sends(self, row: int, streams: list[SendStream]) -> None:
        control, sends = self._tables.control, self._tables.table("sends")
        at = int(control["send_end"])
        if at + len(streams) > SENDS:
            raise ValueError(f"no room for more than {SENDS} streams in one generator process")
        now = time.monotonic_ns()
        phases: dict[str, int] = {}
        for k, stream in enumerate(streams, at):
            # the layers of one camera are encoded together
            phase = phases.setdefault(stream.kind, int(self._phase.random() * PHASES_NS))
            _fill_send(sends[k], row, stream, now + phase, k + 1 if k + 1 < at + len(streams) else -1)
            self._fill_pattern(sends[k], stream.layer)
        if streams:
            self._tables.table("transports")[row]["first_send"] = at
        control["send_end"] = at + len(streams)

    def _fill_pattern(self, send: Any, layer: Layer) -> None:
        """Enter the packets of a layer that has a table of them."""
        if not layer.pattern:
            return
        control, packets = self._tables.control, pattern(layer)
        first = int(control["pattern_end"])
        if first + len(packets) > PATTERN_PACKETS:
            raise ValueError(f"no room for more than {PATTERN_PACKETS} packets of patterns in one generator process")
        self._tables.table("patterns")[first : first + len(packets)] = packets
        control["pattern_end"] = first + len(packets)
        send["pattern_first"], send["pattern_packets"], send["per_burst"] = first, len(packets), layer.per_burst
        send["frames_per_second"] = layer.packets_per_second / (layer.per_burst or per_frame(packets))

    async def remove(self, row: int) -> None:
        """Remove a participant. When this returns, nothing of it is used any more."""
        participant = self._participants.pop(row)
        sends = self._tables.table("sends")
        sends["active"][: int(self._tables.control["send_end"])][
            sends["endpoint"][: int(self._tables.control["send_end"])] == row
        ] = 0
        self._tables.table("transports")[row]["active"] = 0
        with contextlib.suppress(OSError, ValueError):
            self._epoll.unregister(participant.socket.fileno())
        turn = int(self._tables.control["turns"])
        while int(self._tables.control["turns"]) < turn + 2:
            self.check()
            await asyncio.sleep(TICK_NS / 1e9)

    def rows_of(self, participant: Connected) -> range:
        """Return the rows of what a participant sends, in the order of its `sends`."""
        end = int(self._tables.control["send_end"])
        row = next(row for row, each in self._participants.items() if each is participant)
        first = int(self._tables.table("transports")[row]["first_send"])
        return range(first, min(first + len(participant.sends), end)) if first >= 0 else range(0)

    def mute(self, row: int, muted: bool) -> None:
        """Stop stream `row` of the table of streams, or let it go on."""
        self._tables.table("sends")[row]["muted"] = muted

    def pause(self, paused: bool) -> None:
        """Stop sending, or go on; streams of a pattern then begin it again. Receiving goes on in both cases."""
        self._tables.control["paused"] = paused

    def set_report_interval(self, seconds: float) -> None:
        """Let each endpoint send an RTCP report every `seconds`."""
        self._tables.control["report_interval_ns"] = int(seconds * 1e9)

    def set_load(self, load: float) -> None:
        """Multiply every stream's packet rate from its next frame on."""
        self._tables.control["load"] = load

    def set_loss(self, share: float) -> None:
        """Drop this share of the arriving media packets, as if the network had lost them."""
        self._tables.control["loss"] = share

    def set_key_interval(self, frames: int) -> None:
        """Send a key frame every so many frames, besides those that are requested."""
        self._tables.control["key_interval"] = frames

    def first_media_ns(self, row: int) -> int:
        """Return when the first RTP packet reached participant `row`, in ns of the monotonic clock; 0: none has."""
        return int(self._tables.table("transports")[row]["first_media_ns"])

    # Measuring.

    def open_window(self, start_ns: int, end_ns: int) -> None:
        """Measure what is sent from `start_ns` to `end_ns`, both in the future; forget the window before."""
        control = self._tables.control
        control["measure_ns"] = control["end_ns"] = NEVER_NS
        for name in ("delivered", "late_ns", "busy_ns"):
            control[name] = 0
        self._tables.table("histogram")[:] = 0
        self._tables.table("sends")["offered"][: int(control["send_end"])] = 0
        for name in ("runs", "expected", "delivered"):
            self._tables.table("sources")[name][: int(control["source_end"])] = 0
        control["end_ns"] = end_ns
        control["measure_ns"] = start_ns

    def window(self) -> Window:
        """What the window has counted so far."""
        control = self._tables.control
        return Window(
            delivered=int(control["delivered"]),
            latency=latency(self._tables.table("histogram").copy()),
            late_us=int(control["late_ns"]) / 1e3,
            busy_ns=int(control["busy_ns"]),
        )

    @property
    def sends(self) -> Any:
        """A copy of the table of streams that participants send; see `bench.generator.offered`."""
        return self._tables.table("sends")[: int(self._tables.control["send_end"])].copy()

    @property
    def sources(self) -> Any:
        """A copy of the table of what arrives at participants that are measured; see `bench.generator.offered`."""
        sources = self._tables.table("sources")[: int(self._tables.control["source_end"])]
        return sources[self._tables.table("transports")["counted"][sources["endpoint"]] != 0]

    def counters(self) -> dict[str, int]:
        """Return everything that was counted since the start, by name."""
        names = ("received", "rejected", "stranger", "rtcp", "unsent", "thrown", "nacked", "repaired", "key_requests")
        return {name: int(self._tables.control[name]) for name in names}


def prepare(participant: socket.socket) -> None:
    """Make a socket non-blocking, with the kernel's receive times (SCM_TIMESTAMPNS) and a large queue."""
    participant.setblocking(False)
    participant.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    try:
        participant.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BYTES)
    except PermissionError:
        participant.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)


def _fill_send(send: Any, row: int, stream: SendStream, due_ns: int, following: int) -> None:
    elements = stream.extensions
    transport_cc_at = 0
    if stream.transport_cc_id:
        transport_cc_at = 16 + len(elements) + 1
        elements += bytes((stream.transport_cc_id << 4 | 1, 0, 0))
    elements += bytes(-len(elements) % 4)
    header = struct.pack("!BBHII", 0x90 if elements else 0x80, stream.payload_type, 0, 0, stream.ssrc)
    if elements:
        header += struct.pack("!HH", 0xBEDE, len(elements) // 4) + elements
    if len(header) > HEADER_BYTES:
        raise ValueError(f"header extensions of {len(elements)} bytes are more than the generator has room for")
    send["header"][: len(header)] = np.frombuffer(header, np.uint8)
    send["header_bytes"], send["transport_cc_at"] = len(header), transport_cc_at
    send["endpoint"], send["ssrc"], send["next"] = row, stream.ssrc, following
    send["kind"] = VIDEO if stream.kind == "video" else AUDIO
    send["clock_rate"] = VIDEO_CLOCK if stream.kind == "video" else AUDIO_CLOCK
    send["simulcast"] = stream.layer.rid != ""
    send["packet_bytes"], send["rate"] = stream.layer.packet_bytes, stream.layer.packets_per_second
    send["frames_per_second"] = stream.frames_per_second if stream.kind == "video" else 0
    send["key_frame"] = -KEY_INTERVAL_FRAMES
    send["due_ns"] = due_ns
    send["active"] = 1
