"""Writes one outgoing RTP packet into a send slot: header, header extensions, payload with its rewritten ids.

Called by egress for a packet's first way out and by `sfu.media.send.retransmit` for every further one; both describe it
by a row of `history`, so that what is sent again says the same. RFC 3550 section 5.1, RFC 8285, RFC 4588.
"""

import numpy as np
from numba import njit

from sfu.media.net.udp import borrow_arena, copy_to_slot
from sfu.media.stream.layers import is_scalable
from sfu.media.wire.dependency_write import write_dependency
from sfu.media.wire.numbers import get_u32, put_u16, put_u24, put_u32
from sfu.media.wire.rtp import FIXED_HEADER_BYTES, ONE_BYTE_PROFILE, TWO_BYTE_PROFILE
from sfu.parameters import Codec, Extension
from sfu.schema.capacities import COPIED, PACKETS, SCRATCH_HISTORY, TX_BYTES
from sfu.schema.codes import Drop

TRAILER_BYTES = 64
"""Room left in a slot for equalising padding and the SRTP tag."""
FIRST_ELEMENT = FIXED_HEADER_BYTES + 4
MAX_ONE_BYTE_ID = 14
MAX_ONE_BYTE_SIZE = 16
DOES_NOT_FIT = -1

_RED = int(Codec.RED)
_PLAYOUT_DELAY = int(Extension.PLAYOUT_DELAY)
_DEPENDENCY, _CAPTURE = int(Extension.DEPENDENCY), int(Extension.ABS_CAPTURE_TIME)
_MID, _SEND_TIME, _TRANSPORT_CC = int(Extension.MID), int(Extension.ABS_SEND_TIME), int(Extension.TRANSPORT_CC)


@njit(cache=True)
def send_time(now):
    """abs-send-time of `now` (ns): 24 bits of seconds in 6.18 fixed point."""
    second = now // 1_000_000_000
    return (second & 63) << 18 | ((now - second * 1_000_000_000) << 18) // 1_000_000_000


@njit(cache=True)
def unwraps(subscription, packet):
    """Whether of a packet only the primary block of RED is sent: the subscriber did not negotiate RED, or its path has
    no room for what is in there twice."""
    return packet.codec == _RED and (subscription.red_payload_type < 0 or subscription.unwrapped != 0)


@njit(cache=True)
def payload_start(subscription, packet):
    """Where in a stored packet begins what this subscriber gets; the packet's end when it gets nothing."""
    at = np.int64(packet.payload_at)
    if unwraps(subscription, packet):
        if packet.primary_at == 0:  # malformed
            return np.int64(packet.size)
        at += np.int64(packet.primary_at)
    return at


@njit(cache=True)
def write_packet(state, arena, slot, row, sent, rtx):
    """Write the packet that `sent` (a history row of subscription `row`) describes into send slot `slot`.

    rtx: as retransmission (its own SSRC, payload type and numbers, the original number before the payload). The packet
    must be stored. Returns the size in bytes, not protected; DOES_NOT_FIT (counted) when the slot is too small.
    """
    subscription = state.subscriptions[row]
    transport = state.transports[subscription.transport]
    stream = state.streams[sent.stream]
    packet = state.packets[sent.stream, sent.in_sequence & (PACKETS - 1)]
    base = stream.cache_start + (packet.start & (stream.cache_bytes - 1))
    out = state.tx[slot]
    if rtx:
        put_u16(out, 2, np.int64(subscription.rtx_sequence))
        put_u32(out, 8, np.int64(subscription.rtx_ssrc))
        payload_type = np.int64(subscription.rtx_payload_type)
        mid = not subscription.rtx_mid_acknowledged
    else:
        put_u16(out, 2, sent.out_sequence)
        put_u32(out, 8, np.int64(subscription.ssrc))
        payload_type = np.int64(subscription.payload_type)
        if packet.codec == _RED and not unwraps(subscription, packet):
            payload_type = np.int64(subscription.red_payload_type)
        mid = not subscription.mid_acknowledged
    put_u32(out, 4, np.int64(sent.timestamp))
    out[1] = np.int64(sent.marker) << 7 | payload_type
    at = write_extensions(state, arena, out, subscription, transport, sent, packet, base, mid)
    out[0] = 0x90 if at > FIXED_HEADER_BYTES else 0x80
    if rtx:
        put_u16(out, at, sent.out_sequence)
        at += 2
    skipped = payload_start(subscription, packet)
    size = np.int64(packet.size) - np.int64(packet.padding) - skipped
    if at + size > TX_BYTES - TRAILER_BYTES:
        state.drops[Drop.TOO_LARGE] += 1
        return DOES_NOT_FIT
    remembered = subscription.history != SCRATCH_HISTORY
    state.thread[0].copy = row << 16 | np.int64(sent.out_sequence) & 0xFFFF if remembered else 0
    copy_to_slot(state, arena, slot, at, base + skipped, size)
    if sent.picture_id >= 0 or sent.tl0 >= 0:
        _write_picture(out, at, packet, sent)
    elif packet.codec == _RED and not unwraps(subscription, packet):
        _write_block_types(out, at, at + min(size, np.int64(packet.primary_at)), subscription.payload_type)
    return at + size


