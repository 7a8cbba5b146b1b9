"""What the first bytes of a TCP connection say about its protocol, and the PROXY header that may come before them.

Who calls it: `arrivals.py`, with bytes that were looked at and not yet read, and with what TLS has decrypted first.
The bytes decide alone: TURN clients offer no ALPN, and Firefox names no server when it speaks TURN over TLS.
"""

import ipaddress
import re
import struct
from enum import Enum
from typing import NamedTuple

NEEDED_BYTES = 10
"""Bytes that tell every protocol: a frame's length of 2, and the first 8 of a STUN message."""
MAX_PROXY_HEADER_BYTES = 2048
"""Bytes of a PROXY header with everything that the proxy adds to the addresses. A longer one is refused."""
MAX_TEXT_HEADER_BYTES = 107
"""Bytes of a PROXY header of version 1, by its specification."""
TLS_HANDSHAKE = 0x16
"""The type of the first record of TLS (RFC 8446 section 5.1)."""
MAX_FIRST_STUN_BYTE = 0x05
"""A STUN message begins with its type, and a frame (RFC 4571) with its length: 0x05DC is 1,500 bytes."""
MAGIC_COOKIE = bytes.fromhex("2112a442")
"""Bytes 4 to 7 of a STUN message (RFC 8489 section 5)."""

PROXY_TEXT = b"PROXY "
PROXY_BINARY = b"\r\n\r\n\x00\r\nQUIT\n"
_TEXT_HEADER = re.compile(
    rb"PROXY (?:TCP[46] (?P<source>[0-9a-fA-F.:]+) [0-9a-fA-F.:]+ (?P<port>\d{1,5}) \d{1,5}|UNKNOWN[^\r\n]*)\r\n"
)
_LOCAL, _PROXY = 0x20, 0x21
"""Version 2 with its command: a connection of the proxy itself, and one of a client."""
_TCP4, _TCP6 = 0x11, 0x21
"""Family and transport of the addresses in a binary header."""

Address = tuple[str, int]
"""The IP address and the port of a peer."""


class Protocol(Enum):
    """What a connection speaks."""

    HTTP = "http"
    TLS = "tls"
    ICE_TCP = "ice_tcp"
    """Frames (RFC 4571), of which the first holds a STUN message, as in RFC 6544."""
    TURN = "turn"
    """STUN messages and ChannelData without frames (RFC 8656)."""
    UNKNOWN = "unknown"


class ProxyHeader(NamedTuple):
    """A PROXY header that has arrived whole."""

    size: int
    """The bytes of the header, which precede those of the client."""
    client: Address | None
    """Where the client is; None: the proxy does not say, or the connection is its own."""


class BadProxyHeader(ValueError):
    """The bytes are no PROXY header, or one that is too long."""


def recognize(first: bytes) -> Protocol | None:
    """Return what a connection with these first bytes speaks; None: more of the first `NEEDED_BYTES` are needed."""
    if not first:
        return None
    if first[0] == TLS_HANDSHAKE:
        return Protocol.TLS
    if first[:1].isalpha():
        return Protocol.HTTP
    if first[0] > MAX_FIRST_STUN_BYTE:
        return Protocol.UNKNOWN
    if len(first) < NEEDED_BYTES:
        return None
    if first[4:8] == MAGIC_COOKIE:
        return Protocol.TURN
    return Protocol.ICE_TCP if first[6:10] == MAGIC_COOKIE else Protocol.UNKNOWN


def begins_proxy_header(first: bytes) -> bool:
    """Tell whether a PROXY header begins here, whole or not."""
    return first.startswith((PROXY_TEXT, PROXY_BINARY))


def read_proxy_header(first: bytes) -> ProxyHeader | None:
    """Read the PROXY header, version 1 or 2, with which a connection must begin; None: more bytes are needed.

    Raises:
        BadProxyHeader: the connection begins with something else.
    """
    for signature, read in ((PROXY_TEXT, _read_text), (PROXY_BINARY, _read_binary)):
        if first[: len(signature)] == signature[: len(first)]:
            return read(first) if len(first) > len(signature) else None
    raise BadProxyHeader("no PROXY header")


def _read_text(first: bytes) -> ProxyHeader | None:
    found = _TEXT_HEADER.match(first[:MAX_TEXT_HEADER_BYTES])
    if found is None:
        if b"\n" in first or len(first) >= MAX_TEXT_HEADER_BYTES:
            raise BadProxyHeader("malformed PROXY header")
        return None
    if found["source"] is None:
        return ProxyHeader(found.end(), None)
    return ProxyHeader(found.end(), _address(found["source"].decode(), int(found["port"])))


def _read_binary(first: bytes) -> ProxyHeader | None:
    if len(first) < 16:
        return None
    command, family, length = struct.unpack_from("!BBH", first, len(PROXY_BINARY))
    size = 16 + length
    if command not in (_LOCAL, _PROXY) or size > MAX_PROXY_HEADER_BYTES:
        raise BadProxyHeader("malformed PROXY header")
    if len(first) < size:
        return None
    if command == _LOCAL or family not in (_TCP4, _TCP6):
        return ProxyHeader(size, None)
    address_bytes = 4 if family == _TCP4 else 16
    if length < 2 * address_bytes + 4:
        raise BadProxyHeader("malformed PROXY header")
    (port,) = struct.unpack_from("!H", first, 16 + 2 * address_bytes)
    return ProxyHeader(size, _address(first[16 : 16 + address_bytes], port))


def _address(host: str | bytes, port: int) -> Address:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise BadProxyHeader("malformed PROXY header") from None
    if port > 0xFFFF:
        raise BadProxyHeader("malformed PROXY header")
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address), port
