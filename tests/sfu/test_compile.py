"""Compiling ahead: what is compiled, how progress is told, and that a second time costs nothing."""

import ast
import importlib
from pathlib import Path

import pytest
from numba import njit

import sfu
from sfu import compile as compiling
from sfu.compiler import kernel_cache

SFU = Path(sfu.__file__).parent
KERNEL = """
from numba import njit

@njit
def {name}():
    return 1
"""


def is_kernel(node: ast.AST) -> bool:
    """Whether `@njit` or `@njit(...)` stands before a function."""
    if not isinstance(node, ast.FunctionDef):
        return False
    decorators = [each.func if isinstance(each, ast.Call) else each for each in node.decorator_list]
    return any(isinstance(each, ast.Name) and each.id == "njit" for each in decorators)


def test_every_kernel_that_the_source_holds_is_known() -> None:
    written = {
        ".".join((*file.relative_to(SFU.parent).with_suffix("").parts, node.name))
        for file in SFU.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and is_kernel(node)
    }
    assert len(written) > 300
    assert set(compiling.kernels()) == written


def test_kernels_in_packages_at_any_depth_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path
    for name in ("walked", "inner", "innermost"):
        place = place / name
        place.mkdir()
        (place / "__init__.py").touch()
        (place / f"in_{name}.py").write_text(KERNEL.format(name=f"kernel_in_{name}"))
    monkeypatch.syspath_prepend(tmp_path)
    assert set(compiling.kernels(importlib.import_module("walked"))) == {
        "walked.in_walked.kernel_in_walked",
        "walked.inner.in_inner.kernel_in_inner",
        "walked.inner.innermost.in_innermost.kernel_in_innermost",
    }


def test_every_kernel_has_its_machine_code_when_the_cache_is_complete() -> None:
    """None is left to be compiled by the first packet that needs it: what Python calls leads to all the others."""
    if not kernel_cache.is_complete():
        pytest.skip("the kernels are not compiled")
    kept = {file.name.rsplit("-", 2)[0] for file in kernel_cache.directory().glob("*.nbi")}
    places = (name.rsplit(".", 2) for name in compiling.kernels())
    assert [
        f"{package}.{module}.{name}"
        for package, module, name in places
        if f"{module}.{name}-{package}.{module}.py" not in kept
    ] == []


def test_each_function_is_reported_once_when_it_was_compiled() -> None:
    @njit
    def leaf(x):  # type: ignore[no-untyped-def]
        return x + 1

    @njit
    def caller(x):  # type: ignore[no-untyped-def]
        return leaf(x) * 2

    lines: list[tuple[int, int, str]] = []
    with compiling._reporting(7, lambda *line: lines.append(line)):
        caller(1)
        caller(1.5)
    assert [(done, total, name.split(".")[-1]) for done, total, name in lines] == [(1, 7, "leaf"), (2, 7, "caller")]


def test_nothing_is_done_when_everything_is_compiled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernel_cache, "is_complete", lambda: True)
    monkeypatch.setattr(compiling, "_call_everything", lambda: pytest.fail("compiled again"))
    compiling.main()
    assert capsys.readouterr().out.startswith("kernels are ready in ")
