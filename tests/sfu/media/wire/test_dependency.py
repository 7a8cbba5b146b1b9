"""Reading the dependency descriptor, against its slow twin: recorded ones, made-up ones, hostile ones."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfu.media.wire.dependency import decode_target, indication
from sfu.media.wire.describe import UNKNOWN_TEMPLATE
from sfu.schema.capacities import SEQUENCE_START
from sfu.schema.codes import PacketFlag
from sfu.schema.memory import Memory
from tests.reference.dependency_descriptor import Descriptor, Malformed, Structure, Template, parse, serialize
from tests.sfu.support.captured import described
from tests.sfu.support.descriptors import (
    DELTA,
    KEY,
    L1T2,
    RECORDED,
    ROW,
    Stream,
    descriptors,
    packed,
    template_of,
    with_structure,
)


@pytest.fixture(scope="module")
def memory() -> Memory:
    return Memory()


def check_described(packet: Any, descriptor: Descriptor, structure: Structure) -> None:
    template = template_of(descriptor, structure)
    assert template
    assert packet["frame_number"] == descriptor.frame_number
    assert packet["template"] == (descriptor.template_id - structure.offset) % 64
    assert (packet["spatial"], packet["temporal"]) == (template.spatial, template.temporal)
    expected = template.indications if descriptor.indications is None else descriptor.indications
    assert packet["indications"] == packed(expected)
    assert bool(packet["flags"] & PacketFlag.FRAME_START) == descriptor.start
    assert bool(packet["flags"] & PacketFlag.FRAME_END) == descriptor.end
    assert bool(packet["flags"] & PacketFlag.STRUCTURE) == (descriptor.structure is not None)


@given(with_structure())
def test_a_structure_is_read_as_written(memory: Memory, descriptor: Descriptor) -> None:
    structure = descriptor.structure
    assert structure
    stream = Stream(memory)
    packet = stream.take(serialize(descriptor))
    check_described(packet, descriptor, structure)
    row = stream.row
    assert (row["template_count"], row["target_count"]) == (len(structure.templates), structure.targets)
    everything = (1 << structure.targets) - 1
    assert row["active_targets"] == (everything if descriptor.active_targets is None else descriptor.active_targets)
    for target in range(structure.targets):
        layers = structure.layers_of_target(target)
        assert (row["target_spatial"][target], row["target_temporal"][target]) == (layers or (255, 255))


@given(st.data())
def test_frames_after_a_structure_are_read_by_it(memory: Memory, data: st.DataObject) -> None:
    first = data.draw(with_structure(most_targets=12))
    structure = first.structure
    assert structure
    stream = Stream(memory)
    stream.take(serialize(first))
    for _ in range(3):
        descriptor = data.draw(descriptors(structure, attached=False))
        packet = stream.take(serialize(descriptor, structure))
        check_described(packet, descriptor, structure)
        if descriptor.active_targets is not None:
            assert stream.row["active_targets"] == descriptor.active_targets
    assert not stream.key_frame_requested


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_descriptors_read_as_by_the_slow_twin(name: str) -> None:
    structure = None
    for packet in described(name):
        descriptor = parse(packet.descriptor, structure)
        structure = descriptor.structure or structure
        assert structure
        check_described(packet.columns, descriptor, structure)
        if descriptor.structure:
            assert serialize(descriptor) == packet.descriptor, "the twin itself is right"


def test_a_frame_without_its_structure_stays_unknown_and_asks_for_a_key_frame(memory: Memory) -> None:
    stream = Stream(memory)
    packet = stream.take(serialize(DELTA))
    assert (packet["template"], packet["indications"], packet["frame_number"]) == (UNKNOWN_TEMPLATE, 0, 0)
    assert (
        packet["flags"] & (PacketFlag.FRAME_START | PacketFlag.FRAME_END | PacketFlag.KEY_FRAME)
        == PacketFlag.FRAME_START | PacketFlag.FRAME_END
    )
    assert stream.key_frame_requested


def test_a_packet_inside_a_frame_does_not_ask_for_a_structure(memory: Memory) -> None:
    stream = Stream(memory)
    stream.take(serialize(replace(DELTA, start=False)))
    assert not stream.key_frame_requested


def test_template_ids_wrap_around(memory: Memory) -> None:
    wrapped = replace(L1T2, offset=63)
    stream = Stream(memory)
    stream.take(serialize(replace(KEY, template_id=63, structure=wrapped)))
    assert stream.take(serialize(replace(DELTA, template_id=1)))["template"] == 2
    assert stream.take(serialize(replace(DELTA, template_id=2)))["template"] == UNKNOWN_TEMPLATE


def test_all_packets_of_the_key_frame_are_marked(memory: Memory) -> None:
    stream = Stream(memory)
    first = stream.take(serialize(replace(KEY, end=False)), timestamp=7)["flags"]
    second = stream.take(serialize(replace(KEY, start=False, structure=None)), timestamp=7)["flags"]
    much_later = stream.take(serialize(replace(KEY, structure=None, template_id=61)), timestamp=8)["flags"]
    assert first & (PacketFlag.KEY_FRAME | PacketFlag.STRUCTURE) == PacketFlag.KEY_FRAME | PacketFlag.STRUCTURE
    assert second & (PacketFlag.KEY_FRAME | PacketFlag.STRUCTURE) == PacketFlag.KEY_FRAME
    assert much_later & PacketFlag.KEY_FRAME == 0, "frame numbers come back after 65536 frames"


def test_a_late_old_structure_does_not_replace_a_newer_one(memory: Memory) -> None:
    stream = Stream(memory)
    old = replace(L1T2, offset=10)
    stream.take(serialize(KEY), sequence=SEQUENCE_START + 50)
    late = stream.take(serialize(replace(KEY, template_id=10, structure=old)), sequence=SEQUENCE_START + 40)
    assert late["template"] == UNKNOWN_TEMPLATE
    assert not stream.key_frame_requested
    assert stream.row["structure_offset"] == 60


def test_a_late_old_mask_does_not_replace_a_newer_one(memory: Memory) -> None:
    stream = Stream(memory)
    stream.take(serialize(KEY), sequence=SEQUENCE_START + 1)
    stream.take(serialize(replace(DELTA, active_targets=1), L1T2), sequence=SEQUENCE_START + 3)
    stream.take(serialize(replace(DELTA, active_targets=2), L1T2), sequence=SEQUENCE_START + 2)
    assert stream.row["active_targets"] == 1
    stream.take(serialize(KEY), sequence=SEQUENCE_START + 2)
    assert stream.row["active_targets"] == 1
    stream.take(serialize(KEY), sequence=SEQUENCE_START + 4)
    assert stream.row["active_targets"] == 3


def test_a_structure_that_is_cut_off_changes_nothing(memory: Memory) -> None:
    whole = serialize(KEY)
    stream = Stream(memory)
    stream.take(serialize(replace(KEY, template_id=10, structure=replace(L1T2, offset=10))))
    for size in range(4, len(whole)):
        packet = stream.take(whole[:size])
        assert packet["template"] == UNKNOWN_TEMPLATE
        assert packet["flags"] & (PacketFlag.STRUCTURE | PacketFlag.KEY_FRAME) == 0
        assert stream.row["structure_offset"] == 10
    assert stream.take(whole)["template"] == 0


def test_too_many_templates_and_layers_are_malformed(memory: Memory) -> None:
    stream = Stream(memory)
    head = "110000000000000000000000" + "10000" + "000000" + "00000"
    for layers in ("00" * 70, "10" * 4 + "11", "01" * 8 + "11"):
        bits = (head + layers).ljust(2000, "0")
        assert stream.take(int(bits, 2).to_bytes(250, "big"))["template"] == UNKNOWN_TEMPLATE
    bits = (head + "10" * 3 + "01" * 7 + "11").ljust(2000, "0")
    assert stream.take(int(bits, 2).to_bytes(250, "big"))["template"] == 0


def test_a_descriptor_shorter_than_three_bytes_is_as_if_absent(memory: Memory) -> None:
    packet = Stream(memory).take(b"\xc0\x00")
    assert packet["frame_number"] == -1


@given(st.lists(st.binary(min_size=3, max_size=255), min_size=1, max_size=4))
def test_any_bytes_read_as_by_the_slow_twin_or_stay_unknown(memory: Memory, packets: list[bytes]) -> None:
    stream = Stream(memory)
    structure: Structure | None = None
    for data in packets:
        packet = stream.take(data)
        known = packet["template"] != UNKNOWN_TEMPLATE
        try:
            descriptor = parse(data, structure)
        except Malformed:
            assert not known or data[3] & 0x80 == 0
            return
        structure = descriptor.structure or structure
        expected = structure is not None and template_of(descriptor, structure) is not None
        assert known == expected
        if known and structure:
            check_described(packet, descriptor, structure)


def test_the_best_decode_target_within_the_layers_is_chosen(memory: Memory) -> None:
    stream = Stream(memory)
    recorded = next(described("av1_l3t3_key"))
    stream.take(recorded.descriptor)
    dependency = memory.table("dependencies")[ROW]
    stream.row["active_targets"] = 0x1FF
    assert [decode_target(dependency, s, t) for s in range(3) for t in range(3)] == list(range(9))
    assert decode_target(dependency, 2, 3) == 8
    stream.row["active_targets"] = 0x3F
    assert decode_target(dependency, 2, 2) == 5, "the highest spatial layer is not produced now"
    stream.row["active_targets"] = 0
    assert decode_target(dependency, 2, 2) == 8


def test_without_a_structure_there_is_no_decode_target(memory: Memory) -> None:
    Stream(memory)
    assert decode_target(memory.table("dependencies")[ROW], 2, 2) == -1


def test_the_lowest_target_serves_when_all_are_higher(memory: Memory) -> None:
    """A structure may leave out low targets; appendix A.6.1 has an example that also counts from the highest down."""
    structure = Structure(0, 2, (Template(0, 0, (2, 2)), Template(0, 1, (3, 2)), Template(1, 0, (2, 0))))
    stream = Stream(memory)
    packet = stream.take(serialize(replace(KEY, template_id=1, structure=structure)))
    assert decode_target(memory.table("dependencies")[ROW], 0, 0) == 1
    assert decode_target(memory.table("dependencies")[ROW], 1, 1) == 0
    assert [indication(packet, target) for target in range(2)] == [3, 2]


@given(with_structure(most_targets=10), st.integers(0, 3), st.integers(0, 7))
def test_decode_targets_stay_within_the_layers_when_any_does(
    memory: Memory, descriptor: Descriptor, spatial: int, temporal: int
) -> None:
    structure = descriptor.structure
    assert structure
    Stream(memory).take(serialize(replace(descriptor, active_targets=None)))
    layers = {k: structure.layers_of_target(k) for k in range(structure.targets)}
    used = {k: value for k, value in layers.items() if value}
    fitting = {k: value for k, value in used.items() if value[0] <= spatial and value[1] <= temporal}
    chosen = decode_target(memory.table("dependencies")[ROW], spatial, temporal)
    if not used:
        assert chosen == -1
        return
    assert used[chosen] == (max(fitting.values()) if fitting else min(used.values()))
