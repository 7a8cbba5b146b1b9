"""`python -m bench`: the benchmarks by name."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.accounting import machine
from bench.forward import Comparison, Shape, compare

MIN_WIDTH = 120
console = Console(width=max(Console().width, MIN_WIDTH))

BUDGETS = {
    "ratio": 1.25,
    "segmented": 1.25,
    "growth": 1.2,
    "idle_kib": 100,
}
"""What docs/design.md allows; reported beside what was measured, never asserted."""
BURST = 10


@click.group()
def main() -> None:
    """Benchmarks of forwarding: measure, say what was measured, assert nothing."""


@main.command()
@click.option("--subscribers", "-n", type=int, multiple=True, default=(50, 300, 1000), help="Repeat for several.")
@click.option("--rate", type=int, default=60_000, show_default=True, help="Packets a second out, in all.")
@click.option("--seconds", type=float, default=4.0, show_default=True, help="Measured seconds of each run.")
@click.option("--repeats", type=int, default=5, show_default=True, help="Alternating runs of floor and server.")
@click.option("--frames/--no-frames", default=True, help="Also frame-shaped load against the UDP_SEGMENT floor.")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Write the figures here.")
def forward(
    subscribers: tuple[int, ...], rate: int, seconds: float, repeats: int, frames: bool, output: Path | None
) -> None:
    """One publisher to N subscribers: CPU per forwarded packet against the floor, in one run."""
    counts = sorted(subscribers)
    shapes = [Shape(n, rate, seconds=seconds) for n in counts]
    if frames:
        shapes += [Shape(n, rate, per_burst=BURST, seconds=seconds) for n in counts]
    results = []
    with Progress(console=console) as progress:
        for shape in shapes:
            title = f"{shape.subscribers} subscribers, {'frames' if shape.per_burst > 1 else 'smooth'}"
            task = progress.add_task(title, total=2 * repeats)
            advance = partial(progress.advance, task)
            results.append(compare(shape, repeats, segments=shape.per_burst > 1, progress=advance))
    console.print(_forward_table(results))
    console.print(_budget_table(results))
    console.print(machine())
    if output is not None:
        output.write_text(json.dumps({"machine": machine(), "forward": [asdict(r) for r in results]}, indent=1))


def _forward_table(results: list[Comparison]) -> Table:
    table = Table(title="CPU per delivered packet, medians of alternating runs")
    for column in (
        "N",
        "load",
        "packets/s",
        "floor us",
        "server us",
        "ratio",
        "min-max",
        "loss",
        "p50 us",
        "p99 us",
        "gen. busy",
    ):
        table.add_column(column, justify="right")
    for result in results:
        shape, server = result.shape, result.server
        table.add_row(
            str(shape.subscribers),
            "smooth" if shape.per_burst == 1 else f"{shape.per_burst} at once",
            f"{server.delivered / shape.seconds:,.0f}",
            f"{result.floor.cpu_us_per_packet:.2f}",
            f"{server.cpu_us_per_packet:.2f}",
            f"{result.ratio:.2f}",
            f"{result.spread[0]:.2f}-{result.spread[1]:.2f}",
            f"{server.loss:.3%}",
            f"{server.latency_us[0]:,.0f}",
            f"{server.latency_us[1]:,.0f}",
            f"{server.generator_busy:.0%}",
        )
    return table


def _budget_table(results: list[Comparison]) -> Table:
    smooth = [result for result in results if result.shape.per_burst == 1]
    framed = [result for result in results if result.shape.per_burst > 1]
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
    if framed:
        table.add_row(
            "frames: server / segmented floor", f"{BUDGETS['segmented']} x", _list(result.ratio for result in framed)
        )
    return table


def _list(ratios: Iterable[float]) -> str:
    return ", ".join(f"{ratio:.2f}" for ratio in ratios) + " x"


if __name__ == "__main__":
    main()
