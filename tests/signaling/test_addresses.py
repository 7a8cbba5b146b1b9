"""signaling/addresses.py and external_addresses.py: what clients are told, with a STUN server of the test's own."""

import asyncio
import contextlib
import ipaddress
import struct
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from signaling import external_addresses as module
from signaling.addresses import told_addresses
from signaling.config.address_options import AddressOptions, StunServer
from signaling.external_addresses import external_addresses, mapped_address
from signaling.turn.wire.stun_messages import HEADER_BYTES

REQUEST = struct.pack("!HHI12s", 1, 0, 0x2112A442, b"transaction!")
RFC_5769_IPV4 = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643"
    "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96"
)
"""The sample responses of RFC 5769 sections 2.2 and 2.3."""
RFC_5769_IPV6 = bytes.fromhex(
    "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113a9fa"
    "a5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c"
)


def response(request: bytes, address: str, kind: int = 0x0101) -> bytes:
    packed = ipaddress.ip_address(address).packed
    masked = bytes(a ^ b for a, b in zip(packed, request[4:HEADER_BYTES], strict=False))
    attribute = struct.pack("!HHBBH", 0x0020, 4 + len(masked), 0, 1 if len(packed) == 4 else 2, 0x1234) + masked
    return struct.pack("!HH", kind, len(attribute)) + request[4:HEADER_BYTES] + attribute


def test_the_samples_of_the_rfc_are_read() -> None:
    asked = bytes(4) + RFC_5769_IPV4[4:HEADER_BYTES]
    assert mapped_address(RFC_5769_IPV4, asked) == "192.0.2.1"
    assert mapped_address(RFC_5769_IPV6, asked) == "2001:db8:1234:5678:11:2233:4455:6677"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        REQUEST,
        response(REQUEST, "203.0.113.9", kind=0x0111),
        response(REQUEST[:8] + b"somebody's  ", "203.0.113.9"),
        response(REQUEST, "203.0.113.9")[:-1],
        response(REQUEST, "203.0.113.9") + b"x",
        response(REQUEST, "0.0.0.0"),
        response(REQUEST, "127.0.0.1"),
        response(REQUEST, "224.0.0.1"),
        response(REQUEST, "fe80::1"),
        struct.pack("!HH", 0x0101, 0) + REQUEST[4:],
    ],
)
def test_what_is_no_answer_is_passed_over(answer: bytes) -> None:
    assert mapped_address(answer, REQUEST) is None


@given(st.binary(max_size=100))
def test_any_attributes_are_read_to_their_end(attributes: bytes) -> None:
    mapped_address(struct.pack("!HH", 0x0101, len(attributes)) + REQUEST[4:] + attributes, REQUEST)


class Stun(asyncio.DatagramProtocol):
    """Answers with what `said` gives, in turn; None is silence."""

    def __init__(self, said: list[str | bytes | None]) -> None:
        self.said = said
        self.requests: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.requests.append(data)
        following = self.said.pop(0) if len(self.said) > 1 else self.said[0]
        if isinstance(following, str):
            following = response(data, following)
        if following is not None:
            self.transport.sendto(following, address)


@contextlib.asynccontextmanager
async def stun_server(*said: str | bytes | None) -> AsyncIterator[tuple[StunServer, Stun]]:
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Stun(list(said)), local_addr=("127.0.0.1", 0)
    )
    try:
        yield transport.get_extra_info("sockname")[:2], protocol
    finally:
        transport.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRANSMIT_S", (0.1, 0.1, 0.1))


async def test_a_server_tells_the_address_outside() -> None:
    async with stun_server("203.0.113.9") as (server, stun):
        assert await external_addresses([server], ["127.0.0.1"]) == {"127.0.0.1": "203.0.113.9"}
    assert len(stun.requests) == 1


async def test_a_lost_request_is_repeated_and_garbage_passed_over() -> None:
    async with stun_server(None, b"garbage", "203.0.113.9") as (server, stun):
        assert await external_addresses([server], ["127.0.0.1"]) == {"127.0.0.1": "203.0.113.9"}
    assert len(set(stun.requests)) == 1
    assert len(stun.requests) == 3


async def test_one_server_that_answers_is_enough_and_none_is_no_error() -> None:
    async with stun_server(None) as (silent, _), stun_server("203.0.113.9") as (server, _):
        missing = ("no-such-host.invalid", 3478)
        assert await external_addresses([missing, silent, server], ["127.0.0.1"]) == {"127.0.0.1": "203.0.113.9"}
        assert await external_addresses([missing, silent], ["127.0.0.1"]) == {}
        assert await external_addresses([server], ["192.0.2.77"]) == {}  # not of this machine


async def told(options: AddressOptions, seen: dict[str, str], local: Sequence[str]) -> tuple[list[str], list[str]]:
    asked: list[str] = []

    async def ask(servers: Sequence[StunServer], addresses: Sequence[str]) -> dict[str, str]:
        asked.extend(addresses)
        return seen

    return list(await told_addresses(options, local, ask)), asked


LOCAL = ("10.0.0.2", "10.0.1.2", "2001:db8::2")
SERVERS = (("stun.example.org", 3478),)
SEEN = {"10.0.0.2": "203.0.113.9"}


@pytest.mark.parametrize(
    ("options", "seen", "expected"),
    [
        (AddressOptions(), SEEN, list(LOCAL)),
        (AddressOptions(stun_servers=SERVERS), SEEN, list(LOCAL)),
        (AddressOptions(ask_outside=True), SEEN, list(LOCAL)),
        (AddressOptions(ask_outside=True, stun_servers=SERVERS), {}, list(LOCAL)),
        (AddressOptions(ask_outside=True, stun_servers=SERVERS), SEEN, ["203.0.113.9", "10.0.1.2", "2001:db8::2"]),
        (
            AddressOptions(ask_outside=True, stun_servers=SERVERS, advertise_internal=True),
            SEEN,
            ["203.0.113.9", "10.0.0.2", "10.0.1.2", "2001:db8::2"],
        ),
        (
            AddressOptions(ask_outside=True, stun_servers=SERVERS, external_only=True),
            SEEN,
            ["203.0.113.9", "2001:db8::2"],
        ),
        (
            AddressOptions(ask_outside=True, stun_servers=SERVERS),
            dict.fromkeys(LOCAL[:2], "203.0.113.9"),
            ["203.0.113.9", "2001:db8::2"],
        ),
    ],
)
async def test_what_clients_are_told(options: AddressOptions, seen: dict[str, str], expected: list[str]) -> None:
    answer, asked = await told(options, seen, LOCAL)
    assert answer == expected
    assert bool(asked) == (options.ask_outside and bool(options.stun_servers))


async def test_nobody_is_asked_who_is_not_named_and_the_log_says_so() -> None:
    with capture_logs() as logs:
        await told(AddressOptions(ask_outside=True), {}, LOCAL)
        await told(AddressOptions(ask_outside=True, stun_servers=SERVERS), {}, LOCAL)
    assert [line["event"][:24] for line in logs if line["log_level"] == "warning"] == [
        "rtc.use_external_ip need",
        "no STUN server told an e",
    ]


async def test_loopback_is_seen_by_nobody_outside() -> None:
    options = AddressOptions(ask_outside=True, stun_servers=SERVERS)
    assert await told(options, {}, ["127.0.0.1"]) == (["127.0.0.1"], [])
