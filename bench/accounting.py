"""What a process cost and what it ran on: CPU time, memory and drops from /proc, versions of what matters.

CPU time comes from the scheduler, in nanoseconds. Softirq time, and the CPU time of children that ended, come from the
kernel's tick counter, which is precise to 10 ms. All are counters: read them before and after a window and subtract.
"""

import ctypes
import gzip
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pylibsrtp._binding

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
CORE_COLUMNS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
"""The columns of the cpu lines of /proc/stat; see proc(5)."""
UDP_COUNTERS = ("InErrors", "RcvbufErrors", "SndbufErrors", "InCsumErrors", "NoPorts")
_INODE_WORD = 9
"""Index of the inode among the words of a line of /proc/net/udp. The last word counts the drops."""
_GONE = (FileNotFoundError, ProcessLookupError)
"""The errors of reading /proc about a process or thread that ended meanwhile."""


def cpu_ns(pid: int) -> int:
    """Return the CPU time of all threads of `pid` so far, user and system, as the scheduler accounts it."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except _GONE:
            continue  # a thread that just ended
    return total


def main_thread_ns(pid: int) -> int:
    """Return the CPU time of the main thread of `pid`.

    Raises:
        FileNotFoundError: there is no such process.
    """
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0])


def process_tree(pid: int) -> list[int]:
    """Return `pid` and its descendants, parents first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(*_GONE):
                children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found


def tree_cpu_ns(pid: int) -> int:
    """Return the CPU time so far of `pid` and its descendants, with their threads and the children they waited for.

    Raises:
        FileNotFoundError: there is no process `pid`.
    """
    total = _lifetime_ns(pid)
    for process in process_tree(pid)[1:]:
        with suppress(*_GONE):
            total += _lifetime_ns(process)
    return total


def _lifetime_ns(pid: int) -> int:
    user, system, children_user, children_system = (int(word) for word in _stat(pid)[11:15])
    # schedstat is exact but forgets threads that ended; the ticks remember them
    return max(cpu_ns(pid), (user + system) * TICK_NS) + (children_user + children_system) * TICK_NS


def _stat(pid: int) -> list[str]:
    """Return the words of /proc/PID/stat after the process's name: state, parent, and so on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


@dataclass(frozen=True, slots=True)
class CoreTimes:
    """How some cores spent their time so far, in nanoseconds."""

    softirq: int
    steal: int
    """Time in which the hypervisor ran something else, so that the cores were not whole ones."""
    idle: int
    total: int

    def __sub__(self, before: "CoreTimes") -> "CoreTimes":
        return CoreTimes(
            self.softirq - before.softirq,
            self.steal - before.steal,
            self.idle - before.idle,
            self.total - before.total,
        )


def core_times(cores: tuple[int, ...]) -> CoreTimes:
    """Return how these cores spent their time since the machine started, for all processes together."""
    wanted = {f"cpu{core}" for core in cores}
    sums = dict.fromkeys(CORE_COLUMNS, 0)
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name in wanted:
            for column, count in zip(CORE_COLUMNS, ticks, strict=False):
                sums[column] += int(count) * TICK_NS
    return CoreTimes(sums["softirq"], sums["steal"], sums["idle"] + sums["iowait"], sum(sums.values()))


def softirq_is_separate() -> bool:
    """Tell whether the kernel keeps soft interrupts out of the CPU time of the process that they interrupt.

    Without CONFIG_IRQ_TIME_ACCOUNTING the scheduler charges them to that process. Softirq time is then a part of its
    CPU time, and must not be added to it.
    """
    try:
        with gzip.open("/proc/config.gz", "rt") as config:
            return "CONFIG_IRQ_TIME_ACCOUNTING=y" in config.read()
    except OSError:
        boot = Path(f"/boot/config-{platform.release()}")
        return boot.exists() and "CONFIG_IRQ_TIME_ACCOUNTING=y" in boot.read_text()


def resident_bytes(pid: int) -> int:
    """Return the proportional set size of `pid`: pages that it shares with other processes count in part."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"no Pss in /proc/{pid}/smaps_rollup")


def tree_resident_bytes(pid: int) -> int:
    """Return the proportional set size of `pid` and its descendants together."""
    total = 0
    for process in process_tree(pid):
        with suppress(*_GONE):
            total += resident_bytes(process)
    return total


def udp_errors(pid: int | None = None) -> dict[str, int]:
    """Return how many UDP datagrams of IPv4 and IPv6 the kernel dropped so far, by reason.

    The kernel counts them for a whole network namespace: that of `pid`, or else our own. `socket_drops` counts for one
    process alone.
    """
    folder = Path(f"/proc/{pid or 'self'}/net")
    names, values = (line.split()[1:] for line in (folder / "snmp").read_text().splitlines() if line.startswith("Udp:"))
    counts = dict(zip(names, map(int, values), strict=True))
    with suppress(FileNotFoundError):  # a kernel without IPv6
        for line in (folder / "snmp6").read_text().splitlines():
            name, value = line.split()
            if name.startswith("Udp6"):
                counts[name[4:]] = counts.get(name[4:], 0) + int(value)
    return {name: counts[name] for name in UDP_COUNTERS}


@contextmanager
def confined(cores: tuple[int, ...]) -> Iterator[None]:
    """Confine processes that are started inside the block to `cores`; an empty tuple confines nothing."""
    before = os.sched_getaffinity(0)
    if cores:
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def socket_drops(pid: int) -> int:
    """Return how many datagrams were lost because the receive queue of a UDP socket of `pid` was full.

    Sockets count that `pid` has open now; those of its descendants do not.
    """
    dropped = 0
    links = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with suppress(*_GONE):  # closed meanwhile
            links.add(os.readlink(entry))
    for protocol in ("udp", "udp6"):
        for line in Path(f"/proc/{pid}/net/{protocol}").read_text().splitlines()[1:]:
            words = line.split()
            if f"socket:[{words[_INODE_WORD]}]" in links:
                dropped += int(words[-1])
    return dropped


def machine() -> str:
    """Describe this machine in one line, for reports."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    return f"{model}, {os.cpu_count()} CPUs, Linux {platform.release()}"


def versions() -> dict[str, str]:
    """Return the versions of the kernel, of Python and of the libraries on which the figures depend, by name."""
    wheel = ctypes.CDLL(pylibsrtp._binding.__file__)
    return {
        "kernel": platform.release(),
        "softirq time": "beside CPU time" if softirq_is_separate() else "inside CPU time",
        "python": platform.python_version(),
        "numba": version("numba"),
        "numpy": version("numpy"),
        "pylibsrtp": version("pylibsrtp"),
        "libsrtp": _version_text(wheel, "srtp_get_version_string").removeprefix("libsrtp2 "),
        "libsrtp crypto": _version_text(wheel, "OpenSSL_version"),
    }


def _version_text(library: ctypes.CDLL, function: str) -> str:
    call = getattr(library, function, None)
    if call is None:
        return "unknown"  # a wheel that hides its symbols
    call.restype = ctypes.c_char_p
    text: bytes = call(0)  # the argument is OpenSSL's; the other function takes none and does not see it
    return text.decode()


def cores() -> tuple[tuple[int, ...], int]:
    """Return the server's cores and the generator's, which is the last one; a single core is shared by both."""
    mine = sorted(os.sched_getaffinity(0))
    return tuple(mine[:-1]) or (mine[0],), mine[-1]
