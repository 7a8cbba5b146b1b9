"""What is published: the list of sections, the tables' places in the document, and the command in small."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bench.__main__ import main
from bench.measure.run import RunFailed, Subject
from bench.publish import publish, suite
from bench.publish.publish import Publisher
from bench.publish.suite import BadSuite, Section, Variation
from bench.report import markdown
from bench.report.section_tables import section_sheet
from bench.report.sheets import Row, Sheet
from tests.bench.support.reports import measurement, report

SUITE = """
[[section]]
name = "first"
command = "run"
scenario = "audio"
targets = ["floor", "janus:loops=2", "livekit"]
sizes = [2]
churn_per_second = [0.0, 5.0]
columns = ["system", "churn/s", "delivered/s", "loss"]

[[section]]
name = "second"
command = "run"
scenario = "audio"
targets = ["livekit"]
"""
DOCUMENT = """# Title

<!-- bench: first -->
| old |
<!-- /bench -->

By hand.

<!-- bench: second -->
<!-- /bench -->
The end.
"""
NOWHERE = "janus:root=/nowhere"
GOOD: dict[str, Any] = {"name": "s", "command": "run", "scenario": "audio"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path))  # where there is neither janus nor livekit-server
    (tmp_path / "suite.toml").write_text(SUITE)
    (tmp_path / "document.md").write_text(DOCUMENT)
    return tmp_path


def run(folder: Path, *words: str) -> Result:
    fixed = ["--suite", str(folder / "suite.toml"), "--output", str(folder / "json"), "--target-option", NOWHERE]
    return CliRunner().invoke(main, ["publish", *fixed, *words])


# The sections.


def test_every_published_table_has_its_place_in_the_document() -> None:
    sections = suite.read(suite.PUBLISHED)
    markdown.check(suite.DOCUMENT.read_text(encoding="utf-8"), [section.name for section in sections])
    assert suite.DOCUMENT.read_text(encoding="utf-8").count("<!-- bench: ") == len(sections) + 1  # one explains them


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"frobnicate": 1}, "'s': unknown key 'frobnicate'"),
        ({"repeats": "3"}, "repeats has the wrong type"),
        ({"repeats": True}, "repeats has the wrong type"),
        ({"baseline": 1}, "baseline has the wrong type"),
        ({"sizes": 3}, "sizes has the wrong type"),
        ({"sizes": [0]}, "must be positive"),
        ({"targets": ["nobody"]}, "no target 'nobody'"),
        ({"targets": ["floor:segments"]}, "is not like"),
        ({"command": "walk"}, "command must be one of"),
        ({"command": "forward"}, "forward needs sizes"),
        ({"scenario": "audios"}, "no scenario"),
        ({"columns": ["colour"]}, "columns are system, N"),
        ({"messages_per_second": [1.0]}, "are for data"),
        ({"repeats": 0}, "repeats must be positive"),
    ],
)
def test_a_section_that_makes_no_sense_is_refused_with_its_name(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadSuite, match=said):
        Section.check(GOOD | change)


@pytest.mark.parametrize(
    "text",
    ["", "x =", "[[section]]\nname = 's'\n", "[[section]]\n[[section]]\n", SUITE + SUITE, "title = 't'\n" + SUITE],
)
def test_a_file_that_is_no_list_of_sections_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "suite.toml"
    path.write_text(text)
    with pytest.raises(BadSuite):
        suite.read(path)


def test_each_combination_is_a_command_of_its_own() -> None:
    section = Section.check(
        GOOD | {"sizes": [5, 7], "loads": [1.0, 0.5], "churn_per_second": [0.0, 2.0], "seconds": 3, "repeats": 2}
    )
    variations = list(section.variations())
    assert len(variations) == 4
    assert section.windows == 4 * 2 * 2
    subjects = [Subject.parse("aiosfu:threads=2"), Subject("floor")]
    assert section.command_line(Variation(0.5, None, 2.0, 9.0), subjects) == (
        "python -m bench run audio --target aiosfu:threads=2 --target floor -n 5 -n 7 --seconds 3 --load 0.5 "
        "--churn-per-second 2 --calls-per-second 9 --repeats 2 --no-harness"
    )
    (quick,) = {scenario.n for each in variations for scenario in section.quick().sized(each)}
    assert quick == 5


# The tables.


def test_a_table_shows_the_columns_that_are_asked_for() -> None:
    runs = [measurement(system, n, repeat) for n in (300, 50) for repeat in range(2) for system in ("aiosfu", "naive")]
    both = [({"churn_per_second": rate}, report(measurements=tuple(runs))) for rate in (None, 5.0)]
    sheet = section_sheet("s", ["system", "N", "churn/s", "CPU us", "x aiosfu", "joins"], both)
    assert [row.cells for row in sheet.rows][:4] == [
        ("aiosfu", "50", "-", "4.20 (4.00..4.40)", "-", "10"),
        ("naive", "50", "-", "63.0 (60.0..66.0)", "15.0", "10"),
        ("aiosfu", "50", "5", "4.20 (4.00..4.40)", "-", "10"),
        ("naive", "50", "5", "63.0 (60.0..66.0)", "15.0", "10"),
    ]
    assert sheet.note == ""


def test_calls_of_the_server_api_have_columns() -> None:
    some = [measurement("aiosfu", 5, k, calls_ms=(2.0, 3.0), calls_due=2 + k) for k in range(2)]
    both = [
        ({"calls_per_second": 2.0}, report(measurements=tuple(some))),
        ({"calls_per_second": 0.0}, report(measurements=(measurement("aiosfu", 5, 0),))),
    ]
    sheet = section_sheet("s", ["calls/s", "calls", "call p50 ms", "call p99 ms"], both)
    assert [row.cells for row in sheet.rows] == [("2", "4 of 5", "3.00", "3.00"), ("0", "-", "-", "-")]


def test_a_table_says_how_many_joined_of_how_many() -> None:
    some = [measurement("naive", 5, k, joins_ms=(20.0,) * (5 - 2 * k), joins_due=5) for k in range(2)]
    everybody = measurement("aiosfu", 5, 0, joins_ms=(20.0,) * 5, joins_due=5)
    nobody = measurement("floor", 5, 0, joins_ms=(), joins_due=5)
    sheet = section_sheet(
        "s", ["system", "joins", "join p99 ms"], [({}, report(measurements=(*some, everybody, nobody)))]
    )
    assert {row.cells for row in sheet.rows} == {
        ("naive", "8 of 10", "20.0"),
        ("aiosfu", "5", "20.0"),
        ("floor", "0 of 5", "-"),
    }


def test_a_generator_that_was_too_busy_is_told() -> None:
    busy = report(measurements=(measurement("aiosfu", 50, 0, generator_busy=0.97),))
    sheet = section_sheet("s", ["system"], [({}, busy)])
    assert sheet.rows[0].cells == ("aiosfu !",)
    assert "may be the limit" in sheet.note


def test_a_table_in_markdown_has_its_note_below() -> None:
    sheet = Sheet("t", ("system", "N"), (Row(("a|b", "1")),), "Said.")
    assert markdown.table(sheet) == "| system | N |\n| --- | ---: |\n| a\\|b | 1 |\n\nSaid."


def test_only_the_table_is_replaced() -> None:
    once = markdown.replace(DOCUMENT, "first", "| new |")
    assert once == DOCUMENT.replace("| old |", "| new |")
    twice = markdown.replace(once, "second", "| a |\n\nnote")
    assert twice == once.replace("second -->\n", "second -->\n| a |\n\nnote\n")
    assert markdown.replace(twice, "second", "| a |\n\nnote") == twice


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<!-- bench: other -->\n<!-- /bench -->",
        "<!-- bench: first -->\n",
        "<!-- bench: first -->\n<!-- bench: second -->\n<!-- /bench -->",
        "<!-- bench: first -->\n<!-- /bench -->\n" * 2,
    ],
)
def test_a_document_without_the_place_is_refused(text: str) -> None:
    with pytest.raises(markdown.NoPlace, match="bench: first"):
        markdown.replace(text, "first", "| new |")


# The command.


@pytest.mark.alone
def test_in_quick_everything_runs_and_what_is_not_installed_is_left_out(folder: Path) -> None:
    document = folder / "document.md"
    result = run(folder, "--quick", "--docs", str(document))
    assert result.exit_code == 0, result.output
    assert "first: janus is left out: there is no /nowhere" in result.output
    assert "second: livekit is left out: there is no livekit-server" in result.output
    text = document.read_text()
    before, table = text.split("<!-- bench: first -->\n")
    table, after = table.split("\n<!-- /bench -->", 1)
    assert before + "<!-- bench: first -->\n| old |\n<!-- /bench -->" + after == DOCUMENT
    lines = table.splitlines()
    assert lines[:2] == ["| system | churn/s | delivered/s | loss |", "| --- | ---: | ---: | ---: |"]
    assert [line.split(" | ")[1] for line in lines[2:4]] == ["0", "5"]
    assert "`python -m bench run audio --target floor -n 2 --seconds 1 --churn-per-second 5 --repeats 1" in table
    assert table.endswith("Not installed and left out: janus, livekit.")
    assert "nowhere" not in table
    figures = json.loads((folder / "json" / "first.json").read_text())
    assert [each["changes"]["churn_per_second"] for each in figures["reports"]] == [0.0, 5.0]
    assert all(each["report"]["measurements"] for each in figures["reports"])


def test_options_of_a_machine_are_not_published(folder: Path) -> None:
    publisher = Publisher([Subject.parse("janus:root=/x,srtp=/y")], folder, None, lambda _: None)
    assert str(publisher._complete(Subject.parse("janus:loops=2"))) == "janus:loops=2,root=/x,srtp=/y"
    assert str(publisher._shown(Subject.parse("janus:loops=2"))) == "janus:loops=2,root=...,srtp=..."
    assert str(publisher._shown(Subject.parse("floor"))) == "floor"


def test_a_section_of_forwarding_is_the_table_against_the_floor(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def forward(words: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        ran.append(words[3:-2])
        sides = [
            measurement(system, 50, repeat, scenario="smooth") for repeat in range(2) for system in ("floor", "aiosfu")
        ]
        report(measurements=tuple(sides)).write(Path(words[-1]))
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(subprocess, "run", forward)
    (folder / "suite.toml").write_text('[[section]]\nname = "first"\ncommand = "forward"\nsizes = [50]\nrepeats = 2\n')
    result = run(folder, "--docs", str(folder / "document.md"))
    assert result.exit_code == 0, result.output
    words = ["forward", "-n", "50", "--seconds", "4", "--repeats", "2"]
    assert ran == [words]
    text = (folder / "document.md").read_text()
    assert "| 50 | smooth | 59,970 | 3.15 (3.00..3.30) | 4.20 (4.00..4.40) | 1.33 |" in text
    assert f"`python -m bench {' '.join(words)}`" in text
    figures = json.loads((folder / "json" / "first.json").read_text())
    assert [each["system"] for each in figures["measurements"]] == ["floor", "aiosfu"] * 2


def test_a_section_that_fails_keeps_its_table_and_the_others_go_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        def __init__(self, *_: object) -> None:
            raise RunFailed("its process died")

    monkeypatch.setattr(publish, "Run", Failing)
    document = folder / "document.md"
    result = run(folder, "--docs", str(document))
    assert result.exit_code == 1
    assert "first: RunFailed: its process died" in result.output
    assert "second: livekit is left out" in result.output
    assert document.read_text() == DOCUMENT


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "third"], "no section 'third'; there are first, second"),
        (["--target-option", "nobody:a=b"], "no target 'nobody'"),
        (["--docs", "suite.toml"], "occurs 0 times"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_measured(folder: Path, words: list[str], said: str) -> None:
    result = run(folder, *(str(folder / word) if word.endswith(".toml") else word for word in words))
    assert result.exit_code != 0
    assert said in result.output
    assert not (folder / "json").exists()
