"""DTLS-SRTP (RFC 5764) over memory BIOs: no socket, no clock, no asyncio. One `DtlsConnection` per transport.

Law of driving: after `start`, `receive`, `send`, `handle_timeout` or `close` send everything that
`datagrams_to_send` returns, then wait at most `timeout_s()` for a datagram. `TransportFailure` from any of them
ends the connection: what is left to send is its alert.
"""

import contextlib
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from typing import Any

from OpenSSL import SSL
from OpenSSL._util import ffi as openssl_ffi
from OpenSSL._util import lib as openssl
from pylibsrtp import Policy, Session
from pylibsrtp._binding import ffi

from sfu.control.security.certificate import HASHES, fingerprint_of
from sfu.control.security.srtp_keys import SALT_BYTES, SendingCipher, derive
from sfu.errors import TransportFailure
from sfu.parameters import DtlsRole
from sfu.schema.capacities import PACKETS, SLOW_BYTES

MTU_BYTES = 1200
"""Largest datagram of a handshake flight. IPv6 guarantees 1280 with its headers; tunnels take some."""
RECORD_HEADER_BYTES = 13
APPLICATION_DATA = 23
"""A record's content type, its first byte (RFC 5246 section 6.2.1)."""
MAX_DATAGRAM_BYTES = SLOW_BYTES
"""No record can be longer: it came in one datagram."""
READ_BYTES = 4096
"""What one read of outgoing bytes takes; a flight may need several."""
_BUFFER = openssl_ffi.new("char[]", READ_BYTES)
"""Where OpenSSL puts what is read, until it is copied at once: the control thread has it to itself."""
WINDOW_SIZE = 1024
"""Replay window of SRTP in packets, as mediasoup has it: video bursts are reordered by more than libsrtp's 128."""
SENDING_WINDOW_SIZE = PACKETS
"""For what we send, which libsrtp shifts with every packet: a late packet is forwarded from so far behind."""

_SENDING, _RECEIVING = ThreadPoolExecutor(1, "srtp-sending"), ThreadPoolExecutor(1, "srtp-receiving")
"""Make libsrtp's sessions. malloc gives each thread memory of its own, so those of one direction lie side by side, and
not among the 80 KiB that OpenSSL takes for each handshake: at 300 subscribers a forwarded packet costs a sixth less."""


@dataclass(frozen=True, slots=True)
class SrtpProfile:
    """One protection profile: OpenSSL's name, libsrtp's number, lengths in bytes."""

    name: str
    number: int
    key_bytes: int
    salt_bytes: int


SRTP_PROFILES = (
    # GCM first: half the cost of counter mode with HMAC-SHA1 (RFC 7714, RFC 3711)
    SrtpProfile("SRTP_AEAD_AES_128_GCM", Policy.SRTP_PROFILE_AEAD_AES_128_GCM, 16, 12),
    SrtpProfile("SRTP_AEAD_AES_256_GCM", Policy.SRTP_PROFILE_AEAD_AES_256_GCM, 32, 12),
    SrtpProfile("SRTP_AES128_CM_SHA1_80", Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 16, 14),
)


class SrtpSessions:
    """The keys of a transport: libsrtp's two contexts and our cipher. Keep it alive as long as their addresses stand
    in a table."""

    def __init__(self, profile: SrtpProfile, material: bytes, role: DtlsRole) -> None:
        """material: from the exporter of RFC 5764 section 4.2 (client key, server key, client salt, server salt)."""
        self.profile = profile
        client, server = self._split(profile, material)
        theirs, ours = (client, server) if role is DtlsRole.SERVER else (server, client)
        self._receiving = _RECEIVING.submit(self._session, profile, theirs, Policy.SSRC_ANY_INBOUND).result()
        self._sending = _SENDING.submit(self._session, profile, ours, Policy.SSRC_ANY_OUTBOUND).result()
        self.cipher: SendingCipher | None = None
        """For the RTP that we send, if the profile is one of GCM's; libsrtp then has the RTCP."""
        if profile.salt_bytes == SALT_BYTES:
            key, salt = derive(ours[: profile.key_bytes], ours[profile.key_bytes :])
            self.cipher = _SENDING.submit(SendingCipher, key, salt).result()

    @staticmethod
    def _split(profile: SrtpProfile, material: bytes) -> tuple[bytes, bytes]:
        key, salt = profile.key_bytes, profile.salt_bytes
        salts = material[2 * key :]
        return material[:key] + salts[:salt], material[key : 2 * key] + salts[salt : 2 * salt]

    @staticmethod
    def _session(profile: SrtpProfile, key: bytes, direction: int) -> Session:
        policy = Policy(key=key, ssrc_type=direction, srtp_profile=profile.number)
        policy.window_size = WINDOW_SIZE if direction == Policy.SSRC_ANY_INBOUND else SENDING_WINDOW_SIZE
        # Never two packets under one index: with GCM that gives away the authentication key (RFC 7714 section 8.1).
        policy.allow_repeat_tx = False
        return Session(policy)

    def addresses(self) -> tuple[int, int]:
        """The srtp_t of the receiving and of the sending session."""
        return self._address(self._receiving), self._address(self._sending)

    @staticmethod
    def _address(session: Session) -> int:
        return int(ffi.cast("uintptr_t", session._srtp[0]))


