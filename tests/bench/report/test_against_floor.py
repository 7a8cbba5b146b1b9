"""What `python -m bench forward` found, as a file and as tables."""

import io
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from bench.report.against_floor import floor_sheet, print_against_floor
from bench.results import Latency, Measurement, Report

COSTS = {"floor": (4.0, 5.0, 2.0), "engine": (4.0, 6.0, 3.0)}


def measurements(scenario: str) -> Iterable[Measurement]:
    for repeat in range(3):
        for system in COSTS:
            cost = COSTS[system][repeat]
            latency = Latency(100 * cost, 200 * cost, 400 * cost, 800 * cost, 900 * cost, 59_970)
            yield Measurement(
                *(system, scenario, 50, repeat, 1.0, 1.0, 60_000, 59_970, cost, 0.0, 0.2, 0.25, latency, 65_536.0)
            )


def report(*scenarios: str) -> Report:
    found = tuple(each for scenario in scenarios for each in measurements(scenario))
    return Report("Test CPU", "2026-07-01T12:00:00+00:00", "bench", {"python": "3.11.7"}, "GCM", None, None, found)


REPORT = report("smooth", "frames", "recorded")


def test_a_report_survives_its_file(tmp_path: Path) -> None:
    REPORT.write(tmp_path / "forward.json")
    assert floor_sheet(Report.read(tmp_path / "forward.json")) == floor_sheet(REPORT)


def test_a_row_has_medians_with_extremes_and_the_neighbours_ratio() -> None:
    smooth, framed, recorded = floor_sheet(REPORT).rows
    assert smooth.cells[:7] == (
        "50",
        "smooth",
        "59,970",
        "4.00 (2.00..5.00)",
        "4.00 (3.00..6.00)",
        "1.20 (1.00..1.50)",
        "0.050%",
    )
    assert smooth.cells[7:] == ("400 (300..600)", "1,600 (1,200..2,400)", "24%", "25%")
    assert framed.cells[1] == "10 at once"
    assert recorded.cells[1] == "Chromium"
    assert recorded.cells[2:] == framed.cells[2:]


def test_a_note_says_what_recorded_frames_are_made_of() -> None:
    note = floor_sheet(REPORT).note
    assert note.startswith("Chromium: ")
    assert "8.73 packets of 1,126 bytes" in note
    assert floor_sheet(report("smooth", "frames")).note == ""


def test_budgets_stand_beside_what_was_measured() -> None:
    text = io.StringIO()
    print_against_floor(REPORT, Console(file=text, width=140))
    assert "smooth: server / floor" in text.getvalue()
    assert "1.20 x" in text.getvalue()
    assert "64 KiB" in text.getvalue()
    assert text.getvalue().count("server / segmented floor") == 2