@njit(cache=True)
def write_bare_header(state, slot, subscription, timestamp, rtx):
    """Write header and extensions of a packet that comes from no publisher into send slot `slot`, under the newest
    number of the subscription, or as retransmission (rtx). Returns where its payload begins."""
    out, transport = state.tx[slot], state.transports[subscription.transport]
    if rtx:
        put_u16(out, 2, np.int64(subscription.rtx_sequence))
        put_u32(out, 8, np.int64(subscription.rtx_ssrc))
        out[1] = subscription.rtx_payload_type
        mid = not subscription.rtx_mid_acknowledged
    else:
        put_u16(out, 2, subscription.out_highest)
        put_u32(out, 8, np.int64(subscription.ssrc))
        out[1] = subscription.payload_type
        mid = not subscription.mid_acknowledged
    put_u32(out, 4, timestamp)
    state.thread[0].copy = 0  # nobody asks for it again
    nothing, arena = state.history[SCRATCH_HISTORY, 0], borrow_arena(state)
    at = write_extensions(state, arena, out, subscription, transport, nothing, state.nothing[0], np.int64(0), mid)
    out[0] = 0x90 if at > FIXED_HEADER_BYTES else 0x80
    return at


@njit(cache=True)
def pad_packet(out, size, padding):
    """Add RTP padding (RFC 3550 section 5.1), at least one byte, to the packet in `out`; returns the new size."""
    for k in range(size, size + padding - 1):
        out[k] = 0
    out[size + padding - 1] = padding
    out[0] |= 0x20
    return size + padding


@njit(cache=True)
def _write_picture(out, at, packet, sent):
    """Picture id, in the width that it has, and TL0PICIDX of the payload at `at`."""
    if sent.picture_id >= 0:
        picture, place = np.int64(sent.picture_id), at + np.int64(packet.picture_at)
        if packet.picture_bytes == 2:
            put_u16(out, place, 0x8000 | picture)
        else:
            out[place] = picture & 0x7F
    if sent.tl0 >= 0:
        out[at + np.int64(packet.tl0_at)] = sent.tl0


@njit(cache=True)
def _write_block_types(out, at, end, payload_type):
    """RFC 2198 section 3: name every block by the subscriber's Opus payload type."""
    while at < end:
        more = np.int64(out[at]) & 0x80
        out[at] = more | np.int64(payload_type)
        if not more:
            return
        at += 4


@njit(cache=True)
def write_extensions(state, arena, out, subscription, transport, sent, packet, base, mid):
    """Write the extension block of an RTP packet in `out`; returns where the payload begins.

    packet: the stored one whose extensions are copied from byte `base` of the arena; mid: the mid is written too.
    """
    media = state.media[transport.media]
    time_id = np.int64(media.id_of_extension[_SEND_TIME])
    cc_id = np.int64(media.id_of_extension[_TRANSPORT_CC])
    at, wide = np.int64(FIRST_ELEMENT), 0
    copied = False
    for kind in range(1, COPIED):
        copied |= packet.extension_at[kind] != 0
    if copied or mid or max(time_id, cc_id) > MAX_ONE_BYTE_ID:
        for form in range(2):  # the two-byte form when the other one will not do
            wide = form
            at = _write_variable(state, arena, out, media, subscription, sent, packet, base, mid, wide)
            if at != DOES_NOT_FIT:
                break
    if _fits(time_id, 3, wide):
        put_u24(out, _put_head(out, at, time_id, 3, wide), np.int64(state.thread[0].send_time))
        at += 5 if wide else 4
    state.thread[0].numbered = 0
    if media.numbered[subscription.kind] and _fits(cc_id, 2, wide):
        put_u16(out, _put_head(out, at, cc_id, 2, wide), np.int64(transport.next_number))
        at += 4 if wide else 3
        state.thread[0].numbered = 1  # whoever queues the packet logs it
    if at == FIRST_ELEMENT:
        return np.int64(FIXED_HEADER_BYTES)
    while at & 3:
        out[at] = 0
        at += 1
    put_u16(out, FIXED_HEADER_BYTES, TWO_BYTE_PROFILE if wide else ONE_BYTE_PROFILE)
    put_u16(out, FIXED_HEADER_BYTES + 2, (at - FIRST_ELEMENT) >> 2)
    return at


