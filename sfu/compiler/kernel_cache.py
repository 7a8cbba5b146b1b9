"""Where compiled kernels are kept, and when they are stale.

numba recompiles a cached function only when its own file changes, leaves options such as bounds checking out of its
key, and refuses directories that it cannot write. This locator stamps a function with its source and that of everything
of ours that it needs, directly or not (`sfu/compiler/dependencies.py`); gives each library version and code option a
directory of its own; and takes a directory that is complete for this processor as it is, also a read-only one (an
installed package). A cached kernel is a pickle: a directory that other users can write is never used.
"""

import fcntl
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core import caching, codegen

from sfu.compiler.dependencies import PACKAGES, ROOT, WHOLE, Part, kernels, needed, text

SERVER, BENCHMARK = PACKAGES
COMPLETE = {SERVER: "complete", BENCHMARK: "complete-bench"}
"""The file that says that all kernels of a package are there."""
READABLE = 0o755
"""The mode of a directory. Often root compiles, and the service runs as another user."""
_STAMP = re.compile(r"-([0-9a-f]{20})\.py\d")
CODE_OPTIONS = ("BOUNDSCHECK", "OPT", "DEBUGINFO_DEFAULT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "CPU_NAME")


def _digest(parts: Iterable[bytes]) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]


def _build_name() -> str:
    versions = [f"{module.__name__} {module.__version__}" for module in (numba, llvmlite, np)]
    options = [f"{name}={getattr(numba.config, name, None)!r}" for name in CODE_OPTIONS]
    return _digest(text.encode() for text in versions + options)


@cache
def stamp(source: Path, name: str = WHOLE) -> str:
    """A hash over what a name at the top of `source` needs of ours to be compiled, or over all that `source` needs."""
    return _kept_stamps().get((source, name)) or _digest(
        f"{_name(file)} {part} {text(file, part)}".encode() for file, part in sorted(needed(source, name))
    )


def _stamps(*packages: str) -> dict[Part, str]:
    """The stamps of all kernels of some packages, also of those that are not at the top of a file."""
    files = [file for package in packages for file in _sources(package)]
    return {(file, name): stamp(file, name) for file in files for name in (WHOLE, *kernels(file))}


def _processor() -> str:
    """For which processor numba compiles, as it tells them apart: machine code of another one is not used."""
    name = numba.config.CPU_NAME or llvmlite.binding.get_host_cpu_name()
    features = numba.config.CPU_FEATURES
    return f"{name} {codegen.get_host_cpu_features() if features is None else features}"


@cache
def _all_sources(package: str) -> str:
    """A hash over whatever the kernels of a package may need, and over the processor that they are for."""
    files = [file for each in PACKAGES[: PACKAGES.index(package) + 1] for file in _sources(each)]
    sources = [_name(file).encode() + b" " + file.read_bytes() for file in files]
    return _digest([_processor().encode(), *sources])


def _sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def _name(source: Path) -> str:
    return source.relative_to(ROOT).as_posix()


def _is_private(place: Path) -> bool:
    status = place.stat()
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & 0o022


def _is_complete(place: Path, package: str = SERVER) -> bool:
    marker = place / COMPLETE[package]
    try:
        if not _is_private(place):
            return False
        return marker.read_text(encoding="utf-8").partition("\n")[0] == _all_sources(package)
    except OSError:  # it is not there, or another user keeps it from us
        return False


