"""signaling/http/first_bytes.py: what a connection speaks, and PROXY headers."""

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signaling.http.first_bytes import (
    MAGIC_COOKIE,
    MAX_PROXY_HEADER_BYTES,
    NEEDED_BYTES,
    PROXY_BINARY,
    BadProxyHeader,
    Protocol,
    ProxyHeader,
    begins_proxy_header,
    read_proxy_header,
    recognize,
)

ALLOCATE = struct.pack("!HH", 3, 0) + MAGIC_COOKIE + bytes(12)
BINDING = struct.pack("!HH", 1, 0) + MAGIC_COOKIE + bytes(12)
FRAME = struct.pack("!H", len(BINDING)) + BINDING
LONG_FRAME = struct.pack("!H", 0x05DC) + BINDING
CLIENT_HELLO = bytes.fromhex("1603010200")
REQUEST = b"GET / HTTP/1.1\r\n"


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (b"", None),
        (REQUEST, Protocol.HTTP),
        (b"P", Protocol.HTTP),
        (b"get", Protocol.HTTP),
        (CLIENT_HELLO, Protocol.TLS),
        (b"\x16", Protocol.TLS),
        (ALLOCATE, Protocol.TURN),
        (BINDING, Protocol.TURN),
        (FRAME, Protocol.ICE_TCP),
        (LONG_FRAME, Protocol.ICE_TCP),
        (FRAME[:9], None),
        (bytes(10), Protocol.UNKNOWN),
        (struct.pack("!H", 20) + b"\x80" + bytes(20), Protocol.UNKNOWN),
        (b"\x06" + BINDING, Protocol.UNKNOWN),
        (b"\r\n", Protocol.UNKNOWN),
        (b"\x80\x2e\x01", Protocol.UNKNOWN),  # SSL 2
        (b"\x40\x00", Protocol.UNKNOWN),  # ChannelData does not come first
        (b"\xff", Protocol.UNKNOWN),
    ],
)
def test_the_first_bytes_tell_the_protocol(first: bytes, expected: Protocol | None) -> None:
    assert recognize(first) is expected


@given(st.binary(max_size=40))
def test_ten_bytes_always_tell_and_more_do_not_change_it(first: bytes) -> None:
    told = [recognize(first[:size]) for size in range(len(first) + 1)]
    if len(first) >= NEEDED_BYTES:
        assert told[NEEDED_BYTES] is not None
    assert len({each for each in told if each is not None}) <= 1
    assert None not in told[next((n for n, each in enumerate(told) if each is not None), len(told)) :]


def binary(
    command: int = 0x21, family: int = 0x11, source: str = "203.0.113.7", port: int = 4711, extra: bytes = b""
) -> bytes:
    address = ipaddress.ip_address(source).packed
    body = address + bytes(len(address)) + struct.pack("!HH", port, 443) + extra
    return PROXY_BINARY + struct.pack("!BBH", command, family, len(body)) + body


TEXT = b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n"
HEADERS = [
    (TEXT, ("203.0.113.7", 4711)),
    (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n", ("2001:db8::7", 4711)),
    (b"PROXY TCP6 ::ffff:203.0.113.7 ::1 4711 443\r\n", ("203.0.113.7", 4711)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None),
    (binary(), ("203.0.113.7", 4711)),
    (binary(family=0x21, source="2001:db8::7"), ("2001:db8::7", 4711)),
    (binary(family=0x21, source="::ffff:203.0.113.7"), ("203.0.113.7", 4711)),
    (binary(extra=b"\x03\x00\x04abcd"), ("203.0.113.7", 4711)),
    (binary(command=0x20), None),
    (PROXY_BINARY + b"\x20\x00\x00\x00", None),
    (PROXY_BINARY + b"\x21\x00\x00\x00", None),
    (binary(family=0x31, source="2001:db8::7"), None),
]


@pytest.mark.parametrize(("header", "client"), HEADERS)
def test_a_proxy_header_tells_the_client_once_it_is_whole(header: bytes, client: tuple[str, int] | None) -> None:
    for size in range(len(header)):
        assert read_proxy_header(header[:size]) is None
    for behind in (b"", REQUEST, CLIENT_HELLO, FRAME):
        assert read_proxy_header(header + behind) == ProxyHeader(len(header), client)
    assert begins_proxy_header(header)


@pytest.mark.parametrize(
    "first",
    [
        REQUEST,
        b"POST / HTTP/1.1\r\n",
        CLIENT_HELLO,
        b"PROXY TCP4 203.0.113.7 198.51.100.1 4711\r\n",
        b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\n",
        b"PROXY TCP4 203.0.113.777 198.51.100.1 4711 443\r\n",
        b"PROXY TCP4 203.0.113.7 198.51.100.1 70000 443\r\n",
        b"PROXY TCP5 203.0.113.7 198.51.100.1 4711 443\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 4711 443\r\n",
        b"PROXY UNKNOWN" + b" " * 107 + b"\r\n",
        b"PROXY " + b"x" * 101,
        PROXY_BINARY + b"\x11\x11\x00\x0c" + bytes(12),
        PROXY_BINARY + b"\x22\x11\x00\x0c" + bytes(12),
        PROXY_BINARY + b"\x21\x11\x00\x0b" + bytes(11),
        PROXY_BINARY + b"\x21\x21\x00\x0c" + bytes(12),
        binary(extra=bytes(MAX_PROXY_HEADER_BYTES)),
        PROXY_BINARY[:-1] + b"\x00" + binary()[12:],
    ],
)
def test_what_is_no_proxy_header_is_refused(first: bytes) -> None:
    with pytest.raises(BadProxyHeader):
        read_proxy_header(first)


@given(st.sampled_from([b"", b"PROXY ", PROXY_BINARY, PROXY_BINARY + b"\x21\x11", TEXT]), st.binary(max_size=3000))
def test_any_bytes_are_a_header_or_none_or_half_of_one(beginning: bytes, rest: bytes) -> None:
    first = beginning + rest
    try:
        header = read_proxy_header(first)
    except BadProxyHeader:
        return
    if header is None:
        assert len(first) < MAX_PROXY_HEADER_BYTES
    else:
        assert 0 < header.size <= min(len(first), MAX_PROXY_HEADER_BYTES)
