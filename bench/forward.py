"""`python -m bench forward`: this server against the floor, one publisher to N subscribers, in one run.

Each figure is the median of alternating repeats (floor, server, floor, server, ...): the machine's speed drifts, the
ratio of neighbours does not. The server runs on the first core, the generator with its live receivers on the last.
"""

import multiprocessing
import os
import select
import socket
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
from pylibsrtp import Policy, Session, ffi

from bench import floor, subject
from bench.accounting import confined, cores, cpu_ns, resident_bytes
from bench.clients.endpoint import Endpoint, make_context
from bench.generator.recording import CHROMIUM, equal_packets, equalised, per_frame, recorded_packets
from bench.load import Generator

PER_FRAME = 10
"""Packets of a frame that are sent one by one."""
WARM_UP_S, DRAIN_S, LEAD_S = 1.0, 0.5, 0.2
KEEP_ALIVE_S = 3.0
PUBLISHER_SSRC = 0x1234
RECEIVE_BYTES = 1 << 20
SETTLED = 250
"""Transports after which the server's rings are full: from then on, memory grows by what one more costs."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What is offered: packets a second out, split over subscribers, smooth, in equal frames or in recorded ones."""

    subscribers: int
    packets_per_second: int
    """Out, over all subscribers."""
    packet_bytes: int = 1200
    """Plaintext RTP packet; 0: as recorded."""
    per_burst: int = 1
    """1: smooth; else so many packets back to back, 0: one frame."""
    seconds: float = 4.0
    recording: str = ""
    """Name of the recording that is repeated; empty: equal packets."""

    @classmethod
    def chromium(cls, subscribers: int, packets_per_second: int, seconds: float = 4.0) -> Self:
        """Recorded video, frame by frame."""
        return cls(subscribers, packets_per_second, 0, 0, seconds, CHROMIUM)

    @property
    def packets(self) -> Any:
        """What is sent over and over: (P,) packet_t."""
        if self.recording:
            return recorded_packets(self.recording)
        return equal_packets(self.packet_bytes, max(self.per_burst, PER_FRAME))

    @property
    def interval_ns(self) -> int:
        """Between bursts; frames come at even times, however many packets they have."""
        per_burst = self.per_burst or per_frame(self.packets)
        return int(1e9 * per_burst * self.subscribers / self.packets_per_second)

    def record(self, start_ns: int) -> dict[str, int]:
        """The columns of load_t that describe this load."""
        end = start_ns + int((WARM_UP_S + self.seconds) * 1e9)
        return {
            "ssrc": PUBLISHER_SSRC,
            "per_burst": self.per_burst,
            "interval_ns": self.interval_ns,
            "start_ns": start_ns,
            "measure_ns": start_ns + int(WARM_UP_S * 1e9),
            "end_ns": end,
            "drain_ns": end + int(DRAIN_S * 1e9),
        }


@dataclass(frozen=True, slots=True)
class Result:
    """One measured run."""

    cpu_us_per_packet: float
    delivered: int
    offered: int
    latency_us: tuple[float, float, float]
    """p50, p99 and maximum."""
    generator_busy: float
    """Share of its core that the generator used."""

    @property
    def loss(self) -> float:
        return 1 - self.delivered / max(self.offered, 1)


