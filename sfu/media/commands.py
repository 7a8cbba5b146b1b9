"""What the control thread asks for, applied at the start of a turn: opening, changing and closing of rows.

A command names its row's generation and is ignored when that or the row's state does not fit: it was overtaken.
"""

import numpy as np
from numba import njit

from sfu.compiler.atomics import load_acquire, store_release
from sfu.compiler.rows import row_reset
from sfu.media.allocation.due import list_subscribers
from sfu.media.net.connections import open_connection
from sfu.media.net.following import follow
from sfu.media.net.lookup import insert_ufrag, remove_ufrag
from sfu.media.net.paths import close_paths
from sfu.media.receive.sources import close_sources
from sfu.media.send.relay_out import add_mirror, remove_mirror
from sfu.media.send.silence import begin_silence
from sfu.media.stream.cache_size import change_cache
from sfu.media.subscriptions import (
    close_subscription,
    open_subscription,
    prefer_layers,
    prioritise,
    set_layers,
    set_paused,
)
from sfu.media.tracks import close_track, open_track
from sfu.queues.notices import notice
from sfu.schema.capacities import (
    COMMAND_QUEUE,
    COMMANDS,
    CONNECTIONS,
    MEDIA_PER_TRANSPORT,
    PATHS,
    SUBSCRIPTIONS,
    TRACKS,
    TRANSPORTS,
)
from sfu.schema.codes import Command, KeyFrameRequest, NoticeKind, RowState
from sfu.schema.transport_tables import ARRIVAL_LOG, TRANSPORT

_ORDERED = int(KeyFrameRequest.ORDERED)
_reset_transport = row_reset(TRANSPORT.reset_parts(), TRANSPORT.dtype.itemsize)
_reset_arrivals = row_reset(ARRIVAL_LOG.reset_parts(), ARRIVAL_LOG.dtype.itemsize)


@njit(cache=True)
def apply_commands(state, arena, now):
    """Apply every command that waits in the queue."""
    first = state.queues[COMMAND_QUEUE].read
    end = load_acquire(state.queues.written, COMMAND_QUEUE)
    for index in range(first, end):
        command = state.commands[index & (COMMANDS - 1)]
        # taken before it is applied: one that raises is not tried again for ever
        store_release(state.queues.read, COMMAND_QUEUE, index + 1)
        if command.kind <= Command.CLOSE_TRANSPORT:
            _apply_to_transport(state, command, now)
        elif command.kind <= Command.REMOVE_MIRROR:
            _apply_to_track(state, arena, command, now)
        elif command.kind <= Command.SET_PAUSED:
            _apply_to_subscription(state, command, now)
        else:
            _apply_to_connection(state, command)


@njit(cache=True)
def _apply_to_transport(state, command, now):
    row = np.int64(command.row)
    if row < 0 or row >= TRANSPORTS:
        return
    transport = state.transports[row]
    if transport.generation != command.generation:
        return
    state.thread[0].row_in_hand = row
    if command.kind == Command.OPEN_TRANSPORT:
        if transport.state == RowState.FREE:
            _open_transport(state, row, np.int64(command.relayed), now)
    elif transport.state == RowState.OPEN:
        if command.kind == Command.START_SRTP:
            transport.srtp_in = command.srtp_in
            transport.srtp_out = command.srtp_out
            transport.secure = 1
        elif command.kind == Command.NEW_CREDENTIALS:
            _replace_credentials(state, row)
        elif command.kind == Command.SET_MEDIA:
            transport.media = command.other_row
            transport.free_number = 0  # whether it is paced may have changed
        elif command.kind == Command.FOLLOW_PATH:
            if 0 <= command.other_row < PATHS:
                follow(state, row, np.int64(command.other_row), now)
        elif command.kind == Command.CLOSE_TRANSPORT:
            _close_transport(state, row)
    state.thread[0].row_in_hand = -1


@njit(cache=True)
def _open_transport(state, row, relayed, now):
    """The control thread has written generation, ufrag[0], password[0] and ssrc. Counters of the slow queue go on.

    relayed: nobody reaches this transport by the network, another media thread has the publisher.
    """
    transport, thread = state.transports[row], state.thread[0]
    _reset_transport(transport)
    transport.relayed = relayed
    transport.ufrag[1] = 0
    transport.path = -1
    transport.media = row * MEDIA_PER_TRANSPORT
    transport.checked_ns = now
    if state.arrivals[row].highest != 0:  # most transports never have any, and a page not written costs nothing
        _reset_arrivals(state.arrivals[row])
    if not relayed:
        insert_ufrag(state, row, 0)
    if 0 < transport.beside <= TRANSPORTS:
        state.transports[transport.beside - 1].downlink = row + 1
    transport.state = RowState.OPEN
    thread.transport_end = max(np.int64(thread.transport_end), row + 1)
    thread.open_transports += 1


