"""Everything periodic: one pass over the tables each, run by the loop when it is due."""

from numba import njit

from sfu.media.bandwidth.passes import bandwidth_pass
from sfu.media.bandwidth.probes import probes_pass
from sfu.media.net.clock import CLOCK_MONOTONIC, CLOCK_REALTIME, read_clock
from sfu.media.net.paths import consent_pass
from sfu.media.rates import rates_pass
from sfu.media.rtcp.feedback import feedback_pass, receiver_reports_pass
from sfu.media.rtcp.reports import sender_reports_pass
from sfu.media.send.relay_out import relay_back
from sfu.media.send.selection import liveness_pass
from sfu.media.send.silence import silence_pass
from sfu.media.sharing import limited_pass
from sfu.media.stream.levels import levels_pass

FEEDBACK_NS = 20_000_000
"""NACKs, PLIs and transport-cc: small beside a round trip, long enough for reordered packets to arrive. Silence for
muted tracks: one frame of Opus."""
BANDWIDTH_NS = 20_000_000
"""Time between two looks at what was sent, in which time-outs are noticed and probes begin."""
PROBES_NS = 5_000_000
"""Time between two bursts of a probe cluster: as long as packets may be apart that count as sent together."""
REPORTS_NS = 100_000_000
"""Granularity of sender and receiver reports; the passes themselves keep about one second per transport."""
LEVELS_NS = 400_000_000
LIVENESS_NS = 100_000_000
CONSENT_NS = 1_000_000_000


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
            relay_back(state, now)
    if now >= thread.bandwidth_ns:
        thread.bandwidth_ns = now + BANDWIDTH_NS
        bandwidth_pass(state, now)
    if thread.probing and now >= thread.probes_ns:
        thread.probes_ns = now + PROBES_NS
        probes_pass(state, now)
    if now >= thread.liveness_ns:
        thread.liveness_ns = now + LIVENESS_NS
        liveness_pass(state, now)
        if rates_pass(state, now):
            limited_pass(state)
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
    due = min(min(thread.consent_ns, thread.feedback_ns), min(thread.liveness_ns, thread.reports_ns))
    due = min(due, min(thread.levels_ns, thread.bandwidth_ns))
    if thread.first_paced != 0:
        due = min(due, thread.pace_ns)
    return min(due, thread.probes_ns) if thread.probing else due


@njit(cache=True)
def set_wall_offset(state):
    """Renew CLOCK_REALTIME minus CLOCK_MONOTONIC, with which kernel arrival stamps become monotonic ones."""
    monotonic = read_clock(state, CLOCK_MONOTONIC)
    state.thread[0].wall_offset_ns = read_clock(state, CLOCK_REALTIME) - monotonic
