"""Spatial and temporal layers in one stream, with what Chromium really sends.

The receiver is modelled after the dependency descriptor alone (AV1 RTP payload format, appendix A): it must get every
frame that a frame refers to, and every frame of the decode targets that it was told are active.
"""

import itertools
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
from aiortc import rtp
from hypothesis import given, settings
from hypothesis import strategies as st

from sfu.media.subscriptions import set_layers
from sfu.parameters import Codec, Extension
from sfu.schema.capacities import MEDIA_PER_TRANSPORT
from sfu.schema.codes import PacketFlag
from tests.reference.dependency_descriptor import Descriptor, Structure, parse
from tests.sfu.media.send.test_forwarding import elements
from tests.sfu.support.captured import recorded, set_media
from tests.sfu.support.subscribers import MS, PUBLISHER, Room

DESCRIPTOR_ID = 12
CODEC = {"vp9": Codec.VP9, "av1": Codec.AV1}
WITH_DESCRIPTORS = ("av1_l1t3", "av1_l3t3_key", "vp9_l1t3", "vp9_l3t3", "vp9_l3t3_key")


@dataclass
class Frame:
    """One frame of the recording, by what its descriptors say."""

    timestamp: int
    spatial: int
    temporal: int
    indications: tuple[int, ...]
    refers_to: tuple[int, ...]
    chains: tuple[int, ...]
    """For each chain, the number of its frame before this one; 0: none."""
    packets: int = 0


@cache
def frames_of(name: str) -> dict[int, Frame]:
    """Frame number -> frame; recordings are too short for the number to wrap."""
    legend, packets = recorded(name)
    number = next(int(n) for n, uri in legend["extensions"].items() if "dependency" in uri)
    frames: dict[int, Frame] = {}
    known: Structure | None = None
    for data in packets:
        if number not in elements(data):
            continue
        one = parse(elements(data)[number], known)
        known = one.structure or known
        assert known is not None
        template = known.templates[(one.template_id - known.offset) & 63]
        if one.frame_number not in frames:
            diffs = template.frame_diffs if one.frame_diffs is None else one.frame_diffs
            frames[one.frame_number] = Frame(
                rtp.RtpPacket.parse(data).timestamp,
                template.spatial,
                template.temporal,
                one.indications or template.indications,
                tuple(one.frame_number - diff for diff in diffs),
                tuple(one.frame_number - diff if diff else 0 for diff in one.chain_diffs or template.chain_diffs),
            )
        frames[one.frame_number].packets += 1
    return frames


@dataclass
class Received:
    """What a receiver made of the packets that it got."""

    packets: list[rtp.RtpPacket] = field(default_factory=list)
    descriptors: list[Descriptor] = field(default_factory=list)
    masks: list[int] = field(default_factory=list)

    def add(self, data: bytes) -> None:
        known = next((one.structure for one in reversed(self.descriptors) if one.structure), None)
        one = parse(elements(data)[DESCRIPTOR_ID], known)
        structure = one.structure or known
        assert structure is not None, "the first frame must bring the structure"
        everything = (1 << structure.targets) - 1
        before = everything if one.structure or not self.masks else self.masks[-1]
        self.packets.append(rtp.RtpPacket.parse(data))
        self.descriptors.append(one)
        self.masks.append(before if one.active_targets is None else one.active_targets)


def open_room(name: str, without: frozenset[Extension] = frozenset()) -> Room:
    legend, _ = recorded(name)
    room = Room(CODEC[name[:3]])
    own = room.memory.table("media")[PUBLISHER * MEDIA_PER_TRANSPORT]
    set_media(room.memory, legend, without)
    for column in own.dtype.names:
        own[column] = room.memory.table("media")[0][column]
    room.add_viewer()
    media = room.media()
    media["id_of_extension"][Extension.DEPENDENCY] = DESCRIPTOR_ID
    media["mixed_extensions"] = 1
    return room


def play(
    name: str, targets: dict[int, tuple[int, int]], without: frozenset[Extension] = frozenset()
) -> tuple[Room, Any]:
    """Forward a recording; targets: packet number -> (spatial, temporal) asked for from then on."""
    room = open_room(name, without)
    for number, data in enumerate(recorded(name)[1]):
        if number in targets:
            set_layers(room.record, 0, *targets[number])
        room.store_whole(data, number)
        room.forward()
        room.pass_time(5 * MS)
    return room, room.viewers[0].received


