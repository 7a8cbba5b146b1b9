"""What a subscriber gets of a muted track: a first packet, so that a client that waits for one knows the track.

Silent Opus, or packets of padding only, for some seconds or until media come. They take output numbers and timestamps
of the subscription, so that media continue them. They are not remembered: one that is lost lacks nothing.
"""

import numpy as np
from numba import njit

from sfu.media.net.frame_queue import refuses
from sfu.media.net.srtp import claim_index, send_rtp
from sfu.media.net.udp import take_slot
from sfu.media.send.rewrite import pad_packet, send_time, write_bare_header
from sfu.media.wire.rtp import ticks_of
from sfu.parameters import Codec
from sfu.schema.capacities import SEQUENCE_START
from sfu.schema.codes import Drop, MediaKind

SILENT_OPUS = (0xF8, 0xFF, 0xFE)
"""20 ms of digital silence, which is how often `silence_pass` runs: RFC 6716 section 3.1, CELT, full band, mono."""
MAX_SILENT_PACKETS = 250
"""Silent packets of an audio subscription: five seconds of them."""
MAX_PADDING_PACKETS = 50
"""Padding packets of a video subscription, one in every fifth pass: five seconds too."""
PADDING_TURNS = 5
PADDING_BYTES = 4

_OPUS = int(Codec.OPUS)


@njit(cache=True)
def begin_silence(state, row):
    """Send silence on a subscription that has sent nothing yet, until it does or five seconds have passed."""
    subscription, thread = state.subscriptions[row], state.thread[0]
    if subscription.started or subscription.silent_packets:
        return
    subscription.silent_packets = MAX_SILENT_PACKETS if subscription.kind == MediaKind.AUDIO else MAX_PADDING_PACKETS
    subscription.silent_next = thread.first_silent
    subscription.silent_before = 0
    if thread.first_silent:
        state.subscriptions[thread.first_silent - 1].silent_before = row + 1
    thread.first_silent = row + 1


@njit(cache=True)
def end_silence(state, row):
    """Send no more of it. Nothing happens to a subscription that sends none."""
    subscription, thread = state.subscriptions[row], state.thread[0]
    if not subscription.silent_packets:
        return
    subscription.silent_packets = 0
    if subscription.silent_before:
        state.subscriptions[subscription.silent_before - 1].silent_next = subscription.silent_next
    else:
        thread.first_silent = subscription.silent_next
    if subscription.silent_next:
        state.subscriptions[subscription.silent_next - 1].silent_before = subscription.silent_before


@njit(cache=True)
def silence_pass(state, now):
    """Every 20 ms: one packet for each subscription that waits for media, as soon as its transport can send."""
    thread = state.thread[0]
    row = np.int64(thread.first_silent) - 1
    if row < 0:
        return
    thread.silence_turn += 1
    thread.send_time = send_time(now + thread.wall_offset_ns)
    while row >= 0:
        subscription = state.subscriptions[row]
        transport = state.transports[subscription.transport]
        following = np.int64(subscription.silent_next) - 1
        due = subscription.kind == MediaKind.AUDIO or thread.silence_turn % PADDING_TURNS == 0
        ready = not subscription.paused and transport.secure and transport.path >= 0
        if subscription.started:
            end_silence(state, row)
        elif due and ready and not refuses(state, np.int64(subscription.transport)):
            thread.row_in_hand = subscription.transport
            _send_silence(state, row, now)
            if subscription.silent_packets == 1:
                end_silence(state, row)
            else:
                subscription.silent_packets -= 1
        row = following
    thread.row_in_hand = -1


@njit(cache=True)
def _send_silence(state, row, now):
    """Send one packet in the subscription's next output number, at the time that has passed since the last one."""
    subscription = state.subscriptions[row]
    transport = state.transports[subscription.transport]
    media = state.media[transport.media]
    timestamp = np.int64(subscription.ssrc)  # RFC 3550 section 5.1: the first timestamp is random
    if subscription.packets > 0:
        clock_rate = np.int64(media.clock_of_pt[subscription.payload_type])
        timestamp = np.int64(subscription.last_timestamp) + ticks_of(now - subscription.last_ns, clock_rate)
    subscription.out_highest += 1
    index = subscription.out_highest - SEQUENCE_START
    if not claim_index(subscription, index):
        state.drops[Drop.PROTECT_FAILED] += 1
        return
    slot = take_slot(state)
    out = state.tx[slot]
    at = write_bare_header(state, slot, subscription, timestamp, False)
    octets = 0
    if media.codec_of_pt[subscription.payload_type] == _OPUS:
        octets = len(SILENT_OPUS)
        for k in range(octets):
            out[at + k] = SILENT_OPUS[k]
        at += octets
    else:
        at = pad_packet(out, at, PADDING_BYTES)
    if not send_rtp(state, np.int64(subscription.transport), slot, at, index):
        return
    subscription.last_timestamp = timestamp & 0xFFFFFFFF
    subscription.last_ns = now
    subscription.last_marker = 1
    subscription.packets += 1
    subscription.octets += octets
