"""Compiling ahead: what is compiled, how progress is told, and that a second time costs nothing."""

import ast
import importlib
import pkgutil
from collections.abc import Generator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

import pytest
from numba import njit
from numba.core.dispatcher import Dispatcher
from numba.core.errors import TypingError

import sfu
from sfu import compile as compiling
from sfu.compiler import kernel_cache
from sfu.compiler.parallel import Call
from sfu.media.loop import media_loop

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
    caches = {name: vars(kernel)["_cache"]._cache_file for name, kernel in compiling.kernels().items()}
    indexed = {name: cache._load_index() for name, cache in caches.items()}
    assert [name for name, files in indexed.items() if not files] == []
    kept = {file.name for file in kernel_cache.directory().glob("*.nbc")}
    assert [file for files in indexed.values() for file in files.values() if file not in kept] == []


def used_names(module: ModuleType) -> set[str]:
    """Names that a module uses, but for `name.py_func`, which is the function that was not compiled."""
    tree = ast.parse(Path(module.__file__ or "").read_text(encoding="utf-8"))
    plain = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "py_func"}
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in plain}


def test_every_kernel_that_python_calls_is_called() -> None:
    """Nobody else would have it compiled for the types of the call."""
    control = importlib.import_module("sfu.control")
    modules = [importlib.import_module(f"sfu.control.{each.name}") for each in pkgutil.iter_modules(control.__path__)]
    values = [vars(module).get(name) for module in modules for name in used_names(module)]
    with compiling._calls() as calls:
        assert {kernel for kernel, _ in calls} == {each for each in values if isinstance(each, Dispatcher)} | {
            media_loop
        }


def test_each_function_is_reported_once_when_it_was_compiled() -> None:
    @njit
    def leaf(x):  # type: ignore[no-untyped-def]
        return x + 1

    @njit
    def caller(x):  # type: ignore[no-untyped-def]
        return leaf(x) * 2

    lines: list[tuple[int, int, str]] = []
    with compiling._Counter(7, lambda *line: lines.append(line)).listening():
        caller(1)
        caller(1.5)
    assert [(done, total, name.split(".")[-1]) for done, total, name in lines] == [(1, 7, "leaf"), (2, 7, "caller")]


def test_nothing_is_done_when_everything_is_compiled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernel_cache, "is_complete", lambda: True)
    monkeypatch.setattr(compiling, "_calls", lambda: pytest.fail("compiled again"))
    compiling.main()
    assert capsys.readouterr().out.startswith("kernels are ready in ")


@pytest.fixture
def marks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `compile_all` said of an empty cache: "complete", or nothing."""
    said: list[str] = []
    monkeypatch.setattr(kernel_cache, "is_complete", lambda: False)
    monkeypatch.setattr(kernel_cache, "mark_complete", lambda: said.append("complete"))
    return said


def compile_only(monkeypatch: pytest.MonkeyPatch, processes: int, *calls: Call) -> None:
    """Let `compile_all` know these calls and no others."""
    monkeypatch.setattr(compiling, "_calls", lambda: nullcontext(calls))
    monkeypatch.setattr(compiling, "kernels", lambda: {kernel.__name__: kernel for kernel, _ in calls})
    monkeypatch.setattr(compiling, "worker_count", lambda: processes)


@pytest.mark.parametrize("processes", [1, 2])
def test_everything_is_compiled_before_the_cache_is_complete(
    monkeypatch: pytest.MonkeyPatch, marks: list[str], processes: int
) -> None:
    @njit
    def kernel(x):  # type: ignore[no-untyped-def]
        return x + 1

    compile_only(monkeypatch, processes, (kernel, (1,)))
    compiling.compile_all(lambda *_: None)
    assert len(kernel.overloads) == 1
    assert marks == ["complete"]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_kernel_that_does_not_compile_leaves_the_cache_incomplete(
    monkeypatch: pytest.MonkeyPatch, marks: list[str], processes: int
) -> None:
    @njit
    def good(x):  # type: ignore[no-untyped-def]
        return x + 1

    @njit
    def bad(x):  # type: ignore[no-untyped-def]
        return x.nothing

    compile_only(monkeypatch, processes, (good, (1,)), (bad, (1,)))
    with pytest.raises(TypingError, match="nothing"):
        compiling.compile_all(lambda *_: None)
    assert marks == []


@pytest.mark.parametrize("processes", [1, 2])
def test_an_interruption_leaves_the_cache_incomplete(
    monkeypatch: pytest.MonkeyPatch, marks: list[str], processes: int
) -> None:
    @njit
    def first(x):  # type: ignore[no-untyped-def]
        return x + 1

    @njit
    def second(x):  # type: ignore[no-untyped-def]
        return x + 2

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    compile_only(monkeypatch, processes, (first, (1,)), (second, (1,)))
    with pytest.raises(KeyboardInterrupt):
        compiling.compile_all(interrupt)
    assert marks == []


def test_processes_that_compile_nothing_leave_everything_to_the_caller(
    monkeypatch: pytest.MonkeyPatch, marks: list[str]
) -> None:
    @njit
    def kernel(x):  # type: ignore[no-untyped-def]
        return x + 1

    def nothing() -> Generator[str]:
        yield from ()

    compile_only(monkeypatch, 2, (kernel, (1,)))
    monkeypatch.setattr(compiling, "compile_in_processes", lambda *_: nothing())
    compiling.compile_all(lambda *_: None)
    assert len(kernel.overloads) == 1
    assert marks == ["complete"]
