"""Dependency descriptors made up by hypothesis, and a stream row that reads and writes them. No tests."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from sfu.media.wire.dependency import reset_dependency
from sfu.media.wire.dependency_write import write_dependency
from sfu.media.wire.describe import describe
from sfu.parameters import Codec, Extension
from sfu.schema.capacities import SEQUENCE_START
from sfu.schema.memory import Memory
from tests.reference.dependency_descriptor import Descriptor, Structure, Template, serialize

ROW = 2
HEADER_BYTES = 20
RECORDED = ("vp9_l3t3", "vp9_l3t3_key", "vp9_l1t3", "av1_l3t3_key", "av1_l1t3", "vp8_dependency")
"""Recordings in `captures/` with descriptors."""

L1T2 = Structure(
    offset=60,
    targets=2,
    templates=(Template(0, 0, (2, 2)), Template(0, 0, (2, 2), (2,)), Template(0, 1, (0, 1), (1,))),
)
KEY = Descriptor(start=True, end=True, template_id=60, frame_number=65_535, structure=L1T2)
DELTA = Descriptor(start=True, end=True, template_id=62, frame_number=0)


@dataclass
class Stream:
    """Row ROW of a memory: describes packets that consist of a descriptor and one AV1 payload byte, and writes them."""

    memory: Memory
    sequence: int = SEQUENCE_START

    def __post_init__(self) -> None:
        reset_dependency(self.memory.record, ROW)
        self.memory.table("streams")["key_frame_requested"][ROW] = 0

    @property
    def row(self) -> Any:
        return self.memory.table("dependencies")[ROW]

    @property
    def key_frame_requested(self) -> bool:
        return bool(self.memory.table("streams")["key_frame_requested"][ROW])

    def take(self, descriptor: bytes, *, sequence: int | None = None, timestamp: int = 0) -> Any:
        """The packet row after describe; without a sequence number the packet is the next one."""
        self.sequence += 1
        packet = self.memory.table("packets")[ROW, 0]
        packet["sequence"] = self.sequence if sequence is None else sequence
        packet["timestamp"] = timestamp
        packet["codec"] = Codec.AV1
        packet["payload_at"] = HEADER_BYTES + len(descriptor)
        packet["size"] = HEADER_BYTES + len(descriptor) + 1
        packet["extension_at"][Extension.DEPENDENCY] = HEADER_BYTES if descriptor else 0
        packet["extension_bytes"][Extension.DEPENDENCY] = len(descriptor)
        self.data = np.frombuffer(bytes(HEADER_BYTES) + descriptor + b"\x10", np.uint8)
        describe(self.memory.record, ROW, packet, self.data)
        return packet

    def write(self, packet: Any, targets: int, room: int = 300) -> bytes:
        """What write_dependency makes of the packet taken last."""
        out = np.full(room, 0xFF, np.uint8)
        size = write_dependency(self.memory.record, ROW, packet, self.data, 0, out, 1, targets)
        assert out[0] == 0xFF
        assert (out[1 + size :] == 0xFF).all()
        return out[1 : 1 + size].tobytes()


def packed(indications: tuple[int, ...]) -> int:
    return sum(value << 2 * k for k, value in enumerate(indications))


def template_of(descriptor: Descriptor, structure: Structure) -> Template | None:
    index = (descriptor.template_id - structure.offset) % 64
    return structure.templates[index] if index < len(structure.templates) else None


@st.composite
def structures(draw: st.DrawFn, most_targets: int = 32) -> Structure:
    targets = draw(st.integers(1, most_targets))
    layers = [(0, 0)]
    for step in draw(st.lists(st.sampled_from("=ts"), max_size=11)):
        spatial, temporal = layers[-1]
        following = {"=": (spatial, temporal), "t": (spatial, temporal + 1), "s": (spatial + 1, 0)}[step]
        if following[0] <= 3 and following[1] <= 7:
            layers.append(following)
    chains = draw(st.integers(0, min(targets, 3)))
    templates = st.builds(
        Template,
        st.just(0),
        st.just(0),
        st.tuples(*[st.integers(0, 3)] * targets),
        st.lists(st.integers(1, 16), max_size=3).map(tuple),
        st.tuples(*[st.integers(0, 15)] * chains),
    )
    sizes = st.tuples(st.integers(1, 65_536), st.integers(1, 65_536))
    return Structure(
        draw(st.integers(0, 63)),
        targets,
        tuple(replace(draw(templates), spatial=spatial, temporal=temporal) for spatial, temporal in layers),
        tuple(draw(st.integers(0, chains - 1)) for _ in range(targets)) if chains else (),
        chains,
        tuple(draw(sizes) for _ in range(layers[-1][0] + 1)) if draw(st.booleans()) else (),
    )


@st.composite
def descriptors(draw: st.DrawFn, structure: Structure, attached: bool) -> Descriptor:
    def maybe(strategy: st.SearchStrategy[Any]) -> Any:
        return draw(st.none() | strategy)

    return Descriptor(
        draw(st.booleans()),
        draw(st.booleans()),
        (structure.offset + draw(st.integers(0, len(structure.templates) - 1))) % 64,
        draw(st.integers(0, 65_535)),
        structure if attached else None,
        maybe(st.integers(0, (1 << structure.targets) - 1)),
        maybe(st.tuples(*[st.integers(0, 3)] * structure.targets)),
        maybe(st.lists(st.integers(1, 4096), max_size=4).map(tuple)),
        maybe(st.tuples(*[st.integers(0, 255)] * structure.chains)),
    )


def with_structure(most_targets: int = 32) -> st.SearchStrategy[Descriptor]:
    whole = structures(most_targets).flatmap(lambda structure: descriptors(structure, attached=True))
    return whole.filter(lambda descriptor: len(serialize(descriptor)) <= 255)