class State(Enum):
    """How far a DTLS association is."""

    NEW = "new"
    HANDSHAKING = "handshaking"
    CONNECTED = "connected"
    ENDED = "ended"


class DtlsConnection:
    """One association. `sessions` is there from the moment that `state` is CONNECTED."""

    def __init__(self, context: SSL.Context, role: DtlsRole, fingerprints: tuple[tuple[str, str], ...]) -> None:
        """fingerprints: (hash name, hex with colons) that the peer's SDP gave; one match is enough."""
        self.role = role
        self.state = State.NEW
        self.sessions: SrtpSessions | None = None
        self._fingerprints = fingerprints
        self._ssl = SSL.Connection(context, None)
        self._ssl.set_ciphertext_mtu(MTU_BYTES)
        # What pyOpenSSL does around each of these calls costs a data message three times what OpenSSL does. A call that
        # fails is handed to it, so that it raises what it always does.
        self._handle: Any = self._ssl._ssl
        self._incoming: Any = self._ssl._into_ssl
        self._outgoing: Any = self._ssl._from_ssl
        if role is DtlsRole.SERVER:
            self._ssl.set_accept_state()
        else:
            self._ssl.set_connect_state()

    def start(self) -> None:
        """As client: make the ClientHello. As server there is nothing to do before the peer's."""
        if self.role is DtlsRole.CLIENT and self.state is State.NEW:
            self._shake_hands()

    def receive(self, datagram: bytes) -> list[bytes]:
        """Take one datagram; returns the application data in it.

        Raises:
            TransportFailure: the handshake failed, or OpenSSL refuses what the peer sent.
        """
        if self.state is State.ENDED:
            return []
        # The BIO is a stream: read it empty after each datagram, then a broken record cannot swallow the next one.
        self._ssl.bio_write(datagram)
        if self.state is not State.CONNECTED:
            self._shake_hands()
        return self._read() if self.sessions is not None else []

    def receive_record(self, datagram: bytes) -> bytes | None:
        """Take a datagram that `is_one_data_record`. Returns what is in it; None when there is nothing that is
        authentic, new and of this association.

        Raises:
            TransportFailure: OpenSSL refuses what the peer sent.
        """
        if self.state is not State.CONNECTED:
            return None
        openssl.BIO_write(self._incoming, datagram, len(datagram))
        try:
            return self._read_record()  # and no more: to find nothing would cost as much again
        except SSL.WantReadError:
            return None

    def send(self, data: bytes) -> None:
        """Encrypt application data as one record.

        Raises:
            TransportFailure: OpenSSL cannot encrypt it.
        """
        if self.state is not State.CONNECTED:
            return
        result = openssl.SSL_write(self._handle, data, len(data))
        if result <= 0:
            try:
                self._ssl._raise_ssl_error(self._handle, result)
            except SSL.Error as error:
                raise self._failure(error) from error

    def datagrams_to_send(self) -> list[bytes]:
        """What must be sent now, whole records in datagrams of at most MTU_BYTES (a larger record goes alone)."""
        waiting = b""
        while (size := openssl.BIO_read(self._outgoing, _BUFFER, READ_BYTES)) > 0:
            waiting += openssl_ffi.buffer(_BUFFER, size)[:]
            if size < READ_BYTES:
                break
        if len(waiting) <= MTU_BYTES:
            return [waiting] if waiting else []
        return split_at_records(waiting)

    def timeout_s(self) -> float | None:
        """Seconds until `handle_timeout` is due; None: no flight is waiting for an answer."""
        if self.state is State.ENDED or self.state is State.NEW:
            return None
        return self._ssl.DTLSv1_get_timeout()

    def handle_timeout(self) -> None:
        """Repeat the last flight (RFC 6347 section 4.2.4).

        Raises:
            TransportFailure: OpenSSL has repeated it twelve times.
        """
        if self.state is State.ENDED:
            return
        try:
            self._ssl.DTLSv1_handle_timeout()
        except SSL.Error as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Make the close_notify alert, if there is anybody to tell. Idempotent."""
        if self.state is State.CONNECTED:
            with contextlib.suppress(SSL.Error):  # a fatal alert came first
                self._ssl.shutdown()
        self.state = State.ENDED

    def _shake_hands(self) -> None:
        self.state = State.HANDSHAKING
        try:
            self._ssl.do_handshake()
        except SSL.WantReadError:
            return
        except SSL.Error as error:
            raise self._failure(error) from error
        self._verify_fingerprint()
        self.sessions = self._make_sessions()
        self.state = State.CONNECTED

    def _read(self) -> list[bytes]:
        """Read all records that have come."""
        received: list[bytes] = []
        while True:
            try:
                received.append(self._read_record())
            except SSL.WantReadError:
                return received

    def _read_record(self) -> bytes:
        """Read one record of application data.

        Raises:
            WantReadError: there is none.
            TransportFailure: OpenSSL refuses it.
        """
        size = openssl.SSL_read(self._handle, _BUFFER, MAX_DATAGRAM_BYTES)
        if size > 0:
            return bytes(openssl_ffi.buffer(_BUFFER, size))
        try:
            self._ssl._raise_ssl_error(self._handle, size)
        except SSL.WantReadError:
            raise
        except SSL.ZeroReturnError:
            self.state = State.ENDED
            raise TransportFailure("closed by peer") from None
        except SSL.Error as error:
            raise self._failure(error) from error
        raise RuntimeError("OpenSSL read nothing and named no error")

    def _verify_fingerprint(self) -> None:
        """RFC 8122 section 6.2: the certificate must match one of the fingerprints, in either role."""
        certificate = self._ssl.get_peer_certificate(as_cryptography=True)
        if certificate is not None:
            for algorithm, value in self._fingerprints:
                if algorithm in HASHES and fingerprint_of(certificate, algorithm) == value.upper():
                    return
        self.state = State.ENDED
        raise TransportFailure("fingerprint mismatch")

    def _make_sessions(self) -> SrtpSessions:
        selected = self._ssl.get_selected_srtp_profile().decode()
        for profile in SRTP_PROFILES:
            if profile.name == selected:
                size = 2 * (profile.key_bytes + profile.salt_bytes)
                return SrtpSessions(profile, self._ssl.export_keying_material(b"EXTRACTOR-dtls_srtp", size), self.role)
        self.state = State.ENDED
        raise TransportFailure("dtls: no SRTP profile in common")

    def _failure(self, error: SSL.Error) -> TransportFailure:
        self.state = State.ENDED
        # pyOpenSSL: Error([(library, function, reason), ...]); SysCallError(number, text)
        entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
        return TransportFailure(f"dtls: {entries[-1][2] if entries else type(error).__name__}")


def is_one_data_record(datagram: bytes) -> bool:
    """Whether a datagram is one record of application data and nothing else: then a connection that is up has nothing
    to answer, and no timer to set."""
    return (
        len(datagram) > RECORD_HEADER_BYTES
        and datagram[0] == APPLICATION_DATA
        and RECORD_HEADER_BYTES + (datagram[11] << 8 | datagram[12]) == len(datagram)
    )


def split_at_records(stream: bytes) -> list[bytes]:
    """Cut a byte stream of DTLS 1.2 records into datagrams: RFC 6347 section 4.1.1, "Multiple DTLS records may be
    placed in a single datagram", a record never spans two."""
    datagrams = []
    start = at = 0
    while at + RECORD_HEADER_BYTES <= len(stream):
        end = at + RECORD_HEADER_BYTES + struct.unpack_from("!H", stream, at + 11)[0]
        if end - start > MTU_BYTES and at > start:
            datagrams.append(stream[start:at])
            start = at
        at = end
    datagrams.append(stream[start:])
    return datagrams
