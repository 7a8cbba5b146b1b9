"""A publisher, viewers and the links to them, in simulated time: real kernels, real packets, real SRTP.

Datagrams go through sockets of loopback, which deliver at once; when each would have arrived says a `Link`. Viewers
report as libwebrtc does: transport-cc every 100 ms, NACKs, and a PLI when a picture stays incomplete.
"""

import contextlib
import heapq
import itertools
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import pylibsrtp

from sfu.control import rows
from sfu.control.net.sockets import Sockets
from sfu.media import loop
from sfu.parameters import (
    Codec,
    Encoding,
    Extension,
    Kind,
    MediaParameters,
    PayloadType,
    PublishParameters,
    SubscribeParameters,
)
from sfu.schema.codes import Command
from sfu.schema.memory import Memory
from tests.sfu.support.commands import push_command
from tests.sfu.support.feedback_packet import RTPFB, transport_feedback
from tests.sfu.support.simulated_link import MS, SECOND, Link
from tests.sfu.support.simulated_screen import Screen
from tests.sfu.support.socket_peer import SocketPeer
from tests.sfu.support.table_sockets import without_arrival_times

START = 1_000 * SECOND
OPUS, RED, VP8, RTX = 111, 63, 96, 97
MID_ID, TRANSPORT_CC_ID, LEVEL_ID = 1, 4, 6
MEDIA = MediaParameters(
    {
        OPUS: PayloadType(Codec.OPUS, 48_000),
        RED: PayloadType(Codec.RED, 48_000, OPUS),
        VP8: PayloadType(Codec.VP8, 90_000, nack=True),
        RTX: PayloadType(Codec.RTX, 90_000, VP8),
    },
    {MID_ID: Extension.MID, TRANSPORT_CC_ID: Extension.TRANSPORT_CC, LEVEL_ID: Extension.AUDIO_LEVEL},
)
WITHOUT_TRANSPORT_CC = MediaParameters(MEDIA.payload_types, {MID_ID: Extension.MID})
TURN_NS = 5 * MS
BLOCKS_NS = 1_000 * MS
"""Receiver reports of video are so far apart."""
FEEDBACK_NS = 100 * MS
AUDIO_NS = 20 * MS
MAX_REPORTED = 800
"""Packets that one feedback is about at most."""
MAX_PAYLOAD = 1_100
OVERHEAD = 28
NACK, PLI, REMB = 1, 1, 15
PSFB = 206
RECEIVER_REPORT = 201
KEY_MARK = bytes.fromhex("9d012a")
"""In the first packet of a VP8 key frame (RFC 6386 section 9.1)."""


class Peer(SocketPeer):
    """One client of a simulated call."""

    def __init__(
        self,
        call: "SimulatedCall",
        number: int,
        media: MediaParameters = MEDIA,
        path_memory: int = 0,
        tcp_buffer_bytes: int | None = None,
    ) -> None:
        super().__init__(call, f"peer{number:04}", 70 + number, media, path_memory, tcp_buffer_bytes)
        self.call = call


@dataclass(frozen=True)
class Encoders:
    """How a publisher encodes."""

    frame_ns: int = 33_333_333
    temporal: tuple[int, ...] = (0, 2, 1, 2)
    """Temporal layers of frames that follow each other."""
    shares: tuple[float, ...] = (1.4, 0.87, 0.87)
    """How large a frame of each temporal layer is, against the mean."""
    key_factors: tuple[int, ...] = (4, 4, 4)
    """A key frame of each spatial layer is as large as so many others."""
    key_together: bool = False
    """Whether a request for one layer is answered by key frames of all."""
    saves: bool = False
    """Whether frames after a key frame are smaller, until its size is made up for."""
    audio_bytes: int = 80
    """Payload of a packet of 20 ms."""
    red: bool = False
    """Whether each packet repeats the one before (RFC 2198)."""


NATIVE = Encoders(66_666_667, (0, 1), (1.2, 0.8), (6, 4, 3), key_together=True, saves=True, audio_bytes=235)
"""LiveKit's native SDK as measured behind a bottleneck: VP8 at 15 frames/s, Opus with redundancy and without DTX."""
SAVED_SHARE = 0.25
"""The share of each frame that is left out while a key frame is being made up for."""


