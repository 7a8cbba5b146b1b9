"""An engine without media: hands out increasing ids, records calls, and says what a test lets it say."""

import asyncio
import math
import socket
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import fields

from sfu.engine import (
    EngineError,
    LayerStatistics,
    LayerUse,
    SubscriptionStatistics,
    ThreadLoad,
    Totals,
    TrackStatistics,
    Traffic,
    TransportStatistics,
)
from sfu.events import Event
from sfu.parameters import (
    Candidate,
    Channel,
    IceCredentials,
    Kind,
    LocalSubscription,
    LocalTransport,
    MediaParameters,
    PublishParameters,
    RemoteTransport,
    SubscribeParameters,
    SubscriptionId,
    TrackId,
    TransportId,
)

FINGERPRINT = ("sha-256", ":".join(["AB"] * 32))


def played_totals(**traffic: int) -> Totals:
    """Totals of two media threads with this traffic."""
    counts = {each.name: traffic.get(each.name, 0) for each in fields(Traffic)}
    loads = (ThreadLoad(1.5, 0.25, 0.0, 0.0), ThreadLoad(2.5, 0.0, 0.5, 0.75))
    rows = {"transports": 8192}
    delays = ((0.0001, 3), (0.001, 4), (math.inf, 1))
    kinds = {Kind.AUDIO: 2, Kind.VIDEO: 1}
    return Totals(
        Traffic(**counts), loads, {"transports": 3}, rows, 65_536, kinds, delays, 0.02, 0.125, {"udp": 2, "turn_tls": 1}
    )


