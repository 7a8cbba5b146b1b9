import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from bench.report.sheets import number, share, sheets, spread
from bench.report.summary import Spread, floor_ratio, memory, quantile, ratio, summarize
from bench.report.terminal import print_report
from bench.results import Report
from tests.bench.support.reports import measurement, report


def printed(what: Report, width: int = 140) -> str:
    text = io.StringIO()
    print_report(what, Console(file=text, width=width))
    return text.getvalue()


def line_with(text: str, *words: str) -> str:
    lines = [line for line in text.splitlines() if set(words) <= set(line.split())]
    assert lines, f"no line with {words}"
    return lines[0]


def test_a_report_survives_its_file(tmp_path: Path) -> None:
    written = report()
    written.write(tmp_path / "report.json")
    assert Report.read(tmp_path / "report.json") == written
    bare = report(baseline=None, ceiling=None, measurements=(), knees=())
    bare.write(tmp_path / "bare.json")
    assert Report.read(tmp_path / "bare.json") == bare


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"format": 1}',
        '{"format": 2, "machine": "m"}',
        '{"format": 1, "measurements": [{}], "knees": [], "baseline": null}',
        '{"format": 1, "measurements": [], "knees": [{"system": "a"}], "baseline": null}',
        '{"format": 1, "measurements": [], "knees": [], "baseline": {"p50": 1}}',
        '{"format": 1, "measurements": [], "knees": [], "baseline": null, "stranger": 1}',
        '{"format": 1, "measurements": 5, "knees": [], "baseline": null}',
    ],
)
def test_what_is_not_a_report_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"report|benchmark"):
        Report.read(path)


def test_bytes_that_are_not_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="codec"):
        Report.read(path)


def test_a_report_from_before_messages_counts_packets(tmp_path: Path) -> None:
    report().write(tmp_path / "report.json")
    data = json.loads((tmp_path / "report.json").read_text())
    for entry in data["measurements"] + data["knees"]:
        del entry["unit"]
    (tmp_path / "report.json").write_text(json.dumps(data))
    assert Report.read(tmp_path / "report.json") == report()


def test_messages_are_called_messages() -> None:
    text = printed(report(measurements=(measurement("aiosfu", 50, 0, scenario="data", unit="message"),), knees=()))
    assert "data: CPU per delivered message" in text
    assert "messages/s" in text
    assert "packets" not in text.partition("Latency")[2].partition("Drops")[0]


