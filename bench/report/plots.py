"""The figures of a report as plots: SVG text for a page, in the page's own font and colours, light or dark.

Plots are as wide as a phone, so that they need not be scaled down; a page lays them side by side.
"""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.report.sheets import number
from bench.report.summary import FLOOR, PERCENTILES, Figure, Spread, Summary, percentile
from bench.results import Knee, Latency

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
except ImportError as error:
    raise ImportError("plots need matplotlib: pip install 'aiosfu[bench]'") from error

WIDTH_IN, ROW_IN, FRAME_IN, CURVE_IN = 5.0, 0.27, 0.5, 3.3
INK, FAINT, COLOUR = "#01fe01", "#01fe02", "#02fe{:02x}"
"""Stand-ins that become the page's custom properties --ink, --faint, --system-0, --system-1, ..."""
COLOURS = 8
"""The number of colours for systems. Number 0 is grey, for the floor and the reflector."""
HARNESS = {FLOOR, "reflector"}
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
}


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: a median, its extremes and, if there are several, the single values."""

    system: str
    value: Spread
    values: tuple[float, ...] = ()
    prefix: str = ""
    """Text before the number at its end."""


def colours(systems: Sequence[str]) -> dict[str, str]:
    """Give each system one colour, which it has in all plots of a page."""
    others = dict.fromkeys(system for system in systems if system not in HARNESS)
    return {system: COLOUR.format(0) for system in systems} | {
        system: COLOUR.format(1 + place % (COLOURS - 1)) for place, system in enumerate(others)
    }


def bars_of(summaries: Sequence[Summary], figure: Figure) -> dict[str, list[Bar]]:
    """Make one group of bars for each size, with one bar for each system."""
    groups: dict[str, list[Bar]] = {}
    for each in summaries:
        values = tuple(figure(run) for run in each.repeats)
        groups.setdefault(f"N = {each.n:,}", []).append(Bar(each.system, Spread.of(values), values))
    return groups


def bars_of_knees(knees: Sequence[Knee]) -> dict[str, list[Bar]]:
    """Make bars of packets or messages per second at the knee; a prefix marks those that the generator limited."""
    groups: dict[str, list[Bar]] = {}
    for each in knees:
        value = Spread.of((each.packets_per_second,))
        prefix = "≥ " if each.generator_limited else ""
        groups.setdefault(f"N = {each.n:,}", []).append(Bar(each.system, value, prefix=prefix))
    return groups


def bar_plot(groups: dict[str, list[Bar]], unit: str, colour: dict[str, str]) -> str:
    """Plot horizontal bars: the median as bar and number, the extremes as a line, single runs as dots."""
    count = sum(1 + len(bars) for bars in groups.values())

    def draw(axes: Axes) -> None:
        row, ticks, labels = 0, [], []
        edge = max(bar.value.high for bars in groups.values() for bar in bars) or 1.0
        for title, bars in groups.items():
            axes.text(0, row, title, va="center", ha="left", fontweight="bold")
            for bar in bars:
                row += 1
                _draw_bar(axes, row, bar, colour[bar.system], edge)
                ticks.append(row)
                labels.append(bar.system)
            row += 1
        axes.set(xlim=(0, edge * 1.2), ylim=(row - 0.5, -0.6), xlabel=unit)
        axes.set_yticks(ticks, labels)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_formatter(FuncFormatter(_short))
        axes.locator_params(axis="x", nbins=5)

    return _svg(draw, FRAME_IN + ROW_IN * count)


def _draw_bar(axes: Axes, row: int, bar: Bar, colour: str, edge: float) -> None:
    axes.barh(row, bar.value.median, height=0.7, color=colour)
    axes.hlines(row, bar.value.low, bar.value.high, color=INK, linewidth=1.2)
    if len(bar.values) > 1:
        axes.plot(bar.values, [row] * len(bar.values), ".", color=INK, markersize=4)
    axes.text(bar.value.high + edge * 0.02, row, f"{bar.prefix}{number(bar.value.median)}", va="center", ha="left")


def latency_plot(summaries: Sequence[Summary], baseline: Latency | None, colour: dict[str, str]) -> str:
    """Plot percentiles on a logarithmic axis: a line for each system with a band of its repeats, the harness dashed."""
    places = range(len(PERCENTILES))

    def draw(axes: Axes) -> None:
        for each in summaries:
            spreads = [each.spread(percentile(name)) for name in PERCENTILES]
            tint = colour[each.system]
            axes.fill_between(places, [s.low for s in spreads], [s.high for s in spreads], color=tint, alpha=0.2, lw=0)
            axes.plot(places, [s.median for s in spreads], marker="o", markersize=4, color=tint, label=each.system)
        if baseline is not None:
            own = [getattr(baseline, name) for name in PERCENTILES]
            axes.plot(places, own, linestyle="--", color=INK, linewidth=1, label="harness")
        axes.set_xticks(places, list(PERCENTILES.values()))
        axes.set_yscale("log")
        axes.set_ylabel("µs")
        _plain_numbers(axes.yaxis)
        _legend(axes)

    return _svg(draw, CURVE_IN)


def join_plot(summaries: Sequence[Summary], colour: dict[str, str]) -> str:
    """Plot the share of the joins, under all loads, that were complete after a number of milliseconds."""

    def draw(axes: Axes) -> None:
        for system in dict.fromkeys(each.system for each in summaries):
            times = sorted(time for each in summaries if each.system == system for time in each.joins_ms)
            heights = [100 * (place + 1) / len(times) for place in range(len(times))]
            axes.step([times[0], *times], [0, *heights], where="post", color=colour[system], label=system)
        axes.set(ylim=(0, 103), ylabel="% of joins done", xlabel="ms", xscale="log")
        _plain_numbers(axes.xaxis)
        _legend(axes)

    return _svg(draw, CURVE_IN)


def load_plot(summaries: Sequence[Summary], colour: dict[str, str]) -> str:
    """Plot p99 over the load that was carried, with a line for each system. It turns upwards at the knee."""

    def draw(axes: Axes) -> None:
        for system in dict.fromkeys(each.system for each in summaries):
            mine = [each for each in summaries if each.system == system]
            rates = [each.spread(lambda run: run.packets_per_second).median for each in mine]
            axes.plot(rates, [e.latency.p99 for e in mine], marker="o", ms=4, color=colour[system], label=system)
        axes.set_yscale("log")
        axes.set(xlabel=f"delivered {summaries[0].unit}s/s", ylabel="p99, µs")
        axes.locator_params(axis="x", nbins=5)
        axes.xaxis.set_major_formatter(FuncFormatter(_short))
        _plain_numbers(axes.yaxis)
        _legend(axes)

    return _svg(draw, CURVE_IN)


@dataclass(frozen=True, slots=True)
class Line:
    """Values over time."""

    name: str
    times: Sequence[float]
    values: Sequence[float]
    bound: bool = False
    """Drawn thin and in the page's ink: what the others are compared with."""


