"""Everything periodic: one pass over the tables each, run by the loop when it is due."""

import numpy as np
from numba import njit

from sfu.compiler.native import clock_gettime
from sfu.media.net.paths import consent_pass
from sfu.media.rates import rates_pass
from sfu.media.rtcp.feedback import feedback_pass, receiver_reports_pass
from sfu.media.rtcp.reports import sender_reports_pass
from sfu.media.send.relay_out import wishes_pass
from sfu.media.send.selection import liveness_pass
from sfu.media.send.silence import silence_pass
from sfu.media.stream.levels import levels_pass
from sfu.schema.codes import Scratch

FEEDBACK_NS = 20_000_000
"""NACKs, PLIs and transport-cc: small beside a round trip, long enough for reordered packets to arrive. Silence for
muted tracks: one frame of Opus."""
REPORTS_NS = 100_000_000
"""Granularity of sender and receiver reports; the passes themselves keep about one second per transport."""
LEVELS_NS = 400_000_000
LIVENESS_NS = 100_000_000
CONSENT_NS = 1_000_000_000

CLOCK_REALTIME, CLOCK_MONOTONIC = 0, 1


@njit(cache=True)
def read_clock(state, clock):
    """Nanoseconds of a clock of clock_gettime(2)."""
    clock_gettime(clock, state.thread[0].scratch_at + np.uint64(8 * Scratch.TIME))
    return state.scratch[Scratch.TIME] * 1_000_000_000 + state.scratch[Scratch.TIME + 1]


@njit(cache=True)
def run_timers(state, now):
    """Run every pass that is due at `now`. A pass that is late runs once, not once per missed period."""
    thread = state.thread[0]
    if now >= thread.consent_ns:
        thread.consent_ns = now + CONSENT_NS
        set_wall_offset(state)
        consent_pass(state, now)
    if now >= thread.feedback_ns:
        thread.feedback_ns = now + FEEDBACK_NS
        feedback_pass(state, now)
        silence_pass(state, now)
        if thread.thread_count > 1:
            wishes_pass(state, now)
    if now >= thread.liveness_ns:
        thread.liveness_ns = now + LIVENESS_NS
        liveness_pass(state, now)
        rates_pass(state, now)
    if now >= thread.reports_ns:
        thread.reports_ns = now + REPORTS_NS
        receiver_reports_pass(state, now)
        sender_reports_pass(state, now)
    if now >= thread.levels_ns:
        thread.levels_ns = now + LEVELS_NS
        levels_pass(state, now)


@njit(cache=True)
def next_timer(state):
    """When the next pass is due, ns."""
    thread = state.thread[0]
    return min(
        min(min(thread.consent_ns, thread.feedback_ns), min(thread.liveness_ns, thread.reports_ns)), thread.levels_ns
    )


@njit(cache=True)
def set_wall_offset(state):
    """Renew CLOCK_REALTIME minus CLOCK_MONOTONIC, with which kernel arrival stamps become monotonic ones."""
    monotonic = read_clock(state, CLOCK_MONOTONIC)
    state.thread[0].wall_offset_ns = read_clock(state, CLOCK_REALTIME) - monotonic
