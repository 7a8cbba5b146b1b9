"""What Chromium sends, described: recordings in `captures/`, checked for what must hold in any call.

With VP9 the dependency descriptor and the payload descriptor say the same in two independent ways.
"""

from collections import defaultdict
from itertools import pairwise

import pytest

from sfu.parameters import Extension
from sfu.schema.codes import PacketFlag
from tests.sfu.support.captured import CAPTURES, Described, described

WITHOUT_DESCRIPTOR = frozenset({Extension.DEPENDENCY})
VP9 = ["vp9_l3t3", "vp9_l3t3_key", "vp9_l1t3"]
AV1 = ["av1_l3t3_key", "av1_l1t3"]
VP8 = ["vp8_simulcast", "vp8_dependency"]
VIDEO = [*VP9, *AV1, *VP8, "h264"]


def streams(name: str, without: frozenset[Extension] = frozenset()) -> list[list[Described]]:
    """The packets of each SSRC, in order of sequence numbers."""
    by_ssrc: dict[int, list[Described]] = defaultdict(list)
    for packet in described(name, without):
        by_ssrc[packet.ssrc].append(packet)
    return [sorted(packets, key=lambda packet: packet.sequence) for packets in by_ssrc.values()]


def frames(packets: list[Described]) -> list[list[Described]]:
    """Whole frames as FRAME_START and FRAME_END cut them; asserts that they leave nothing between them."""
    found: list[list[Described]] = []
    for packet in packets:
        if packet.has(PacketFlag.FRAME_START):
            assert not found or found[-1][-1].has(PacketFlag.FRAME_END), "a frame starts inside another"
            found.append([])
        else:
            assert not found[-1][-1].has(PacketFlag.FRAME_END), "a packet between two frames"
        found[-1].append(packet)
    return found


def whole_frames(packets: list[Described]) -> list[list[Described]]:
    return [frame for frame in frames(packets) if frame[-1].has(PacketFlag.FRAME_END)]


@pytest.mark.parametrize("name", VIDEO)
def test_packets_form_frames_of_one_timestamp_and_one_layer(name: str) -> None:
    for packets in streams(name):
        for frame in whole_frames(packets):
            described_alike = {
                (p.timestamp, p.spatial, p.temporal, p.frame_number, p.template, p.has(PacketFlag.SWITCH_UP))
                for p in frame
            }
            assert len(described_alike) == 1
            assert [p.sequence for p in frame] == list(range(frame[0].sequence, frame[0].sequence + len(frame)))


@pytest.mark.parametrize("name", ["av1_l1t3", "h264", *VP8])
def test_marker_agrees_with_the_end_of_the_frame_where_there_is_one_spatial_layer(name: str) -> None:
    assert all(p.has(PacketFlag.FRAME_END) == bool(p.marker) for packets in streams(name) for p in packets)


@pytest.mark.parametrize("name", VIDEO)
def test_every_stream_begins_with_a_key_frame_and_gets_another_when_asked(name: str) -> None:
    for packets in streams(name):
        starts = [p for p in packets if p.has(PacketFlag.KEY_FRAME) and p.has(PacketFlag.FRAME_START)]
        assert starts[0] is packets[0]
        assert 2 <= len(starts) == len({p.timestamp for p in starts}) < 12
        assert all((p.spatial, p.temporal) == (0, 0) for p in starts)


@pytest.mark.parametrize("name", [*VP9, *AV1])
def test_key_frames_bring_the_structure_in_their_first_packet_only(name: str) -> None:
    (packets,) = streams(name)
    for frame in frames(packets):
        key = frame[0].has(PacketFlag.STRUCTURE)
        assert [p.has(PacketFlag.STRUCTURE) for p in frame] == [key] + [False] * (len(frame) - 1)
        assert all(p.has(PacketFlag.KEY_FRAME) == key for p in frame)


@pytest.mark.parametrize(("name", "spatial_layers"), [("vp9_l3t3", 3), ("vp9_l3t3_key", 3), ("av1_l3t3_key", 3)])
def test_all_layers_of_svc_appear(name: str, spatial_layers: int) -> None:
    (packets,) = streams(name)
    assert {(p.spatial, p.temporal) for p in packets} == {(s, t) for s in range(spatial_layers) for t in range(3)}


@pytest.mark.parametrize("name", ["vp9_l1t3", "av1_l1t3", *VP8])
def test_all_temporal_layers_appear(name: str) -> None:
    for packets in streams(name):
        assert {(p.spatial, p.temporal) for p in packets} == {(0, 0), (0, 1), (0, 2)}


