"""Numbers for signalling, read from the columns that the media thread writes.

A value may be torn from its neighbours by a packet that comes in between; each alone is whole.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sfu.control.rows import KINDS
from sfu.control.shards import Shard
from sfu.control.tracks import Owners, Subscription, Track
from sfu.control.transports import Transport
from sfu.media.stream.layers import is_scalable
from sfu.parameters import MAX_SPATIAL, MAX_TEMPORAL, Kind, TrackId
from sfu.schema.bandwidth_codes import Reason
from sfu.schema.capacities import (
    COMMAND_QUEUE,
    COMMANDS,
    CONNECTIONS,
    PATHS,
    RELAY_SLOTS,
    SLOW_QUEUE,
    SLOW_SLOTS,
    SOURCES,
    STREAMS,
    SUBSCRIPTIONS,
    TRACKS,
    TRANSPORTS,
)
from sfu.schema.codes import Drop, MediaKind, RowState
from sfu.schema.memory import Memory
from sfu.schema.thread_tables import FORWARDING_DELAYS_NS

ROWS = {
    "transports": TRANSPORTS,
    "tracks": TRACKS,
    "streams": STREAMS,
    "subscriptions": SUBSCRIPTIONS,
    "connections": CONNECTIONS,
    "paths": PATHS,
    "sources": SOURCES,
}
"""Rows of the tables of one media thread."""
TRAFFIC = (
    "packets_received",
    "bytes_received",
    "retransmissions_received",
    "retransmission_bytes_received",
    "packets_sent",
    "bytes_sent",
    "retransmissions_sent",
    "retransmission_bytes_sent",
    "nacks_received",
    "nacks_sent",
    "plis_received",
    "firs_received",
    "plis_sent",
    "probe_bytes",
)
"""Columns of `thread` whose sums over media threads are a `Traffic`."""
DELAYS_S = (*(bound / 1e9 for bound in FORWARDING_DELAYS_NS), math.inf)
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
    """Packets that are missing, as in RFC 3550 section 6.4.1: those expected less those that arrived, retransmissions
    included."""
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
    """0 to 1: of what was sent between the last two receiver reports, what `lost` counts."""
    lost: int
    """Packets that were sent to the subscriber and that it has missed, before repair, as it reported last."""
    jitter_ms: float
    """Jitter, from the last receiver report."""
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
    preferred: tuple[int, int] = (MAX_SPATIAL, MAX_TEMPORAL)
    """Highest spatial and temporal layer that the subscriber prefers."""
    allowed: tuple[int, int] = (MAX_SPATIAL, MAX_TEMPORAL)
    """Highest spatial and temporal layer for which its path has room beside everything else that goes there; -1: none,
    so it is paused."""
    reason: str = Reason.CLIENT.name.lower()
    """Why it is not sent more: "client" (it prefers no more), "bandwidth", "not_live" (the publisher does not send it),
    "paused" (for lack of bandwidth), "key_frame" (which has not come yet)."""
    waiting_s: float = 0.0
    """How long it has waited for a key frame, to a second; 0: it does not wait."""


@dataclass(frozen=True, slots=True)
class TransportStatistics:
    """What the path to a client is believed to carry, and what goes over it."""

    estimate_bps: int
    """Bits a second that may be sent, by the client's feedback; 0: it gives none, and nothing is limited."""
    allocated_bps: int
    """Bits a second that what may be sent costs, of that."""
    preferred_bps: int
    """Bits a second that all that the client prefers would cost."""
    limited: bool
    """Whether it is sent less than it prefers."""
    rtt_ms: float
    """Round-trip time; 0: unknown."""
    packets_received: int
    """SRTP and SRTCP datagrams from the client that are authentic."""
    bytes_received: int
    """Bytes of them, after decryption."""
    reported_lost: int = 0
    """Packets that the client's transport-cc feedback reported missing, and not as received later."""
    protocol: str = ""
    """How the client is sent to: `udp`, `tcp`, or what was said when its connection was handed over; empty: there is no
    path to it."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What media threads received and sent since the start. Bytes of `packets` are without the headers of UDP and IP,
    those of `retransmissions` are RTP header and payload."""

    packets_received: int
    """SRTP and SRTCP datagrams that are authentic."""
    bytes_received: int
    """Bytes of them, without the headers of UDP and IP."""
    retransmissions_received: int
    """RTX packets (RFC 4588) among them, padding included."""
    retransmission_bytes_received: int
    """RTP header and payload of these packets."""
    packets_sent: int
    """All datagrams but those of DTLS."""
    bytes_sent: int
    """Bytes of them, without the headers of UDP and IP."""
    retransmissions_sent: int
    """RTX packets among them, those that probe a path included."""
    retransmission_bytes_sent: int
    """RTP header and payload of these packets."""
    nacks_received: int
    """Packets that subscribers asked for again."""
    nacks_sent: int
    """Packets that publishers were asked for again."""
    plis_received: int
    """Requests for a key frame from subscribers (RFC 4585 section 6.3.1)."""
    firs_received: int
    """The older form of them (RFC 5104 section 4.3.1)."""
    plis_sent: int
    """Requests for a key frame to publishers."""
    probe_bytes: int
    """Bytes that were sent for nothing but to learn what paths carry, with the headers of UDP and IP."""