@njit(cache=True)
def _fits(extension_id, size, wide):
    """Whether an element is negotiated and can be written in the one-byte (two-byte: wide) form."""
    if wide:
        return extension_id > 0
    return 0 < extension_id <= MAX_ONE_BYTE_ID and 0 < size <= MAX_ONE_BYTE_SIZE


@njit(cache=True)
def _put_head(out, at, extension_id, size, wide):
    """Write an element's id and length; returns where its data begins."""
    if wide:
        out[at] = extension_id
        out[at + 1] = size
        return at + 2
    out[at] = extension_id << 4 | (size - 1)
    return at + 1


@njit(cache=True)
def _write_variable(state, arena, out, media, subscription, sent, packet, base, mid, wide):
    """Write the elements that not every packet has. DOES_NOT_FIT: the two-byte form is needed, and may be used.

    Without a=extmap-allow-mixed an element that needs it stays away.
    """
    at = np.int64(FIRST_ELEMENT)
    strict = media.mixed_extensions and not wide
    send_ids = max(media.id_of_extension[_SEND_TIME], media.id_of_extension[_TRANSPORT_CC])
    if strict and send_ids > MAX_ONE_BYTE_ID:
        return np.int64(DOES_NOT_FIT)
    if mid and media.id_of_extension[_MID]:
        extension_id, size = np.int64(media.id_of_extension[_MID]), np.int64(subscription.mid_bytes)
        if _fits(extension_id, size, wide):
            place = _put_head(out, at, extension_id, size, wide)
            for k in range(size):
                out[place + k] = subscription.mid[k]
            at = place + size
        elif strict:
            return np.int64(DOES_NOT_FIT)
    if mid and subscription.playout_delay and _fits(np.int64(media.id_of_extension[_PLAYOUT_DELAY]), 3, wide):
        # until the receiver is known to have it; then it holds for the rest of the stream
        extension_id = np.int64(media.id_of_extension[_PLAYOUT_DELAY])
        place = _put_head(out, at, extension_id, 3, wide)
        put_u24(out, place, np.int64(subscription.playout_delay))
        at = place + 3
    for kind in range(1, COPIED):
        extension_id, size = np.int64(media.id_of_extension[kind]), np.int64(packet.extension_bytes[kind])
        if packet.extension_at[kind] == 0 or extension_id == 0:
            continue
        if kind == _PLAYOUT_DELAY and subscription.playout_delay:
            continue
        place = at + (2 if wide else 1)
        if kind == _DEPENDENCY:
            # descriptors of several streams do not continue each other; VP8 and H.264 do without
            if not is_scalable(state.tracks[subscription.track].layer_count, packet.codec):
                continue
            size = write_dependency(state, sent.stream, packet, arena, base, out, place, np.int64(sent.targets))
        if not _fits(extension_id, size, wide):
            if strict:
                return np.int64(DOES_NOT_FIT)
            continue
        _put_head(out, at, extension_id, size, wide)
        if kind != _DEPENDENCY:
            source = base + np.int64(packet.extension_at[kind])
            for k in range(size):
                out[place + k] = arena[source + k]
        if kind == _CAPTURE and size >= 8:
            _shift_capture_time(state, out, place, state.streams[sent.stream].transport)
        at = place + size
    return at


@njit(cache=True)
def _shift_capture_time(state, out, at, publisher):
    """abs-capture-time is in the publisher's clock; sender reports say ours, and both must agree."""
    nanoseconds = state.transports[publisher].ntp_shift_ns
    seconds = nanoseconds // 1_000_000_000
    fraction = ((nanoseconds - seconds * 1_000_000_000) << 32) // 1_000_000_000
    low = get_u32(out, at + 4) + fraction
    put_u32(out, at, get_u32(out, at) + seconds + (low >> 32))
    put_u32(out, at + 4, low)
