"""Compiling in several processes: each function once, callees first, and whatever fails is left to the caller."""

import shutil
from pathlib import Path

import pytest

from sfu.compiler import kernel_cache, parallel
from tests.sfu.support.interpreter import run

SFU = Path(kernel_cache.__file__).parents[1]

LEAF = """
from numba import njit

@njit(cache=True)
def leaf(x):
    return x + 1

@njit(cache=True)
def unused(x):
    return x
"""
LEFT = """
from numba import njit

from sfu.leaf import leaf

@njit(cache=True)
def left(x):
    return leaf(x) + leaf(1.5)
"""
RIGHT = """
from numba import njit

from sfu.leaf import leaf

@njit(cache=True)
def right(x):
    return leaf(x) * 2
"""
ROOT = """
from numba import njit

from sfu.left import left
from sfu.right import right

@njit(cache=True)
def root(x):
    return left(x) + right(x)
"""
COMPILE = """
import os
from sfu.compiler import parallel
from sfu.leaf import leaf, unused
from sfu.left import left
from sfu.right import right
from sfu.root import root
names = list(parallel.compile_in_processes(2, [leaf, unused, left, right, root], [(root, (3,))]))
print("compiled", *(name.split(".")[-1] for name in names))
root(3)
print(len(root.stats.cache_hits), len(root.stats.cache_misses), len(leaf.overloads))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package named sfu, in which `root` calls `left` and `right`, and both call `leaf`."""
    package = tmp_path / "site" / "sfu"
    (package / "compiler").mkdir(parents=True)
    for name in (
        "__init__.py",
        "compiler/__init__.py",
        "compiler/dependencies.py",
        "compiler/kernel_cache.py",
        "compiler/parallel.py",
    ):
        shutil.copy(SFU / name, package / name)
    for name, text in (("leaf", LEAF), ("left", LEFT), ("right", RIGHT), ("root", ROOT)):
        (package / f"{name}.py").write_text(text)
    return package


def compiled(package: Path, tmp_path: Path) -> tuple[list[str], str]:
    """Functions that a new interpreter compiled in processes, one for each overload, and what it then found itself."""
    names, found = run(COMPILE, package.parent, tmp_path / "home").splitlines()
    return names.split()[1:], found


def test_each_overload_is_compiled_once_and_callees_come_first(package: Path, tmp_path: Path) -> None:
    names, found = compiled(package, tmp_path)
    assert sorted(names) == ["leaf", "leaf", "left", "right", "root"]
    assert names[-1] == "root"
    assert names.index("leaf") < min(names.index("left"), names.index("right"))
    assert found == "1 0 0"  # the caller's process loaded the whole and compiled nothing
    assert len(list(package.rglob("*.nbc"))) == 5


INFERRED = """
from numba.core.typed_passes import NopythonTypeInference

def infer(self, state, run=NopythonTypeInference.run_pass):
    with open({file!r}, "a") as file:  # all processes write to it
        file.write(state.func_id.func_name + "\\n")
    return run(self, state)

NopythonTypeInference.run_pass = infer
"""


def test_types_are_inferred_once_and_not_again_by_workers(package: Path, tmp_path: Path) -> None:
    inferred = tmp_path / "inferred"
    assert run(INFERRED.format(file=str(inferred)) + COMPILE, package.parent, tmp_path / "home").endswith("1 0 0")
    assert sorted(inferred.read_text().split()) == ["leaf", "leaf", "left", "right", "root"]


def test_an_edit_compiles_what_depends_on_it_and_no_more(package: Path, tmp_path: Path) -> None:
    compiled(package, tmp_path)
    assert compiled(package, tmp_path)[0] == []
    (package / "right.py").write_text(RIGHT.replace("* 2", "* 3"))
    assert sorted(compiled(package, tmp_path)[0]) == ["right", "root"]
    (package / "leaf.py").write_text(LEAF.replace("+ 1", "+ 2"))
    assert sorted(compiled(package, tmp_path)[0]) == ["leaf", "leaf", "left", "right", "root"]


def test_what_does_not_compile_is_left_to_the_caller(package: Path, tmp_path: Path) -> None:
    (package / "right.py").write_text(RIGHT.replace("* 2", ".nothing"))
    with pytest.raises(AssertionError, match="Unknown attribute 'nothing'"):
        compiled(package, tmp_path)
    assert any(package.rglob("leaf.leaf*.nbc"))


BEGUN = """
import os
import time
from pathlib import Path
from sfu.compiler import parallel
from sfu.leaf import leaf, unused
from sfu.left import left
from sfu.right import right
from sfu.root import root

def children(process):
    return [int(child) for child in Path(f"/proc/{{process}}/task/{{process}}/children").read_text().split()]

{before}
names = parallel.compile_in_processes(2, [leaf, unused, left, right, root], [(root, (3,))])
first = next(names)
[planner] = children(os.getpid())
{then}
print(first, *names)
root(3)
print(len(root.stats.cache_misses))
"""


