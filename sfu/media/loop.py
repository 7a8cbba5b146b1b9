"""One turn of a media thread, and the loop around it: wait, clock, turn. Tests call `turn` with a clock of their own.

A turn is one direction: commands, then datagrams and frames in batches, each followed by forwarding what it brought,
then what is due by the clock, then everything queued leaves.
"""

import numpy as np
from numba import njit

from sfu.compiler.atomics import fence, load_acquire, store_release
from sfu.compiler.native import ppoll, read, write
from sfu.media.commands import apply_commands
from sfu.media.demux import is_rtp, route
from sfu.media.frames import send_of_control, serve_connections
from sfu.media.net.clock import CLOCK_MONOTONIC, present, read_clock
from sfu.media.net.udp import arrival, flush, receive
from sfu.media.pacing.pacer import pace
from sfu.media.relay_in import receive_relayed, relays_wait
from sfu.media.send.egress import forward_all
from sfu.media.sharing import sharing_pass
from sfu.media.timers import next_timer, run_timers, set_wall_offset
from sfu.schema.capacities import COMMAND_QUEUE, RX_SLOTS
from sfu.schema.codes import Scratch
from sfu.schema.thread_tables import FORWARDING_DELAYS_NS

MAX_BATCHES = 8
"""Batches of RX_SLOTS datagrams from one socket before timers and commands get their turn again."""
BUSY_WAIT_NS = 10_000_000
"""Longest wait while a transport is open."""
IDLE_WAIT_NS = 100_000_000
POLLIN = 1


@njit(cache=True)
def turn(state, arena, now):
    """Do everything that can be done at `now` (CLOCK_MONOTONIC, ns) without waiting."""
    thread = state.thread[0]
    thread.now_ns = now
    sent, oldest = np.int64(thread.messages_sent), np.int64(0)
    send_of_control(state)  # first: last words of what a command closes
    apply_commands(state, arena, now)
    sharing_pass(state, now)  # before new subscriptions are sent anything
    if thread.thread_count > 1:
        receive_relayed(state, arena, now)
    for socket in range(thread.socket_count):
        came = _receive_socket(state, arena, socket, now)
        oldest = came if oldest == 0 else oldest
    if thread.open_connections > 0:
        serve_connections(state, arena, now)
    run_timers(state, now)
    forward_all(state, arena, now)
    pace(state, arena, now)
    flush(state)
    if oldest > 0 and thread.messages_sent != sent:
        _note_delay(state, oldest)
    if thread.notify:
        thread.notify = 0
        state.scratch[Scratch.EVENT] = 1
        write(thread.control_fd, thread.scratch_at + np.uint64(8 * Scratch.EVENT), np.uint64(8))
    store_release(state.thread.turns, 0, thread.turns + 1)


@njit(cache=True)
def _receive_socket(state, arena, socket, now):
    """Handle what waits at a socket. Returns when its oldest datagram reached the kernel, ns; 0: it is no RTP."""
    oldest = np.int64(0)
    for batch in range(MAX_BATCHES):
        count = receive(state, socket)
        if batch == 0 and count > 0 and is_rtp(state.rx[0]):
            oldest = arrival(state, 0, now)
        for k in range(count):
            route(state, arena, k, socket, now)
        if count:
            forward_all(state, arena, now)
        if count < RX_SLOTS:
            break
    return oldest


@njit(cache=True)
def _note_delay(state, came):
    """Add a sample to the histogram of forwarding delays: of the oldest packet of a turn, which reached the kernel at
    `came`, ns. Everything that the turn sends has left now."""
    thread = state.thread[0]
    delay = max(present(state) - came, 0)
    bucket = np.int64(0)
    while bucket < len(FORWARDING_DELAYS_NS) and delay > FORWARDING_DELAYS_NS[bucket]:
        bucket += 1
    thread.delays[bucket] += 1
    thread.delay_sum_ns += delay


@njit(cache=True)
def _set_poll(state):
    """The descriptors to wait for: the sockets, then the control thread's eventfd, then that of TCP connections."""
    thread = state.thread[0]
    for n in range(thread.socket_count):
        state.poll[n].fd = state.sockets[n].fd
        state.poll[n].events = POLLIN
    state.poll[thread.socket_count].fd = thread.wake_fd
    state.poll[thread.socket_count].events = POLLIN
    state.poll[thread.socket_count + 1].fd = thread.epoll_fd
    state.poll[thread.socket_count + 1].events = POLLIN


@njit(cache=True)
def _wait(state):
    """Sleep until something can be read or a timer is due."""
    thread = state.thread[0]
    limit = BUSY_WAIT_NS if thread.open_transports > 0 else IDLE_WAIT_NS
    timeout = max(min(next_timer(state) - read_clock(state, CLOCK_MONOTONIC), limit), 0)
    if thread.open_transports == 0:
        timeout = limit  # the passes have nothing to pass over
    state.scratch[Scratch.TIMEOUT] = 0
    state.scratch[Scratch.TIMEOUT + 1] = timeout
    wake = np.int64(thread.socket_count)
    state.poll[wake].revents = 0
    store_release(state.thread.idle, 0, 1)
    fence()
    if relays_wait(state):  # sent before the sender could see that we wait
        state.scratch[Scratch.TIMEOUT + 1] = 0
    count = np.uint64(wake + 2 if thread.open_connections > 0 else wake + 1)
    ppoll(thread.poll_at, count, thread.scratch_at + np.uint64(8 * Scratch.TIMEOUT), np.uint64(0))
    store_release(state.thread.idle, 0, 0)
    if state.poll[wake].revents & POLLIN:
        read(thread.wake_fd, thread.scratch_at + np.uint64(8 * Scratch.EVENT), np.uint64(8))


@njit(nogil=True, cache=True)
def media_loop(state, arena):
    """Turn after turn until thread.stop is set. Errors in packets are counted; an exception is a bug of ours."""
    _set_poll(state)
    set_wall_offset(state)
    state.thread[0].clock_runs = 1
    while load_acquire(state.thread.stop, 0) == 0:
        turn(state, arena, read_clock(state, CLOCK_MONOTONIC))
        commands_wait = load_acquire(state.queues.written, COMMAND_QUEUE) != state.queues[COMMAND_QUEUE].read
        if not commands_wait and not relays_wait(state):
            _wait(state)
