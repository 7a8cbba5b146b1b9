"""Binding requests, answered by our kernel and judged by aioice."""

import struct
import zlib

import numpy as np
import pytest
from aioice import stun as aioice_stun
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfu.media.net import stun
from sfu.media.net.lookup import insert_ufrag
from sfu.schema.codes import RowState
from sfu.schema.memory import Memory
from tests.sfu.support.ice import (
    PASSWORD,
    SECOND,
    UFRAG,
    binding_request,
    drop_counts,
    fill_slot,
    sent,
    socket_address,
    write_credentials,
)

NOW = 100 * SECOND
PEER = socket_address("192.0.2.7", 50_000)

# https://www.rfc-editor.org/rfc/rfc5769#section-2.1 (password VOkJxbRl1RmTxUk/WvJxBt)
RFC5769_REQUEST = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e0001ff802900"
    "08932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a28028"
    "0004e57a3bcf"
)
RFC5769_PASSWORD = b"VOkJxbRl1RmTxUk/WvJxBt"
# https://www.rfc-editor.org/rfc/rfc5769#section-2.2
RFC5769_MAPPED = ("192.0.2.1", 32853)
RFC5769_RESPONSE_ADDRESS = bytes.fromhex("002000080001a147e112a643")
# https://www.rfc-editor.org/rfc/rfc5769#section-2.3
RFC5769_MAPPED6 = ("2001:db8:1234:5678:11:2233:4455:6677", 32853)
RFC5769_RESPONSE_ADDRESS6 = bytes.fromhex("002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9")


@pytest.fixture(scope="module")
def shared() -> Memory:
    """One state for the module: allocating is slow beside a test."""
    return Memory()


@pytest.fixture
def memory(shared: Memory) -> Memory:
    """One open transport, row 3, without paths; nothing queued, nothing counted."""
    row = 3
    transport = shared.table("transports")[row]
    shared.table("transports")[:] = np.zeros((), shared.table("transports").dtype)
    shared.table("paths")["state"] = 0
    for name in ("path_slots", "ufrag_slots", "drops"):
        shared.table(name)[:] = 0
    shared._set_free_lists()
    shared.thread["tx_count"] = 0
    shared.table("sockets")["fd"] = -1
    write_credentials(shared, row)
    transport["state"] = RowState.OPEN
    transport["path"] = transport["first_path"] = transport["nominated_generation"] = -1
    insert_ufrag(shared.record, row, 0)
    return shared


def receive(memory: Memory, data: bytes, address: bytes = PEER) -> list[bytes]:
    """Give one STUN message to the kernel; returns the responses."""
    memory.thread["tx_count"] = 0
    memory.table("tx_size")[0] = 0
    stun.handle_stun(memory.record, 0, fill_slot(memory, 0, data, address), 0, -1, NOW)
    return [packet for _, packet in sent(memory)]


def receive_error(memory: Memory, data: bytes) -> bytes:
    """The error response, which leaves at once and stays behind in send slot 0."""
    assert receive(memory, data) == []
    return bytes(memory.table("tx")[0][: memory.table("tx_size")[0]].tobytes())


@pytest.mark.parametrize(
    ("host", "port"), [("192.0.2.7", 50_000), ("2001:db8::17", 9), ("fe80::1", 65_535), ("0.0.0.1", 1)]
)
def test_valid_request_is_answered_with_the_address_it_came_from(memory: Memory, host: str, port: int) -> None:
    [answer] = receive(memory, binding_request(), socket_address(host, port))
    response = aioice_stun.parse_message(answer)
    assert response.message_class is aioice_stun.Class.RESPONSE
    assert response.transaction_id == bytes(range(12))
    assert response.attributes["XOR-MAPPED-ADDRESS"] == (host, port)
    assert response.check_message_integrity(PASSWORD.encode())
    assert list(response.attributes)[-1] == "FINGERPRINT"
    assert drop_counts(memory) == {}


