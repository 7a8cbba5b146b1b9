"""What was read in one measured window, and the measurement with its notes that follows from it."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.accounting import (
    CoreTimes,
    core_times,
    cpu_ns,
    main_thread_ns,
    socket_drops,
    tree_cpu_ns,
    tree_resident_bytes,
    udp_errors,
)
from bench.generator.data_channels import DataWindow
from bench.generator.generator import Window
from bench.measure.calls import Called
from bench.results import Measurement
from bench.scenarios import Scenario

BUSY = 0.95
"""The share of its core above which the generator may be the limit."""
STOLEN, STRANGE = 0.01, 0.1
"""Shares of the server's cores that the hypervisor and other processes may take without a note."""
GROWTH = 0.03
"""The share by which the server's memory may grow in a window without a note."""
GENERATOR_QUEUES = "generator's receive queues"
LATE_US = 20_000
"""A generator this far behind its schedule was no longer an open loop."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Readings that take long, so they are made outside the window."""

    memory: int
    """Bytes of the server's process tree."""
    drops: dict[str, int]

    @classmethod
    def take(cls, pid: int) -> "Surroundings":
        """Read them now. `pid` is the root of the server's process tree; the generator is this process."""
        drops = {**udp_errors(), "receive queue": socket_drops(pid), GENERATOR_QUEUES: socket_drops(os.getpid())}
        return cls(tree_resident_bytes(pid), drops)


@dataclass(frozen=True, slots=True)
class Sample:
    """CPU times so far at one moment."""

    at_ns: int
    server_ns: int
    main_thread_ns: int
    """CPU time of the server's main thread, in ns."""
    cores: CoreTimes
    generator_ns: int

    @classmethod
    def take(cls, pid: int, cores: tuple[int, ...]) -> "Sample":
        """Read them now. `pid` is the root of the server's process tree, which runs on `cores`."""
        times = tree_cpu_ns(pid), main_thread_ns(pid), core_times(cores), cpu_ns(os.getpid())
        return cls(time.monotonic_ns(), *times)


