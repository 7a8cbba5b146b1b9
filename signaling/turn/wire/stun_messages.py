"""STUN messages as TURN uses them: bytes into attributes, and attributes into bytes (RFC 8489, RFC 8656).

Who calls it: `allocations.py`. Nothing here has state, and nothing that a client sends raises anything but `Malformed`.
"""

import hashlib
import hmac
import ipaddress
import struct
import zlib
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

HEADER_BYTES = 20
MAGIC_COOKIE = 0x2112A442
MAX_ATTRIBUTES = 64
"""Attributes of one message. Clients send fewer than ten, and one for each peer in a list of permissions."""
INTEGRITY_BYTES = 20
FINGERPRINT_XOR = 0x5354554E

_HEADER = struct.Struct("!HHI12s")
_ATTRIBUTE = struct.Struct("!HH")
_PADDING = b"\0\0\0"


class Method(IntEnum):
    """What a message is about (RFC 8656 section 17)."""

    BINDING = 1
    ALLOCATE = 3
    REFRESH = 4
    SEND = 6
    DATA = 7
    CREATE_PERMISSION = 8
    CHANNEL_BIND = 9


class Kind(IntEnum):
    """The class of a message, as the bits that its type has beside the method (RFC 8489 section 5)."""

    REQUEST = 0x0000
    INDICATION = 0x0010
    SUCCESS = 0x0100
    ERROR = 0x0110


class Attribute(IntEnum):
    """Types of attributes (RFC 8489 section 18.3, RFC 8656 section 18)."""

    USERNAME = 0x0006
    MESSAGE_INTEGRITY = 0x0008
    ERROR_CODE = 0x0009
    UNKNOWN_ATTRIBUTES = 0x000A
    CHANNEL_NUMBER = 0x000C
    LIFETIME = 0x000D
    XOR_PEER_ADDRESS = 0x0012
    DATA = 0x0013
    REALM = 0x0014
    NONCE = 0x0015
    XOR_RELAYED_ADDRESS = 0x0016
    REQUESTED_ADDRESS_FAMILY = 0x0017
    EVEN_PORT = 0x0018
    REQUESTED_TRANSPORT = 0x0019
    DONT_FRAGMENT = 0x001A
    XOR_MAPPED_ADDRESS = 0x0020
    RESERVATION_TOKEN = 0x0022
    FINGERPRINT = 0x8028


_KNOWN = frozenset(Attribute)
_COMPREHENSION_OPTIONAL = 0x8000
"""Attributes from this type on may be ignored by who does not know them (RFC 8489 section 14)."""


class Address(NamedTuple):
    """An IP address, packed, and a port."""

    ip: bytes
    port: int

    @property
    def family(self) -> int:
        """The IP version, 4 or 6."""
        return 4 if len(self.ip) == 4 else 6

    @property
    def host(self) -> str:
        """The IP address as text."""
        return str(ipaddress.ip_address(self.ip))


class Malformed(ValueError):
    """The bytes are no STUN message."""


class Message(NamedTuple):
    """A STUN message whose lengths fit."""

    method: int
    kind: int
    transaction: bytes
    attributes: tuple[tuple[int, bytes], ...]
    """Types and values in their order, those that MESSAGE-INTEGRITY does not cover left out."""
    integrity_at: int
    """Where MESSAGE-INTEGRITY stands; 0: there is none."""
    has_fingerprint: bool

    def first(self, kind: int) -> bytes | None:
        """Return the value of the first attribute of this type; None: there is none."""
        for each, value in self.attributes:
            if each == kind:
                return value
        return None

    def all(self, kind: int) -> list[bytes]:
        """Return the values of all attributes of this type."""
        return [value for each, value in self.attributes if each == kind]

    def unknown(self) -> list[int]:
        """Return the types that a server would have to know, and this one does not (RFC 8489 section 6.3)."""
        return [each for each, _ in self.attributes if each < _COMPREHENSION_OPTIONAL and each not in _KNOWN]


def parse(data: bytes) -> Message:
    """Read one message.

    Raises:
        Malformed: lengths do not fit, there are too many attributes, or FINGERPRINT is wrong.
    """
    if len(data) < HEADER_BYTES:
        raise Malformed("shorter than a header")
    kind, size, cookie, transaction = _HEADER.unpack_from(data)
    if cookie != MAGIC_COOKIE or kind >= 0x4000 or size & 3 or size != len(data) - HEADER_BYTES:
        raise Malformed("no header of STUN")
    attributes: list[tuple[int, bytes]] = []
    at, end, integrity_at, has_fingerprint = HEADER_BYTES, len(data), 0, False
    for _ in range(MAX_ATTRIBUTES):
        if at == end:
            break
        of_type, length = _ATTRIBUTE.unpack_from(data, at)
        following = at + 4 + (length + 3 & ~3)
        if following > end:
            raise Malformed("an attribute that does not fit")
        if of_type == Attribute.FINGERPRINT:
            _check_fingerprint(data, at, length, following)
            has_fingerprint = True
        elif integrity_at:
            pass  # RFC 8489 section 14.5: what follows MESSAGE-INTEGRITY is ignored
        elif of_type == Attribute.MESSAGE_INTEGRITY:
            if length != INTEGRITY_BYTES:
                raise Malformed("MESSAGE-INTEGRITY of a wrong length")
            integrity_at = at
        else:
            attributes.append((of_type, data[at + 4 : at + 4 + length]))
        at = following
    else:
        if at != end:
            raise Malformed("too many attributes")
    method = (kind & 0x3E00) >> 2 | (kind & 0x00E0) >> 1 | kind & 0x000F
    return Message(method, kind & 0x0110, transaction, tuple(attributes), integrity_at, has_fingerprint)


