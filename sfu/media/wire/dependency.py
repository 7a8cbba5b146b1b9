"""Dependency descriptor, AV1 RTP payload format appendix A: reading it and keeping its structure. Kernels.

The structure (templates, decode targets) comes with a key frame and stays in force for what follows; there is one per
stream in `state.dependencies`. A structure is parsed into a scratch row first and copied when it is whole.
`sfu.media.wire.dependency_write` writes descriptors again.
"""

import numpy as np
from numba import njit

from sfu.media.wire.bits import get_bits, get_non_symmetric
from sfu.media.wire.numbers import get_u16
from sfu.parameters import Extension
from sfu.schema.capacities import MAX_SPATIAL_ID, MAX_TEMPORAL_ID, SCRATCH_DEPENDENCY, TEMPLATES
from sfu.schema.codes import KeyFrameRequest, PacketFlag

MANDATORY_BYTES = 3
"""Length of a descriptor without extended fields."""
MANDATORY_BITS = 24
EXTENDED_BITS = 29
"""Where the optional parts begin."""

# the five flags of the extended fields
HAS_STRUCTURE, HAS_TARGETS, HAS_INDICATIONS, HAS_FRAME_DIFFS, HAS_CHAINS = 16, 8, 4, 2, 1

SWITCH = 2
"""Decode target indications (table A.2): 0 not present, 1 discardable, 2 switch, 3 required."""

NO_LAYER = 255

_DEPENDENCY = int(Extension.DEPENDENCY)
_HIGH_BITS = np.uint64(0xAAAAAAAAAAAAAAAA)


@njit(cache=True)
def _read_layers(dependency, data, at, bit, end):
    """template_layers(): how many templates there are and their layers. Returns the position after it or -1."""
    spatial = temporal = 0
    for k in range(TEMPLATES):
        dependency.template_spatial[k] = spatial
        dependency.template_temporal[k] = temporal
        following = get_bits(data, at, bit, end, 2)
        bit += 2
        if following == 3:
            dependency.template_count = k + 1
            return bit
        if following == 1:
            temporal += 1
        elif following == 2:
            spatial += 1
            temporal = 0
        if spatial > MAX_SPATIAL_ID or temporal > MAX_TEMPORAL_ID or bit > end:
            return -1
    return -1


@njit(cache=True)
def _read_indications(data, at, bit, end, targets):
    """2 bits per decode target, target 0 lowest."""
    packed = np.uint64(0)
    for k in range(targets):
        packed |= np.uint64(get_bits(data, at, bit + 2 * k, end, 2)) << np.uint64(2 * k)
    return packed


@njit(cache=True)
def _skip_frame_diffs(data, at, bit, end, templates):
    """template_fdiffs(): flag and 4 bits, again and again; past the end the flag reads 0."""
    for _ in range(templates):
        while get_bits(data, at, bit, end, 1):
            bit += 5
        bit += 1
    return bit


@njit(cache=True)
def _skip_chains(dependency, data, at, bit, end):
    """template_chains()."""
    targets, templates = np.int64(dependency.target_count), np.int64(dependency.template_count)
    chains, bit = get_non_symmetric(data, at, bit, end, targets + 1)
    if chains == 0:
        return bit
    for _ in range(targets):
        _, bit = get_non_symmetric(data, at, bit, end, chains)
    return bit + 4 * templates * chains


@njit(cache=True)
def _find_target_layers(dependency):
    """The layers of a decode target are the highest among the frames that belong to it."""
    for target in range(np.int64(dependency.target_count)):
        spatial = temporal = -1
        for k in range(np.int64(dependency.template_count)):
            if (dependency.template_indications[k] >> np.uint64(2 * target)) & np.uint64(3) != 0:
                spatial = max(spatial, np.int64(dependency.template_spatial[k]))
                temporal = max(temporal, np.int64(dependency.template_temporal[k]))
        dependency.target_spatial[target] = spatial if spatial >= 0 else NO_LAYER
        dependency.target_temporal[target] = temporal if temporal >= 0 else NO_LAYER