@pytest.mark.parametrize(
    ("mapped", "expected"),
    [(RFC5769_MAPPED, RFC5769_RESPONSE_ADDRESS), (RFC5769_MAPPED6, RFC5769_RESPONSE_ADDRESS6)],
)
def test_mapped_address_is_encoded_as_in_rfc_5769(memory: Memory, mapped: tuple[str, int], expected: bytes) -> None:
    message = aioice_stun.Message(aioice_stun.Method.BINDING, aioice_stun.Class.REQUEST, RFC5769_REQUEST[8:20])
    message.attributes["USERNAME"] = f"{UFRAG}:remote"
    message.add_message_integrity(PASSWORD.encode())
    [answer] = receive(memory, bytes(message), socket_address(*mapped))
    assert answer[20 : 20 + len(expected)] == expected


def test_integrity_and_fingerprint_of_the_rfc_5769_request_are_right(memory: Memory) -> None:
    fingerprint_at = len(RFC5769_REQUEST) - 8
    data = np.frombuffer(RFC5769_REQUEST, np.uint8)
    assert stun.crc32(data, fingerprint_at) ^ 0x5354554E == 0xE57A3BCF
    # HMAC fills a key up with zeros, so that a shorter password fits our column of 24
    memory.table("transports")[3]["password"][0] = np.frombuffer(RFC5769_PASSWORD + bytes(2), np.uint8)
    fill_slot(memory, 0, RFC5769_REQUEST, PEER)
    assert stun._has_integrity(memory.record, 0, fingerprint_at - 24, 2 * 3)
    assert not stun._has_integrity(memory.record, 0, fingerprint_at - 24, 2 * 3 + 1)
    assert bytes(memory.table("rx")[0][: len(data)].tobytes()) == RFC5769_REQUEST, "the length field was not restored"


@given(st.binary(max_size=300))
def test_crc32_equals_zlib(data: bytes) -> None:
    assert stun.crc32(np.frombuffer(data, np.uint8), len(data)) == zlib.crc32(data)


def test_request_without_fingerprint_is_answered(memory: Memory) -> None:
    assert len(receive(memory, _without_fingerprint(binding_request()))) == 1


def _without_fingerprint(data: bytes) -> bytes:
    return data[:2] + struct.pack("!H", len(data) - 28) + data[4:-8]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (binding_request(ufrag="unknownU"), "stun_unknown_ufrag"),
        (binding_request(ufrag="abc"), "stun_unknown_ufrag"),
        (binding_request(ufrag="abcdEFGHI"), "stun_unknown_ufrag"),
        (binding_request(ufrag="\0" * 8), "stun_unknown_ufrag"),
        (binding_request(password="x" * 24), "stun_integrity"),
        (binding_request(password=PASSWORD[:-1]), "stun_integrity"),
        (binding_request()[:-1], "stun_malformed"),
        (binding_request()[:-4], "stun_malformed"),
        (binding_request() + bytes(4), "stun_malformed"),
        (binding_request()[:-1] + b"\xff", "stun_malformed"),
        (binding_request()[:4] + b"\x21\x12\xa4\x43" + binding_request()[8:], "stun_malformed"),
        (b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12), "stun_unknown_ufrag"),
        (b"\x00", "stun_malformed"),
        (b"\x01\x01" + binding_request()[2:], "garbage"),
        (b"\x01\x11" + binding_request()[2:], "garbage"),
        (b"\x00\x03" + binding_request()[2:], "garbage"),
    ],
)
def test_bad_message_is_dropped_without_an_answer_and_counted(memory: Memory, data: bytes, reason: str) -> None:
    assert receive(memory, data) == []
    assert drop_counts(memory) == {reason: 1}
    assert memory.table("transports")[3]["first_path"] == -1


def test_binding_indication_is_consumed_and_refreshes_nothing(memory: Memory) -> None:
    assert receive(memory, b"\x00\x11" + binding_request()[2:]) == []
    assert drop_counts(memory) == {}
    assert memory.table("transports")[3]["checked_ns"] == 0


def _signed(attributes: bytes, after_integrity: bytes = b"") -> bytes:
    """A request with raw attributes before the integrity and after it."""
    message = aioice_stun.Message(aioice_stun.Method.BINDING, aioice_stun.Class.REQUEST, bytes(12))
    message.attributes["USERNAME"] = f"{UFRAG}:r"
    body = bytes(message)[20:] + attributes
    head = b"\x00\x01" + struct.pack("!H", len(body)) + struct.pack("!I", 0x2112A442) + bytes(12)
    digest = aioice_stun.message_integrity(head + body, PASSWORD.encode())
    body += struct.pack("!HH", 8, 20) + digest + after_integrity
    return b"\x00\x01" + struct.pack("!H", len(body)) + head[4:] + body


