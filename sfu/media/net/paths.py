"""Paths: pairs of a peer's address and one of ours that passed a connectivity check, and which of them to send on.

RFC 8445 seen from the lite, controlled side. A path row is one pair; several rows may share the peer's address (a
client that checks two of our addresses from one port), but an address belongs to one transport only. `lookup` finds
any row of an address, which is enough to know whose packet came in. A path over TCP is its connection's, and ends with
it; `lookup` does not know it.
"""

import numpy as np
from numba import njit

from sfu.media.net.connections import close_connection
from sfu.media.net.lookup import find_path, insert_path, remove_path
from sfu.media.net.udp import flush, store_local
from sfu.queues.notices import notice
from sfu.schema.capacities import PATHS_PER_TRANSPORT, STAGING_PATH
from sfu.schema.codes import Consent, Drop, NoticeKind, PathKind, RowState

CONSENT_TIMEOUT_NS = 15_000_000_000
"""RFC 7675 section 5.1 lets consent live 30 s; a client that vanished must be gone from its room within 20."""
SILENT_NS = 5_000_000_000
"""A selected pair without a valid check or authentic packet for so long is left for another one."""
ABANDONED_NS = 6_500_000_000
"""A transport of which nothing came for so long gives an address up to another one that checks from there. Consent is
checked every 6 s at the latest (RFC 7675 section 5.1), so something has come of whoever is there."""
FOLLOW_NS = 250_000_000
"""How often a transport that has a live nominated path is moved to another one, by a nomination or by its packets."""


@njit(cache=True)
def stage_path(state, k, socket):
    """Describe the address pair of receive slot k in row STAGING_PATH. IPv6 flow info must have been zeroed."""
    path = state.paths[STAGING_PATH]
    size = min(np.int64(state.rx_messages[k].name_bytes), 28)
    for n in range(28):
        path.address[n] = state.rx_names[k, n] if n < size else 0
    for n in range(16):
        path.local[n] = 0
    path.address_bytes = size
    path.family = 6 if size == 28 else 4
    path.kind = PathKind.UDP
    path.socket = socket
    path.connection = -1
    path.local_interface = 0
    if state.sockets[socket].wildcard:
        store_local(state, k, path)


@njit(cache=True)
def stage_connection(state, row):
    """Describe the address pair of a TCP connection in row STAGING_PATH."""
    path, connection = state.paths[STAGING_PATH], state.connections[row]
    for n in range(28):
        path.address[n] = connection.address[n]
    for n in range(16):
        path.local[n] = 0
    path.address_bytes = connection.address_bytes
    path.family = connection.family
    path.kind = PathKind.TCP
    path.socket = -1
    path.connection = row
    path.local_interface = 0


@njit(cache=True)
def _is_staged(state, row):
    """Whether a path is the same pair as the staged one."""
    path, staged = state.paths[row], state.paths[STAGING_PATH]
    same = path.socket == staged.socket and path.address_bytes == staged.address_bytes
    for n in range(28):
        same = same and path.address[n] == staged.address[n]
    for n in range(16):
        same = same and path.local[n] == staged.local[n]
    return same


@njit(cache=True)
def _find_staged(state, row):
    """The path of transport `row` that is the staged pair, or -1."""
    at = np.int64(state.transports[row].first_path)
    while at >= 0 and not _is_staged(state, at):
        at = np.int64(state.paths[at].next)
    return at


@njit(cache=True)
def exact_path(state, k, path):
    """The pair by which receive slot k came, when `lookup` found `path` by the peer's address alone."""
    if not state.paths[path].shared:
        return path
    stage_path(state, k, np.int64(state.paths[path].socket))
    exact = _find_staged(state, np.int64(state.paths[path].transport))
    return exact if exact >= 0 else path


@njit(cache=True)
def _release_path(state, row):
    """Take a path from its transport and free the row; the TCP connection of one that has it ends. The transport's
    selection is the caller's to renew."""
    flush(state)  # what is queued for the row must not leave to the next address in it
    path = state.paths[row]
    transport = state.transports[path.transport]
    if path.kind == PathKind.TCP:
        state.connections[path.connection].path = -1
        close_connection(state, np.int64(path.connection))
    else:
        remove_path(state, row)
    if transport.first_path == row:
        transport.first_path = path.next
    else:
        before = transport.first_path
        while before >= 0 and state.paths[before].next != row:
            before = state.paths[before].next
        if before >= 0:
            state.paths[before].next = path.next
    transport.path_count -= 1
    path.state = RowState.FREE
    path.next = state.thread[0].free_path
    state.thread[0].free_path = row


