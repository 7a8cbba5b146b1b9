"""`python -m bench profile`: where the CPU time of a forwarded packet goes, by `perf` with the names of kernels."""

import shutil
import subprocess
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from bench.accounting import cores
from bench.measure.run import SessionProcess, Subject
from bench.measure.session import LEAD_S, WARM_UP_S
from bench.scenarios import Scenario
from bench.servers.jit_symbols import map_path

FREQUENCY_HZ = 2999
"""Samples per second of CPU time. It is prime, so that it does not follow the periods of timers."""
SYSTEM, CRYPTO, LIBC = "system calls (Linux)", "SRTP (libsrtp, OpenSSL)", "libc"
PYTHON = "Python"


class ProfileFailed(Exception):
    """perf is missing or not permitted; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Microseconds of CPU per forwarded packet, by place; the largest first."""

    total_us: float
    places: tuple[tuple[str, float], ...]


def profile(scenario: Scenario) -> Profile:
    """Run one load against the engine and sample it.

    Raises:
        ProfileFailed: perf does not work here.
        RunFailed: the session failed.
    """
    if shutil.which("perf") is None:
        raise ProfileFailed("perf is not installed (on Debian: apt-get install linux-perf)")
    with (
        SessionProcess(Subject("engine", (("perf_map", "1"),)), scenario, cores()[0][:1]) as session,
        tempfile.TemporaryDirectory() as folder,
    ):
        symbols = map_path(session.pid)
        data = Path(folder) / "perf.data"
        sampler = threading.Thread(target=_record, args=(session.pid, scenario.seconds, data))
        sampler.start()
        try:
            total = session.measure().cpu_us_per_packet
            sampler.join()
            shares = _shares(data)
        finally:
            symbols.unlink(missing_ok=True)
    return Profile(total, tuple((place, share * total) for place, share in shares.most_common()))


def _record(pid: int, seconds: float, data: Path) -> None:
    time.sleep(LEAD_S + WARM_UP_S)
    command = ["perf", "record", "--quiet", "-F", str(FREQUENCY_HZ), "-e", "cpu-clock", "-o", str(data)]
    subprocess.run([*command, "-p", str(pid), "--", "sleep", str(seconds)], capture_output=True, check=False)


def _shares(data: Path) -> Counter[str]:
    command = ["perf", "report", "--stdio", "-i", str(data), "-F", "overhead,dso,sym", "-t", "|"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    shares = parse_report(told.stdout)
    if not shares:
        raise ProfileFailed(f"perf gave no samples: {told.stderr.strip().splitlines()[-1:] or 'try it as root'}")
    return shares


def parse_report(text: str) -> Counter[str]:
    """Return the share of the samples by place, from lines `12.34% | library | [.] symbol` of perf."""
    shares: Counter[str] = Counter()
    for line in text.splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) < 3 or not fields[0].endswith("%"):
            continue
        shares[_place(fields[1], fields[2])] += float(fields[0].removesuffix("%")) / 100  # type: ignore[assignment]
    return shares


def _place(library: str, symbol: str) -> str:
    if "kernel" in library or symbol.startswith("[k]"):
        return SYSTEM
    if library.startswith("_binding"):
        return CRYPTO
    if library.startswith(("libc", "[vdso]", "ld-")):
        return LIBC
    if "JIT" in library or library.startswith("perf-"):
        return symbol.removeprefix("[.]").strip()
    return PYTHON
