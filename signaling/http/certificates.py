"""The certificate with which the main port speaks TLS, which is read again when its files change.

Who calls it: `listener.py`, at the start, with SIGHUP, and while the server runs; `arrivals.py` takes the context for
each connection that begins with TLS. Connections that are open keep what they began with.
"""

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import structlog
from cryptography import x509

from signaling.config.document import ConfigError
from signaling.config.options import TlsOptions
from signaling.config.secret_files import READABLE_BY_OTHERS
from signaling.turn.net.tls import TlsContext

CHECK_S = 5.0
"""How often the files are looked at. A change is taken over when it is as old as that, so that both are written."""
ALPN = ("http/1.1", "stun.turn")
"""What is agreed with clients that ask for a protocol (RFC 7301). There is no HTTP/2 here, which browsers would use."""

State = tuple[tuple[int, ...], ...]
"""What tells that a file was written or replaced, for certificate and key."""

log = structlog.get_logger("signaling.http")


class Certificates:
    """A context for TLS, or none, and what is needed to notice that another one has to take its place."""

    def __init__(self, options: TlsOptions | None) -> None:
        """Read the files that `options` name; None: there is no TLS.

        Raises:
            ConfigError: they cannot be used.
        """
        self.context: TlsContext | None = None
        """What a new connection gets."""
        self._options = options
        self._read: State = ()
        self._seen: State = ()
        if options is not None:
            self._seen = self._read = _state(options)
            self.context = load_context(options)
            _tell(options)

    def renew(self, options: TlsOptions | None) -> None:
        """Read the files that `options` name now. If they cannot be used, everything stays as it is, and is logged."""
        if options is None:
            self._options, self.context = None, None
            return
        self._seen = state = _state(options)
        try:
            self.context = load_context(options)
        except ConfigError as error:
            log.error("the certificate was not read again", why=str(error))
            if options == self._options:
                self._read = state
            return
        self._options, self._read = options, state
        _tell(options)

    def check(self) -> None:
        """Look at the files, and read them if they have changed and were not changed since the last look."""
        if self._options is None:
            return
        before, self._seen = self._seen, _state(self._options)
        if self._seen == before and self._seen != self._read:
            self.renew(self._options)


@contextlib.asynccontextmanager
async def keeping_fresh(certificates: Certificates) -> AsyncIterator[None]:
    """Look at the files from time to time while the block lasts."""

    async def look() -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            certificates.check()

    looking = asyncio.create_task(look(), name="certificates")
    try:
        yield
    finally:
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking


def load_context(options: TlsOptions) -> TlsContext:
    """Make a server's context: TLS 1.2 or 1.3, OpenSSL's choice of ciphers, without HTTP/2.

    Raises:
        ConfigError: a file cannot be read, is only half there, or the key is not the certificate's. The text names it.
    """
    context = TlsContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(list(ALPN))
    try:
        _chain(options)  # whose mistakes are told better than OpenSSL's
        context.load_cert_chain(options.cert_file, options.key_file, password=_no_password)
    except OSError as error:  # also what OpenSSL refuses
        which = error.filename or f"{options.cert_file} with {options.key_file}"
        raise ConfigError(f"tls: {which}: {error.strerror or error}") from error
    except _Encrypted as error:
        raise ConfigError(f"tls: {options.key_file}: the key is encrypted") from error
    except ValueError as error:
        raise ConfigError(f"tls: {options.cert_file}: no certificate in PEM") from error
    return context


def _tell(options: TlsOptions) -> None:
    """Log what has been taken over, and what an operator should know of it."""
    with contextlib.suppress(OSError, ValueError):  # replaced meanwhile: the next look finds it
        chain = _chain(options)
        ends = chain[0].not_valid_after_utc
        log.info("certificate", cert_file=options.cert_file, certificates=len(chain), valid_until=ends.isoformat())
        if ends <= datetime.now(UTC):
            log.warning("the certificate has expired, clients will refuse it", cert_file=options.cert_file)
        if os.stat(options.key_file).st_mode & READABLE_BY_OTHERS:
            log.warning("the private key of TLS can be read by others", key_file=options.key_file)


def _chain(options: TlsOptions) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(Path(options.cert_file).read_bytes())


class _Encrypted(Exception):
    """A key has a password, for which OpenSSL would ask at the terminal."""


def _no_password() -> str:
    raise _Encrypted


def _state(options: TlsOptions) -> State:
    found: list[tuple[int, ...]] = []
    for name in (options.cert_file, options.key_file):
        try:
            seen = os.stat(name)
        except OSError:
            found.append((0,))
            continue
        found.append((seen.st_mtime_ns, seen.st_size, seen.st_ino, seen.st_dev))
    return tuple(found)
