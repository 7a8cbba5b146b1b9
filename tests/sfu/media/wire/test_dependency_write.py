"""Writing stored dependency descriptors again with the decode targets of one receiver."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfu.schema.memory import Memory
from tests.reference.dependency_descriptor import Structure, Template, parse, serialize
from tests.sfu.support.captured import described
from tests.sfu.support.descriptors import DELTA, KEY, L1T2, RECORDED, Stream, descriptors, with_structure


@pytest.fixture(scope="module")
def memory() -> Memory:
    return Memory()


@given(st.data())
def test_a_written_descriptor_differs_in_the_mask_only(memory: Memory, data: st.DataObject) -> None:
    first = data.draw(with_structure(most_targets=10))
    structure = first.structure
    assert structure
    stream = Stream(memory)
    packet = stream.take(serialize(replace(first, active_targets=None)))
    descriptor = first
    if data.draw(st.booleans()):
        descriptor = data.draw(descriptors(structure, attached=False))
        packet = stream.take(serialize(replace(descriptor, active_targets=None), structure))
    targets = data.draw(st.integers(1, (1 << structure.targets) - 1))
    assert parse(stream.write(packet, targets), structure) == replace(descriptor, active_targets=targets)
    packet = stream.take(serialize(descriptor, structure))
    produced = int(stream.row["active_targets"])
    expected = replace(descriptor, active_targets=targets & produced or targets)
    assert parse(stream.write(packet, targets), structure) == expected
    assert stream.write(packet, 0) == serialize(descriptor, structure)


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_descriptors_are_written_again_with_a_mask(memory: Memory, name: str) -> None:
    stream, structure = Stream(memory), None
    for recorded in described(name):
        packet = stream.take(recorded.descriptor, timestamp=recorded.timestamp)
        descriptor = parse(recorded.descriptor, structure)
        structure = descriptor.structure or structure
        assert structure
        assert stream.write(packet, 0) == recorded.descriptor
        written = stream.write(packet, 1)
        assert parse(written, structure) == replace(descriptor, active_targets=1)
        assert len(written) <= len(recorded.descriptor) + 4


def test_a_descriptor_of_an_older_structure_is_copied(memory: Memory) -> None:
    stream = Stream(memory)
    stream.take(serialize(KEY))
    packet = stream.take(serialize(DELTA)).copy()
    old_data = stream.data
    stream.take(serialize(replace(KEY, template_id=10, structure=replace(L1T2, offset=10))))
    stream.data = old_data
    assert stream.write(packet, 1) == serialize(DELTA)


def test_an_old_structure_is_written_by_itself(memory: Memory) -> None:
    stream = Stream(memory)
    packet = stream.take(serialize(KEY)).copy()
    old_data = stream.data
    larger = Structure(10, 7, (Template(0, 0, (2,) * 7),))
    stream.take(serialize(replace(KEY, template_id=10, structure=larger)))
    stream.data = old_data
    assert parse(stream.write(packet, 1), None) == replace(KEY, active_targets=1)


def test_nothing_is_written_without_a_descriptor_or_room(memory: Memory) -> None:
    stream = Stream(memory)
    assert stream.write(stream.take(b""), 1) == b""
    packet = stream.take(serialize(KEY))
    size = len(serialize(replace(KEY, active_targets=1)))
    assert stream.write(packet, 1, room=size) == b""
    assert len(stream.write(packet, 1, room=size + 1)) == size
    assert stream.write(packet, 0, room=len(serialize(KEY))) == b""


def test_a_descriptor_that_would_grow_too_long_is_copied(memory: Memory) -> None:
    structure = Structure(0, 32, (Template(0, 0, (2,) * 32),))
    data = serialize(replace(KEY, template_id=0, structure=structure, frame_diffs=())).ljust(254, b"\0")
    stream = Stream(memory)
    packet = stream.take(data)
    assert packet["template"] == 0
    assert stream.write(packet, 1) == data


@given(st.lists(st.binary(min_size=1, max_size=255), min_size=1, max_size=3), st.integers(0, (1 << 32) - 1))
def test_any_bytes_can_be_written_again(memory: Memory, packets: list[bytes], targets: int) -> None:
    stream = Stream(memory)
    for data in packets:
        written = stream.write(stream.take(data), targets)
        assert len(written) <= 255
        assert written[:3] == (data[:3] if len(data) >= 3 else b"")
