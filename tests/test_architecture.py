"""The shape of the source: which folder may import which, what each folder alone may do, how long things are.

A folder is the unit of a law: a new file needs no line here. An exception is a file, and says why.
"""

import ast
import re
import tomllib
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("sfu", "signaling", "bench")

ORDER = (
    # values that signalling and engine exchange
    {"sfu.parameters", "sfu.errors", "sfu.addresses", "sfu.sockets"},
    {"sfu.events"},
    # state, and what is beneath every kernel
    {"sfu.schema", "sfu.compiler"},
    {"sfu.queues"},
    # media threads, by the stages of a packet's way
    {"sfu.media.wire"},
    {"sfu.media.allocation"},
    {"sfu.media.net"},
    {"sfu.media.stream"},
    {"sfu.media.receive", "sfu.media.send"},
    {"sfu.media.bandwidth", "sfu.media.pacing"},
    {"sfu.media.rtcp"},
    {"sfu.media"},
    # the control thread
    {"sfu.control.data", "sfu.control.net", "sfu.control.security"},
    {"sfu.control"},
    {"sfu.control.observing"},
    {"sfu.engine", "sfu.compile"},
    # signalling
    {"signaling.errors", "signaling.identifiers", "signaling.limits", "signaling.profile", "signaling.texts"},
    {"signaling.allowance"},
    {"signaling.drops", "signaling.due_work", "signaling.held_bytes", "signaling.networks", "signaling.watchdog"},
    {"signaling.sdp", "signaling.config"},
    {"signaling.turn.wire"},
    {"signaling.turn.allocation"},
    {"signaling.turn.net"},
    {"signaling.metrics", "signaling.turn"},
    {"signaling.external_addresses"},
    {"signaling.addresses"},
    {"signaling.http", "signaling.logs"},
    {"signaling.records"},
    {"signaling.rooms"},
    {"signaling.participants", "signaling.webhooks"},
    {"signaling.api"},
    {"signaling.whip"},
    {"signaling.registry"},
    {"signaling.process"},
    {"signaling.cli"},
    # the benchmark
    {"bench.results", "bench.accounting", "bench.plans"},
    {"bench.clients"},
    {"bench.generator"},
    {"bench.servers", "bench.scenarios"},
    {"bench.compile"},
    {"bench.report", "bench.targets"},
    {"bench.measure"},
    {"bench.publish", "bench.network"},
    {"bench.__main__"},
)
"""Folders, and files that lie in none, from the lowest. An import leads to an earlier line; those of one line do not
know each other."""

ENGINE_INTERFACE = {"sfu.engine", "sfu.parameters", "sfu.events", "sfu.sockets"}
"""What signalling may import of the media engine."""
MORE_OF_THE_ENGINE = {"signaling/process.py": {"sfu.compile", "sfu.addresses"}}
"""What starts the server also compiles kernels ahead, and finds the addresses that the configuration chooses."""

MAX_FILES = 20
"""In one folder, the package's own file included."""
MAX_FILE_LINES = 500
MAX_TEST_LINES = 600
"""The most lines that a file of tests may have: what one module does is tried in one file."""
MAX_FUNCTION_LINES = 80
MAX_KERNEL_LINES = 120
"""A kernel cannot be cut as freely: every call in it is compiled again for each caller that inlines it."""
KERNEL_DECORATORS = {"njit", "jit", "intrinsic"}

DRAWERS = {"utils.py", "util.py", "helpers.py", "common.py", "misc.py", "types.py"}
"""File names that say nothing about what is inside."""

EVENT_LOOPS = {"asyncio", "uvloop"}
EVENT_LOOP_PLACES = {"sfu/control", "sfu/engine.py"}
"""The control thread. A kernel has no event loop, and what lies beneath both threads must not ask for one."""

KERNEL_PLACES = {"sfu/compiler", "sfu/queues", "sfu/media", "bench"}

