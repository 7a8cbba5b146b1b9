"""Every case that is shipped can be read, and a wrong one is refused."""

from math import inf
from pathlib import Path

import pytest

from bench.network.case import BadCase, Download, Message, ViewerPlan, find, names


@pytest.mark.parametrize("name", names())
def test_shipped_cases_are_whole(name: str) -> None:
    case = find(name)
    phases = case.phases()
    assert case.title
    assert (phases[0][0], phases[-1][1]) == (0, case.seconds)
    assert all(begin < end for begin, end in phases)
    assert any(viewer.behind for viewer in case.viewers) != case.publisher_behind


def case_of(text: str, folder: Path) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_a_case_is_read(tmp_path: Path) -> None:
    text = """
        title = "t"
        seconds = 50
        viewers = [{ name = "a" }, { name = "b", behind = false, joins_s = 20 }]
        download = { begins_s = 5, ends_s = 40 }
        message = { at_s = 1, size = 5 }
        [both]
        delay_ms = 20
        loss = 0.05
        [down]
        rate = [[0, 3e6], [30, 7e5]]
        loss = 0.1
    """
    case = find(str(case_of(text, tmp_path)))
    assert list(case.viewers) == [ViewerPlan("a"), ViewerPlan("b", False, 20)]
    assert (case.download, case.message) == (Download(5, 40), Message(1, 5))
    assert list(case.down.rate) == [(0, 3e6), (30, 7e5)]
    assert [list(steps) for steps in (case.down.loss, case.up.loss)] == [[(0, 0.1)], [(0, 0.05)]]
    assert list(case.up.rate) == [(0, inf)]
    assert case.down.delay_ms == case.up.delay_ms == 20
    assert list(case.phases()) == [(0, 5), (5, 20), (20, 30), (30, 40), (40, 50)]
    assert list(case.cut(25).phases()) == [(0, 5), (5, 20), (20, 25)]
    assert case.cut(25).download == Download(5, 25)
    assert (case.cut(1).download, case.cut(1).message, case.cut(2).message) == (None, None, Message(1, 5))
    assert [viewer.name for viewer in case.cut(20).viewers] == ["a"]
    assert case.cut(None) == case.cut(60) == case
    assert [(each.name, each.client) for each in case.seen_by("chromium").viewers] == [
        ("a", "chromium"),
        ("b", "chromium"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "seconds = 5",
        'title = "t"\nseconds = 5\nother = 1',
        'title = "t"\nseconds = 5\ndown = { rate = [[1, 5], [0, 6]] }',
        'title = "t"\nseconds = 5\ndown = { rate = -1 }',
        'title = "t"\nseconds = 5\ndown = { rate = [] }',
        'title = "t"\nseconds = 5\ndown = { speed = 1 }',
        'title = "t"\nseconds = 5\nviewers = [{ joins_s = 1 }]',
        'title = "t"\nseconds = 5\nviewers = [{ name = "v", client = "other" }]',
        "not toml",
    ],
)
def test_a_wrong_case_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(BadCase, match="mine"):
        find(str(case_of(text, tmp_path)))


def test_a_case_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadCase, match="steps"):
        find("missing")
    with pytest.raises(BadCase, match="none"):
        find(str(tmp_path / "none.toml"))
