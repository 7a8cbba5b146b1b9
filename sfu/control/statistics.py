"""Numbers for signalling, read from the columns that the media thread writes.

A value may be torn from its neighbours by a packet that comes in between; each alone is whole.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sfu.control.shards import Shard
from sfu.control.tracks import Owners, Subscription, Track
from sfu.media.stream.layers import is_scalable
from sfu.parameters import TrackId
from sfu.schema.capacities import STREAMS, SUBSCRIPTIONS, TRACKS, TRANSPORTS
from sfu.schema.codes import Drop, RowState
from sfu.schema.memory import Memory

UNEVEN_SHARE = 8
"""One part in so many is not promised where several media threads may fill unevenly."""


@dataclass(frozen=True, slots=True)
class LayerStatistics:
    """One layer of a track."""

    ssrc: int
    """0 before its first packet when SDP did not say."""
    packets: int
    """RTP packets that arrived, without retransmissions."""
    bytes: int
    """Header and payload of these packets."""
    bitrate_bps: int
    """Bits a second, as measured last."""
    live: bool
    """Whether packets are coming now."""


@dataclass(frozen=True, slots=True)
class TrackStatistics:
    """What came from a publisher, all layers together."""

    packets: int
    """RTP packets that arrived, without retransmissions."""
    bytes: int
    """Header and payload of these packets."""
    lost: int
    """RFC 3550 section 6.4.1, cumulative; retransmissions that arrived count against it."""
    jitter_ms: float
    """Jitter of the worst layer."""
    layers: tuple[LayerStatistics, ...]


@dataclass(frozen=True, slots=True)
class SubscriptionStatistics:
    """What went to a subscriber."""

    packets: int
    """RTP packets that were sent, without retransmissions."""
    bytes: int
    """Bytes of the RTP payload of these packets."""
    lost_fraction: float
    """0 to 1, from the last receiver report."""
    rtt_ms: float
    """Round-trip time of the transport; 0: unknown."""
    layer: int
    """Simulcast layer, or highest spatial layer of SVC, being forwarded; -1: none."""
    temporal: int
    """Highest temporal layer being forwarded."""
    bitrate_bps: int
    """Bits a second, as measured last."""
    retransmitted: int
    """Packets that were sent again because the subscriber asked for them."""


def track_statistics(track: Track) -> TrackStatistics:
    """The numbers of one track."""
    memory = track.transport.shard.memory
    live = int(memory.table("tracks")[track.row]["live"])
    streams = [memory.table("streams")[each.row] for each in track.streams]
    layers = tuple(
        LayerStatistics(
            int(stream["ssrc"]),
            int(stream["received"]),
            int(stream["bytes"]),
            int(stream["bitrate_bps"]),
            bool(live >> layer & 1),
        )
        for layer, stream in enumerate(streams)
    )
    return TrackStatistics(
        sum(layer.packets for layer in layers),
        sum(layer.bytes for layer in layers),
        sum(int(stream["lost"]) for stream in streams),
        max(_jitter_ms(stream) for stream in streams),
        layers,
    )


def _jitter_ms(stream: Any) -> float:
    clock_rate = int(stream["clock_rate"])
    return int(stream["jitter"]) / 16 * 1000 / clock_rate if clock_rate else 0.0


def subscription_statistics(subscription: Subscription) -> SubscriptionStatistics:
    """The numbers of one subscription."""
    memory = subscription.transport.shard.memory
    row = memory.table("subscriptions")[subscription.row]
    lost_fraction, rtt_ms = subscription_path(subscription)
    stream = memory.table("streams")[int(row["stream"])]
    scalable = is_scalable.py_func(len(subscription.track.streams), int(stream["codec"]))
    layer = int(row["layer"])
    return SubscriptionStatistics(
        packets=int(row["packets"]),
        bytes=int(row["octets"]),
        lost_fraction=lost_fraction,
        rtt_ms=rtt_ms,
        layer=int(row["spatial"]) if layer >= 0 and scalable else layer,
        temporal=int(row["temporal"]),
        bitrate_bps=int(row["bitrate_bps"]),
        retransmitted=int(row["retransmitted"]),
    )


def subscription_path(subscription: Subscription) -> tuple[float, float]:
    """(fraction lost, round-trip time in ms) of one subscription, at a fraction of the price of all its numbers."""
    memory = subscription.transport.shard.memory
    lost = memory.table("subscriptions")["fraction_lost"].item(subscription.row)
    rtt_ns = memory.table("transports")["rtt_ns"].item(subscription.transport.row)
    return lost / 256, rtt_ns / 1e6


def audio_levels(shard: Shard, owners: Owners) -> list[tuple[TrackId, float]]:
    """(track, level 0 to 1) of every open track of a media thread that counts as speaking."""
    memory = shard.memory
    streams = memory.table("streams")[: int(memory.thread["stream_end"])]
    speaking = np.flatnonzero((streams["level"] > 0) & (streams["state"] == RowState.OPEN))
    levels = streams["level"][speaking].tolist()
    tracks = streams["track"][speaking].tolist()
    return [
        (owners.tracks[track].id, level) for track, level in zip(tracks, levels, strict=True) if track in owners.tracks
    ]


def drops(memory: Memory) -> dict[str, int]:
    """Packets that the media thread dropped, by reason."""
    counts = memory.table("drops").tolist()
    return {drop.name.lower(): counts[drop] for drop in Drop}


def limits(threads: int) -> dict[str, int]:
    """Rows per table that `threads` media threads have for what signalling asks for (see `Engine.limits`)."""
    transports, subscriptions = TRANSPORTS * threads, SUBSCRIPTIONS * threads
    if threads > 1:
        transports -= transports // UNEVEN_SHARE
        subscriptions -= subscriptions // UNEVEN_SHARE
    return {"transports": transports, "tracks": TRACKS, "streams": STREAMS, "subscriptions": subscriptions}


def usage(shard: Shard) -> dict[str, int]:
    """Rows in use per table, and bytes of packet caches handed out."""
    tables = shard.tables
    return {
        "transports": tables.transports.used,
        "tracks": tables.tracks.used,
        "streams": tables.streams.used,
        "subscriptions": tables.subscriptions.used,
        "paths": rows_in_use(shard.memory, "paths"),
        "sources": rows_in_use(shard.memory, "sources"),
        "packet_cache_bytes": tables.caches.used_bytes,
    }


def rows_in_use(memory: Memory, name: str) -> int:
    """How many rows of a table that the media thread hands out are not free."""
    return int(np.count_nonzero(memory.table(name)["state"] != RowState.FREE))
