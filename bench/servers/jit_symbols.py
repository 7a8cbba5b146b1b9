"""Names of compiled kernels in this process, for profilers: a perf map file (`/tmp/perf-PID.map`).

LLVM announces each object that it loads to debuggers, in a list that starts at `__jit_debug_descriptor` (GDB's JIT
interface). Each entry points to an ELF file in memory, which has the addresses in use.
"""

import ctypes
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

SECTION = struct.Struct("<IIQQQQIIQQ")
"""ELF-64 section header: name, type, flags, address, offset, size, link, info, alignment, entry size."""
SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)
"""ELF-64 symbol."""
SYMBOL_TABLE, FUNCTION = 2, 2
UNDEFINED = 0
DESCRIPTOR = b"__jit_debug_descriptor"
SECTIONS_AT, SECTION_COUNT_AT = 0x28, 0x3C
NAME_PREFIX = "_ZN"


class _Entry(ctypes.Structure):
    pass


_Entry._fields_ = [
    ("next", ctypes.POINTER(_Entry)),
    ("previous", ctypes.POINTER(_Entry)),
    ("address", ctypes.c_uint64),
    ("size", ctypes.c_uint64),
]


class _Descriptor(ctypes.Structure):
    _fields_ = [
        ("version", ctypes.c_uint32),
        ("action", ctypes.c_uint32),
        ("relevant", ctypes.POINTER(_Entry)),
        ("first", ctypes.POINTER(_Entry)),
    ]


def functions() -> Iterator[tuple[int, int, str]]:
    """Iterate over all compiled functions that are loaded: (address, size in bytes, readable name)."""
    entry = _Descriptor.from_address(_descriptor_address()).first
    while entry:
        found = entry.contents
        for name, address, size in _symbols(ctypes.string_at(found.address, found.size)):
            if size:
                yield address, size, readable(name.decode())
        entry = found.next


def _descriptor_address() -> int:
    """Return the address of LLVM's list, whose symbol is local to llvmlite's library and found in its file only.

    Raises:
        LookupError: this build of llvmlite has no symbol table.
    """
    maps = Path("/proc/self/maps").read_text().splitlines()
    first = next((line for line in maps if "libllvmlite" in line), "")
    if not first:
        raise LookupError("llvmlite is not loaded")
    with Path(first.split()[-1]).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as elf:
        for name, value, _ in _symbols(elf, DESCRIPTOR):
            if name == DESCRIPTOR:
                return int(first.split("-")[0], 16) + value
    raise LookupError("llvmlite's library has no symbol table")


def _symbols(elf: "bytes | mmap.mmap", wanted: bytes = b"") -> Iterator[tuple[bytes, int, int]]:
    """Iterate over symbols with an address: (name, address, size). With `wanted`, find only that one, fast."""
    sections_at = struct.unpack_from("<Q", elf, SECTIONS_AT)[0]
    count = struct.unpack_from("<H", elf, SECTION_COUNT_AT)[0]
    sections = [SECTION.unpack_from(elf, sections_at + n * SECTION.size) for n in range(count)]
    for section in sections:
        if section[1] != SYMBOL_TABLE:
            continue
        names_at = sections[section[6]][4]
        names_end = names_at + sections[section[6]][5]
        table = np.frombuffer(elf[section[4] : section[4] + section[5]], SYMBOL)
        if wanted:
            table = table[table["name"] == elf.find(b"\0" + wanted + b"\0", names_at, names_end) + 1 - names_at]
        for symbol in table if wanted else table[table["info"] & 15 == FUNCTION]:
            if UNDEFINED < symbol["section"] < count:
                start = names_at + int(symbol["name"])
                # in an object in memory values count from the section, in a library from the beginning
                base = 0 if wanted else sections[symbol["section"]][3]
                yield elf[start : elf.find(b"\0", start)], base + int(symbol["value"]), int(symbol["size"])


def readable(symbol: str) -> str:
    """Return `egress._send` for numba's mangled name of that function, and other names unchanged."""
    if not symbol.startswith(NAME_PREFIX):
        return symbol
    parts, at = [], len(NAME_PREFIX)
    while at < len(symbol) and symbol[at].isdigit():
        end = at
        while symbol[end].isdigit():
            end += 1
        length = int(symbol[at:end])
        parts.append(symbol[end : end + length])
        at = end + length
    # packages, module, function; then come numba's version and ABI tags
    names = parts[-2:] if parts[:1] in (["sfu"], ["bench"]) else parts[:2]
    return ".".join(names) or symbol


def map_path(pid: int) -> Path:
    """Return the path at which perf looks for the names of code that a process compiled."""
    return Path(f"/tmp/perf-{pid}.map")


def write_perf_map() -> Path:
    """Write the names of the functions that are loaded now where perf looks for them; return that path."""
    path = map_path(os.getpid())
    lines = [f"{address:x} {size:x} {name}\n" for address, size, name in functions()]
    path.write_text("".join(lines), encoding="utf-8")
    return path