@dataclass(frozen=True, slots=True)
class Readings:
    """Everything that was read for one window."""

    before: Sample
    after: Sample
    around: tuple[Surroundings, Surroundings]
    """The surroundings before and after the window."""
    cores: int
    """The number of the server's cores."""
    media: Window
    messages: DataWindow
    offered: int
    """Media packets that should have arrived."""
    own: dict[str, int]
    """What the generator counted during the window; see `Generator.counters`."""
    joins_ms: tuple[float, ...] = ()
    calls: Sequence[Called] = ()
    """The calls of the server API that were due in the window."""
    failed_joins: Sequence[str] = ()
    """Why participants could not join in the window."""
    drops: dict[str, int] = field(default_factory=dict)
    """Drops that the server itself counted, by reason."""
    fallen: Sequence[str] = ()
    """Why participants lost their connection."""
    message_failures: Sequence[str] = ()
    """Why participants with data channels lost their connection."""
    notes: Sequence[str] = ()
    """Notes of the session."""
    memory_per_subscriber: float = 0.0

    @property
    def elapsed_ns(self) -> int:
        """The time between the samples."""
        return self.after.at_ns - self.before.at_ns

    @property
    def server_busy(self) -> float:
        """The share of its cores that the server used."""
        return (self.after.server_ns - self.before.server_ns) / self.elapsed_ns / max(self.cores, 1)

    @property
    def main_thread_busy(self) -> float:
        """The share of one core that the server's main thread used."""
        return (self.after.main_thread_ns - self.before.main_thread_ns) / self.elapsed_ns

    @property
    def generator_busy(self) -> float:
        """The share of its core that the generator used or, if it does not sleep, in which it had something to do."""
        if self.media.busy_ns:
            return self.media.busy_ns / self.elapsed_ns
        return (self.after.generator_ns - self.before.generator_ns) / self.elapsed_ns

    def measurement(self, system: str, scenario: Scenario, load: float, repeat: int) -> Measurement:
        """Make the measurement. `system` is the name of the target."""
        counts = scenario.counts
        counted = self.messages if counts == "message" else self.media
        cores = self.after.cores - self.before.cores
        scale = scenario.seconds * 1e9 / self.elapsed_ns / 1e3 / max(counted.delivered, 1)
        earlier, later = self.around
        dropped = {name: count - earlier.drops[name] for name, count in later.drops.items()} | self.drops
        return Measurement(
            system=system,
            scenario=scenario.name,
            n=scenario.n,
            repeat=repeat,
            seconds=scenario.seconds,
            load=load,
            offered=self.messages.offered if counts == "message" else self.offered,
            delivered=counted.delivered,
            cpu_us_per_packet=(self.after.server_ns - self.before.server_ns) * scale,
            softirq_us_per_packet=cores.softirq * scale,
            server_busy=self.server_busy,
            main_thread_busy=self.main_thread_busy,
            generator_busy=self.generator_busy,
            latency=counted.latency,
            memory_per_subscriber=self.memory_per_subscriber,
            joins_ms=self.joins_ms,
            joins_due=scenario.n if scenario.late else 0,
            calls_ms=tuple(call.took_ms for call in self.calls if call.took_ms),
            calls_due=len(self.calls),
            drops={name: count for name, count in dropped.items() if count},
            notes=tuple(self._all_notes(scenario)),
            unit=counts,
        )

    def _all_notes(self, scenario: Scenario) -> list[str]:
        return [
            *self.notes,
            *self._disturbances(),
            *self._growth(),
            *self._warnings(scenario),
            *self._message_notes(scenario),
            *self._main_thread_notes(scenario),
        ]

    def _disturbances(self) -> list[str]:
        """Return notes about the shares of the server's cores that the hypervisor and other processes took."""
        cores = self.after.cores - self.before.cores
        stolen = cores.steal / max(cores.total, 1)
        strange = 1 - stolen - cores.idle / max(cores.total, 1) - self.server_busy
        found = []
        if stolen >= STOLEN:
            found.append(f"the hypervisor took {stolen:.1%} of the server's cores")
        if strange >= STRANGE:
            found.append(f"other processes took {strange:.0%} of the server's cores")
        return found

    def _growth(self) -> list[str]:
        """Return a note if the server's memory grew, which shows a leak in a long run."""
        before, after = (each.memory for each in self.around)
        if after - before < GROWTH * before:
            return []
        return [f"the server's memory grew by {(after - before) / 2**20:,.1f} MiB to {after / 2**20:,.0f} MiB"]

    def _warnings(self, scenario: Scenario) -> list[str]:
        found, own = [], self.own
        if self.generator_busy >= BUSY:
            found.append(f"the generator used {self.generator_busy:.0%} of its core and may be the limit")
        if (late_us := max(self.media.late_us, self.messages.late_us)) >= LATE_US:
            found.append(f"the generator's schedule fell behind by {late_us / 1e3:.0f} ms")
        if own["unsent"]:
            found.append(f"the generator's sockets refused {own['unsent']} packets")
        if own["rejected"]:
            found.append(f"{own['rejected']} packets did not authenticate")
        if scenario.loss:
            found.append(f"{own['thrown']} packets lost on arrival, {own['repaired']} of them (video only) repaired")
        if self.fallen:
            found.append(f"{len(self.fallen)} participants fell out: {self.fallen[0]}")
        if self.failed_joins:
            found.append(f"{len(self.failed_joins)} of {scenario.n} joins failed: {self.failed_joins[0]}")
        if scenario.late and (lacking := scenario.n - len(self.failed_joins) - len(self.joins_ms)):
            found.append(f"{lacking} of {scenario.n} joins got no media")
        return found

    def _message_notes(self, scenario: Scenario) -> list[str]:
        """Return notes about messages, where the other figures are about media."""
        found, window = [], self.messages
        if scenario.tracks and window.offered:
            rate, size = window.delivered / scenario.seconds, scenario.message_bytes
            found.append(
                f"beside it {rate:,.0f} {scenario.data} messages of {size} bytes a second, whose CPU is in that "
                f"of the packets; {1 - window.delivered / window.offered:.1%} lost, "
                f"p50 {window.latency.p50 / 1e3:.1f} ms, p99 {window.latency.p99 / 1e3:.1f} ms"
            )
        if window.dropped:
            found.append(f"the generator's data channels dropped {window.dropped}")
        if self.message_failures:
            failures = self.message_failures
            found.append(f"{len(failures)} participants with data channels fell out: {failures[0]}")
        return found

    def _main_thread_notes(self, scenario: Scenario) -> list[str]:
        """Return a note about the server's main thread where the scenario keeps Python busy beside media."""
        occupied = scenario.churn_per_second or scenario.calls_per_second
        if not occupied and not (scenario.tracks and scenario.data):
            return []
        return [f"the server's main thread was busy {self.main_thread_busy:.0%} of one core"]
