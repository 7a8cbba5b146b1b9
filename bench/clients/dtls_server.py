"""DTLS in the server role and the SRTP keys that come out of it (RFC 5764), without I/O.

It is used with servers that are the DTLS client themselves, such as Janus, and by the naive SFU.
"""

import contextlib
import struct
from dataclasses import dataclass
from typing import Any

from aiortc.rtcdtlstransport import RTCCertificate
from OpenSSL import SSL
from pylibsrtp import Policy, Session, ffi

DATAGRAM_BYTES = 1200
"""Largest DTLS record that is sent, in bytes."""
REPLAY_WINDOW = 1024
"""Packets by which one may be late, as in aiortc: repairs come late."""
RECORD_HEADER_BYTES, RECORD_LENGTH_AT = 13, 11


@dataclass(frozen=True, slots=True)
class Profile:
    """An SRTP protection profile."""

    number: Any
    """libsrtp's number of the profile."""
    key_bytes: int
    salt_bytes: int


PROFILES = {
    "SRTP_AEAD_AES_128_GCM": Profile(Policy.SRTP_PROFILE_AEAD_AES_128_GCM, 16, 12),
    "SRTP_AEAD_AES_256_GCM": Profile(Policy.SRTP_PROFILE_AEAD_AES_256_GCM, 32, 12),
    "SRTP_AES128_CM_SHA1_80": Profile(Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 16, 14),
}
"""The profiles by their names in DTLS."""


def server_context(profile: str) -> tuple[SSL.Context, str]:
    """Return a context for handshakes with one SRTP profile, and its certificate's SHA-256 fingerprint."""
    certificate = RTCCertificate.generateCertificate()
    context = SSL.Context(SSL.DTLS_METHOD)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
    context.use_certificate(certificate._cert)
    context.use_privatekey(certificate._key)
    context.set_tlsext_use_srtp(profile.encode())
    context.set_options(SSL.OP_NO_QUERY_MTU)
    return context, next(f.value for f in certificate.getFingerprints() if f.algorithm == "sha-256")


def srtp_address(session: Session) -> int:
    """Return the address of a session's srtp_t, for kernels; it is valid as long as the session exists."""
    return int(ffi.cast("uintptr_t", session._srtp[0]))


class DtlsServer:
    """One handshake. Give it what arrives and send what it returns; at its end `incoming` and `outgoing` are set."""

    def __init__(self, context: SSL.Context, fingerprint: str) -> None:
        """`fingerprint`: the SHA-256 that the client's certificate must have, as in SDP."""
        self._connection = SSL.Connection(context, None)
        self._connection.set_accept_state()
        self._connection.set_ciphertext_mtu(DATAGRAM_BYTES)
        self._fingerprint = fingerprint
        self.incoming: Session | None = None
        self.outgoing: Session | None = None

    @property
    def connected(self) -> bool:
        """Whether the handshake is complete, so that there are SRTP keys."""
        return self.outgoing is not None

    def receive(self, datagram: bytes) -> list[bytes]:
        """Take a DTLS datagram and return the datagrams to send.

        Raises:
            SSL.Error: the handshake failed.
        """
        self._connection.bio_write(datagram)
        if not self.connected:
            with contextlib.suppress(SSL.WantReadError):
                self._connection.do_handshake()
                self._derive_keys()
        return self._records()

    def timeout(self) -> list[bytes]:
        """Return the datagrams to send again after a time without an answer."""
        self._connection.DTLSv1_handle_timeout()
        return self._records()

    def _records(self) -> list[bytes]:
        records, data = [], b""
        with contextlib.suppress(SSL.WantReadError):
            data = self._connection.bio_read(1 << 16)
        while data:
            size = RECORD_HEADER_BYTES + struct.unpack_from("!H", data, RECORD_LENGTH_AT)[0]
            records.append(data[:size])
            data = data[size:]
        return records

    def _derive_keys(self) -> None:
        certificate = self._connection.get_peer_certificate()
        if certificate is None or certificate.digest("sha256").decode() != self._fingerprint.upper():
            raise SSL.Error("the certificate is not the one that was announced")
        profile = PROFILES.get(self._connection.get_selected_srtp_profile().decode())
        if profile is None:
            raise SSL.Error("no SRTP profile in common")
        length = profile.key_bytes + profile.salt_bytes
        material = self._connection.export_keying_material(b"EXTRACTOR-dtls_srtp", 2 * length)
        self.incoming = _session(profile, material, 0, Policy.SSRC_ANY_INBOUND)
        self.outgoing = _session(profile, material, 1, Policy.SSRC_ANY_OUTBOUND)


def _session(profile: Profile, material: bytes, side: int, direction: Any) -> Session:
    """Make the session of one direction. `side` 0: the client sends, 1: the server sends (RFC 5764 section 4.2)."""
    salts = 2 * profile.key_bytes
    key = material[side * profile.key_bytes : (side + 1) * profile.key_bytes]
    salt = material[salts + side * profile.salt_bytes : salts + (side + 1) * profile.salt_bytes]
    policy = Policy(key=key + salt, ssrc_type=direction, srtp_profile=profile.number)
    policy.window_size = REPLAY_WINDOW
    return Session(policy)