@dataclass(frozen=True, slots=True)
class ThreadLoad:
    """How busy one media thread is."""

    cpu_seconds: float
    """Processor time that it has used."""
    command_queue_fill: float
    """0 to 1: commands that it has not taken yet."""
    datagram_queue_fill: float
    """0 to 1: datagrams of DTLS that the control thread has not taken yet."""
    relay_queue_fill: float
    """0 to 1: packets that it has not taken yet from the media thread of which most wait."""


@dataclass(frozen=True, slots=True)
class Totals:
    """The numbers of the whole engine."""

    traffic: Traffic
    """The traffic of all media threads together."""
    threads: tuple[ThreadLoad, ...]
    """The load of each media thread, by its number."""
    rows_used: Mapping[str, int]
    """Rows in use per table, of all media threads together."""
    rows: Mapping[str, int]
    """Rows that there are in these tables."""
    packet_cache_bytes: int
    """Bytes of packet caches handed out."""
    subscriptions: Mapping[Kind, int]
    """Tracks that are being forwarded, by kind."""
    forwarding_delays: tuple[tuple[float, int], ...]
    """Samples of how long packets were here, one in each turn of a media thread: from the kernel's time stamp until all
    copies that do not wait for bandwidth had left. (seconds, how many took so long at most and longer than the bound
    before), ascending; the last bound is infinite."""
    forwarding_delay_sum_s: float
    """Sum of all samples, in seconds."""
    event_queue_fill: float
    """0 to 1: events that signalling has not taken yet."""
    protocols: Mapping[str, int]
    """Peer connections that have a path, by what `TransportStatistics.protocol` says."""


def totals(shards: Sequence[Shard], event_queue_fill: float) -> Totals:
    """The numbers of all media threads together."""
    used = usage(shards)
    cache_bytes = used.pop("packet_cache_bytes")
    there = {name: count * len(shards) for name, count in ROWS.items()}
    threads = [shard.memory.thread for shard in shards]
    traffic = {name: sum(int(thread[name]) for thread in threads) for name in TRAFFIC}
    loads = tuple(map(_load, shards))
    delays = np.sum([thread["delays"] for thread in threads], axis=0)
    return Totals(
        traffic=Traffic(**traffic),
        threads=loads,
        rows_used=used,
        rows=there,
        packet_cache_bytes=cache_bytes,
        subscriptions=_subscriptions(shards),
        forwarding_delays=tuple(zip(DELAYS_S, delays.tolist(), strict=True)),
        forwarding_delay_sum_s=sum(int(thread["delay_sum_ns"]) for thread in threads) / 1e9,
        event_queue_fill=event_queue_fill,
        protocols=_protocols(shards),
    )


def _protocols(shards: Sequence[Shard]) -> Mapping[str, int]:
    counts = Counter[str]()
    for shard in shards:
        rows = shard.memory.table("transports")[: int(shard.memory.thread["transport_end"])]
        paths = rows["path"][(rows["state"] == RowState.OPEN) & (rows["path"] >= 0)]
        counts.update(map(shard.protocol, paths.tolist()))
    return counts


def _load(shard: Shard) -> ThreadLoad:
    queues = shard.memory.table("queues")
    waiting = (queues["written"] - queues["read"]).tolist()
    relays = shard.memory.table("relays")
    return ThreadLoad(
        shard.thread.cpu_seconds(),
        waiting[COMMAND_QUEUE] / COMMANDS,
        waiting[SLOW_QUEUE] / SLOW_SLOTS,
        max((relays["written"] - relays["read"]).tolist()) / RELAY_SLOTS,
    )


def _subscriptions(shards: Sequence[Shard]) -> dict[Kind, int]:
    counts = dict.fromkeys(Kind, 0)
    for shard in shards:
        rows = shard.memory.table("subscriptions")[: int(shard.memory.thread["subscription_end"])]
        kinds = rows["kind"][rows["state"] == RowState.OPEN]
        for kind in Kind:
            counts[kind] += int(np.count_nonzero(kinds == KINDS[kind]))
    return counts


def estimates(shards: Sequence[Shard]) -> list[tuple[int, int]]:
    """Bits a second that may be sent to each transport whose peer gives transport-cc feedback, and what all that is
    allocated of it costs."""
    found: list[tuple[int, int]] = []
    for shard in shards:
        end = int(shard.memory.thread["transport_end"])
        transports, rows = shard.memory.table("transports")[:end], shard.memory.table("estimates")[:end]
        known = np.flatnonzero((transports["state"] == RowState.OPEN) & (transports["estimated"] != 0))
        known = known[rows["feedbacks"][known] > 0]
        found += zip(rows["target_bps"][known].tolist(), transports["allocated_bps"][known].tolist(), strict=True)
    return found


