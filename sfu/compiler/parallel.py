"""Compiles kernels in several processes, callees first, so that no process compiles what another one does.

numba compiles a function when the type inference of its caller meets the call: one after the other, in one process.
Here a planning process infers the types of everything that is called, and compiles nothing. That yields each function
with its argument types, after those that it calls. What has all its callees in the cache goes to a worker: a child of
the planning process that goes on with a few functions where the planning process stopped, reports them and ends, so
that memory does not grow with the number of functions.

The caller's process is only told what is done. Whatever fails here is left to it: it compiles what is missing itself,
and meets the error where it can be seen.
"""

import ctypes
import os
import selectors
import signal
import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from numba.core import compiler, sigutils, types, typing
from numba.core.compiler_machinery import FunctionPass, PassManager, register_pass
from numba.core.typed_passes import NopythonTypeInference

Dispatcher = Any
"""numba.core.dispatcher.Dispatcher, with attributes that its type does not tell."""
Call = tuple[Dispatcher, tuple[Any, ...]]
"""A kernel and arguments as Python passes them."""
Overload = tuple[Dispatcher, tuple[Any, ...]]
"""A kernel and the types of its arguments."""

WORKER_BYTES = 512 << 20
"""Memory that must be free for each process: the largest kernels, with everything that they call, take as much."""
MAX_CHUNK = 8
"""Functions that one worker compiles at most: enough to make its start cheap, too few to fill the memory."""
_PR_SET_PDEATHSIG = 1
_STATE = "state"
"""Key in the metadata of what `_InferTypes` returns."""


