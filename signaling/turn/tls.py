"""TLS of one client in the TURN thread: bytes of the connection into what the client says, and back.

Who calls it: `streams.py`. The event loop has no part in it, so that clients over TLS do not keep joins waiting.
"""

import ssl

RECORD_BYTES = 64 * 1024
"""What is decrypted at once."""


class TlsFailed(Exception):
    """The handshake failed, or what came is no TLS."""


class TlsEnd:
    """Our end of a connection with TLS."""

    def __init__(self, context: ssl.SSLContext) -> None:
        """Wait for the client's hello."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._end = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.is_made = False
        """The handshake is done."""

    def receive(self, data: memoryview) -> bytes:
        """Take bytes of the connection; return what the client said in them. `to_send` may have an answer.

        Raises:
            TlsFailed: the connection has to end.
            EOFError: the client has ended it.
        """
        self._incoming.write(data)
        said: list[bytes] = []
        try:
            if not self.is_made:
                self._end.do_handshake()
                self.is_made = True
            while True:
                plain = self._end.read(RECORD_BYTES)
                if not plain:
                    raise EOFError
                said.append(plain)
        except ssl.SSLWantReadError:
            return b"".join(said)
        except ssl.SSLError as error:
            if error.reason == "SSLV3_ALERT_CLOSE_NOTIFY" or isinstance(error, ssl.SSLZeroReturnError):
                raise EOFError from error
            raise TlsFailed(error.reason or "") from error

    def send(self, data: bytes) -> bytes:
        """Return what the connection is to carry so that the client gets `data`.

        Raises:
            TlsFailed: the handshake has not ended, or TLS has.
        """
        try:
            self._end.write(data)
        except ssl.SSLError as error:
            raise TlsFailed(error.reason or "") from error
        return self._outgoing.read()

    def to_send(self) -> bytes:
        """Return what TLS itself has for the client: its part of the handshake, alerts."""
        return self._outgoing.read()
