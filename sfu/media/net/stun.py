"""ICE-lite's side of connectivity checks: STUN Binding requests are verified and answered in the kernel.

RFC 8489 (STUN), RFC 8445 (ICE). Cheap checks come before the HMAC. A message that does not carry the right password
is dropped without an answer: an answer would tell a scanner something and could be aimed at a third party.
"""

import numpy as np
from numba import njit

from sfu.compiler.native import evp_sha1, hmac
from sfu.media.net.lookup import find_ufrag
from sfu.media.net.paths import claim_path, receive_check, stage_connection, stage_path
from sfu.media.net.udp import commit, flush, take_slot
from sfu.media.wire.numbers import get_u16, get_u32, put_u16, put_u32
from sfu.schema.capacities import RX_BYTES, STAGING_PATH, TX_BYTES
from sfu.schema.codes import Drop, Scratch
from sfu.schema.tables import state_t
from sfu.schema.transport_tables import transport_t

HEADER_BYTES = 20
MAGIC_COOKIE = 0x2112A442
BINDING_REQUEST, BINDING_INDICATION, BINDING_SUCCESS, BINDING_ERROR = 0x0001, 0x0011, 0x0101, 0x0111
USERNAME, MESSAGE_INTEGRITY, ERROR_CODE, UNKNOWN_ATTRIBUTES = 0x0006, 0x0008, 0x0009, 0x000A
XOR_MAPPED_ADDRESS, PRIORITY, USE_CANDIDATE = 0x0020, 0x0024, 0x0025
FINGERPRINT, ICE_CONTROLLED = 0x8028, 0x8029
FINGERPRINT_XOR = 0x5354554E
INTEGRITY_BYTES = 20
UFRAG_BYTES = 8
"""Our ufrags and passwords have a fixed length, so that they fit table columns."""
PASSWORD_BYTES = 24
MAX_UNKNOWN = 8
"""Unknown attributes that a 420 response lists."""
UNKNOWN_ATTRIBUTE, ROLE_CONFLICT = 420, 487

_UNDERSTOOD = (0x01, 0x06, 0x08, 0x09, 0x0A, 0x14, 0x15, 0x1C, 0x1D, 0x1E, 0x20, 0x24, 0x25)

_PASSWORDS_AT = state_t.fields["transports"][1] + transport_t.fields["password"][1]
_TRANSPORT_BYTES = transport_t.itemsize


def _crc_table():
    """CRC-32 of every byte, reflected polynomial 0xEDB88320 (ITU-T V.42, as RFC 8489 section 14.7 asks)."""
    table = np.arange(256, dtype=np.int64)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ 0xEDB88320, table >> 1)
    return table


_CRC = _crc_table()


@njit(cache=True)
def crc32(data, size):
    """CRC-32 of data[:size], the number that `zlib.crc32` computes."""
    value = 0xFFFFFFFF
    for k in range(size):
        value = _CRC[(value ^ np.int64(data[k])) & 255] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


@njit(cache=True)
def _sign(state, credentials, data_at, size):
    """HMAC-SHA1 of `size` bytes at address `data_at` into the digest words of scratch."""
    thread = state.thread[0]
    offset = _PASSWORDS_AT + (credentials >> 1) * _TRANSPORT_BYTES + (credentials & 1) * PASSWORD_BYTES
    key_at = thread.state_at + np.uint64(offset)
    digest_at = thread.scratch_at + np.uint64(Scratch.DIGEST * 8)
    hmac(evp_sha1(), key_at, PASSWORD_BYTES, data_at, np.uint64(size), digest_at, np.uint64(0))


@njit(cache=True)
def _digest_byte(state, n):
    return (state.scratch[Scratch.DIGEST + (n >> 3)] >> (8 * (n & 7))) & 255


@njit(cache=True)
def _is_understood(kind):
    """Comprehension-required attributes of RFC 8489 and RFC 8445; those that mean nothing here are ignored."""
    return kind in _UNDERSTOOD


