"""Runs as tables, as JSON, and as a page with plots over time."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from html import escape
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

from bench.accounting import machine
from bench.network.bottleneck import LATE_MS
from bench.network.counts import DOWN, UP, Count
from bench.network.judge import Judgement, LinkFigures, ViewFigures, judge
from bench.network.link import value_at
from bench.network.run import Outcome, Say
from bench.report.markdown import table
from bench.report.sheets import NOTHING, Row, Sheet
from bench.results import now

SECOND = 1.0
LINK_COLUMNS = ("system", "seconds", "kbit/s", "sent", "arrived", "fits after", "queue p95", "over 100 ms", "dropped")
VIEWER = ("system", "viewer", "seconds")
PICTURE_COLUMNS = (*VIEWER, "kbit/s", "lines", "switches", "freezes", "still", "longest", "oldest", "first")
SOUND_COLUMNS = (*VIEWER, "made up", "gap, first 2 s", "gap, then", "lost", "again", "PLI", "reconnects")
WORDS_OF_LINK = "kbit/s of the link, sent to it, and carried by it. fits after: until a half second's packets fit."
WORDS_OF_PICTURE = (
    "kbit/s of video. lines: most seen in the second half. still: share of the time in which the picture froze. "
    "longest: the longest freeze. oldest: the oldest picture when shown. first: from joining to the first picture."
)
WORDS_OF_SOUND = (
    "made up: share of the audio that the client made up. gap: the longest at once. lost: video packets after repair. "
    "again: video packets that were sent again."
)


@dataclass(frozen=True, slots=True)
class Judged:
    """A run with its figures."""

    outcome: Outcome
    judgement: Judgement


def judged(outcomes: Sequence[Outcome]) -> list[Judged]:
    """Judge runs."""
    return [Judged(outcome, judge(outcome)) for outcome in outcomes]


def sheets(runs: Sequence[Judged]) -> Iterator[Sheet]:
    """Yield three tables for each case. The systems are below each other."""
    for case in dict.fromkeys(run.outcome.case.name for run in runs):
        mine = [run for run in runs if run.outcome.case.name == case]
        title = mine[0].outcome.case.title
        link = [_link_row(run.outcome, figures) for run in mine for figures in run.judgement.links]
        seen = [(run.outcome, figures) for run in mine for figures in run.judgement.views]
        pictures, sounds = (tuple(row(*each) for each in seen) for row in (_picture_row, _sound_row))
        yield Sheet(f"{case}: {title}", LINK_COLUMNS, tuple(link), f"{WORDS_OF_LINK} {_lateness(mine)}")
        yield Sheet(f"{case}: what viewers saw", PICTURE_COLUMNS, pictures, WORDS_OF_PICTURE)
        yield Sheet(f"{case}: what viewers heard, and what was repaired", SOUND_COLUMNS, sounds, WORDS_OF_SOUND)


def _lateness(runs: Sequence[Judged]) -> str:
    said = []
    for run in runs:
        record = run.outcome.record
        priority = "" if record.realtime else ", without real-time priority"
        late = f", NOT MEASURED: more than {LATE_MS:g} ms in {run.outcome.tries} runs"
        verdict = "" if run.outcome.measured else late
        said.append(f"{run.outcome.system} {record.late_ms:.1f} ms{priority}{verdict}")
    return f"The bottleneck was late by (p99): {'; '.join(said)}."


def _kbit(value: float | None) -> str:
    return "any" if value is None else f"{value / 1000:,.0f}"


def _percent(value: float) -> str:
    return f"{value:.0%}" if value == 0 or value >= 0.1 else f"{value:.1%}"


def _span(begin: float, end: float) -> str:
    return f"{begin:g}..{end:g}"


def _link_row(outcome: Outcome, figures: LinkFigures) -> Row:
    return Row(
        (
            outcome.system,
            _span(figures.begin, figures.end),
            _kbit(figures.capacity),
            _kbit(figures.offered),
            _kbit(figures.carried),
            "never" if figures.within_s is None else f"{figures.within_s:.1f} s",
            f"{figures.queue_p95_ms:.0f} ms",
            _percent(figures.queue_over),
            _percent(figures.dropped),
        ),
        warn=not outcome.measured,
    )


def _viewer(outcome: Outcome, figures: ViewFigures) -> tuple[str, str, str]:
    return outcome.system, figures.viewer, _span(figures.begin, figures.end)


def _picture_row(outcome: Outcome, figures: ViewFigures) -> Row:
    cells = (
        _kbit(figures.video_bps),
        str(figures.lines or NOTHING),
        str(figures.switches),
        str(figures.freezes),
        _percent(figures.frozen_s / (figures.end - figures.begin)),
        f"{figures.longest_s:.1f} s",
        f"{figures.oldest_ms / 1000:.1f} s" if figures.pictures else NOTHING,
        NOTHING if figures.first_s is None else f"{figures.first_s:.1f} s",
    )
    return Row((*_viewer(outcome, figures), *cells), warn=not outcome.measured)


def _sound_row(outcome: Outcome, figures: ViewFigures) -> Row:
    cells = (
        _percent(figures.concealed),
        f"{figures.early_gap_ms:.0f} ms",
        f"{figures.gap_ms:.0f} ms",
        _percent(figures.lost),
        _percent(figures.again),
        str(figures.plis),
        str(figures.reconnects),
    )
    return Row((*_viewer(outcome, figures), *cells), warn=not outcome.measured)


def write_json(runs: Sequence[Judged], command: str, path: Path) -> None:
    """Write all figures, and what they come from: the counts of the bottleneck and the reports of the clients."""
    data = {"date": now(), "machine": machine(), "command": command, "runs": [_run_json(run) for run in runs]}
    path.write_text(json.dumps(_finite(data), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _run_json(run: Judged) -> dict[str, Any]:
    outcome = run.outcome
    return {
        "case": asdict(outcome.case),
        "system": outcome.system,
        "measured": outcome.measured,
        "tries": outcome.tries,
        "figures": asdict(run.judgement),
        "bottleneck": outcome.record.to_json(),
        "viewers": outcome.viewers,
        "publisher": outcome.publisher,
    }


def _finite(value: Any) -> Any:
    """Replace infinity, which JSON does not have, by null."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and value in (inf, -inf) else value