def test_a_planner_that_is_killed_leaves_the_rest_to_the_caller(package: Path, tmp_path: Path) -> None:
    """Memory that ran out may end any of the processes. `run` returns when the last of them has closed its output."""
    code = BEGUN.format(before="", then="os.kill(planner, 9)")
    names, missed = run(code, package.parent, tmp_path / "home").splitlines()
    assert names.split()[0] == "sfu.leaf.leaf"
    assert "sfu.root.root" not in names
    assert missed == "1"


DIES_IN_LEFT = """
from numba.core import event

class Kill(event.Listener):
    def on_start(self, event):
        if event.data["dispatcher"] is left:
            os.kill(os.getpid(), 9)

    def on_end(self, event):
        pass

kill = Kill()
event.register("numba:compile", kill)
"""


def test_a_worker_that_is_killed_leaves_its_function_and_the_callers_of_it(package: Path, tmp_path: Path) -> None:
    code = BEGUN.format(before=DIES_IN_LEFT, then='names = [*names]; event.unregister("numba:compile", kill)')
    names, missed = run(code, package.parent, tmp_path / "home").splitlines()
    assert {"sfu.left.left", "sfu.root.root"}.isdisjoint(names.split())
    assert missed == "1"


def test_closing_ends_all_processes(package: Path, tmp_path: Path) -> None:
    then = """
everyone = [planner, *children(planner)]
names.close()
while any(Path(f"/proc/{process}").exists() for process in everyone):
    time.sleep(0.01)
assert children(os.getpid()) == []
"""
    names, _ = run(BEGUN.format(before="", then=then), package.parent, tmp_path / "home").splitlines()
    assert names == "sfu.leaf.leaf"


def test_two_compilers_at_once_do_not_take_each_others_number(package: Path, tmp_path: Path) -> None:
    """numba numbers the machine code of one function's overloads, which takes reading and writing its index."""
    code = """
import os
from sfu.leaf import leaf
from numba import types
reading, writing = os.pipe()
kinds = [types.int8, types.int16, types.int32, types.int64, types.uint8, types.uint16, types.float32, types.float64]
for kind in kinds:
    if os.fork() == 0:
        os.close(writing)
        os.read(reading, 1)
        leaf.compile((kind,))
        os._exit(0)
os.close(writing)
for kind in kinds:
    assert os.wait()[1] == 0
for kind in kinds:
    leaf.compile((kind,))
    assert leaf.overloads[(kind,)].signature.args == (kind,)
print(sum(leaf.stats.cache_hits.values()), sum(leaf.stats.cache_misses.values()))
"""
    assert run(code, package.parent, tmp_path / "home") == "8 0"


def machine(root: Path, available_mib: int, groups: dict[str, tuple[str, int, int]]) -> Path:
    """Files of a kernel that tells this much free memory, and of control groups: limit, used and inactive bytes."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {available_mib << 10} kB\n")
    (root / "proc/self/cgroup").write_text("4:memory:/other\n0::/system.slice/aiosfu.service\n")
    for name, (limit, used, inactive) in groups.items():
        group = root / "sys/fs/cgroup" / name
        group.mkdir(parents=True, exist_ok=True)
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.current").write_text(f"{used}\n")
        (group / "memory.stat").write_text(f"anon 7\ninactive_file {inactive}\n")
    return root


@pytest.mark.parametrize(
    ("available_mib", "groups", "left"),
    [
        (4000, {}, 4000 << 20),
        (4000, {"": ("max", 1, 0), "system.slice": ("max", 1, 0)}, 4000 << 20),
        (4000, {"system.slice/aiosfu.service": ("1000000", 700_000, 200_000)}, 500_000),
        (4000, {"": ("900000", 800_000, 0), "system.slice/aiosfu.service": ("1000000", 0, 0)}, 100_000),
        (1, {"system.slice": ("9000000000", 0, 0)}, 1 << 20),
    ],
)
def test_memory_is_what_the_machine_and_every_control_group_leave(
    tmp_path: Path, available_mib: int, groups: dict[str, tuple[str, int, int]], left: int
) -> None:
    assert parallel._available_bytes(machine(tmp_path, available_mib, groups)) == left


def test_one_process_compiles_where_nothing_tells_of_memory(tmp_path: Path) -> None:
    assert parallel._available_bytes(tmp_path) == 0


@pytest.mark.parametrize(("cores", "processes_fit", "count"), [(1, 9, 1), (2, 9, 2), (8, 4, 3), (8, 1, 1), (8, 0, 1)])
def test_there_is_a_process_for_each_core_as_far_as_memory_goes(
    monkeypatch: pytest.MonkeyPatch, cores: int, processes_fit: int, count: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(parallel, "_available_bytes", lambda: processes_fit * parallel.WORKER_BYTES)
    assert parallel.worker_count() == count
