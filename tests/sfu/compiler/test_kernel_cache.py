"""Compiled kernels are kept, but never used for other sources or other code options."""

import shutil
from pathlib import Path

import pytest

from sfu.compiler import kernel_cache
from tests.sfu.support.interpreter import run

SFU = Path(kernel_cache.__file__).parents[1]
LEAF = """
from numba import njit

from sfu.number import NUMBER

@njit(cache=True)
def leaf():
    return NUMBER {operation}
"""
CALLER = """
from numba import njit

from sfu.leaf import leaf

@njit(cache=True)
def caller():
    return 2 * leaf()
"""
OTHER = """
from numba import njit

@njit(cache=True)
def other():
    return 7
"""
RUN = """
from sfu.caller import caller
from sfu.other import other
hits = [len(kernel.stats.cache_hits) for kernel in (caller, other) if kernel() is not None]
print(caller(), *hits)
"""
BAD_INDEX = """
import numpy as np
import sfu
from sfu.media.wire.numbers import get_u16
try:
    get_u16(np.zeros(9, np.uint8)[:1], 0)
except IndexError:
    print("checked")
else:
    print("unchecked")
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package named sfu with three small kernels and the real cache."""
    package = tmp_path / "site" / "sfu"
    (package / "compiler").mkdir(parents=True)
    for name in ("__init__.py", "compiler/__init__.py", "compiler/dependencies.py", "compiler/kernel_cache.py"):
        shutil.copy(SFU / name, package / name)
    (package / "number.py").write_text("NUMBER = 10\n")
    (package / "leaf.py").write_text(LEAF.format(operation="+ 0"))
    (package / "caller.py").write_text(CALLER)
    (package / "other.py").write_text(OTHER)
    return package


def test_second_start_uses_what_the_first_one_compiled(package: Path, tmp_path: Path) -> None:
    assert run(RUN, package.parent, tmp_path / "home") == "20 0 0"
    assert run(RUN, package.parent, tmp_path / "home") == "20 1 1"
    assert any((package / "__kernels__").rglob("*.nbc"))


def test_changed_callee_recompiles_its_caller_and_nothing_else(package: Path, tmp_path: Path) -> None:
    run(RUN, package.parent, tmp_path / "home")
    (package / "leaf.py").write_text(LEAF.format(operation="+ 1"))
    assert run(RUN, package.parent, tmp_path / "home") == "22 0 1"


def test_constant_changed_two_imports_away_recompiles(package: Path, tmp_path: Path) -> None:
    run(RUN, package.parent, tmp_path / "home")
    (package / "number.py").write_text("NUMBER = 505\n")
    assert run(RUN, package.parent, tmp_path / "home") == "1010 0 1"


def test_code_options_have_a_cache_of_their_own(package: Path, tmp_path: Path) -> None:
    run(RUN, package.parent, tmp_path / "home")
    assert run(RUN, package.parent, tmp_path / "home", NUMBA_BOUNDSCHECK="1") == "20 0 0"
    assert run(RUN, package.parent, tmp_path / "home", NUMBA_OPT="1") == "20 0 0"
    assert run(RUN, package.parent, tmp_path / "home") == "20 1 1"


def test_bounds_are_really_checked_when_asked_for(tmp_path: Path) -> None:
    """Both orders, because each would find the other's machine code in a cache without the option in its key."""
    for _ in range(2):
        assert run(BAD_INDEX, SFU.parent, tmp_path) == "unchecked"
        assert run(BAD_INDEX, SFU.parent, tmp_path, NUMBA_BOUNDSCHECK="1") == "checked"


def test_directory_that_others_can_write_is_not_used(package: Path, tmp_path: Path) -> None:
    run(RUN, package.parent, tmp_path / "home")
    [place] = (package / "__kernels__").iterdir()
    place.chmod(0o777)
    assert run(RUN, package.parent, tmp_path / "home") == "20 0 0"
    assert any((tmp_path / "home" / "aiosfu").rglob("*.nbc"))


def test_complete_directory_stays_complete_until_a_source_changes(package: Path, tmp_path: Path) -> None:
    question = "from sfu.compiler import kernel_cache; print(kernel_cache.is_complete())"
    assert run(question, package.parent, tmp_path / "home") == "False"
    run(RUN + "from sfu.compiler import kernel_cache; kernel_cache.mark_complete()", package.parent, tmp_path / "home")
    assert run(question, package.parent, tmp_path / "home") == "True"
    assert run(question, package.parent, tmp_path / "home", NUMBA_BOUNDSCHECK="1") == "False"
    (package / "other.py").write_text(OTHER.replace("7", "8"))
    assert run(question, package.parent, tmp_path / "home") == "False"


def test_what_another_processor_compiled_is_not_complete(package: Path, tmp_path: Path) -> None:
    """An installed package may be copied to another machine, as in an image. Its start has to compile, and says so."""
    finish = RUN + "from sfu.compiler import kernel_cache; kernel_cache.mark_complete()"
    question = "from sfu.compiler import kernel_cache; print(kernel_cache.is_complete())"
    run(finish, package.parent, tmp_path / "home")
    assert run(question, package.parent, tmp_path / "home", NUMBA_CPU_FEATURES="") == "False"
    assert run(finish, package.parent, tmp_path / "home", NUMBA_CPU_FEATURES="") == "20 0 0"
    assert run(question, package.parent, tmp_path / "home", NUMBA_CPU_FEATURES="") == "True"
    assert run(RUN, package.parent, tmp_path / "home") == "20 1 1"