class Child:
    """A pinned child process at the other end of a pipe."""

    def __init__(self, main: Callable[..., None]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=main, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()  # so that a child that ends is the end of the pipe
        self.pid, self.port = self.pipe.recv()

    def ask(self, verb: str, *arguments: Any) -> Any:
        self.pipe.send((verb, arguments))
        return self.pipe.recv()

    def join(self) -> None:
        self._process.join(10)


class Legs:
    """N receiving sockets in one epoll set; arrays are indexed by descriptor, which is what epoll hands out."""

    def __init__(self, fds: list[int], sessions: list[int]) -> None:
        self.fds = np.zeros(max(fds) + 1, np.int32)
        self.sessions = np.zeros(max(fds) + 1, np.uint64)
        self._epoll = select.epoll()
        for fd, session in zip(fds, sessions, strict=True):
            self._epoll.register(fd, select.EPOLLIN)
            self.fds[fd] = fd
            self.sessions[fd] = session

    @property
    def epoll_fd(self) -> int:
        return self._epoll.fileno()

    def close(self) -> None:
        self._epoll.close()


def _measure(generator: Generator, legs: Legs, pid: int, packets: Any, record: dict[str, int]) -> tuple[int, float]:
    """Run the generator with (P,) packet_t and columns of load_t; returns the CPU ns that `pid` used in the measured
    window and the generator's busy share."""
    load = generator.load
    for name, value in record.items():
        load[name] = value
    for name in ("sent", "received", "measured", "offered", "rejected", "other", "busy_ns"):
        load[name] = 0
    load["epoll_fd"] = legs.epoll_fd
    worker = threading.Thread(target=generator.run, args=(packets, legs.fds, legs.sessions))
    begin_ns = time.monotonic_ns()
    worker.start()
    _sleep_until(record["measure_ns"])
    before = cpu_ns(pid)
    _sleep_until(record["end_ns"])
    spent = cpu_ns(pid) - before
    worker.join()
    return spent, float(load[0]["busy_ns"]) / (record["drain_ns"] - begin_ns)


def _sleep_until(at_ns: int) -> None:
    time.sleep(max(0.0, (at_ns - time.monotonic_ns()) / 1e9))


def _result(generator: Generator, spent: int, offered: int, busy: float) -> Result:
    delivered = int(generator.load[0]["measured"])
    latencies = generator.latencies_us() if delivered else np.zeros(1)
    p50, p99 = np.percentile(latencies, (50, 99))
    latency_us = float(p50), float(p99), float(latencies.max())
    return Result(spent / 1e3 / max(delivered, 1), delivered, offered, latency_us, busy)


class FloorBench:
    """The floor in a child, its receivers here."""

    def __init__(self, core: int) -> None:
        self._child = Child(partial(floor.main, core=core))

    def run(self, shape: Shape, *, segments: bool) -> Result:
        keys = [os.urandom(28) for _ in range(shape.subscribers)]
        sockets = [_receiving_socket() for _ in keys]
        sessions = [Session(_inbound_policy(key)) for key in keys]
        pointers = [int(ffi.cast("uintptr_t", session._srtp[0])) for session in sessions]
        legs = Legs([s.fileno() for s in sockets], pointers)
        generator = Generator()
        # the best that can be done with these packets, and what the server does too
        packets = equalised(shape.packets) if segments else shape.packets
        receivers = [(each.getsockname()[1], key) for each, key in zip(sockets, keys, strict=True)]
        record = shape.record(time.monotonic_ns() + int(LEAD_S * 1e9))
        self._child.pipe.send((record, packets, receivers, segments))
        self._child.pipe.recv()
        # the generator itself sends nothing in this run: its schedule starts after its end
        silent = {**record, "start_ns": record["drain_ns"] + 1}
        spent, busy = _measure(generator, legs, self._child.pid, packets, silent)
        _sent, offered = self._child.pipe.recv()
        legs.close()
        for receiver in sockets:
            receiver.close()
        return _result(generator, spent, offered, busy)

    def close(self) -> None:
        self._child.pipe.send(None)
        self._child.join()


def _receiving_socket() -> socket.socket:
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
    receiver.bind(("127.0.0.1", 0))
    receiver.setblocking(False)
    return receiver


def _inbound_policy(key: bytes) -> Policy:
    return Policy(key=key, ssrc_type=Policy.SSRC_ANY_INBOUND, srtp_profile=Policy.SRTP_PROFILE_AEAD_AES_128_GCM)


class ServerBench:
    """The server in a child with one publisher and N subscribers, all connected by ICE and DTLS."""

    def __init__(self, subscribers: int, core: int, threads: int = 1) -> None:
        """Connects a publisher and the subscribers. threads: media threads, all on the server's core."""
        self._child = Child(partial(subject.main, core=core, threads=threads))
        self._context, self._fingerprint = make_context()
        self.idle_bytes = 0
        self._publisher, publisher_id = self._endpoint()
        self._subscribers: list[Endpoint] = []
        ids = []
        before = 0
        settled = min(SETTLED, subscribers // 2)
        for n in range(subscribers):
            if n == settled:
                before = resident_bytes(self._child.pid)
            endpoint, transport = self._endpoint()
            self._subscribers.append(endpoint)
            ids.append(transport)
        self._wait_connected(subscribers + 1)
        self.idle_bytes = (resident_bytes(self._child.pid) - before) // (subscribers - settled)
        receiver = self._child.ask("publish", publisher_id, PUBLISHER_SSRC)
        self._ssrcs = [self._child.ask("subscribe", receiver, transport).ssrc for transport in ids]
        self._reached = {"index": 0, "frame": 0, "transport_sequence": 0}
        self._stop = threading.Event()
        self._keeper = threading.Thread(target=self._keep_alive, daemon=True)
        self._keeper.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _endpoint(self) -> tuple[Endpoint, Any]:
        local = self._child.ask("transport")
        endpoint = Endpoint(self._context, (local.candidates[0].address, local.candidates[0].port))
        self._child.ask("connect", local.id, endpoint.ufrag, endpoint.password, self._fingerprint)
        endpoint.connect(local.ice)
        return endpoint, local.id

    def _wait_connected(self, count: int) -> None:
        deadline = time.monotonic() + 10
        while self._child.ask("connected") < count:
            if time.monotonic() > deadline:
                raise TimeoutError("the server did not see every endpoint connect")
            time.sleep(0.01)

    def _keep_alive(self) -> None:
        """Consent checks and receiver reports, as every client sends them."""
        while not self._stop.wait(KEEP_ALIVE_S):
            self._publisher.check()
            for endpoint, ssrc in zip(self._subscribers, self._ssrcs, strict=True):
                endpoint.check()
                endpoint.report(ssrc)

    def run(self, shape: Shape) -> Result:
        legs = Legs([e.fd for e in self._subscribers], [e.incoming for e in self._subscribers])
        generator = Generator()
        load = generator.load
        load["publisher_fd"], load["publisher_srtp"] = self._publisher.fd, self._publisher.outgoing
        packets = shape.packets
        # one stream over all runs: numbers go on, each run starts with the key frame that the table begins with
        record = {**shape.record(time.monotonic_ns() + int(LEAD_S * 1e9)), **self._reached}
        spent, busy = _measure(generator, legs, self._child.pid, packets, record)
        self._reached = {name: int(load[0][name]) for name in self._reached}
        legs.close()
        return _result(generator, spent, int(load[0]["offered"]) * shape.subscribers, busy)

    @property
    def pid(self) -> int:
        return int(self._child.pid)

    def ask(self, verb: str) -> Any:
        """What `bench.subject.Subject` answers to a question without arguments."""
        return self._child.ask(verb)

    def drops(self) -> dict[str, int]:
        return dict(self.ask("drops"))

    def close(self) -> None:
        self._stop.set()
        self._keeper.join()
        self._child.ask("stop")
        self._child.join()
        for endpoint in (self._publisher, *self._subscribers):
            endpoint.close()


@dataclass(frozen=True, slots=True)
class Comparison:
    """Server and floor under one load, in as many repeats as there are."""

    shape: Shape
    floors: tuple[Result, ...]
    servers: tuple[Result, ...]
    idle_bytes: int
    drops: dict[str, int]

    @property
    def pairs(self) -> list[tuple[Result, Result]]:
        """Floor and server, neighbours in time."""
        return list(zip(self.floors, self.servers, strict=True))

    @property
    def ratio(self) -> float:
        """Server / floor: the median of the neighbours' ratios."""
        return statistics.median(s.cpu_us_per_packet / f.cpu_us_per_packet for f, s in self.pairs)

    @property
    def server(self) -> Result:
        """The server's run of median cost."""
        return sorted(self.servers, key=lambda result: result.cpu_us_per_packet)[len(self.servers) // 2]


def compare(
    shape: Shape, repeats: int, *, segments: bool, threads: int = 1, progress: Callable[[int], None] = lambda _: None
) -> Comparison:
    """Alternate floor and server `repeats` times under one load. threads: the server's media threads."""
    (core, *_), own_core = cores()
    Generator().warm_up()
    floors, servers = [], []
    with confined((own_core,)), ServerBench(shape.subscribers, core, threads) as server:
        bench = FloorBench(core)
        for _ in range(repeats):
            floors.append(bench.run(shape, segments=segments))
            progress(1)
            servers.append(server.run(shape))
            progress(1)
        drops = server.drops()
        idle = server.idle_bytes
        bench.close()
    return Comparison(shape, tuple(floors), tuple(servers), idle, drops)
