"""docs/api.md says of the engine's border what its docstrings say, and names everything that is public there."""

import importlib
from pathlib import Path

import pytest

from scripts.api_reference import DOCUMENT, MODULES, _inside, public_names, rewritten
from sfu.engine import Engine

ROOT = Path(__file__).parents[1]


def test_the_reference_is_what_the_docstrings_say() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    assert document == rewritten(document), "run `make docs`"


@pytest.mark.parametrize("path", MODULES)
def test_every_public_name_is_described(path: str) -> None:
    module = importlib.import_module(path)
    document = DOCUMENT.read_text(encoding="utf-8")
    names = public_names(module)
    assert names
    assert [name for name in names if f"### `{name}`\n" not in document] == []
    assert [name for name in names if not (getattr(module, name).__doc__ or "").strip()] == []


def test_every_public_call_of_the_engine_is_described() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    calls = [name for name in vars(Engine) if not name.startswith("_")]
    assert len(calls) > 20
    assert [name for name in calls if f"**`{name}" not in document and f"**`await {name}(" not in document] == []


def test_sections_of_a_docstring_become_items() -> None:
    text = """Do it.

        And well.

        Args:
            first, last: which ones,
                with both ends.
            how: 1 is well.

        Raises:
            ValueError: it cannot be done.
        """
    assert _inside(text) == (
        "Do it.\n\n  And well.\n  * `first`, `last`: which ones, with both ends.\n  * `how`: 1 is well.\n"
        "  * raises `ValueError`: it cannot be done."
    )


def test_every_number_has_a_meaning() -> None:
    """The columns of statistics say what they count and in which unit."""
    engine = (
        DOCUMENT.read_text(encoding="utf-8").partition("### `LayerStatistics`")[2].partition("## `sfu.parameters`")[0]
    )
    rows = [line for line in engine.splitlines() if line.startswith("| `")]
    assert len(rows) > 10
    assert [row for row in rows if row.endswith("` | |") and "layers" not in row] == []


def test_the_text_names_only_calls_that_exist() -> None:
    text = DOCUMENT.read_text(encoding="utf-8").partition("## The parts")[2].partition("<!--")[0]
    parts = {word for part in text.split("`")[1::2] for word in part.replace("(", " ").replace(")", " ").split()}
    calls = {word for word in parts if word.islower() and "_" in word and "=" not in word}
    assert {"open_transport", "set_media", "next_event"} <= calls
    assert calls <= set(vars(Engine))
