"""The shape of the source: who imports whom, how long things are, where clocks and pointers may be.

The lists below are the places to edit when a rule gets an exception; each entry should be able to say why.
"""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("sfu", "signaling", "bench")

ENGINE_INTERFACE = {"sfu.engine", "sfu.parameters", "sfu.events"}
"""What signalling may import of the media engine."""
MORE_OF_THE_ENGINE = {"signaling/cli.py": {"sfu.compile"}}
"""The command line also compiles kernels ahead of time."""

MAX_FILE_LINES = 600
LONGER_FILES: dict[str, int] = {"sfu/schema/tables.py": 880}
"""The tables stand in one file so that one file tells all state."""
MAX_FUNCTION_LINES = 80
MAX_KERNEL_LINES = 120
"""A kernel cannot be cut as freely: every call in it is compiled again for each caller that inlines it."""
KERNEL_DECORATORS = {"njit", "jit", "intrinsic"}

DRAWERS = {"utils.py", "util.py", "helpers.py", "common.py", "misc.py", "types.py"}
"""File names that say nothing about what is inside."""

CLOCKS = {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "clock_gettime"}
CLOCK_FILES = {
    "sfu/compiler/native.py",
    "sfu/media/timers.py",
    "sfu/media/loop.py",
    "sfu/engine.py",
    "sfu/control/media_thread.py",
    "sfu/control/fanout.py",  # measures its own turn
    "sfu/compile.py",  # tells how long it took
}
"""Outermost shells of the media engine. Everywhere else `now` is an argument."""

POINTERS = {"address_of", "carray", "farray", "inttoptr"}
POINTER_FILES = {
    "sfu/compiler/native.py",
    "sfu/compiler/atomics.py",
    "sfu/schema/memory.py",
    "sfu/queues/peers.py",
    "sfu/compiler/prefetch.py",
    "sfu/media/net/udp.py",
}
"""Where numbers become pointers. Everybody else passes addresses on."""


def sources(*folders: str) -> list[Path]:
    return sorted(
        path for folder in folders for path in (ROOT / folder).rglob("*.py") if "node_modules" not in path.parts
    )


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(path: Path) -> Iterator[str]:
    """Every imported module, also those of functions and of `if TYPE_CHECKING`."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}: relative import"
            module = node.module or ""
            # `from sfu import engine` names a module in the second half.
            yield from (f"{module}.{alias.name}" for alias in node.names) if module in PACKAGES else (module,)


def is_kernel(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    decorators = [each.func if isinstance(each, ast.Call) else each for each in function.decorator_list]
    names = {each.attr if isinstance(each, ast.Attribute) else getattr(each, "id", "") for each in decorators}
    return bool(names & KERNEL_DECORATORS)


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def identifiers(path: Path) -> Iterator[tuple[str, int]]:
    """Names that are used, with their lines: plain, as an attribute, or imported."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Name):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute):
            yield node.attr, node.lineno
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.name, node.lineno) for alias in node.names)


@pytest.mark.parametrize(("package", "strangers"), [("sfu", {"signaling", "bench"}), ("signaling", {"bench"})])
def test_layers_do_not_look_up(package: str, strangers: set[str]) -> None:
    found = [f"{name(path)}: {module}" for path in sources(package) for module in imports(path)]
    assert found
    assert [line for line in found if line.split(": ")[1].split(".")[0] in strangers | {"tests"}] == []


def test_the_benchmark_uses_the_media_engine_only() -> None:
    found = [f"{name(path)}: {module}" for path in sources("bench") for module in imports(path)]
    assert [line for line in found if line.split(": ")[1].split(".")[0] in {"signaling", "tests"}] == []


def test_signalling_sees_only_the_engines_interface() -> None:
    wrong = [
        f"{name(path)} imports {module}"
        for path in sources("signaling")
        for module in imports(path)
        if module.split(".")[0] == "sfu" and module not in ENGINE_INTERFACE | MORE_OF_THE_ENGINE.get(name(path), set())
    ]
    assert wrong == []


def test_files_are_short() -> None:
    lengths = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in sources(*PACKAGES, "tests")}
    assert {file: n for file, n in lengths.items() if n > LONGER_FILES.get(file, MAX_FILE_LINES)} == {}


def test_functions_are_short() -> None:
    too_long = []
    for path in sources(*PACKAGES, "tests"):
        for function in functions(path):
            lines = (function.end_lineno or function.lineno) - function.lineno + 1
            if lines > (MAX_KERNEL_LINES if is_kernel(function) else MAX_FUNCTION_LINES):
                too_long.append(f"{name(path)}:{function.lineno} {function.name} has {lines} lines")
    assert too_long == []


def test_files_are_named_for_what_is_in_them() -> None:
    assert [name(path) for path in sources(*PACKAGES, "tests") if path.name in DRAWERS] == []


def test_the_media_engine_is_told_the_time() -> None:
    wrong = []
    for path in sources("sfu"):
        if name(path) in CLOCK_FILES:
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
                if "time" in modules or CLOCKS & set(modules):
                    wrong.append(f"{name(path)}:{node.lineno} imports a clock")
    assert wrong == []


def test_pointers_are_made_in_few_places() -> None:
    wrong = [
        f"{name(path)}:{line} {identifier}"
        for path in sources("sfu", "bench")
        for identifier, line in identifiers(path)
        if identifier in POINTERS and name(path) not in POINTER_FILES
    ]
    assert wrong == []


def holds_kernels(path: Path) -> bool:
    decorators = (
        decorator.func if isinstance(decorator, ast.Call) else decorator
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef)
        for decorator in node.decorator_list
    )
    return any(isinstance(decorator, ast.Name) and decorator.id in KERNEL_DECORATORS for decorator in decorators)


def test_only_modules_with_kernels_are_excepted_from_strict_types() -> None:
    overrides = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]["overrides"]
    excepted = next(entry["module"] for entry in overrides if entry.get("disallow_untyped_defs") is False)
    with_kernels = [
        name(path).removesuffix(".py").replace("/", ".") for path in sources("sfu", "bench") if holds_kernels(path)
    ]
    assert sorted(excepted) == sorted(with_kernels)