CLOCKS = {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "clock_gettime"}
CLOCK_PLACES = {
    "sfu/media/net/clock.py",  # the media threads' clock
    "sfu/control/media_thread.py",
    "sfu/engine.py",
    "sfu/compile.py",  # tells how long it took
    "sfu/control/data/association.py",  # when a chunk was sent, as aiortc notes it and compares it later
}
"""Outermost shells of the media engine. Everywhere else `now` is an argument."""

POINTERS = {"address_of", "carray", "farray", "inttoptr"}
POINTER_PLACES = {
    "sfu/compiler",
    "sfu/queues/threads.py",  # another media thread's state
    "sfu/media/net/udp.py",  # the arena, copied from and to
}
"""Where numbers become pointers. Everybody else passes addresses on."""


def sources(*folders: str) -> list[Path]:
    return sorted(
        path for folder in folders for path in (ROOT / folder).rglob("*.py") if "node_modules" not in path.parts
    )


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def within(path: Path, places: Iterable[str]) -> bool:
    """Whether a file is one of these or lies in one of these folders."""
    return any(name(path) == place or name(path).startswith(f"{place}/") for place in places)


def dotted(path: Path) -> str:
    """A module's full name; a package's for its `__init__.py`."""
    return name(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


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
            for alias in node.names:
                # `from sfu.media import loop` names a module in the second half.
                inner = f"{module}.{alias.name}"
                place = ROOT / inner.replace(".", "/")
                yield inner if place.with_suffix(".py").exists() or (place / "__init__.py").exists() else module


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


def room_of(module: str) -> str:
    """The entry of ORDER to which a module of ours belongs: its folder's, or its own."""
    if (ROOT / module.replace(".", "/")).is_dir():
        return module
    folder = module.rpartition(".")[0]
    return module if folder in PACKAGES else folder


def own_imports(package: str) -> Iterator[tuple[Path, str]]:
    """(file, module of ours that it imports); the packages themselves hold nothing that could be imported."""
    for path in sources(package):
        for module in imports(path):
            if module.split(".")[0] in PACKAGES and module not in PACKAGES:
                yield path, module


@pytest.mark.parametrize("package", PACKAGES)
def test_an_import_only_goes_down(package: str) -> None:
    level = {room: number for number, rooms in enumerate(ORDER) for room in rooms}
    wrong = []
    for path, module in own_imports(package):
        if name(path) == "sfu/__init__.py":  # makes numba use our cache, before any kernel is imported
            assert module == "sfu.compiler.kernel_cache"
            continue
        mine, other = room_of(dotted(path)), room_of(module)
        if mine != other and level[other] >= level[mine]:
            wrong.append(f"{name(path)} imports {module}")
    assert wrong == []


def test_every_folder_has_its_place_in_the_order() -> None:
    there = {room_of(dotted(path)) for path in sources(*PACKAGES)} - set(PACKAGES)
    assert there - {"signaling.demo"} == set().union(*ORDER)


def _rows_of_the_design() -> Iterator[set[str]]:
    """The folders and files in each row of the tables of docs/design.md that say where things are."""
    first = (ROOT / "docs" / "design.md").read_text(encoding="utf-8").split("\n## ")[1]
    for line in first.splitlines():
        cell = line.split("|")[1] if line.startswith("| `") else ""
        named = {each.strip("/").removesuffix(".py").replace("/", ".") for each in re.findall("`([^`]+)`", cell)}
        if named:
            yield named


def test_the_tables_of_the_design_name_every_folder_and_go_down() -> None:
    level = {room: number for number, rooms in enumerate(ORDER) for room in rooms}
    rows = list(_rows_of_the_design())
    assert {room for room in level if (ROOT / room.replace(".", "/")).is_dir()} <= set().union(*rows)
    for package in PACKAGES:
        levels = [[level[room] for room in row] for row in rows if all(room.startswith(package) for room in row)]
        assert [(above, below) for above, below in pairwise(levels) if min(above) < max(below)] == []


@pytest.mark.parametrize("package", ["sfu", "signaling", "bench"])
def test_files_import_each_other_in_no_circle(package: str) -> None:
    """Imports for types are counted too: what they name has to be known all the same."""
    arrows: dict[str, set[str]] = {dotted(path): set() for path in sources(package)}
    for path, module in own_imports(package):
        arrows[dotted(path)].add(module)
    while True:
        ends = {module for module, others in arrows.items() if not others & arrows.keys()}
        if not ends:
            break
        arrows = {module: others for module, others in arrows.items() if module not in ends}
    assert arrows == {}


def test_folders_are_small() -> None:
    counts: dict[str, int] = {}
    for path in sources(*PACKAGES):
        counts[name(path.parent)] = counts.get(name(path.parent), 0) + 1
    assert {folder: count for folder, count in counts.items() if count > MAX_FILES} == {}


def test_a_package_holds_its_purpose_and_nothing_to_import() -> None:
    for path in sources("sfu", "signaling"):
        if path.name != "__init__.py" or name(path) == "sfu/__init__.py":
            continue
        module = tree(path)
        purpose = ast.get_docstring(module)
        assert purpose is not None, name(path)
        assert len(module.body) == 1, f"{name(path)}: more than its purpose"
        if within(path, {"sfu"}) and name(path) != "sfu/schema/__init__.py":
            assert "thread" in purpose.lower(), f"{name(path)}: which thread runs it?"


def test_event_loops_are_the_control_threads() -> None:
    wrong = [
        f"{name(path)} imports {module}"
        for path in sources("sfu")
        for module in imports(path)
        if module.split(".")[0] in EVENT_LOOPS and not within(path, EVENT_LOOP_PLACES)
    ]
    assert wrong == []


def test_kernels_are_where_media_threads_run_them() -> None:
    assert [name(path) for path in sources(*PACKAGES) if holds_kernels(path) and not within(path, KERNEL_PLACES)] == []


def test_tests_have_the_folders_of_what_they_test() -> None:
    for package in PACKAGES:
        folders = {path.parent.relative_to(ROOT / "tests") for path in sources(f"tests/{package}")}
        inner = {folder for folder in folders if "support" not in folder.parts}
        assert [str(folder) for folder in inner if not (ROOT / folder).is_dir()] == []


def test_files_are_short() -> None:
    limits = {name(path): MAX_FILE_LINES for path in sources(*PACKAGES)}
    limits |= {name(path): MAX_TEST_LINES for path in sources("tests")}
    lengths = {file: len((ROOT / file).read_text(encoding="utf-8").splitlines()) for file in limits}
    assert {file: length for file, length in lengths.items() if length > limits[file]} == {}


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
        if within(path, CLOCK_PLACES):
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
        if identifier in POINTERS and not within(path, POINTER_PLACES)
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


def test_kernels_write_integers_in_one_way() -> None:
    """In a kernel, `np.int64(x)` says which integer there is; `int(x)` has the width of its argument."""
    wrong = [
        f"{name(path)}:{call.lineno}"
        for path in sources(*PACKAGES)
        for function in functions(path)
        if is_kernel(function)
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "int"
    ]
    assert wrong == []


def test_only_modules_with_kernels_are_excepted_from_strict_types() -> None:
    overrides = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]["overrides"]
    patterns = next(entry["module"] for entry in overrides if entry.get("disallow_untyped_defs") is False)
    modules = [path for path in sources("sfu", "bench") if path.name != "__init__.py"]
    excepted = {dotted(path) for path in modules if any(fnmatch(dotted(path), pattern) for pattern in patterns)}
    assert excepted == {dotted(path) for path in modules if holds_kernels(path)}
    assert [pattern for pattern in patterns if not any(fnmatch(module, pattern) for module in excepted)] == []
