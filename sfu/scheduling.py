"""Asks Linux to let media threads go first where cores are scarce."""

import ctypes
import os
import platform
import struct
import threading

SYSCALL_NUMBERS = {"x86_64": 314, "aarch64": 274}
"""Of sched_setattr(2), for which most C libraries have no function."""
SLICE_NS = 100_000
"""The shortest that Linux has. It says how soon a thread that wakes up is let in, not how long it may go on."""
_ATTRIBUTES = struct.Struct("=IIQiIQQQII")
"""struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period, bounds of utilisation."""
_SCHED_OTHER, _CALLER = 0, 0


def ask_for_short_slices() -> bool:
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
