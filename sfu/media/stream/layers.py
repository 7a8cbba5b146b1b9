"""Whether a video track has its layers in several streams (simulcast) or inside one (SVC)."""

from numba import njit

from sfu.parameters import Codec

_VP9, _AV1 = int(Codec.VP9), int(Codec.AV1)


@njit(cache=True)
def is_scalable(layer_count, codec):
    """Whether packets of a codec are one stream with layers: VP9 or AV1 on a track that has no other stream.

    Every VP9 and AV1 stream is treated so: one that has a single layer is the simplest case. With simulcast, spatial
    layers are streams, and only temporal layers lie inside them.
    """
    return layer_count == 1 and codec in (_VP9, _AV1)
