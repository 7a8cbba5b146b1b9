"""The certificate of this process and the OpenSSL context that all its DTLS connections share.

Self-signed ECDSA P-256 (RFC 8827 section 6.5), made at every start: peers know it by the fingerprint in the SDP.
One context for all connections halves the cost of a handshake.
"""

import datetime
import secrets

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

VALIDITY = datetime.timedelta(days=365)
"""Longer than a process runs; peers compare fingerprints and do not look at it, but expired ones are refused."""

DTLS_1_2 = 0xFEFD
CIPHERS = ":".join(
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",  # as client we meet servers with RSA certificates
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-AES128-SHA",
        "ECDHE-RSA-AES128-SHA",
    )
)
HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha-256": hashes.SHA256(),
    "sha-384": hashes.SHA384(),
    "sha-512": hashes.SHA512(),
}
"""Fingerprint hashes that we verify (RFC 8122 section 5); SHA-1 is refused."""


def fingerprint_of(certificate: x509.Certificate, algorithm: str) -> str:
    """Upper-case hex with colons (RFC 8122 section 5). `algorithm` is a key of `HASHES`."""
    return certificate.fingerprint(HASHES[algorithm]).hex(":").upper()


class LocalCertificate:
    """Our certificate: `fingerprint` for the SDP, `context` for DTLS connections with these SRTP profiles."""

    def __init__(self, srtp_profiles: tuple[str, ...]) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._sign()
        self.fingerprint = ("sha-256", fingerprint_of(self._certificate, "sha-256"))
        self.context = self._make_context(srtp_profiles)

    def _sign(self) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, secrets.token_hex(8))])
        now = datetime.datetime.now(tz=datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))  # peers' clocks differ
            .not_valid_after(now + VALIDITY)
            .sign(self._key, hashes.SHA256())
        )

    def _make_context(self, srtp_profiles: tuple[str, ...]) -> SSL.Context:
        context = SSL.Context(SSL.DTLS_METHOD)
        # 1.2 and nothing else: records of 1.3 have another header, and `dtls` splits flights at record headers.
        context.set_min_proto_version(DTLS_1_2)
        context.set_max_proto_version(DTLS_1_2)
        # The memory BIO has no MTU to ask for, and OpenSSL would fall back to fragments of 256 bytes.
        context.set_options(SSL.OP_NO_QUERY_MTU | SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # a third of what an idle connection holds
        # Any certificate passes here: it is compared with the fingerprints of the SDP after the handshake.
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
        context.use_certificate(self._certificate)
        context.use_privatekey(self._key)
        context.set_cipher_list(CIPHERS.encode())
        context.set_tlsext_use_srtp(":".join(srtp_profiles).encode())
        return context
