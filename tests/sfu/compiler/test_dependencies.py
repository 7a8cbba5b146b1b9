"""What a kernel is compiled again for: what its code names, to any depth, and no other kernel's change."""

import dis
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest
from numba.core.dispatcher import Dispatcher

from sfu import compile as compiling
from sfu.compiler import dependencies
from sfu.compiler.dependencies import WHOLE

KERNEL = "from numba import njit\n\n\n@njit\ndef {name}():\n    return {value}\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Writes a file of a package named sfu, of which this module knows."""
    monkeypatch.setattr(dependencies, "ROOT", tmp_path)
    (tmp_path / "sfu").mkdir()

    def write(name: str, source: str) -> Path:
        file = tmp_path / "sfu" / f"{name}.py"
        file.write_text(source)
        return file

    return write


def parts(path: Path, name: str) -> set[str]:
    """What a name needs, such as `leaf.first`, and `data` for a whole file."""
    return {f"{file.stem}.{part}".removesuffix(".") for file, part in dependencies.needed(path, name)}


@pytest.mark.parametrize(
    ("imported", "call"),
    [
        ("from sfu.leaf import first", "first()"),
        ("from sfu.leaf import first as other", "other()"),
        ("from sfu import leaf", "leaf.first()"),
        ("from sfu import leaf as other", "other.first()"),
        ("if True:\n    from sfu.leaf import first", "first()"),
    ],
)
def test_one_kernel_of_a_file_is_needed_and_no_other(
    write: Callable[[str, str], Path], imported: str, call: str
) -> None:
    write("leaf", KERNEL.format(name="first", value=1) + KERNEL.format(name="second", value=2))
    caller = write("caller", f"{imported}\n" + KERNEL.format(name="caller", value=call))
    assert parts(caller, "caller") == {"caller.caller", "leaf.first"}


@pytest.mark.parametrize(
    ("imported", "call"),
    [
        ("import sfu.leaf", "sfu.leaf.first()"),
        ("from sfu.leaf import *", "first()"),
        ("from sfu import leaf", "(leaf, 1)[0].first()"),
        ("try:\n    import sfu.leaf\nfinally:\n    pass", "1"),
        ("from sfu import leaf", "leaf.nowhere()"),
    ],
)
def test_what_is_not_understood_is_use_of_the_whole_file(
    write: Callable[[str, str], Path], imported: str, call: str
) -> None:
    write("leaf", KERNEL.format(name="first", value=1) + KERNEL.format(name="second", value=2))
    caller = write("caller", f"{imported}\n" + KERNEL.format(name="caller", value=call))
    assert "leaf" in parts(caller, "caller")


@pytest.mark.parametrize(
    ("statements", "expression", "needed"),
    [
        ("A = 1\nB = A + 1\nC = 3\n", "B", {"A", "B"}),
        ("A, B = 1, 2\nC = 3\n", "B", {"B"}),
        ("A: int = 1\nB: int = 2\n", "A", {"A"}),
        ("def a(): return b\ndef b(): return a\ndef c(): return 1\n", "a", {"a", "b"}),
        ("if 1:\n    A = 1\nelse:\n    A = B\nB = 2\nC = 3\n", "A", {"A", "B"}),
        ("class A:\n    size = B\nB = 2\nC = 3\n", "A.size", {"A", "B"}),
    ],
)
def test_names_of_the_same_file_are_followed(
    write: Callable[[str, str], Path], statements: str, expression: str, needed: set[str]
) -> None:
    kernel = write("kernel", statements + KERNEL.format(name="kernel", value=expression))
    assert parts(kernel, "kernel") == {"kernel.kernel", *(f"kernel.{name}" for name in needed)}


@pytest.mark.parametrize(
    "changed",
    ["TABLE[0] = 2", "TABLE.size = 2", "TABLE.append(2)", "TABLE += [2]", "SIZE = TABLE.pop()", "del TABLE[0]"],
)
def test_a_statement_that_changes_something_counts_for_every_name(
    write: Callable[[str, str], Path], changed: str
) -> None:
    kernel = write("kernel", f"TABLE = [1]\n{changed}\n" + KERNEL.format(name="kernel", value="TABLE[0]"))
    assert changed in "\n".join(dependencies.text(*part) for part in dependencies.needed(kernel, "kernel"))


def test_data_counts_whole_for_all_whose_files_lead_to_it(write: Callable[[str, str], Path]) -> None:
    write("data", "A = 1\nB = 2\n")
    write("leaf", "from sfu.data import A\n" + KERNEL.format(name="leaf", value="A"))
    caller = write("caller", "from sfu.leaf import leaf\n" + KERNEL.format(name="caller", value=1))
    assert parts(caller, "caller") == {"caller.caller", "data"}


def named(code: CodeType, names: dict[str, Any]) -> Iterator[object]:
    """Everything outside of a function that its machine code could hold: `name`, or `module.name`."""
    value: object = None
    for each in dis.get_instructions(code):
        if each.opname in ("LOAD_ATTR", "LOAD_METHOD") and isinstance(value, ModuleType):
            value = getattr(value, each.argval)
            yield value
        else:
            value = names.get(each.argval) if each.opname in ("LOAD_GLOBAL", "LOAD_NAME") else None
            yield value


def test_every_kernel_that_the_code_of_a_kernel_names_is_needed() -> None:
    """The compiled bytecode says which kernels those are, with the values that the names really have."""
    missing, count = [], 0
    for kernel in compiling.kernels().values():
        function = kernel.py_func
        found = dependencies.needed(Path(function.__code__.co_filename).resolve(), function.__qualname__)
        for value in named(function.__code__, function.__globals__):
            if isinstance(value, Dispatcher) and value.__module__.startswith("sfu."):
                count += 1
                callee = value.py_func
                if (Path(callee.__code__.co_filename).resolve(), callee.__qualname__) not in found:
                    missing.append((function.__qualname__, callee.__qualname__))
    assert count > 500
    assert missing == []


def test_a_kernel_of_a_name_that_is_unknown_needs_its_whole_file(write: Callable[[str, str], Path]) -> None:
    kernel = write("kernel", KERNEL.format(name="kernel", value=1))
    assert dependencies.needed(kernel, "make.<locals>.kernel") >= {(kernel, WHOLE)}
