"""What a publisher says in its packets that it means to send in each layer, kept until that is measured."""

import numpy as np
from numba import njit

from sfu.media.allocation.costs import MAX_TARGET_KBPS
from sfu.media.wire.layers_allocation import parse_layers_allocation
from sfu.parameters import Extension
from sfu.schema.allocation_tables import MEASURED_LAYERS, TARGET_STREAMS

_VIDEO_LAYERS = int(Extension.VIDEO_LAYERS)


@njit(cache=True)
def note_targets(state, stream_row, k, offset):
    """Take over the allocation of video layers in the packet in hand, which lies at `offset` in receive slot k.

    One whose streams stand in another order than the track's layers is not believed, nor is one that is malformed.
    """
    header, stream = state.header[0], state.streams[stream_row]
    at = offset + np.int64(header.at[_VIDEO_LAYERS])
    size = np.int64(header.bytes[_VIDEO_LAYERS])
    if parse_layers_allocation(state.rx[k], at, at + size, state.targets) != stream.layer:
        return
    track = state.tracks[stream.track]
    for number in range(min(np.int64(track.layer_count), TARGET_STREAMS)):
        if track.streams[number] < 0:
            continue
        sibling = state.streams[track.streams[number]]
        for layer in range(MEASURED_LAYERS):
            sibling.target_kbps[layer] = min(state.targets[number, layer], MAX_TARGET_KBPS)
