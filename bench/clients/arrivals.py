"""What comes to a socket while a transport is being connected, and when it is time to repeat what was sent.

STUN and DTLS run over datagrams that may be lost, so each end repeats what is not answered: a connectivity check until
its response has come (RFC 8489 section 6.2.1), a flight of DTLS when its timer has run out (RFC 6347 section 4.2.4).
"""

import asyncio
import contextlib
import socket

CONNECT_TIMEOUT_S = 10
"""For the connectivity check and the DTLS handshake together."""
RETRY_S = 0.5
"""Between repetitions: the least timeout of a check (RFC 8445 section 14.3). It is not doubled, because the network is
loopback: who does not answer there is busy or has not begun, and no path has to be spared."""
DATAGRAM_BYTES = 4096
BINDING_SUCCESS = b"\x01\x01"
"""Type of a success response to a STUN binding request."""


def is_stun(datagram: bytes) -> bool:
    """Whether a datagram is a STUN message (RFC 7983)."""
    return bool(datagram) and datagram[0] < 4


def is_dtls(datagram: bytes) -> bool:
    """Whether a datagram holds DTLS records (RFC 7983)."""
    return bool(datagram) and 20 <= datagram[0] < 64


def answers(datagram: bytes, check: bytes) -> bool:
    """Whether a datagram is the success response to the connectivity check, by magic cookie and transaction id."""
    return datagram[:2] == BINDING_SUCCESS and datagram[4:20] == check[4:20]


class Arrivals:
    """Waits for the datagrams of one connected, non-blocking socket for at most CONNECT_TIMEOUT_S in all."""

    def __init__(self, receiver: socket.socket) -> None:
        """Time begins now. Needs a running event loop."""
        self._socket = receiver
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.time() + CONNECT_TIMEOUT_S
        self._due = self._loop.time() + RETRY_S
        self.awaited = "answer to the connectivity check"
        """What is waited for, in the words of the error."""

    async def next(self) -> bytes:
        """The next datagram, or b"" when RETRY_S have passed since the last repetition, whatever came meanwhile.

        Raises TimeoutError when the time for connecting is over. That nobody listens at the other end is no error: a
        server may open its port late.
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
        """Wait until there is something to receive, or so long.

        It is received by the caller: to cancel `sock_recv` may throw away a datagram that it has just received.
        """
        ready = asyncio.Event()
        self._loop.add_reader(self._socket, ready.set)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await ready.wait()
        finally:
            self._loop.remove_reader(self._socket)