def worker_count() -> int:
    """Processes that may compile at the same time: one for each usable core, as far as there is memory for them and for
    the planning process."""
    return max(1, min(len(os.sched_getaffinity(0)), _available_bytes() // WORKER_BYTES - 1))


def _available_bytes(root: Path = Path("/")) -> int:
    """Memory that this process and its children may still take, of the machine's and of each control group's.

    root: where proc and sys are mounted. A container's or service's limit does not show in the machine's figures. What
    exceeds it ends a process, and systemd then stops the whole service.
    """
    machine = _numbers(root / "proc/meminfo").get("MemAvailable:", 0) << 10
    own = [line[3:] for line in _lines(root / "proc/self/cgroup") if line.startswith("0::")]  # 0: version 2
    groups = [
        root / "sys/fs/cgroup" / group.strip("/") for name in own for group in (name, *map(str, Path(name).parents))
    ]
    return min([machine, *map(_left_bytes, groups)])


def _left_bytes(group: Path) -> int:
    """What a control group's limit leaves; file pages that nobody uses are given up first."""
    limit, used = _lines(group / "memory.max"), _lines(group / "memory.current")
    if not limit or not used or not limit[0].isdecimal():
        return sys.maxsize
    return int(limit[0]) - int(used[0]) + _numbers(group / "memory.stat").get("inactive_file", 0)


def _numbers(file: Path) -> dict[str, int]:
    return {name: int(number) for name, number, *_ in map(str.split, _lines(file))}


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").splitlines()
    except OSError:
        return []


@register_pass(mutates_CFG=False, analysis_only=True)
class _KeepState(FunctionPass):  # type: ignore[misc]
    """The end of a compilation that stops when the types are known. Its result is the signature and, in the metadata,
    the state with which a worker goes on."""

    _name = "keep_state"

    def __init__(self) -> None:
        FunctionPass.__init__(self)

    def run_pass(self, state: Any) -> bool:
        state.cr = compiler.compile_result(
            typing_context=state.typingctx,
            target_context=state.targetctx,
            entry_point=None,
            signature=typing.signature(state.return_type, *state.args),
            objectmode=False,
            lifted=(),
            metadata={_STATE: state},
        )
        return False


def _passes(state: Any) -> tuple[list[Any], list[Any]]:
    """numba's passes up to type inference, and those after it."""
    passes = compiler.DefaultPassBuilder.define_nopython_pipeline(state).passes
    inference = next(k for k, (each, _) in enumerate(passes) if each is NopythonTypeInference)
    return passes[: inference + 1], passes[inference + 1 :]


class _InferTypes(compiler.CompilerBase):  # type: ignore[misc]
    """A compilation that ends with type inference."""

    def define_pipelines(self) -> list[Any]:
        passes = PassManager("types")
        passes.passes.extend(_passes(self.state)[0])
        passes.add_pass(_KeepState, "keep the state")
        passes.finalize()
        return [passes]


class _Finish(compiler.CompilerBase):  # type: ignore[misc]
    """The rest of a compilation that ended with type inference."""

    def __init__(self, kept: Any, *arguments: Any) -> None:
        """kept: the state of the first part; arguments: numba's."""
        super().__init__(*arguments)
        self._kept = kept

    def compile_extra(self, function: Any) -> Any:
        """Go on; the function is that of the state."""
        self.state, self._kept = self._kept, None
        self.state.pipeline, self.state.cr = self, None
        self.state.flags.no_cfunc_wrapper = True  # for callers in C; we have none, and it takes a twelfth of the time
        return self._compile_core()

    def define_pipelines(self) -> list[Any]:
        passes = PassManager("after types")
        passes.passes.extend(_passes(self.state)[1])
        passes.finalize()
        return [passes]


def _remember_texts() -> None:
    """Let numba write out each type once. It does so for all arguments of a function before each pass, for listeners
    that do not exist. Our records nest deeply, so that was a fifth of the whole time."""
    for kind in (types.Record, types.NestedArray):
        kind.__repr__ = _remembered(kind.__repr__)  # type: ignore[method-assign]


def _remembered(write: Callable[[Any], str]) -> Callable[[Any], str]:
    texts: dict[int, tuple[Any, str]] = {}  # numba compares types by their texts, so they are found by identity here

    def read(kind: Any) -> str:
        found = texts.get(id(kind))
        if found is None:
            found = texts[id(kind)] = kind, write(kind)
        return found[1]

    return read


class _Plan:
    """What there is to compile, in an order in which callees come first; grows while types are inferred."""

    def __init__(self, found: Callable[[Overload, set[Overload], Any], None]) -> None:
        """found: hears an overload, what it calls, and the state with which its compilation goes on."""
        self._found = found
        self._callees: list[set[Overload]] = []
        self._known: set[Overload] = set()

    def take_over(self, kernels: Iterable[Dispatcher]) -> None:
        """From now on, numba's request to compile one of these kernels infers its types instead."""
        for kernel in kernels:
            kernel._compiler.pipeline_class = _InferTypes
            kernel.compile = lambda signature, kernel=kernel: self.infer(kernel, signature)

    @staticmethod
    def restore(kernels: Iterable[Dispatcher]) -> None:
        """Make these kernels compile again."""
        for kernel in kernels:
            kernel._compiler.pipeline_class = compiler.Compiler
            del kernel.compile
            kernel.overloads.clear()

    def infer(self, kernel: Dispatcher, signature: Any) -> None:
        """Infer what a kernel returns for arguments of these types; those that it calls come before it."""
        argument_types = tuple(sigutils.normalize_signature(signature)[0])
        overload = kernel, argument_types
        if self._callees:
            self._callees[-1].add(overload)
        if overload in self._known:
            return
        self._known.add(overload)
        cached = kernel._cache.load_overload(argument_types, kernel.targetctx)
        if cached is not None:
            kernel.overloads[argument_types] = cached
            return
        self._callees.append(set())
        inferred = kernel._compiler.compile(argument_types, None)
        kernel.overloads[argument_types] = inferred
        self._found(overload, self._callees.pop(), inferred.metadata.pop(_STATE))


class _Workers:
    """Gives what can be compiled to child processes; `report` hears the name of each compiled function."""

    def __init__(self, count: int, kernels: Sequence[Dispatcher], report: Callable[[str], None]) -> None:
        self._count = count
        self._kernels = kernels
        self._report = report
        self._begun: dict[Overload, tuple[set[Overload], Any]] = {}
        """What it calls, and the state with which its compilation goes on, of each that no worker has taken."""
        self._missing: dict[Overload, set[Overload]] = {}
        """By what waits, its callees that are not compiled yet; in the order of the plan."""
        self._unfinished: set[Overload] = set()
        self._running: dict[int, tuple[int, list[Overload]]] = {}
        """By descriptor on which a worker reports: its process id, and what it has not reported yet."""
        self._selector = selectors.DefaultSelector()

    def add(self, overload: Overload, callees: set[Overload], state: Any) -> None:
        """Something can be compiled when its callees are. state: with which its compilation goes on."""
        self._begun[overload] = callees, state
        self._missing[overload] = callees & self._unfinished
        self._unfinished.add(overload)
        self.step(wait=False)

    def finish(self) -> None:
        """Wait until everything is compiled."""
        while self._missing or self._running:
            self.step(wait=True)

    def step(self, *, wait: bool) -> None:
        """Start workers for what is ready, and hear those that run; if `wait`, until one says something."""
        while len(self._running) < self._count and (chunk := self._chunk()):
            self._start(chunk)
        for key, _ in self._selector.select(None if wait else 0):
            self._hear(key.fd)

    def _chunk(self) -> list[Overload]:
        """What the next worker compiles: a part of what is ready, so that there is work for each core."""
        ready = [overload for overload, missing in self._missing.items() if not missing]
        chunk = ready[: min(MAX_CHUNK, -(-len(ready) // (2 * self._count)))]
        for overload in chunk:
            del self._missing[overload]
        return chunk

    def _start(self, chunk: list[Overload]) -> None:
        begun = [self._begun.pop(overload) for overload in chunk]

        def work(tell: Callable[[str], None]) -> None:
            _Plan.restore(self._kernels)
            for (kernel, argument_types), (callees, state) in zip(chunk, begun, strict=True):
                for callee, its_types in callees:
                    callee.compile(its_types)  # is in the cache
                kernel._compiler.pipeline_class = partial(_Finish, state)
                kernel.compile(argument_types)
                kernel._compiler.pipeline_class = compiler.Compiler
                tell("")

        descriptor, process = _fork(work)
        self._running[descriptor] = process, chunk
        self._selector.register(descriptor, selectors.EVENT_READ)

    def _hear(self, descriptor: int) -> None:
        process, chunk = self._running[descriptor]
        lines = os.read(descriptor, 4096)
        for _ in range(lines.count(b"\n")):
            self._compiled(chunk.pop(0))
        if not lines:
            self._selector.unregister(descriptor)
            del self._running[descriptor]
            _reap(descriptor, process)
            if chunk:
                raise ChildProcessError(f"a worker did not compile {chunk[0][0].py_func.__qualname__}")

    def _compiled(self, overload: Overload) -> None:
        self._unfinished.remove(overload)
        for missing in self._missing.values():
            missing.discard(overload)
        function = overload[0].py_func
        self._report(f"{function.__module__}.{function.__qualname__}")


def compile_in_processes(count: int, kernels: Sequence[Dispatcher], calls: Sequence[Call]) -> Generator[str]:
    """Compile into the cache what these calls need; yields the name of each function when one of its overloads is done.

    count: processes that compile at the same time. kernels: all that may be called, directly or not. Raises nothing:
    after a failure the iteration ends early. Closing the generator ends all processes.
    """
    descriptor, process = _fork(lambda tell: _plan_and_compile(count, kernels, calls, tell))
    rest = b""
    try:
        while read := os.read(descriptor, 4096):
            *lines, rest = (rest + read).split(b"\n")
            for line in lines:
                yield line.decode()
    finally:
        os.kill(process, signal.SIGKILL)
        _reap(descriptor, process)


def _plan_and_compile(
    count: int, kernels: Sequence[Dispatcher], calls: Sequence[Call], tell: Callable[[str], None]
) -> None:
    _remember_texts()
    workers = _Workers(count, kernels, tell)
    plan = _Plan(workers.add)
    plan.take_over(kernels)
    for kernel, arguments in calls:
        plan.infer(kernel, tuple(kernel.typeof_pyval(argument) for argument in arguments))
    workers.finish()


def _fork(work: Callable[[Callable[[str], None]], None]) -> tuple[int, int]:
    """Run `work` in a child process that ends with this one. Returns the descriptor of its lines and its process id."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    with warnings.catch_warnings():
        # Python 3.12 warns when there are other threads. Here these are numpy's, which are idle.
        warnings.simplefilter("ignore", DeprecationWarning)
        process = os.fork()
    if process == 0:
        _be_child(parent, work, writing)
    os.close(writing)
    return reading, process


def _be_child(parent: int, work: Callable[[Callable[[str], None]], None], writing: int) -> NoReturn:
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the parent ends us
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            work(lambda line: _write(writing, line))
            status = 0
    except BaseException as error:  # the parent's stack is below us and must not unwind here
        if os.environ.get("NUMBA_DEVELOPER_MODE"):
            sys.excepthook(type(error), error, error.__traceback__)
    finally:
        os._exit(status)


def _write(descriptor: int, line: str) -> None:
    os.write(descriptor, line.encode() + b"\n")


def _reap(descriptor: int, process: int) -> None:
    os.close(descriptor)
    os.waitpid(process, 0)