@njit(cache=True)
def parse_structure(dependency, data, at, bit, end):
    """Parse template_dependency_structure() from bit position `bit` of the descriptor at byte `at` into a row.

    Returns the position after it, or -1 (row.valid = 0) when it is malformed or reaches beyond `end`.
    """
    dependency.valid = 0
    dependency.structure_offset = get_bits(data, at, bit, end, 6)
    targets = get_bits(data, at, bit + 6, end, 5) + 1
    dependency.target_count = targets
    bit = _read_layers(dependency, data, at, bit + 11, end)
    if bit < 0:
        return bit
    templates = np.int64(dependency.template_count)
    for k in range(templates):
        dependency.template_indications[k] = _read_indications(data, at, bit, end, targets)
        bit += 2 * targets
    bit = _skip_frame_diffs(data, at, bit, end, templates)
    bit = _skip_chains(dependency, data, at, bit, end)
    if get_bits(data, at, bit, end, 1):  # resolutions: two 16-bit numbers for each spatial layer
        bit += 32 * (np.int64(dependency.template_spatial[templates - 1]) + 1)
    bit += 1
    if bit > end:
        return -1
    _find_target_layers(dependency)
    dependency.active_targets = (np.int64(1) << targets) - 1
    dependency.enterable = 0
    dependency.valid = 1
    return bit


@njit(cache=True)
def template_index(dependency, template_id):
    """Which template a frame_dependency_template_id names, or -1."""
    index = (np.int64(template_id) - np.int64(dependency.structure_offset)) & (TEMPLATES - 1)
    return index if dependency.valid and index < dependency.template_count else -1


@njit(cache=True)
def _adopt_structure(state, stream_row, packet):
    """Put the parsed structure in force, unless a later packet brought one already."""
    dependency = state.dependencies[stream_row]
    if dependency.valid and packet.sequence < dependency.structure_sequence:
        return
    targets, targets_sequence = dependency.active_targets, dependency.targets_sequence
    keep_targets = dependency.valid and packet.sequence < targets_sequence
    state.dependencies[stream_row] = state.dependencies[SCRATCH_DEPENDENCY]
    dependency.structure_frame = packet.frame_number
    dependency.structure_timestamp = packet.timestamp
    dependency.structure_sequence = packet.sequence
    dependency.targets_sequence = packet.sequence
    if keep_targets:
        dependency.active_targets = targets
        dependency.targets_sequence = targets_sequence


@njit(cache=True)
def _request_structure(state, stream_row, packet):
    """Request a key frame when a frame starts whose structure never came. A late old packet does not matter."""
    dependency = state.dependencies[stream_row]
    if packet.flags & PacketFlag.FRAME_START and (
        not dependency.valid or packet.sequence > dependency.structure_sequence
    ):
        state.streams[stream_row].key_frame_requested = KeyFrameRequest.NEEDED


@njit(cache=True)
def indication(packet, target):
    """What a frame is to a decode target (0 to 31): 0 not present, 1 discardable, 2 switch, 3 required."""
    return np.int64((packet.indications >> np.uint64(2 * target)) & np.uint64(3))


@njit(cache=True)
def _layer_flags(dependency, packet):
    """SWITCH_UP and NOT_REFERENCE of a frame whose template is known; at its last packet the next frame's is prepared.

    A frame of temporal layer 0 that says "switch" opens its targets to receivers that have only that layer so far. A
    frame above layer 0 on which others depend closes them: who skipped it cannot decode what follows. SWITCH_UP is
    set when all decode targets with just this temporal layer to which the frame belongs are open.
    """
    temporal = np.int64(packet.temporal)
    enterable = np.int64(dependency.enterable)
    flags, following = PacketFlag.SWITCH_UP, enterable
    for target in range(np.int64(dependency.target_count)):
        role = indication(packet, target)
        bit = np.int64(1) << target
        if role != 0 and temporal > 0 and dependency.target_temporal[target] == temporal and not enterable & bit:
            flags = 0
        if role == SWITCH and temporal == 0:
            following |= bit
        elif role >= SWITCH:
            following &= ~bit
    if packet.flags & PacketFlag.FRAME_END:
        dependency.enterable = following
    if packet.indications != 0 and packet.indications & _HIGH_BITS == 0:  # "discardable" for all
        flags |= PacketFlag.NOT_REFERENCE
    return flags


