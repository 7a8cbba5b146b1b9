"""What the control thread asks for, applied at the start of a turn: opening, changing and closing of rows.

A command names its row's generation and is ignored when that or the row's state does not fit: it was overtaken.
"""

from numba import njit

from sfu.compiler.atomics import load_acquire, store_release
from sfu.media.net.following import follow
from sfu.media.net.lookup import insert_ufrag, remove_ufrag
from sfu.media.net.paths import NO_CONSENT, close_paths
from sfu.media.receive.sources import close_sources
from sfu.media.send.relay_out import add_mirror, remove_mirror
from sfu.media.send.silence import begin_silence
from sfu.media.stream.ring_size import change_ring
from sfu.media.subscriptions import close_subscription, open_subscription, set_layers, set_paused, set_targets
from sfu.media.tracks import close_track, open_track
from sfu.queues.notices import notice
from sfu.schema.tables import (
    ADD_MIRROR,
    ARRIVALS,
    CHANGE_RING,
    CLOSE_SUBSCRIPTION,
    CLOSE_TRACK,
    CLOSE_TRANSPORT,
    CLOSED_TRANSPORT,
    COMMAND_RING,
    COMMANDS,
    FOLLOW_PATH,
    FREE,
    MEDIA_PER_TRANSPORT,
    NEW_CREDENTIALS,
    OPEN,
    OPEN_PAUSED,
    OPEN_SILENT,
    OPEN_SUBSCRIPTION,
    OPEN_TRACK,
    OPEN_TRANSPORT,
    PATHS,
    REMOVE_MIRROR,
    REQUEST_KEY_FRAME,
    SET_CODECS,
    SET_LAYERS,
    SET_MEDIA,
    SET_PAUSED,
    START_SRTP,
    SUBSCRIPTIONS,
    TRACKS,
    TRANSPORTS,
)


@njit(cache=True)
def apply_commands(state, arena, now):
    """Apply every command that waits in the ring."""
    first = state.rings[COMMAND_RING].read
    end = load_acquire(state.rings.written, COMMAND_RING)
    for index in range(first, end):
        command = state.commands[index & (COMMANDS - 1)]
        # taken before it is applied: one that raises is not tried again for ever
        store_release(state.rings.read, COMMAND_RING, index + 1)
        if command.kind <= CLOSE_TRANSPORT:
            _apply_to_transport(state, command, now)
        elif command.kind <= REMOVE_MIRROR:
            _apply_to_track(state, arena, command, now)
        else:
            _apply_to_subscription(state, command, now)


@njit(cache=True)
def _apply_to_transport(state, command, now):
    row = int(command.row)
    if row < 0 or row >= TRANSPORTS:
        return
    transport = state.transports[row]
    if transport.generation != command.generation:
        return
    state.thread[0].row_in_hand = row
    if command.kind == OPEN_TRANSPORT:
        if transport.state == FREE:
            _open_transport(state, row, command.a, now)
    elif transport.state == OPEN:
        if command.kind == START_SRTP:
            transport.srtp_in = command.a
            transport.srtp_out = command.b
            transport.secure = 1
        elif command.kind == NEW_CREDENTIALS:
            _replace_credentials(state, row)
        elif command.kind == SET_MEDIA:
            transport.media = command.a
        elif command.kind == FOLLOW_PATH:
            if 0 <= command.a < PATHS:
                follow(state, row, command.a, now)
        elif command.kind == CLOSE_TRANSPORT:
            _close_transport(state, row)
    state.thread[0].row_in_hand = -1


