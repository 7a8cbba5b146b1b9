"""The clock of the media threads."""

import numpy as np
from numba import njit

from sfu.compiler.native import clock_gettime
from sfu.schema.codes import Scratch

CLOCK_REALTIME, CLOCK_MONOTONIC = 0, 1


@njit(cache=True)
def read_clock(state, clock):
    """Nanoseconds of a clock of clock_gettime(2)."""
    clock_gettime(clock, state.thread[0].scratch_at + np.uint64(8 * Scratch.TIME))
    return state.scratch[Scratch.TIME] * 1_000_000_000 + state.scratch[Scratch.TIME + 1]


@njit(cache=True)
def present(state):
    """Nanoseconds of CLOCK_MONOTONIC, later in a turn than its `now`; with a clock that a test moves, `now` itself."""
    thread = state.thread[0]
    return read_clock(state, CLOCK_MONOTONIC) if thread.clock_runs else np.int64(thread.now_ns)
