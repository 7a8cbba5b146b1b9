"""To which pair a client has moved, as its own packets say it.

A client sends media on the pair it has selected, and knows best which that is: priorities and nominations do not tell,
since browsers nominate several pairs at once. So the selection follows a packet that proves both whose it is and that
it is no repetition from elsewhere: authentic SRTP or SRTCP with an index above every earlier one of its SSRC, or a DTLS
record that OpenSSL accepted with a number above every earlier one.
"""

import numpy as np
from numba import njit

from sfu.media.net.lookup import find_source
from sfu.media.net.paths import FOLLOW_NS, exact_path, move_to
from sfu.schema.capacities import RTCP_SENDERS
from sfu.schema.codes import RowState

COMPARE_NS = 50_000_000
"""How often a transport's packets on other paths than the selected one are looked at."""
HALF = 0x8000


@njit(cache=True)
def is_newest(source, sequence):
    """Whether an authentic packet with this sequence number has the highest SRTP index of its SSRC; then it is noted.

    libsrtp has accepted the packet, so its index lies less than half the number space from the highest one.
    """
    newest = np.int64(source.newest)
    if newest >= 0 and not 0 < (sequence - newest) & 0xFFFF < HALF:
        return False
    source.newest = sequence
    return True


@njit(cache=True)
def is_newest_rtcp(state, row, ssrc, index):
    """Whether an authentic SRTCP packet of transport `row` has the highest index of its SSRC; then it is noted."""
    found = find_source(state, row, ssrc)
    if found >= 0:
        source = state.sources[found]
        newest = index >= source.rtcp_index
        if newest:
            source.rtcp_index = index + 1
        return newest
    transport = state.transports[row]
    for k in range(RTCP_SENDERS):
        if transport.rtcp_senders[k] == ssrc:
            newest = index >= transport.rtcp_indices[k]
            if newest:
                transport.rtcp_indices[k] = index + 1
            return newest
    return False


@njit(cache=True)
def packet_received(state, row, k, now):
    """The packet in receive slot k is authentic and the newest of its SSRC: it says where transport `row` is."""
    path, transport = np.int64(state.thread[0].path_in_hand), state.transports[row]
    if path < 0:
        return
    if path == transport.path and not state.paths[path].shared:
        transport.last_packet_ns = now
    elif now - transport.compared_ns >= COMPARE_NS:
        transport.compared_ns = now
        follow(state, row, exact_path(state, k, path), now)


@njit(cache=True)
def follow(state, row, path, now):
    """Send to transport `row` over `path`, over which something authentic and new came.

    Not over a pair of the time before an ICE restart whose pairs are nominated, nor a second time within FOLLOW_NS.
    """
    transport, pair = state.transports[row], state.paths[path]
    if pair.state != RowState.OPEN or pair.transport != row or pair.ice_generation < transport.nominated_generation:
        return
    if path != transport.path:
        if transport.path >= 0 and now - transport.followed_ns < FOLLOW_NS:
            return
        transport.followed_ns = now
        move_to(state, row, path)
    transport.last_packet_ns = now
