"""The published table of a section of `run`: a row for each size, variation and system, with the section's columns."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.report.sheets import NOTHING, WARNING, Row, Sheet, busy, called, joined, number, share, spread
from bench.report.summary import (
    BUSY,
    PERCENTILES,
    Summary,
    cores,
    cpu,
    floor_ratio,
    main_thread,
    memory,
    percentile,
    quantile,
    ratio,
    summarize,
)
from bench.results import Measurement, Report

OURS = "aiosfu"


@dataclass(frozen=True, slots=True)
class Line:
    """The data of one row."""

    summary: Summary
    others: list[Summary]
    """All summaries of the same command, this one included."""
    changes: Mapping[str, float | None]
    """The rates that the command set, by the names of the scenario's fields."""


Cell = Callable[[Line], str]


def _figure(figure: Callable[[Measurement], float], form: Callable[[float], str] = number) -> Cell:
    return lambda line: spread(line.summary.spread(figure), form)


def _change(name: str) -> Cell:
    def cell(line: Line) -> str:
        value = line.changes.get(name)
        return NOTHING if value is None else f"{value:g}"

    return cell


def _time(times: Callable[[Summary], Sequence[float]], part: float) -> Cell:
    def cell(line: Line) -> str:
        found = times(line.summary)
        return number(quantile(found, part)) if found else NOTHING

    return cell


def _joins(summary: Summary) -> Sequence[float]:
    return summary.joins_ms


def _calls(summary: Summary) -> Sequence[float]:
    return summary.calls_ms


def _of_ours(line: Line) -> str:
    """Return the ratio of its CPU to that of aiosfu with the same command, size and load."""
    for each in line.others:
        if each.system == OURS and each.n == line.summary.n and line.summary.system != OURS:
            return spread(ratio(line.summary, each, cpu))
    return NOTHING


COLUMNS: dict[str, Cell] = {
    "system": lambda line: line.summary.system + (f" {WARNING}" if line.summary.generator_limited else ""),
    "N": lambda line: f"{line.summary.n:,}",
    "load": lambda line: f"{line.summary.load:g}",
    "messages/s": _change("messages_per_second"),
    "churn/s": _change("churn_per_second"),
    "delivered/s": lambda line: number(line.summary.spread(lambda each: each.packets_per_second).median),
    "CPU us": _figure(cpu),
    "x floor": lambda line: spread(floor_ratio(line.summary, line.others)),
    "x aiosfu": _of_ours,
    "loss": _figure(lambda each: each.loss, share),
    "server busy": _figure(lambda each: each.server_busy, busy),
    "main thread": _figure(main_thread, busy),
    "gen. busy": _figure(lambda each: each.generator_busy, busy),
    "KiB each": _figure(memory),
    # For scenarios of rooms: how many of them one core would carry at this cost.
    "rooms/core": _figure(lambda each: each.n / cores(each) if cores(each) else 0.0),
    **{f"{text} us": _figure(percentile(name)) for name, text in PERCENTILES.items()},
    "joins": lambda line: joined(line.summary),
    "join p50 ms": _time(_joins, 0.5),
    "join p99 ms": _time(_joins, 0.99),
    "calls/s": _change("calls_per_second"),
    "calls": lambda line: called(line.summary) if line.summary.calls_due else NOTHING,
    "call p50 ms": _time(_calls, 0.5),
    "call p99 ms": _time(_calls, 0.99),
}
"""The columns by name. Cells are medians over the repeats, with the extremes in brackets."""


def section_sheet(
    name: str, columns: Iterable[str], reports: Iterable[tuple[Mapping[str, float | None], Report]]
) -> Sheet:
    """Make the table of a section. `reports` has, for each command, the rates that it set and its report."""
    lines = []
    for changes, report in reports:
        summaries = summarize(report.measurements)
        lines += [Line(each, summaries, changes) for each in summaries]
    lines.sort(key=lambda line: line.summary.n)
    chosen = tuple(columns)
    rows = tuple(
        Row(tuple(COLUMNS[column](line) for column in chosen), warn=line.summary.generator_limited) for line in lines
    )
    limited = f"{WARNING} the generator was busy over {BUSY:.0%} of its core and may be the limit."
    return Sheet(name, chosen, rows, limited if any(row.warn for row in rows) else "")
