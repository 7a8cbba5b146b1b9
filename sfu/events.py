"""What the engine tells signalling: one typed value per fact, through one queue (`Engine.next_event`).

Events are about transports, tracks and subscriptions that signalling opened. None carries a packet. One may still
name what signalling closed after it was put into the queue.
"""

from dataclasses import dataclass

from sfu.parameters import Channel, Codec, SubscriptionId, TrackId, TransportId


@dataclass(frozen=True, slots=True)
class TransportConnected:
    """ICE has a validated path, DTLS is done and the fingerprint of the peer is one of those named: media flows."""

    transport: TransportId


@dataclass(frozen=True, slots=True)
class TransportFailed:
    """The transport is of no more use; signalling still has to call `Engine.close_transport`."""

    transport: TransportId
    reason: str
    """One of "consent expired", "fingerprint mismatch", "closed by peer", "internal error",
    "dtls: ...", "data: ..."."""


@dataclass(frozen=True, slots=True)
class StreamStarted:
    """The first packet of one layer of a track came, or the publisher turned to another codec there."""

    track: TrackId
    layer: int
    """Index into `PublishParameters.encodings`."""
    ssrc: int
    codec: Codec
    payload_type: int = -1
    """The payload type in which the codec came; -1: unknown."""


@dataclass(frozen=True, slots=True)
class LayersChanged:
    """Simulcast layers of a track came alive or died."""

    track: TrackId
    live: int
    """Bit mask over layers."""


@dataclass(frozen=True, slots=True)
class ChannelOpened:
    """A data channel can be written to."""

    transport: TransportId
    channel: Channel


@dataclass(frozen=True, slots=True)
class DataReceived:
    """One whole data channel message."""

    transport: TransportId
    channel: Channel
    payload: bytes


@dataclass(frozen=True, slots=True)
class SubscriptionStarted:
    """The first packet went out on a subscription."""

    subscription: SubscriptionId


@dataclass(frozen=True, slots=True)
class SubscriptionPaused:
    """A video is sent no longer because not even key frames fit into what the path carries, or is sent again."""

    subscription: SubscriptionId
    paused: bool


Event = (
    TransportConnected
    | TransportFailed
    | StreamStarted
    | LayersChanged
    | ChannelOpened
    | DataReceived
    | SubscriptionStarted
    | SubscriptionPaused
)