@njit(cache=True)
def _open_transport(state, row, relayed, now):
    """The control thread has written generation, ufrag[0], password[0] and ssrc. Counters of the slow ring go on.

    relayed: nobody reaches this transport by the network, another media thread has the publisher.
    """
    transport, thread = state.transports[row], state.thread[0]
    transport.secure = 0
    transport.relayed = relayed
    transport.ufrag[1] = 0
    transport.ice_generation = 0
    transport.nominated_generation = -1
    transport.consent = NO_CONSENT
    transport.path = -1
    transport.first_path = -1
    transport.path_count = 0
    transport.checked_ns = now
    transport.heard_ns = 0
    transport.compared_ns = 0
    transport.followed_ns = 0
    transport.first_track = -1
    transport.first_subscription = -1
    transport.first_source = -1
    transport.unbound = 0
    transport.media = row * MEDIA_PER_TRANSPORT
    transport.twcc_sequence = 0
    transport.remb_bps = 0
    transport.remb_ns = 0
    transport.rtt_ns = 0
    transport.repair_ns = 0
    transport.ntp_shift_ns = 0
    transport.ntp_sampled_ns = 0
    transport.reported_ns = 0
    transport.packets_in = 0
    transport.bytes_in = 0
    transport.packets_out = 0
    transport.bytes_out = 0
    _clear_arrivals(state.arrivals[row])
    if not relayed:
        insert_ufrag(state, row, 0)
    transport.state = OPEN
    thread.transport_end = max(int(thread.transport_end), row + 1)
    thread.open_transports += 1


@njit(cache=True)
def _clear_arrivals(arrivals):
    """As before the first use. Most transports never have any, and a page that is not written costs nothing."""
    if arrivals.highest == 0:
        return
    arrivals.first = 0
    arrivals.highest = 0
    arrivals.count = 0
    arrivals.feedback_count = 0
    arrivals.media_ssrc = 0
    arrivals.sent_ns = 0
    for n in range(ARRIVALS):
        arrivals.arrival_ns[n] = 0


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
        close_subscription(state, int(transport.first_subscription))
    while transport.first_track >= 0:
        close_track(state, int(transport.first_track))
    close_sources(state, row)
    if not transport.relayed:
        remove_ufrag(state, row, 0)
    if transport.ufrag[1] != 0:
        remove_ufrag(state, row, 1)
    close_paths(state, row)
    transport.secure = 0
    transport.srtp_in = 0
    transport.srtp_out = 0
    transport.state = FREE
    state.thread[0].open_transports -= 1
    notice(state, CLOSED_TRANSPORT, row)


@njit(cache=True)
def _apply_to_track(state, arena, command, now):
    row = int(command.row)
    if row < 0 or row >= TRACKS:
        return
    track = state.tracks[row]
    if track.generation != command.generation:
        return
    if command.kind == OPEN_TRACK:
        if track.state == FREE and _is_open(state, track.transport):
            open_track(state, row)
    elif track.state == OPEN:
        if command.kind == CLOSE_TRACK:
            close_track(state, row)
        elif command.kind == REQUEST_KEY_FRAME:
            for layer in range(track.layer_count):
                if track.streams[layer] >= 0:
                    state.streams[track.streams[layer]].key_wanted = 1
        elif command.kind == SET_CODECS:
            track.codecs = command.a
        elif command.kind == CHANGE_RING:
            change_ring(state, arena, row, command.a & 0xFF, command.b, command.a >> 8)
        elif command.kind == ADD_MIRROR:
            add_mirror(state, arena, row, command.a & 0xFF, command.a >> 8, command.b, now)
        elif command.kind == REMOVE_MIRROR:
            remove_mirror(state, row, command.a)


@njit(cache=True)
def _is_open(state, row):
    return 0 <= row < TRANSPORTS and state.transports[row].state == OPEN


@njit(cache=True)
def _apply_to_subscription(state, command, now):
    row = int(command.row)
    if row < 0 or row >= SUBSCRIPTIONS:
        return
    subscription = state.subscriptions[row]
    if subscription.generation != command.generation:
        return
    if command.kind == OPEN_SUBSCRIPTION:
        if subscription.state == FREE and _is_open(state, subscription.transport):
            open_subscription(state, row, now)
            set_paused(state, row, command.a & OPEN_PAUSED)
            if command.b != 0:
                set_targets(state, row, (command.b & 0xFF) - 1, (command.b >> 8) - 1)
            if command.a & OPEN_SILENT:
                begin_silence(state, row)
    elif subscription.state == OPEN:
        if command.kind == CLOSE_SUBSCRIPTION:
            close_subscription(state, row)
        elif command.kind == SET_LAYERS:
            set_layers(state, row, command.a, command.b)
        elif command.kind == SET_PAUSED:
            set_paused(state, row, command.a)
