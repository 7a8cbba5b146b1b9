"""A client of TURN inside the TLS of the main port: what TLS has decrypted goes to the TURN thread, and back.

Who calls it: `arrivals.py`. Whether a client speaks HTTP or TURN is known only after the event loop has made its TLS,
so the loop keeps it, and the thread gets one end of a pair of sockets in its place. A port of its own (`turn.tls_port`)
does without this way.
"""

import asyncio
import contextlib
import socket

READ_BYTES = 64 * 1024
PAIR_BYTES = 32 * 1024
"""What the operating system keeps of the pair in each direction."""
HIGH_WATER_BYTES = 16 * 1024
"""Bytes that TLS has not passed on, above which nothing more is taken of the thread, where media can still be left
out."""
UNREAD_S = 20.0
"""How long a client may read so little that it stays so. Until it reads, it is not noticed that the thread has ended
it."""


class Pump(asyncio.Protocol):
    """The protocol of such a connection."""

    def __init__(self, transport: asyncio.Transport) -> None:
        """Serve a connection whose TLS is made.

        Raises:
            OSError: there is no descriptor left.
        """
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.theirs = theirs
        """The other end of the pair, which the caller passes on."""
        for each in (self._ours, theirs):
            each.setblocking(False)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PAIR_BYTES // 2)  # which Linux doubles
        self._unsent = b""
        """What the thread has not taken."""
        self._late: asyncio.TimerHandle | None = None
        transport.set_write_buffer_limits(HIGH_WATER_BYTES)
        self._loop.add_reader(self._ours, self._take)

    def data_received(self, data: bytes) -> None:
        """Pass on what the client says. If the thread does not take it, the client has to wait."""
        if self._ours.fileno() < 0:
            return  # the thread has ended the client, which has not heard of it yet
        if self._unsent:
            self._unsent += data  # what had been read when reading was paused
            return
        self._unsent = data
        self._flush()
        if self._unsent:
            self._transport.pause_reading()
            self._loop.add_writer(self._ours, self._resume)

    def pause_writing(self) -> None:
        """Take nothing more of the thread: the client does not read."""
        if self._ours.fileno() >= 0:
            self._loop.remove_reader(self._ours)
            self._late = self._loop.call_later(UNREAD_S, self._transport.abort)

    def resume_writing(self) -> None:
        """Take what the thread has again."""
        self._cancel_late()
        if self._ours.fileno() >= 0:
            self._loop.add_reader(self._ours, self._take)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the thread that the client has ended."""
        self._close()

    def _take(self) -> None:
        try:
            data = self._ours.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if data:
            self._transport.write(data)
        else:
            self._close()
            self._transport.close()

    def _resume(self) -> None:
        self._flush()
        if not self._unsent and self._ours.fileno() >= 0:
            self._loop.remove_writer(self._ours)
            self._transport.resume_reading()

    def _flush(self) -> None:
        try:
            sent = self._ours.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._close()
            self._transport.abort()
            return
        self._unsent = self._unsent[sent:]

    def _cancel_late(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _close(self) -> None:
        self._cancel_late()
        if self._ours.fileno() < 0:
            return
        self._unsent = b""
        with contextlib.suppress(ValueError, OSError):
            self._loop.remove_reader(self._ours)
            self._loop.remove_writer(self._ours)
        self._ours.close()