@njit(cache=True)
def _scan(data, size):
    """Walk the attributes: (username at, its bytes, integrity at, priority, nominated, controlled, unknown, last ok).

    The last is 0 when lengths do not fit, or FINGERPRINT is not the last attribute or wrong.
    """
    username_at, username_bytes, integrity_at, priority, nominated, controlled, unknown = 0, 0, 0, 0, 0, 0, 0
    malformed = (0, 0, 0, 0, 0, 0, 0, 0)
    at = HEADER_BYTES
    while at < size:  # size is a multiple of 4: four bytes can be read
        kind, length = get_u16(data, at), get_u16(data, at + 2)
        following = at + 4 + ((length + 3) & ~3)
        if following > size:
            return malformed
        if kind == FINGERPRINT:
            if length != 4 or following != size or get_u32(data, at + 4) != crc32(data, at) ^ FINGERPRINT_XOR:
                return malformed
        elif integrity_at != 0:
            pass  # section 14.5: what follows MESSAGE-INTEGRITY is not protected and not looked at
        elif kind == USERNAME and username_at == 0:
            username_at, username_bytes = at + 4, length
        elif kind == MESSAGE_INTEGRITY:
            if length != INTEGRITY_BYTES:
                return malformed
            integrity_at = at
        elif kind == PRIORITY:
            if length != 4:
                return malformed
            priority = get_u32(data, at + 4)
        elif kind == USE_CANDIDATE:
            nominated = 1
        elif kind == ICE_CONTROLLED:
            controlled = 1
        elif kind < 0x8000 and not _is_understood(kind):
            unknown += 1
        at = following
    return username_at, username_bytes, integrity_at, priority, nominated, controlled, unknown, 1


@njit(cache=True)
def _find_credentials(state, data, at, length):
    """Whose request it is, from USERNAME "local:remote": transport row * 2 + index of the credentials, or -1."""
    if length < UFRAG_BYTES + 2 or data[at + UFRAG_BYTES] != 0x3A:
        return -1
    ufrag = np.uint64(0)
    for n in range(UFRAG_BYTES):
        ufrag |= np.uint64(data[at + n]) << np.uint64(8 * n)
    return np.int64(find_ufrag(state, ufrag))


@njit(cache=True)
def _has_integrity(state, k, integrity_at, credentials):
    """Whether MESSAGE-INTEGRITY of the request in receive slot k was made with these credentials' password."""
    data = state.rx[k]
    length = get_u16(data, 2)
    # section 14.5: the length counts up to and including this attribute while the HMAC is computed
    put_u16(data, 2, integrity_at + 4 + INTEGRITY_BYTES - HEADER_BYTES)
    _sign(state, credentials, state.thread[0].rx_at + np.uint64(k * RX_BYTES), integrity_at)
    put_u16(data, 2, length)
    difference = 0
    for n in range(INTEGRITY_BYTES):  # all of them: the time taken says nothing about the password
        difference |= _digest_byte(state, n) ^ np.int64(data[integrity_at + 4 + n])
    return difference == 0


@njit(cache=True)
def handle_stun(state, k, size, socket, connection, now):
    """One STUN message in receive slot k from any address. socket: index of the one it came in by; connection: row of
    `connections` over which it came instead, -1: none."""
    data = state.rx[k]
    if size < HEADER_BYTES or size & 3 or get_u32(data, 4) != MAGIC_COOKIE or get_u16(data, 2) != size - HEADER_BYTES:
        state.drops[Drop.STUN_MALFORMED] += 1
        return
    kind = get_u16(data, 0)
    if kind != BINDING_REQUEST:
        if kind != BINDING_INDICATION:  # a keepalive that nobody signed refreshes nothing; responses we never asked for
            state.drops[Drop.GARBAGE] += 1
        return
    username_at, username_bytes, integrity_at, priority, nominated, controlled, unknown, ok = _scan(data, size)
    if not ok:
        state.drops[Drop.STUN_MALFORMED] += 1
        return
    credentials = _find_credentials(state, data, username_at, username_bytes)
    if credentials < 0:
        state.drops[Drop.STUN_UNKNOWN_UFRAG] += 1
        return
    if integrity_at == 0 or not _has_integrity(state, k, integrity_at, credentials):
        state.drops[Drop.STUN_INTEGRITY] += 1
        return
    row = credentials >> 1
    state.thread[0].row_in_hand = row
    if connection < 0:
        stage_path(state, k, socket)
    else:
        stage_connection(state, connection)
    if unknown:
        _send_error(state, k, integrity_at, credentials, UNKNOWN_ATTRIBUTE)
    elif controlled:  # we are the lite agent and never take the controlling role, RFC 8445 section 6.1.1
        _send_error(state, k, integrity_at, credentials, ROLE_CONFLICT)
    else:
        path = claim_path(state, row, now)
        if path >= 0:
            _send_success(state, k, credentials, path)
            receive_check(state, row, path, credentials & 1, priority, nominated, now)
    state.thread[0].row_in_hand = -1


