"""A report as one HTML file: plots first, then every table. It loads nothing else, so it can be mailed or archived."""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from bench.report.plots import (
    bar_plot,
    bars_of,
    bars_of_knees,
    colours,
    join_plot,
    latency_plot,
    load_plot,
)
from bench.report.sheets import WORDS, Sheet, repeats, sheets
from bench.report.summary import Summary, cpu, memory, names, summarize
from bench.results import Report

CURVE = 3
"""The number of loads from which on a ramp is drawn as a curve."""

STYLE = """
:root { color-scheme: light dark; --ink: #1d2330; --faint: #c9ced8; --paper: #ffffff; --raised: #f5f6f9;
  --warn: #fff1c9; --quiet: #5d6675; --system-0: #9aa2af; --system-1: #1668c7; --system-2: #d9581c; --system-3: #12906a;
  --system-4: #a3489b; --system-5: #c79100; --system-6: #4aa6d6; --system-7: #7a6652; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --faint: #3d4553; --paper: #14171d; --raised: #1d222b;
  --warn: #463a12; --quiet: #9aa4b5; --system-0: #7d8695; --system-1: #5aa2f0; --system-2: #f0854f; --system-3: #3dbd94;
  --system-4: #d083c9; --system-5: #e3b341; --system-6: #82cdf2; --system-7: #b59b80; } }
body { margin: 0 auto; padding: 1rem; max-width: 78rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0.5rem 0 0; } h2 { font-size: 1.2rem; margin: 2.2rem 0 0.6rem; }
p { margin: 0.3rem 0; } .quiet { color: var(--quiet); font-size: 0.9rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); gap: 1rem; }
figure { margin: 0; padding: 0.8rem; background: var(--raised); border-radius: 8px; }
figcaption { font-weight: 600; margin-bottom: 0.4rem; } figcaption small { display: block; font-weight: 400;
  color: var(--quiet); }
svg { display: block; width: 100%; max-width: 34rem; height: auto; } svg * { stroke-linejoin: round; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 0.875rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.7rem; border-bottom: 1px solid var(--faint); text-align: right; white-space: nowrap; }
th { vertical-align: bottom; color: var(--quiet); font-weight: 600; } .word { text-align: left; }
tr.warn td { background: var(--warn); } code { overflow-wrap: anywhere; font-size: 0.875rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.2rem 1rem; font-size: 0.9rem; margin: 0; }
dt { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; } summary { cursor: pointer; font-weight: 600; }
"""


def write_html(report: Report, path: Path) -> None:
    """Write the page. CPU and latency are in microseconds, memory in KiB, joins in milliseconds."""
    path.write_text(page(report), encoding="utf-8")


def page(report: Report) -> str:
    """Return the page as text."""
    title = f"aiosfu benchmark {escape(report.date)}"
    facts = " · ".join(map(escape, (report.date, report.machine, f"SRTP {report.profile}")))
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">',
        f"<title>{title}</title><style>{STYLE}</style></head><body>",
        f'<h1>aiosfu benchmark</h1><p class="quiet">{facts}</p>',
        '<p class="quiet">Medians over the repeats; dots are single runs, lines and bands span them. The systems ran '
        "in turn on the same cores.</p>",
        f'<div class="plots">{"".join(_plots(report))}</div>',
        *(section(sheet) for sheet in sheets(report)),
        f"<h2>Origin</h2>{_origin(report)}",
        f"<h2>Every run</h2><details><summary>{len(report.measurements)} runs</summary>",
        f"{_table(repeats(report.measurements))}</details></body></html>",
    ]
    return "\n".join(parts) + "\n"


def _plots(report: Report) -> Iterator[str]:
    summaries = summarize(report.measurements)
    colour = colours([*names(report.measurements, "system"), *(knee.system for knee in report.knees)])
    scenarios = dict.fromkeys([each.scenario for each in summaries] + [knee.scenario for knee in report.knees])
    for scenario in scenarios:
        mine = [each for each in summaries if each.scenario == scenario]
        knees = [knee for knee in report.knees if knee.scenario == scenario]
        yield from _cost_plots(scenario, _at_one_load(mine), colour)
        if knees:
            plot = bar_plot(bars_of_knees(knees), f"{knees[0].unit}s/s", colour)
            yield figure(f"{scenario}: the most that was carried", "longer is better; ≥ the generator's limit", plot)
        for n in dict.fromkeys(each.n for each in mine):
            yield from _time_plots(f"{scenario}, N = {n:,}", [each for each in mine if each.n == n], report, colour)


def _at_one_load(summaries: Sequence[Summary]) -> Sequence[Summary]:
    """Return the summaries that can be compared: those under the only load, or under the full load of a ramp."""
    if len({each.load for each in summaries}) == 1:
        return summaries
    return [each for each in summaries if each.load == 1]


def _cost_plots(scenario: str, summaries: Sequence[Summary], colour: dict[str, str]) -> Iterator[str]:
    if not summaries:
        return
    plot = bar_plot(bars_of(summaries, cpu), "µs of CPU", colour)
    yield figure(f"{scenario}: CPU per delivered {summaries[0].unit}", "shorter is better", plot)
    kept = [each for each in summaries if each.spread(memory).high]
    if kept:
        plot = bar_plot(bars_of(kept, memory), "KiB", colour)
        yield figure(f"{scenario}: memory per subscriber", "shorter is better", plot)


def _time_plots(title: str, summaries: Sequence[Summary], report: Report, colour: dict[str, str]) -> Iterator[str]:
    measured = [each for each in summaries if each.latency.count]
    alike = _at_one_load(measured)
    if alike:
        plot = latency_plot(alike, report.baseline, colour)
        yield figure(f"{title}: latency", "send to receive, lower is better", plot)
    if len({each.load for each in measured}) >= CURVE:
        yield figure(f"{title}: p99 under load", "further right before it rises is better", load_plot(measured, colour))
    joined = [each for each in summaries if each.joins_ms]
    if joined:
        plot = join_plot(joined, colour)
        yield figure(f"{title}: joining", "token to first media packet, further left is better", plot)


def figure(title: str, hint: str, plot: str) -> str:
    """A plot with its title, and below it how to read it."""
    return f"<figure><figcaption>{escape(title)}<small>{escape(hint)}</small></figcaption>{plot}</figure>"


def section(sheet: Sheet) -> str:
    """A table with its title and note."""
    note = "".join(f'<p class="quiet">{escape(line)}</p>' for line in sheet.note.splitlines())
    return f"<h2>{escape(sheet.title)}</h2>{_table(sheet)}{note}"


def _table(sheet: Sheet) -> str:
    kinds = [' class="word"' if column in WORDS else "" for column in sheet.columns]
    head = "".join(f"<th{kind}>{escape(column)}</th>" for kind, column in zip(kinds, sheet.columns, strict=True))
    rows = "".join(
        ('<tr class="warn">' if row.warn else "<tr>")
        + "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, row.cells, strict=True))
        + "</tr>"
        for row in sheet.rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _origin(report: Report) -> str:
    facts = {"machine": report.machine, **report.versions, "SRTP profile": report.profile}
    entries = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return f"<dl>{entries}<dt>command</dt><dd><code>{escape(report.command)}</code></dd></dl>"
