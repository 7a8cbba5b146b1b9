"""Flows that share a drop-tail link, with the real estimator and no clock but their own.

A flow sends what its estimate and what it prefers allow, as 30 frames a second that each leave at once, as the media
thread without a pacer does; its receiver reports arrivals every 100 ms as transport-cc does. All times are ns.
"""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sfu.media.bandwidth import estimate as kernels
from sfu.schema.estimate_tables import estimate_t

MS = 1_000_000
SECOND = 1_000_000_000
PASS_NS = 5 * MS
FEEDBACK_NS = 100 * MS
START_NS = 1000 * SECOND
CLOCK_OF_RECEIVERS = 7_777 * SECOND
"""What a receiver's clock shows when ours shows 0."""


@dataclass(slots=True)
class Packet:
    number: int
    sent: int
    size: int
    cluster: int
    flow: "Flow"
    arrival: int = 0


@dataclass
class Link:
    """A bottleneck: `bps` of the time since its start, a queue of `queue_ms` at that rate, and chance loss."""

    bps: Callable[[int], float]
    queue_ms: int = 300
    one_way_ms: int = 20
    loss: float = 0.0
    jitter_ms: float = 0.0
    pauses: tuple[tuple[int, int], ...] = ()
    """(begin, end) of times since its start in which nothing leaves it."""
    seed: int = 1
    waiting: deque[Packet] = field(default_factory=deque)
    queued_bytes: int = 0
    free: int = 0
    now: int = START_NS

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def rate(self, at: int) -> float:
        return self.bps(at - START_NS)

    def delay_ms(self) -> float:
        """How long a packet would wait now."""
        return self.queued_bytes * 8000 / self.rate(self.now)

    def put(self, packet: Packet) -> None:
        if (self.queued_bytes + packet.size) * 8000 > self.queue_ms * self.rate(packet.sent):
            packet.flow.dropped += 1
        elif self.random.random() >= self.loss:
            self.waiting.append(packet)
            self.queued_bytes += packet.size

    def advance(self, now: int) -> None:
        self.now = now
        while self.waiting:
            packet = self.waiting[0]
            begin = max(self.free, packet.sent)
            begin = max(
                (START_NS + end for start, end in self.pauses if start <= begin - START_NS < end), default=begin
            )
            end = begin + int(packet.size * 8e9 / self.rate(begin))
            if end > now:
                break
            self.waiting.popleft()
            self.queued_bytes -= packet.size
            self.free = end
            jitter = int(self.random.random() * self.jitter_ms * MS)
            packet.arrival = end + self.one_way_ms * MS + jitter
            packet.flow.travelling.append(packet)


class Flow:
    def __init__(self, link: Link, preferred: int = 3_000_000, *, audio: bool = False, start: int = 0) -> None:
        self.link, self.preferred, self.audio = link, preferred, audio
        self.rows: Any = np.zeros(1, estimate_t)
        self.estimate = self.rows[0]
        self.start = START_NS + start
        self.cut = False
        self.limit = 1 << 62
        """Most that the application sends, in bit/s."""
        self.sent: dict[int, Packet] = {}
        self.travelling: list[Packet] = []
        self.arrived: list[Packet] = []
        self.on_way_back: deque[tuple[int, list[Packet], int]] = deque()
        self.next_number = self.reported = 0
        self.dropped = self.lost = 0
        self.bytes_sent = self.bytes_received = self.probe_bytes = 0
        self.next_frame = self.next_audio = self.start
        self.next_feedback = self.start + FEEDBACK_NS
        self.opened = False

    @property
    def target(self) -> int:
        return int(self.estimate["target_bps"])

    def send(self, now: int, size: int, cluster: int = 0) -> None:
        packet = Packet(self.next_number, now, size, cluster, self)
        self.next_number += 1
        self.sent[packet.number] = packet
        self.bytes_sent += size
        if not self.cut:
            self.link.put(packet)

    def step(self, now: int) -> None:
        if now < self.start:
            return
        if not self.opened:
            self.opened = True
            kernels.open_estimate(self.estimate, now)
            kernels.set_preferred(self.estimate, self.preferred, now)
        self._send_probe(now)
        if now >= self.next_frame:
            self.next_frame += SECOND // 30
            bps = min(self.target, self.preferred, self.limit) - (50_000 if self.audio else 0)
            self._send_bytes(now, max(bps, 0) // 240)
        if self.audio and now >= self.next_audio:
            self.next_audio += 20 * MS
            self.send(now, 125)
        kernels.tick(self.estimate, now, self.bytes_sent)
        self._receive(now)

    def _send_bytes(self, now: int, left: int, cluster: int = 0) -> None:
        count = -(-left // 1200)
        for k in range(count):
            self.send(now, left * (k + 1) // count - left * k // count, cluster)

    def _send_probe(self, now: int) -> None:
        """What a pass of 5 ms sends of a cluster."""
        row = self.estimate
        budget = int(row["probe_bps"]) * PASS_NS // (8 * SECOND)
        cluster = int(row["probe_cluster"])
        while cluster and budget > 0 and int(row["probe_cluster"]) == cluster:
            left = max(int(row["probe_bytes_left"]), 100)
            size = min(1200, max(left // max(int(row["probe_packets_left"]), 1), 100))
            self.send(now, size, cluster)
            self.probe_bytes += size
            kernels.probe_sent(row, size, 1, now)
            budget -= size

    def _receive(self, now: int) -> None:
        due = [packet for packet in self.travelling if packet.arrival <= now]
        if due:
            self.travelling = [packet for packet in self.travelling if packet.arrival > now]
            self.arrived += due
            self.bytes_received += sum(packet.size for packet in due)
        if now >= self.next_feedback:
            self.next_feedback += FEEDBACK_NS
            if self.arrived and not self.cut:
                self.on_way_back.append((now + self.link.one_way_ms * MS, self.arrived, 0))
                self.arrived = []
        while self.on_way_back and self.on_way_back[0][0] <= now:
            self._feed_back(now, self.on_way_back.popleft()[1])

    def _feed_back(self, now: int, packets: list[Packet]) -> None:
        row = self.estimate
        kernels.begin_feedback(row, now)
        arrivals = {packet.number: packet for packet in packets}
        for number in sorted(arrivals):
            packet = arrivals[number]
            if number < self.reported:
                self.lost -= 1
                kernels.packet_recovered(row, packet.sent, packet.size)
                continue
            for missing in range(self.reported, number):
                self.lost += 1
                kernels.packet_lost(row, self.sent[missing].sent, self.sent[missing].size)
                self.sent.pop(missing)
            self.reported = number + 1
            self.sent.pop(number)
            kernels.packet_received(row, packet.sent, packet.arrival + CLOCK_OF_RECEIVERS, packet.size, packet.cluster)
        kernels.end_feedback(row, now)


def run(link: Link, flows: list[Flow], seconds: float, each: Callable[[float], None] | None = None) -> None:
    """Let time pass; `each` is called every 100 ms with the seconds since the start of the link."""
    end = link.now + int(seconds * SECOND)
    now = link.now
    while now < end:
        now += PASS_NS
        link.advance(now)
        for flow in flows:
            flow.step(now)
        if each is not None and (now - START_NS) % FEEDBACK_NS == 0:
            each((now - START_NS) / SECOND)