def transport_statistics(transport: Transport) -> TransportStatistics:
    """The numbers of one transport."""
    memory = transport.shard.memory
    row, log = memory.table("transports")[transport.row], memory.table("send_logs")[transport.row]
    return TransportStatistics(
        estimate_bps=int(row["estimate_bps"]),
        allocated_bps=int(row["allocated_bps"]),
        preferred_bps=int(row["preferred_bps"]),
        limited=bool(row["limited"]),
        rtt_ms=int(row["rtt_ns"]) / 1e6,
        packets_received=int(row["packets_in"]),
        bytes_received=int(row["bytes_in"]),
        reported_lost=int(log["reported_lost"]) if row["logged"] else 0,
        protocol=transport.shard.protocol(path) if (path := int(row["path"])) >= 0 else "",
    )


def path_memory(transport: Transport) -> int:
    """Bits a second that the path of a transport was last known to carry, or did before its feedback stopped; 0: its
    peer gives none."""
    memory = transport.shard.memory
    estimate = memory.table("estimates")[transport.row]
    if not memory.table("transports")["estimated"].item(transport.row) or not estimate["feedbacks"]:
        return 0
    return int(estimate["silent_from_bps"] if estimate["silent"] else estimate["target_bps"])


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
        max(_milliseconds(int(stream["jitter"]) / 16, stream) for stream in streams),
        layers,
    )


def _milliseconds(ticks: float, stream: Any) -> float:
    """Ticks of a stream's RTP clock; 0 while its rate is not known."""
    clock_rate = int(stream["clock_rate"])
    return ticks * 1000 / clock_rate if clock_rate else 0.0


def subscription_statistics(subscription: Subscription, waiting_s: float) -> SubscriptionStatistics:
    """The numbers of one subscription. waiting_s: how long it has waited for a key frame."""
    memory = subscription.transport.shard.memory
    row = memory.table("subscriptions")[subscription.row]
    stream = memory.table("streams")[int(row["stream"])]
    scalable = is_scalable.py_func(len(subscription.track.streams), int(stream["codec"]))
    layer = int(row["layer"])
    return SubscriptionStatistics(
        packets=int(row["packets"]),
        bytes=int(row["octets"]),
        lost_fraction=int(row["own_fraction"]) / 256,
        lost=int(row["own_lost"]),
        jitter_ms=_milliseconds(int(row["jitter"]), stream),
        rtt_ms=memory.table("transports")["rtt_ns"].item(subscription.transport.row) / 1e6,
        layer=int(row["spatial"]) if layer >= 0 and scalable else layer,
        temporal=int(row["temporal"]),
        bitrate_bps=int(row["bitrate_bps"]),
        retransmitted=int(row["retransmitted"]),
        preferred=(int(row["preferred_spatial"]), int(row["preferred_temporal"])),
        allowed=(int(row["allowed_spatial"]), int(row["allowed_temporal"])),
        reason=_reason(row).name.lower(),
        waiting_s=waiting_s,
    )


def waits_for_key_frame(rows: Any) -> Any:
    """Whether a row of `subscriptions` waits for a key frame, or which of several rows do."""
    return (rows["kind"] == MediaKind.VIDEO) & (rows["paused"] == 0) & (rows["target_layer"] != rows["layer"])


def _reason(row: Any) -> Reason:
    """Why no more is sent on a row of `subscriptions`."""
    return Reason.KEY_FRAME if waits_for_key_frame(row) else Reason(int(row["reason"]))


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


def drops(shards: Sequence[Shard], others: Mapping[str, int]) -> dict[str, int]:
    """What the media threads dropped by reason, added to `others`; also reasons for which nothing was."""
    total = Counter(others)
    for shard in shards:
        counts = shard.memory.table("drops").tolist()
        total.update({drop.name.lower(): counts[drop] for drop in Drop})
    return dict(total)


def limits(threads: int) -> dict[str, int]:
    """Rows per table that `threads` media threads have for what signalling asks for (see `Engine.limits`)."""
    transports, subscriptions = TRANSPORTS * threads, SUBSCRIPTIONS * threads
    if threads > 1:
        transports -= transports // UNEVEN_SHARE
        subscriptions -= subscriptions // UNEVEN_SHARE
    return {"transports": transports, "tracks": TRACKS, "streams": STREAMS, "subscriptions": subscriptions}


def usage(shards: Sequence[Shard]) -> dict[str, int]:
    """Rows in use per table, and bytes of packet caches handed out, of all media threads together."""
    total: Counter[str] = Counter()
    for shard in shards:
        total.update(_usage(shard))
    return dict(total)


def _usage(shard: Shard) -> dict[str, int]:
    tables = shard.tables
    return {
        "transports": tables.transports.used,
        "tracks": tables.tracks.used,
        "streams": tables.streams.used,
        "subscriptions": tables.subscriptions.used,
        "connections": tables.connections.used,
        "paths": rows_in_use(shard.memory, "paths"),
        "sources": rows_in_use(shard.memory, "sources"),
        "packet_cache_bytes": tables.caches.used_bytes,
    }


def rows_in_use(memory: Memory, name: str) -> int:
    """How many rows of a table that the media thread hands out are not free."""
    return int(np.count_nonzero(memory.table(name)["state"] != RowState.FREE))
