"""What a process cost: CPU time of all its threads in nanoseconds, and resident memory, from /proc."""

import os
import platform
from pathlib import Path


def cpu_ns(pid: int) -> int:
    """Time on a CPU of every thread of `pid` so far, user and system, as the scheduler accounts it."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread that just ended
    return total


def resident_bytes(pid: int) -> int:
    """Proportional set size of `pid`: pages shared with other processes count in part."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"no Pss in /proc/{pid}/smaps_rollup")


def machine() -> str:
    """One line about this machine, for reports."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    return f"{model}, {os.cpu_count()} CPUs, Linux {platform.release()}"


def pin(core: int) -> None:
    """Keep the calling process on one core, when there are several."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[core % len(cores)]})
