"""Every package that is imported is declared in pyproject.toml where it is needed, and every declared one is used."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"sfu", "signaling", "bench", "scripts", "examples", "tests"}
PLACES = {
    "dependencies": ("sfu", "signaling"),
    "bench": ("bench",),
    "test": ("examples", "scripts", "tests", "bench"),
}
"""Where what a list of pyproject.toml declares is imported. Everything may import what a server needs, and who installs
the tests' packages also runs the benchmark."""
PLUGINS = {"pytest-timeout", "pytest-xdist"}
"""Used by being installed."""


def _normal(name: str) -> str:
    """The name of a package in its normal form (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(group: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = project["dependencies"] if group == "dependencies" else project["optional-dependencies"][group]
    return {_normal(re.split(r"[<>=!~\[; ]", line)[0]) for line in lines}


def modules(folder: str) -> Iterator[str]:
    """The modules that a folder imports, and for `from package import name` also `package.name`."""
    for path in (ROOT / folder).rglob("*.py"):
        if "node_modules" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def _owners() -> dict[str, list[str]]:
    return {module: sorted(set(names)) for module, names in metadata.packages_distributions().items()}


@cache
def _folders(distribution: str) -> set[str]:
    files = metadata.files(distribution) or []
    return {"/".join(file.parts[:2]) for file in files} | {"/".join(file.parts[:1]) for file in files}


def distribution(module: str) -> str:
    """The package that a module comes from; several share the names `livekit` and `google`."""
    parts = module.split(".")
    owners = _owners().get(parts[0], [parts[0]])
    if len(owners) > 1:
        owners = [each for each in owners if {"/".join(parts[:2]), "/".join(parts[:2]) + ".py"} & _folders(each)]
    return _normal(owners[0]) if owners else module


def imported(group: str) -> set[str]:
    found = {module for folder in PLACES[group] for module in modules(folder)}
    return {
        distribution(module)
        for module in found
        if module.split(".")[0] not in OURS and module.split(".")[0] not in sys.stdlib_module_names
    }


@pytest.mark.parametrize("group", PLACES)
def test_what_is_imported_is_declared(group: str) -> None:
    assert imported(group) - declared(group) - declared("dependencies") == set()


@pytest.mark.parametrize("group", PLACES)
def test_what_is_declared_is_imported(group: str) -> None:
    assert declared(group) - imported(group) - PLUGINS == set()