@njit(cache=True)
def _free_address(state, row, now):
    """Take the staged address from a transport that vanished, or left it. False: its owner is there, and not `row`."""
    staged = state.paths[STAGING_PATH]
    while True:
        found = find_path(state, staged.address, np.int64(staged.address_bytes), np.int64(staged.socket))
        if found < 0 or state.paths[found].transport == row:
            return True
        owner = np.int64(state.paths[found].transport)
        transport = state.transports[owner]
        vanished = now - max(np.int64(transport.checked_ns), np.int64(transport.last_packet_ns)) >= ABANDONED_NS
        if not vanished and now - _last_sign(state, owner, found) < CONSENT_TIMEOUT_NS:
            return False
        lose_path(state, found, now)


@njit(cache=True)
def lose_path(state, row, now):
    """A path is gone: its connection has ended, or its address is another's. If its transport was sent to over it, it
    is sent to over another one, or waits for the next check."""
    owner = np.int64(state.paths[row].transport)
    transport = state.transports[owner]
    _release_path(state, row)
    if transport.path == row:
        transport.path = -1
        select_path(state, owner, now)
        if transport.path < 0:
            transport.interrupted = 1  # nothing is sent until there is another path


@njit(cache=True)
def _evict_path(state, row):
    """Free the path of a transport that was checked least recently and is not selected. False: there is none."""
    transport = state.transports[row]
    oldest, at = -1, np.int64(transport.first_path)
    while at >= 0:
        if at != transport.path and (oldest < 0 or state.paths[at].checked_ns < state.paths[oldest].checked_ns):
            oldest = at
        at = np.int64(state.paths[at].next)
    if oldest < 0:
        return False
    _release_path(state, oldest)
    return True


@njit(cache=True)
def claim_path(state, row, now):
    """The path row of the staged pair for transport `row`, which sent a valid check over it; -1: dropped, counted."""
    transport, thread, staged = state.transports[row], state.thread[0], state.paths[STAGING_PATH]
    tcp = staged.kind == PathKind.TCP
    if tcp:
        known = np.int64(state.connections[staged.connection].path)
        taken = known >= 0 and state.paths[known].transport != row
    else:
        taken = not _free_address(state, row, now)
        known = _find_staged(state, row)
    if taken:
        state.drops[Drop.STUN_ADDRESS_TAKEN] += 1
        return -1
    if known >= 0:
        return known
    full = transport.path_count >= PATHS_PER_TRANSPORT or thread.free_path < 0
    if full and not _evict_path(state, row):
        state.drops[Drop.STUN_PATHS_FULL] += 1
        return -1
    free = np.int64(thread.free_path)
    thread.free_path = state.paths[free].next
    state.paths[free] = state.paths[STAGING_PATH]
    path = state.paths[free]
    path.state = RowState.OPEN
    path.transport = row
    path.priority = 0
    path.nominated = 0
    path.shared = 0
    path.single_until_ns = 0
    path.ice_generation = 0
    path.checked_ns = now
    path.next = transport.first_path
    transport.first_path = free
    transport.path_count += 1
    if tcp:
        state.connections[path.connection].path = free
    else:
        insert_path(state, free)
        _mark_shared(state, free)
    return free


@njit(cache=True)
def _mark_shared(state, row):
    """Note at a new path, and at those of its transport with the same address of the peer, that there are several."""
    path = state.paths[row]
    at = np.int64(path.next)
    while at >= 0:
        other = state.paths[at]
        same = other.socket == path.socket and other.address_bytes == path.address_bytes
        for n in range(28):
            same = same and other.address[n] == path.address[n]
        if same:
            path.shared = 1
            other.shared = 1
        at = np.int64(other.next)


@njit(cache=True)
def receive_check(state, row, path_row, which, priority, nominated, now):
    """A valid check came in over a path. which: 0 current credentials, 1 those before the last ICE restart."""
    transport, path = state.transports[row], state.paths[path_row]
    generation = np.int64(transport.ice_generation) - which
    if generation > path.ice_generation:
        path.ice_generation = generation
        path.nominated = 0
        path.priority = 0
    path.checked_ns = now
    if generation == path.ice_generation:
        path.priority = max(np.int64(path.priority), priority)
        if nominated:
            path.nominated = 1
            transport.nominated_generation = max(np.int64(transport.nominated_generation), generation)
    transport.checked_ns = now
    if transport.consent == Consent.NONE:
        transport.consent = Consent.RUNNING
    select_path(state, row, now)