@pytest.mark.parametrize("name", VP9)
def test_vp9_payload_and_dependency_descriptor_agree(name: str) -> None:
    both = zip(described(name), described(name, WITHOUT_DESCRIPTOR), strict=True)
    compared = PacketFlag.KEY_FRAME | PacketFlag.FRAME_START | PacketFlag.FRAME_END
    for by_descriptor, by_payload in both:
        assert by_descriptor.template != by_payload.template
        assert (by_descriptor.spatial, by_descriptor.temporal) == (by_payload.spatial, by_payload.temporal)
        assert by_descriptor.flags & compared == by_payload.flags & compared


@pytest.mark.parametrize("name", AV1)
def test_av1_aggregation_header_and_dependency_descriptor_agree_on_key_frames(name: str) -> None:
    for by_descriptor, by_payload in zip(described(name), described(name, WITHOUT_DESCRIPTOR), strict=True):
        assert by_descriptor.has(PacketFlag.STRUCTURE) == by_payload.has(PacketFlag.KEY_FRAME)


@pytest.mark.parametrize("name", ["vp9_l1t3", "av1_l1t3"])
def test_layers_may_be_entered_where_no_skipped_frame_is_needed(name: str) -> None:
    """In L1T3 the layers follow as 0 2 1 2, and only the second frame of layer 2 refers to a frame of layer 1."""
    (packets,) = streams(name)
    since_base: list[int] = []
    seen = set()
    for frame in whole_frames(packets):
        layer = int(frame[0].temporal)
        since_base = [0] if layer == 0 else [*since_base, layer]
        seen.add(tuple(since_base))
        assert all(p.has(PacketFlag.SWITCH_UP) == (since_base != [0, 2, 1, 2]) for p in frame)
    assert seen == {(0,), (0, 2), (0, 2, 1), (0, 2, 1, 2)}


@pytest.mark.parametrize("name", VP8)
def test_some_frames_of_higher_vp8_layers_are_places_to_enter_them(name: str) -> None:
    for packets in streams(name):
        assert {(p.temporal, p.has(PacketFlag.SWITCH_UP)) for p in packets} >= {
            (0, True),
            (1, True),
            (2, True),
            (2, False),
        }
        assert (0, False) not in {(p.temporal, p.has(PacketFlag.SWITCH_UP)) for p in packets}


@pytest.mark.parametrize("name", [*VP9, *AV1, *VP8])
def test_frames_on_which_nothing_depends_are_of_the_highest_temporal_layer(name: str) -> None:
    packets = [p for stream in streams(name) for p in stream if p.has(PacketFlag.NOT_REFERENCE)]
    assert packets
    assert {p.temporal for p in packets} == {2}


def test_vp8_picture_ids_and_tl0_count_frames() -> None:
    for packets in streams("vp8_simulcast"):
        for before, frame in pairwise(whole_frames(packets)):
            assert frame[0].picture_id == (before[0].picture_id + 1) & 0x7FFF
            step = 1 if frame[0].temporal == 0 else 0
            assert frame[0].tl0 == (before[0].tl0 + step) & 0xFF


def test_vp8_layers_come_from_the_dependency_descriptor_when_the_payload_has_none() -> None:
    (packets,) = streams("vp8_dependency")
    assert {p.picture_id for p in packets} == {-1}
    numbers = [frame[0].frame_number for frame in frames(packets)]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


@pytest.mark.parametrize("name", VIDEO)
def test_places_of_rewritten_fields_hold_these_fields(name: str) -> None:
    for packet in described(name):
        if packet.picture_id >= 0 and packet.picture_at:
            at = packet.payload_at + packet.picture_at
            value = int.from_bytes(packet.data[at : at + packet.picture_bytes], "big")
            assert value & (0x7FFF if packet.picture_bytes == 2 else 0x7F) == packet.picture_id
        if packet.tl0_at:
            assert packet.data[packet.payload_at + packet.tl0_at] == packet.tl0


def test_red_carries_the_primary_block_of_the_packet_before_as_redundancy() -> None:
    (packets,) = streams("red")
    audio = [p for p in packets if p.flags]
    assert len(audio) < len(packets), "the recording has packets of padding only"
    compared = 0
    for before, packet in pairwise(audio):
        block = packet.data[packet.payload_at :]
        if not block[0] & 0x80 or packet.sequence != before.sequence + 1:
            continue
        assert block[4] & 0x80 == 0, "Chromium sends one redundant block"
        primary = before.data[before.payload_at + before.primary_at :]
        redundant = block[5 : packet.primary_at]
        assert redundant[:8] == primary[:8]
        assert len(redundant) == before.size - before.payload_at - before.primary_at
        compared += 1
    assert compared > 100


def test_recordings_are_small() -> None:
    assert 0 < max(file.stat().st_size for file in CAPTURES.glob("*.bin")) <= 60 * 1024
