"""Notices a control thread that is stuck, and tells systemd while it is not.

Who calls it: `listener.serve` runs everything inside `watching`, and calls `notify` when joins are accepted. A control
thread that is stuck, as in a parser that never ends, does not even answer SIGTERM. Only another thread can notice it.
"""

import asyncio
import contextlib
import math
import os
import socket
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Mapping

import structlog

BEAT_S = 0.5
"""The time between beats of the control thread, and between checks of the other thread."""
STALLED_CHECKS = 10
"""Checks without a beat after which the control thread counts as stalled: five seconds. Checks are counted instead of
seconds, because a process that was stopped as a whole (by a debugger, or with its machine) has missed no check."""
END_SHARE = 0.75
"""The share of systemd's timeout after which the process ends itself, so that the log says why."""
EXIT_STALLED = 70
"""The exit status of a process that ended itself: `EX_SOFTWARE` of sysexits.h."""
LOG_TIMEOUT_S = 1.0
"""How long writing the last log line may take. The control thread may be stuck because nobody reads the log."""

log = structlog.get_logger("signaling.watchdog")


class Watchdog:
    """A thread that watches the one that made it."""

    def __init__(self, end_after_s: float, end: Callable[[int], object] = os._exit, check_s: float = BEAT_S) -> None:
        """Watch the calling thread; begin with `start`.

        Args:
            end_after_s: seconds without a beat after which the process is ended; 0: never.
            end: ends the process with this status, at once.
            check_s: seconds between two checks.
        """
        self._end = end
        self._end_checks = math.ceil(end_after_s / BEAT_S)
        self._check_s = check_s
        self._watched = threading.get_ident()
        self._beats = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Start watching."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching, and wait until the thread has ended."""
        self._stopped.set()
        self._thread.join()

    def beat(self) -> None:
        """Note that the watched thread is not stuck."""
        self._beats += 1

    def _run(self) -> None:
        seen, missed, told = self._beats, 0, False
        while not self._stopped.wait(self._check_s):
            if self._beats != seen:
                seen, missed = self._beats, 0
                if told:
                    told = False
                    self._tell(lambda: log.warning("the control thread turns again"))
                continue
            missed += 1
            if not told and missed >= min(STALLED_CHECKS, self._end_checks or STALLED_CHECKS):
                told = True
                stack = self._stack()
                self._tell(lambda stack=stack: log.error("the control thread does not turn", stack=stack))  # type: ignore[misc]
            if self._end_checks and missed >= self._end_checks:
                self._tell(lambda: log.critical("ending this process, so that it is started again")).join(LOG_TIMEOUT_S)
                self._end(EXIT_STALLED)

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._watched)
        return "".join(traceback.format_stack(frame)).rstrip() if frame is not None else ""

    @staticmethod
    def _tell(write: Callable[[], object]) -> threading.Thread:
        """Log in another thread: logging may wait for the log's reader, or for a lock that the stuck thread holds."""
        thread = threading.Thread(target=write, daemon=True)
        thread.start()
        return thread


@contextlib.asynccontextmanager
async def watching(end_after_s: float) -> AsyncIterator[None]:
    """Watch the running event loop while the block lasts; see `Watchdog` for `end_after_s`."""
    watchdog = Watchdog(end_after_s)

    async def beats() -> None:
        while True:
            watchdog.beat()
            notify("WATCHDOG=1")
            await asyncio.sleep(BEAT_S)

    watchdog.start()
    task = asyncio.create_task(beats(), name="watchdog")
    try:
        yield
    finally:
        watchdog.stop()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def notify(state: str) -> None:
    """Send systemd `READY=1`, `STOPPING=1` or `WATCHDOG=1` (sd_notify(3)), if it has set a socket for that."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sender,
    ):
        sender.sendto(state.encode(), address)


def systemd_limit_s(environment: Mapping[str, str]) -> float:
    """Return the seconds without a beat after which this process should end, from systemd's sd_watchdog_enabled(3).

    0: systemd does not watch the process, or the variables are meant for another one.
    """
    if environment.get("WATCHDOG_PID", "") not in ("", str(os.getpid())):
        return 0.0
    try:
        return max(0, int(environment.get("WATCHDOG_USEC", ""))) / 1e6 * END_SHARE
    except ValueError:
        return 0.0
