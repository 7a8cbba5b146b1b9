"""Describes an incoming packet once, however many subscriptions it has: key frame? layers? where to rewrite?

`describe` is called by ingress for every packet before it is stored. Hostile payloads describe themselves as nothing
(flags 0); none of the kernels below raises, whatever the bytes.
"""

import numpy as np
from numba import njit

from sfu.media.wire.av1 import describe_av1
from sfu.media.wire.dependency import describe_dependency
from sfu.media.wire.h264 import describe_h264
from sfu.media.wire.red import find_primary
from sfu.media.wire.vp8 import describe_vp8
from sfu.media.wire.vp9 import describe_vp9
from sfu.parameters import Codec
from sfu.schema.codes import MediaKind, PacketFlag

_RED, _VP8, _H264, _VP9, _AV1 = int(Codec.RED), int(Codec.VP8), int(Codec.H264), int(Codec.VP9), int(Codec.AV1)

UNKNOWN_TEMPLATE = 255
"""packet.template when there is no dependency descriptor (frame_number -1) or its structure is not known."""


_FRAME_FLAGS = PacketFlag.KEY_FRAME | PacketFlag.FRAME_START | PacketFlag.FRAME_END


@njit(cache=True)
def _clear(packet):
    packet.flags = 0
    packet.spatial = 0
    packet.temporal = 0
    packet.tl0_at = 0
    packet.tl0 = 0
    packet.picture_at = 0
    packet.picture_bytes = 0
    packet.picture_id = -1
    packet.primary_at = 0
    packet.frame_number = -1
    packet.template = UNKNOWN_TEMPLATE
    packet.indications = 0


@njit(cache=True)
def _describe_layers_by_dependency(state, stream_row, packet, data):
    """VP8 and H.264: the payload tells frames, a descriptor only tells temporal layers and structures.

    Chromium leaves layers and picture ids out of VP8's own descriptor when it sends this one too.
    """
    told = np.int64(packet.flags)
    describe_dependency(state, stream_row, packet, data)
    packet.spatial = 0
    if packet.template == UNKNOWN_TEMPLATE:
        packet.flags = told
    else:
        packet.flags = told & _FRAME_FLAGS | np.int64(packet.flags) & ~_FRAME_FLAGS


@njit(cache=True)
def describe(state, stream_row, packet, data):
    """Fill the descriptive columns of `packet` (packet_t row) from the plaintext packet in `data` (1-D u1 array).

    In: what parse_header found (size, payload_at, padding, marker, timestamp, codec, extension_at, extension_bytes)
    and the extended sequence. Out: flags, spatial, temporal, picture id and TL0PICIDX with their places, primary_at,
    frame_number, template, indications. A packet without payload gets flags 0.

    A dependency descriptor is believed before the payload for VP9 and AV1; for VP8 and H.264 only its layers are.
    When its structure is not known, frame_number is set, template stays UNKNOWN_TEMPLATE and indications 0.
    """
    _clear(packet)
    end = min(np.int64(packet.size), np.int64(len(data))) - np.int64(packet.padding)
    start = np.int64(packet.payload_at)
    if start >= end:
        return
    codec = packet.codec
    if codec == _VP8:
        describe_vp8(packet, data, end)
        _describe_layers_by_dependency(state, stream_row, packet, data)
    elif codec == _H264:
        describe_h264(state, stream_row, packet, data, end)
        _describe_layers_by_dependency(state, stream_row, packet, data)
    elif codec == _VP9:
        describe_vp9(packet, data, end)
        describe_dependency(state, stream_row, packet, data)
    elif codec == _AV1:
        describe_av1(packet, data)
        describe_dependency(state, stream_row, packet, data)
    else:
        if codec == _RED:
            packet.primary_at = find_primary(data, start, end)
        if state.streams[stream_row].kind == MediaKind.AUDIO:
            packet.flags = PacketFlag.FRAME_START | PacketFlag.FRAME_END
