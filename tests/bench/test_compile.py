"""The load generator is compiled before anything is measured, by several processes, for the types of the real calls."""

import ast
import contextlib
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner
from numba.core.dispatcher import Dispatcher

import bench.__main__ as commands
import bench.generator
import bench.servers
from bench import compile as compiling
from bench.generator import generator, histogram
from bench.generator.generator import Generator
from bench.servers import reflect
from bench.servers.reflect import Reflector
from sfu.compiler import kernel_cache
from sfu.compiler.parallel import Call


def modules(*packages: ModuleType) -> Iterator[ModuleType]:
    for package in packages:
        for each in pkgutil.iter_modules(package.__path__):
            yield importlib.import_module(f"{package.__name__}.{each.name}")


def called_by_python(module: ModuleType) -> set[str]:
    """Names that functions of a module use, but for its kernels."""
    tree = ast.parse(Path(module.__file__ or "").read_text(encoding="utf-8"))
    bodies = [node for node in tree.body if not (isinstance(node, ast.FunctionDef) and node.decorator_list)]
    return {node.id for body in bodies for node in ast.walk(body) if isinstance(node, ast.Name)}


def test_every_kernel_that_the_benchmarks_processes_call_is_called() -> None:
    found = set()
    for module in modules(bench.generator, bench.servers):
        values = [vars(module).get(name) for name in called_by_python(module)]
        found |= {each for each in values if isinstance(each, Dispatcher)}
    with compiling.calls() as calls:
        assert {kernel for kernel, _ in calls} == found


def test_the_processes_compile_nothing_else() -> None:
    compiling.compile_all(lambda *_: None)
    with compiling.calls() as calls:
        for kernel, arguments in calls:
            kernel(*arguments)
        kernels = [kernel for kernel, _ in calls]
    before = [list(kernel.overloads) for kernel in kernels]
    sender = Generator()
    sender.warm_up()
    sender.stop()
    reflector = Reflector(protect=True, segments=True)
    reflector.start()
    reflector.subscribe(0, reflector.add_receiver(9, bytes(28)))
    reflector.stop()
    assert [list(kernel.overloads) for kernel in kernels] == before


class Compiler:
    """Stands for the compiler and for what is said of its cache."""

    def __init__(self) -> None:
        self.compiled: list[Dispatcher] = []
        self.complete: set[str] = set()
        self.holders = 0

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        self.holders += 1
        yield
        self.holders -= 1

    def compile_calls(self, calls: list[Call], known: dict[str, Dispatcher], total: int, progress: object) -> None:
        assert self.holders == 1
        assert {"sfu.media.net.udp.flush", "bench.generator.send.send_due"} <= known.keys()
        assert 30 < total < len(known)
        assert not self.complete
        self.compiled += [kernel for kernel, _ in calls]


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    stands_in = Compiler()
    monkeypatch.setattr(compiling, "compile_calls", stands_in.compile_calls)
    monkeypatch.setattr(kernel_cache, "locked", stands_in.locked)
    monkeypatch.setattr(kernel_cache, "is_complete", lambda package: package in stands_in.complete)
    monkeypatch.setattr(kernel_cache, "mark_complete", stands_in.complete.add)
    return stands_in


def test_everything_is_compiled_once(compiler: Compiler) -> None:
    compiling.compile_all(lambda *_: None)
    compiling.compile_all(lambda *_: None)
    assert compiler.compiled == [reflect.publish_count, histogram.bucket_of, reflect.run, generator.run]
    assert compiler.complete == {"bench"}


def test_who_waited_for_another_process_compiles_nothing(compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def locked() -> Iterator[None]:
        compiler.complete.add("bench")  # meanwhile
        yield

    monkeypatch.setattr(kernel_cache, "locked", locked)
    compiling.compile_all(lambda *_: None)
    assert compiler.compiled == []


class Reached(Exception):
    """The compiler was asked."""


@pytest.mark.parametrize(
    "words",
    [["compile"], ["forward"], ["profile"], ["run", "audio"], ["publish", "--quick", "--only", "audio-50"]],
    ids=lambda words: words[0],
)
def test_every_command_that_measures_compiles_first(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    def reached(*_: object) -> None:
        raise Reached

    monkeypatch.setattr(compiling, "compile_all", reached)
    monkeypatch.setattr("bench.measure.run.SessionProcess", lambda *_: pytest.fail("measured first"))
    assert isinstance(CliRunner().invoke(commands.main, words).exception, Reached)
