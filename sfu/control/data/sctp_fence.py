"""A fence before aiortc's SCTP parser: lengths and counts of chunks and parameters (RFC 9260 section 3), nothing else.

aiortc follows the lengths that a packet names, a length of 0 for ever, and answers whatever can be answered. Here one
pass over the packet, whose length bounds it, decides whether aiortc sees any of it. What a chunk means is aiortc's.
"""

from struct import Struct

COMMON_HEADER_BYTES = 12
CHUNK_HEADER_BYTES = PARAMETER_HEADER_BYTES = 4
MAX_CHUNKS = 80
"""The most chunks in one packet. Messages of one byte, bundled, are 74 in 1,500 bytes."""
MAX_CONTROL_CHUNKS = 4
"""Chunks of one packet that are no DATA, each of which may be answered. Honest stacks bundle a SACK, a FORWARD TSN and
perhaps one more."""
MAX_PARAMETERS = 32
"""Parameters of one chunk; an INIT of a browser has ten at most."""
MAX_RECONFIG_PARAMETERS = 2
"""RFC 6525 section 3.1: a RE-CONFIG has one or two. Each is answered."""
MAX_SKIPPED_STREAMS = 64
"""Streams that one FORWARD TSN names: as many as a peer may use."""

DATA, INIT, INIT_ACK, SACK, HEARTBEAT, HEARTBEAT_ACK, ABORT, SHUTDOWN, ERROR = 0, 1, 2, 3, 4, 5, 6, 7, 9
RECONFIG, FORWARD_TSN = 130, 192

_FIXED_BYTES = {DATA: 17, INIT: 20, INIT_ACK: 20, SACK: 16, SHUTDOWN: 8, FORWARD_TSN: 8}
"""Shortest length of a chunk with its header; of DATA one byte is carried (section 3.3.1)."""
_PARAMETERS_AT = {INIT: 20, INIT_ACK: 20, HEARTBEAT: 4, HEARTBEAT_ACK: 4, ABORT: 4, ERROR: 4, RECONFIG: 4}
"""Where the parameters (or error causes, which look alike) of a chunk begin."""

_ONCE = {SACK: 1, FORWARD_TSN: 2}
"""Bits for what a packet may have once: each costs a walk over all that was sent, or all that is held."""

_BARE_SACK, _NO_BLOCKS = b"\3\0\0\x10", bytes(4)
"""The header of a SACK of 16 bytes, and the numbers of its gaps and duplicates behind its TSN and window."""
_CHUNK_HEADER = Struct("!BxH")
_PAIR = Struct("!HH")


def is_bare_sack(packet: bytes) -> bool:
    """Whether a packet is one SACK without gaps or duplicates, as half of all packets are."""
    return packet[12:16] == _BARE_SACK and packet[24:] == _NO_BLOCKS


def refusal(packet: bytes) -> str:
    """Return why an SCTP packet must not be parsed; empty when it may."""
    end = len(packet)
    at, chunks, control, seen = COMMON_HEADER_BYTES, 0, 0, 0
    while at + CHUNK_HEADER_BYTES <= end:
        kind, length = _CHUNK_HEADER.unpack_from(packet, at)
        if length < CHUNK_HEADER_BYTES or at + length > end:
            return "chunk length"
        chunks += 1
        if kind:
            control += 1
            once = _ONCE.get(kind, 0)
            if control > MAX_CONTROL_CHUNKS or seen & once:
                return "too many control chunks"
            seen |= once
            if reason := _refusal_of_control(packet, at, kind, length):
                return reason
        elif length < _FIXED_BYTES[DATA]:
            return "chunk too short"
        at += (length + 3) & ~3
    if not 0 < chunks <= MAX_CHUNKS:
        return "too many chunks" if chunks else "no chunk"
    return ""


def _refusal_of_control(packet: bytes, at: int, kind: int, length: int) -> str:
    """Why the chunk of `length` bytes at offset `at`, which is no DATA, is refused; empty: it is not."""
    if length < _FIXED_BYTES.get(kind, CHUNK_HEADER_BYTES):
        return "chunk too short"
    if kind == SACK:
        gaps, duplicates = _PAIR.unpack_from(packet, at + 12)
        return "" if 16 + 4 * (gaps + duplicates) <= length else "blocks beyond the SACK"
    if kind == FORWARD_TSN:
        return "" if length % 4 == 0 and (length - 8) // 4 <= MAX_SKIPPED_STREAMS else "streams of a FORWARD TSN"
    first = _PARAMETERS_AT.get(kind)
    if first is None:
        return ""
    limit = MAX_RECONFIG_PARAMETERS if kind == RECONFIG else MAX_PARAMETERS
    return _refusal_of_parameters(packet, at + first, at + length, limit)


def _refusal_of_parameters(packet: bytes, at: int, end: int, limit: int) -> str:
    """Why the parameters between two offsets (RFC 9260 section 3.2.1) are refused; empty: they are not."""
    count = 0
    while at + PARAMETER_HEADER_BYTES <= end:
        length = _PAIR.unpack_from(packet, at)[1]
        if length < PARAMETER_HEADER_BYTES or at + length > end:
            return "parameter length"
        count += 1
        if count > limit:
            return "too many parameters"
        at += (length + 3) & ~3
    return ""
