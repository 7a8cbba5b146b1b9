"""What a received datagram is (RFC 7983) and whose it is. Everything but STUN must come from a checked address."""

import numpy as np
from numba import njit

from sfu.media.net.lookup import find_path
from sfu.media.net.paths import exact_path
from sfu.media.net.stun import handle_stun
from sfu.media.net.udp import arrival
from sfu.media.receive.ingress import receive_rtp
from sfu.media.rtcp.incoming import receive_rtcp
from sfu.queues.control import push_slow
from sfu.schema.codes import Drop

MSG_TRUNC = 0x20
SOCKADDR_IN6_BYTES = 28
MIN_RTP_BYTES = 12
MIN_RTCP_BYTES = 8


@njit(cache=True)
def route(state, arena, k, socket, now):
    """Handle receive slot k of socket index `socket`: the one entrance for everything that comes from the network."""
    message = state.rx_messages[k]
    size = min(np.int64(message.bytes), state.rx.shape[1])
    if message.flags & MSG_TRUNC:
        state.drops[Drop.TRUNCATED] += 1
        return
    if size == 0:
        state.drops[Drop.GARBAGE] += 1
        return
    address = state.rx_names[k]
    if message.name_bytes == SOCKADDR_IN6_BYTES:
        for n in range(4, 8):  # flow info: not part of the address, and may change on the way
            address[n] = 0
    first = state.rx[k, 0]
    if first <= 3:
        handle_stun(state, k, size, socket, np.int64(-1), now)
        return
    path = find_path(state, address, np.int64(message.name_bytes), socket)
    if path < 0:
        state.drops[Drop.UNKNOWN_ADDRESS] += 1
        return
    _route_of_path(state, arena, k, size, path, now)


@njit(cache=True)
def route_frame(state, arena, k, size, connection, now):
    """Handle a packet of `size` bytes in receive slot k, which came in a frame over a TCP connection: the one entrance
    for everything that comes so."""
    if size == 0:
        state.drops[Drop.GARBAGE] += 1
        return
    state.rx_messages[k].control_bytes = 0  # the operating system tells no time of arrival
    if state.rx[k, 0] <= 3:
        handle_stun(state, k, size, np.int64(-1), connection, now)
        return
    path = np.int64(state.connections[connection].path)
    if path < 0:
        state.drops[Drop.UNKNOWN_ADDRESS] += 1
        return
    _route_of_path(state, arena, k, size, path, now)


@njit(cache=True)
def _route_of_path(state, arena, k, size, path, now):
    """Handle what is no STUN in receive slot k and came over `path`, or one that shares its address."""
    first, row = state.rx[k, 0], np.int64(state.paths[path].transport)
    state.thread[0].row_in_hand = row
    state.thread[0].path_in_hand = path
    if 20 <= first <= 63:
        push_slow(state, row, exact_path(state, k, path), k, size)
    elif 128 <= first <= 191 and size >= MIN_RTCP_BYTES:
        _receive_srtp(state, arena, k, size, row, now)
    else:
        state.drops[Drop.GARBAGE] += 1
    state.thread[0].row_in_hand = -1
    state.thread[0].path_in_hand = -1


@njit(cache=True)
def is_rtp(data):
    """Whether a datagram is RTP, and not STUN, DTLS or RTCP (RFC 7983, RFC 5761 section 4)."""
    return 128 <= data[0] <= 191 and not 192 <= data[1] <= 223


@njit(cache=True)
def _receive_srtp(state, arena, k, size, row, now):
    """SRTP or SRTCP of transport `row`; told apart by the payload type, RFC 5761 section 4."""
    if not state.transports[row].secure:
        state.drops[Drop.NOT_READY] += 1
    elif not is_rtp(state.rx[k]):
        receive_rtcp(state, arena, k, size, row, now)
    elif size >= MIN_RTP_BYTES:
        receive_rtp(state, arena, k, size, row, arrival(state, k, now), now)
    else:
        state.drops[Drop.GARBAGE] += 1
