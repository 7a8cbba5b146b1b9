"""From ChannelData of TURN to frames of RFC 4571 and back, for everything that is whole in what has just come.

Who calls it: `clients.py`, once for each read. Both formats put the length of a packet in front of it, so ChannelData
(RFC 8656 section 12.4) is a frame behind the number of its channel, padded where it goes over a stream. Nothing is
copied here: what is returned are views of what came.
"""

from collections.abc import Iterator
from typing import NamedTuple

MAX_PAYLOAD_BYTES = 2048
"""A packet to or from the media, which takes no longer ones."""
MAX_MESSAGE_BYTES = 4096
"""A STUN message, which may carry such a packet."""
STUN_HEADER_BYTES, CHANNEL_HEADER_BYTES, SIZE_BYTES = 20, 4, 2
MAGIC_COOKIE = bytes.fromhex("2112a442")
"""Bytes 4 to 7 of a STUN message (RFC 8489 section 5)."""
RUNS_AT_ONCE, PACKETS_AT_ONCE = 32, 512
"""Runs, and packets in them, that are taken of one client before others have their turn. What a slow client or network
held back for a moment comes in fewer; tiny ones in a whole read would take tens of milliseconds."""
NO_CHANNEL = -1
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")
"""What follows a packet in a stream, by its length modulo 4."""


class NotTurn(ValueError):
    """A stream has something else in it than STUN messages and ChannelData of a length that is served."""


class Run(NamedTuple):
    """What a client sent in one go: a STUN message, or the frames of one channel."""

    channel: int
    """The channel; NO_CHANNEL: a STUN message."""
    parts: list[memoryview]
    """The frames, or the message alone."""


class Taken(NamedTuple):
    """How far a stream from a client was taken."""

    size: int
    """So many bytes."""
    may_go_on: bool
    """What follows may be whole too: it was left so that others have their turn."""


def runs_of(data: memoryview) -> Iterator[Run | Taken]:
    """Yield what is whole in a stream from a client in its order, as far as it is to be taken at once, and at last how
    far that was.

    Raises:
        NotTurn: the stream is to be given up.
    """
    at, end, runs, packets = 0, len(data), 0, 0
    channel, frames = NO_CHANNEL, list[memoryview]()
    while end - at >= CHANNEL_HEADER_BYTES and runs < RUNS_AT_ONCE and packets < PACKETS_AT_ONCE:
        first = data[at]
        size = data[at + 2] << 8 | data[at + 3]
        if first & 0xC0 == 0x40:
            following = at + CHANNEL_HEADER_BYTES + (size + 3 & ~3)
            if size > MAX_PAYLOAD_BYTES:
                raise NotTurn("ChannelData that is too long")
            if following > end:
                break
            number = first << 8 | data[at + 1]
            if number != channel and frames:
                yield Run(channel, frames)
                frames = []
                runs += 1
            channel = number
            packets += 1
            if size:
                frames.append(data[at + SIZE_BYTES : at + CHANNEL_HEADER_BYTES + size])
        elif first & 0xC0 == 0:
            following = at + STUN_HEADER_BYTES + size
            if following - at > MAX_MESSAGE_BYTES or data[at + 4 : at + 8] != MAGIC_COOKIE[: max(0, end - at - 4)]:
                raise NotTurn("a message that is too long, or none of STUN")
            if following > end:
                break
            if frames:
                yield Run(channel, frames)
                frames = []
                runs += 1
            yield Run(NO_CHANNEL, [data[at:following]])
            runs += 1
        else:
            raise NotTurn("neither a message nor ChannelData")
        at = following
    if frames:
        yield Run(channel, frames)
    yield Taken(at, may_go_on=runs >= RUNS_AT_ONCE or packets >= PACKETS_AT_ONCE)


def frame_of(datagram: memoryview) -> memoryview | None:
    """Return the frame in a datagram with ChannelData; None: its length is wrong, or nothing is in it.

    Bytes behind the packet are padding, which a client may send over UDP too.
    """
    size = datagram[2] << 8 | datagram[3] if len(datagram) >= CHANNEL_HEADER_BYTES else 0
    if not 0 < size <= min(len(datagram) - CHANNEL_HEADER_BYTES, MAX_PAYLOAD_BYTES):
        return None
    return datagram[SIZE_BYTES : CHANNEL_HEADER_BYTES + size]


def split_frames(data: memoryview) -> tuple[list[memoryview], int]:
    """Return the whole frames of a stream from the media, with their lengths, and how many bytes that is."""
    at, end = 0, len(data)
    frames: list[memoryview] = []
    while end - at >= SIZE_BYTES:
        following = at + SIZE_BYTES + (data[at] << 8 | data[at + 1])
        if following > end:
            break
        frames.append(data[at:following])
        at = following
    return frames, at


def channel_data(channel: int, frames: list[memoryview]) -> bytes:
    """Return frames as ChannelData for a stream, padded."""
    number = channel.to_bytes(2)
    parts: list[bytes | memoryview] = []
    for frame in frames:
        parts += (number, frame, _PADDING[(len(frame) + SIZE_BYTES) & 3])
    return b"".join(parts)
