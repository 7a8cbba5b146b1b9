"""An end to what would run for ever: for parsers, whose input decides how long they loop."""

import faulthandler
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

KERNEL_FACTOR = 60
"""Python's signal handlers do not run within a compiled kernel. One that does not end ends the test run instead, after
this many times the deadline in wall-clock time, so that a busy machine does not do it."""


class EndlessError(AssertionError):
    """The deadline passed."""


@contextmanager
def deadline(cpu_seconds: float) -> Iterator[None]:
    """Fail when the body uses more CPU time than this. No measurement: it only guards against endless loops."""

    def expired(number: int, frame: FrameType | None) -> None:
        raise EndlessError(f"not done after {cpu_seconds} s of CPU time")

    previous = signal.signal(signal.SIGVTALRM, expired)
    faulthandler.dump_traceback_later(cpu_seconds * KERNEL_FACTOR, exit=True)
    signal.setitimer(signal.ITIMER_VIRTUAL, cpu_seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGVTALRM, previous)