class FakeEngine:
    """The interface of `sfu.engine.Engine`."""

    udp_port = 7882

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.transports: dict[TransportId, RemoteTransport | None] = {}
        self.media: dict[TransportId, MediaParameters] = {}
        self.tracks: dict[TrackId, tuple[TransportId, PublishParameters]] = {}
        self.subscriptions: dict[SubscriptionId, tuple[TrackId, TransportId, SubscribeParameters]] = {}
        self.layers: dict[SubscriptionId, tuple[int, int]] = {}
        self.may_pause: dict[TransportId, bool] = {}
        self.known_paths: dict[TransportId, int] = {}
        """What `path_memory` returns."""
        self.beside: dict[TransportId, TransportId | None] = {}
        """Beside which other transport of the same client each was opened."""
        self.begun_with: dict[TransportId, int] = {}
        """With which path memory each was opened."""
        self.importance: dict[SubscriptionId, tuple[int, int]] = {}
        self.paused: dict[SubscriptionId, bool] = {}
        self.channels: list[TransportId] = []
        self.sent: list[tuple[tuple[TransportId, ...], Channel, bytes]] = []
        self.senders: list[TransportId | None] = []
        self.levels: list[tuple[TrackId, float]] = []
        self.lost: dict[TrackId, tuple[int, int]] = {}
        """Track -> (packets, lost) in the statistics."""
        self.fractions: dict[SubscriptionId, tuple[float, float]] = {}
        """Subscription -> (lost fraction, round-trip time in ms) in the statistics."""
        self.scored: dict[TransportId, float] = {}
        """What `scores` says of transports that are open."""
        self.muted: list[TrackId] = []
        """What `scores` was told last."""
        self.restarts: list[TransportId] = []
        self.key_frames: Counter[TrackId] = Counter()
        self.traffic: dict[str, int] = {}
        """What `totals` says, by field of `Traffic`; 0 of the others."""
        self.estimated: list[tuple[int, int]] = []
        self.capacity = 1_000
        self.rows = {"transports": 1_000, "tracks": 1_000, "streams": 3_000, "subscriptions": 10_000}
        """What `limits` says."""
        self.uses: dict[TrackId, LayerUse] = {}
        """What `layer_uses` says."""
        self.resting: dict[TrackId, list[int]] = {}
        """Layers that publishers were told to stop, as `set_resting` was told."""
        self._ids = 0

    def _next(self) -> int:
        self._ids += 1
        return self._ids

    async def start(self) -> None:
        """Nothing to start."""

    async def stop(self) -> None:
        """Nothing to stop."""

    async def next_event(self) -> Event:
        return await self.events.get()

    def emit(self, event: Event) -> None:
        self.events.put_nowait(event)

    def limits(self) -> dict[str, int]:
        return dict(self.rows)

    def path_memory(self, transport: TransportId) -> int:
        self._check(transport, self.transports)
        return self.known_paths.get(transport, 0)

    def open_transport(
        self, may_pause: bool = False, path_memory: int = 0, beside: TransportId | None = None
    ) -> LocalTransport:
        if len(self.transports) >= self.capacity:
            raise EngineError("transport table full")
        transport = TransportId(self._next())
        self.transports[transport] = None
        self.may_pause[transport] = may_pause
        self.begun_with[transport] = path_memory
        self.beside[transport] = beside
        return self._local(transport)

    def _local(self, transport: TransportId) -> LocalTransport:
        return LocalTransport(
            transport,
            IceCredentials(f"ufrag{self._next()}", "p" * 24),
            FINGERPRINT,
            (
                Candidate("1", 2130706431, "192.0.2.1", self.udp_port),
                Candidate("2", 1518280447, "192.0.2.1", 7881, tcp=True),
            ),
        )

    def media_addresses(self) -> tuple[tuple[str, int], ...]:
        return (("192.0.2.1", self.udp_port),)

    def take_connection(
        self, connection: socket.socket, client: str = "", peer: tuple[str, int] | None = None, protocol: str = "tcp"
    ) -> None:
        connection.close()

    def connect(self, transport: TransportId, remote: RemoteTransport) -> None:
        self._check(transport, self.transports)
        self.transports[transport] = remote

    def restart_ice(self, transport: TransportId) -> LocalTransport:
        self._check(transport, self.transports)
        self.restarts.append(transport)
        return self._local(transport)

    def set_media(self, transport: TransportId, media: MediaParameters) -> None:
        self._check(transport, self.transports)
        self.media[transport] = media

    def close_transport(self, transport: TransportId) -> None:
        self.transports.pop(transport, None)
        self.media.pop(transport, None)
        for track, (owner, _) in list(self.tracks.items()):
            if owner == transport:
                self.unpublish(track)
        for subscription, (_, owner, _) in list(self.subscriptions.items()):
            if owner == transport:
                self.unsubscribe(subscription)

    def publish(self, transport: TransportId, parameters: PublishParameters) -> TrackId:
        self._check(transport, self.transports)
        track = TrackId(self._next())
        self.tracks[track] = (transport, parameters)
        return track

    def unpublish(self, track: TrackId) -> None:
        self._check(track, self.tracks)
        del self.tracks[track]
        for subscription, (source, _, _) in list(self.subscriptions.items()):
            if source == track:
                self.unsubscribe(subscription)

    def set_resting(self, track: TrackId, layers: Iterable[int]) -> None:
        self._check(track, self.tracks)
        self.resting[track] = list(layers)

    def layer_uses(self) -> dict[TrackId, LayerUse]:
        return self.uses

    def request_key_frame(self, track: TrackId) -> None:
        self.key_frames[track] += 1

    def subscribe(self, track: TrackId, transport: TransportId, parameters: SubscribeParameters) -> LocalSubscription:
        self._check(track, self.tracks)
        self._check(transport, self.transports)
        subscription = SubscriptionId(self._next())
        self.subscriptions[subscription] = (track, transport, parameters)
        return LocalSubscription(subscription, 1000 + subscription, 0)

    def unsubscribe(self, subscription: SubscriptionId) -> None:
        self._check(subscription, self.subscriptions)
        del self.subscriptions[subscription]
        self.layers.pop(subscription, None)
        self.paused.pop(subscription, None)

    def set_layers(
        self, subscription: SubscriptionId, spatial: int, temporal: int, priority: int = 0, pixels: int = 0
    ) -> None:
        self._check(subscription, self.subscriptions)
        self.layers[subscription] = (spatial, temporal)
        self.importance[subscription] = (priority, pixels)

    def set_paused(self, subscription: SubscriptionId, paused: bool) -> None:
        self._check(subscription, self.subscriptions)
        self.paused[subscription] = paused

    def open_channels(self, transport: TransportId) -> None:
        self._check(transport, self.transports)
        self.channels.append(transport)

    def send_data(
        self, transports: Sequence[TransportId], channel: Channel, payload: bytes, sender: TransportId | None = None
    ) -> None:
        self.sent.append((tuple(transports), channel, payload))
        self.senders.append(sender)

    def audio_levels(self) -> list[tuple[TrackId, float]]:
        return self.levels

    def track_statistics(self, track: TrackId) -> TrackStatistics:
        self._check(track, self.tracks)
        packets, lost = self.lost.get(track, (0, 0))
        layer = LayerStatistics(ssrc=1, packets=packets, bytes=0, bitrate_bps=0, live=True)
        return TrackStatistics(packets=packets, bytes=0, lost=lost, jitter_ms=0.0, layers=(layer,))

    def subscription_statistics(self, subscription: SubscriptionId) -> SubscriptionStatistics:
        self._check(subscription, self.subscriptions)
        fraction, rtt_ms = self.fractions.get(subscription, (0.0, 0.0))
        return SubscriptionStatistics(
            packets=0,
            bytes=0,
            lost_fraction=fraction,
            lost=0,
            jitter_ms=0.0,
            rtt_ms=rtt_ms,
            layer=0,
            temporal=0,
            bitrate_bps=0,
            retransmitted=0,
        )

    def transport_statistics(self, transport: TransportId) -> TransportStatistics:
        self._check(transport, self.transports)
        return TransportStatistics(1_000_000, 700_000, 2_000_000, True, 40.0, 100, 5_000, 3, "udp")

    def scores(self, muted: Iterable[TrackId]) -> dict[TransportId, float]:
        self.muted = list(muted)
        return {transport: score for transport, score in self.scored.items() if transport in self.transports}

    def drops(self) -> dict[str, int]:
        return {}

    def usage(self) -> dict[str, int]:
        return {
            "transports": len(self.transports),
            "tracks": len(self.tracks),
            "subscriptions": len(self.subscriptions),
        }

    def totals(self) -> Totals:
        return played_totals(**self.traffic)

    def estimates(self) -> list[tuple[int, int]]:
        return self.estimated

    @staticmethod
    def _check(row: int, table: object) -> None:
        assert isinstance(table, dict)
        if row not in table:
            raise EngineError(f"unknown id {row}")
