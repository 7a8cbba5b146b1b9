"""What a benchmark measured, as it is written to JSON, compared and drawn. Plain data; nothing here measures."""

import datetime
import json
import shlex
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

FORMAT = 1
"""Of the JSON files; a reader refuses other numbers."""


def now() -> str:
    """The date of a report made now."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def command_line(words: Iterable[str]) -> str:
    """How these words are typed."""
    return shlex.join(["python", "-m", "bench", *words])


@dataclass(frozen=True, slots=True)
class Latency:
    """Microseconds from the send time of a packet (or message) in the generator to the kernel's receive time at a
    subscriber."""

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
    """0, 1, 2, ...: which of the alternating repeats."""
    seconds: float
    load: float
    """Share of the scenario's full load, 1 unless it was ramped."""
    offered: int
    """Packets that should have reached subscribers in the window."""
    delivered: int
    cpu_us_per_packet: float
    """User and system time of the server's process tree per delivered packet."""
    softirq_us_per_packet: float
    """Of the server's cores while the window lasted."""
    server_busy: float
    """Share of the server's cores that its processes used."""
    generator_busy: float
    """Share of its core that the busiest generator process used."""
    latency: Latency
    memory_per_subscriber: float
    """Bytes of the server's PSS by which the subscribers raised it, each."""
    joins_ms: tuple[float, ...] = ()
    """Token to first media packet, for each participant that joined in the window and got media."""
    drops: dict[str, int] = field(default_factory=dict)
    """Counted by the server or the kernel, by reason."""
    notes: tuple[str, ...] = ()
    main_thread_busy: float = 0.0
    """Share of one core that the server's main thread used. Of aiosfu that is its Python: media have other threads."""
    unit: str = "packet"
    """What was offered and delivered, and what CPU and latency are of: a `packet` of media, or a data `message`."""
    joins_due: int = 0
    """Participants that were to join in the window. Where `joins_ms` has fewer, the others did not get in or got no
    media."""

    @property
    def loss(self) -> float:
        """Share of the offered packets that did not arrive."""
        return 1 - self.delivered / self.offered if self.offered else 0.0

    @property
    def packets_per_second(self) -> float:
        """Delivered."""
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
    """The generator was at its own ceiling, so the true knee is higher."""
    unit: str = "packet"
    """See `Measurement`."""


@dataclass(frozen=True, slots=True)
class Report:
    """One run of the benchmark."""

    machine: str
    date: str
    """ISO 8601, UTC."""
    command: str
    versions: dict[str, str]
    """Of systems, libraries and kernel."""
    profile: str
    """SRTP protection profile of the media."""
    baseline: Latency | None
    """Generator to plain reflector and back: what the harness itself adds."""
    ceiling: float | None
    """Packets per second that the generator takes from the reflector without loss."""
    measurements: tuple[Measurement, ...] = ()
    knees: tuple[Knee, ...] = ()

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        write_figures(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote. Raises ValueError for anything else."""
        data = read_figures(path)
        try:
            data["baseline"] = Latency(**data["baseline"]) if data["baseline"] else None
            data["measurements"] = tuple(_measurement(entry) for entry in data["measurements"])
            data["knees"] = tuple(Knee(**entry) for entry in data["knees"])
            return cls(**data)
        except (KeyError, TypeError, AttributeError) as exc:
            raise ValueError(f"{path} is not a benchmark report: {exc}") from exc


def write_figures(path: Path, figures: dict[str, Any]) -> None:
    """Write figures as JSON, for `read_figures`."""
    path.write_text(json.dumps({"format": FORMAT, **figures}, indent=1) + "\n", encoding="utf-8")


def read_figures(path: Path) -> dict[str, Any]:
    """What `write_figures` wrote. Raises ValueError for anything else."""
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("format") != FORMAT:
            raise ValueError(f"{path}: written by another version of this benchmark")
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as exc:
        raise ValueError(f"{path} is not a benchmark report: {exc}") from exc
    return data


def _measurement(data: dict[str, Any]) -> Measurement:
    data["latency"] = Latency(**data["latency"])
    for name in ("joins_ms", "notes"):
        data[name] = tuple(data[name])
    return Measurement(**data)
