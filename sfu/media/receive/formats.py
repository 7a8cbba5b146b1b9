"""Which codec a stream has, and what follows when its publisher turns to another one.

An answer names several codecs, and the publisher may use any of them at any time (RFC 3264 section 6.1). SSRC and
numbers go on, but whoever receives the stream was told of one codec: nothing of another one goes to a subscription,
and the control thread hears of the change, so that subscribers are negotiated anew.
"""

import numpy as np
from numba import njit

from sfu.media.receive.nack import drop_before
from sfu.media.wire.dependency import reset_dependency
from sfu.media.wire.red import codec_family
from sfu.parameters import Codec
from sfu.queues.notices import notice
from sfu.schema.codes import Drop, NoticeKind

CODEC_CHANGE_NS = 1_000_000_000
"""How long a stream keeps a codec that it changed to: each change makes all subscribers negotiate."""

_NONE, _OPUS, _RED = int(Codec.NONE), int(Codec.OPUS), int(Codec.RED)


@njit(cache=True)
def may_carry(track, codec):
    """Whether the answer for a track's m-section has a codec (for RTX: the one repaired)."""
    return track.codecs == 0 or (np.int64(track.codecs) >> codec) & 1 == 1


@njit(cache=True)
def announce_stream(state, stream_row):
    """Tell the control thread what the packet in hand (state.incoming) shows: the SSRC of a stream, and its codec."""
    stream, packet = state.streams[stream_row], state.incoming[0]
    codec = np.int64(state.media[state.transports[stream.transport].media].codec_of_pt[packet.payload_type])
    stream.announced = np.int64(stream.ssrc) | codec << 32 | np.int64(packet.payload_type) << 40
    notice(state, NoticeKind.STREAM_STARTED, stream_row)


@njit(cache=True)
def repairs(stream, codec):
    """Whether a retransmitted packet of a codec belongs to what the stream sends now."""
    return stream.codec == _NONE or codec_family(stream.codec) == codec_family(codec)


@njit(cache=True)
def take_format(state, stream_row, media, packet, extended, arrival):
    """Whether a packet may be taken whose payload type is not that of the packet before; the rare path of ingress.

    media: the publisher's number maps; extended: the packet's number; arrival: ns. Only the newest packet can change
    the codec, to one that the m-section may carry, and not again within CODEC_CHANGE_NS. What is refused is counted.
    """
    stream = state.streams[stream_row]
    payload_type = np.int64(packet.payload_type)
    codec = np.int64(media.codec_of_pt[payload_type])
    if not may_carry(state.tracks[stream.track], codec):
        state.drops[Drop.UNKNOWN_PAYLOAD_TYPE] += 1
        return False
    same = codec_family(codec) == codec_family(stream.codec)
    if stream.codec == _NONE or (same and (codec in (_OPUS, _RED) or payload_type == stream.payload_type)):
        return True
    if extended <= stream.highest or (stream.codec_ns != 0 and arrival - stream.codec_ns < CODEC_CHANGE_NS):
        state.drops[Drop.CODEC_CHANGED] += 1
        return False
    _change(state, stream_row, extended, arrival)
    return True


@njit(cache=True)
def _change(state, stream_row, extended, arrival):
    """Let the stream begin anew with packet `extended`: nothing before it is sent or asked for any more."""
    stream = state.streams[stream_row]
    stream.codec_ns = arrival
    stream.key_sequence = -1
    stream.key_ns = 0
    drop_before(stream, extended)
    reset_dependency(state, stream_row)
    row = np.int64(state.tracks[stream.track].first_subscription)
    while row >= 0:
        subscription = state.subscriptions[row]
        if subscription.stream == stream_row:
            subscription.layer = -1
        row = np.int64(subscription.next_of_track)
    announce_stream(state, stream_row)
