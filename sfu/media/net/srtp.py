"""SRTP and SRTCP (RFC 3711) of one packet in its slot, and queueing what was protected.

RTP that leaves under AES-GCM (RFC 7714) is encrypted here, with OpenSSL's cipher: egress knows the packet's index, and
need not look a stream up for it as libsrtp does, once for each packet and receiver. All else is libsrtp's: the other
profiles, everything that comes in, and RTCP.
"""

import numpy as np
from numba import njit

from sfu.compiler.native import (
    evp_cipher,
    evp_control,
    evp_initialise,
    srtp_protect,
    srtp_protect_rtcp,
    srtp_remove_stream,
    srtp_unprotect,
    srtp_unprotect_rtcp,
)
from sfu.media.net.frame_queue import refuses
from sfu.media.net.send_log import log_sent
from sfu.media.net.udp import commit
from sfu.media.wire.numbers import get_u16
from sfu.media.wire.overhead import GCM_TAG_BYTES
from sfu.media.wire.rtp import FIXED_HEADER_BYTES
from sfu.media.wire.windows import WINDOW, add_to_past, bit_of, is_other_block, leave_block, word_of
from sfu.schema.capacities import RX_BYTES, TX_BYTES
from sfu.schema.codes import Drop, RowState, Scratch

MAX_INDEX = (1 << 48) - 1
"""RFC 3711 section 3.3.1: 32 bits of rollover counter, 16 of sequence number."""
EVP_CTRL_AEAD_GET_TAG = 0x10
KEEP_DIRECTION = -1


@njit(cache=True)
def send_rtp(state, row, slot, size, index):
    """Protect the RTP packet in send slot `slot` for transport `row` and queue it on its path. False: dropped.

    index: its packet index (rollover counter and sequence number); no two packets of an SSRC may have the same. Only
    GCM uses it. The transport must be secure and have a path; the slot keeps room for the tag.
    """
    transport = state.transports[row]
    if transport.path < 0:
        state.drops[Drop.NOT_READY] += 1
        return False
    if transport.cipher != 0:
        length = _encrypt(state, transport, slot, size, index)
    else:
        length = _protect(state, transport.srtp_out, slot, size, False)
    if not _queue(state, transport, slot, length):
        return False
    if state.thread[0].numbered:
        log_sent(state, row, slot)
    return True


@njit(cache=True)
def send_rtcp(state, row, slot, size):
    """Protect the compound RTCP packet in a send slot by libsrtp, and queue it. False: dropped."""
    transport = state.transports[row]
    if transport.path < 0:
        state.drops[Drop.NOT_READY] += 1
        return False
    if refuses(state, row):
        state.drops[Drop.TCP_QUEUE_FULL] += 1
        return False
    return _queue(state, transport, slot, _protect(state, transport.srtp_out, slot, size, True))


@njit(cache=True)
def _queue(state, transport, slot, length):
    if length < 0:
        state.drops[Drop.PROTECT_FAILED] += 1
        return False
    commit(state, slot, transport.path, length)
    return True


@njit(cache=True)
def claim_index(subscription, index):
    """Whether no packet of the subscription's SSRC has had this index yet, and it may be used; then it is taken.

    With GCM a second packet under one index gives away the authentication key (RFC 7714 section 8.1). Numbers are
    unique by `sfu/media/send/sequence.py` already; this does not rely on it. An index WINDOW or more below the highest
    is refused.
    """
    if index < 0 or index > MAX_INDEX:
        return False
    highest = np.int64(subscription.index_highest)
    if index > highest:
        if is_other_block(index, highest):
            leave_block(subscription.indices_past, subscription.indices, highest, index)
            subscription.indices = 0
        subscription.indices = np.uint64(subscription.indices) | bit_of(index)
        subscription.index_highest = index
        return True
    if highest - index >= WINDOW:
        return False
    word = word_of(subscription.indices_past, subscription.indices, highest, index)
    if word & bit_of(index):
        return False
    if is_other_block(index, highest):
        add_to_past(subscription.indices_past, index)
    else:
        subscription.indices = word | bit_of(index)
    return True


