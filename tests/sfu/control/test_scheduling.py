"""scheduling: what media threads ask of Linux, read back."""

import ctypes
import os
import threading

import pytest

from sfu.control import scheduling
from sfu.control.scheduling import SLICE_NS, SYSCALL_NUMBERS, Priority, raise_priority, shorten_slices

LINUX_WITH_SLICES = (6, 12)
READ = 1
"""sched_getattr follows sched_setattr in the tables of system calls."""


def attributes() -> tuple[int, ...]:
    """The scheduling attributes of this thread, in the order of struct sched_attr."""
    buffer = ctypes.create_string_buffer(scheduling._ATTRIBUTES.size)
    number = SYSCALL_NUMBERS[os.uname().machine] + READ
    assert ctypes.CDLL(None).syscall(number, 0, buffer, len(buffer), 0) == 0
    return scheduling._ATTRIBUTES.unpack(buffer.raw)


@pytest.mark.skipif(os.uname().machine not in SYSCALL_NUMBERS, reason="another processor: nothing is asked there")
def test_a_thread_keeps_its_nice_value_and_gets_the_shortest_slice() -> None:
    seen: list[tuple[bool, tuple[int, ...]]] = []

    def ask() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 7)
        seen.append((shorten_slices(), attributes()))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    ((granted, (_, policy, _, nice, _, slice_ns, *_)),) = seen
    assert granted
    assert (policy, nice) == (os.SCHED_OTHER, 7)
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    assert slice_ns == (SLICE_NS if release >= LINUX_WITH_SLICES else 0)


def scheduler_after_asking() -> tuple[Priority, int]:
    """What a new thread is granted, and the policy that Linux then names for it."""
    seen: list[tuple[Priority, int]] = []
    thread = threading.Thread(target=lambda: seen.append((raise_priority(), os.sched_getscheduler(0))))
    thread.start()
    thread.join()
    return seen[0]


def test_what_is_granted_is_what_linux_does() -> None:
    granted, policy = scheduler_after_asking()
    assert (granted == Priority.REAL_TIME) == (policy == os.SCHED_RR)


def test_without_the_privilege_the_thread_gets_short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    monkeypatch.setattr(scheduling, "shorten_slices", lambda: True)
    assert scheduler_after_asking() == (Priority.SHORT_SLICES, os.SCHED_OTHER)


def test_elsewhere_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "pdp11")
    assert not shorten_slices()
