"""Hash tables from what stands on the wire to rows: addresses, incoming and outgoing SSRCs, ufrags.

Open addressing with linear probing; a slot holds row + 1, 0 for empty, -1 for deleted. Only the media thread uses
them. Sizes are powers of two and at least twice the number of rows, so a probe always ends.
"""

import numpy as np
from numba import njit

from sfu.schema.capacities import OUTGOING_SLOTS, PATH_SLOTS, SOURCE_SLOTS, UFRAG_SLOTS


@njit(cache=True)
def _mix(value):
    """Finaliser of splitmix64: spreads an int64 over all bits."""
    x = np.uint64(value)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.int64((x ^ (x >> np.uint64(31))) >> np.uint64(1))


@njit(cache=True)
def _path_hash(address, size, socket):
    value = np.int64(socket)
    for k in range(2, size):
        value = _mix(value * 31 + np.int64(address[k]) + 1) if k & 7 == 7 else value * 257 + np.int64(address[k])
    return _mix(value)


@njit(cache=True)
def _same_address(path, address, size, socket):
    if path.socket != socket or path.address_bytes != size:
        return False
    for k in range(size):  # noqa: SIM110 - numba compiles no generator expressions
        if path.address[k] != address[k]:
            return False
    return True


@njit(cache=True)
def find_path(state, address, size, socket):
    """address: u1 array (sockaddr as received), size: its bytes, socket: index. Returns a path row or -1."""
    at = _path_hash(address, size, socket) & (PATH_SLOTS - 1)
    for _ in range(PATH_SLOTS):
        slot = state.path_slots[at]
        if slot == 0:
            return -1
        if slot > 0 and _same_address(state.paths[slot - 1], address, size, socket):
            return slot - 1
        at = (at + 1) & (PATH_SLOTS - 1)
    return -1


@njit(cache=True)
def insert_path(state, row):
    """Enter a complete path row that is not in the table."""
    path = state.paths[row]
    at = _path_hash(path.address, path.address_bytes, path.socket) & (PATH_SLOTS - 1)
    while state.path_slots[at] > 0:
        at = (at + 1) & (PATH_SLOTS - 1)
    state.path_slots[at] = row + 1


@njit(cache=True)
def remove_path(state, row):
    """Take a path row out, while its address still stands in it."""
    path = state.paths[row]
    at = _path_hash(path.address, path.address_bytes, path.socket) & (PATH_SLOTS - 1)
    for _ in range(PATH_SLOTS):
        slot = state.path_slots[at]
        if slot == 0:
            return
        if slot == row + 1:
            _delete(state.path_slots, at, PATH_SLOTS)
            return
        at = (at + 1) & (PATH_SLOTS - 1)


@njit(cache=True)
def _delete(slots, at, size):
    """Delete the slot; deleted marks in front of an empty slot become empty, so that probes stay short."""
    slots[at] = -1
    if slots[(at + 1) & (size - 1)] == 0:
        while slots[at] == -1:
            slots[at] = 0
            at = (at - 1) & (size - 1)


@njit(cache=True)
def _pair_hash(row, ssrc):
    return _mix(np.int64(row) << 32 | np.int64(ssrc))


@njit(cache=True)
def find_source(state, transport, ssrc):
    """Row of `sources` for an SSRC received on a transport, or -1."""
    at = _pair_hash(transport, ssrc) & (SOURCE_SLOTS - 1)
    for _ in range(SOURCE_SLOTS):
        slot = state.source_slots[at]
        if slot == 0:
            return -1
        if slot > 0:
            source = state.sources[slot - 1]
            if source.ssrc == ssrc and source.transport == transport:
                return slot - 1
        at = (at + 1) & (SOURCE_SLOTS - 1)
    return -1


@njit(cache=True)
def insert_source(state, row):
    """Enter a complete source row that is not in the table."""
    source = state.sources[row]
    at = _pair_hash(source.transport, source.ssrc) & (SOURCE_SLOTS - 1)
    while state.source_slots[at] > 0:
        at = (at + 1) & (SOURCE_SLOTS - 1)
    state.source_slots[at] = row + 1


