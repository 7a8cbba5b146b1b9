"""The header extension video-layers-allocation00 of libwebrtc: what a publisher means to send in each layer.

One byte says on which RTP stream the packet is (2 bits), how many streams there are, minus one (2 bits), and which
spatial layers are active if that is the same for all streams (4 bits, the lowest layer in the lowest bit). If those are
zero, four bits for each stream follow, padded to a byte. Then come two bits for each active layer with the number of
its temporal layers, minus one, padded to a byte, and then in kbit/s, as LEB128, what each temporal layer takes together
with all that it needs. Resolutions may follow and are not read. A single zero byte means that nothing is sent.
"""

import numpy as np
from numba import njit

from sfu.schema.allocation_tables import COST_SPATIAL, COST_TEMPORAL, MEASURED_LAYERS, TARGET_STREAMS

NOT_READ = -1
MAX_LEB128_BYTES = 5
"""Bytes of a LEB128 number of 32 bits."""
NAMED_SPATIAL = 4


@njit(cache=True)
def parse_layers_allocation(data, at, end, targets):
    """Read the extension that lies in `data` from `at` to `end` into `targets` (kbit/s by stream and layer; 0: it is
    not active). Returns on which stream the packet is, or NOT_READ if it is malformed or tells nothing."""
    if at >= end or (end - at == 1 and data[at] == 0):
        return NOT_READ
    head = np.int64(data[at])
    count, common = (head >> 4 & 3) + 1, head & 15
    masks, at = _layer_masks(data, at + 1, end, count, common)
    active = np.int64(0)
    for bit in range(TARGET_STREAMS * NAMED_SPATIAL):
        active += masks >> bit & 1
    counts_at = at
    at += (active + 3) >> 2
    if masks < 0 or at > end:
        return NOT_READ
    for stream in range(TARGET_STREAMS):
        for layer in range(MEASURED_LAYERS):
            targets[stream, layer] = 0
    number = np.int64(0)
    for place in range(count * NAMED_SPATIAL):
        if masks >> place & 1 == 0:
            continue
        stream, spatial = place // NAMED_SPATIAL, place % NAMED_SPATIAL
        temporal_layers = (np.int64(data[counts_at + (number >> 2)]) >> (6 - 2 * (number & 3)) & 3) + 1
        number += 1
        for temporal in range(temporal_layers):
            kbps, at = _leb128(data, at, end)
            if at < 0:
                return NOT_READ
            if spatial < COST_SPATIAL:
                targets[stream, spatial * COST_TEMPORAL + temporal] = kbps
    return head >> 6


@njit(cache=True)
def _layer_masks(data, at, end, count, common):
    """Bit 4 * stream + layer for each active layer, and where the next field begins; negative: it is cut off."""
    masks = np.int64(0)
    if common:
        for stream in range(count):
            masks |= common << NAMED_SPATIAL * stream
        return masks, at
    size = (count + 1) >> 1
    if at + size > end:
        return np.int64(-1), at
    for stream in range(count):
        both = np.int64(data[at + (stream >> 1)])
        masks |= (both & 15 if stream & 1 else both >> 4) << NAMED_SPATIAL * stream
    return masks, at + size


@njit(cache=True)
def _leb128(data, at, end):
    """A number of at most 32 bits, and where the next one begins; negative: it is cut off or too long."""
    value = np.int64(0)
    for n in range(MAX_LEB128_BYTES):
        if at + n >= end:
            break
        byte = np.int64(data[at + n])
        value |= (byte & 0x7F) << 7 * n
        if byte < 0x80:
            return value, at + n + 1
    return value, np.int64(-1)
