"""The results of a benchmark as plain data, which is written as JSON, compared and drawn."""

import datetime
import json
import shlex
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

FORMAT = 1
"""The version of the JSON files. A reader refuses others."""


def now() -> str:
    """Return the time now, as reports write it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def command_line(words: Iterable[str]) -> str:
    """Return the command line that has these words after `python -m bench`."""
    return shlex.join(["python", "-m", "bench", *words])


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles, in microseconds, of the time from a packet's (or message's) send time in the generator to the
    kernel's receive time at a subscriber."""

    p50: float
    p90: float
    p99: float
    p999: float
    maximum: float
    count: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measured window of one system under one load."""

    system: str
    """Name of the target: aiosfu, floor, naive, livekit, janus, ..."""
    scenario: str
    n: int
    """The scenario's size: subscribers, participants, rooms."""
    repeat: int
    """The number of the repeat, from 0."""
    seconds: float
    load: float
    """Share of the scenario's full load, 1 unless it was ramped."""
    offered: int
    """Packets (or messages) that should have reached subscribers."""
    delivered: int
    cpu_us_per_packet: float
    """CPU time of the server's process tree, per delivered packet."""
    softirq_us_per_packet: float
    """Softirq time of the server's cores during the window, per delivered packet."""
    server_busy: float
    """Share of the server's cores that its processes used."""
    generator_busy: float
    """Share of its core that the busiest generator process used."""
    latency: Latency
    memory_per_subscriber: float
    """Bytes by which each subscriber raised the server's proportional set size."""
    joins_ms: tuple[float, ...] = ()
    """The time from join to first media packet of each participant that joined in the window and got media."""
    drops: dict[str, int] = field(default_factory=dict)
    """Datagrams that the server or the kernel dropped, by reason."""
    notes: tuple[str, ...] = ()
    main_thread_busy: float = 0.0
    """The share of one core that the server's main thread used. In aiosfu that thread runs Python, and no media."""
    unit: str = "packet"
    """What was counted and timed: a `packet` of media, or a data `message`."""
    joins_due: int = 0
    """Participants that were to join in the window. If `joins_ms` has fewer, the others did not get in or no media."""
    calls_ms: tuple[float, ...] = ()
    """The time from when it was due to its answer of each call of the server API that was due in the window."""
    calls_due: int = 0
    """Calls that were due in the window. If `calls_ms` has fewer, the others failed."""

    @property
    def loss(self) -> float:
        """The share of the offered packets that did not arrive."""
        return 1 - self.delivered / self.offered if self.offered else 0.0

    @property
    def packets_per_second(self) -> float:
        """Packets that were delivered per second."""
        return self.delivered / self.seconds


@dataclass(frozen=True, slots=True)
class Knee:
    """The highest load that a system carried in a scenario: loss and p99 within the scenario's bounds."""

    system: str
    scenario: str
    n: int
    packets_per_second: float
    server_busy: float
    generator_limited: bool
    """Whether the generator was at its own ceiling, so that the true knee is higher."""
    unit: str = "packet"
    """What was counted: `packet` or `message`."""


@dataclass(frozen=True, slots=True)
class Report:
    """One run of the benchmark."""

    machine: str
    date: str
    """ISO 8601, UTC."""
    command: str
    versions: dict[str, str]
    """Versions of systems, libraries and kernel, by name."""
    profile: str
    """The SRTP protection profile of the media."""
    baseline: Latency | None
    """The latency that the harness itself adds: from the generator to a plain reflector and back."""
    ceiling: float | None
    """The packets per second that the generator takes from the reflector without loss."""
    measurements: tuple[Measurement, ...] = ()
    knees: tuple[Knee, ...] = ()

    def write(self, path: Path) -> None:
        """Write the report as JSON."""
        write_figures(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote.

        Raises:
            ValueError: the file has another format.
        """
        data = read_figures(path)
        try:
            data["baseline"] = Latency(**data["baseline"]) if data["baseline"] else None
            data["measurements"] = tuple(_measurement(entry) for entry in data["measurements"])
            data["knees"] = tuple(Knee(**entry) for entry in data["knees"])
            return cls(**data)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is not a benchmark report: {error}") from error


def write_figures(path: Path, figures: dict[str, Any]) -> None:
    """Write figures as JSON, which `read_figures` reads."""
    path.write_text(json.dumps({"format": FORMAT, **figures}, indent=1) + "\n", encoding="utf-8")


def read_figures(path: Path) -> dict[str, Any]:
    """Read what `write_figures` wrote.

    Raises:
        ValueError: the file has another format.
    """
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("format") != FORMAT:
            raise ValueError(f"{path}: written by another version of this benchmark")
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a benchmark report: {error}") from error
    return data


def _measurement(data: dict[str, Any]) -> Measurement:
    data["latency"] = Latency(**data["latency"])
    for name in ("joins_ms", "notes", "calls_ms"):
        data[name] = tuple(data.get(name, ()))
    return Measurement(**data)