@njit(cache=True)
def remove_source(state, row):
    """Take a source row out, while its transport and SSRC still stand in it."""
    source = state.sources[row]
    at = _pair_hash(source.transport, source.ssrc) & (SOURCE_SLOTS - 1)
    for _ in range(SOURCE_SLOTS):
        slot = state.source_slots[at]
        if slot == 0:
            return
        if slot == row + 1:
            _delete(state.source_slots, at, SOURCE_SLOTS)
            return
        at = (at + 1) & (SOURCE_SLOTS - 1)


@njit(cache=True)
def find_outgoing(state, transport, ssrc):
    """The subscription that sends `ssrc` to a transport: row * 2 + (1 if it is its RTX SSRC), or -1."""
    at = _pair_hash(transport, ssrc) & (OUTGOING_SLOTS - 1)
    for _ in range(OUTGOING_SLOTS):
        slot = state.outgoing_slots[at]
        if slot == 0:
            return -1
        if slot > 0:
            subscription = state.subscriptions[(slot - 1) >> 1]
            own = subscription.rtx_ssrc if (slot - 1) & 1 else subscription.ssrc
            if own == ssrc and subscription.transport == transport:
                return slot - 1
        at = (at + 1) & (OUTGOING_SLOTS - 1)
    return -1


@njit(cache=True)
def insert_outgoing(state, row, rtx):
    """Enter subscription `row` under its SSRC (rtx 0) or its RTX SSRC (rtx 1)."""
    subscription = state.subscriptions[row]
    ssrc = subscription.rtx_ssrc if rtx else subscription.ssrc
    at = _pair_hash(subscription.transport, ssrc) & (OUTGOING_SLOTS - 1)
    while state.outgoing_slots[at] > 0:
        at = (at + 1) & (OUTGOING_SLOTS - 1)
    state.outgoing_slots[at] = row * 2 + rtx + 1


@njit(cache=True)
def remove_outgoing(state, row, rtx):
    """Take out of the hash table what `insert_outgoing` entered."""
    subscription = state.subscriptions[row]
    ssrc = subscription.rtx_ssrc if rtx else subscription.ssrc
    at = _pair_hash(subscription.transport, ssrc) & (OUTGOING_SLOTS - 1)
    for _ in range(OUTGOING_SLOTS):
        slot = state.outgoing_slots[at]
        if slot == 0:
            return
        if slot == row * 2 + rtx + 1:
            _delete(state.outgoing_slots, at, OUTGOING_SLOTS)
            return
        at = (at + 1) & (OUTGOING_SLOTS - 1)


@njit(cache=True)
def find_ufrag(state, ufrag):
    """ufrag: 8 ASCII bytes as a little-endian u8. Returns transport row * 2 + index of the credentials, or -1."""
    at = _mix(np.int64(ufrag)) & (UFRAG_SLOTS - 1)
    for _ in range(UFRAG_SLOTS):
        slot = state.ufrag_slots[at]
        if slot == 0:
            return -1
        if slot > 0 and state.transports[(slot - 1) >> 1].ufrag[(slot - 1) & 1] == ufrag:
            return slot - 1
        at = (at + 1) & (UFRAG_SLOTS - 1)
    return -1


@njit(cache=True)
def insert_ufrag(state, row, which):
    """Enter transports[row].ufrag[which] (must not be 0)."""
    at = _mix(np.int64(state.transports[row].ufrag[which])) & (UFRAG_SLOTS - 1)
    while state.ufrag_slots[at] > 0:
        at = (at + 1) & (UFRAG_SLOTS - 1)
    state.ufrag_slots[at] = row * 2 + which + 1


@njit(cache=True)
def remove_ufrag(state, row, which):
    """Take out what insert_ufrag entered, while the ufrag still stands in the row."""
    at = _mix(np.int64(state.transports[row].ufrag[which])) & (UFRAG_SLOTS - 1)
    for _ in range(UFRAG_SLOTS):
        slot = state.ufrag_slots[at]
        if slot == 0:
            return
        if slot == row * 2 + which + 1:
            _delete(state.ufrag_slots, at, UFRAG_SLOTS)
            return
        at = (at + 1) & (UFRAG_SLOTS - 1)