def time_plot(lines: Sequence[Line], unit: str) -> str:
    """Steps over seconds, from zero up."""

    def draw(axes: Axes) -> None:
        for place, line in enumerate(lines):
            tint, width = (INK, 0.8) if line.bound else (COLOUR.format(1 + place % (COLOURS - 1)), 1.3)
            axes.step(line.times, line.values, where="post", color=tint, linewidth=width, label=line.name)
        axes.set(xlabel="s", ylabel=unit)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(FuncFormatter(_short))
        _legend(axes)

    return _svg(draw, CURVE_IN)


def _plain_numbers(axis: Axis) -> None:
    """Label a logarithmic axis with enough whole numbers to read values off."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 500 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(_short))
    axis.set_minor_formatter(NullFormatter())


def _short(value: float, _place: object = None) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _legend(axes: Axes) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=4, handlelength=1.2, columnspacing=1.2)


def _svg(draw: Callable[[Axes], None], height_in: float) -> str:
    with matplotlib.rc_context(SETTINGS):
        canvas = Canvas(figsize=(WIDTH_IN, height_in), layout="constrained")
        axes = canvas.add_subplot()
        axes.grid(visible=True, axis="both")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes)
        text = io.StringIO()
        canvas.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return _for_a_page(text.getvalue())


def _for_a_page(svg: str) -> str:
    """Remove what only a separate SVG file needs, and replace the stand-ins by custom properties."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    head, body = svg.split(">", 1)
    view_box = re.search(r'viewBox="[^"]*"', head)
    assert view_box is not None
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # two plots of a page would share these names
    body = re.sub(r"font-family: [^;]*; ", "", body).replace("xlink:href", "href")
    body = body.replace(INK, "var(--ink)").replace(FAINT, "var(--faint)")
    body = re.sub(COLOUR[:5] + "(..)", lambda match: f"var(--system-{int(match[1], 16)})", body)
    return f'<svg role="img" {view_box[0]}>{body.strip()}'
