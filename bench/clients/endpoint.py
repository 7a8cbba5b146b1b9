"""One WebRTC endpoint of the load generator: ICE (controlling), DTLS in either role, SRTP, over a socket of its own.

Hundreds may connect at the same time. Media is sent and received by `bench.generator`. STUN comes from aioice and DTLS
from pyOpenSSL, so that no code of the server tests itself.
"""

import contextlib
import secrets
import socket
import struct
from typing import Any

from aioice import stun
from aiortc.rtcdtlstransport import RTCCertificate
from OpenSSL import SSL
from pylibsrtp import Policy, Session, ffi

from bench.clients.arrivals import DATAGRAM_BYTES, Arrivals, answers, is_dtls
from sfu.parameters import DtlsRole, IceCredentials

PROFILE = b"SRTP_AEAD_AES_128_GCM"
KEY_BYTES, SALT_BYTES = 16, 12
RECEIVE_BYTES = 1 << 20


def make_context() -> tuple[SSL.Context, tuple[str, str]]:
    """Make one DTLS context for all endpoints; return it with its certificate's (hash name, fingerprint)."""
    certificate = RTCCertificate.generateCertificate()
    context = SSL.Context(SSL.DTLS_METHOD)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
    context.use_certificate(certificate._cert)
    context.use_privatekey(certificate._key)
    context.set_tlsext_use_srtp(PROFILE)
    context.set_options(SSL.OP_NO_QUERY_MTU)
    fingerprint = next(f for f in certificate.getFingerprints() if f.algorithm == "sha-256")
    return context, ("sha-256", fingerprint.value)


class Endpoint:
    """A connected transport: `fd` is connected to the server, `incoming` and `outgoing` are srtp_t addresses."""

    def __init__(
        self,
        context: SSL.Context,
        server: tuple[str, int],
        keeps_dtls: bool = False,
        role: DtlsRole = DtlsRole.CLIENT,
    ) -> None:
        """Bind a socket; `connect` does the rest.

        Args:
            keeps_dtls: keep the DTLS connection after the handshake, which data channels need. It has 70 KiB.
            role: this end's role in DTLS, as the server's answer decides.
        """
        self._context = context
        self.role = role
        self._keeps_dtls = keeps_dtls
        self._dtls: SSL.Connection | None = None
        self.ufrag, self.password = secrets.token_hex(4), secrets.token_hex(12)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        self.socket.connect(server)
        self._check = b""
        self._sessions: list[Session] = []
        self.incoming = self.outgoing = 0

    @property
    def fd(self) -> int:
        return self.socket.fileno()

    async def connect(self, remote: IceCredentials) -> None:
        """Make the ICE check and the DTLS handshake, and derive the SRTP keys.

        Raises:
            TimeoutError: the server does not answer.
            SSL.Error: the server refuses the handshake.
        """
        self.socket.setblocking(False)
        self._check = self._binding_request(remote)
        arrivals = Arrivals(self.socket)
        self.check()
        while not answers(datagram := await arrivals.next(), self._check):
            if not datagram:
                self.check()
        arrivals.awaited = "DTLS handshake"
        connection = await self._shake_hands(arrivals)
        self._derive_keys(connection)
        if self._keeps_dtls:
            self._dtls = connection

    async def _shake_hands(self, arrivals: Arrivals) -> SSL.Connection:
        """Make the DTLS handshake in the role of this end, and return its connection."""
        connection = SSL.Connection(self._context, None)
        if self.role is DtlsRole.CLIENT:
            connection.set_connect_state()
        else:
            connection.set_accept_state()
        connection.set_ciphertext_mtu(1200)
        while True:
            try:
                connection.do_handshake()
                break
            except SSL.WantReadError:
                self._send_records(connection)
            datagram = await arrivals.next()
            if not datagram:
                connection.DTLSv1_handle_timeout()
            elif is_dtls(datagram):
                connection.bio_write(datagram)
        self._send_records(connection)
        return connection

    @property
    def check_datagram(self) -> bytes:
        """Return the connectivity check that `check` sends; for a connected endpoint."""
        return self._check

    def _binding_request(self, remote: IceCredentials) -> bytes:
        message = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
        message.attributes["USERNAME"] = f"{remote.ufrag}:{self.ufrag}"
        message.attributes["PRIORITY"] = 2130706431
        message.attributes["ICE-CONTROLLING"] = secrets.randbits(64)
        message.attributes["USE-CANDIDATE"] = None
        message.add_message_integrity(remote.password.encode())
        return bytes(message)

    def check(self) -> None:
        """Send a connectivity check, which also keeps the server's consent (RFC 7675)."""
        with contextlib.suppress(OSError):
            self.socket.send(self._check)

    def _derive_keys(self, connection: SSL.Connection) -> None:
        material = connection.export_keying_material(b"EXTRACTOR-dtls_srtp", 2 * (KEY_BYTES + SALT_BYTES))
        own = 0 if self.role is DtlsRole.CLIENT else 1  # RFC 5764 section 4.2: the client's keys come first
        self.outgoing = self._session(material, own, Policy.SSRC_ANY_OUTBOUND)
        self.incoming = self._session(material, 1 - own, Policy.SSRC_ANY_INBOUND)

    def _send_records(self, connection: SSL.Connection) -> None:
        with contextlib.suppress(SSL.WantReadError):
            data = connection.bio_read(65536)
            while data:
                size = 13 + struct.unpack_from("!H", data, 11)[0]
                with contextlib.suppress(OSError):  # as if it were lost: it is sent again
                    self.socket.send(data[:size])
                data = data[size:]

    def _session(self, material: bytes, side: int, kind: Any) -> int:
        key = material[side * KEY_BYTES : (side + 1) * KEY_BYTES]
        start = 2 * KEY_BYTES + side * SALT_BYTES
        policy = Policy(
            key=key + material[start : start + SALT_BYTES],
            ssrc_type=kind,
            srtp_profile=Policy.SRTP_PROFILE_AEAD_AES_128_GCM,
        )
        session = Session(policy)
        self._sessions.append(session)
        return int(ffi.cast("uintptr_t", session._srtp[0]))

    def send_rtp(self, packet: bytes) -> None:
        """Protect and send one plaintext RTP packet."""
        with contextlib.suppress(OSError):
            self.socket.send(self._sessions[0].protect(packet))

    def send_data(self, data: bytes) -> None:
        """Send application data as one DTLS record; for endpoints that keep DTLS.

        Raises:
            SSL.Error: the connection has ended.
            OSError: the socket does not take the datagram.
        """
        assert self._dtls is not None
        self._dtls.send(data)
        self.socket.send(self._dtls.bio_read(DATAGRAM_BYTES))

    def receive_data(self, datagram: bytes) -> list[bytes]:
        """Return the application data in a DTLS datagram; for endpoints that keep DTLS.

        Raises:
            SSL.Error: the datagram is not of this connection, or the connection has ended.
        """
        assert self._dtls is not None
        self._dtls.bio_write(datagram)
        found = []
        while True:
            try:
                found.append(self._dtls.recv(DATAGRAM_BYTES))
            except SSL.WantReadError:
                return found

    def close(self) -> None:
        self.socket.close()
        self._sessions.clear()
