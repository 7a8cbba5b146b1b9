"""The process that is a bottleneck: it carries IP packets between two TUN devices, each direction through a Link.

    python -m bench.network.forwarder SETTINGS

SETTINGS is JSON: file descriptors of the devices `outside` and `inside`, `down` and `up` (Conditions), `seed`. A line
on standard input begins the case and is answered by a line with the time; the end of the input ends it, and the answer
is a Record. It runs with real-time priority where that is permitted, and times itself: a case in which it was late says
nothing about a server.
"""

import contextlib
import gc
import heapq
import json
import os
import select
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from bench.network.counts import DOWN, UP, Lateness, Record, stream_of
from bench.network.link import STEPPED, Conditions, Link, Outcome

PRIORITY = 20
NICE = -15
"""The niceness that is asked for where real-time priority is refused."""
TICK_S = 0.005
"""The forwarder wakes at least this often, so that its lateness is also measured while no packet is due."""
BATCH = 64
"""The most packets that are read before due ones are sent."""
MTU = 1500


def conditions(data: dict[str, Any]) -> Conditions:
    """Make Conditions from what `dataclasses.asdict` returned for them."""
    steps = {name: tuple((float(at), float(value)) for at, value in data[name]) for name in STEPPED}
    return Conditions(**{**data, **steps})


def take_priority() -> bool:
    """Ask for real-time priority, or else for a high one. Return whether it is real-time."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
        return True
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    return False


@dataclass
class Way:
    """One direction: its two devices, its link, and when the last packet of each stream arrived."""

    name: str
    source: int
    target: int
    link: Link
    arrived: dict[str, float] = field(default_factory=dict)


class Forwarder:
    """The loop that carries packets, and what it counts."""

    def __init__(self, ways: tuple[Way, Way], realtime: bool) -> None:
        self._ways = {way.source: way for way in ways}
        self._due: list[tuple[float, int, Way, str, bytes]] = []
        self._number = 0
        self._lateness = Lateness()
        self.record = Record(began=time.monotonic(), realtime=realtime)

    def run(self) -> None:
        """Carry packets until standard input ends."""
        tick = time.monotonic()
        while True:
            wait = min(tick, self._due[0][0] if self._due else tick) - time.monotonic()
            ready = select.select([*self._ways, sys.stdin.fileno()], (), (), max(0.0, wait))[0]
            now = time.monotonic()
            if now >= tick:
                self._lateness.add(now - tick)
                tick = max(tick + TICK_S, now)
            self._send_due(now)
            for source in ready:
                if source in self._ways:
                    self._read(self._ways[source])
                elif not self._obey():
                    break
            else:
                continue
            break
        self.record.late_ms, self.record.latest_ms = self._lateness.at(0.99), self._lateness.at(1.0)

    def _obey(self) -> bool:
        """Begin the case if there is a line of input. Return False at the end of the input."""
        if not os.read(sys.stdin.fileno(), 4096):
            return False
        now = time.monotonic()
        self._lateness = Lateness()
        self.record.began = now
        self.record.counts.clear()
        for way in self._ways.values():
            way.link.begin(now)
        print(json.dumps(now), flush=True)
        return True

    def _read(self, way: Way) -> None:
        for _ in range(BATCH):
            try:
                packet = os.read(way.source, MTU + 64)
            except BlockingIOError:
                return
            if packet[0] >> 4 != 4:  # the kernel's own IPv6 solicitations
                continue
            now = time.monotonic()
            stream, fate = stream_of(packet), way.link.send(now, len(packet))
            self.record.add(now, way.name, stream, len(packet), fate)
            if fate.outcome is Outcome.ARRIVES:
                self._number += 1
                heapq.heappush(self._due, (fate.arrives, self._number, way, stream, packet))

    def _send_due(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            due, _, way, stream, packet = heapq.heappop(self._due)
            with contextlib.suppress(OSError):  # the device's own queue is full, or it is being taken down
                os.write(way.target, packet)
            now = time.monotonic()
            self._lateness.add(now - due)
            last = way.arrived.get(stream, now)
            way.arrived[stream] = now
            count = self.record.count(now, way.name, stream)
            count.gap_ms = max(count.gap_ms, 1000 * (now - last))


def main() -> None:
    """Run until standard input ends, then print the record."""
    settings = json.loads(sys.argv[1])
    outside, inside, seed = settings["outside"], settings["inside"], settings["seed"]
    for descriptor in (outside, inside):
        os.set_blocking(descriptor, False)
    down, up = (Link(conditions(settings[name]), seed + place) for place, name in enumerate((DOWN, UP)))
    gc.disable()
    forwarder = Forwarder((Way(DOWN, outside, inside, down), Way(UP, inside, outside, up)), take_priority())
    print(json.dumps(forwarder.record.began), flush=True)
    forwarder.run()
    print(json.dumps(forwarder.record.to_json()), flush=True)


if __name__ == "__main__":
    main()