def test_unknown_required_attributes_are_named_in_a_420_response(memory: Memory) -> None:
    answer = receive_error(memory, _signed(bytes.fromhex("00030004000000007abc0003aabbcc00c057000400000001")))
    response = aioice_stun.parse_message(answer)
    assert response.error_code == 420
    assert response.check_message_integrity(PASSWORD.encode())
    assert bytes.fromhex("000a000400037abc") in answer
    assert memory.table("transports")[3]["first_path"] == -1, "a refused request claims no path"


def test_a_420_response_lists_a_bounded_number_of_attributes(memory: Memory) -> None:
    answer = receive_error(memory, _signed(b"".join(struct.pack("!HH", 0x7000 + n, 0) for n in range(99))))
    assert aioice_stun.parse_message(answer).error_code == 420
    assert struct.pack("!HH", 0x000A, 2 * stun.MAX_UNKNOWN) in answer


def test_odd_number_of_unknown_attributes_is_padded(memory: Memory) -> None:
    answer = receive_error(memory, _signed(bytes.fromhex("7abc0000")))
    assert len(answer) % 4 == 0
    assert aioice_stun.parse_message(answer).check_message_integrity(PASSWORD.encode())


def test_unknown_optional_attribute_is_ignored(memory: Memory) -> None:
    assert len(receive(memory, _signed(bytes.fromhex("c057000400000001")))) == 1


def test_attributes_behind_the_integrity_are_not_looked_at(memory: Memory) -> None:
    assert len(receive(memory, _signed(b"", bytes.fromhex("7abc000000250000")))) == 1
    path = memory.table("paths")[memory.table("transports")[3]["first_path"]]
    assert path["nominated"] == 0


def test_peer_that_takes_itself_for_controlled_gets_a_role_conflict(memory: Memory) -> None:
    response = aioice_stun.parse_message(receive_error(memory, binding_request(controlled=True)))
    assert response.error_code == 487
    assert response.check_message_integrity(PASSWORD.encode())


def test_nomination_and_priority_are_kept(memory: Memory) -> None:
    receive(memory, binding_request(nominate=True, priority=0xFEDCBA98))
    path = memory.table("paths")[memory.table("transports")[3]["path"]]
    assert path["nominated"] == 1
    assert path["priority"] == 0xFEDCBA98


def test_a_hundred_thousand_garbage_messages_are_dropped_and_counted(memory: Memory) -> None:
    generator = np.random.default_rng(1)
    good = binding_request()
    slots = [fill_slot(memory, k, bytes([k % 4]) + generator.bytes(99), PEER) for k in range(32)]
    for k in range(32, 64):
        broken = bytearray(good)
        broken[int(generator.integers(len(good)))] ^= 1 << int(generator.integers(8))
        slots.append(fill_slot(memory, k, bytes(broken), PEER))
    for n in range(100_000):
        stun.handle_stun(memory.record, n & 63, slots[n & 63], 0, -1, NOW)
    counts = drop_counts(memory)
    assert sum(counts.values()) == 100_000
    assert sent(memory) == []
    assert len(receive(memory, good)) == 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=1500))
def test_no_bytes_at_all_are_answered_without_the_password(memory: Memory, data: bytes) -> None:
    before = sum(drop_counts(memory).values())
    assert receive(memory, data) == []
    assert sum(drop_counts(memory).values()) - before == (0 if _is_indication(data) else 1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(binding_request()) - 9), st.integers(1, 255))
def test_no_changed_byte_survives_the_integrity_check(memory: Memory, at: int, difference: int) -> None:
    data = bytearray(binding_request())
    data[at] ^= difference
    assert receive(memory, bytes(data)) == []


def _is_indication(data: bytes) -> bool:
    return len(data) >= 20 and data[:2] == b"\x00\x11" and data[4:8] == b"\x21\x12\xa4\x42"
