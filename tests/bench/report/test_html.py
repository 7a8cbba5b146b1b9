import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bench.report.html import page, write_html
from bench.report.plots import COLOURS, bar_plot, bars_of, colours
from bench.report.sheets import repeats, sheets
from bench.report.summary import cpu, summarize
from bench.results import Report
from tests.bench.support.reports import measurement, report

VOID = {"meta", "link", "br", "hr", "img"}


class Outline(HTMLParser):
    """Elements, attributes and cells of a page; fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in {"td", "th"}:
            self.cells.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in {"td", "th"}:
            self.cells[-1] += data

    def values(self, *names: str) -> list[str]:
        return [value or "" for _, attributes in self.elements for name, value in attributes.items() if name in names]


@pytest.fixture(scope="module")
def rendered() -> str:
    return page(report())


def test_the_file_is_the_page(tmp_path: Path) -> None:
    write_html(report(), tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert text.rstrip().endswith("</html>")


def test_it_holds_every_figure_of_every_table(rendered: str) -> None:
    cells = Outline(rendered).cells
    what = report()
    for sheet in [*sheets(what), repeats(what.measurements)]:
        assert unescape(sheet.title) in unescape(rendered)
        for row in sheet.rows:
            assert set(row.cells) <= set(cells)
    assert len(repeats(what.measurements).rows) == len(what.measurements)


def test_it_refers_to_nothing_outside_itself(rendered: str) -> None:
    outline = Outline(rendered)
    assert outline.open == []
    references = outline.values("src", "href", "xlink:href", "action", "data", "srcset", "poster")
    assert references
    assert all(reference.startswith("#") or reference == "data:," for reference in references)
    assert re.findall(r"url\((?!#)|@import|https?:|//", rendered) == []
    assert {"script", "iframe", "object", "img"}.isdisjoint(tag for tag, _ in outline.elements)


def test_names_inside_are_unique_and_every_reference_has_its_target(rendered: str) -> None:
    outline = Outline(rendered)
    names = outline.values("id")
    assert len(names) == len(set(names))
    used = {value[1:] for value in outline.values("href") if value.startswith("#")}
    used |= set(re.findall(r"url\(#([^)]+)\)", rendered))
    assert used <= set(names)


def test_plots_take_their_colours_from_the_page(rendered: str) -> None:
    plots = re.findall(r"<svg.*?</svg>", rendered, re.DOTALL)
    assert len(plots) == 9  # CPU, memory, knees; latency and joining of three sizes
    for plot in plots:
        assert re.findall(r"#[0-9a-f]{6}\b", plot) == []
        assert "var(--ink)" in plot
        assert "viewBox" in plot
        assert "font-family" not in plot
    for variable in set(re.findall(r"var\(--([\w-]+)\)", rendered)):
        assert rendered.count(f"--{variable}:") == 2, f"{variable}: one for light, one for dark"


def test_a_hostile_report_stays_text() -> None:
    evil = "<script>alert('x')</script>&\"$a_b$"
    run = replace(measurement("aiosfu", 50, 0), system=evil, scenario=evil, notes=(evil,), drops={evil: 3})
    text = page(
        report(
            machine=evil,
            command=evil,
            profile=evil,
            date=evil,
            versions={evil: evil},
            measurements=(run,),
            knees=(),
        )
    )
    outline = Outline(text)
    assert "script" not in {tag for tag, _ in outline.elements}
    assert evil in outline.cells


def test_an_empty_report_is_a_page_too() -> None:
    text = page(report(baseline=None, ceiling=None, measurements=(), knees=()))
    assert Outline(text).open == []
    assert "<svg" not in text


def test_a_ramp_becomes_a_curve_and_stays_out_of_the_bars() -> None:
    ramp = [measurement("aiosfu", 50, 0, load=load, delivered=int(240_000 * load)) for load in (0.5, 1.0, 1.5)]
    text = page(report(measurements=tuple(ramp), knees=()))
    assert "p99 under load" in text
    assert "p99 under load" not in page(report(measurements=tuple(ramp[:2]), knees=()))
    only_partly = page(report(measurements=(ramp[0], ramp[2]), knees=()))
    assert "shorter is better" not in only_partly


def test_a_load_that_is_the_only_one_is_drawn_whatever_it_is() -> None:
    runs = tuple(measurement(system, 50, 0, load=0.4) for system in ("floor", "aiosfu"))
    assert "shorter is better" in page(report(measurements=runs, knees=()))


def test_single_values_of_zero_can_be_drawn() -> None:
    nothing = measurement("aiosfu", 50, 0, cpu_us_per_packet=0.0, memory_per_subscriber=0.0, joins_ms=())
    text = page(report(measurements=(nothing,), knees=(), baseline=None))
    assert "memory per subscriber" not in text
    assert Outline(text).open == []


def test_a_system_without_any_delivered_packet_can_be_drawn() -> None:
    dead = replace(measurement("aiosfu", 50, 0), delivered=0)
    silent = replace(dead, latency=replace(dead.latency, p50=0.0, p90=0.0, p99=0.0, p999=0.0, maximum=0.0, count=0))
    assert Outline(page(report(measurements=(silent,), knees=(), baseline=None))).open == []


def test_a_system_has_one_colour_and_the_harness_is_grey() -> None:
    found = colours(["floor", "aiosfu", "naive", "aiosfu", "reflector"])
    assert found["floor"] == found["reflector"]
    assert len({found["floor"], found["aiosfu"], found["naive"]}) == 3
    many = colours([f"system{k}" for k in range(20)])
    assert len(set(many.values())) == COLOURS - 1


def test_bars_carry_their_medians() -> None:
    what: Report = report()
    found = bars_of(summarize(what.measurements), cpu)
    assert list(found) == ["N = 50", "N = 300", "N = 1,000"]
    plot = bar_plot(found, "µs", colours(["floor", "aiosfu", "naive"]))
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", plot)
    assert {"3.30", "4.40", "66.0", "60.0", "N = 1,000", "µs", "aiosfu"} <= set(texts)
