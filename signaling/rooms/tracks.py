"""One published track: its description for clients, its engine tracks, and the layers behind qualities.

An *engine track* is what `sfu` calls a track: one m-section. A track has one per codec (a second one when the publisher
adds a backup codec). Nothing here sends anything.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from livekit.protocol import models
from livekit.protocol.models import (
    AUDIO,
    HIGH,
    LOW,
    MEDIUM,
    TF_NO_DTX,
    TF_STEREO,
    VIDEO,
    DataTrackInfo,
    SimulcastCodecInfo,
    TrackInfo,
    VideoLayer,
    VideoQuality,
)
from livekit.protocol.rtc import AddTrackRequest, SignalResponse, UpdateTrackSettings

from sfu.events import Event
from sfu.parameters import MAX_TEMPORAL, Codec, Kind, TrackId, TransportId
from signaling import identifiers
from signaling.http.connection import Broadcast
from signaling.rooms.access import SubscriptionAccess
from signaling.sdp.codecs import SVC_CODECS

MIME_TYPES: dict[Codec, str] = {
    Codec.OPUS: "audio/opus",
    Codec.RED: "audio/red",
    Codec.VP8: "video/VP8",
    Codec.H264: "video/H264",
    Codec.VP9: "video/VP9",
    Codec.AV1: "video/AV1",
    Codec.AUDIO: "audio/PCMU",
}
_SAME_CODEC = {"audio/pcma": "audio/pcmu", "audio/g722": "audio/pcmu"}
"""MIME types of which `Codec.AUDIO` has another's name."""
CODECS_BY_NAME: dict[str, Codec] = {
    "opus": Codec.OPUS,
    "red": Codec.RED,
    "vp8": Codec.VP8,
    "h264": Codec.H264,
    "vp9": Codec.VP9,
    "av1": Codec.AV1,
}
RIDS = ("q", "h", "f")
"""LiveKit's names of simulcast layers, low to high."""

SUFFICIENT_SIZE = 0.9
"""The share of the shown size that a layer must have to suffice, as in livekit-server."""
FRAME_RATES = ((8, 0), (15, 1))
"""(most frames per second, temporal layer): a quarter and a half of 30. A higher rate needs all layers."""
_QUALITIES = (LOW, MEDIUM, HIGH)


@lru_cache(maxsize=64)
def barred_codecs(enabled: tuple[str, ...]) -> frozenset[Codec]:
    """Return the codecs that may not be published where only those of these MIME types may be; none: all may be."""
    types = {_SAME_CODEC.get(each, each) for each in enabled}
    return frozenset(codec for codec, mime_type in MIME_TYPES.items() if types and mime_type.lower() not in types)


def enabled_codecs(enabled: tuple[str, ...]) -> list[models.Codec]:
    """Return how clients are told which codecs may be published, as for `barred_codecs`."""
    barred = barred_codecs(enabled)
    return [models.Codec(mime=mime_type) for codec, mime_type in MIME_TYPES.items() if codec not in barred]


def codec_name(codec: Codec) -> str:
    """Return LiveKit's lower-case codec name, `vp9` for VP9."""
    return MIME_TYPES[codec].partition("/")[2].lower()


def parse_codec(name: str) -> Codec | None:
    """Read `vp9` or `video/VP9`; None for a codec that we do not forward."""
    return CODECS_BY_NAME.get(name.lower().rpartition("/")[2])


@dataclass(slots=True)
class EngineTrack:
    """One m-section of a track, and the codec that is received on it."""

    id: TrackId
    mid: str
    codec: Codec
    """The codec that was negotiated first, until packets show another one. RED counts as the Opus inside it."""
    description: str
    """`Format.description` of that codec."""
    formats: tuple[tuple[int, Codec, str], ...]
    """(payload type, codec, `Format.description`) of everything that was accepted, the preferred one first."""
    intended: Codec | None = None
    """The codec that the client announced for this m-section, whether it can send it or not."""
    streams: int = 1
    """How many streams there are: more than one is simulcast."""

    @property
    def shown(self) -> Codec:
        """The codec that others are told until a packet shows another one."""
        return self.formats[0][1] if self.formats else self.codec

    def has_layers_inside(self, codec: Codec) -> bool:
        """Tell whether the layers of the track are inside one stream of this codec (SVC)."""
        return self.streams == 1 and codec in SVC_CODECS

    def turn_to(self, codec: Codec, payload_type: int) -> bool:
        """Take over the codec that a packet shows; return whether it, or its profile, is another one than before."""
        if codec is Codec.RED:
            codec, payload_type = Codec.OPUS, -1
        known = [(number, description) for number, each, description in self.formats if each is codec]
        if codec is Codec.OPUS and self.codec is Codec.OPUS:
            return False
        description = dict(known).get(payload_type, known[0][1] if known else "")
        before = self.codec, self.description
        self.codec, self.description = codec, description
        return before != (codec, description)


