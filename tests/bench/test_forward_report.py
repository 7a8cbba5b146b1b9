"""What `python -m bench forward` found, as a file and as tables."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from bench.forward import Comparison, Result, Shape
from bench.forward_report import ForwardReport, forward_sheet, print_forward


def result(cost: float) -> Result:
    return Result(cost, 59_970, 60_000, (100 * cost, 400 * cost, 900 * cost), 0.25)


def comparison(subscribers: int, per_burst: int = 1) -> Comparison:
    shape = Shape(subscribers, 60_000, per_burst=per_burst, seconds=1.0)
    return of_shape(shape)


def of_shape(shape: Shape) -> Comparison:
    floors, servers = tuple(map(result, (4.0, 5.0, 2.0))), tuple(map(result, (4.0, 6.0, 3.0)))
    return Comparison(shape, floors, servers, idle_bytes=65_536, drops={"no room": 3})


REPORT = ForwardReport(
    "Test CPU",
    "2026-07-01T12:00:00+00:00",
    "bench",
    {"python": "3.11.7"},
    (comparison(50), comparison(50, 10), of_shape(Shape.chromium(50, 60_000, 1.0))),
)


def test_a_report_survives_its_file(tmp_path: Path) -> None:
    REPORT.write(tmp_path / "forward.json")
    assert ForwardReport.read(tmp_path / "forward.json") == REPORT


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "forward": [{}]}', '{"format": 1}'])
def test_what_is_not_a_report_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "forward.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"forward\.json"):
        ForwardReport.read(path)


def test_a_row_has_medians_with_extremes_and_the_neighbours_ratio() -> None:
    smooth, framed, recorded = forward_sheet(REPORT.forward).rows
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
    note = forward_sheet(REPORT.forward).note
    assert note.startswith("Chromium: ")
    assert "8.73 packets of 1,126 bytes" in note
    assert forward_sheet(REPORT.forward[:2]).note == ""


def test_budgets_stand_beside_what_was_measured() -> None:
    text = io.StringIO()
    print_forward(REPORT, Console(file=text, width=140))
    assert "smooth: server / floor" in text.getvalue()
    assert "1.20 x" in text.getvalue()
    assert "64 KiB" in text.getvalue()
    assert text.getvalue().count("server / segmented floor") == 2
