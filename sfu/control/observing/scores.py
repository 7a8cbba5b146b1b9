"""How good the media of each transport are, both ways: a score from 0 to 100, by the rules of livekit-server 1.13.

Every track that a client publishes and every one that it is sent has a score, and its transport has the worst of them.
A window, from one measurement to the next, is judged by a simplified E-model of ITU-T G.107: delay, jitter and loss are
subtracted from 100, and so is each layer that is missed. The score follows slowly upwards and fast downwards. A track
that is muted is not judged, nor is the window in which it was muted or unmuted.

Each measurement goes once over the columns of each table, for all clients together.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sfu.control.shards import Shard
from sfu.control.tracks import Owners, Track
from sfu.parameters import Codec, TransportId
from sfu.schema.allocation_tables import COST_SPATIAL, COST_TEMPORAL
from sfu.schema.bandwidth_codes import Reason, Rung
from sfu.schema.capacities import TRACKS, TRANSPORTS
from sfu.schema.codes import MediaKind, RowState

BEST, LEAST = 100.0, 30.0
"""The ends of the scale while media come. From less than LEAST the way back would take too long."""
DRY, LOST = 40.0, 20.0
"""Nothing comes of a track that is not muted: the client still reports, or it does not even do that."""
RISE, FALL = 0.4, 0.8
"""How far a score moves at once towards that of the last window."""
MISSED_LAYER = 35.0
"""What one spatial layer is worth that is missed all the time."""
OPUS_WEIGHT, RED_WEIGHT, AUDIO_WEIGHT, VIDEO_WEIGHT = 16 / 3, 8 / 3, 8.0, 10.0
"""What one percent of loss is worth: less where the codec carries redundancy. Opus is negotiated with FEC always."""
LATE_MS = 160.0
"""Delay beyond which people notice it soon."""
UNREPORTED_NS = 30_000_000_000
"""A subscriber that does not report for so long, while it is sent media, counts as one that gets nothing."""
USUAL_DECAY = 0.97
"""What is left of the usual packet rate after each window with a lower one: half of it after two minutes."""

_TALLEST = np.array((-1, 0, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3), np.int64)
"""The highest bit that is set in a mask of up to four bits, by mask."""
_COMMON: Sequence[tuple[str, str]] = (
    ("row_use", "i8"),
    ("counted", "i8"),
    ("unjudged", "?"),
    ("distance", "f8"),
    ("usual_pps", "f8"),
    ("score", "f8"),
)
_DOWN = np.dtype(
    [
        *_COMMON,
        ("report_at", "i8"),
        ("report_count", "i8"),
        ("report_lost", "i8"),
        ("streaming_at", "i8"),
    ]
)
_UP = np.dtype([*_COMMON, ("lost_before", "i8"), ("tallest", "i8")])


class Scores:
    """The scores of all transports, and what they were made from the last time."""

    def __init__(self, owners: Mapping[Shard, Owners]) -> None:
        """`owners` are those of all shards, by number."""
        self._owners = owners
        self._down = {shard: np.zeros(0, _DOWN) for shard in owners}
        self._up = {shard: np.zeros(0, _UP) for shard in owners}
        self._measured_ns = 0

    def measure(self, muted: Iterable[Track], now: int) -> dict[TransportId, float]:
        """Judge the window that ends now, CLOCK_MONOTONIC in ns. Returns the scores of the transports that have media.

        muted: the tracks that their publishers have muted.
        """
        window, self._measured_ns = now - self._measured_ns, now
        silent = self._rows_of(muted)
        worst = {shard: np.full(TRANSPORTS, np.inf) for shard in self._owners}
        preferred = {shard: np.full(TRACKS, -1) for shard in self._owners}
        for shard in self._owners:
            _note_preferred(shard, preferred)
        for shard in self._owners:
            transports, scores = self._judge_sent(shard, silent[shard], now)
            np.minimum.at(worst[shard], transports, scores)
            transports, scores = self._judge_published(shard, silent[shard], preferred[shard], window, now)
            np.minimum.at(worst[shard], transports, scores)
        return {
            transport.id: float(worst[shard][row])
            for shard, owners in self._owners.items()
            for row, transport in owners.transports.items()
            if np.isfinite(worst[shard][row])
        }

    def _rows_of(self, tracks: Iterable[Track]) -> dict[Shard, Any]:
        """Masks of the rows of these tracks and of their mirrors."""
        masks = {shard: np.zeros(TRACKS, bool) for shard in self._owners}
        for track in tracks:
            masks[track.transport.shard][track.row] = True
            for shard, mirror in track.mirrors.items():
                masks[shard][mirror.row] = True
        return masks

    def _judge_sent(self, shard: Shard, silent: Any, now: int) -> tuple[Any, Any]:
        """Transport rows and scores of all subscriptions of a shard."""
        memory = shard.memory
        rows = memory.table("subscriptions")[: int(memory.thread["subscription_end"])]
        at = np.flatnonzero((rows["state"] == RowState.OPEN) & (rows["started"] != 0) & (rows["stream"] >= 0))
        known = self._down[shard] = _grown(self._down[shard], len(rows))
        was, fresh = _remembered(known, at, rows["generation"][at])
        packets = rows["packets"][at]
        reported_ns = np.where(rows["mid_acknowledged"][at] != 0, rows["reported_ns"][at], 0)
        reported_packets = rows["reported_packets"][at]
        own_lost = rows["own_lost"][at]
        tracks = rows["track"][at]
        paused = rows["rung"][at] == Rung.PAUSED
        held = (rows["pause_requested"][at] != 0) | silent[tracks]
        moved = packets > was["counted"]
        streaming_ns = np.where(moved, np.where(was["streaming_at"] == 0, now, was["streaming_at"]), 0)
        first = fresh | (was["report_at"] == 0)
        reported = reported_ns != was["report_at"]
        sent = reported_packets - was["report_count"]
        lost = np.clip(own_lost - was["report_lost"], 0, np.maximum(sent, 0))
        seconds = np.maximum(reported_ns - was["report_at"], 1) / 1e9
        judged = reported & moved & (sent > 0) & ~(first | held | paused | was["unjudged"])
        stream = memory.table("streams")
        distance = _missed_by_bandwidth(memory, rows, at)
        weight = _weights(rows["kind"][at], stream["codec"][rows["stream"][at]], rows["red_payload_type"][at])
        usual = _usual(was["usual_pps"], np.where(judged, sent / seconds, 0.0))
        packet = packet_score(
            sent,
            lost,
            sparse_weight(weight, sent / seconds, usual),
            memory.table("transports")["rtt_ns"][rows["transport"][at]] / 1e6,
            _own_jitter_ms(stream, rows, at),
        )
        score = _follow(was["score"], np.minimum(packet, layer_score((distance + was["distance"]) / 2)), judged)
        unheard = moved & (now - np.maximum(reported_ns, streaming_ns) > UNREPORTED_NS) & ~fresh
        score[unheard] = DRY
        score[paused] = LEAST
        score[held] = BEST
        was["report_lost"], was["report_at"], was["report_count"] = own_lost, reported_ns, reported_packets
        was["counted"], was["unjudged"], was["streaming_at"] = packets, held | paused, streaming_ns
        was["distance"], was["usual_pps"], was["score"] = distance, usual, score
        known[at] = was
        return rows["transport"][at], score

    def _judge_published(self, shard: Shard, silent: Any, preferred: Any, window: int, now: int) -> tuple[Any, Any]:
        """Transport rows and scores of all tracks that are published in a shard.

        preferred: the highest spatial layer that somebody prefers, by track row; -1: nobody prefers any.
        """
        memory = shard.memory
        rows = memory.table("tracks")[: int(memory.thread["track_end"])]
        at = np.flatnonzero((rows["state"] == RowState.OPEN) & (rows["source_thread"] < 0))
        known = self._up[shard] = _grown(self._up[shard], len(rows))
        was, fresh = _remembered(known, at, rows["generation"][at])
        streams, numbers = memory.table("streams"), rows["streams"][at]
        there = numbers >= 0
        received = np.where(there, streams["received"][numbers], 0).sum(axis=1)
        lost = np.where(there, streams["lost"][numbers], 0).sum(axis=1)
        reported_ns = np.where(there, streams["report_ns"][numbers], 0).max(axis=1, initial=0)
        arrived, missing = received - was["counted"], np.maximum(lost - was["lost_before"], 0)
        video = rows["kind"][at] == MediaKind.VIDEO
        # Nobody is to be sent it, so the publisher may have stopped sending it.
        held = silent[at] | (video & (preferred[at] < 0) & (arrived <= 0))
        counts = ~(held | was["unjudged"] | fresh)
        dry, judged = counts & (received > 0) & (arrived == 0), counts & (arrived > 0)
        present = _tallest_present(memory, at)
        tallest = np.maximum(was["tallest"], present)
        distance = np.where(video, np.maximum(np.minimum(preferred[at], tallest) - present, 0), 0)
        pps = arrived / max(window / 1e9, 1e-3)
        usual = _usual(was["usual_pps"], np.where(judged, pps, 0.0))
        weight = _weights(rows["kind"][at], streams["codec"][numbers[:, 0]], np.zeros(len(at), np.int64))
        packet = packet_score(
            arrived + missing,
            missing,
            sparse_weight(weight, pps, usual),
            memory.table("transports")["rtt_ns"][rows["transport"][at]] / 1e6,
            np.where(there, _jitter_ms(streams, numbers), 0.0).max(axis=1, initial=0.0),
        )
        score = _follow(was["score"], np.minimum(packet, layer_score((distance + was["distance"]) / 2)), judged)
        unheard = (reported_ns > 0) & (now - reported_ns > window)
        score[dry] = np.where(unheard, LOST, DRY)[dry]
        score[held & (score > LOST)] = BEST
        was["counted"], was["lost_before"], was["unjudged"], was["tallest"] = received, lost, held, tallest
        was["distance"], was["usual_pps"], was["score"] = distance, usual, score
        known[at] = was
        return rows["transport"][at], score


def packet_score(packets: Any, lost: Any, weight: Any, rtt_ms: Any, jitter_ms: Any) -> Any:
    """Scores for what arrived in a window; arrays, or numbers.

    packets: those that were sent; lost: those of them that did not arrive; weight: what one percent of them is worth;
    rtt_ms: 0 where it is not known.
    """
    delay_ms = np.asarray(rtt_ms) / 2 + 2 * np.asarray(jitter_ms)
    by_delay = np.where(delay_ms > LATE_MS, (delay_ms - 120) / 10, delay_ms / 40)
    by_loss = 100 * np.asarray(lost) / np.maximum(packets, 1) * weight
    return np.clip(BEST - by_delay - by_loss, 0, BEST)


def layer_score(distance: Any) -> Any:
    """Scores for how many spatial layers fewer than possible came, on average; a part for temporal ones."""
    return np.clip(BEST - MISSED_LAYER * np.asarray(distance), 0, BEST)


def sparse_weight(weight: Any, pps: Any, usual_pps: Any) -> Any:
    """What a loss is worth at this packet rate: less where few packets are sent, as in silence or of a still screen."""
    share = np.where(np.asarray(usual_pps) > 0, np.asarray(pps) / np.maximum(usual_pps, 1e-9), 1.0)
    return weight * np.sqrt(np.clip(share, 0, 1))


def follow(before: Any, window: Any) -> Any:
    """Scores after a window with these ones."""
    factor = np.where(np.asarray(window) < before, FALL, RISE)
    return np.maximum(factor * window + (1 - factor) * before, LEAST)


def _follow(before: Any, window: Any, judged: Any) -> Any:
    return np.where(judged, follow(before, window), before)


def _usual(usual_pps: Any, pps: Any) -> Any:
    """The usual packet rates, after windows with these ones; 0: a window that says nothing."""
    return np.where(pps > 0, np.maximum(pps, usual_pps * USUAL_DECAY), usual_pps)


def _grown(known: Any, size: int) -> Any:
    if len(known) >= size:
        return known
    return np.concatenate((known, np.zeros(size - len(known), known.dtype)))


def _remembered(known: Any, at: Any, generation: Any) -> tuple[Any, Any]:
    """What is known of these rows, and for which of them that is nothing."""
    was = known[at]
    fresh = was["row_use"] != generation
    was[fresh] = np.zeros(1, known.dtype)
    was["score"][fresh] = BEST
    was["row_use"] = generation
    return was, fresh


def _weights(kind: Any, codec: Any, red_payload_type: Any) -> Any:
    """What one percent of loss is worth; red_payload_type: towards a subscriber, -1 where RED is unwrapped."""
    red = (codec == Codec.RED) & (red_payload_type >= 0)
    opus = (codec == Codec.OPUS) | (codec == Codec.RED)
    audio = np.where(red, RED_WEIGHT, np.where(opus, OPUS_WEIGHT, AUDIO_WEIGHT))
    return np.where(kind == MediaKind.VIDEO, VIDEO_WEIGHT, audio)


def _jitter_ms(streams: Any, numbers: Any) -> Any:
    """Jitter with which packets of streams arrive here."""
    return streams["jitter"][numbers] / 16 * 1000 / np.maximum(streams["clock_rate"][numbers], 1)


def _own_jitter_ms(streams: Any, rows: Any, at: Any) -> Any:
    """Jitter that subscribers report, beyond that with which the packets came from their publishers."""
    numbers = rows["stream"][at]
    told = rows["jitter"][at] * 1000 / np.maximum(streams["clock_rate"][numbers], 1)
    return np.maximum(told - _jitter_ms(streams, numbers), 0)


def _note_preferred(shard: Shard, preferred: Mapping[Shard, Any]) -> None:
    """Raise `preferred` of each track to the highest spatial layer that a subscriber of this shard prefers."""
    memory, shards = shard.memory, tuple(preferred)
    rows = memory.table("subscriptions")[: int(memory.thread["subscription_end"])]
    at = np.flatnonzero((rows["state"] == RowState.OPEN) & (rows["pause_requested"] == 0))
    here = np.full(TRACKS, -1)
    np.maximum.at(here, rows["track"][at], rows["preferred_spatial"][at])
    tracks = memory.table("tracks")
    threads = np.where(tracks["state"] == RowState.OPEN, tracks["source_thread"], -1)
    own = threads < 0
    preferred[shard][own] = np.maximum(preferred[shard][own], here[own])
    for mirror in np.flatnonzero((threads >= 0) & (here >= 0)).tolist():
        source, row = shards[int(threads[mirror])], int(tracks["source_row"][mirror])
        preferred[source][row] = max(preferred[source][row], here[mirror])


def _traffic(memory: Any, streams: Any) -> Any:
    """Bytes a second of each spatial and temporal layer in these streams."""
    return memory.table("streams")["layer_bytes"][streams].reshape(-1, COST_SPATIAL, COST_TEMPORAL) > 0


def _highest(flags: Any) -> Any:
    """Along the last axis, the highest index that is set; -1: none."""
    return _TALLEST[(flags << np.arange(flags.shape[-1])).sum(axis=-1)]


def _tallest_present(memory: Any, tracks: Any) -> Any:
    """The highest spatial layer that comes of each of these tracks now, or would if its publisher had not been told to
    stop it; -1: nothing does."""
    rows = memory.table("tracks")
    live = rows["live"][tracks]
    resting = rows["resting"][tracks] & ((1 << rows["layer_count"][tracks].astype(np.int64)) - 1)
    live = np.where(live > 0, live | resting, live)
    inside = _highest(_traffic(memory, rows["streams"][tracks, 0]).any(axis=-1))
    return np.where(rows["layer_count"][tracks] > 1, _TALLEST[live & 7], np.where(live & 1, np.maximum(inside, 0), -1))


def _missed_by_bandwidth(memory: Any, rows: Any, at: Any) -> Any:
    """How many spatial layers less than it prefers and could have each subscription is sent because its path does not
    carry them; parts of one stand for temporal layers."""
    distance = np.zeros(len(at))
    limited = np.flatnonzero((rows["kind"][at] == MediaKind.VIDEO) & (rows["reason"][at] == Reason.BANDWIDTH))
    at = at[limited]
    temporal = np.maximum(_highest(_traffic(memory, rows["stream"][at]).any(axis=-2)), 0)
    best = np.minimum(rows["preferred_spatial"][at], _tallest_present(memory, rows["track"][at]))
    preferred = best * (temporal + 1) + np.minimum(rows["preferred_temporal"][at], temporal)
    allowed = np.minimum(rows["allowed_spatial"][at], best) * (temporal + 1)
    allowed += np.minimum(rows["allowed_temporal"][at], temporal)
    missed = np.where(rows["rung"][at] == Rung.KEY_FRAMES_ONLY, best + 1, (preferred - allowed) / (temporal + 1))
    distance[limited] = np.maximum(missed, 0)
    return distance
