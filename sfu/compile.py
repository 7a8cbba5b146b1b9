"""Compiles and caches every kernel that runs in a server, so that a start needs no compiler.

`python -m sfu.compile` (or `aiosfu compile`) does it once after installation; a start does it when it was not done.
"""

import importlib
import logging
import pkgutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from types import ModuleType
from typing import Any

import numpy as np
from numba.core import event
from numba.core.dispatcher import Dispatcher

import sfu
from sfu.compiler import kernel_cache
from sfu.compiler.parallel import Call, compile_in_processes, worker_count
from sfu.schema.capacities import NOTICE_BLOCK
from sfu.schema.codes import NoticeKind
from sfu.schema.connection_tables import frame_t
from sfu.schema.memory import Memory
from sfu.schema.queue_tables import command_t, notice_t, slow_t

logger = logging.getLogger(__name__)

Progress = Callable[[int, int, str], None]
"""Called with (functions done, functions in all, name of the one just done)."""


class _Counter(event.Listener):  # type: ignore[misc]
    """Reports each function of ours when its compilation ends, however deep it was called from."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._total = total
        self._progress = progress
        self._done: set[str] = set()

    def on_start(self, event: Any) -> None:
        """A compilation begins: nothing to report."""

    def on_end(self, event: Any) -> None:
        """A compilation in this process ended."""
        function = event.data["dispatcher"].py_func
        self.count(f"{function.__module__}.{function.__qualname__}")

    def count(self, name: str) -> None:
        """A function was compiled, here or elsewhere."""
        if name not in self._done:
            self._done.add(name)
            self._progress(min(len(self._done), self._total), self._total, name)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear what this process compiles meanwhile."""
        event.register("numba:compile", self)
        try:
            yield
        finally:
            event.unregister("numba:compile", self)


def kernels(package: ModuleType = sfu) -> dict[str, Dispatcher]:
    """Every compiled function of a package and of the packages inside it, by full name; imports all their modules."""
    found: dict[str, Dispatcher] = {}
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if module.name.endswith(".__main__"):
            continue
        contents = vars(importlib.import_module(module.name))
        for value in contents.values():
            if isinstance(value, Dispatcher):
                found[f"{value.py_func.__module__}.{value.py_func.__qualname__}"] = value
    return found


@contextmanager
def _calls() -> Iterator[list[Call]]:
    """A call of each kernel that Python calls, with the types of the real calls; the media loop brings the others."""
    from sfu.media import loop
    from sfu.queues import control, notices

    memory = Memory()
    memory.open_wakeups()
    memory.thread["stop"] = 1
    try:
        # before the loop: their callees are few, so that the first line of progress comes soon
        yield [
            (control.push_command, (memory.record, np.zeros(1, command_t))),
            (control.push_frame, (memory.record, np.zeros(1, frame_t))),
            (notices.notice, (memory.record, NoticeKind.CLOSED_TRANSPORT, 0)),
            (notices.take_notices, (memory.record, np.zeros(NOTICE_BLOCK, notice_t))),
            (control.take_slow, (memory.record, np.zeros(1, slow_t))),
            (loop.media_loop, (memory.record, memory.arena)),
        ]
    finally:
        memory.close_wakeups()


def compile_all(progress: Progress) -> None:
    """Compile what is not cached yet. Returns within a second when everything is.

    Several processes compile, as far as cores and memory allow. Two callers do not do the same work: one waits for the
    other.
    """
    if kernel_cache.is_complete():
        return
    with kernel_cache.locked(), _calls() as calls:
        if kernel_cache.is_complete():
            return
        found = kernels()
        compile_calls(calls, found, len(found), progress)
        kernel_cache.mark_complete()


def compile_calls(calls: Sequence[Call], known: Mapping[str, Dispatcher], total: int, progress: Progress) -> None:
    """Compile into the cache what these calls need, then make the calls.

    Several processes compile, as far as cores and memory allow; what they leave is compiled here. The caller holds
    `kernel_cache.locked`.

    Args:
        calls: kernels with the arguments of a call that returns at once.
        known: all kernels that may be called, directly or not, by full name.
        total: functions in all, as `progress` is told.
        progress: is told of each function, and at the end that all are done.
    """
    counter = _Counter(total, progress)
    count = worker_count()
    if count > 1:
        with closing(compile_in_processes(count, list(known.values()), calls)) as names:
            for name in names:
                counter.count(name)
    with counter.listening():
        for kernel, arguments in calls:
            kernel(*arguments)
    progress(total, total, "")


def main() -> None:
    """Print plain lines of progress: for installers and logs."""

    def show(done: int, total: int, name: str) -> None:
        sys.stdout.write(f"{done}/{total} {name}\n")
        sys.stdout.flush()

    started = time.monotonic()
    compile_all(show)
    sys.stdout.write(f"kernels are ready in {kernel_cache.directory()} ({time.monotonic() - started:.1f} s)\n")


if __name__ == "__main__":
    main()
