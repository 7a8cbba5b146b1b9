"""The tables of a report as text, for the terminal and for HTML: their columns, their order and their units."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bench.report.summary import (
    BUSY,
    PERCENTILES,
    Spread,
    Summary,
    cpu,
    floor_ratio,
    main_thread,
    memory,
    percentile,
    quantile,
    summarize,
)
from bench.results import Knee, Latency, Measurement, Report

NOTHING = "-"
"""Stands for a figure that was not measured or does not exist."""
WARNING = "!"
"""Marks a figure that the generator may have limited."""
WORDS = {"what", "scenario", "system", "viewer", "figure", "reason", "note"}
"""Columns that hold words. The others hold numbers, which are aligned at the right."""

WITH_SPREAD = {"p50", "p99"}
ROUGHLY_EQUAL = 0.01
"""The share of the median below which the distance of the extremes is not shown."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a sheet."""

    cells: tuple[str, ...]
    warn: bool = False
    """The figures need care, for the reason in the sheet's note."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table whose cells are text."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""


def number(value: float) -> str:
    """Write a number with about three digits and separated thousands."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def share(value: float) -> str:
    """Write a loss as per cent. Small ones keep their digits, because the limit is 0.1 %."""
    return f"{value:.0%}" if value == 0 or value >= 0.1 else f"{value:.3%}"


def busy(value: float) -> str:
    """Write a share of a core's time as per cent."""
    return f"{value:.0%}"


def spread(value: Spread | None, form: Callable[[float], str] = number) -> str:
    """Write the median, and the extremes if more than ROUGHLY_EQUAL lies between them."""
    if value is None:
        return NOTHING
    if value.high - value.low <= ROUGHLY_EQUAL * abs(value.median):
        return form(value.median)
    return f"{form(value.median)} ({form(value.low)}..{form(value.high)})"


def sheets(report: Report) -> list[Sheet]:
    """Return all tables of a report that have rows."""
    summaries = summarize(report.measurements)
    found = [harness(report), *(loads(part) for part in _by_scenario(summaries)), latencies(summaries)]
    found += [knees(report.knees), joins(summaries), calls(summaries), drops(summaries), notes(summaries)]
    return [sheet for sheet in found if sheet.rows]


def _by_scenario(summaries: Sequence[Summary]) -> Iterable[list[Summary]]:
    for scenario in dict.fromkeys(each.scenario for each in summaries):
        yield [each for each in summaries if each.scenario == scenario]


def harness(report: Report) -> Sheet:
    """Make the table of the harness: the latency that it adds, and the most packets that it takes."""
    rows = []
    if report.baseline is not None:
        rows.append(Row(("latency to a plain reflector and back, us", *_percentiles(report.baseline))))
    if report.ceiling is not None:
        rows.append(Row(("packets/s without loss (ceiling)", number(report.ceiling), *[""] * len(PERCENTILES))))
    if not rows:
        return Sheet("The harness itself", (), ())
    if report.baseline is None:
        return Sheet("The harness itself", ("what", "measured"), tuple(Row(row.cells[:2]) for row in rows))
    return Sheet("The harness itself", ("what", *PERCENTILES.values(), "packets"), tuple(rows))


def _percentiles(latency: Latency) -> list[str]:
    return [*(number(getattr(latency, name)) for name in PERCENTILES), f"{latency.count:,}"]


def loads(summaries: Sequence[Summary]) -> Sheet:
    """Make the table of throughput, CPU, loss and memory of one scenario."""
    ramped = any(each.load != 1 for each in summaries)
    threads = any(main_thread(run) for each in summaries for run in each.repeats)
    unit = summaries[0].unit
    columns = ("N", *(("load",) if ramped else ()), "system", "runs", f"{unit}s/s", "CPU us", "x floor")
    columns += ("softirq", "loss", "server", *(("main",) if threads else ()), "gen.", "KiB each")
    rows = tuple(_load_row(each, summaries, ramped, threads) for each in summaries)
    limited = f"{WARNING} generator busy over {BUSY:.0%}: it may be the limit, the server's figures may be better."
    note = f"CPU and softirq per delivered {unit}; server, gen. (generator): busy share of their cores; "
    note += "main: of one core, the server's main thread; " if threads else ""
    note += "KiB per subscriber."
    if any(row.warn for row in rows):
        note += f"\n{limited}"
    return Sheet(f"{summaries[0].scenario}: CPU per delivered {unit}", columns, rows, note)


def _load_row(summary: Summary, all_of_them: Sequence[Summary], ramped: bool, threads: bool) -> Row:
    kept = summary.spread(memory)
    generator = summary.spread(lambda each: each.generator_busy)
    cells = (
        f"{summary.n:,}",
        *((f"{summary.load:.0%}",) if ramped else ()),
        summary.system,
        str(len(summary.repeats)),
        spread(summary.spread(lambda each: each.packets_per_second)),
        spread(summary.spread(cpu)),
        spread(floor_ratio(summary, all_of_them)),
        number(summary.spread(lambda each: each.softirq_us_per_packet).median),
        spread(summary.spread(lambda each: each.loss), share),
        busy(summary.spread(lambda each: each.server_busy).median),
        *((busy(summary.spread(main_thread).median),) if threads else ()),
        busy(generator.high) + (f" {WARNING}" if summary.generator_limited else ""),
        number(kept.median) if kept.high else NOTHING,
    )
    return Row(cells, warn=summary.generator_limited)


