"""parse_header against hand-made packets and aiortc's parser."""

import struct
from typing import Any

import numpy as np
import pytest
from aiortc import rtp
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sfu.media.wire.rtp import parse_header
from sfu.parameters import Extension
from sfu.schema.memory import Memory
from tests.sfu.support.publisher import EXTENSIONS, extension_map, packet, write_media

MEDIA = 2
MAP = extension_map()
ID_OF_KIND = {int(kind): number for kind, number in EXTENSIONS.items()}


@pytest.fixture(scope="module")
def memory() -> Memory:
    result = Memory()
    write_media(result.table("media")[MEDIA])
    return result


def parse(memory: Memory, data: bytes) -> tuple[bool, Any, Any]:
    """(accepted, header row, packet row)."""
    array = np.frombuffer(data, np.uint8) if data else np.zeros(0, np.uint8)
    good = parse_header(memory.record, MEDIA, array.copy(), len(data), memory.record["incoming"][0])
    return bool(good), memory.table("header")[0], memory.table("incoming")[0]


def fixed_header(first: int, payload_type: int = 96) -> bytes:
    return struct.pack("!BBHLL", first, payload_type, 7, 8, 9)


def with_extension(profile: int, block: bytes) -> bytes:
    return fixed_header(0x90) + struct.pack("!HH", profile, len(block) // 4) + block + b"payload"


def extensions_of(data: bytes, header: Any) -> dict[int, bytes]:
    found = {}
    for kind in range(len(header["at"])):
        if header["bytes"][kind]:
            at = int(header["at"][kind])
            found[kind] = data[at : at + int(header["bytes"][kind])]
    return found


def test_fields_of_the_fixed_header_are_read(memory: Memory) -> None:
    data = packet(65535, ssrc=0xFFFFFFFE, timestamp=0xFFFFFFFF, payload_type=127, marker=1, payload=b"abc", padding=5)
    good, header, entry = parse(memory, data)
    assert good
    assert (header["sequence"], header["ssrc"]) == (65535, 0xFFFFFFFE)
    assert (entry["timestamp"], entry["payload_type"], entry["marker"]) == (0xFFFFFFFF, 127, 1)
    assert (entry["size"], entry["payload_at"], entry["padding"]) == (len(data), 12, 5)


def test_contributing_sources_are_skipped(memory: Memory) -> None:
    good, _, entry = parse(memory, fixed_header(0x83) + bytes(12) + b"x")
    assert good
    assert entry["payload_at"] == 24


@pytest.mark.parametrize(
    "data",
    [
        b"",
        fixed_header(0x80)[:11],
        fixed_header(0x40),
        fixed_header(0x8F),
        fixed_header(0x90),
        fixed_header(0x90) + struct.pack("!HH", 0xBEDE, 1),
        fixed_header(0x90) + struct.pack("!HH", 0xBEDE, 0xFFFF) + bytes(100),
        fixed_header(0xA0),
        fixed_header(0xA0) + b"\x00",
        fixed_header(0xA0) + b"abc\x05",
        with_extension(0xBEDE, b"\x1fabc"),
        with_extension(0xBEDE, b"\x00\x00\x00\x10"),
        with_extension(0x1000, b"\x01\x03ab"),
        with_extension(0x1000, b"\x00\x00\x00\x01"),
    ],
)
def test_lengths_past_the_packet_are_refused(memory: Memory, data: bytes) -> None:
    assert not parse(memory, data)[0]


def test_elements_behind_identifier_15_are_ignored(memory: Memory) -> None:
    data = with_extension(0xBEDE, b"\x10a\xf0\x20bcd" + b"\xff")
    good, header, _ = parse(memory, data)
    assert good
    assert extensions_of(data, header) == {Extension.MID: b"a"}


def test_identifier_0_with_a_length_ends_the_block(memory: Memory) -> None:
    data = with_extension(0xBEDE, b"\x10a\x03\x20bcd\x00")
    good, header, _ = parse(memory, data)
    assert good
    assert extensions_of(data, header) == {Extension.MID: b"a"}


@pytest.mark.parametrize("appbits", range(16))
def test_two_byte_elements_may_have_any_application_bits(memory: Memory, appbits: int) -> None:
    block = b"\x01\x02ab\x00" + bytes([EXTENSIONS[Extension.COLOR_SPACE], 5]) + b"color"
    data = with_extension(0x1000 | appbits, block)
    good, header, entry = parse(memory, data)
    assert good
    assert extensions_of(data, header) == {Extension.MID: b"ab", Extension.COLOR_SPACE: b"color"}
    assert entry["extension_at"][Extension.COLOR_SPACE] == header["at"][Extension.COLOR_SPACE]
    assert entry["extension_bytes"][Extension.COLOR_SPACE] == 5


def test_unknown_profiles_and_identifiers_mean_nothing(memory: Memory) -> None:
    for data in (with_extension(0x1234, b"\x10abc"), with_extension(0xBEDE, b"\xe0a\x00\x00")):
        good, header, _ = parse(memory, data)
        assert good
        assert extensions_of(data, header) == {}


def test_nothing_stays_of_the_packet_before(memory: Memory) -> None:
    parse(memory, packet(1, mid="abc", audio_level=(True, 3), padding=4))
    _, header, entry = parse(memory, packet(2))
    assert not header["bytes"].any()
    assert not entry["extension_bytes"].any()
    assert entry["padding"] == 0


values = {
    "mid": st.text("abc123", min_size=1, max_size=16),
    "rtp_stream_id": st.text("abc123", min_size=1, max_size=16),
    "repaired_rtp_stream_id": st.text("abc123", min_size=1, max_size=16),
    "transport_sequence_number": st.integers(0, 65535),
    "abs_send_time": st.integers(0, 0xFFFFFF),
    "audio_level": st.tuples(st.booleans(), st.integers(0, 127)),
}
KIND_OF_NAME = {
    "mid": Extension.MID,
    "rtp_stream_id": Extension.RID,
    "repaired_rtp_stream_id": Extension.REPAIRED_RID,
    "transport_sequence_number": Extension.TRANSPORT_CC,
    "abs_send_time": Extension.ABS_SEND_TIME,
    "audio_level": Extension.AUDIO_LEVEL,
}


@given(
    extensions=st.fixed_dictionaries({}, optional=values),
    payload=st.binary(max_size=40),
    padding=st.integers(0, 255),
    sequence=st.integers(0, 65535),
)
def test_what_aiortc_writes_is_read(
    memory: Memory, extensions: dict[str, Any], payload: bytes, padding: int, sequence: int
) -> None:
    data = packet(sequence, payload=payload, padding=padding, **extensions)
    good, header, entry = parse(memory, data)
    assert good
    assert header["sequence"] == sequence
    found = extensions_of(data, header)
    assert set(found) == {int(KIND_OF_NAME[name]) for name in extensions}
    for name, value in extensions.items():
        raw = found[int(KIND_OF_NAME[name])]
        if isinstance(value, str):
            assert raw == value.encode()
        elif name == "audio_level":
            assert raw == bytes([value[0] << 7 | value[1]])
        else:
            assert int.from_bytes(raw, "big") == value
    end = int(entry["size"]) - int(entry["padding"])
    assert data[int(entry["payload_at"]) : end] == payload


@st.composite
def nearly_rtp(draw: Any) -> bytes:
    """Any bytes, or a header whose lengths and flags are about right."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=80))  # type: ignore[no-any-return]
    first = 0x80 | draw(st.integers(0, 0x3F))
    profile = draw(st.sampled_from([0xBEDE, 0x1000, 0x1009, 0x1100, 0xFFFF]))
    words = draw(st.integers(0, 6))
    block: bytes = draw(st.binary(max_size=28))
    return fixed_header(first) + bytes(4 * (first & 15)) + struct.pack("!HH", profile, words) + block


@given(data=nearly_rtp())
@settings(max_examples=500)
def test_any_bytes_are_refused_or_lie_inside_the_packet(memory: Memory, data: bytes) -> None:
    good, header, entry = parse(memory, data)
    if not good:
        return
    assert 12 <= entry["payload_at"] <= entry["size"] - entry["padding"]
    for kind in range(len(header["at"])):
        assert int(header["at"][kind]) + int(header["bytes"][kind]) <= int(entry["payload_at"])


def profile_of(data: bytes) -> int:
    """The profile of the extension block; 0 when there is none."""
    at = 12 + 4 * (data[0] & 15) if data else 0
    return int.from_bytes(data[at : at + 2], "big") if data and data[0] & 0x10 and len(data) >= at + 4 else 0


@given(data=nearly_rtp())
@settings(max_examples=500)
def test_aiortc_accepts_the_same_packets(memory: Memory, data: bytes) -> None:
    """But for what aiortc does not know: other appbits, and the identifiers that end a one-byte block."""
    assume(profile_of(data) & 0xFFF0 != 0x1000 or profile_of(data) == 0x1000)
    good, header, entry = parse(memory, data)
    pairs = []
    try:
        expected = rtp.RtpPacket.parse(data)
        if profile := profile_of(data):
            at = 12 + 4 * (data[0] & 15)
            words = struct.unpack_from("!H", data, at + 2)[0]
            pairs = rtp.unpack_header_extensions(profile, data[at + 4 : at + 4 + 4 * words])
    except ValueError:
        assert not good or profile_of(data) == 0xBEDE  # 0 or 15 came before what aiortc stumbled over
        return
    assume(profile_of(data) != 0xBEDE or all(number not in (0, 15) for number, _ in pairs))
    assert good
    assert header["sequence"] == expected.sequence_number
    assert entry["padding"] == expected.padding_size
    assert data[int(entry["payload_at"]) : len(data) - int(entry["padding"])] == expected.payload
    kinds = {number: kind for kind, number in ID_OF_KIND.items()}
    assert extensions_of(data, header) == {kinds[number]: value for number, value in pairs if number in kinds and value}
