"""A slow, obvious dependency descriptor (AV1 RTP payload format, appendix A.4.1): the twin of
`sfu.media.wire.dependency`.

`parse` reads the syntax with one string of bits; `serialize` writes it. Nothing here is shared with the kernels.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Template:
    """What many frames have in common."""

    spatial: int
    temporal: int
    indications: tuple[int, ...]
    frame_diffs: tuple[int, ...] = ()
    chain_diffs: tuple[int, ...] = ()


@dataclass(frozen=True)
class Structure:
    """template_dependency_structure()."""

    offset: int
    targets: int
    templates: tuple[Template, ...]
    protected_by: tuple[int, ...] = ()
    chains: int = 0
    resolutions: tuple[tuple[int, int], ...] = ()

    def layers_of_target(self, target: int) -> tuple[int, int] | None:
        """The highest layers among the frames of a decode target."""
        members = [one for one in self.templates if one.indications[target]]
        if not members:
            return None
        return max(one.spatial for one in members), max(one.temporal for one in members)


@dataclass(frozen=True)
class Descriptor:
    """One packet's descriptor. None: the field is not there and the template's value holds."""

    start: bool
    end: bool
    template_id: int
    frame_number: int
    structure: Structure | None = None
    active_targets: int | None = None
    indications: tuple[int, ...] | None = None
    frame_diffs: tuple[int, ...] | None = None
    chain_diffs: tuple[int, ...] | None = None


class Malformed(Exception):
    """The bytes end too early or say something impossible."""


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.bits = "".join(f"{byte:08b}" for byte in data)

    def read(self, count: int) -> int:
        if count > len(self.bits):
            raise Malformed("too short")
        taken, self.bits = self.bits[:count], self.bits[count:]
        return int(taken or "0", 2)

    def non_symmetric(self, values: int) -> int:
        width = values.bit_length()
        short = (1 << width) - values
        number = self.read(width - 1)
        return number if number < short else (number << 1) - short + self.read(1)


def _non_symmetric(number: int, values: int) -> str:
    width = values.bit_length()
    short = (1 << width) - values
    if number < short:
        return f"{number:0{width - 1}b}" if width > 1 else ""
    return f"{number + short:0{width}b}"


def _read_layers(reader: _Reader) -> list[tuple[int, int]]:
    layers = [(0, 0)]
    while (following := reader.read(2)) != 3:
        spatial, temporal = layers[-1]
        layers.append([(spatial, temporal), (spatial, temporal + 1), (spatial + 1, 0)][following])
        if len(layers) > 64 or layers[-1][0] > 3 or layers[-1][1] > 7:
            raise Malformed("layers")
    return layers


def _read_structure(reader: _Reader) -> Structure:
    offset, targets = reader.read(6), reader.read(5) + 1
    layers = _read_layers(reader)
    indications = [tuple(reader.read(2) for _ in range(targets)) for _ in layers]
    frame_diffs = []
    for _ in layers:
        diffs = []
        while reader.read(1):
            diffs.append(reader.read(4) + 1)
        frame_diffs.append(tuple(diffs))
    chains = reader.non_symmetric(targets + 1)
    protected_by = tuple(reader.non_symmetric(chains) for _ in range(targets)) if chains else ()
    chain_diffs = [tuple(reader.read(4) for _ in range(chains)) for _ in layers]
    resolutions: tuple[tuple[int, int], ...] = ()
    if reader.read(1):
        resolutions = tuple((reader.read(16) + 1, reader.read(16) + 1) for _ in range(layers[-1][0] + 1))
    templates = tuple(
        Template(*layer, *rest) for layer, *rest in zip(layers, indications, frame_diffs, chain_diffs, strict=True)
    )
    return Structure(offset, targets, templates, protected_by, chains, resolutions)


def parse(data: bytes, known: Structure | None) -> Descriptor:
    """The descriptor in `data`; `known`: the structure in force when none is attached.

    Raises:
        Malformed: it breaks the format.
    """
    reader = _Reader(data)
    result = Descriptor(bool(reader.read(1)), bool(reader.read(1)), reader.read(6), reader.read(16))
    if len(data) == 3:
        return result
    has_structure, has_targets, has_indications, has_frame_diffs, has_chains = (reader.read(1) for _ in range(5))
    if has_structure:
        known = _read_structure(reader)
        result = replace(result, structure=known)
    if known is None or not (has_targets or has_indications or has_frame_diffs or has_chains):
        return result
    if has_targets:
        result = replace(result, active_targets=reader.read(known.targets))
    if has_indications:
        result = replace(result, indications=tuple(reader.read(2) for _ in range(known.targets)))
    if has_frame_diffs:
        diffs = []
        while size := reader.read(2):
            diffs.append(reader.read(4 * size) + 1)
        result = replace(result, frame_diffs=tuple(diffs))
    if has_chains:
        result = replace(result, chain_diffs=tuple(reader.read(8) for _ in range(known.chains)))
    return result


def _layer_bits(structure: Structure) -> str:
    bits = ""
    for before, after in zip(structure.templates, structure.templates[1:], strict=False):
        if after.spatial != before.spatial:
            bits += "10"
        else:
            bits += "01" if after.temporal != before.temporal else "00"
    return bits + "11"


def _structure_bits(structure: Structure) -> str:
    bits = f"{structure.offset:06b}{structure.targets - 1:05b}" + _layer_bits(structure)
    for template in structure.templates:
        bits += "".join(f"{one:02b}" for one in template.indications)
    for template in structure.templates:
        bits += "".join(f"1{diff - 1:04b}" for diff in template.frame_diffs) + "0"
    bits += _non_symmetric(structure.chains, structure.targets + 1)
    bits += "".join(_non_symmetric(one, structure.chains) for one in structure.protected_by)
    for template in structure.templates:
        bits += "".join(f"{one:04b}" for one in template.chain_diffs)
    bits += "1" if structure.resolutions else "0"
    return bits + "".join(f"{width - 1:016b}{height - 1:016b}" for width, height in structure.resolutions)


def serialize(descriptor: Descriptor, known: Structure | None = None) -> bytes:
    """The shortest bytes that say it; `known` as in `parse`."""
    one = descriptor
    structure = one.structure or known
    bits = f"{one.start:b}{one.end:b}{one.template_id:06b}{one.frame_number:016b}"
    optional = (one.structure, one.active_targets, one.indications, one.frame_diffs, one.chain_diffs)
    if any(part is not None for part in optional):
        bits += "".join("0" if part is None else "1" for part in optional)
    if one.structure is not None:
        bits += _structure_bits(one.structure)
    if one.active_targets is not None:
        assert structure is not None
        bits += f"{one.active_targets:0{structure.targets}b}"
    if one.indications is not None:
        bits += "".join(f"{value:02b}" for value in one.indications)
    if one.frame_diffs is not None:
        for diff in one.frame_diffs:
            nibbles = 1 if diff <= 16 else 2 if diff <= 256 else 3
            bits += f"{nibbles:02b}{diff - 1:0{4 * nibbles}b}"
        bits += "00"
    if one.chain_diffs is not None:
        bits += "".join(f"{value:08b}" for value in one.chain_diffs)
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")
