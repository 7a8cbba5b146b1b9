"""Where time goes: names of compiled kernels, and what perf says of them."""

import math
import subprocess
import sys
from pathlib import Path

import pytest

from bench.measure.profile import CRYPTO, LIBC, PYTHON, SYSTEM, parse_report
from bench.servers.jit_symbols import readable

LIST_KERNELS = """
from sfu.media import loop
from sfu.schema.memory import Memory
memory = Memory()
memory.open_wakeups()
memory.thread["stop"] = 1
loop.media_loop(memory.record, memory.arena)
from bench.servers.jit_symbols import write_perf_map
print(write_perf_map())
"""


def test_compiled_kernels_are_found_by_name() -> None:
    told = subprocess.run([sys.executable, "-c", LIST_KERNELS], capture_output=True, text=True, check=True)
    path = Path(told.stdout.strip())
    try:
        lines = [line.split(" ", 2) for line in path.read_text(encoding="utf-8").splitlines()]
    finally:
        path.unlink()
    names = {name for _, _, name in lines}
    assert {"departure.forward_packet", "storage.store", "loop.media_loop"} <= names
    assert all(int(address, 16) > 0 and int(size, 16) > 0 for address, size, _ in lines)


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("_ZN3sfu6egress5_sendB2v9B38c8tJTIe", "egress._send"),
        ("_ZN5bench9generator9generator3runB2v1", "generator.run"),
        ("_ZN3sfu5media4send6egress5_sendB2v9B38c8tJTIe", "egress._send"),
        ("NRT_decref", "NRT_decref"),
    ],
)
def test_mangled_names_become_readable(symbol: str, name: str) -> None:
    assert readable(symbol) == name


def test_samples_are_counted_by_place() -> None:
    shares = parse_report(
        """
# Overhead|Shared Object|Symbol
    40.00%| [kernel.kallsyms]   | [k] udp_sendmsg
    10.50%| [kernel.kallsyms]   | [k] __skb_recv
    30.00%| _binding.abi3.so    | [.] 0x00000000000a1
     8.00%| perf-4711.map       | [.] egress._send
     1.00%| [JIT] tid 4711      | [.] egress._send
     2.00%| libc.so.6           | [.] __memmove_avx_unaligned_erms
     0.50%| python3.11          | [.] _PyEval_EvalFrameDefault
"""
    )
    expected = {SYSTEM: 0.505, CRYPTO: 0.3, "egress._send": 0.09, LIBC: 0.02, PYTHON: 0.005}
    assert shares.keys() == expected.keys()
    assert all(math.isclose(shares[place], share) for place, share in expected.items())
    assert next(iter(dict(shares.most_common()))) == SYSTEM


def test_output_without_samples_is_empty() -> None:
    assert not parse_report("# nothing\nError:\n")