@dataclass(frozen=True, slots=True)
class Demand:
    """What one subscriber wants of one track."""

    codec: Codec
    quality: VideoQuality
    """The quality that it wants; OFF: it is subscribed, and does not show the track now."""


class Publisher(Protocol):
    """The publisher of a track, as subscribers and rooms see it."""

    @property
    def sid(self) -> str:
        """The sid, which is new for each stay in a room."""

    @property
    def identity(self) -> str:
        """The identity in its token, which stays the same after a full reconnect."""

    @property
    def public_sid(self) -> str:
        """The sid that SDP and RTCP give for its media."""

    @property
    def room_name(self) -> str:
        """The name of its room."""

    @property
    def hidden(self) -> bool:
        """Whether it is hidden, so that others are not told of it."""

    @property
    def access(self) -> SubscriptionAccess:
        """Who may subscribe to its tracks."""

    def changed(self) -> None:
        """Note that its description or a track changed, and tell the room."""

    def send(self, response: SignalResponse | Broadcast) -> None:
        """Send to its client if that has a socket now."""

    def handle(self, event: Event) -> None:
        """Take what the engine tells of its transports, tracks and subscriptions."""


class DataReceiver(Protocol):
    """Who is sent a data track."""

    @property
    def data_transport(self) -> TransportId:
        """The transport over which data packets for it go."""

    @property
    def expires_at(self) -> float | None:
        """When to remove a client whose media failed, in seconds of the node's clock; None: it has not."""


@dataclass(slots=True, eq=False)
class DataTrack:
    """A stream of frames over data channels."""

    publisher: Publisher
    info: DataTrackInfo
    """What others are told of it; the handle in there is the publisher's."""
    handle: int
    """The handle in packets to subscribers, which no other data track of the room has."""
    announced: bool = False
    """The room was told of it. Clients ignore the handle of a track that they do not know."""
    subscribers: dict[str, DataReceiver] = field(default_factory=dict)
    """Those whom it is sent to, by sid."""


@dataclass(slots=True, eq=False)
class Track:
    """A track, which has one sid, and an engine track for each codec."""

    info: TrackInfo
    publisher: Publisher
    codecs: tuple[Codec, ...] = ()
    """Codecs that the publisher announced, best first; empty if it announced none."""
    engine_tracks: dict[TrackId, EngineTrack] = field(default_factory=dict)
    announced: bool = False
    """The track is negotiated, and the room knows it."""
    blocked: bool = False
    """The server muted it: nothing of it is forwarded until the client says that it is not muted any more."""
    mute_unanswered: bool = False
    """The server muted or unmuted it, and its client has not said since then whether it is muted."""
    first_packet_sent: bool = False
    """A first packet was sent to a subscriber."""
    demand: dict[str, Demand] = field(default_factory=dict)
    """Subscriber sid -> what it wants to see; for video only."""

    @property
    def sid(self) -> str:
        """The track's sid."""
        return self.info.sid

    @property
    def kind(self) -> Kind:
        """Audio or video."""
        return Kind.AUDIO if self.info.type == AUDIO else Kind.VIDEO

    @property
    def cids(self) -> set[str]:
        """The track ids by which the client may name this track in its SDP."""
        return {codec.cid for codec in self.info.codecs if codec.cid}

    def ranked(self) -> list[EngineTrack]:
        """Return the engine tracks, best codec first."""
        order = {codec: place for place, codec in enumerate(self.codecs)}
        return sorted(self.engine_tracks.values(), key=lambda each: order.get(each.codec, len(order)))

    def backup(self, lacking: frozenset[Codec]) -> Codec | None:
        """Return the best announced codec that is not in `lacking`, even if it is not sent yet."""
        return next((codec for codec in self.codecs if codec not in lacking), None)

    def quality_of(self, layer: int) -> VideoQuality:
        """Return the quality that stands for a spatial layer (0 is the lowest)."""
        layers = self.info.layers
        return layers[min(layer, len(layers) - 1)].quality if layers else HIGH


def describe(request: AddTrackRequest, sid: str = "") -> TrackInfo:
    """Make the description of a track that a client announced."""
    info = TrackInfo(
        sid=sid or identifiers.track_sid(request.type, request.source),
        type=request.type,
        name=request.name,
        muted=request.muted,
        width=request.width,
        height=request.height,
        source=request.source,
        layers=_ordered_layers(request.layers),
        stereo=request.stereo or TF_STEREO in request.audio_features,
        disable_dtx=request.disable_dtx or TF_NO_DTX in request.audio_features,
        disable_red=request.disable_red,
        encryption=request.encryption,
        stream=request.stream,
        audio_features=request.audio_features,
        backup_codec_policy=request.backup_codec_policy,
        packet_trailer_features=request.packet_trailer_features,
    )
    info.simulcast = len(info.layers) > 1
    add_codecs(info, request)
    if not info.codecs:
        info.codecs.add(layers=info.layers)
    info.codecs[0].cid = info.codecs[0].cid or request.cid
    if request.type == VIDEO:
        info.mime_type = info.codecs[0].mime_type
    return info