@njit(cache=True)
def _encrypt(state, transport, slot, size, index):
    """AEAD_AES_GCM in place: the header is authenticated, the rest encrypted, the tag follows. Size with it, or -1."""
    out = state.tx[slot]
    header = FIXED_HEADER_BYTES + 4 * (np.int64(out[0]) & 15)
    if out[0] & 0x10:
        header += 4 + 4 * get_u16(out, header + 2)
    if header >= size or size + GCM_TAG_BYTES > TX_BYTES or index < 0 or index > MAX_INDEX:
        return -1
    _write_iv(state, transport, out, index)
    thread, cipher = state.thread[0], transport.cipher
    nothing, at = np.uint64(0), thread.tx_at + np.uint64(slot * TX_BYTES)
    payload, end = at + np.uint64(header), at + np.uint64(size)
    iv = thread.scratch_at + np.uint64(Scratch.INITIALISATION_VECTOR * 8)
    if (
        evp_initialise(cipher, nothing, nothing, nothing, iv, KEEP_DIRECTION) != 1
        or evp_cipher(cipher, nothing, at, header) != header
        or evp_cipher(cipher, payload, payload, size - header) != size - header
        or evp_cipher(cipher, nothing, nothing, 0) < 0
        or evp_control(cipher, EVP_CTRL_AEAD_GET_TAG, GCM_TAG_BYTES, end) != 1
    ):
        return -1
    return size + GCM_TAG_BYTES


@njit(cache=True)
def _write_iv(state, transport, out, index):
    """RFC 7714 section 8.1: two zero bytes, SSRC, rollover counter and sequence number, exclusive-or the salt."""
    ssrc = np.int64(out[8]) | np.int64(out[9]) << 8 | np.int64(out[10]) << 16 | np.int64(out[11]) << 24
    counter, number = index >> 16, index & 0xFFFF
    first = ssrc << 16 | (counter >> 24) << 48 | ((counter >> 16) & 255) << 56
    last = (counter >> 8) & 255 | (counter & 255) << 8 | (number >> 8) << 16 | (number & 255) << 24
    state.scratch[Scratch.INITIALISATION_VECTOR] = first ^ np.int64(transport.salt)
    state.scratch[Scratch.INITIALISATION_VECTOR + 1] = last ^ np.int64(transport.salt_end)


@njit(cache=True)
def _protect(state, session, slot, size, rtcp):
    """Protect send slot `slot` by libsrtp, in place. Returns the size with tag and trailer, or -1."""
    thread = state.thread[0]
    lengths_at = thread.scratch_at + np.uint64(Scratch.LENGTH * 8)
    state.scratch[Scratch.LENGTH] = size  # little endian: the low four bytes are the int that libsrtp reads
    packet_at = thread.tx_at + np.uint64(slot * TX_BYTES)
    code = srtp_protect_rtcp(session, packet_at, lengths_at) if rtcp else srtp_protect(session, packet_at, lengths_at)
    return -1 if code != 0 else state.scratch[Scratch.LENGTH] & 0xFFFFFFFF


@njit(cache=True)
def unprotect_rtp(state, session, k, size):
    """Decrypt receive slot k in place. Returns the plaintext size, or -(srtp_err_status_t): -9 replay fail,
    -10 replay old, -7 authentication."""
    return _unprotect(state, session, k, size, False)


@njit(cache=True)
def unprotect_rtcp(state, session, k, size):
    """Decrypt an SRTCP datagram in place."""
    return _unprotect(state, session, k, size, True)


@njit(cache=True)
def _unprotect(state, session, k, size, rtcp):
    thread = state.thread[0]
    lengths_at = thread.scratch_at + np.uint64(Scratch.LENGTH * 8)
    state.scratch[Scratch.LENGTH] = size
    packet_at = thread.rx_at + np.uint64(k * RX_BYTES)
    if rtcp:
        code = srtp_unprotect_rtcp(session, packet_at, lengths_at)
    else:
        code = srtp_unprotect(session, packet_at, lengths_at)
    return -np.int64(code) if code != 0 else state.scratch[Scratch.LENGTH] & 0xFFFFFFFF


@njit(cache=True)
def can_send(state, transport_row):
    """Whether RTCP can leave: the row is open, SRTP runs, and a path is chosen."""
    transport = state.transports[transport_row]
    return transport.state == RowState.OPEN and transport.secure != 0 and transport.path >= 0


@njit(cache=True)
def forget_srtp_stream(session, ssrc):
    """Let libsrtp drop its state of an SSRC, so that its list does not grow. session: srtp_t address or 0."""
    if session != 0:
        swapped = (ssrc & 0xFF) << 24 | (ssrc & 0xFF00) << 8 | (ssrc >> 8) & 0xFF00 | ssrc >> 24
        srtp_remove_stream(session, swapped)
