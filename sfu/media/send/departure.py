"""One packet of the stream that a subscription follows, on its way out; and where a subscription turns to a stream.

Per packet and subscriber, the hot path: admit it, number it, remember it for retransmission, write it into a send slot,
protect and queue it. All of that happens when the packet leaves, however long it waited: what is left out before has
used up no number.
"""

import numpy as np
from numba import njit

from sfu.media.net.srtp import claim_index, send_rtp
from sfu.media.net.udp import take_slot
from sfu.media.send.pictures import drop_picture, offset_picture, send_picture, send_tl0, synchronise_pictures
from sfu.media.send.rewrite import pad_packet, payload_start, write_packet
from sfu.media.send.scalability import admit_scalable, is_last_of_picture
from sfu.media.send.selection import admit_temporal, completes_key_frame, is_held, may_start, renew_temporal
from sfu.media.send.sequence import NOT_SENT, drop, send, synchronise
from sfu.media.send.timestamps import align_timestamps
from sfu.media.stream.key_frames import recent_key_frame
from sfu.media.stream.layers import is_scalable
from sfu.media.stream.packet_cache import is_stored
from sfu.media.wire.numbers import signed32
from sfu.parameters import Codec
from sfu.queues.notices import notice
from sfu.schema.bandwidth_codes import Held
from sfu.schema.capacities import HISTORY, PACKETS, SEQUENCE_START
from sfu.schema.codes import Drop, MediaKind, NoticeKind, PacketFlag

MAX_BACKWARD_TICKS = 90_000
"""Frames that are sent before others that precede them lie less than a second of video apart."""

_VP8, _VP9 = int(Codec.VP8), int(Codec.VP9)


@njit(cache=True)
def first_of_turn(state, subscription, arrival):
    """Index of the packet with which a subscription turns to the layer of `arrival`, which is another one than it
    follows, now that this packet is there; -1: it does not turn."""
    stream_row = np.int64(arrival.stream)
    packet = state.packets[stream_row, arrival.index]
    if subscription.layer >= 0 and arrival.layer > subscription.layer:
        if arrival.layer == subscription.target_layer and completes_key_frame(state, stream_row, packet):
            first = state.streams[stream_row].key_sequence & (PACKETS - 1)
            if may_start(state, subscription, arrival.layer, state.packets[stream_row, first]):
                return np.int64(first)
    elif (arrival.key_start or subscription.layer < 0) and may_start(state, subscription, arrival.layer, packet):
        return np.int64(arrival.index)
    return np.int64(-1)


@njit(cache=True)
def is_kept_start(state, stream_row, index):
    """Whether the bytes of the packet at `index` of a stream, with which a subscription turns to it, are there."""
    packet = state.packets[stream_row, index]
    return is_stored(state.streams[stream_row], packet, packet.sequence)


@njit(cache=True)
def best_start(state, subscription, now):
    """The best layer that had a key frame just now from which a new viewer can start, so that the publisher need not
    make one; -1: none had."""
    track = state.tracks[subscription.track]
    best = max(np.int64(subscription.target_spatial), np.int64(subscription.target_layer))
    for layer in range(min(best, np.int64(track.layer_count) - 1), -1, -1):
        stream_row = np.int64(track.streams[layer])
        stream = state.streams[stream_row]
        first = recent_key_frame(stream, now)
        if first < 0:
            continue
        if stream_row == subscription.stream and first <= subscription.in_highest:
            continue  # the receiver has had it, or it came from a source that has ended
        packet = state.packets[stream_row, first & (PACKETS - 1)]
        if is_stored(stream, packet, first) and may_start(state, subscription, layer, packet):
            return layer
    return -1


@njit(cache=True)
def begin(state, row, layer, stream_row, packet):
    """Turn to `layer`, of which `packet` is the next one to be sent."""
    subscription = state.subscriptions[row]
    interrupted = subscription.kind == MediaKind.VIDEO and subscription.packets > 0 and not subscription.last_marker
    synchronise(subscription, packet.sequence, 1 if interrupted else 0)
    if interrupted:
        subscription.last_marker = 1  # one gap is enough, however often it begins before a packet leaves
    align_timestamps(state, subscription, stream_row, packet)
    synchronise_pictures(subscription, packet)
    subscription.layer = layer
    subscription.stream = stream_row
    subscription.source_ssrc = state.streams[stream_row].ssrc
    subscription.picture_timestamp = packet.timestamp - 1
    subscription.by_bandwidth = 0
    if subscription.held == Held.SWITCH:
        subscription.held = Held.NOTHING
    renew_temporal(subscription)
    subscription.temporal = subscription.target_temporal
    subscription.report_ns = 0  # the receiver needs the new timestamps soon