@njit(cache=True)
def _last_sign(state, row, path_row):
    """When the last valid check came over a path of transport `row`, or authentic media over the selected one."""
    transport, checked = state.transports[row], np.int64(state.paths[path_row].checked_ns)
    return max(checked, np.int64(transport.last_packet_ns)) if path_row == transport.path else checked


@njit(cache=True)
def _rank(state, row, path_row, now):
    """Order of preference: live before silent, nominated before not, newer generation, then the pair's priority.

    Without a nomination all pairs of a generation are equal, so that the first one stays.
    """
    path = state.paths[path_row]
    live = 1 if now - _last_sign(state, row, path_row) < SILENT_NS else 0
    nominated = np.int64(path.nominated)
    generation = np.int64(path.ice_generation) & 0xFFFF
    return live << 50 | nominated << 49 | generation << 32 | np.int64(path.priority) * nominated


@njit(cache=True)
def _is_settled(state, row, now):
    """Whether a transport has a live nominated path of the newest generation with one, so that no move is urgent."""
    transport = state.transports[row]
    if transport.path < 0:
        return False
    path = state.paths[transport.path]
    live = now - _last_sign(state, row, np.int64(transport.path)) < SILENT_NS
    return live and path.nominated != 0 and path.ice_generation >= transport.nominated_generation


@njit(cache=True)
def select_path(state, row, now):
    """Choose the path of a transport on which to send, where its packets do not say it (`sfu.media.net.following`).

    The live nominated pair of the newest generation that has one, of highest priority; before any nomination the first
    validated pair, so that an early DTLS hello gets its answer. Once authentic packets have come over the selected
    pair, others are taken only when it falls silent, or after an ICE restart. A better pair than a live nominated one
    has to wait until FOLLOW_NS have passed since the last move; the next check or `consent_pass` takes it then. A pair
    whose last check is CONSENT_TIMEOUT_NS old is not taken even if there is no other: nobody consents to it any more.
    """
    transport = state.transports[row]
    best, best_rank = -1, -1
    at = np.int64(transport.path)
    if at >= 0 and state.paths[at].ice_generation >= transport.nominated_generation:
        if transport.last_packet_ns != 0 and now - _last_sign(state, row, at) < SILENT_NS:
            return
        best, best_rank = at, _rank(state, row, at, now)
    at = np.int64(transport.first_path)
    while at >= 0:
        age = now - state.paths[at].checked_ns
        if state.paths[at].ice_generation >= transport.nominated_generation and age < CONSENT_TIMEOUT_NS:
            rank = _rank(state, row, at, now)
            # between silent pairs there is nothing to choose: stay
            if best < 0 or (rank > best_rank and age < SILENT_NS):
                best, best_rank = at, rank
        at = np.int64(state.paths[at].next)
    if best == transport.path or best < 0 or (_is_settled(state, row, now) and now - transport.followed_ns < FOLLOW_NS):
        return
    transport.last_packet_ns = 0
    if state.paths[best].nominated:
        transport.followed_ns = now
    move_to(state, row, best)


@njit(cache=True)
def move_to(state, row, path):
    """Send to transport `row` over this path from now on."""
    state.transports[row].path = path
    state.transports[row].free_number = 0  # whether its video has to wait may have changed
    notice(state, NoticeKind.PATH_SELECTED, row)


@njit(cache=True)
def close_paths(state, row):
    """Free all paths of a transport; its addresses can be claimed by others at once."""
    transport = state.transports[row]
    transport.path = -1
    while transport.first_path >= 0:
        _release_path(state, np.int64(transport.first_path))


@njit(cache=True)
def consent_pass(state, now):
    """About once a second: leave silent pairs, and give notice of transports whose consent expired (RFC 7675).

    Before authentic packets came over the selected pair, a better one that had to wait is taken too.
    """
    for row in range(state.thread[0].transport_end):
        transport = state.transports[row]
        if transport.state != RowState.OPEN or transport.consent != Consent.RUNNING:
            continue
        if transport.path >= 0:
            select_path(state, row, now)
        if now - transport.checked_ns >= CONSENT_TIMEOUT_NS:
            transport.consent = Consent.EXPIRED
            notice(state, NoticeKind.CONSENT_EXPIRED, row)
