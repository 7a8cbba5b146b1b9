"""Asks Linux to let media threads run first where cores are scarce."""

import ctypes
import enum
import os
import platform
import struct
import threading

REAL_TIME_PRIORITY = 1
"""The lowest there is (1 to 99): before every ordinary thread, behind whatever else the machine runs in real time."""
SYSCALL_NUMBERS = {"x86_64": 314, "aarch64": 274}
"""Machine -> number of the system call sched_setattr(2), for which most C libraries have no function."""
SLICE_NS = 100_000
"""The shortest that Linux has. It says how soon a thread that wakes up is let in, not how long it may go on."""
_ATTRIBUTES = struct.Struct("=IIQiIQQQII")
"""struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period, bounds of utilisation."""
_SCHED_OTHER, _CALLER = 0, 0


class Priority(enum.StrEnum):
    """What Linux granted a media thread."""

    REAL_TIME = "real-time priority"
    SHORT_SLICES = "short time slices"
    ORDINARY = "ordinary priority"


def raise_priority() -> Priority:
    """Let the calling thread run as soon as it wakes up, as far as this process may. Returns what Linux granted.

    Real-time priority (sched(7), SCHED_RR) needs root, CAP_SYS_NICE or RLIMIT_RTPRIO. Without it, Linux decides anew
    only at its tick, up to 4 ms later, whenever the waiting thread was just ahead of its fair share. Linux keeps a
    twentieth of each core for ordinary threads, so that a saturated media thread does not lock anyone out.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(REAL_TIME_PRIORITY))
    except (OSError, AttributeError):  # not permitted, or a system without it
        return Priority.SHORT_SLICES if shorten_slices() else Priority.ORDINARY
    return Priority.REAL_TIME


def shorten_slices() -> bool:
    """Let the calling thread, when it wakes up, interrupt others at once and not when their time slice is over.

    Linux has that from 6.12 on; before, it takes the value and ignores it. Needs no privilege. False: refused, or not
    on this system.
    """
    number = SYSCALL_NUMBERS.get(platform.machine())
    if platform.system() != "Linux" or number is None:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, _SCHED_OTHER, 0, nice, 0, SLICE_NS, 0, 0, 0, 0)
    return bool(ctypes.CDLL(None).syscall(number, _CALLER, attributes, 0) == 0)
