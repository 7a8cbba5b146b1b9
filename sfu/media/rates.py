"""Bit rates of everything that is received and sent."""

import numpy as np
from numba import njit

from sfu.media.allocation.due import list_subscribers
from sfu.media.allocation.measure import measure_stream
from sfu.media.stream.cache_size import check_cache
from sfu.schema.codes import RowState

RATES_NS = 1_000_000_000


@njit(cache=True)
def rates_pass(state, now):
    """Once a second, however often it is called: bits per second of streams as received and of subscriptions as sent
    (RTP payload), what each layer of a stream sends, and whether the packet caches of streams have the right size.
    Returns whether it was time."""
    elapsed = now - state.thread[0].rates_ns
    if elapsed < RATES_NS:
        return False
    state.thread[0].rates_ns = now
    for row in range(state.thread[0].stream_end):
        stream = state.streams[row]
        if stream.state == RowState.OPEN:
            stream.bitrate_bps = (stream.bytes - stream.bytes_at_check) * 8_000_000 // (elapsed // 1000)
            stream.bytes_at_check = stream.bytes
            if stream.cache_written > 0:
                check_cache(state, row)
                track = state.tracks[stream.track]
                if measure_stream(stream, elapsed, track.screen != 0, now):
                    list_subscribers(state, np.int64(stream.track))
    for row in range(state.thread[0].subscription_end):
        subscription = state.subscriptions[row]
        if subscription.state == RowState.OPEN:
            octets = subscription.octets - subscription.bytes_at_check
            subscription.bitrate_bps = octets * 8_000_000 // (elapsed // 1000)
            subscription.bytes_at_check = subscription.octets
    return True
