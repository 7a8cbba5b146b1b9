"""The two SCTP packets that nearly all others are like (RFC 9260 section 3), written and read in one step each.

These are a DATA chunk that holds a whole message, and a SACK that acknowledges everything up to a TSN. aiortc builds an
object for each chunk and calls a function for each of its parts, which costs a message to many receivers more than
encrypting and sending it.
"""

from struct import Struct

from aiortc.rtcsctptransport import DataChunk, crc32c  # type: ignore[attr-defined]  # which it imports itself

_COMMON = Struct("!HHL")
"""Ports and verification tag of the common header; a checksum follows."""
_CHECKSUM, _NO_CHECKSUM = Struct("<L"), bytes(4)
"""The CRC32c, which is written with its lowest byte first (appendix A), and what stands for it while it is computed."""
_DATA = Struct("!BBHLHHL")
"""Type, flags, length, TSN, stream, stream sequence number and payload protocol of a DATA chunk."""
_SACK = Struct("!4xL8xLL4x")
"""Verification tag, cumulative TSN and window of a whole packet with a bare SACK."""
_PADDING = (b"", bytes(3), bytes(2), bytes(1))
"""What makes a length a multiple of four, by its remainder."""


class SentChunk(DataChunk):
    """A DATA chunk with a whole message that was sent once, and what aiortc notes of each chunk under way."""

    _acked = _abandoned = _retransmit = False
    _misses = 0
    _expiry: float | None = None
    _in_flight = True

    def __init__(
        self, flags: int, tsn: int, stream: int, sequence: int, protocol: int, data: bytes, most: int | None, now: float
    ) -> None:
        """most: how often it may be sent again; None: until it arrives. now: Unix time, in seconds."""
        self.flags = flags
        self.tsn = tsn
        self.stream_id = stream
        self.stream_seq = sequence
        self.protocol = protocol
        self.user_data = data
        self._book_size = len(data)
        self._max_retransmits = most
        self._sent_count = 1
        self._sent_time = now


def common_header(local_port: int, remote_port: int, tag: int) -> bytes:
    """The first eight bytes of every packet of an association."""
    return _COMMON.pack(local_port, remote_port, tag)


def data_packet(header: bytes, chunk: SentChunk) -> bytes:
    """A packet with one DATA chunk. header: of `common_header`."""
    data = chunk.user_data
    size = _DATA.size + len(data)
    body = _DATA.pack(0, chunk.flags, size, chunk.tsn, chunk.stream_id, chunk.stream_seq, chunk.protocol) + data
    body += _PADDING[size & 3]
    return header + _CHECKSUM.pack(crc32c(header + _NO_CHECKSUM + body)) + body


def read_bare_sack(packet: bytes) -> tuple[int, int, int] | None:
    """(verification tag, cumulative TSN, window) of a packet that `is_bare_sack`; None if its checksum is wrong."""
    if packet[8:12] != _CHECKSUM.pack(crc32c(packet[:8] + _NO_CHECKSUM + packet[12:])):
        return None
    tag, tsn, window = _SACK.unpack(packet)
    return tag, tsn, window
