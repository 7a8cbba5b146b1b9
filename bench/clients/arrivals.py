"""The datagrams that arrive while a transport is being connected, and the times at which to repeat what was sent.

STUN and DTLS run over datagrams that may be lost, so each end repeats what is not answered: a connectivity check until
its response has come (RFC 8489 section 6.2.1), a flight of DTLS when its timer has run out (RFC 6347 section 4.2.4).
"""

import asyncio
import contextlib
import socket

CONNECT_TIMEOUT_S = 10
"""The time for the connectivity check and the DTLS handshake together."""
RETRY_S = 0.5
"""The time between repetitions: the least timeout of a check (RFC 8445 section 14.3). It is not doubled, because on
loopback a server that does not answer is busy or has not begun, and there is no path to spare."""
DATAGRAM_BYTES = 4096
BINDING_SUCCESS = b"\x01\x01"
"""The type of a success response to a STUN binding request."""


def is_stun(datagram: bytes) -> bool:
    """Tell whether a datagram is a STUN message (RFC 7983 section 7)."""
    return bool(datagram) and datagram[0] < 4


def is_dtls(datagram: bytes) -> bool:
    """Tell whether a datagram holds DTLS records (RFC 7983 section 7)."""
    return bool(datagram) and 20 <= datagram[0] < 64


def answers(datagram: bytes, check: bytes) -> bool:
    """Tell whether a datagram is the success response to a connectivity check, by magic cookie and transaction id."""
    return datagram[:2] == BINDING_SUCCESS and datagram[4:20] == check[4:20]


class Arrivals:
    """Waits for the datagrams of one connected, non-blocking socket for at most CONNECT_TIMEOUT_S in all."""

    def __init__(self, receiver: socket.socket) -> None:
        """Start the time. An event loop must be running."""
        self._socket = receiver
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.time() + CONNECT_TIMEOUT_S
        self._due = self._loop.time() + RETRY_S
        self.awaited = "answer to the connectivity check"
        """What the caller waits for, as the error names it."""

    async def next(self) -> bytes:
        """Return the next datagram, or b"" if RETRY_S have passed since the last repetition, whatever came meanwhile.

        It is no error if nobody listens at the other end, because a server may open its port late.

        Raises:
            TimeoutError: the time for connecting is over.
        """
        while True:
            now = self._loop.time()
            if now >= self._end:
                raise TimeoutError(f"no {self.awaited} in {CONNECT_TIMEOUT_S} s")
            if now >= self._due:
                self._due = now + RETRY_S
                return b""
            try:
                datagram = self._socket.recv(DATAGRAM_BYTES)
            except BlockingIOError:
                await self._readable(min(self._due, self._end) - now)
            except ConnectionRefusedError:
                continue
            else:
                if datagram:
                    return datagram

    async def _readable(self, seconds: float) -> None:
        """Wait until there is something to receive, or for `seconds`.

        The caller receives it. Cancelling `sock_recv` could lose a datagram that it has just received.
        """
        ready = asyncio.Event()
        self._loop.add_reader(self._socket, ready.set)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await ready.wait()
        finally:
            self._loop.remove_reader(self._socket)