@njit(cache=True)
def forward_packet(state, arena, row, stream_row, index, padding):
    """Send a packet of the stream that the subscription follows, or take it out of the numbering."""
    subscription = state.subscriptions[row]
    packet = state.packets[stream_row, index]
    same_frame = packet.timestamp == subscription.picture_timestamp
    size = np.int64(packet.size) - np.int64(packet.padding) - payload_start(subscription, packet)
    scalable = False
    admitted = size > 0
    if subscription.held and is_held(state, row, packet):
        admitted = False
    elif admitted and subscription.kind == MediaKind.VIDEO:
        scalable = is_scalable(state.tracks[subscription.track].layer_count, packet.codec)
        if scalable:
            admitted = admit_scalable(state, subscription, stream_row, packet)
        else:
            admitted = admit_temporal(subscription, packet)
    if not admitted:
        drop(subscription, packet.sequence, same_frame)
        if packet.codec == _VP8 and packet.picture_id >= 0:
            drop_picture(subscription, packet)
        return
    out_sequence = send(subscription, packet.sequence)
    if out_sequence == NOT_SENT:
        return
    marker = np.int64(packet.marker)
    if scalable and not marker and packet.flags & PacketFlag.FRAME_END:
        marker = np.int64(is_last_of_picture(state.dependencies[stream_row], subscription, packet))
    sent = state.history[subscription.history, out_sequence & (HISTORY - 1)]
    _describe_sent(subscription, stream_row, packet, sent, out_sequence, marker, scalable)
    _send(state, arena, row, packet, sent, out_sequence - SEQUENCE_START, size, padding)


@njit(cache=True)
def _describe_sent(subscription, stream_row, packet, sent, out_sequence, marker, scalable):
    """Fill the history row from which the packet is written now, and again when it was lost."""
    sent.out_sequence = out_sequence
    sent.in_sequence = packet.sequence
    sent.stream = stream_row
    sent.timestamp = packet.timestamp - subscription.timestamp_offset
    sent.marker = marker
    sent.resent = 0
    sent.use = subscription.history_use
    sent.targets = subscription.targets if scalable else 0
    sent.picture_id = -1
    sent.tl0 = -1
    if packet.codec == _VP8:
        if packet.picture_id >= 0:
            sent.picture_id = send_picture(subscription, packet)
        if packet.tl0_at:
            sent.tl0 = send_tl0(subscription, packet)
    elif packet.codec == _VP9 and not scalable:
        if packet.picture_id >= 0:
            sent.picture_id = offset_picture(subscription, packet)
        if packet.tl0_at:
            sent.tl0 = send_tl0(subscription, packet)


@njit(cache=True)
def _send(state, arena, row, packet, sent, index, payload_bytes, padding):
    """Write, protect and queue the packet that `sent` describes, and count it. index: SRTP's, output numbers from 0."""
    subscription = state.subscriptions[row]
    if not claim_index(subscription, index):
        state.drops[Drop.PROTECT_FAILED] += 1
        return
    slot = take_slot(state)
    size = write_packet(state, arena, slot, row, sent, False)
    if size < 0:
        return
    if padding:
        size = pad_packet(state.tx[slot], size, padding)
    if not send_rtp(state, np.int64(subscription.transport), slot, size, index):
        return
    if not subscription.started:
        subscription.started = 1
        notice(state, NoticeKind.SUBSCRIPTION_STARTED, row)
    ahead = signed32(np.int64(sent.timestamp) - np.int64(subscription.last_timestamp))
    if sent.out_sequence == subscription.out_highest & 0xFFFFFFFF:
        subscription.last_marker = sent.marker
        if ahead < -MAX_BACKWARD_TICKS:  # the publisher's clock started anew
            ahead = 0
    if ahead >= 0 or subscription.packets == 0:
        subscription.last_timestamp = sent.timestamp
        subscription.last_ns = packet.arrival_ns
    subscription.packets += 1
    subscription.octets += payload_bytes
