"""Tables, JSON and page of a run."""

import json
from math import inf
from pathlib import Path
from typing import Any

from bench.network.case import Case, ViewerPlan
from bench.network.counts import DOWN, Record
from bench.network.link import Conditions, Fate, Outcome
from bench.network.report import judged, sheets, write_json, write_markdown, write_page
from bench.network.run import Outcome as RunOutcome
from tests.bench.support.viewers import watched


def outcome(system: str = "aiosfu", rate: float = 1e6, **record: Any) -> RunOutcome:
    case = Case("narrow", "a narrow <link>", 12, Conditions(rate=((0, rate),)), Conditions(), (ViewerPlan("ada"),))
    counted = Record(began=5, **{"late_ms": 0.3, "realtime": True, **record})
    for number in range(120):
        counted.add(5.01 + number / 10, DOWN, "77", 1000, Fate(Outcome.ARRIVES, 0, 0.02))
    return RunOutcome(case, system, counted, {"ada": watched(12)}, [])


def test_tables_have_a_row_for_each_system_and_phase() -> None:
    link, seen, heard = sheets(judged([outcome(), outcome("livekit")]))
    assert [row.cells[:4] for row in link.rows] == [(name, "0..12", "1,000", "80") for name in ("aiosfu", "livekit")]
    assert [row.cells[:5] for row in seen.rows] == [(n, "ada", "0..12", "397", "720") for n in ("aiosfu", "livekit")]
    assert all(len(row.cells) == len(sheet.columns) for sheet in (link, seen, heard) for row in sheet.rows)
    assert [row.cells[:4] for row in heard.rows] == [(n, "ada", "0..12", "0%") for n in ("aiosfu", "livekit")]
    assert not any(row.warn for row in (*link.rows, *seen.rows, *heard.rows))


def test_a_run_whose_bottleneck_was_late_is_said_not_to_be_measured() -> None:
    link, seen, heard = sheets(judged([outcome(late_ms=7.0, realtime=False)]))
    assert "aiosfu 7.0 ms, without real-time priority, NOT MEASURED" in link.note
    assert all(sheet.rows[0].warn for sheet in (link, seen, heard))


def test_json_has_figures_and_what_they_come_from(tmp_path: Path) -> None:
    write_json(judged([outcome(rate=inf)]), "python -m bench network", tmp_path / "r.json")
    (run,) = json.loads((tmp_path / "r.json").read_text())["runs"]
    assert run["case"]["down"]["rate"] == [[0, None]]
    assert run["figures"]["views"][0]["lines"] == 720
    assert Record.from_json(run["bottleneck"]) == outcome(rate=inf).record
    assert run["viewers"] == {"ada": watched(12)}


def test_markdown_has_the_tables(tmp_path: Path) -> None:
    write_markdown(judged([outcome()]), "python -m bench network narrow", tmp_path / "r.md")
    text = (tmp_path / "r.md").read_text()
    assert "**narrow: a narrow <link>**\n\n| system | seconds |" in text
    assert text.count("| aiosfu |") == 3
    assert "`python -m bench network narrow`" in text


def test_a_page_shows_plots_and_tables(tmp_path: Path) -> None:
    write_page(judged([outcome(), outcome("livekit", rate=inf)]), "python -m bench <network>", tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert page.count("<svg") == page.count("</svg>") == 8
    for text in ("narrow, livekit: queue", "narrow: a narrow &lt;link&gt;", "bench &lt;network&gt;", ">capacity<"):
        assert text in page
