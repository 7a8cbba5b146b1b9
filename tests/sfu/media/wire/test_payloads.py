"""Payload descriptors by hand: VP8, VP9, H.264, AV1 and RED, the forms that no recording has, and hostile bytes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfu.media.wire.describe import UNKNOWN_TEMPLATE, describe
from sfu.media.wire.red import find_primary
from sfu.parameters import Codec, Extension
from sfu.schema.capacities import PACKETS, SEQUENCE_START
from sfu.schema.codes import MediaKind, PacketFlag
from sfu.schema.memory import Memory

ROW = 3
HEADER_BYTES = 40
"""Where payloads begin in these tests."""


@pytest.fixture(scope="module")
def memory() -> Memory:
    memory = Memory()
    memory.table("streams")["key_sequence"][ROW] = -1
    return memory


def describe_payload(
    memory: Memory,
    codec: Codec,
    payload: bytes,
    *,
    marker: bool = False,
    sequence: int = SEQUENCE_START,
    timestamp: int = 0,
    padding: int = 0,
    descriptor: bytes = b"",
) -> Any:
    """The packet row after `describe`; the descriptor, if any, stands in the header."""
    data = np.frombuffer(descriptor.ljust(HEADER_BYTES, b"\0") + payload, np.uint8)
    packet = memory.table("packets")[ROW, sequence & (PACKETS - 1)]
    start = max(HEADER_BYTES, len(descriptor))
    values = {
        "sequence": sequence, "timestamp": timestamp, "size": len(data), "payload_at": start, "codec": codec,
        "marker": marker, "padding": padding,
    }  # fmt: skip
    for name, value in values.items():
        packet[name] = value
    packet["extension_at"][Extension.DEPENDENCY] = 1 if len(descriptor) > 1 else 0
    packet["extension_bytes"][Extension.DEPENDENCY] = max(len(descriptor) - 1, 0)
    memory.table("streams")["kind"][ROW] = (
        MediaKind.AUDIO if codec in (Codec.OPUS, Codec.RED, Codec.AUDIO) else MediaKind.VIDEO
    )
    describe(memory.record, ROW, packet, data)
    return packet


def flags_of(memory: Memory, codec: Codec, payload: Sequence[int], *, marker: bool = False) -> int:
    return int(describe_payload(memory, codec, bytes(payload), marker=marker)["flags"])


@pytest.mark.parametrize(
    ("payload", "flags"),
    [
        (
            [0x10, 0x00],
            PacketFlag.KEY_FRAME | PacketFlag.FRAME_START | PacketFlag.SWITCH_UP,
        ),  # X = 0: the shortest descriptor
        ([0x10, 0x01], PacketFlag.FRAME_START | PacketFlag.SWITCH_UP),
        ([0x30, 0x01], PacketFlag.FRAME_START | PacketFlag.SWITCH_UP | PacketFlag.NOT_REFERENCE),
        ([0x00, 0x00], PacketFlag.SWITCH_UP),  # a continuation says nothing about key frames
        ([0x11, 0x00], PacketFlag.SWITCH_UP),  # start of partition 1
        (
            [0x18, 0x00],
            PacketFlag.KEY_FRAME | PacketFlag.FRAME_START | PacketFlag.SWITCH_UP,
        ),  # a reserved bit is ignored
        ([0x90, 0x20, 0x80, 0x01], PacketFlag.FRAME_START),  # temporal layer 2 without Y
        ([0x90, 0x20, 0xA0, 0x01], PacketFlag.FRAME_START | PacketFlag.SWITCH_UP),
        (
            [0x90, 0x10, 0xA0, 0x01],
            PacketFlag.FRAME_START | PacketFlag.SWITCH_UP,
        ),  # K alone: no temporal layer, Y means nothing
        ([0x90], 0),
        ([0x90, 0x80], 0),
        ([0x90, 0x80, 0x80], 0),
        ([0x90, 0xC0, 0x01], 0),
        ([0x90, 0x20], 0),
        ([0x10], 0),  # a descriptor without a payload
    ],
)
def test_vp8_flags_follow_rfc_7741(memory: Memory, payload: list[int], flags: int) -> None:
    assert flags_of(memory, Codec.VP8, payload) == flags


def test_vp8_picture_id_of_15_bits_and_tl0_are_located(memory: Memory) -> None:
    packet = describe_payload(memory, Codec.VP8, bytes([0x90, 0xE0, 0x92, 0x34, 0x56, 0x60, 0x00]))
    assert (packet["picture_id"], packet["picture_at"], packet["picture_bytes"]) == (0x1234, 2, 2)
    assert (packet["tl0"], packet["tl0_at"], packet["temporal"]) == (0x56, 4, 1)


def test_vp8_picture_id_of_7_bits_is_located(memory: Memory) -> None:
    packet = describe_payload(memory, Codec.VP8, bytes([0x90, 0x80, 0x7F, 0x00]))
    assert (packet["picture_id"], packet["picture_at"], packet["picture_bytes"]) == (127, 2, 1)
    assert packet["flags"] & PacketFlag.KEY_FRAME
    assert packet["tl0_at"] == 0


@pytest.mark.parametrize(
    ("payload", "flags", "layers"),
    [
        ([0x08, 0], PacketFlag.KEY_FRAME | PacketFlag.FRAME_START | PacketFlag.SWITCH_UP, (0, 0)),  # no layers at all
        ([0x48, 0], PacketFlag.FRAME_START | PacketFlag.SWITCH_UP, (0, 0)),
        (
            [0x28, 0x02, 7, 0],
            PacketFlag.FRAME_START | PacketFlag.SWITCH_UP,
            (1, 0),
        ),  # P = 0 on spatial layer 1 is no place to start
        ([0x28, 0x01, 7, 0], PacketFlag.KEY_FRAME | PacketFlag.FRAME_START | PacketFlag.SWITCH_UP, (0, 0)),
        ([0x64, 0x54, 7, 0], PacketFlag.FRAME_END | PacketFlag.SWITCH_UP, (2, 2)),  # U
        ([0x64, 0x44, 7, 0], PacketFlag.FRAME_END, (2, 2)),
        ([0xF8, 0x81, 0x02, 0x40, 0x03, 0], PacketFlag.FRAME_START, (0, 2)),  # flexible: no TL0PICIDX
        ([0x80], 0, (0, 0)),
        ([0x80, 0x80], 0, (0, 0)),
        ([0x20], 0, (0, 0)),
        ([0x20, 0x00], 0, (0, 0)),
    ],
)
def test_vp9_flags_and_layers_follow_rfc_9628(
    memory: Memory, payload: list[int], flags: int, layers: tuple[int, int]
) -> None:
    packet = describe_payload(memory, Codec.VP9, bytes(payload))
    assert packet["flags"] == flags
    assert (packet["spatial"], packet["temporal"]) == layers


def test_vp9_tl0_is_located_in_non_flexible_mode_only(memory: Memory) -> None:
    packet = describe_payload(memory, Codec.VP9, bytes([0xA8, 0x05, 0x00, 0x09, 0]))
    assert (packet["picture_id"], packet["picture_bytes"], packet["tl0"], packet["tl0_at"]) == (5, 1, 9, 3)
    assert describe_payload(memory, Codec.VP9, bytes([0xB8, 0x05, 0x00, 0x09, 0]))["tl0_at"] == 0


SPS, PPS, SEI, IDR, SLICE = bytes([0x67, 0x42]), bytes([0x68, 0xCE]), bytes([0x06, 1]), b"\x65\x88", b"\x41\x9a"


def _stap(*units: bytes) -> bytes:
    return b"\x78" + b"".join(len(unit).to_bytes(2, "big") + unit for unit in units)


@pytest.mark.parametrize(
    ("payload", "flags"),
    [
        (IDR, PacketFlag.KEY_FRAME | PacketFlag.FRAME_START),
        (SPS, PacketFlag.KEY_FRAME | PacketFlag.FRAME_START),
        (SLICE, PacketFlag.FRAME_START),
        (b"\x41\x00", 0),  # first_mb_in_slice is not 0: a later slice of the picture
        (b"\x65\x00", PacketFlag.KEY_FRAME),
        (b"\x01\x9a", PacketFlag.FRAME_START | PacketFlag.NOT_REFERENCE),
        (PPS, 0),
        (_stap(SPS, PPS), PacketFlag.KEY_FRAME | PacketFlag.FRAME_START),
        (_stap(SEI, SPS, PPS, IDR), PacketFlag.KEY_FRAME | PacketFlag.FRAME_START),
        (_stap(PPS, SLICE), PacketFlag.FRAME_START),
        (_stap(PPS) + b"\x00\x09" + IDR, 0),  # a length that reaches beyond the packet ends the search
        (b"\x78\x00\x00\x00\x02" + IDR, 0),  # an empty unit too
        (
            b"\x7c\x85\x88",
            PacketFlag.KEY_FRAME | PacketFlag.FRAME_START,
        ),  # FU-A: first, middle and last fragment of an IDR slice
        (b"\x7c\x05\x88", PacketFlag.KEY_FRAME),
        (b"\x7c\x45\x88", PacketFlag.KEY_FRAME),
        (b"\x7c\x81\x9a", PacketFlag.FRAME_START),
        (b"\x7c\x41\x9a", 0),
        (b"\x7c", 0),
        (b"\x78", 0),
    ],
)
def test_h264_flags_follow_rfc_6184(memory: Memory, payload: bytes, flags: int) -> None:
    assert flags_of(memory, Codec.H264, payload) == flags


def test_h264_key_frame_starts_at_its_parameter_sets_only(memory: Memory) -> None:
    row = memory.table("streams")[ROW]
    sequence = SEQUENCE_START + 70
    first = describe_payload(memory, Codec.H264, SPS, sequence=sequence, timestamp=900)
    assert first["flags"] & PacketFlag.FRAME_START
    row["key_sequence"] = sequence
    slices = describe_payload(memory, Codec.H264, IDR, sequence=sequence + 2, timestamp=900)
    following = describe_payload(memory, Codec.H264, IDR, sequence=sequence + 3, timestamp=901)
    late = describe_payload(memory, Codec.H264, SPS, sequence=sequence - 1, timestamp=900)
    row["key_sequence"] = -1
    assert slices["flags"] == PacketFlag.KEY_FRAME
    assert following["flags"] == PacketFlag.KEY_FRAME | PacketFlag.FRAME_START
    assert late["flags"] == PacketFlag.KEY_FRAME | PacketFlag.FRAME_START, "arrived after what follows it"


def test_h264_key_frame_of_a_stream_with_parameter_sets_starts_with_them_also_when_they_come_late(
    memory: Memory,
) -> None:
    sequence = SEQUENCE_START + 70

    def described(number: int, payload: bytes, timestamp: int) -> int:
        return int(
            describe_payload(memory, Codec.H264, payload, sequence=sequence + number, timestamp=timestamp)["flags"]
        )

    memory.table("streams")["sets_sequence"][ROW] = 0
    assert described(0, IDR, 900) == PacketFlag.KEY_FRAME | PacketFlag.FRAME_START, (
        "it may have sent them by other ways"
    )
    assert described(3, _stap(SPS, PPS), 1800) == PacketFlag.KEY_FRAME | PacketFlag.FRAME_START
    assert described(4, SLICE, 2700) == PacketFlag.FRAME_START
    # 5 has the parameter sets and is late
    assert described(6, IDR, 3600) == PacketFlag.KEY_FRAME
    assert described(7, b"\x7c\x85\x88", 3600) == PacketFlag.KEY_FRAME
    assert described(5, _stap(SPS, PPS), 3600) == PacketFlag.KEY_FRAME | PacketFlag.FRAME_START
    # 9 has the picture's parameter set, 8 the sequence's
    assert described(9, PPS, 4500) == 0
    assert described(10, IDR, 4500) == PacketFlag.KEY_FRAME
    assert described(8, SPS, 4500) == PacketFlag.KEY_FRAME | PacketFlag.FRAME_START


def test_h264_key_frame_whose_sender_left_the_parameter_sets_out_starts_without(memory: Memory) -> None:
    sequence = SEQUENCE_START + 70
    describe_payload(memory, Codec.H264, SPS, sequence=sequence, timestamp=900)
    describe_payload(memory, Codec.H264, SLICE, sequence=sequence + 1, timestamp=1800)
    packet = describe_payload(memory, Codec.H264, IDR, sequence=sequence + 2, timestamp=2700)
    assert packet["flags"] == PacketFlag.KEY_FRAME | PacketFlag.FRAME_START


@pytest.mark.parametrize(
    ("header", "flags"),
    [
        (0x08, PacketFlag.KEY_FRAME | PacketFlag.FRAME_START | PacketFlag.SWITCH_UP),
        (0x10, PacketFlag.FRAME_START | PacketFlag.SWITCH_UP),
        (0x50, PacketFlag.FRAME_START | PacketFlag.SWITCH_UP),
        (0x90, PacketFlag.SWITCH_UP),
        (0x88, PacketFlag.SWITCH_UP),  # N with Z contradicts itself
    ],
)
def test_av1_flags_follow_the_aggregation_header(memory: Memory, header: int, flags: int) -> None:
    assert flags_of(memory, Codec.AV1, [header, 0]) == flags


@pytest.mark.parametrize("codec", [Codec.VP8, Codec.H264, Codec.AV1])
def test_marker_ends_the_frame(memory: Memory, codec: Codec) -> None:
    assert flags_of(memory, codec, [0x41, 0, 0, 0], marker=True) & PacketFlag.FRAME_END


@pytest.mark.parametrize(
    ("payload", "primary"),
    [
        ([111, 1, 2], 1),
        ([0x80 | 111, 0, 0, 2, 111, 1, 2, 3], 7),
        ([0x80 | 111, 0, 0, 1, 0x80 | 111, 0, 0, 1, 111, 1, 2, 3], 11),
        ([0x80 | 111, 0x0F, 0x03, 0xFF, 111] + [0] * 1024, 5 + 1023),  # the low 10 bits are the length
        ([0x80 | 111, 0, 0, 2, 111, 1, 2], 0),  # nothing is left for the primary block
        ([0x80 | 111, 0, 0, 3, 111, 1, 2], 0),
        ([0x80 | 111, 0, 0], 0),
        ([0x80 | 111, 0, 0, 0], 0),
        ([111], 0),
    ],
)
def test_red_primary_block_is_found(memory: Memory, payload: list[int], primary: int) -> None:
    packet = describe_payload(memory, Codec.RED, bytes(payload))
    assert packet["primary_at"] == primary
    assert packet["flags"] == PacketFlag.FRAME_START | PacketFlag.FRAME_END


def test_audio_packets_are_whole_frames(memory: Memory) -> None:
    assert flags_of(memory, Codec.OPUS, [1]) == PacketFlag.FRAME_START | PacketFlag.FRAME_END
    assert flags_of(memory, Codec.AUDIO, [1]) == PacketFlag.FRAME_START | PacketFlag.FRAME_END


@pytest.mark.parametrize("codec", list(Codec))
def test_a_packet_of_padding_only_describes_nothing(memory: Memory, codec: Codec) -> None:
    packet = describe_payload(memory, codec, bytes([0x10, 0, 0, 4]), padding=4)
    assert packet["flags"] == 0
    assert (packet["picture_id"], packet["frame_number"], packet["template"]) == (-1, -1, UNKNOWN_TEMPLATE)


def test_a_description_leaves_nothing_of_the_one_before(memory: Memory) -> None:
    describe_payload(memory, Codec.VP8, bytes([0xB0, 0xE0, 0x92, 0x34, 0x56, 0x60, 0x00]))
    fresh = describe_payload(memory, Codec.VP8, bytes([0x10, 0x01]))
    assert fresh["flags"] == PacketFlag.FRAME_START | PacketFlag.SWITCH_UP
    for name in ("picture_at", "picture_bytes", "tl0_at", "tl0", "temporal", "primary_at", "spatial", "indications"):
        assert fresh[name] == 0


@settings(deadline=None, max_examples=400)
@given(
    codec=st.sampled_from(list(Codec)),
    payload=st.binary(max_size=60),
    descriptor=st.binary(max_size=60),
    marker=st.booleans(),
)
def test_any_bytes_describe_themselves_within_the_packet(
    memory: Memory, codec: Codec, payload: bytes, descriptor: bytes, marker: bool
) -> None:
    packet = describe_payload(memory, codec, payload, marker=marker, descriptor=descriptor)
    last_places = [packet["tl0_at"], packet["primary_at"], packet["picture_at"] + max(packet["picture_bytes"], 1) - 1]
    assert all(place < max(len(payload), 1) for place in last_places)
    assert -1 <= packet["picture_id"] <= 0x7FFF
    assert -1 <= packet["frame_number"] <= 0xFFFF
    assert packet["template"] < 64 or packet["template"] == UNKNOWN_TEMPLATE


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=80))
def test_red_primary_is_where_a_plain_reading_finds_it(payload: bytes) -> None:
    lengths, at = [], 0
    while at < len(payload) and payload[at] & 0x80:
        lengths.append(int.from_bytes(payload[at + 2 : at + 4], "big") & 0x3FF)
        at += 4
    expected = at + 1 + sum(lengths)
    if at >= len(payload) or expected >= len(payload):
        expected = 0
    assert find_primary(np.frombuffer(payload, np.uint8), 0, len(payload)) == expected
