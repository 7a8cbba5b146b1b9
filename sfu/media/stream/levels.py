"""Who speaks: the audio level that the sender measured (RFC 6464), with the numbers of LiveKit's server.

A window of 400 ms counts when at least 40 % of it was not softer than -35 dBov. Its level is the loudest packet's,
less what the silent part of the window takes away, as a linear factor, smoothed over two windows.
"""

import math

import numpy as np
from numba import njit

from sfu.schema.codes import MediaKind, RowState

ACTIVE_LEVEL = 35
"""-dBov; smaller is louder."""
WINDOW_MS = 400
MIN_ACTIVE_MS = WINDOW_MS * 40 // 100
SMOOTHING = 2 / (2 + 1)
"""Weight of the newest window in an exponential average over two."""
STALE_NS = 2 * WINDOW_MS * 1_000_000
"""The level is 0 after so long without a packet (DTX, muted)."""
SILENCE = 127
PACKET_MS = 20
MAX_PACKET_MS = 120
"""Longest Opus packet; a larger step of the timestamp is a pause, and the packet after it counts as PACKET_MS."""
ACTIVE_THRESHOLD = 10 ** (-ACTIVE_LEVEL / 20)


@njit(cache=True)
def observe_level(stream, level, ticks):
    """One packet's level (-dBov, 0 loudest to 127) and the timestamp's step since the packet before, in clock ticks."""
    duration = PACKET_MS
    if stream.clock_rate > 0 and stream.received > 1:
        step = ticks * 1000 // np.int64(stream.clock_rate)
        if 0 < step <= MAX_PACKET_MS:
            duration = step
    stream.level_packets += 1
    if level <= ACTIVE_LEVEL:
        stream.level_active_ms += duration
        stream.level_loudest = min(np.int64(stream.level_loudest), level)


@njit(cache=True)
def close_window(stream, now):
    """Turn what was observed since the last call into `level`, and begin a new window."""
    if stream.level_packets == 0 and now - stream.last_ns < STALE_NS:
        return  # a pause between two packets of DTX decides nothing yet
    smoothed = 0.0
    if stream.level_active_ms >= MIN_ACTIVE_MS:
        gain = 20.0 * math.log10(stream.level_active_ms / WINDOW_MS)
        linear = 10.0 ** (-(stream.level_loudest - gain) / 20.0)
        smoothed = stream.level_smoothed + (linear - stream.level_smoothed) * SMOOTHING
    stream.level_smoothed = smoothed
    stream.level = min(smoothed, 1.0) if smoothed >= ACTIVE_THRESHOLD else 0.0
    stream.level_packets = 0
    stream.level_active_ms = 0
    stream.level_loudest = SILENCE


@njit(cache=True)
def levels_pass(state, now):
    """Every WINDOW_MS: renew the level of each audio stream. now: ns."""
    for row in range(np.int64(state.thread[0].stream_end)):
        stream = state.streams[row]
        if stream.state == RowState.OPEN and stream.kind == MediaKind.AUDIO:
            close_window(stream, now)
