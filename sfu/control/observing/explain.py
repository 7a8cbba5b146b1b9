"""Why each video is sent as it is: looked at once a second, and told in the debug log when it changes, up to a bound;
and which layers that takes of its publisher.

The media thread writes what a subscriber prefers, what is allowed, what is sent and the reason; nothing is asked of it.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from sfu.control.observing.statistics import SubscriptionStatistics, subscription_statistics, waits_for_key_frame
from sfu.control.shards import Shard
from sfu.control.tracks import Owners, Subscription
from sfu.parameters import TrackId
from sfu.schema.bandwidth_codes import Reason
from sfu.schema.capacities import SUBSCRIPTIONS
from sfu.schema.codes import MediaKind, RowState

logger = logging.getLogger(__name__)

INTERVAL_S = 1.0
"""Between two looks."""
MAX_TOLD = 50
"""Changes that all media threads together tell of at one look; clients cause as many as they like."""

Later = Callable[[str, float, Callable[[], None]], None]
"""Calls something after so many seconds, once for each name."""

_TOLD = (
    "generation",
    "preferred_spatial",
    "preferred_temporal",
    "allowed_spatial",
    "allowed_temporal",
    "layer",
    "temporal",
    "reason",
)


_KNOWN = np.dtype([(name, np.int32) for name in _TOLD])


@dataclass(slots=True)
class Lines:
    """What may be told at this look."""

    left: int = MAX_TOLD
    left_out: int = 0
    """Changes that were not told of, because there were too many."""

    def renew(self) -> None:
        """Begin another look, and tell how many changes the last one left out."""
        if self.left_out:
            logger.debug("%d more changes of what subscriptions are sent were left out", self.left_out)
        self.left, self.left_out = MAX_TOLD, 0


_NONE = -1
"""No layer."""


@dataclass(frozen=True, slots=True)
class LayerUse:
    """What subscribers take of a track that has its layers in several streams."""

    sent: int
    """Highest layer that is sent to one of them; -1: none is."""
    granted: int
    """Highest layer that one of them prefers and its path carries, as far as that is known; -1: none."""


def layer_uses(owners: Mapping[Shard, Owners]) -> dict[TrackId, LayerUse]:
    """What is taken of each such track that has subscribers which have not paused it, in any media thread."""
    found: dict[TrackId, LayerUse] = {}
    for shard, rows_of in owners.items():
        for number, sent, granted in _highest_layers(shard):
            mirror = rows_of.mirrors.get(number)
            track = mirror.track if mirror is not None else rows_of.tracks.get(number)
            if track is not None:
                known = found.get(track.id, LayerUse(_NONE, _NONE))
                found[track.id] = LayerUse(max(known.sent, sent), max(known.granted, granted))
    return found


def _highest_layers(shard: Shard) -> list[tuple[int, int, int]]:
    """(track row, highest layer sent, highest layer granted) of the tracks with subscribers in one media thread."""
    rows = shard.memory.table("subscriptions")[: int(shard.memory.thread["subscription_end"])]
    tracks = shard.memory.table("tracks")
    video = np.flatnonzero((rows["state"] == RowState.OPEN) & (rows["kind"] == MediaKind.VIDEO))
    video = video[(tracks["layer_count"][rows["track"][video]] > 1) & (rows["pause_requested"][video] == 0)]
    if not len(video):
        return []
    numbers, place = np.unique(rows["track"][video], return_inverse=True)
    denied = np.isin(rows["reason"][video], (Reason.BANDWIDTH, Reason.PAUSED))
    preferred = rows["preferred_spatial"][video]
    may = np.where(denied, np.minimum(rows["allowed_spatial"][video], preferred), preferred)
    sent, granted = np.full(len(numbers), _NONE), np.full(len(numbers), _NONE)
    np.maximum.at(sent, place, rows["layer"][video])
    np.maximum.at(granted, place, may)
    return list(zip(numbers.tolist(), sent.tolist(), granted.tolist(), strict=True))


class ShardExplanations:
    """The subscriptions of one media thread."""

    def __init__(self, shard: Shard, owners: Owners, lines: Lines) -> None:
        """lines: what may be told, by all media threads together."""
        self._shard = shard
        self._owners = owners
        self._lines = lines
        self._since = np.zeros(SUBSCRIPTIONS)
        """When each began to wait for a key frame, in the clock of `look`; 0: it does not wait."""
        self._generation = np.zeros(SUBSCRIPTIONS, np.int32)
        """Which use of the row that was."""
        self._told = np.zeros(SUBSCRIPTIONS, _KNOWN)
        """What each was at the last look."""
        self._first = 0
        """The row whose turn to be told of comes first: none is always among those left out."""

    def look(self, now: float) -> None:
        """Note who waits for a key frame at `now` (seconds), and log what has changed since the last time."""
        end = int(self._shard.memory.thread["subscription_end"])
        rows = self._shard.memory.table("subscriptions")[:end]
        video = (rows["state"] == RowState.OPEN) & (rows["kind"] == MediaKind.VIDEO)
        waits = video & waits_for_key_frame(rows)
        since, generation = self._since[:end], self._generation[:end]
        begins = waits & ((since == 0) | (generation != rows["generation"]))
        since[begins] = now
        since[~waits] = 0
        generation[:] = rows["generation"]
        if logger.isEnabledFor(logging.DEBUG):
            self._tell(rows, video, now)

    def waiting_s(self, row: int, now: float) -> float:
        """How long the subscription in a row has waited for a key frame, to a second; 0: it does not wait."""
        table = self._shard.memory.table("subscriptions")
        begun = float(self._since[row])
        if begun == 0 or self._generation[row] != table["generation"].item(row):
            return 0.0
        return now - begun

    def _tell(self, rows: Any, video: Any, now: float) -> None:
        """Log what has changed of the rows that are videos, as far as lines are left."""
        told = self._told[: len(rows)]
        changed = np.zeros(len(rows), bool)
        for name in _TOLD:
            seen = rows[name].copy()  # it may change meanwhile
            changed |= told[name] != seen
            told[name] = seen
        numbers = np.flatnonzero(changed & video)
        numbers = np.roll(numbers, -int(np.searchsorted(numbers, self._first)))
        self._lines.left_out += max(len(numbers) - self._lines.left, 0)
        for number in numbers[: self._lines.left].tolist():
            self._lines.left -= 1
            self._first = number + 1
            owner = self._owners.subscriptions.get(number)
            if owner is not None:
                self._tell_one(number, owner, now)

    def _tell_one(self, number: int, owner: Subscription, now: float) -> None:
        _, preferred, preferred_temporal, allowed, allowed_temporal, layer, temporal, reason = self._told[number].item()
        waiting_s = self.waiting_s(number, now)
        logger.debug(
            "subscription %d of transport %d: layer %d.%d is sent, %d.%d is preferred, %d.%d is allowed (%s%s)",
            owner.id,
            owner.transport.id,
            layer,
            temporal,
            preferred,
            preferred_temporal,
            allowed,
            allowed_temporal,
            Reason(reason).name.lower(),
            f", waits for a key frame since {waiting_s:.0f} s" if self._since[number] else "",
        )


class Explanations:
    """The subscriptions of all media threads."""

    def __init__(self, owners: Mapping[Shard, Owners], clock: Callable[[], float]) -> None:
        """owners: of each media thread's rows. clock: in seconds."""
        self._clock = clock
        self._lines = Lines()
        self._shards = {shard: ShardExplanations(shard, each, self._lines) for shard, each in owners.items()}

    def repeat(self, later: Later) -> None:
        """Look at all subscriptions now, and again and again."""
        self._lines.renew()
        for each in self._shards.values():
            each.look(self._clock())
        first, *rest = self._shards
        self._shards = {shard: self._shards[shard] for shard in (*rest, first)}  # who comes first has most lines
        later("explain", INTERVAL_S, partial(self.repeat, later))

    def statistics(self, subscription: Subscription) -> SubscriptionStatistics:
        """The numbers of one subscription."""
        waiting_s = self._shards[subscription.transport.shard].waiting_s(subscription.row, self._clock())
        return subscription_statistics(subscription, waiting_s)
