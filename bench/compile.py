"""Compiles the kernels of the load generator and of the floor ahead of time, in several processes.

Every command that measures does it first. Its sessions could not: each is confined to a core, on which it would compile
one function after the other, and read all source to find out that nothing has changed.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

import bench.generator
import bench.servers
import sfu
from bench.generator import generator, histogram
from bench.generator.tables import Tables
from bench.servers import reflect
from sfu.compile import Progress, compile_calls, kernels
from sfu.compiler import kernel_cache
from sfu.compiler.parallel import Call
from sfu.schema.memory import Memory


@contextmanager
def calls() -> Iterator[list[Call]]:
    """A call of each kernel that the benchmark's processes call, with the types of the real calls. The loops end at
    once; what the calls point to lives as long as the context."""
    tables, memory, routes = Tables(), Memory(), np.zeros(1, reflect.routes_t)
    tables.control["stop"] = 1
    routes["stop"] = 1
    yield [
        (reflect.publish_count, (routes[0], 0, 0)),
        (histogram.bucket_of, (0,)),
        (reflect.run, (memory.record, memory.arena, routes[0])),
        (generator.run, (tables.record,)),
    ]


def compile_all(progress: Progress) -> None:
    """Compile what is not cached yet; `progress` is told of each function. Two callers do not do the same work: one
    waits for the other.

    Of the server's kernels only those are compiled that are called here too; `sfu.compile.compile_all` does the others.
    """
    if kernel_cache.is_complete(kernel_cache.BENCHMARK):
        return
    with kernel_cache.locked(), calls() as needed:
        if kernel_cache.is_complete(kernel_cache.BENCHMARK):
            return
        own = kernels(bench.generator) | kernels(bench.servers)
        compile_calls(needed, kernels(sfu) | own, len(own), progress)
        kernel_cache.mark_complete(kernel_cache.BENCHMARK)
