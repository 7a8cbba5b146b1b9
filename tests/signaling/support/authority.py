"""A certificate authority of a test's own, and servers' certificates that it signs."""

import ipaddress
import os
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from signaling.config.options import TlsOptions

PRIVATE = 0o600


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def pem_of_key(key: ec.EllipticCurvePrivateKey, password: bytes | None = None) -> bytes:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def write_private(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    path.chmod(PRIVATE)


@dataclass
class Authority:
    """Signs certificates on P-256 for addresses and names."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    hosts: tuple[str, ...] = ("127.0.0.1", "::1", "localhost")

    def __post_init__(self) -> None:
        name = _name("aiosfu test authority")
        builder = self._builder(name, self.key, timedelta(days=2)).issuer_name(name)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(certificates=True), critical=True)
        self.certificate = builder.sign(self.key, hashes.SHA256())

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def client_context(self) -> ssl.SSLContext:
        """What trusts this authority alone."""
        return ssl.create_default_context(cadata=self.pem.decode())

    def sign(self, key: ec.EllipticCurvePrivateKey, valid_for: timedelta = timedelta(days=1)) -> bytes:
        """A server's certificate in PEM, followed by the authority's own."""
        builder = self._builder(_name(self.hosts[0]), key, valid_for).issuer_name(self.certificate.subject)
        names = x509.SubjectAlternativeName([_general(host) for host in self.hosts])
        builder = builder.add_extension(names, critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        signed = builder.sign(self.key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM) + self.pem

    def write(self, folder: Path, valid_for: timedelta = timedelta(days=1)) -> TlsOptions:
        """Write a new key and its certificate, in the place of those before."""
        key = ec.generate_private_key(ec.SECP256R1())
        options = TlsOptions(os.fspath(folder / "server.pem"), os.fspath(folder / "server.key"))
        Path(options.cert_file).write_bytes(self.sign(key, valid_for))
        write_private(Path(options.key_file), pem_of_key(key))
        return options

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, valid_for: timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder().subject_name(subject).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + valid_for)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return builder.add_extension(identifier, critical=False).add_extension(issuer, critical=False)


def _usage(*, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