def test_start_with_a_complete_directory_parses_no_source(package: Path, tmp_path: Path) -> None:
    count = RUN + "from sfu.compiler import dependencies; print(dependencies._source.cache_info().misses)"
    assert run(count, package.parent, tmp_path / "home") == "20 0 0\n4"
    run(RUN + "from sfu.compiler import kernel_cache; kernel_cache.mark_complete()", package.parent, tmp_path / "home")
    assert run(count, package.parent, tmp_path / "home") == "20 1 1\n0"
    (package / "number.py").write_text("NUMBER = 11\n")
    assert run(count, package.parent, tmp_path / "home") == "22 0 1\n4"


LOAD = """
from numba import njit

from sfu.leaf import leaf

@njit(cache=True)
def load():
    return 3 * leaf()
"""


def test_the_benchmarks_processes_parse_no_source_once_its_kernels_are_complete(package: Path, tmp_path: Path) -> None:
    made = package.with_name("bench")
    made.mkdir()
    (made / "load.py").write_text(LOAD)
    ask = "from sfu.compiler import kernel_cache as cache, dependencies\n"
    told = (
        "print(load(), cache.is_complete(), cache.is_complete('bench'), dependencies._source.cache_info().misses > 0)"
    )
    use = f"{ask}import sfu\nfrom bench.load import load\n{told}"

    def after(mark: str) -> str:
        run(f"{RUN}from bench.load import load; load()\n{ask}{mark}", package.parent, tmp_path / "home")
        return run(use, package.parent, tmp_path / "home")

    assert after("") == "30 False False True"
    assert after("cache.mark_complete()") == "30 True False True"
    assert after("cache.mark_complete('bench')") == "30 True True False"
    (made / "load.py").write_text(LOAD.replace("3 *", "4 *"))
    assert after("") == "40 True False True"
    assert after("cache.mark_complete('bench')") == "40 True True False"
    (package / "number.py").write_text("NUMBER = 11\n")
    assert after("") == "44 False False True"


def test_kernel_that_only_moved_or_whose_neighbour_changed_is_not_compiled(package: Path, tmp_path: Path) -> None:
    neighbour = "\n@njit(cache=True)\ndef neighbour():\n    return {}\n"
    leaf = LEAF.format(operation="+ 0")
    (package / "leaf.py").write_text(leaf + neighbour.format(1))
    run(RUN, package.parent, tmp_path / "home")
    (package / "leaf.py").write_text(leaf.replace("@njit", "# moved\n@njit") + neighbour.format(2))
    assert run(RUN, package.parent, tmp_path / "home") == "20 1 1"
    (package / "leaf.py").write_text(leaf.replace("NUMBER +", "neighbour() +") + neighbour.format(2))
    assert run(RUN, package.parent, tmp_path / "home") == "4 0 1"
    (package / "leaf.py").write_text(leaf.replace("NUMBER +", "neighbour() +") + neighbour.format(3))
    assert run(RUN, package.parent, tmp_path / "home") == "6 0 1"


def test_a_changed_comment_or_docstring_compiles_nothing(package: Path, tmp_path: Path) -> None:
    described = LEAF.format(operation="+ 0").replace("    return", '    """{0}"""\n    # {0}\n    return', 1)
    data = 'NUMBER = 10\n"""{0}"""\n'
    for words, answer in (("before", "20 0 0"), ("after", "20 1 1")):
        (package / "leaf.py").write_text(described.format(words))
        (package / "number.py").write_text(data.format(words))
        assert run(RUN, package.parent, tmp_path / "home") == answer


def test_kernels_of_older_sources_are_deleted_when_all_are_compiled(package: Path, tmp_path: Path) -> None:
    finish = RUN + "from sfu.compiler import kernel_cache; kernel_cache.mark_complete()"
    run(finish, package.parent, tmp_path / "home")
    [place] = (package / "__kernels__").iterdir()
    before = {file.name for file in place.glob("*.nbc")}
    (package / "leaf.py").write_text(LEAF.format(operation="+ 1"))
    run(finish, package.parent, tmp_path / "home")
    after = {file.name for file in place.glob("*.nbc")}
    assert len(after) == len(before) == 3
    assert {name for name in after & before if name.startswith("other")} == after & before


def test_complete_directory_that_cannot_be_written_is_taken_as_it_is(package: Path, tmp_path: Path) -> None:
    run(RUN + "from sfu.compiler import kernel_cache; kernel_cache.mark_complete()", package.parent, tmp_path / "home")
    [place] = (package / "__kernels__").iterdir()
    before = sorted(place.iterdir())
    place.chmod(0o500)
    try:
        assert run(RUN, package.parent, tmp_path / "home") == "20 1 1"
    finally:
        place.chmod(0o700)
    assert sorted(place.iterdir()) == before


def test_another_user_can_read_what_was_compiled(package: Path, tmp_path: Path) -> None:
    """Root compiles, and the service runs as another user."""
    finish = RUN + "from sfu.compiler import kernel_cache; kernel_cache.mark_complete()"
    run(finish, package.parent, tmp_path / "home")
    [place] = (package / "__kernels__").iterdir()
    for before in (0o755, 0o700):
        place.chmod(before)
        run(finish, package.parent, tmp_path / "home")
        assert place.stat().st_mode & 0o777 == 0o755
    assert {file.stat().st_mode & 0o044 for file in place.glob("*.nb[ci]")} == {0o044}


def test_a_directory_that_another_user_keeps_closed_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", refuse)
    assert not kernel_cache._is_complete(tmp_path)