@cache
def directory() -> Path:
    """The first place that holds all kernels of these sources, else the first that can be written."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    places = [ROOT / "sfu" / "__kernels__" / _build_name(), home / "aiosfu" / _build_name()]
    for place in places:
        if _is_complete(place):
            return place
    for place in places:
        try:
            place.mkdir(mode=READABLE, parents=True, exist_ok=True)
            if not _is_private(place):
                continue
            with tempfile.TemporaryFile(dir=place):
                return place
        except OSError:
            continue
    return Path(tempfile.mkdtemp(prefix="aiosfu-kernels-"))  # compiled anew at every start


def is_complete(package: str = SERVER) -> bool:
    """Whether every kernel of the server, or of the benchmark, is compiled and cached."""
    return _is_complete(directory(), package)


@cache
def _kept_stamps() -> dict[Part, str]:
    """Stamps that `mark_complete` wrote for just these sources: a start that compiles nothing parses nothing either."""
    markers = [directory() / COMPLETE[package] for package in PACKAGES if is_complete(package)]
    lines = [line for marker in markers for line in marker.read_text(encoding="utf-8").splitlines()[1:]]
    return {(ROOT / file, name): kept for kept, file, name in (line.split(" ") for line in lines)}


@contextmanager
def locked(name: str = "lock") -> Iterator[None]:
    """Hold a lock of the directory, which other processes wait for. It ends with the process."""
    with (directory() / name).open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def mark_complete(package: str = SERVER) -> None:
    """Say that every kernel of a package has been compiled, and delete those of older sources; the last act of
    `sfu.compile` and of `bench.compile`."""
    current = set(_stamps(*PACKAGES).values())
    for file in directory().glob("*.nb[ci]"):
        found = _STAMP.search(file.name)
        if found is None or found[1] not in current:
            file.unlink(missing_ok=True)
    marker = directory() / COMPLETE[package]
    unfinished = marker.with_suffix(".new")
    stamps = [f"{kept} {_name(file)} {name}" for (file, name), kept in _stamps(package).items()]
    lines = [_all_sources(package), *stamps]
    unfinished.write_text("\n".join(lines), encoding="utf-8")
    unfinished.replace(marker)  # at once: the first line alone would say that all is there
    directory().chmod(READABLE)  # one of an earlier version may be older than this rule


def _part(source: Path, qualified_name: str) -> str:
    if (source, qualified_name) in _kept_stamps() or qualified_name in kernels(source):
        return qualified_name
    return WHOLE  # made within another function


class KernelLocator:
    """What numba asks of a cache locator (numba.core.caching._CacheLocator)."""

    def __init__(self, function: Callable[..., Any], source: Path) -> None:
        self._source = source
        self._stamp = stamp(source, _part(source, function.__qualname__))

    @classmethod
    def from_function(cls, function: Callable[..., Any], file: str) -> "KernelLocator | None":
        """The locator of a function of ours, None for one of a library."""
        source = Path(file).resolve()
        ours = any(source.is_relative_to(ROOT / package) for package in PACKAGES)
        return cls(function, source) if ours else None

    def get_cache_path(self) -> str:
        """Where the function's machine code is kept."""
        return str(directory())

    def ensure_cache_path(self) -> None:
        """Make the directory; one that is complete may be read-only."""
        directory().mkdir(mode=READABLE, parents=True, exist_ok=True)

    def get_source_stamp(self) -> str:
        """What must be unchanged for the machine code to be used."""
        return self._stamp

    def get_disambiguator(self) -> str:
        """The part of the file name that tells functions of one name apart."""
        # With the stamp in it a file never changes its meaning: numba renews an index and its data separately, and two
        # processes with different sources would each find the other's machine code under the same number.
        return f"{'.'.join(self._source.relative_to(ROOT).parts)}-{self._stamp}"


class _SharedCacheFile(caching.IndexDataCacheFile):  # type: ignore[misc]
    """One function's index and machine code. numba reads the index, adds a number and writes it back, so two processes
    that compile one function for different types would give both the same number."""

    def save(self, key: Any, data: Any) -> None:
        """Add machine code; key: types, processor and code."""
        with locked("index.lock"):
            super().save(key, data)


def install() -> None:
    """Make numba ask this locator first. Call before any module with `@njit(cache=True)` is imported."""
    caching.IndexDataCacheFile = _SharedCacheFile
    ours = f"{__name__}.{KernelLocator.__name__}"
    numba.config.CACHE_LOCATOR_CLASSES = f"{ours},InTreeCacheLocator,UserWideCacheLocator,IPythonCacheLocator"
