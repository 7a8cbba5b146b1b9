"""A loop over descriptors that can be read or written, and over what the control thread asks for.

Who calls it: `thread.py` runs it; everything else in the TURN thread watches its descriptors with it.
"""

import contextlib
import os
import select
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Protocol

import structlog

EVENTS_AT_ONCE = 64
"""Descriptors that are served before it is looked again which are ready."""
LATER_S = 0.001
"""How long what can wait goes on before descriptors have their turn: about one TLS handshake."""
TICK_S = 1.0
"""The time between calls of `tick`."""
READ, WRITE = select.EPOLLIN, select.EPOLLOUT

log = structlog.get_logger("signaling.turn")


class Served(Protocol):
    """What has a descriptor."""

    def ready(self, events: int) -> None:
        """Read or write: it can be done, or the other side has ended. An exception ends it."""

    def close(self) -> None:
        """End it, as nobody else does."""


class Poller:
    """Descriptors, and what is to be done with them."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._epoll = select.epoll()
        self._served: dict[int, Served] = {}
        self._new: set[int] = set()
        """Descriptors that are watched only since it was looked which are ready."""
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wakeup, READ)
        self._work: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._later: deque[Callable[[], object]] = deque()
        self._stopped = False

    def watch(self, descriptor: int, served: Served, events: int = READ) -> None:
        """Call `served` when one of the events has come.

        Raises:
            OSError: the operating system watches as much as it may.
        """
        self._epoll.register(descriptor, events)
        self._served[descriptor] = served
        self._new.add(descriptor)

    def change(self, descriptor: int, events: int) -> None:
        """Wait for these events from now on. The end of the other side is always waited for."""
        self._epoll.modify(descriptor, events)

    def forget(self, descriptor: int) -> None:
        """Wait for nothing of a descriptor any more; it is still open."""
        if self._served.pop(descriptor, None) is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(descriptor)

    def later(self, work: Callable[[], object]) -> None:
        """Do something after all descriptors that are ready have had their turn. To be called in the loop; who has put
        something in waits for it before putting in more."""
        self._later.append(work)

    @staticmethod
    def attempt(work: Callable[[], object]) -> None:
        """Do something for one client whose failure must not end what serves the others; it is logged."""
        try:
            work()
        except Exception:
            log.exception("work for TURN failed")

    def call(self, work: Callable[[], object]) -> None:
        """Have the loop do something soon. Any thread may ask for it."""
        self._work.put(work)
        os.eventfd_write(self._wakeup, 1)

    def catch_up(self) -> None:
        """Do what was asked for so far. To be called in the loop after something has come and before it is served: so
        whoever was admitted before it sent its request is known."""
        if not self._work.empty():
            self._do_work()

    def stop(self) -> None:
        """End `run`. Any thread may ask for it."""
        self._stopped = True
        os.eventfd_write(self._wakeup, 1)

    def run(self, tick: Callable[[float], object]) -> None:
        """Serve everything until `stop`. `tick` is called from time to time with the monotonic time, in seconds."""
        due = time.monotonic() + TICK_S
        while not self._stopped:
            wait_s = 0.0 if self._later else max(0.0, due - time.monotonic())
            ready = self._epoll.poll(wait_s, EVENTS_AT_ONCE)
            self._new.clear()
            self.catch_up()
            for descriptor, events in ready:
                if descriptor == self._wakeup:
                    self._do_work()
                elif descriptor in self._new:
                    pass  # its number was that of one which has been closed meanwhile, whose events these are
                elif (served := self._served.get(descriptor)) is not None:
                    self._serve(served, events)
            self._do_later()
            if (now := time.monotonic()) >= due:
                due = now + TICK_S
                self.attempt(lambda now=now: tick(now))  # type: ignore[misc]

    def close(self) -> None:
        """Close everything that is watched. The loop has ended."""
        self._do_work()
        for served in list(self._served.values()):
            self.attempt(served.close)
        self._epoll.close()
        os.close(self._wakeup)

    def _do_work(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wakeup)
        while True:
            try:
                work = self._work.get_nowait()
            except Empty:
                return
            self.attempt(work)

    def _do_later(self) -> None:
        if self._later:
            ends = time.monotonic() + LATER_S
            while self._later:
                self.attempt(self._later.popleft())
                if time.monotonic() >= ends:
                    return

    def _serve(self, served: Served, events: int) -> None:
        try:
            served.ready(events)
        except Exception:
            log.exception("a client of TURN could not be served")
            self.attempt(served.close)
