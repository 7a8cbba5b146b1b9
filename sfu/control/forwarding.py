"""Tracks and subscriptions on the control thread: their rows, SSRCs and who hangs on whom.

A track belongs to the transport that publishes, a subscription to a track and to the transport that it goes
to. Closing one closes what hangs on it; rows come back with the media thread's CLOSED notices.
"""

import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from sfu.control.mailbox import Notice
from sfu.control.mirrors import mirror_closed, release_mirror, take_mirror
from sfu.control.rows import codec_mask
from sfu.control.shards import Shard
from sfu.control.tracks import Mirror, Owners, Subscription, Track
from sfu.control.transports import Transport, TransportState
from sfu.errors import EngineError
from sfu.events import LayersChanged, StreamStarted, SubscriptionPaused, SubscriptionStarted
from sfu.parameters import (
    MAX_SPATIAL,
    MAX_TEMPORAL,
    Codec,
    LocalSubscription,
    PublishParameters,
    SubscribeParameters,
    SubscriptionId,
    TrackId,
)
from sfu.schema.capacities import LAYERS
from sfu.schema.codes import Command, NoticeKind

ALL_LAYERS = (1 << LAYERS) - 1

logger = logging.getLogger(__name__)

MAX_COMMAND_VALUE = 0x7FFFFFFF
"""Larger priorities and pixel counts are cut to this value."""