@njit(cache=True)
def _replace_credentials(state, row):
    """ICE restart, RFC 8445 section 9: the credentials in use stay valid beside the new ones until the next restart."""
    transport = state.transports[row]
    if transport.ufrag[1] != 0:
        remove_ufrag(state, row, 1)
    remove_ufrag(state, row, 0)
    for n in range(transport.next_password.size):
        transport.password[1, n] = transport.password[0, n]
        transport.password[0, n] = transport.next_password[n]
    transport.ufrag[1] = transport.ufrag[0]
    transport.ufrag[0] = transport.next_ufrag  # last: the control thread sees by it that next_* may be written again
    insert_ufrag(state, row, 0)
    insert_ufrag(state, row, 1)
    transport.ice_generation += 1


@njit(cache=True)
def _close_transport(state, row):
    """Free everything that hangs on a transport; after the notice the control thread may free the SRTP sessions."""
    transport = state.transports[row]
    while transport.first_subscription >= 0:
        close_subscription(state, np.int64(transport.first_subscription))
    while transport.first_track >= 0:
        close_track(state, np.int64(transport.first_track))
    close_sources(state, row)
    if not transport.relayed:
        remove_ufrag(state, row, 0)
    if transport.ufrag[1] != 0:
        remove_ufrag(state, row, 1)
    close_paths(state, row)
    if 0 < transport.beside <= TRANSPORTS and state.transports[transport.beside - 1].downlink == row + 1:
        state.transports[transport.beside - 1].downlink = 0
    transport.secure = 0
    transport.srtp_in = 0
    transport.srtp_out = 0
    transport.state = RowState.FREE
    state.thread[0].open_transports -= 1
    notice(state, NoticeKind.CLOSED_TRANSPORT, row)


@njit(cache=True)
def _apply_to_track(state, arena, command, now):
    row = np.int64(command.row)
    if row < 0 or row >= TRACKS:
        return
    track = state.tracks[row]
    if track.generation != command.generation:
        return
    if command.kind == Command.OPEN_TRACK:
        if track.state == RowState.FREE and _is_open(state, track.transport):
            open_track(state, row)
    elif track.state == RowState.OPEN:
        if command.kind == Command.CLOSE_TRACK:
            close_track(state, row)
        elif command.kind == Command.REQUEST_KEY_FRAME:
            for layer in range(track.layer_count):
                if track.streams[layer] >= 0:
                    state.streams[track.streams[layer]].key_frame_requested = _ORDERED
        elif command.kind == Command.SET_CODECS:
            track.codecs = command.codecs
        elif command.kind == Command.SET_RESTING:
            track.resting = command.layers
            list_subscribers(state, row)
        elif command.kind == Command.CHANGE_CACHE:
            start, size = np.int64(command.cache_start), np.int64(command.cache_bytes)
            change_cache(state, arena, row, np.int64(command.layer), start, size)
        elif command.kind == Command.ADD_MIRROR:
            there, generation = np.int64(command.other_row), np.int64(command.other_generation)
            add_mirror(state, arena, row, np.int64(command.thread), there, generation, now)
        elif command.kind == Command.REMOVE_MIRROR:
            remove_mirror(state, row, np.int64(command.thread))


@njit(cache=True)
def _is_open(state, row):
    return 0 <= row < TRANSPORTS and state.transports[row].state == RowState.OPEN


@njit(cache=True)
def _apply_to_subscription(state, command, now):
    row = np.int64(command.row)
    if row < 0 or row >= SUBSCRIPTIONS:
        return
    subscription = state.subscriptions[row]
    if subscription.generation != command.generation:
        return
    if command.kind == Command.OPEN_SUBSCRIPTION:
        if subscription.state == RowState.FREE and _is_open(state, subscription.transport):
            open_subscription(state, row, now)
            set_paused(state, row, np.int64(command.paused))
            prioritise(state, row, np.int64(command.priority), np.int64(command.pixels))
            prefer_layers(state, row, np.int64(command.spatial), np.int64(command.temporal))
            if command.silent:
                begin_silence(state, row)
    elif subscription.state == RowState.OPEN:
        if command.kind == Command.CLOSE_SUBSCRIPTION:
            close_subscription(state, row)
        elif command.kind == Command.SET_LAYERS:
            prioritise(state, row, np.int64(command.priority), np.int64(command.pixels))
            set_layers(state, row, np.int64(command.spatial), np.int64(command.temporal))
        elif command.kind == Command.SET_PAUSED:
            set_paused(state, row, np.int64(command.paused))


@njit(cache=True)
def _apply_to_connection(state, command):
    row = np.int64(command.row)
    if row < 0 or row >= CONNECTIONS:
        return
    connection = state.connections[row]
    if connection.generation == command.generation and connection.state == RowState.FREE:
        open_connection(state, row)