def check_receiver(name: str, received: Received) -> None:
    """Frames are whole, refer to what came, and follow the chains that protect the active targets (appendix A.8.3)."""
    frames = frames_of(name)
    counts: dict[int, int] = defaultdict(int)
    for one in received.descriptors:
        counts[one.frame_number] += 1
    protected_by = STRUCTURE[name].protected_by
    for one, mask in zip(received.descriptors, received.masks, strict=True):
        frame = frames[one.frame_number]
        assert counts[one.frame_number] == frame.packets
        assert all(other in counts for other in frame.refers_to), f"frame {one.frame_number} cannot be decoded"
        chains = {protected_by[target] for target in range(len(protected_by)) if mask >> target & 1}
        assert all(frame.chains[chain] in counts for chain in chains if frame.chains[chain])
    check_markers(name, received.packets)


def check_markers(name: str, packets: list[rtp.RtpPacket]) -> None:
    """Numbers without gaps; a marker only on the last packet of a picture, and there if the publisher set one."""
    marked = {packet.timestamp for data in recorded(name)[1] if (packet := rtp.RtpPacket.parse(data)).marker}
    for packet, following in itertools.pairwise(packets):
        assert following.sequence_number == (packet.sequence_number + 1) & 0xFFFF
        last = packet.timestamp != following.timestamp
        assert last >= packet.marker >= (last and packet.timestamp in marked)


def check_targets(name: str, received: Received) -> None:
    """No frame of a target that stayed active is missing; holds while nothing else was asked for."""
    frames = frames_of(name)
    mask_of = {one.frame_number: mask for one, mask in zip(received.descriptors, received.masks, strict=True)}
    order, position = list(mask_of), {number: k for k, number in enumerate(frames)}
    for before, after in itertools.pairwise(order):
        mask = mask_of[before] & mask_of[after]
        for skipped in list(frames)[position[before] + 1 : position[after]]:
            assert not [t for t, value in enumerate(frames[skipped].indications) if value and mask >> t & 1]


TARGETS = st.dictionaries(st.integers(0, 359), st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=12)


@pytest.mark.parametrize("name", WITH_DESCRIPTORS)
@settings(max_examples=25)
@given(targets=TARGETS)
def test_whatever_is_asked_for_the_receiver_can_decode_it(name: str, targets: dict[int, tuple[int, int]]) -> None:
    received = Received()
    for data in play(name, targets)[1]:
        received.add(data)
    assert received.packets
    check_receiver(name, received)


@pytest.mark.parametrize("name", ["av1_l1t3", "vp9_l1t3", "vp9_l3t3"])
def test_without_limits_everything_is_forwarded_with_the_descriptors_as_they_are(name: str) -> None:
    legend, packets = recorded(name)
    number = next(int(n) for n, uri in legend["extensions"].items() if "dependency" in uri)
    _, data = play(name, {})
    assert len(data) == len(packets)
    assert [elements(one)[DESCRIPTOR_ID] for one in data] == [elements(one)[number] for one in packets]


@pytest.mark.parametrize("name", WITH_DESCRIPTORS)
@pytest.mark.parametrize("target", [(0, 0), (1, 0), (0, 2), (1, 1), (2, 1)])
def test_a_steady_target_gives_its_layers_and_no_more(name: str, target: tuple[int, int]) -> None:
    received = Received()
    for data in play(name, {0: target})[1]:
        received.add(data)
    check_receiver(name, received)
    check_targets(name, received)
    frames = [frames_of(name)[one.frame_number] for one in received.descriptors]
    available = frames_of(name).values()
    assert max(frame.spatial for frame in frames) == min(target[0], max(frame.spatial for frame in available))
    assert max(frame.temporal for frame in frames) == min(target[1], max(frame.temporal for frame in available))


@pytest.mark.parametrize("name", ["vp9_l3t3_key", "av1_l3t3_key"])
def test_lower_layers_that_the_highest_does_not_need_stay_away(name: str) -> None:
    received = Received()
    for data in play(name, {})[1]:
        received.add(data)
    check_receiver(name, received)
    check_targets(name, received)
    counted = {one.frame_number for one in received.descriptors}
    by_spatial = [sum(frames_of(name)[number].spatial == layer for number in counted) for layer in range(3)]
    assert by_spatial[2] > 2 * by_spatial[0]


@pytest.mark.parametrize("name", ["vp9_l3t3", "vp9_l3t3_key", "av1_l3t3_key"])
def test_a_higher_spatial_layer_comes_with_the_next_key_frame_and_is_asked_for(name: str) -> None:
    room = open_room(name)
    set_layers(room.record, 0, 0, 2)
    packets = recorded(name)[1]
    asked = reached = False
    for number, data in enumerate(packets):
        if number == 40:
            set_layers(room.record, 0, 2, 2)
        packet = room.store_whole(data, number)
        key = packet["flags"] & PacketFlag.KEY_FRAME and packet["flags"] & PacketFlag.FRAME_START
        room.forward()
        numbers = [
            parse(elements(one)[DESCRIPTOR_ID], STRUCTURE[name]).frame_number for one in room.viewers[0].received
        ]
        spatial = [frames_of(name)[frame].spatial for frame in numbers]
        room.viewers[0].received.clear()
        if number > 40 and not reached:
            asked |= bool(room.stream()["key_frame_requested"])
            reached = bool(key)
            assert reached or max(spatial, default=0) == 0
    assert asked
    assert reached
    assert room.subscription()["spatial"] == 2


