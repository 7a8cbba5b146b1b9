"""signaling/turn/wire/stun_messages.py: the vectors of RFC 5769, and bytes that are no messages."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signaling.turn.wire.stun_messages import (
    MAX_ATTRIBUTES,
    Address,
    Attribute,
    Kind,
    Malformed,
    Method,
    build,
    has_integrity,
    long_term_key,
    parse,
    read_xor_address,
    xor_address,
)

TRANSACTION = bytes(range(12))
# RFC 5769 section 2.4: a request with long-term credentials.
LONG_TERM = bytes.fromhex(
    "000100602112a44278ad3433c6ad72c029da412e00060012e3839ee38388e383aae38383e382af"
    "e382b90000"
    "0015001c662f2f3439396b39353464364f4c33346f4c394653547679363473410014000b6578616d706c652e6f726700"
    "00080014f67024656dd64a3e02b8e0712e85c9a28ca89666"
)
USERNAME, PASSWORD, REALM = "\u30de\u30c8\u30ea\u30c3\u30af\u30b9", "TheMatrIX", "example.org"
# RFC 5769 section 2.2: a response over IPv4, with FINGERPRINT.
RESPONSE = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220"
    "002000080001a147e112a643000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96"
)


def test_the_vector_with_long_term_credentials() -> None:
    message = parse(LONG_TERM)
    assert (message.method, message.kind) == (Method.BINDING, Kind.REQUEST)
    assert message.first(Attribute.USERNAME) == USERNAME.encode()
    assert message.first(Attribute.NONCE) == b"f//499k954d6OL34oL9FSTvy64sA"
    key = long_term_key(USERNAME, REALM, PASSWORD)
    assert has_integrity(LONG_TERM, message, key)
    assert not has_integrity(LONG_TERM, message, key[::-1])
    assert not has_integrity(LONG_TERM[:22] + b"\xff" + LONG_TERM[23:], message, key)


def test_the_vector_of_a_response_has_its_fingerprint_and_address() -> None:
    message = parse(RESPONSE)
    assert (message.kind, message.has_fingerprint) == (Kind.SUCCESS, True)
    value = message.first(Attribute.XOR_MAPPED_ADDRESS)
    assert value is not None
    address = read_xor_address(value, message.transaction)
    assert address == Address(bytes((192, 0, 2, 1)), 32853)
    assert xor_address(address, message.transaction) == value
    assert has_integrity(RESPONSE, message, b"VOkJxbRl1RmTxUk/WvJxBt")
    for wrong in (RESPONSE[:-1] + b"\0", RESPONSE + b"\0\x08\0\0", RESPONSE[:44] + b"\0" + RESPONSE[45:]):
        with pytest.raises(Malformed):
            parse(wrong[:2] + (len(wrong) - 20).to_bytes(2) + wrong[4:])


@pytest.mark.parametrize("fingerprint", [False, True])
@pytest.mark.parametrize("key", [None, b"key"])
@pytest.mark.parametrize("method", list(Method))
@pytest.mark.parametrize("kind", list(Kind))
def test_what_is_written_can_be_read(method: Method, kind: Kind, key: bytes | None, fingerprint: bool) -> None:
    attributes = ((Attribute.USERNAME, b"ann"), (Attribute.DATA, b""), (Attribute.LIFETIME, bytes(4)))
    data = build(method, kind, TRANSACTION, attributes, key=key, fingerprint=fingerprint)
    message = parse(data)
    assert (message.method, message.kind, message.transaction) == (method, kind, TRANSACTION)
    assert message.attributes == attributes
    assert message.has_fingerprint is fingerprint
    assert has_integrity(data, message, b"key") is (key is not None)


@pytest.mark.parametrize("ip", ["c0000201", "20010db8000000000000000000000001"])
def test_addresses_of_both_families(ip: str) -> None:
    address = Address(bytes.fromhex(ip), 7882)
    assert read_xor_address(xor_address(address, TRANSACTION), TRANSACTION) == address


@pytest.mark.parametrize("value", [b"", b"\0", b"\0\1", b"\0\1" + bytes(18), b"\0\2" + bytes(6), b"\0\3" + bytes(6)])
def test_what_is_no_address(value: bytes) -> None:
    assert read_xor_address(value, TRANSACTION) is None


def test_what_stands_behind_the_integrity_is_not_looked_at() -> None:
    data = build(Method.REFRESH, Kind.REQUEST, TRANSACTION, ((Attribute.LIFETIME, bytes(4)),), key=b"key")
    more = build(Method.REFRESH, Kind.REQUEST, TRANSACTION, ((Attribute.USERNAME, b"eve!"),))[20:]
    longer = data[:2] + (len(data) + len(more) - 20).to_bytes(2) + data[4:] + more
    message = parse(longer)
    assert message.first(Attribute.USERNAME) is None
    assert has_integrity(longer, message, b"key")


def test_attributes_are_bounded() -> None:
    def many(count: int) -> bytes:
        return build(Method.REFRESH, Kind.REQUEST, TRANSACTION, ((0x8001, b""),) * count)

    assert len(parse(many(MAX_ATTRIBUTES)).attributes) == MAX_ATTRIBUTES
    with pytest.raises(Malformed):
        parse(many(MAX_ATTRIBUTES + 1))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_malformed(body: bytes) -> None:
    head = b"\0\1" + len(body).to_bytes(2) + bytes.fromhex("2112a442") + TRANSACTION
    for data in (body, head + body):
        try:
            message = parse(data)
        except Malformed:
            continue
        assert len(message.attributes) <= MAX_ATTRIBUTES
        has_integrity(data, message, b"key")


@given(st.data())
def test_a_damaged_message_is_a_message_or_malformed(data: st.DataObject) -> None:
    damaged = bytearray(RESPONSE)
    for at in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=4)):
        damaged[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Malformed):
        parse(bytes(damaged))
