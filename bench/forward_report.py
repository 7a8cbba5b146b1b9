"""What `python -m bench forward` found, as JSON and as tables: against the floor, against the budgets of the design.

Nothing here measures.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.table import Table

from bench.forward import Comparison, Result, Shape
from bench.generator.recording import equalised, messages_per_frame, per_frame, recorded_packets
from bench.report.sheets import Row, Sheet, busy, number, share, spread
from bench.report.summary import Spread
from bench.results import read_figures, write_figures

BUDGETS = {
    "ratio": 1.25,
    "segmented": 1.25,
    "growth": 1.2,
    "idle_kib": 100,
}
"""What docs/design.md allows; reported beside what was measured, never asserted."""


COLUMNS = (
    *("N", "load", "packets/s", "floor us", "server us", "server / floor"),
    *("loss", "p50 us", "p99 us", "server busy", "gen. busy"),
)


@dataclass(frozen=True, slots=True)
class ForwardReport:
    """One run of the comparison."""

    machine: str
    date: str
    """ISO 8601, UTC."""
    command: str
    versions: dict[str, str]
    forward: tuple[Comparison, ...]

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        write_figures(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote. Raises ValueError for anything else."""
        data = read_figures(path)
        try:
            data["forward"] = tuple(_comparison(entry) for entry in data["forward"])
            return cls(**data)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is not a report of forwarding: {error}") from error


def _comparison(data: dict[str, Any]) -> Comparison:
    runs = {side: tuple(_result(entry) for entry in data[side]) for side in ("floors", "servers")}
    return Comparison(**{**data, "shape": Shape(**data["shape"]), **runs})


def _result(data: dict[str, Any]) -> Result:
    return Result(**{**data, "latency_us": tuple(data["latency_us"])})


def forward_sheet(results: Iterable[Comparison]) -> Sheet:
    """CPU per delivered packet beside the floor's, latency and loss of the server: one row per load."""
    results = list(results)
    recordings = dict.fromkeys(each.shape.recording for each in results if each.shape.recording)
    note = "\n".join(map(_describe, recordings))
    return Sheet("CPU per delivered packet, medians of alternating runs", COLUMNS, tuple(map(_row, results)), note)


def _describe(recording: str) -> str:
    """What a recording is made of."""
    packets = recorded_packets(recording)
    return (
        f"{_title(recording)}: recorded frames ({recording}), on average {number(per_frame(packets))} packets of "
        f"{number(packets['bytes'].mean())} bytes, {number(messages_per_frame(packets))} messages with UDP_SEGMENT, "
        f"{number(messages_per_frame(equalised(packets)))} with padding, which the floor gets too."
    )


def _title(recording: str) -> str:
    return recording.partition("-")[0].capitalize()


def load_title(shape: Shape) -> str:
    """What is offered, in a word or two."""
    if shape.recording:
        return _title(shape.recording)
    return "smooth" if shape.per_burst == 1 else f"{shape.per_burst} at once"


def _row(result: Comparison) -> Row:
    shape = result.shape

    def of(runs: tuple[Result, ...], figure: Callable[[Result], float]) -> Spread:
        return Spread.of(map(figure, runs))

    ratios = Spread.of(s.cpu_us_per_packet / f.cpu_us_per_packet for f, s in result.pairs)
    return Row(
        (
            f"{shape.subscribers:,}",
            load_title(shape),
            number(of(result.servers, lambda run: run.delivered / shape.seconds).median),
            spread(of(result.floors, lambda run: run.cpu_us_per_packet)),
            spread(of(result.servers, lambda run: run.cpu_us_per_packet)),
            spread(ratios),
            spread(of(result.servers, lambda run: run.loss), share),
            spread(of(result.servers, lambda run: run.latency_us[0])),
            spread(of(result.servers, lambda run: run.latency_us[1])),
            busy(of(result.servers, lambda run: run.cpu_us_per_packet * run.delivered / shape.seconds / 1e6).median),
            busy(of(result.servers, lambda run: run.generator_busy).median),
        )
    )


def print_forward(report: ForwardReport, console: Console) -> None:
    """Print both tables and the machine."""
    from bench.report.terminal import print_sheet

    print_sheet(forward_sheet(report.forward), console)
    console.print(_budget_table(report.forward))
    console.print(report.machine)


def _budget_table(results: Iterable[Comparison]) -> Table:
    results = list(results)
    smooth = [result for result in results if result.shape.per_burst == 1]
    framed = [result for result in results if result.shape.per_burst > 1]
    recorded = [result for result in results if result.shape.recording]
    table = Table(title="Budgets of docs/design.md")
    for column in ("what", "budget", "measured"):
        table.add_column(column)
    if smooth:
        table.add_row("smooth: server / floor", f"{BUDGETS['ratio']} x", _list(result.ratio for result in smooth))
        growth = smooth[-1].server.cpu_us_per_packet / smooth[0].server.cpu_us_per_packet
        table.add_row(
            f"growth from {smooth[0].shape.subscribers} to {smooth[-1].shape.subscribers}",
            f"{BUDGETS['growth']} x",
            f"{growth:.2f} x",
        )
        table.add_row(
            "memory of an idle transport", f"{BUDGETS['idle_kib']} KiB", f"{smooth[-1].idle_bytes / 1024:.0f} KiB"
        )
    for what, found in (("frames", framed), ("recorded frames", recorded)):
        if found:
            ratios = _list(result.ratio for result in found)
            table.add_row(f"{what}: server / segmented floor", f"{BUDGETS['segmented']} x", ratios)
    return table


def _list(ratios: Iterable[float]) -> str:
    return ", ".join(f"{ratio:.2f}" for ratio in ratios) + " x"
