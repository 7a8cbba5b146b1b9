"""Two reports side by side: the ratio of the second one's figures to the first one's, with the spread over repeats."""

from collections.abc import Iterator, Sequence
from itertools import product

from rich.console import Console

from bench.report.sheets import Row, Sheet, number, share, spread
from bench.report.summary import Figure, Summary, cpu, memory, percentile, ratio, summarize
from bench.report.terminal import print_sheet
from bench.results import Report

CPU = "CPU us per"
FIGURES: dict[str, Figure] = {
    CPU: cpu,
    "p50 us": percentile("p50"),
    "p99 us": percentile("p99"),
    "loss": lambda measurement: measurement.loss,
    "KiB per subscriber": memory,
}
UNCERTAIN = "~"
"""Marks a ratio whose repeats do not agree on which of the two is larger."""


def print_comparison(a: Report, b: Report, console: Console) -> None:
    """Print the ratios b / a of CPU per packet or message, latency, loss and memory: below 1, b is better.

    Each system is compared with itself if both reports measured it; else each system of `a` with each one of `b`.
    """
    for line in _differences(a, b):
        console.print(f"! {line}", style="yellow", markup=False, highlight=False)
    found = comparison(a, b)
    if found.rows:
        print_sheet(found, console)
    else:
        console.print("The two reports have no scenario of the same size in common.")


def comparison(a: Report, b: Report) -> Sheet:
    """Make the table of the ratios b / a, with one row for each figure."""
    columns = ("scenario", "N", "system", "figure", "a", "b", "b / a")
    found = pairs(summarize(a.measurements), summarize(b.measurements))
    note = (
        "b / a: ratio of the medians (lowest..highest ratio of two repeats with the same number).\n"
        f"{UNCERTAIN} the repeats do not agree on which of the two is larger."
    )
    return Sheet("b / a: below 1, b needs less", columns, tuple(row for two in found for row in _rows(*two)), note)


def pairs(left: Sequence[Summary], right: Sequence[Summary]) -> Iterator[tuple[Summary, Summary]]:
    """Find what to compare: equal scenario, size and load, and equal system unless the reports share none."""
    shared = {each.system for each in left} & {each.system for each in right}
    for one, other in product(left, right):
        same_load = (one.scenario, one.n, one.load) == (other.scenario, other.n, other.load)
        if same_load and (one.system == other.system if shared else True):
            yield one, other


def _rows(left: Summary, right: Summary) -> Iterator[Row]:
    scenario = left.scenario if left.load == 1 else f"{left.scenario} at {left.load:.0%}"
    system = left.system if left.system == right.system else f"{left.system} -> {right.system}"
    limited = left.generator_limited or right.generator_limited
    for name, figure in FIGURES.items():
        before, after = left.spread(figure), right.spread(figure)
        if not before.high and not after.high:
            continue  # not measured, or nothing lost
        form = share if name == "loss" else number
        quotient = ratio(right, left, figure)
        doubt = f" {UNCERTAIN}" if quotient is not None and quotient.undecided else ""
        yield Row(
            (
                scenario,
                f"{left.n:,}",
                system,
                f"{CPU} {left.unit}" if name == CPU else name,
                spread(before, form),
                spread(after, form),
                spread(quotient) + doubt,
            ),
            warn=limited,
        )


def _differences(a: Report, b: Report) -> Iterator[str]:
    """Name differences between the reports that make their ratios less meaningful."""
    for what, before, after in (("machine", a.machine, b.machine), ("SRTP profile", a.profile, b.profile)):
        if before != after:
            yield f"another {what}: {before} -> {after}"
    for name in a.versions.keys() & b.versions.keys():
        if a.versions[name] != b.versions[name]:
            yield f"another {name}: {a.versions[name]} -> {b.versions[name]}"
