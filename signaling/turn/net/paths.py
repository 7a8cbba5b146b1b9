"""The way from an allocation to one address of our media: a pair of sockets, of which one end is the engine's.

To the engine it is a connection of ICE over TCP (RFC 6544) from the relayed address, so packets go as frames in it
(RFC 4571). Who calls it: `clients.py`, with what its client sends.
"""

import select
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from signaling.turn.net.poller import READ, WRITE, Poller
from signaling.turn.wire.framing import MAX_PAYLOAD_BYTES, SIZE_BYTES, split_frames
from signaling.turn.wire.stun_messages import Address

DOWN_BYTES = 32 * 1024
"""What the operating system keeps of a pair towards the client. What else waits stays in the engine, which drops what
is too old."""
UP_BYTES = 256 * 1024
"""What it keeps towards the media: a media thread reads at once, but may be in the middle of a turn."""
READ_BYTES = 64 * 1024
"""Bytes that are read at once, from a pair and from a client."""
BINDING_REQUEST = b"\x00\x01"
"""How a connectivity check begins, as which each path has to begin."""

HandOver = Callable[[socket.socket, Address, Address, str], None]
"""A function that gives one end of a pair to the engine, with the client's address, the relayed one, and the way."""


class Buffer:
    """Where all clients and paths of the thread read into."""

    def __init__(self) -> None:
        """Take the memory, with room for half a packet in front of what is read."""
        self.bytes = memoryview(bytearray(READ_BYTES + 2 * MAX_PAYLOAD_BYTES + 64))

    def read(self, source: socket.socket, rest: bytes, most: int = READ_BYTES) -> memoryview | None:
        """Read `most` bytes from a socket behind what was left the last time; None: it has ended.

        Raises:
            BlockingIOError: nothing has come.
        """
        self.bytes[: len(rest)] = rest
        try:
            came = source.recv_into(self.bytes[len(rest) : len(rest) + most])
        except BlockingIOError:
            raise
        except OSError:
            return None
        return self.bytes[: len(rest) + came] if came else None


@dataclass(frozen=True, slots=True)
class Common:
    """What everything in the TURN thread uses."""

    poller: Poller
    buffer: Buffer
    hand_over: HandOver
    dropped: Counter[str]


class Client(Protocol):
    """What a path uses of its client."""

    client: Address

    @property
    def way(self) -> str:
        """How it reaches the server: "turn_udp", "turn_tcp" or "turn_tls"."""

    def deliver(self, path: "Path", frames: list[memoryview]) -> None:
        """Send frames of the media to the client."""

    def set_reading(self, reads: bool) -> None:
        """Read no more of the client until the media takes it, where that can be."""

    def path_ended(self, path: "Path") -> None:
        """Forget a path."""


class Path:
    """A pair of sockets."""

    def __init__(self, common: Common, client: Client, relayed: Address, peer: Address) -> None:
        """Make the pair. The engine gets its end with the first packet.

        Raises:
            OSError: there is no descriptor left.
        """
        self.peer = peer
        self._common = common
        self._client = client
        self._relayed = relayed
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._theirs: socket.socket | None = theirs
        self._ours.setblocking(False)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, DOWN_BYTES // 2)  # which Linux doubles
        self._ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UP_BYTES // 2)
        self._unsent = b""
        """What the engine has not taken of the last frames."""
        self._rest = b""
        """Half a frame from the engine."""
        self._paused = False
        common.poller.watch(self._ours.fileno(), self)

    def send(self, frames: list[memoryview]) -> None:
        """Send frames to the media. If it does not take them, the client has to wait, or they are dropped."""
        if self._unsent:
            self._common.dropped["turn_backed_up"] += len(frames)
            return
        data = b"".join(frames)
        try:
            sent = self._ours.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        if sent < len(data):
            self._unsent = data[sent:]
            self._watch()
            self._client.set_reading(False)
        if self._theirs is not None:
            theirs, self._theirs = self._theirs, None
            self._common.hand_over(theirs, self._client.client, self._relayed, self._client.way)

    def pause(self, paused: bool) -> None:
        """Read nothing of the media while the client takes nothing."""
        if self._paused is not paused and self._ours.fileno() >= 0:
            self._paused = paused
            self._watch()

    def ready(self, events: int) -> None:
        """Read from the media, and write what it did not take before."""
        if events & WRITE and self._unsent:
            self._flush()
        if events & READ and not self._paused:
            self._read()
        if events & (select.EPOLLHUP | select.EPOLLERR):
            self.close()

    def close(self) -> None:
        """End the path, on both sides."""
        if self._ours.fileno() < 0:
            return
        self._common.poller.forget(self._ours.fileno())
        self._ours.close()
        if self._theirs is not None:
            self._theirs.close()
        self._client.path_ended(self)
        if self._unsent:
            self._client.set_reading(True)

    def _read(self) -> None:
        try:
            data = self._common.buffer.read(self._ours, self._rest)
        except BlockingIOError:
            return
        if data is None:
            self.close()
            return
        frames, used = split_frames(data)
        self._rest = bytes(data[used:])
        if len(self._rest) > MAX_PAYLOAD_BYTES + SIZE_BYTES:
            raise RuntimeError("the engine sends a frame that is too long")
        if frames:
            self._client.deliver(self, frames)

    def _flush(self) -> None:
        try:
            sent = self._ours.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._unsent = self._unsent[sent:]
        if not self._unsent:
            self._watch()
            self._client.set_reading(True)

    def _watch(self) -> None:
        self._common.poller.change(self._ours.fileno(), (0 if self._paused else READ) | (WRITE if self._unsent else 0))