class Forwarding:
    """All tracks and subscriptions.

    `tracks` and `subscriptions` hold what signalling may name; rows of closed ones wait in `owners`.
    """

    def __init__(self, owners: Mapping[Shard, Owners], drops: Counter[str]) -> None:
        """owners: of each shard. drops: counts packet caches that a layer was not given."""
        self._owners = owners
        self._drops = drops
        self.tracks: dict[TrackId, Track] = {}
        self.subscriptions: dict[SubscriptionId, Subscription] = {}
        self._numbers = itertools.count(1)
        self._last_number = 0

    def open_track(self, number: TrackId) -> Track:
        """The track.

        Raises:
            EngineError: the track is not open.
        """
        if number not in self.tracks:
            raise EngineError(f"no track {number}")
        return self.tracks[number]

    def open_subscription(self, number: SubscriptionId) -> Subscription:
        """The subscription.

        Raises:
            EngineError: the subscription is not open.
        """
        if number not in self.subscriptions:
            raise EngineError(f"no subscription {number}")
        return self.subscriptions[number]

    def open_tracks(self, numbers: Iterable[TrackId]) -> list[Track]:
        """Those of these tracks that are open."""
        return [self.tracks[number] for number in numbers if number in self.tracks]

    # Tracks.

    def publish(self, transport: Transport, parameters: PublishParameters) -> Track:
        """Open a track on an open transport.

        Raises:
            EngineError: a parameter is out of range.
            TableFull: there is no room for another track.
        """
        shard = transport.shard
        row, generation, streams = shard.tables.take_track(transport.row, parameters)
        announced = {ssrc for each in parameters.encodings for ssrc in (each.ssrc, each.rtx_ssrc) if ssrc}
        # One that another track of the transport announced too stays with that one.
        ssrcs = transport.ssrcs.claim(announced)
        number = TrackId(self._number())
        track = Track(number, row, generation, transport, parameters.kind, streams, ssrcs, parameters)
        self.tracks[number] = self._owners[shard].tracks[row] = track
        transport.tracks[number] = None
        shard.mailbox.push(Command.OPEN_TRACK, row, generation)
        return track

    def unpublish(self, number: TrackId) -> None:
        """Close a track and its subscriptions; one that is closed already: nothing.

        Raises:
            EngineError: there never was such a track.
        """
        track = self.tracks.pop(number, None)
        if track is None:
            self._check_past(number, "track")
            return
        for subscription in list(track.subscriptions):
            self.unsubscribe(subscription)
        track.transport.tracks.pop(number, None)
        track.transport.shard.mailbox.push(Command.CLOSE_TRACK, track.row, track.generation)

    def set_codecs(self, number: TrackId, codecs: frozenset[Codec]) -> None:
        """Change what the m-section of a track may carry.

        Raises:
            EngineError: there never was such a track.
        """
        track = self.tracks.get(number)
        if track is None:
            self._check_past(number, "track")
        elif codecs != track.parameters.codecs:
            track.parameters = replace(track.parameters, codecs=codecs)
            mask = codec_mask(codecs)
            track.transport.shard.mailbox.push(Command.SET_CODECS, track.row, track.generation, codecs=mask)

    def set_resting(self, number: TrackId, layers: int) -> None:
        """Say which layers, as a bit mask, the publisher of a track was told to stop.

        Raises:
            EngineError: there never was such a track.
        """
        track, layers = self.tracks.get(number), layers & ALL_LAYERS
        if track is None:
            self._check_past(number, "track")
        elif layers != track.resting:
            track.resting = layers
            home = track.transport.shard
            home.mailbox.push(Command.SET_RESTING, track.row, track.generation, layers=layers)
            for each in track.mirrors.values():
                each.shard.mailbox.push(Command.SET_RESTING, each.row, each.generation, layers=layers)

    def request_key_frame(self, number: TrackId) -> None:
        """Ask the publisher for a key frame on every layer; the media thread throttles."""
        track = self.tracks.get(number)
        if track is None:
            self._check_past(number, "track")
        else:
            track.transport.shard.mailbox.push(Command.REQUEST_KEY_FRAME, track.row, track.generation)

    # Subscriptions.

    def subscribe(self, number: TrackId, transport: Transport, parameters: SubscribeParameters) -> LocalSubscription:
        """Forward a track to an open transport.

        Raises:
            EngineError: the track is not open, or a parameter is out of range.
            TableFull: there is no room for another subscription.
        """
        track = self.open_track(number)
        _check_layers(parameters.spatial, parameters.temporal)
        shard = transport.shard
        owners = self._owners[shard]
        mirror = take_mirror(track, shard, owners) if track.transport.shard is not shard else None
        row_there = track.row if mirror is None else mirror.row
        ssrc = transport.ssrcs.take()
        rtx_ssrc = transport.ssrcs.take() if parameters.rtx_payload_type >= 0 else 0
        try:
            row, generation = shard.tables.take_subscription(
                row_there, transport.row, track.kind, (ssrc, rtx_ssrc), parameters
            )
        except EngineError:
            transport.ssrcs.give_back((ssrc, rtx_ssrc))
            if mirror is not None:
                release_mirror(mirror, owners)
            raise
        mine = SubscriptionId(self._number())
        subscription = Subscription(mine, row, generation, track, transport, (ssrc, rtx_ssrc), mirror)
        self.subscriptions[mine] = owners.subscriptions[row] = track.subscriptions[mine] = subscription
        transport.subscriptions[mine] = None
        shard.mailbox.push(
            Command.OPEN_SUBSCRIPTION,
            row,
            generation,
            paused=parameters.paused,
            silent=parameters.silence,
            spatial=parameters.spatial,
            temporal=parameters.temporal,
            priority=min(parameters.priority, MAX_COMMAND_VALUE),
            pixels=min(parameters.pixels, MAX_COMMAND_VALUE),
        )
        return LocalSubscription(mine, ssrc, rtx_ssrc)

    def unsubscribe(self, number: SubscriptionId) -> None:
        """Stop forwarding; a subscription that is closed already: nothing.

        Raises:
            EngineError: there never was such a subscription.
        """
        subscription = self.subscriptions.pop(number, None)
        if subscription is None:
            self._check_past(number, "subscription")
            return
        subscription.transport.shard.mailbox.push(Command.CLOSE_SUBSCRIPTION, subscription.row, subscription.generation)
        self._part(subscription)

    def set_layers(
        self, number: SubscriptionId, spatial: int, temporal: int, priority: int = 0, pixels: int = 0
    ) -> None:
        """Highest layers to forward, from 0, and how important they are, as `SubscribeParameters` says it.

        Raises:
            EngineError: a layer is out of range, or there never was such a subscription.
        """
        _check_layers(spatial, temporal)
        self._change(
            number,
            Command.SET_LAYERS,
            spatial=spatial,
            temporal=temporal,
            priority=min(priority, MAX_COMMAND_VALUE),
            pixels=min(pixels, MAX_COMMAND_VALUE),
        )

    def set_paused(self, number: SubscriptionId, paused: bool) -> None:
        """Stop or go on without giving up the SSRCs.

        Raises:
            EngineError: there never was such a subscription.
        """
        self._change(number, Command.SET_PAUSED, paused=paused)

    # Closing with a transport, and notices.

    def close_all_of(self, transport: Transport) -> None:
        """Close the subscriptions to a transport, and its tracks with theirs."""
        for subscription in list(transport.subscriptions):
            self.unsubscribe(subscription)
        for track in list(transport.tracks):
            self.unpublish(track)

    def track_closed(self, shard: Shard, notice: Notice) -> None:
        """CLOSED_TRACK: the rows are ours again."""
        owners = self._owners[shard]
        mirror = owners.mirrors.get(notice.row)
        if mirror is not None and mirror.generation == notice.generation:
            mirror_closed(mirror, owners)
            return
        track = owners.tracks.get(notice.row)
        if track is None or track.generation != notice.generation:
            return
        del owners.tracks[notice.row]
        self.tracks.pop(track.id, None)
        for subscription in list(track.subscriptions):  # the media thread closed it of its own accord
            self.unsubscribe(subscription)
        track.transport.tracks.pop(track.id, None)
        track.transport.ssrcs.give_back(track.ssrcs)
        shard.tables.give_back_track(track.row, track.streams)

    def cache_changes(self, shard: Shard, notice: Notice) -> None:
        """CACHE_REQUESTED: give a layer another packet cache if there is space. CACHE_LEFT: the one before is free."""
        owners = self._owners[shard]
        track = owners.mirrors.get(notice.row) or owners.tracks.get(notice.row)
        if track is None or track.generation != notice.generation:
            return
        stream = track.streams[notice.value]
        if notice.kind == NoticeKind.CACHE_LEFT:
            shard.tables.cache_left(stream)
            return
        in_use = self._cache_bytes(track, shard)
        if shard.mailbox.has_room and shard.tables.change_cache(stream, notice.extra, in_use):
            shard.mailbox.push(
                Command.CHANGE_CACHE,
                track.row,
                track.generation,
                layer=notice.value,
                cache_bytes=notice.extra,
                cache_start=stream.cache_start,
            )
        else:
            self._drops["cache_refused"] += 1

    def subscription_closed(self, shard: Shard, notice: Notice) -> None:
        """CLOSED_SUBSCRIPTION: the row and its SSRCs are ours again."""
        owners = self._owners[shard]
        subscription = owners.subscriptions.get(notice.row)
        if subscription is None or subscription.generation != notice.generation:
            return
        if self.subscriptions.pop(subscription.id, None) is not None:  # the media thread closed it of its own accord
            self._part(subscription)
        del owners.subscriptions[notice.row]
        subscription.transport.ssrcs.give_back(subscription.ssrcs)
        shard.tables.give_back_subscription(subscription.row)

    def track_event(self, shard: Shard, notice: Notice) -> StreamStarted | LayersChanged | None:
        """What signalling is told of a track that is still open; nothing about a mirror, whose track speaks for
        itself."""
        track = self._owners[shard].tracks.get(notice.row)
        if track is None or track.generation != notice.generation or track.id not in self.tracks:
            return None
        if notice.kind == NoticeKind.LAYERS_CHANGED:
            return LayersChanged(track.id, notice.value)
        ssrc, codec, payload_type = notice.extra & 0xFFFFFFFF, notice.extra >> 32 & 0xFF, notice.extra >> 40
        try:
            return StreamStarted(track.id, notice.value, ssrc, Codec(codec), payload_type)
        except ValueError:
            logger.error("the media thread named an unknown codec %d", codec)
            return None

    def subscription_event(self, shard: Shard, notice: Notice) -> SubscriptionStarted | SubscriptionPaused | None:
        """What signalling is told of a subscription that is still open."""
        found = self._owners[shard].subscriptions.get(notice.row)
        if found is None or found.generation != notice.generation or found.id not in self.subscriptions:
            return None
        if notice.kind == NoticeKind.SUBSCRIPTION_STARTED:
            return SubscriptionStarted(found.id)
        return SubscriptionPaused(found.id, bool(notice.value))

    def _change(self, number: SubscriptionId, kind: Command, **fields: int) -> None:
        subscription = self.subscriptions.get(number)
        if subscription is None:
            self._check_past(number, "subscription")
        else:
            subscription.transport.shard.mailbox.push(kind, subscription.row, subscription.generation, **fields)

    def _cache_bytes(self, track: Track | Mirror, shard: Shard) -> int:
        """Bytes of the packet caches that a publisher has in a shard."""
        publisher = track.track.transport if isinstance(track, Mirror) else track.transport
        tracks = (self.tracks[number] for number in publisher.tracks)
        there = (each if publisher.shard is shard else each.mirrors.get(shard) for each in tracks)
        return sum(stream.cache_bytes for each in there if each is not None for stream in each.streams)

    def _part(self, subscription: Subscription) -> None:
        """Take a subscription from its track and its transport."""
        subscription.track.subscriptions.pop(subscription.id, None)
        subscription.transport.subscriptions.pop(subscription.id, None)
        if subscription.mirror is not None:
            release_mirror(subscription.mirror, self._owners[subscription.transport.shard])

    def _number(self) -> int:
        self._last_number = next(self._numbers)
        return self._last_number

    def _check_past(self, number: int, name: str) -> None:
        """What closed a moment ago may still be named, and nothing happens; what never was is a mistake."""
        if not 0 < number <= self._last_number:
            raise EngineError(f"no {name} {number}")


def _check_layers(spatial: int, temporal: int) -> None:
    if not (0 <= spatial <= MAX_SPATIAL and 0 <= temporal <= MAX_TEMPORAL):
        raise EngineError(f"no layers ({spatial}, {temporal})")


def check_open(transport: Transport | None, number: int) -> Transport:
    """The transport, if signalling may still use it. A failed one can be used, to no effect.

    Raises:
        EngineError: the transport was closed.
    """
    if transport is None or transport.state is TransportState.CLOSING:
        raise EngineError(f"no transport {number}")
    return transport
