"""What holds for all examples: they are short, a newcomer finds them, and they use only what is meant to be used."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path for path in (ROOT / "examples").iterdir() if path.is_file())
PROGRAMS = [path for path in EXAMPLES if path.suffix == ".py"]
MAX_LINES = 125
FIRST_SCREEN = 40
"""Lines of the README."""
BORDER = {"sfu", "sfu.engine", "sfu.events", "sfu.parameters", "sfu.errors", "bench.plans"}


def ours(path: Path) -> Iterator[str]:
    """Modules of this project that a program imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"sfu.{alias.name}" for alias in node.names] if node.module == "sfu" else [node.module or ""]
        yield from (name for name in names if name.split(".")[0] in {"sfu", "signaling", "bench", "tests"})


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_short_and_named_on_the_first_screen(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES
    first_screen = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:FIRST_SCREEN]
    assert any(f"(examples/{path.name})" in line for line in first_screen)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_an_example_uses_only_the_border(path: Path) -> None:
    assert set(ours(path)) <= BORDER
    command = f"examples.{path.stem}" if "bench" in path.stem else f"python examples/{path.name}"
    assert command in (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "")
