"""Writes a stored dependency descriptor again for a receiver that gets fewer decode targets. Called by egress."""

import numpy as np
from numba import njit

from sfu.media.wire.bits import copy_bits, get_bits, put_bits
from sfu.media.wire.dependency import (
    EXTENDED_BITS,
    HAS_CHAINS,
    HAS_FRAME_DIFFS,
    HAS_INDICATIONS,
    HAS_STRUCTURE,
    HAS_TARGETS,
    MANDATORY_BITS,
    MANDATORY_BYTES,
    parse_structure,
    template_index,
)
from sfu.parameters import Extension
from sfu.schema.capacities import SCRATCH_DEPENDENCY

MAX_DESCRIPTOR_BYTES = 255
"""What the length byte of a two-byte header extension can say (RFC 8285 section 4.3)."""

_DEPENDENCY = int(Extension.DEPENDENCY)


@njit(cache=True)
def _copy(arena, at, out, out_at, size):
    if out_at + size > len(out):
        return 0
    for k in range(size):
        out[out_at + k] = arena[at + k]
    return size


@njit(cache=True)
def write_dependency(state, stream_row, packet, arena, at, out, out_at, targets):
    """Write the descriptor of a stored packet into out[out_at:]; returns its size in bytes, 0: none or no room.

    at: where the packet begins in `arena`. targets: mask of the decode targets that the receiver gets, which becomes
    active_decode_targets_bitmask (appendix A.4.4), without those that the encoder does not produce; 0: copy as it is.
    A descriptor whose structure is no longer known is copied too. The result is at most 4 bytes longer and may exceed
    the 16 bytes of a one-byte header extension.
    """
    size = np.int64(packet.extension_bytes[_DEPENDENCY])
    at = np.int64(at) + np.int64(packet.extension_at[_DEPENDENCY])
    if packet.extension_at[_DEPENDENCY] == 0 or size < MANDATORY_BYTES:
        return 0
    if targets == 0:
        return _copy(arena, at, out, out_at, size)
    end = size * 8
    extended, bit = np.int64(0), np.int64(MANDATORY_BITS)
    if size > MANDATORY_BYTES:
        extended, bit = get_bits(arena, at, bit, end, 5), np.int64(EXTENDED_BITS)
    row = stream_row
    if extended & HAS_STRUCTURE:  # its own structure may be older than the one in force
        row = SCRATCH_DEPENDENCY
        bit = parse_structure(state.dependencies[row], arena, at, bit, end)
    dependency = state.dependencies[row]
    if bit < 0 or template_index(dependency, np.int64(arena[at]) & 63) != packet.template:
        return _copy(arena, at, out, out_at, size)
    count = np.int64(dependency.target_count)
    head, tail = bit - EXTENDED_BITS if size > MANDATORY_BYTES else np.int64(0), np.int64(0)
    after = bit + count if extended & HAS_TARGETS else bit
    if extended & (HAS_INDICATIONS | HAS_FRAME_DIFFS | HAS_CHAINS):
        tail = max(end - after, 0)
    total = (EXTENDED_BITS + head + count + tail + 7) >> 3
    if total > MAX_DESCRIPTOR_BYTES:
        return _copy(arena, at, out, out_at, size)
    if out_at + total > len(out):
        return 0
    mask = np.int64(targets) & ((np.int64(1) << count) - 1)
    produced = mask & np.int64(state.dependencies[stream_row].active_targets)
    if produced:
        mask = produced
    out[out_at + total - 1] = 0
    _copy(arena, at, out, out_at, MANDATORY_BYTES)
    put_bits(out, out_at, MANDATORY_BITS, 5, extended | HAS_TARGETS)
    copy_bits(arena, at, EXTENDED_BITS, out, out_at, EXTENDED_BITS, head)
    put_bits(out, out_at, EXTENDED_BITS + head, count, mask)
    copy_bits(arena, at, after, out, out_at, EXTENDED_BITS + head + count, tail)
    return total
