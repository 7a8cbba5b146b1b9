"""TLS of one client in the TURN thread: bytes of the connection into what the client says, and back.

Who calls it: `streams.py`. The event loop has no part in it, so that clients over TLS do not keep joins waiting. On the
main port it begins TLS, as only decrypted bytes tell that a client speaks no HTTP; this thread then goes on.
"""

import ssl

RECORD_BYTES = 64 * 1024
"""What is decrypted at once."""


class MovableTls(ssl.SSLObject):
    """TLS with which another thread can go on: it knows the buffers that it reads and writes. One thread at a time uses
    it."""

    buffers: tuple[ssl.MemoryBIO, ssl.MemoryBIO]
    """What has come of the connection, and what goes to it."""


class TlsContext(ssl.SSLContext):
    """A context whose connections can be moved, whoever begins them."""

    sslobject_class = MovableTls

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> MovableTls:
        """Begin TLS between two buffers, as event loops do."""
        made = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        assert isinstance(made, MovableTls)
        made.buffers = incoming, outgoing
        return made


class TlsFailed(Exception):
    """The handshake failed, or what came is no TLS."""


class TlsEnd:
    """Our end of a connection with TLS."""

    def __init__(self, tls: MovableTls, said: bytes = b"") -> None:
        """Go on with TLS of which this thread alone knows from now on.

        Args:
            tls: whose handshake has not begun; or is done, with nothing left to be sent.
            said: what the client has said since, of which nobody has heard.
        """
        self._end = tls
        self._incoming, self._outgoing = tls.buffers
        self._said = said
        self.is_made = bool(said)
        """The handshake is done."""

    @classmethod
    def begin(cls, context: TlsContext) -> "TlsEnd":
        """Wait for a client's hello."""
        return cls(context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True))

    @property
    def has_said(self) -> bool:
        """Whether `receive` has something to return, whatever it is given."""
        return bool(self._said)

    def receive(self, data: memoryview) -> bytes:
        """Take bytes of the connection; return what the client said in them. `to_send` may have an answer.

        Raises:
            TlsFailed: the connection has to end.
            EOFError: the client has ended it.
        """
        self._incoming.write(data)
        said, self._said = [self._said], b""
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
