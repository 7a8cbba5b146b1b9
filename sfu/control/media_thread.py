"""The thread in which the media loop runs, and what happens when a kernel raises: a bug of ours costs one transport.

The loop works without the GIL and returns only to stop, or by an exception. Then this file tells the control thread
which transport was in hand, and enters the loop again.
"""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable

from sfu.control.scheduling import raise_priority
from sfu.media import loop
from sfu.queues.notices import notice
from sfu.schema.codes import NoticeKind, RowState
from sfu.schema.memory import Memory

logger = logging.getLogger(__name__)

STOP_TIMEOUT_S = 2.0
MAX_FAILURES = 100
"""Exceptions that no transport, or only broken ones, can be blamed for, with fewer than CALM_TURNS between them."""
CALM_TURNS = 1000
PAUSE_S = 0.001
"""Wait before the loop is entered again: what raises in every turn until its transport is closed eats no core."""


class MediaThread:
    """Runs `loop.media_loop` over one Memory from `start` to `stop`.

    `memory` must have its wake-up eventfds open and its sockets entered.
    """

    def __init__(self, memory: Memory, on_exception: Callable[[BaseException], None]) -> None:
        """on_exception: called in the media thread with what a kernel raised, once for each transport it breaks."""
        self._memory = memory
        self._on_exception = on_exception
        self._thread: threading.Thread | None = None
        self._broken: set[tuple[int, int]] = set()
        self._failures = 0
        self._failed_turn = 0
        self._clock: int | None = None
        self._cpu_s = 0.0
        self.failed = False
        """The thread gave up: nothing is forwarded any more."""

    def start(self) -> None:
        """Start the thread. A daemon, so that it cannot hold up the interpreter's exit."""
        self._memory.thread["stop"] = 0
        self._thread = threading.Thread(
            target=self._run, name=f"media-{int(self._memory.thread['number'])}", daemon=True
        )
        self._thread.start()

    def wake(self) -> None:
        """Make the loop look into its command queue now."""
        os.eventfd_write(int(self._memory.thread["wake_fd"]), 1)

    def stop(self) -> None:
        """End the loop after the turn it is in, and wait for the thread.

        Raises:
            RuntimeError: the thread does not end.
        """
        if self._thread is None:
            return
        self._memory.thread["stop"] = 1
        self.wake()
        self._thread.join(STOP_TIMEOUT_S)
        if self._thread.is_alive():
            raise RuntimeError("the media thread does not stop")
        self._thread = None

    def cpu_seconds(self) -> float:
        """Processor time that the thread has used; once it has ended, what it had used when this was last asked."""
        clock = self._clock
        if clock is not None:
            with contextlib.suppress(OSError):  # it ends right now
                self._cpu_s = time.clock_gettime(clock)
        return self._cpu_s

    def _run(self) -> None:
        # By the thread itself: of one that has ended, the C library must not be asked.
        self._clock = time.pthread_getcpuclockid(threading.get_ident())
        try:
            self._serve()
        finally:
            self._clock = None

    def _serve(self) -> None:
        logger.info("%s runs with %s", threading.current_thread().name, raise_priority())
        while True:
            try:
                loop.media_loop(self._memory.record, self._memory.arena)
            except Exception as error:
                self._recover(error)
                if self.failed:
                    return
                time.sleep(PAUSE_S)
            else:
                return

    def _recover(self, error: Exception) -> None:
        """Tell the control thread who is broken, and leave the state such that a turn can begin."""
        thread = self._memory.thread
        row = int(thread["row_in_hand"])
        thread["row_in_hand"] = thread["path_in_hand"] = -1
        thread["idle"] = 0
        generation = int(self._memory.table("transports")[row]["generation"]) if row >= 0 else 0
        if row >= 0 and (row, generation) not in self._broken:
            self._broken.add((row, generation))
            self._on_exception(error)
            self._tell_broken(row)
            return
        turns = int(thread["turns"])
        self._failures = self._failures + 1 if turns - self._failed_turn < CALM_TURNS else 1
        self._failed_turn = turns
        if self._failures == 1:
            self._on_exception(error)
        if self._failures > MAX_FAILURES:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.failed = True
        logger.critical("the media thread failed %d times in a row and ends", self._failures, exc_info=error)
        transports = self._memory.table("transports")
        for row in range(int(self._memory.thread["transport_end"])):
            if transports[row]["state"] == RowState.OPEN:
                self._tell_broken(row)

    def _tell_broken(self, row: int) -> None:
        notice(self._memory.record, NoticeKind.TRANSPORT_BROKEN, row)
        os.eventfd_write(int(self._memory.thread["control_fd"]), 1)
