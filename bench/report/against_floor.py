"""The results of `python -m bench forward` as tables: against the floor, and against the budgets of the design."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from bench import scenarios
from bench.generator.recording import EQUAL, equalised, messages_per_frame, per_frame, recorded_packets
from bench.report.sheets import Row, Sheet, busy, number, share, spread
from bench.report.summary import FLOOR, Spread, cores, cpu, percentile
from bench.report.terminal import print_sheet
from bench.results import Measurement, Report
from bench.scenarios import Scenario

BUDGETS = {
    "ratio": 1.25,
    "segmented": 1.25,
    "growth": 1.2,
    "idle_kib": 100,
}
"""The budgets of docs/design.md. They are reported beside what was measured, and never asserted."""


COLUMNS = (
    *("N", "load", "packets/s", "floor us", "server us", "server / floor"),
    *("loss", "p50 us", "p99 us", "server busy", "gen. busy"),
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Floor and server under one load, in all repeats."""

    scenario: Scenario
    n: int
    pairs: tuple[tuple[Measurement, Measurement], ...]
    """Pairs of floor and server, measured one after the other; never empty."""

    @property
    def ratio(self) -> Spread:
        """The ratio server / floor of CPU per packet, pair by pair."""
        return Spread.of(cpu(server) / cpu(floor) for floor, server in self.pairs)

    def floor(self, figure: Callable[[Measurement], float]) -> Spread:
        """Return the spread of a figure of the floor over the repeats."""
        return Spread.of(figure(floor) for floor, _ in self.pairs)

    def server(self, figure: Callable[[Measurement], float]) -> Spread:
        """Return the spread of a figure of the server over the repeats."""
        return Spread.of(figure(server) for _, server in self.pairs)


def comparisons(report: Report) -> list[Comparison]:
    """Return the loads of a report in which the floor and one server were measured in turns.

    Raises:
        BadScenario: the report has a scenario that is unknown here.
    """
    groups: dict[tuple[str, int], dict[int, dict[bool, Measurement]]] = {}
    for each in report.measurements:
        repeats = groups.setdefault((each.scenario, each.n), {})
        repeats.setdefault(each.repeat, {})[each.system == FLOOR] = each
    return [
        Comparison(scenarios.find(name), n, tuple((sides[True], sides[False]) for sides in repeats.values()))
        for (name, n), repeats in groups.items()
    ]


def floor_sheet(report: Report) -> Sheet:
    """Make the table of CPU per delivered packet beside the floor's, latency and loss: one row for each load."""
    found = comparisons(report)
    recordings = dict.fromkeys(each.scenario.pattern for each in found if _recorded(each.scenario))
    note = "\n".join(map(_describe, recordings))
    return Sheet("CPU per delivered packet, medians of alternating runs", COLUMNS, tuple(map(_row, found)), note)


def _recorded(scenario: Scenario) -> bool:
    return scenario.pattern not in ("", EQUAL)


def _describe(recording: str) -> str:
    """Describe the frames and packets of a recording."""
    packets = recorded_packets(recording)
    return (
        f"{_title(recording)}: recorded frames ({recording}), on average {number(per_frame(packets))} packets of "
        f"{number(packets['bytes'].mean())} bytes, {number(messages_per_frame(packets))} messages with UDP_SEGMENT, "
        f"{number(messages_per_frame(equalised(packets)))} with padding, which the floor gets too."
    )


def _title(recording: str) -> str:
    return recording.partition("-")[0].capitalize()


def load_title(scenario: Scenario) -> str:
    """Return the load's name in the table."""
    if _recorded(scenario):
        return _title(scenario.pattern)
    return "smooth" if scenario.per_burst == 1 else f"{scenario.per_burst} at once"


def _row(found: Comparison) -> Row:
    return Row(
        (
            f"{found.n:,}",
            load_title(found.scenario),
            number(found.server(lambda run: run.packets_per_second).median),
            spread(found.floor(cpu)),
            spread(found.server(cpu)),
            spread(found.ratio),
            spread(found.server(lambda run: run.loss), share),
            spread(found.server(percentile("p50"))),
            spread(found.server(percentile("p99"))),
            busy(found.server(cores).median),
            busy(found.server(lambda run: run.generator_busy).median),
        )
    )


def print_against_floor(report: Report, console: Console) -> None:
    """Print both tables and the machine."""
    print_sheet(floor_sheet(report), console)
    console.print(_budget_table(comparisons(report)))
    console.print(report.machine)


def _budget_table(found: Iterable[Comparison]) -> Table:
    found = list(found)
    smooth = [each for each in found if each.scenario.pattern == EQUAL and each.scenario.per_burst == 1]
    framed = [each for each in found if each.scenario.pattern == EQUAL and each.scenario.per_burst > 1]
    recorded = [each for each in found if _recorded(each.scenario)]
    table = Table(title="Budgets of docs/design.md")
    for column in ("what", "budget", "measured"):
        table.add_column(column)
    if smooth:
        table.add_row("smooth: server / floor", f"{BUDGETS['ratio']} x", _list(smooth))
        growth = smooth[-1].server(cpu).median / smooth[0].server(cpu).median
        table.add_row(f"growth from {smooth[0].n} to {smooth[-1].n}", f"{BUDGETS['growth']} x", f"{growth:.2f} x")
        kib = smooth[-1].server(lambda run: run.memory_per_subscriber).median / 1024
        table.add_row("memory of an idle transport", f"{BUDGETS['idle_kib']} KiB", f"{kib:.0f} KiB")
    for what, some in (("frames", framed), ("recorded frames", recorded)):
        if some:
            table.add_row(f"{what}: server / segmented floor", f"{BUDGETS['segmented']} x", _list(some))
    return table


def _list(found: Iterable[Comparison]) -> str:
    return ", ".join(f"{each.ratio.median:.2f}" for each in found) + " x"