@njit(cache=True)
def _place(packet, data):
    """(byte offset, size) of the descriptor; size 0: none. One that is too short to be one is as if absent."""
    at, size = np.int64(packet.extension_at[_DEPENDENCY]), np.int64(packet.extension_bytes[_DEPENDENCY])
    if at == 0 or size < MANDATORY_BYTES or at + size > len(data):
        return at, np.int64(0)
    return at, size


@njit(cache=True)
def describe_dependency(state, stream_row, packet, data):
    """Describe `packet` by the descriptor at packet.extension_at[DEPENDENCY] of `data`, if there is one.

    Flags and layers become those of the descriptor. KEY_FRAME is set on all packets of the frame that brought the
    structure. Without a known structure there is no KEY_FRAME, and the layers stay as the payload told them.
    Needs packet.sequence (extended) and packet.timestamp.
    """
    at, size = _place(packet, data)
    if size == 0:
        return
    first = np.int64(data[at])
    borders = (PacketFlag.FRAME_START if first & 0x80 else 0) | (PacketFlag.FRAME_END if first & 0x40 else 0)
    packet.flags = borders | (np.int64(packet.flags) & PacketFlag.SWITCH_UP)
    packet.frame_number = get_u16(data, at + 1)
    dependency = state.dependencies[stream_row]
    bit, end = MANDATORY_BITS, size * 8
    extended = np.int64(0)
    if size > MANDATORY_BYTES:
        extended = get_bits(data, at, bit, end, 5)
        bit = EXTENDED_BITS
    if extended & HAS_STRUCTURE:
        bit = parse_structure(state.dependencies[SCRATCH_DEPENDENCY], data, at, bit, end)
        if bit < 0:
            return
        _adopt_structure(state, stream_row, packet)
    index = template_index(dependency, first & 63)
    if index < 0:
        _request_structure(state, stream_row, packet)
        return
    targets = np.int64(dependency.target_count)
    active = np.int64(dependency.active_targets)
    if extended & HAS_TARGETS:
        active = get_bits(data, at, bit, end, targets)
        bit += targets
    indications = dependency.template_indications[index]
    if extended & HAS_INDICATIONS:
        indications = _read_indications(data, at, bit, end, targets)
        bit += 2 * targets
    if bit > end:
        return
    if extended & HAS_TARGETS and packet.sequence >= dependency.targets_sequence:
        dependency.active_targets = active
        dependency.targets_sequence = packet.sequence
    packet.template = index
    packet.indications = indications
    packet.spatial = dependency.template_spatial[index]
    packet.temporal = dependency.template_temporal[index]
    flags = borders | _layer_flags(dependency, packet)
    if extended & HAS_STRUCTURE:
        flags |= PacketFlag.STRUCTURE | PacketFlag.KEY_FRAME
    elif packet.frame_number == dependency.structure_frame and packet.timestamp == dependency.structure_timestamp:
        flags |= PacketFlag.KEY_FRAME
    packet.flags = flags


@njit(cache=True)
def reset_dependency(state, stream_row):
    """Forget the structure of a stream; for a row that is opened for another track."""
    state.dependencies[stream_row].valid = 0


@njit(cache=True)
def decode_target(dependency, spatial, temporal):
    """The best decode target with no higher layers than these; spatial counts before temporal.

    Targets that the encoder produces now come first. When all are higher, the lowest one. -1: no structure known.
    """
    if not dependency.valid:
        return -1
    best, best_rank = -1, -1
    lowest, lowest_rank = -1, np.int64(1) << 30
    for target in range(np.int64(dependency.target_count)):
        target_spatial = np.int64(dependency.target_spatial[target])
        if target_spatial == NO_LAYER:
            continue
        target_temporal = np.int64(dependency.target_temporal[target])
        active = (np.int64(dependency.active_targets) >> target) & 1
        rank = target_spatial << 8 | target_temporal
        if rank < lowest_rank:
            lowest, lowest_rank = target, rank
        rank |= active << 16
        if target_spatial <= spatial and target_temporal <= temporal and rank > best_rank:
            best, best_rank = target, rank
    return best if best >= 0 else lowest