def test_a_measurement_without_a_latency_is_refused(tmp_path: Path) -> None:
    report().write(tmp_path / "report.json")
    data = json.loads((tmp_path / "report.json").read_text())
    del data["measurements"][3]["latency"]
    (tmp_path / "report.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match="latency"):
        Report.read(tmp_path / "report.json")


def test_repeats_become_one_row_with_median_and_extremes() -> None:
    text = printed(report())
    row = line_with(text, "50", "aiosfu", "59,970")
    assert row.split()[3:] == ["59,970", "4.40", "(4.00..4.80)", "1.33", "0.50", "0.050%", "26%", "40%", "64.0"]
    assert "4.40 (4.00..4.80)" in row


def test_what_the_harness_adds_comes_first_and_the_origin_last() -> None:
    text = printed(report())
    order = ["19 runs", "The harness itself", "310,000", "CPU per delivered", "Latency", "Knees", "Joining", "Drops"]
    places = [
        text.index(part) for part in [*order, "Test CPU", "libsrtp 2.7.0", "$ python -m bench run --systems 'a & b'"]
    ]
    assert places == sorted(places)


def test_a_busy_generator_is_warned_of() -> None:
    text = printed(report())
    assert "97% !" in text
    assert "! generator busy over 90%" in text
    calm = replace(report(), measurements=report().measurements[:-1])
    assert "!" not in printed(calm)


def test_a_knee_that_the_generator_limited_is_a_lower_bound() -> None:
    text = printed(report())
    assert ">= 80,000" in text
    assert ">= 60,000" not in text
    assert line_with(text, "webinar", "aiosfu", "60,000").split()[-1] == "63,158"


def test_notes_are_printed_as_they_are() -> None:
    assert "kernel <dropped> [some]" in printed(report())


def test_latency_has_all_percentiles_and_its_count() -> None:
    row = line_with(printed(report()), "webinar", "naive", "1,000", "120,000")
    assert row.split()[-6:] == ["120,000", "216,000", "480,000", "1,080,000", "3,000,000", "100,000"]


def test_drops_are_summed_and_what_never_happened_is_left_out() -> None:
    text = printed(report())
    assert line_with(text, "RcvbufErrors", "aiosfu", "50").split()[-1] == "120"
    assert "SndbufErrors" not in text


def test_nothing_is_cut_off_in_a_narrow_terminal() -> None:
    assert "…" not in printed(report(), width=100)


def test_an_empty_report_is_still_printed() -> None:
    text = printed(report(baseline=None, ceiling=None, measurements=(), knees=()))
    assert "0 runs" in text
    assert "Test CPU" in text
    assert "Latency" not in text


def test_a_ceiling_without_a_baseline_is_shown() -> None:
    first = sheets(report(baseline=None))[0]
    assert first.columns == ("what", "measured")
    assert [row.cells[1] for row in first.rows] == ["310,000"]


def test_loads_of_a_ramp_are_rows_of_their_own() -> None:
    ramp = tuple(measurement("aiosfu", 50, k, load=load) for k in range(2) for load in (0.5, 1.0, 1.5))
    what = report(measurements=ramp)
    assert [(each.load, len(each.repeats)) for each in summarize(ramp)] == [(0.5, 2), (1.0, 2), (1.5, 2)]
    assert {"50%", "100%", "150%"} <= set(printed(what).split())


def test_summaries_keep_the_order_of_first_appearance_and_sort_by_size() -> None:
    runs = [measurement("naive", 300, 0), measurement("aiosfu", 50, 1), measurement("aiosfu", 300, 0)]
    runs += [measurement("aiosfu", 50, 0), measurement("floor", 10, 0, scenario="audio")]
    found = summarize(runs)
    assert [(each.scenario, each.n, each.system) for each in found] == [
        ("webinar", 50, "aiosfu"),
        ("webinar", 300, "naive"),
        ("webinar", 300, "aiosfu"),
        ("audio", 10, "floor"),
    ]
    assert [run.repeat for run in found[0].repeats] == [0, 1]


def test_a_ratio_takes_its_spread_from_repeats_of_the_same_number() -> None:
    above = summarize([measurement("naive", 50, k, cpu_us_per_packet=c) for k, c in enumerate((10.0, 30.0, 20.0))])[0]
    below = summarize([measurement("aiosfu", 50, k, cpu_us_per_packet=c) for k, c in enumerate((5.0, 10.0, 2.0))])[0]
    found = ratio(above, below, lambda each: each.cpu_us_per_packet)
    assert found == Spread(20 / 5, 2, 10)
    assert ratio(above, below, lambda each: each.drops["SndbufErrors"]) is None
    assert not found.undecided
    assert Spread(1.1, 0.9, 1.3).undecided


def test_the_floor_is_not_set_in_relation_to_itself() -> None:
    found = summarize(report().measurements)
    assert floor_ratio(found[0], found) is None
    assert floor_ratio(found[1], found) is not None
    assert floor_ratio(found[-1], found) is None  # no floor at its size


def test_numbers_keep_about_three_digits() -> None:
    assert [number(value) for value in (0.0, 0.1234, 9.876, 12.34, 123.4, 12345.6)] == [
        "0.00",
        "0.12",
        "9.88",
        "12.3",
        "123",
        "12,346",
    ]
    assert [share(value) for value in (0.0, 0.0005, 0.0999, 0.5, 1.0)] == ["0%", "0.050%", "9.990%", "50%", "100%"]
    assert spread(Spread(1.0, 1.0, 1.0)) == "1.00"
    assert spread(Spread(1.0, 0.999, 1.001)) == "1.00"
    assert spread(Spread(1.0, 0.98, 1.0)) == "1.00 (0.98..1.00)"
    assert spread(None) == "-"


def test_quantiles_are_of_the_values_that_there_are() -> None:
    assert [quantile([1.0, 2.0, 3.0, 4.0], part) for part in (0.0, 0.5, 0.99, 1.0)] == [1.0, 3.0, 4.0, 4.0]
    assert memory(measurement("aiosfu", 50, 0)) == 64


def test_joins_are_told_with_how_many_were_due() -> None:
    some = measurement("aiosfu", 4, 0, joins_ms=(20.0, 30.0, 40.0), joins_due=4)
    nobody = measurement("naive", 4, 0, joins_ms=(), joins_due=4)
    (table,) = [each for each in sheets(report(measurements=(some, nobody))) if each.title.startswith("Joining")]
    assert [row.cells for row in table.rows] == [
        ("webinar", "aiosfu", "4", "3 of 4", "30.0", "40.0", "40.0", "40.0"),
        ("webinar", "naive", "4", "0 of 4", "-", "-", "-", "-"),
    ]


def test_calls_of_the_server_api_are_told_with_how_many_were_due() -> None:
    runs = [measurement("aiosfu", 4, k, calls_ms=(2.0, 3.0), calls_due=3) for k in range(2)]
    (table,) = [each for each in sheets(report(measurements=tuple(runs))) if each.title.startswith("Calls")]
    assert [row.cells for row in table.rows] == [("webinar", "aiosfu", "4", "4 of 6", "3.00", "3.00", "3.00", "3.00")]
    assert not [each for each in sheets(report()) if each.title.startswith("Calls")]