def write_markdown(runs: Sequence[Judged], command: str, path: Path) -> None:
    """Write the tables as Markdown, each below its title."""
    parts = [f"**{sheet.title}**\n\n{table(sheet)}\n" for sheet in sheets(runs)]
    path.write_text("\n".join([*parts, f"`{command}`,\n{now()[:10]}, {machine()}.\n"]), encoding="utf-8")


def write_page(runs: Sequence[Judged], command: str, path: Path) -> None:
    """Write an HTML page with plots over time and the tables."""
    from bench.report.html import STYLE, section

    plots = "".join(plot for run in runs for plot in _plots(run.outcome))
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">',
        f"<title>aiosfu behind a bottleneck</title><style>{STYLE}</style></head><body>",
        f'<h1>Behind a bottleneck</h1><p class="quiet">{escape(now())} · {escape(machine())}</p>',
        f'<div class="plots">{plots}</div>',
        *(section(sheet) for sheet in sheets(runs)),
        f"<h2>Origin</h2><p><code>{escape(command)}</code></p></body></html>",
    ]
    path.write_text("\n".join(parts) + "\n", encoding="utf-8")


def _plots(outcome: Outcome) -> Iterator[str]:
    from bench.report.html import figure
    from bench.report.plots import Line, time_plot

    case, title = outcome.case, f"{outcome.case.name}, {outcome.system}"
    direction, conditions = (UP, case.up) if case.publisher_behind else (DOWN, case.down)
    seconds = [SECOND * number for number in range(int(case.seconds))]
    counts = [[count for *_, count in outcome.record.select(direction, at, at + SECOND)] for at in seconds]
    sent = [8 * sum(count.size for count in each) / 1000 for each in counts]
    rates = [value_at(conditions.rate, at) / 1000 for at in seconds]
    lines = [Line("sent", seconds, sent)]
    if max(rates) < inf:
        lines.insert(0, Line("capacity", seconds, rates, bound=True))
    lines += [Line(name, *_video_rate(said)) for name, said in outcome.viewers.items()]
    yield figure(
        f"{title}: rate", "sent to the bottleneck, and what each viewer received of video", time_plot(lines, "kbit/s")
    )
    shown = [Line(name, *_heights(said)) for name, said in outcome.viewers.items()]
    hint = "lines of each picture that was shown; 0: it stood still"
    yield figure(f"{title}: picture", hint, time_plot(shown, "lines"))
    waits = [max((count.waited_ms for count in each), default=0.0) for each in counts]
    yield figure(f"{title}: queue", "longest wait in each second", time_plot([Line("queue", seconds, waits)], "ms"))
    gone = [_gone(outcome.record.media(direction, at, at + SECOND)) for at in seconds]
    made_up = [Line(name, *_concealed(said)) for name, said in outcome.viewers.items()]
    lost = time_plot([Line("packets", seconds, gone), *made_up], "%")
    yield figure(f"{title}: loss", "of the media packets, before repair; audio that each viewer made up", lost)


def _gone(counts: Sequence[Count]) -> float:
    packets = sum(count.packets for count in counts)
    return 100 * sum(count.dropped + count.lost for count in counts) / packets if packets else 0.0


def _each_second(lines: Sequence[Say], kind: str) -> Iterator[tuple[float, Say, Say]]:
    """Yield a time and the statistics of this kind at its begin and end, for each second in which they grew.

    They do not where the client connected again and counts from zero.
    """
    found: list[Say] = []
    for line in lines:
        if kind in line and (not found or line["at"] >= found[-1]["at"] + SECOND):
            found.append(line)
    for a, b in pairwise(found):
        if a[kind]["packets"] <= b[kind]["packets"]:
            yield a["at"], a[kind], b[kind]


def _video_rate(lines: Sequence[Say]) -> tuple[list[float], list[float]]:
    rates = [(at, 8 * (b["bytes"] - a["bytes"]) / 1000 / SECOND) for at, a, b in _each_second(lines, "video")]
    return [at for at, _ in rates], [rate for _, rate in rates]


def _concealed(lines: Sequence[Say]) -> tuple[list[float], list[float]]:
    times, shares = [], []
    for at, a, b in _each_second(lines, "audio"):
        samples = b["total_samples_received"] - a["total_samples_received"]
        times.append(at)
        shares.append(100 * (b["concealed_samples"] - a["concealed_samples"]) / samples if samples > 0 else 0.0)
    return times, shares


def _heights(lines: Sequence[Say]) -> tuple[list[float], list[float]]:
    times: list[float] = []
    heights: list[float] = []
    for line in lines:
        for at, height, _ in line.get("pictures", ()):
            if times and at > times[-1] + SECOND:
                times.append(times[-1])
                heights.append(0.0)
            times.append(at)
            heights.append(float(height))
    return times, heights