@njit(cache=True)
def _start_response(state, k, slot, kind):
    """Header with the transaction id of the request in receive slot k."""
    out = state.tx[slot]
    put_u16(out, 0, kind)
    for n in range(4, HEADER_BYTES):
        out[n] = state.rx[k, n]
    return HEADER_BYTES


@njit(cache=True)
def _finish_response(state, slot, at, credentials, path):
    """Add MESSAGE-INTEGRITY and FINGERPRINT after `at` bytes, and queue the response for a path."""
    out = state.tx[slot]
    put_u16(out, 2, at + 4 + INTEGRITY_BYTES - HEADER_BYTES)
    _sign(state, credentials, state.thread[0].tx_at + np.uint64(slot * TX_BYTES), at)
    put_u16(out, at, MESSAGE_INTEGRITY)
    put_u16(out, at + 2, INTEGRITY_BYTES)
    for n in range(INTEGRITY_BYTES):
        out[at + 4 + n] = _digest_byte(state, n)
    at += 4 + INTEGRITY_BYTES
    put_u16(out, 2, at + 8 - HEADER_BYTES)
    put_u16(out, at, FINGERPRINT)
    put_u16(out, at + 2, 4)
    put_u32(out, at + 4, crc32(out, at) ^ FINGERPRINT_XOR)
    commit(state, slot, path, at + 8)


@njit(cache=True)
def _send_success(state, k, credentials, path):
    """XOR-MAPPED-ADDRESS, RFC 8489 section 14.2: the port and address xored with the bytes of the header from 4 on."""
    slot = take_slot(state)
    out, row = state.tx[slot], state.paths[path]
    at = _start_response(state, k, slot, BINDING_SUCCESS)
    address_at, address_bytes = (4, 4) if row.family == 4 else (8, 16)
    put_u16(out, at, XOR_MAPPED_ADDRESS)
    put_u16(out, at + 2, 4 + address_bytes)
    put_u16(out, at + 4, 1 if row.family == 4 else 2)
    out[at + 6] = row.address[2] ^ out[4]
    out[at + 7] = row.address[3] ^ out[5]
    for n in range(address_bytes):
        out[at + 8 + n] = row.address[address_at + n] ^ out[4 + n]
    _finish_response(state, slot, at + 8 + address_bytes, credentials, path)


@njit(cache=True)
def _send_error(state, k, end, credentials, code):
    """An error response to a request that carried the right password; it claims no path, so it leaves at once.

    end: where MESSAGE-INTEGRITY stands in the request.
    """
    slot = take_slot(state)
    out, data = state.tx[slot], state.rx[k]
    at = _start_response(state, k, slot, BINDING_ERROR)
    put_u16(out, at, ERROR_CODE)
    put_u16(out, at + 2, 4)  # an empty reason phrase
    put_u16(out, at + 4, 0)
    put_u16(out, at + 6, code // 100 << 8 | code % 100)
    at += 8
    if code == UNKNOWN_ATTRIBUTE:
        start, count, attribute = at, 0, HEADER_BYTES
        at += 4
        while attribute < end and count < MAX_UNKNOWN:
            kind = get_u16(data, attribute)
            if kind < 0x8000 and not _is_understood(kind):
                put_u16(out, at, kind)
                at, count = at + 2, count + 1
            attribute += 4 + ((get_u16(data, attribute + 2) + 3) & ~3)
        put_u16(out, start, UNKNOWN_ATTRIBUTES)
        put_u16(out, start + 2, 2 * count)
        if count & 1:
            put_u16(out, at, 0)
            at += 2
    _finish_response(state, slot, at, credentials, STAGING_PATH)
    flush(state)