def latencies(summaries: Sequence[Summary]) -> Sheet:
    """Make the table of latencies under every load, in microseconds, with the number of receivers."""
    ramped = any(each.load != 1 for each in summaries)
    counted = _units(each.unit for each in summaries)
    columns = ("scenario", "system", "N", *(("load",) if ramped else ()), *PERCENTILES.values(), counted)
    rows = tuple(
        Row(
            (
                each.scenario,
                each.system,
                f"{each.n:,}",
                *((f"{each.load:.0%}",) if ramped else ()),
                *(_latency_cell(each, name) for name in PERCENTILES),
                f"{each.latency.count:,}",
            ),
            warn=each.generator_limited,
        )
        for each in summaries
    )
    return Sheet("Latency from send to receive, us", columns, rows)


def _units(units: Iterable[str]) -> str:
    """Return the heading of a column that counts packets, messages or both."""
    return " or ".join(f"{unit}s" for unit in dict.fromkeys(units)) or "packets"


def _latency_cell(summary: Summary, name: str) -> str:
    """Write the median of a percentile; for p50 and p99 the extremes too, since more would be hard to read."""
    value = summary.spread(percentile(name))
    return spread(value) if name in WITH_SPREAD else number(value.median)


def knees(found: Sequence[Knee]) -> Sheet:
    """Make the table of the highest load that each system carried."""
    rows = tuple(
        Row(
            (
                each.scenario,
                each.system,
                f"{each.n:,}",
                (">= " if each.generator_limited else "") + number(each.packets_per_second),
                busy(each.server_busy),
                number(each.packets_per_second / each.server_busy) if each.server_busy else NOTHING,
            ),
            warn=each.generator_limited,
        )
        for each in found
    )
    note = "At >= the generator reached its own ceiling first: the true knee is higher."
    counted = _units(each.unit for each in found)
    columns = ("scenario", "system", "N", f"{counted}/s", "server busy", f"{counted}/s per busy core")
    return Sheet("Knees: the most that was carried within bounds", columns, rows, note if rows else "")


def joined(summary: Summary) -> str:
    """Write how many joined and got media and, if these are not all, of how many."""
    return _of_all(len(summary.joins_ms), summary.joins_due)


def called(summary: Summary) -> str:
    """Write how many calls were answered as they should be and, if these are not all, of how many."""
    return _of_all(len(summary.calls_ms), summary.calls_due)


def _of_all(count: int, due: int) -> str:
    return f"{count:,}" if count >= due else f"{count:,} of {due:,}"


def joins(summaries: Sequence[Summary]) -> Sheet:
    """Make the table of times from join to first media packet, over all repeats."""
    found = [(each, joined(each), each.joins_ms) for each in summaries if each.joins_ms or each.joins_due]
    return _times("Joining: token to first media packet, ms", "joins", found)


def calls(summaries: Sequence[Summary]) -> Sheet:
    """Make the table of times from a call of the server API to its answer, over all repeats."""
    found = [(each, called(each), each.calls_ms) for each in summaries if each.calls_due]
    return _times("Calls of the server API: due to answered, ms", "calls", found)


def _times(title: str, what: str, found: Iterable[tuple[Summary, str, Sequence[float]]]) -> Sheet:
    """Make a table of sorted times, with how many there are of `what`."""
    rows = tuple(
        Row(
            (
                each.scenario,
                each.system,
                f"{each.n:,}",
                count,
                *(number(quantile(times, part)) if times else NOTHING for part in (0.5, 0.9, 0.99, 1)),
            )
        )
        for each, count, times in found
    )
    return Sheet(title, ("scenario", "system", "N", what, "p50", "p90", "p99", "max"), rows)


def drops(summaries: Sequence[Summary]) -> Sheet:
    """Make the table of datagrams that the kernel or the server dropped, over all repeats."""
    rows = tuple(
        Row((each.scenario, each.system, f"{each.n:,}", reason, f"{count:,}"))
        for each in summaries
        for reason, count in each.drops.items()
    )
    return Sheet("Drops, as kernel and server counted them", ("scenario", "system", "N", "reason", "packets"), rows)


def notes(summaries: Sequence[Summary]) -> Sheet:
    """Make the table of the notes of all runs."""
    rows = tuple(Row((each.scenario, each.system, f"{each.n:,}", note)) for each in summaries for note in each.notes)
    return Sheet("Notes", ("scenario", "system", "N", "note"), rows)


def repeats(measurements: Iterable[Measurement]) -> Sheet:
    """Make the table of every single run."""
    counts = ("scenario", "system", "N", "load", "repeat", "s", "offered", "delivered", "loss")
    columns = (*counts, "CPU us", "softirq us", "server", "generator", *PERCENTILES.values(), "KiB each")
    rows = tuple(
        Row(
            (
                each.scenario,
                each.system,
                f"{each.n:,}",
                f"{each.load:.0%}",
                str(each.repeat),
                number(each.seconds),
                f"{each.offered:,}",
                f"{each.delivered:,}",
                share(each.loss),
                number(each.cpu_us_per_packet),
                number(each.softirq_us_per_packet),
                busy(each.server_busy),
                busy(each.generator_busy),
                *(number(getattr(each.latency, name)) for name in PERCENTILES),
                number(memory(each)),
            ),
            warn=each.generator_busy > BUSY,
        )
        for each in measurements
    )
    return Sheet("Every run", columns, rows)