@dataclass
class Layer:
    """One encoding of the publisher."""

    ssrc: int
    bitrate: int
    sequence: int = 1_000
    picture: int = 0
    tl0: int = 0
    key: bool = True
    debt: float = 0.0
    """Bytes that a key frame had more than others, and that were not saved yet."""
    slide: int = 0
    """The next frame is a key frame of so many bytes; 0: a usual frame."""


class Publisher(Peer):
    """Sends 20 ms of Opus each, and VP8 in several layers, in bursts of a frame."""

    def __init__(
        self, call: "SimulatedCall", number: int, bitrates: tuple[int, ...], audio: bool, encoders: Encoders
    ) -> None:
        super().__init__(call, number)
        self.encoders = encoders
        first = 10_000 * (number + 1)
        self.layers = [Layer(first + k, bitrate) for k, bitrate in enumerate(bitrates)]
        self.loss = 0.0
        """Share of its packets that never come."""
        self.key_requests = 0
        self.control_bytes = 0
        """Bytes of all that the server sent to it."""
        self.level: int | None = None
        """Audio level (RFC 6464) that its packets tell."""
        self._audio_sequence, self._audio_ssrc = 1, first + 100
        self._random = Random(number)
        self._frame = 0
        self._frame_due, self._audio_due = call.now, call.now
        self.tracks: dict[Kind, int] = {}
        encodings = tuple(Encoding(ssrc=each.ssrc) for each in self.layers)
        if encodings:
            self._publish(PublishParameters(Kind.VIDEO, "v", encodings))
        if audio:
            self._publish(PublishParameters(Kind.AUDIO, "a", (Encoding(ssrc=self._audio_ssrc),)))

    def _publish(self, parameters: PublishParameters) -> None:
        row, generation, _ = self.call.tables.take_track(self.row, parameters)
        self.call.command(Command.OPEN_TRACK, row, generation)
        self.tracks[parameters.kind] = row

    def step(self, now: int) -> None:
        """Send what is due at `now`, and take what the server asks for."""
        for data in self.datagrams():
            self.control_bytes += len(data)
            self._take(data)
        while self._audio_due <= now and Kind.AUDIO in self.tracks:
            self._send(self._audio_packet())
            self._audio_sequence += 1
            self._audio_due += AUDIO_NS
        while self._frame_due <= now and Kind.VIDEO in self.tracks:
            for place, layer in enumerate(self.layers):
                self._send_frame(layer, self.encoders.key_factors[place])
            self._frame += 1
            self._frame_due += self.encoders.frame_ns

    def _audio_packet(self) -> bytes:
        body, payload_type = bytes(self.encoders.audio_bytes), OPUS
        if self.encoders.red:
            head = struct.pack("!BI", 0x80 | OPUS, 960 << 18 | len(body) << 8 | OPUS)
            body, payload_type = head + 2 * body, RED
        level = b"" if self.level is None else bytes((0xBE, 0xDE, 0, 1, LEVEL_ID << 4, self.level, 0, 0))
        return struct.pack("!BBHII", 0x90 if level else 0x80, payload_type, self._audio_sequence & 0xFFFF,
                           960 * self._audio_sequence & 0xFFFFFFFF, self._audio_ssrc) + level + body  # fmt: skip

    def _take(self, data: bytes) -> None:
        if not 192 <= data[1] <= 223:
            return
        plain, at = self.incoming.unprotect_rtcp(data), 0
        while at + 12 <= len(plain):
            if plain[at + 1] == PSFB and plain[at] & 31 == PLI:
                asked = int.from_bytes(plain[at + 8 : at + 12], "big")
                for layer in self.layers:
                    layer.key |= layer.ssrc == asked or self.encoders.key_together
                    self.key_requests += layer.ssrc == asked
            at += 4 + 4 * int.from_bytes(plain[at + 2 : at + 4], "big")

    def _frame_bytes(self, layer: Layer, temporal: int, key_factor: int) -> int:
        mean = layer.bitrate / 8 * self.encoders.frame_ns / SECOND
        if layer.key:
            layer.debt += self.encoders.saves * (key_factor - 1) * mean
            return int(key_factor * mean)
        size = mean * self.encoders.shares[temporal] * self._random.uniform(0.85, 1.15)
        saved = min(layer.debt, SAVED_SHARE * size)
        layer.debt -= saved
        return int(size - saved)

    def _send_frame(self, layer: Layer, key_factor: int) -> None:
        layer.key |= layer.slide > 0
        temporal = 0 if layer.key else self.encoders.temporal[self._frame % len(self.encoders.temporal)]
        size = layer.slide or self._frame_bytes(layer, temporal, key_factor)
        layer.slide = 0
        layer.picture = (layer.picture + 1) & 0x7FFF
        layer.tl0 = (layer.tl0 + (temporal == 0)) & 0xFF
        descriptor = bytes((0x90, 0xE0, 0x80 | layer.picture >> 8, layer.picture & 0xFF, layer.tl0,
                            temporal << 6 | 0x20))  # fmt: skip
        frame = (bytes.fromhex("5001009d012a00052001") if layer.key else b"\x01") + bytes(size)
        layer.key = False
        timestamp = self._frame * self.encoders.frame_ns * 9 // 100_000 & 0xFFFFFFFF
        for at in range(0, len(frame), MAX_PAYLOAD):
            part, last = frame[at : at + MAX_PAYLOAD], at + MAX_PAYLOAD >= len(frame)
            header = struct.pack("!BBHII", 0x80, last << 7 | VP8, layer.sequence & 0xFFFF, timestamp, layer.ssrc)
            head = descriptor if at == 0 else bytes((descriptor[0] & ~0x10,)) + descriptor[1:]
            self._send(header + head + part)
            layer.sequence += 1

    def _send(self, data: bytes) -> None:
        if not self.loss or self._random.random() >= self.loss:
            self.send_rtp(data)