def _structure(name: str) -> Structure:
    legend, packets = recorded(name)
    number = next(int(n) for n, uri in legend["extensions"].items() if "dependency" in uri)
    structure = parse(elements(packets[0])[number], None).structure
    assert structure is not None
    return structure


STRUCTURE = {name: _structure(name) for name in WITH_DESCRIPTORS}


@settings(max_examples=25)
@given(targets=TARGETS)
@pytest.mark.parametrize("name", ["vp9_l3t3", "vp9_l1t3", "vp9_l3t3_key"])
def test_without_descriptors_vp9_layers_rise_only_where_they_may(
    name: str, targets: dict[int, tuple[int, int]]
) -> None:
    room, data = play(name, targets, frozenset({Extension.DEPENDENCY}))
    packets = [rtp.RtpPacket.parse(one) for one in data]
    assert packets
    assert all(DESCRIPTOR_ID not in elements(one) for one in data)
    top: dict[int, int] = {}
    limit = -1
    for packet in packets:
        payload = packet.payload
        at = 3 if payload[1] & 0x80 else 2
        temporal, switch, spatial = payload[at] >> 5, payload[at] >> 4 & 1, payload[at] >> 1 & 7
        key = not payload[0] & 0x40 and spatial == 0
        new_picture = packet.timestamp not in top
        if key and new_picture:
            limit = 2
        top[packet.timestamp] = max(top.get(packet.timestamp, 0), spatial)
        assert spatial <= limit
        assert temporal == 0 or switch or temporal <= max(limit, 2)
    pictures = list(top.items())
    for number, (timestamp, spatial) in enumerate(pictures[1:], start=1):
        lower = spatial < pictures[number - 1][1]
        limit = spatial if lower else limit
        assert timestamp > pictures[number - 1][0]
    check_markers(name, packets)
    assert room.subscription()["decode_target"] == -1


def test_a_viewer_with_descriptors_starts_only_on_a_structure() -> None:
    room = open_room("av1_l1t3")
    packets = recorded("av1_l1t3")[1]
    room.store_whole(packets[0], 0)
    stored = room.memory.table("packets")[0][room.stream()["key_sequence"] & 511]
    stored["flags"] = PacketFlag.KEY_FRAME | PacketFlag.FRAME_START  # as if its structure were not attached
    room.forward()
    assert room.viewers[0].received == []
    room.media()["id_of_extension"][Extension.DEPENDENCY] = 0
    room.forward()
    room.store_whole(packets[1], 1)
    room.forward()
    assert len(room.viewers[0].received) == 2


def test_descriptors_of_simulcast_streams_are_not_forwarded() -> None:
    room = Room(Codec.VP9, layers=2)
    room.add_viewer()
    room.media()["id_of_extension"][Extension.DEPENDENCY] = DESCRIPTOR_ID
    room.store(
        0, extensions={Extension.DEPENDENCY: b"\xc0\x00\x01"}, flags=PacketFlag.KEY_FRAME | PacketFlag.FRAME_START
    )
    room.forward()
    assert DESCRIPTOR_ID not in elements(room.viewers[0].received[0])


@pytest.mark.parametrize("back", [45_000, 90_000 * 3600, 1 << 31])
def test_layers_without_descriptors_follow_the_target_after_timestamps_that_went_back(back: int) -> None:
    room = Room(Codec.VP9)
    viewer = room.add_viewer()
    start = 1 << 31

    def frame(number: int, temporal: int, gone_back: int) -> None:
        flags = (
            PacketFlag.FRAME_START
            | PacketFlag.FRAME_END
            | PacketFlag.SWITCH_UP
            | (PacketFlag.KEY_FRAME if number == 0 else 0)
        )
        timestamp = start + 3000 * number - gone_back
        room.store(number, timestamp=timestamp, temporal=temporal, flags=flags, payload=b"%d" % number)

    for number in range(3):
        frame(number, number & 1, 0)
    room.forward()
    set_layers(room.record, 0, 2, 0)
    for number in range(3, 7):
        frame(number, number & 1, back)
    room.forward()
    set_layers(room.record, 0, 2, 3)
    frame(7, 1, back)
    room.forward()
    assert [int(packet.payload) for packet in viewer.take()] == [0, 1, 2, 4, 6, 7]