def add_codecs(info: TrackInfo, request: AddTrackRequest) -> None:
    """Add the codecs of `request`. A known one, such as a backup codec that is published now, gets its cid."""
    known = {codec.mime_type: codec for codec in info.codecs}
    for wanted in request.simulcast_codecs:
        codec = parse_codec(wanted.codec)
        if codec is None:
            continue
        mime_type = MIME_TYPES[codec]
        if mime_type not in known:
            known[mime_type] = info.codecs.add(
                mime_type=mime_type,
                layers=_ordered_layers(wanted.layers) or info.layers,
                video_layer_mode=wanted.video_layer_mode,
            )
        if wanted.cid:
            known[mime_type].cid = wanted.cid


def announced_codecs(info: TrackInfo) -> tuple[Codec, ...]:
    """Return the codecs of a description in their order."""
    return tuple(codec for entry in info.codecs if (codec := parse_codec(entry.mime_type)) is not None)


def note_codec(info: TrackInfo, codec: Codec, mid: str) -> SimulcastCodecInfo:
    """Note the codec of an m-section, as negotiated or as its packets show; return the codec's entry in `info`.

    If it has none, it takes the entry that the m-section had, or else one for which the client named no codec.
    """
    mime_type = MIME_TYPES[codec]
    held = [entry for entry in info.codecs if entry.mid == mid]
    named = [entry for entry in info.codecs if entry.mime_type == mime_type]
    nameless = [entry for entry in info.codecs if not entry.mime_type]
    entry = next(iter(named or held or nameless), None) or info.codecs.add(layers=info.layers)
    for other in held:
        other.mid = ""
    entry.mid, entry.mime_type = mid, mime_type
    if info.mid in ("", mid) or info.codecs[0].mime_type == mime_type:
        info.mid, info.mime_type = mid, mime_type
    return entry


def note_layer(info: TrackInfo, codec: Codec, mid: str, layer: int, ssrc: int, svc: bool) -> None:
    """Note what the first packet of a layer shows: its codec and SSRC."""
    entry = note_codec(info, codec, mid)
    targets: tuple[Sequence[VideoLayer], ...] = (entry.layers,)
    if info.mid == mid:
        targets = (entry.layers, info.layers)
    for layers in targets:
        for index, described in enumerate(layers):
            if svc or index == layer:
                described.ssrc = ssrc
            if not svc and len(layers) > 1:
                described.rid = RIDS[min(index, len(RIDS) - 1)]


def spatial_layer(info: TrackInfo, settings: UpdateTrackSettings) -> int:
    """Return the highest layer (0 is the lowest) that a subscriber with these settings can use.

    The highest described layer stands for all layers, because SVC publishers may send more than they describe.
    """
    layers = info.layers
    top = len(_QUALITIES) - 1
    if settings.width > 0 and settings.height > 0:
        # A picture is compared on its short side, which is the one that a grid of tiles bounds.
        portrait = info.width < info.height
        wanted = SUFFICIENT_SIZE * (settings.width if portrait else settings.height)
        large_enough = (i for i, layer in enumerate(layers) if (layer.width if portrait else layer.height) >= wanted)
        index = next(large_enough, top)
    else:
        index = max((i for i, layer in enumerate(layers) if layer.quality <= settings.quality), default=0)
    return index if index < len(layers) - 1 else top


def common_layer(videos: Collection[TrackInfo], capacity_bps: int) -> int:
    """Return the highest spatial layer of which all videos together fit, at the rates that publishers announced.

    The lowest one is the result if not even that fits. A video with fewer layers counts with its highest.
    """
    for layer in range(len(_QUALITIES) - 1, 0, -1):
        if sum(info.layers[min(layer, len(info.layers) - 1)].bitrate for info in videos if info.layers) <= capacity_bps:
            return layer
    return 0


def temporal_layer(frames_per_second: int) -> int:
    """Return the highest temporal layer that this frame rate needs; 0 frames per second: all layers."""
    if frames_per_second > 0:
        for rate, layer in FRAME_RATES:
            if frames_per_second <= rate:
                return layer
    return MAX_TEMPORAL


def _ordered_layers(layers: Sequence[VideoLayer]) -> list[VideoLayer]:
    """Copy `layers`, numbered from the lowest to the highest. An OFF or unknown quality counts as the lowest."""

    def rank(layer: VideoLayer) -> tuple[int, int]:
        return layer.width * layer.height, layer.quality if layer.quality in _QUALITIES else LOW

    ordered = []
    for index, layer in enumerate(sorted(layers, key=rank)[-len(_QUALITIES) :]):
        copy = VideoLayer()
        copy.CopyFrom(layer)
        copy.spatial_layer = index
        if copy.quality not in _QUALITIES:
            copy.quality = _QUALITIES[index]
        ordered.append(copy)
    return ordered
