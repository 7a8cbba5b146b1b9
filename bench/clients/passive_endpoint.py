"""One WebRTC endpoint of the load generator for servers that are the DTLS client: ICE (controlling), DTLS server, SRTP.

Its socket is bound before the server's address is known, because its own candidate stands in what it offers. The
endpoint for servers that are the DTLS server is `bench.clients.endpoint`.
"""

import contextlib
import secrets
import socket

from aioice import stun
from OpenSSL import SSL

from bench.clients.arrivals import Arrivals, answers, is_dtls, is_stun
from bench.clients.dtls_server import DtlsServer, srtp_address
from bench.clients.endpoint import RECEIVE_BYTES

PRIORITY = 2130706431
"""The priority of a host candidate (RFC 8445 section 5.1.2)."""


class PassiveEndpoint:
    """A transport: its `socket` and, once connected, the srtp_t addresses `incoming` and `outgoing`."""

    def __init__(self, address: str) -> None:
        """Bind a socket to `address`, an IPv4 address of this machine."""
        self.ufrag, self.password = secrets.token_hex(4), secrets.token_hex(12)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        self.socket.setblocking(False)
        self.socket.bind((address, 0))
        self.check = b""
        """The datagram of the connectivity check; set by `connect`."""
        self.incoming = self.outgoing = 0
        self._dtls: DtlsServer | None = None

    @property
    def candidate(self) -> str:
        """Our only candidate, as an attribute of SDP."""
        address, port = self.socket.getsockname()
        return f"a=candidate:1 1 udp {PRIORITY} {address} {port} typ host\r\na=end-of-candidates\r\n"

    async def connect(
        self, server: tuple[str, int], credentials: tuple[str, str], context: SSL.Context, fingerprint: str
    ) -> None:
        """Make the ICE check and the DTLS handshake, and derive the SRTP keys.

        Args:
            server: its address.
            credentials: the server's ufrag and password.
            context: from `dtls_server.server_context`.
            fingerprint: the SHA-256 of the server's certificate.

        Raises:
            TimeoutError: the server does not answer.
        """
        self.socket.connect(server)
        self.check = self._binding_request(*credentials)
        dtls = self._dtls = DtlsServer(context, fingerprint)
        arrivals = Arrivals(self.socket)
        answered = False
        self._send(self.check)
        while not dtls.connected:
            datagram = await arrivals.next()
            if not answered and answers(datagram, self.check):
                answered = True
                arrivals.awaited = "DTLS handshake"
            elif is_stun(datagram):
                self._answer(datagram)
            elif is_dtls(datagram):
                self._send_all(dtls.receive(datagram))
            elif not datagram:
                self._send_all([self.check, *dtls.timeout()])
        assert dtls.incoming is not None
        assert dtls.outgoing is not None
        self.incoming, self.outgoing = srtp_address(dtls.incoming), srtp_address(dtls.outgoing)

    def _send_all(self, datagrams: list[bytes]) -> None:
        for datagram in datagrams:
            self._send(datagram)

    def _send(self, datagram: bytes) -> None:
        with contextlib.suppress(OSError):
            self.socket.send(datagram)

    def _answer(self, datagram: bytes) -> None:
        """Answer a connectivity check. Janus sends checks although it announces `ice-lite`."""
        with contextlib.suppress(ValueError):
            request = stun.parse_message(datagram)
            if request.message_class == stun.Class.REQUEST:
                response = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, request.transaction_id)
                response.attributes["XOR-MAPPED-ADDRESS"] = self.socket.getpeername()
                response.add_message_integrity(self.password.encode())
                self._send(bytes(response))

    def _binding_request(self, ufrag: str, password: str) -> bytes:
        message = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
        message.attributes["USERNAME"] = f"{ufrag}:{self.ufrag}"
        message.attributes["PRIORITY"] = PRIORITY
        message.attributes["ICE-CONTROLLING"] = secrets.randbits(64)
        message.attributes["USE-CANDIDATE"] = None
        message.add_message_integrity(password.encode())
        return bytes(message)

    def close(self) -> None:
        """Close the socket. The srtp_t addresses are invalid afterwards."""
        self.socket.close()
        self.incoming = self.outgoing = 0
        self._dtls = None
