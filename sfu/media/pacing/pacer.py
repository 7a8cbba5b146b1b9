"""Sends what waits for its path, as far as the path's budget goes: one look every 5 ms at transports that wait.

Order: audio never comes here, then repeats, then video by importance (`video`).
"""

import numpy as np
from numba import njit

from sfu.media.net.frame_queue import is_backed_up, is_over_tcp
from sfu.media.net.send_log import MOST_AT_ONCE, open_log
from sfu.media.net.srtp import can_send
from sfu.media.net.udp import flush
from sfu.media.pacing.pass_work import MAX_PASS_WORK, TRANSPORT_WORK, is_used_up
from sfu.media.pacing.video import send_video
from sfu.media.send.budget import (
    KEY_FRAME_REST_NS,
    MAX_BURST_BYTES,
    MAX_TCP_BURST_BYTES,
    is_paced,
    refill,
    room_at_once,
    set_free_number,
)
from sfu.media.send.retransmit import repeat_waiting
from sfu.media.send.rewrite import send_time
from sfu.media.send.selection import key_frame_leaves
from sfu.media.send.waiting import begin_anew, end_waiting, renew_place
from sfu.schema.capacities import TX_SLOTS
from sfu.schema.codes import RowState

PACE_NS = 5_000_000
"""Between two refills of a transport that goes on waiting: as long as packets may be apart that count as sent
together."""


@njit(cache=True)
def pace(state, arena, now):
    """At the end of a turn: send what has begun to wait in it, and every PACE_NS what goes on waiting."""
    thread = state.thread[0]
    if thread.first_paced == 0 and thread.first_fresh == 0:
        return
    thread.send_time = send_time(now + thread.wall_offset_ns)
    thread.pace_work = 0
    if thread.first_paced != 0 and now >= thread.pace_ns:
        thread.pace_ns = now + PACE_NS
        _send_listed(state, arena, now)
    while thread.first_fresh != 0:
        row = np.int64(thread.first_fresh) - 1
        thread.first_fresh = state.transports[row].pace_next
        state.transports[row].pace_listed = 0  # before anything can raise
        if thread.first_paced == 0:
            thread.pace_ns = now + PACE_NS
        if thread.pace_work > MAX_PASS_WORK or send_waiting(state, arena, row, now):
            _append(state, row)
    thread.row_in_hand = -1


@njit(cache=True)
def _send_listed(state, arena, now):
    """Look once at each listed transport, as long as the pass may last; those that go on waiting come last."""
    thread = state.thread[0]
    last = np.int64(thread.last_paced) - 1
    while thread.first_paced != 0 and thread.pace_work <= MAX_PASS_WORK:
        row = np.int64(thread.first_paced) - 1
        thread.first_paced = state.transports[row].pace_next
        state.transports[row].pace_listed = 0  # before anything can raise
        if send_waiting(state, arena, row, now):
            _append(state, row)
        if row == last:
            return


@njit(cache=True)
def _append(state, row):
    """Put a transport at the end of the list of those that go on waiting."""
    thread = state.thread[0]
    state.transports[row].pace_listed = 1
    state.transports[row].pace_next = 0
    if thread.first_paced == 0:
        thread.first_paced = row + 1
    else:
        state.transports[thread.last_paced - 1].pace_next = row + 1
    thread.last_paced = row + 1


@njit(cache=True)
def send_waiting(state, arena, row, now):
    """Send what waits for transport `row` as far as its budget goes, into one flush. Returns whether it is to be looked
    at again."""
    transport, thread = state.transports[row], state.thread[0]
    thread.pace_work += TRANSPORT_WORK
    if transport.state != RowState.OPEN or transport.first_waiting == 0:
        return False
    if not can_send(state, row):
        return True
    thread.row_in_hand = row
    if transport.interrupted:
        begin_anew(state, row, now)
    if is_backed_up(state, row):
        return True
    if thread.tx_count + MOST_AT_ONCE > TX_SLOTS:
        flush(state)
    log = state.send_logs[row]
    paced = is_paced(state, row)
    if paced:
        refill(state, row, now)
    else:
        open_log(state, row)
        log.pace_bytes = log.bytes + (MAX_TCP_BURST_BYTES if is_over_tcp(state, row) else MAX_BURST_BYTES)
    end = log.count + room_at_once(state, row)
    _send_repeats(state, arena, row, end, now)
    waiting = np.int64(transport.first_waiting)
    while waiting:
        following = np.int64(state.subscriptions[waiting - 1].waits_next)
        if is_used_up(state, row, end):
            break
        if not renew_place(state, waiting - 1, now) and send_video(state, arena, waiting - 1, end, now):
            end_waiting(state, waiting - 1)
        waiting = following
    if transport.first_waiting == 0:
        log.key_waits = 0
        if paced:
            set_free_number(state, row)
        return False
    _note_key_frame(state, row, now)
    return True


@njit(cache=True)
def _send_repeats(state, arena, row, end, now):
    """Repeat what waits to be repeated for transport `row`, before any video."""
    thread = state.thread[0]
    waiting = np.int64(state.transports[row].first_waiting)
    while waiting:
        each = state.subscriptions[waiting - 1]
        following = np.int64(each.waits_next)
        thread.pace_work += 1
        if each.repairs_from:
            thread.pace_work += repeat_waiting(state, arena, waiting - 1, end, now)
            if each.repairs_from:
                return
            if each.waits_at < 0:
                end_waiting(state, waiting - 1)
        if is_used_up(state, row, end):
            return
        waiting = following


@njit(cache=True)
def _note_key_frame(state, row, now):
    """Note whether what waits first for transport `row` is the rest of a key frame, which may leave faster."""
    log = state.send_logs[row]
    subscription = state.subscriptions[state.transports[row].first_waiting - 1]
    if not key_frame_leaves(state, subscription):
        log.key_waits = 0
    elif not log.key_waits:
        log.key_waits = 1
        if now - log.overdrawn_ns >= KEY_FRAME_REST_NS:
            log.overdrawn_ns = now