def _check_fingerprint(data: bytes, at: int, length: int, following: int) -> None:
    expected = zlib.crc32(data[:at]) ^ FINGERPRINT_XOR
    if length != 4 or following != len(data) or int.from_bytes(data[at + 4 : at + 8]) != expected:
        raise Malformed("FINGERPRINT is wrong")


def long_term_key(username: str, realm: str, password: str) -> bytes:
    """Return the key of MESSAGE-INTEGRITY for long-term credentials (RFC 8489 section 9.2.2)."""
    return hashlib.md5(f"{username}:{realm}:{password}".encode(), usedforsecurity=False).digest()


def has_integrity(data: bytes, message: Message, key: bytes) -> bool:
    """Tell whether MESSAGE-INTEGRITY of a parsed message was made with this key (RFC 8489 section 14.5)."""
    at = message.integrity_at
    if not at:
        return False
    # While it was computed, the length in the header counted up to and including this attribute.
    signed = data[:2] + (at + 4 + INTEGRITY_BYTES - HEADER_BYTES).to_bytes(2) + data[4:at]
    return hmac.compare_digest(hmac.digest(key, signed, "sha1"), data[at + 4 : at + 4 + INTEGRITY_BYTES])


def build(
    method: Method,
    kind: Kind,
    transaction: bytes,
    attributes: Iterable[tuple[int, bytes]] = (),
    *,
    key: bytes | None = None,
    fingerprint: bool = False,
) -> bytes:
    """Write a message.

    Args:
        method: what it is about.
        kind: its class.
        transaction: the 12 bytes of the transaction.
        attributes: types and values, in order.
        key: the key of MESSAGE-INTEGRITY; None: it has none.
        fingerprint: it ends with FINGERPRINT.
    """
    parts: list[bytes] = []
    for of_type, value in attributes:
        parts += (_ATTRIBUTE.pack(of_type, len(value)), value, _PADDING[: -len(value) & 3])
    body = b"".join(parts)
    if key is not None:
        head = _HEADER.pack(method | kind, len(body) + 4 + INTEGRITY_BYTES, MAGIC_COOKIE, transaction)
        digest = hmac.digest(key, head + body, "sha1")
        body += _ATTRIBUTE.pack(Attribute.MESSAGE_INTEGRITY, INTEGRITY_BYTES) + digest
    if fingerprint:
        head = _HEADER.pack(method | kind, len(body) + 8, MAGIC_COOKIE, transaction)
        checksum = zlib.crc32(head + body) ^ FINGERPRINT_XOR
        return head + body + _ATTRIBUTE.pack(Attribute.FINGERPRINT, 4) + checksum.to_bytes(4)
    return _HEADER.pack(method | kind, len(body), MAGIC_COOKIE, transaction) + body


def xor_address(address: Address, transaction: bytes) -> bytes:
    """Write the value of an XOR-*-ADDRESS (RFC 8489 section 14.2)."""
    mask = MAGIC_COOKIE.to_bytes(4) + transaction
    port = address.port ^ (MAGIC_COOKIE >> 16)
    return struct.pack("!xBH", 1 if address.family == 4 else 2, port) + _xor(address.ip, mask)


def read_xor_address(value: bytes, transaction: bytes) -> Address | None:
    """Read the value of an XOR-*-ADDRESS; None: it is none."""
    if len(value) != {1: 8, 2: 20}.get(value[1] if len(value) > 1 else 0):
        return None
    port = int.from_bytes(value[2:4]) ^ (MAGIC_COOKIE >> 16)
    return Address(_xor(value[4:], MAGIC_COOKIE.to_bytes(4) + transaction), port)


def _xor(value: bytes, mask: bytes) -> bytes:
    size = len(value)
    return (int.from_bytes(value) ^ int.from_bytes(mask[:size])).to_bytes(size)


def error_code(code: int) -> tuple[int, bytes]:
    """Return the attribute ERROR-CODE without a reason phrase, which nobody reads (RFC 8489 section 14.8)."""
    return Attribute.ERROR_CODE, struct.pack("!xxBB", code // 100, code % 100)