@dataclass
class Second:
    """What a viewer got in one second."""

    sent_bytes: int = 0
    received_bytes: int = 0
    dropped: int = 0
    frames: int = 0
    audio: int = 0
    layer: int = -1
    queue_ns: int = 0
    target_bps: int = 0
    control_bytes: int = 0


@dataclass(frozen=True)
class Departure:
    """One RTP packet that left for a viewer: what its header says, which is not encrypted."""

    at: int
    ssrc: int
    sequence: int
    timestamp: int
    payload_type: int
    marker: bool
    size: int

    @classmethod
    def of(cls, at: int, data: bytes) -> "Departure":
        """Read the header of an SRTP packet."""
        sequence, timestamp, ssrc = struct.unpack("!HII", data[2:12])
        return cls(at, ssrc, sequence, timestamp, data[1] & 127, data[1] >= 128, len(data))


@dataclass
class Counted:
    """What a receiver counts of one SSRC (RFC 3550 appendix A.3)."""

    base: int
    highest: int = 0
    received: int = 0
    expected_before: int = 0
    received_before: int = 0

    def count(self, sequence: int) -> None:
        """One packet arrived."""
        self.received += 1
        if self.received == 1:
            self.highest = self.base
        ahead = (sequence - self.highest) & 0xFFFF
        if ahead < 0x8000:
            self.highest += ahead

    def block(self, ssrc: int) -> bytes:
        """The report block about what came since the last one."""
        expected = self.highest - self.base + 1
        lost = expected - self.received
        interval = expected - self.expected_before
        news = interval - (self.received - self.received_before)
        fraction = min(news * 256 // interval, 255) if interval > 0 and news > 0 else 0
        self.expected_before, self.received_before = expected, self.received
        return struct.pack("!IIIIII", ssrc, fraction << 24 | lost & 0xFFFFFF, self.highest, 0, 0, 0)


class Viewer(Peer):
    """Subscribes, reports what arrives over its link."""

    def __init__(
        self,
        call: "SimulatedCall",
        number: int,
        down: Link,
        up: Link,
        reports: bool = True,
        rtx: bool = True,
        transport_cc: bool = True,
        path_memory: int = 0,
        tcp_buffer_bytes: int | None = None,
    ) -> None:
        media = MEDIA if transport_cc else WITHOUT_TRANSPORT_CC
        super().__init__(call, number, media, path_memory, tcp_buffer_bytes)
        self.reads = True  # False: it takes nothing from the operating system, whose buffers fill
        self.down, self.up, self.reports, self.rtx = down, up, reports, rtx
        self.blocks = False
        """Whether the viewer sends receiver reports once a second."""
        self._blocks_due = call.now + BLOCKS_NS
        self._counted: dict[int, Counted] = {}
        self.subscriptions: dict[int, tuple[Kind, int]] = {}
        self.seconds: list[Second] = []
        self.order = itertools.count()
        self.flying: list[tuple[int, int, bytes]] = []
        self.arrived: dict[int, int] = {}
        """Transport-wide number (extended) -> arrival, since the last feedback."""
        self._newest_number = -1
        self._unreported = 0
        """The transport-wide number behind the newest one that was reported."""
        self._feedback_due, self._feedback_count = call.now + FEEDBACK_NS, 0
        self.outbox: list[tuple[int, int, bytes]] = []
        self.nacks = True
        """Whether it asks for packets that it misses."""
        self._missing: dict[tuple[int, int], tuple[int, int]] = {}
        self._highest: dict[int, int] = {}
        self.audio_times: list[int] = []
        self.heard: list[tuple[int, int, int]] = []
        """Each audio packet as (when it arrived, the row of its subscription, its payload type)."""
        self.frame_times: list[int] = []
        self.screens: dict[int, Screen] = {}
        """What is shown of each video, by its SSRC."""
        self.key_times: list[int] = []
        """When the first packets of key frames arrived."""
        self.left: list[Departure] = []
        """Every RTP packet, when the server sent it."""

    def subscribe(self, publisher: Publisher, kind: Kind) -> int:
        """Forward a track of a publisher to this viewer; returns the subscription's row."""
        number = len(self.call.viewers) * 1_000 + len(self.subscriptions) * 2 + 500_000
        numbers = {Kind.AUDIO: (OPUS, -1), Kind.VIDEO: (VP8, RTX)}[kind]
        red = RED if kind is Kind.AUDIO and publisher.encoders.red else -1
        parameters = SubscribeParameters(str(len(self.subscriptions)), *numbers, red, "someone")
        if not self.rtx:
            numbers = numbers[0], -1
        ssrcs = number, number + 1 if kind is Kind.VIDEO and self.rtx else 0
        row, generation = self.call.tables.take_subscription(publisher.tracks[kind], self.row, kind, ssrcs, parameters)
        self.call.command(Command.OPEN_SUBSCRIPTION, row, generation, spatial=2, temporal=3)
        self.subscriptions[number] = kind, row
        return row

    def subscription_to(self, publisher: Publisher, kind: Kind) -> int:
        """The row of this viewer's subscription to a publisher's track."""
        table = self.call.memory.table("subscriptions")
        tracks = {int(table[row]["track"]): row for _, row in self.subscriptions.values()}
        return tracks[publisher.tracks[kind]]

    def subscriptions_of(self, kind: Kind) -> list[int]:
        """Rows of the viewer's subscriptions of a kind."""
        return [row for each, row in self.subscriptions.values() if each is kind]

    def now_second(self) -> Second:
        """Where this second is counted."""
        passed = (self.call.now - START) // SECOND
        while len(self.seconds) <= passed:
            self.seconds.append(Second())
        return self.seconds[passed]

    def step(self, now: int) -> None:
        """Put on the link what the server sent, take what arrives, send the reports that are due."""
        second = self.now_second()
        for data in self.datagrams() if self.reads else ():
            second.sent_bytes += len(data) + OVERHEAD
            if not 192 <= data[1] <= 223:
                self.left.append(Departure.of(now, data))
            at = self.down.carry(now, len(data) + OVERHEAD)
            if at is None:
                second.dropped += 1
            elif 192 <= data[1] <= 223:
                second.control_bytes += len(data) + OVERHEAD
            else:
                heapq.heappush(self.flying, (at, next(self.order), data))
        second.queue_ns = max(second.queue_ns, self.down.waits_ns(now))
        while self.flying and self.flying[0][0] <= now:
            at, _, data = heapq.heappop(self.flying)
            self._receive(second, at, data)
        if now >= self._feedback_due:
            self._feedback_due += FEEDBACK_NS
            self._report(now)
        if now >= self._blocks_due:
            self._blocks_due += BLOCKS_NS
            if self.blocks and self._counted:
                self._uplink(now, self._receiver_report())
        while self.outbox and self.outbox[0][0] <= now:
            self.send_datagram(heapq.heappop(self.outbox)[2])
        for kind, row in self.subscriptions.values():
            if kind is Kind.VIDEO:
                second.layer = max(second.layer, int(self.call.memory.table("subscriptions")[row]["layer"]))
        second.target_bps = int(self.call.memory.table("estimates")[self.row]["target_bps"])

    def _receive(self, second: Second, at: int, data: bytes) -> None:
        second.received_bytes += len(data) + OVERHEAD
        sequence, _, ssrc = struct.unpack("!HII", data[2:12])
        if data[0] & 0x10:
            self._note_number(data, at)
        kind, _ = self.subscriptions.get(ssrc, (None, 0))
        if kind is not None:
            self._counted.setdefault(ssrc, Counted(sequence)).count(sequence)
        if kind is Kind.AUDIO:
            second.audio += 1
            self.audio_times.append(at)
            self.heard.append((at, self.subscriptions[ssrc][1], data[1] & 127))
        elif kind is Kind.VIDEO:
            if data[1] & 0x80:
                second.frames += 1
                self.frame_times.append(at)
            self._note_missing(ssrc, sequence, at)
            payload = self._payload(data)
            if KEY_MARK in payload[:20]:
                self.key_times.append(at)
            self._show(ssrc, sequence, payload, data[1] >> 7, at)
        elif (payload := self._payload(data)) and ssrc - 1 in self.subscriptions:
            again = int.from_bytes(payload[:2], "big")
            self._missing.pop((ssrc - 1, again), None)
            self._show(ssrc - 1, again, payload[2:], data[1] >> 7, at)

    def _payload(self, data: bytes) -> bytes:
        """What an SRTP packet carries; empty for padding, and for what cannot be decrypted."""
        try:
            plain: bytes = self.incoming.unprotect(data)
        except pylibsrtp.Error:
            return b""
        end = len(plain) - (plain[-1] if plain[0] & 0x20 else 0)
        return plain[16 + 4 * int.from_bytes(plain[14:16], "big") if plain[0] & 0x10 else 12 : end]

    def _show(self, ssrc: int, sequence: int, payload: bytes, marker: int, at: int) -> None:
        screen = self.screens.setdefault(ssrc, Screen())
        screen.take(sequence, payload, bool(marker), at)
        behind = [key for key in self._missing if key[0] == ssrc and (key[1] - screen.next) & 0x8000]
        for key in behind if screen.next >= 0 else ():
            del self._missing[key]  # a picture behind it was shown

    def _note_number(self, data: bytes, at: int) -> None:
        end, place = 16 + 4 * int.from_bytes(data[14:16], "big"), 16
        while place < end:
            if data[place] == 0:
                place += 1
                continue
            size = (data[place] & 15) + 1
            if data[place] >> 4 == TRANSPORT_CC_ID:
                low = int.from_bytes(data[place + 1 : place + 3], "big")
                ahead = (low - self._newest_number) & 0xFFFF
                number = self._newest_number + (ahead - 0x10000 if ahead & 0x8000 else ahead)
                self.arrived.setdefault(number, at)
                self._newest_number = max(self._newest_number, number)
            place += 1 + size

    def _note_missing(self, ssrc: int, sequence: int, at: int) -> None:
        highest = self._highest.setdefault(ssrc, sequence - 1)
        ahead = (sequence - highest) & 0xFFFF
        self._missing.pop((ssrc, sequence), None)
        if ahead < 0x8000:
            for number in range(1, min(ahead, 200)):
                self._missing[ssrc, (highest + number) & 0xFFFF] = (at, 0)
            self._highest[ssrc] = sequence

    def _uplink(self, now: int, plain: bytes) -> None:
        data = self.outgoing.protect_rtcp(struct.pack("!BBHI", 0x80, 201, 1, self.row + 9_000) + plain)
        at = self.up.carry(now, len(data) + OVERHEAD)
        if at is not None:
            heapq.heappush(self.outbox, (at, next(self.order), data))

    def remb(self, bps: int) -> None:
        """Say what can be received (draft-alvestrand-rmcat-remb-03)."""
        exponent = max(bps.bit_length() - 18, 0)
        word = 1 << 24 | exponent << 18 | bps >> exponent
        body = struct.pack("!II4sII", self.row + 9_000, 0, b"REMB", word, next(iter(self.subscriptions)))
        self._uplink(self.call.now, struct.pack("!BBH", 0x80 | REMB, PSFB, len(body) // 4) + body)

    def _receiver_report(self) -> bytes:
        blocks = b"".join(each.block(ssrc) for ssrc, each in self._counted.items())
        count = len(self._counted)
        return struct.pack("!BBHI", 0x80 | count, RECEIVER_REPORT, 1 + 6 * count, self.row + 9_000) + blocks

    def _report(self, now: int) -> None:
        if self.arrived and self.reports:
            first = min(*self.arrived, self._unreported)  # what came late is told too, as libwebrtc does
            first = max(first, self._newest_number - MAX_REPORTED)
            self._uplink(now, transport_feedback(self.arrived, first, self._newest_number, self._feedback_count))
            self._unreported = self._newest_number + 1
            self._feedback_count += 1
            self.arrived = {}
        for (ssrc, number), (since, times) in list(self._missing.items()):
            if now - since > SECOND or times >= 10:
                del self._missing[ssrc, number]
                self._uplink(now, struct.pack("!BBHII", 0x80 | PLI, PSFB, 2, self.row + 9_000, ssrc))
                self._missing = {key: value for key, value in self._missing.items() if key[0] != ssrc}
                break
            self._missing[ssrc, number] = since, times + 1
            if not self.nacks:
                continue
            self._uplink(now, struct.pack("!BBHIIHH", 0x80 | NACK, RTPFB, 3, self.row + 9_000, ssrc, number, 0))


class SimulatedCall:
    """The server's tables and sockets, and everybody who is in the call."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.memory.open_wakeups()
        self.memory.thread["segment_offload"] = 1
        self.sockets = Sockets(self.memory, 0, ("127.0.0.1",))
        without_arrival_times(self.memory)
        self.tables = rows.Tables(self.memory)
        self.now = START
        self.publishers: list[Publisher] = []
        self.viewers: list[Viewer] = []
        self._numbers = itertools.count()

    def command(self, kind: Command, row: int, generation: int, **fields: int) -> None:
        """Put a command into the queue of the media thread."""
        assert push_command(self.memory, kind, row, generation, **fields)

    def turn(self) -> None:
        """One turn of the media loop now."""
        loop.turn(self.memory.record, self.memory.arena, self.now)

    def publish(self, *bitrates: int, audio: bool = True, encoders: Encoders | None = None) -> Publisher:
        """Add a publisher with these layers, bit/s, lowest first."""
        self.publishers.append(Publisher(self, next(self._numbers), bitrates, audio, encoders or Encoders()))
        self.turn()
        return self.publishers[-1]

    def view(
        self,
        down: Link,
        up: Link | None = None,
        reports: bool = True,
        rtx: bool = True,
        transport_cc: bool = True,
        path_memory: int = 0,
        tcp_buffer_bytes: int | None = None,
    ) -> Viewer:
        """Add a viewer behind a link, who subscribes to everything that is published now. tcp_buffer_bytes: see
        `SocketPeer`."""
        number, uplink = next(self._numbers), up or Link(START)
        viewer = Viewer(self, number, down, uplink, reports, rtx, transport_cc, path_memory, tcp_buffer_bytes)
        self.viewers.append(viewer)
        for publisher in self.publishers:
            for kind in publisher.tracks:
                viewer.subscribe(publisher, kind)
        self.turn()
        return viewer

    def run(self, seconds: float, each: Callable[[], None] | None = None) -> None:
        """Let time pass, in turns of 5 ms."""
        end = self.now + int(seconds * SECOND)
        while self.now < end:
            self.now += TURN_NS
            for publisher in self.publishers:
                publisher.step(self.now)
            self.turn()
            for viewer in self.viewers:
                viewer.step(self.now)
            if each is not None:
                each()

    def close(self) -> None:
        """Close what the operating system holds."""
        for peer in (*self.publishers, *self.viewers):
            self.command(Command.CLOSE_TRANSPORT, peer.row, peer.generation)
        self.turn()
        for peer in (*self.publishers, *self.viewers):
            peer.close()
        self.sockets.close()
        self.memory.close_wakeups()


@contextlib.contextmanager
def simulated_call() -> Iterator[SimulatedCall]:
    """A call that is closed in the end."""
    call: Any = SimulatedCall()
    try:
        yield call
    finally:
        call.close()
