"""Scores: tables of inputs and what they make, and what of the engine's tables counts as a client's own fault."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from sfu.control.observing import scores as module
from sfu.control.observing.scores import (
    BEST,
    DRY,
    LEAST,
    LOST,
    Scores,
    follow,
    layer_score,
    packet_score,
    sparse_weight,
)
from sfu.parameters import Codec, TransportId
from sfu.schema.bandwidth_codes import Reason, Rung
from sfu.schema.codes import MediaKind, RowState
from sfu.schema.memory import Memory

WINDOW = 5_000_000_000
PUBLISHER, VIEWER = 0, 1
"""Rows of transports."""
OPUS, RED, AUDIO, VIDEO = module.OPUS_WEIGHT, module.RED_WEIGHT, module.AUDIO_WEIGHT, module.VIDEO_WEIGHT


@pytest.mark.parametrize(
    ("weight", "percent", "rtt_ms", "jitter_ms", "score"),
    [
        (OPUS, 0, 0, 0, 100),
        (OPUS, 3.75, 0, 0, 80),
        (OPUS, 11.25, 0, 0, 40),
        (OPUS, 50, 0, 0, 0),
        (RED, 7.5, 0, 0, 80),
        (RED, 22.5, 0, 0, 40),
        (AUDIO, 2.5, 0, 0, 80),
        (VIDEO, 2, 0, 0, 80),
        (VIDEO, 6, 0, 0, 40),
        (VIDEO, 0, 80, 0, 99),
        (VIDEO, 0, 320, 0, 96),
        (VIDEO, 0, 640, 0, 80),
        (VIDEO, 0, 0, 20, 99),
        (VIDEO, 0, 0, 160, 80),
        (VIDEO, 1, 80, 20, 88),
    ],
)
def test_a_window_with_this_loss_delay_and_jitter(
    weight: float, percent: float, rtt_ms: float, jitter_ms: float, score: float
) -> None:
    assert packet_score(10_000, 100 * percent, weight, rtt_ms, jitter_ms) == pytest.approx(score)


@pytest.mark.parametrize(("distance", "score"), [(0, 100), (0.5, 82.5), (1, 65), (2, 30), (3, 0)])
def test_layers_that_are_missed(distance: float, score: float) -> None:
    assert layer_score(distance) == pytest.approx(score)


@pytest.mark.parametrize(
    ("before", "window", "after"),
    [(100, 0, 30), (100, 50, 60), (60, 100, 76), (30, 100, 58), (40, 20, 30), (80, 80, 80)],
)
def test_a_score_falls_fast_and_rises_slowly(before: float, window: float, after: float) -> None:
    assert follow(before, window) == pytest.approx(after)


@pytest.mark.parametrize(("pps", "usual", "weight"), [(50, 50, 8), (50, 0, 8), (2.5, 50, 8 * 0.05**0.5), (90, 50, 8)])
def test_a_loss_counts_less_where_little_is_sent(pps: float, usual: float, weight: float) -> None:
    assert sparse_weight(8.0, pps, usual) == pytest.approx(weight)


class PlayedShard:
    """A shard's memory and nothing else."""

    def __init__(self) -> None:
        self.memory = Memory()


@dataclass(eq=False)
class PlayedTransport:
    id: TransportId
    shard: PlayedShard


@dataclass
class PlayedOwners:
    transports: dict[int, PlayedTransport] = field(default_factory=dict)


@dataclass(eq=False)
class PlayedMirror:
    row: int


@dataclass(eq=False)
class PlayedTrack:
    row: int
    transport: PlayedTransport
    mirrors: dict[PlayedShard, PlayedMirror] = field(default_factory=dict)


class Played:
    """One publisher, in the first shard, and one viewer, in the last one."""

    def __init__(self, shards: int = 1) -> None:
        self.shards = [PlayedShard() for _ in range(shards)]
        owners = {shard: PlayedOwners() for shard in self.shards}
        self.publisher = PlayedTransport(TransportId(10), self.shards[0])
        self.viewer = PlayedTransport(TransportId(11), self.shards[-1])
        owners[self.shards[0]].transports[PUBLISHER] = self.publisher
        owners[self.shards[-1]].transports[VIEWER] = self.viewer
        self._scores = Scores(owners)  # type: ignore[arg-type]
        self.now = 1_000_000_000_000
        self.muted: list[Any] = []
        for shard in self.shards:
            thread = shard.memory.thread
            thread["transport_end"], thread["track_end"], thread["stream_end"] = 2, 1, 3
            thread["subscription_end"] = 1
            shard.memory.table("tracks")["source_thread"] = -1

    def publish(self, kind: MediaKind, codec: Codec, layers: int = 1) -> PlayedTrack:
        for shard in self.shards:
            track = shard.memory.table("tracks")[0]
            track["state"], track["kind"], track["generation"] = RowState.OPEN, kind, 1
            track["layer_count"], track["transport"], track["live"] = layers, PUBLISHER, (1 << layers) - 1
            track["streams"] = [layer if layer < layers else -1 for layer in range(3)]
            streams = shard.memory.table("streams")[:3]
            streams["state"], streams["codec"], streams["clock_rate"] = RowState.OPEN, codec, 90_000
            streams["layer_bytes"][:, 0] = 1000
        played = PlayedTrack(0, self.publisher)
        for shard in self.shards[1:]:
            shard.memory.table("tracks")[0]["source_thread"] = 0
            played.mirrors[shard] = PlayedMirror(0)
        return played

    def subscribe(self) -> Any:
        shard = self.shards[-1]
        row = shard.memory.table("subscriptions")[0]
        row["state"], row["generation"], row["started"], row["stream"] = RowState.OPEN, 1, 1, 0
        row["kind"] = shard.memory.table("tracks")[0]["kind"]
        row["transport"], row["track"], row["red_payload_type"], row["rung"] = VIEWER, 0, -1, Rung.NONE
        row["preferred_spatial"], row["preferred_temporal"] = 2, 3
        row["allowed_spatial"], row["allowed_temporal"] = 2, 3
        row["out_highest"] = 20_000
        return row

    def receive(self, packets: int, lost: int = 0, layer: int = 0) -> None:
        """Let packets of a layer come, and say what was lost of it."""
        stream = self.shards[0].memory.table("streams")[layer]
        stream["received"] += packets
        stream["lost"] += lost

    def send(self, packets: int, lost: int = 0, holes: int = 0, report: bool = True) -> None:
        """Send packets and leave holes; the viewer reports that it missed `lost` of the packets."""
        row = self.shards[-1].memory.table("subscriptions")[0]
        row["packets"] += packets
        row["out_highest"] += packets + holes
        row["own_lost"] += lost
        if report:
            self.report()

    def report(self) -> None:
        row = self.shards[-1].memory.table("subscriptions")[0]
        row["mid_acknowledged"] = 1
        row["reported_ns"], row["reported_packets"] = self.now, row["packets"]

    def measure(self) -> dict[TransportId, float]:
        self.now += WINDOW
        return self._scores.measure(self.muted, self.now)

    def published(self) -> float:
        return self.measure()[self.publisher.id]

    def sent(self) -> float:
        return self.measure()[self.viewer.id]


@pytest.fixture
def played() -> Played:
    return Played()


def audio(played: Played) -> PlayedTrack:
    """An Opus track of which one window has passed."""
    track = played.publish(MediaKind.AUDIO, Codec.OPUS)
    played.receive(250)
    assert played.published() == BEST
    return track


def watched(played: Played, layers: int = 3) -> Any:
    """A video that is sent, with two windows that were reported."""
    played.publish(MediaKind.VIDEO, Codec.VP8, layers)
    row = played.subscribe()
    for _ in range(2):
        played.receive(500)
        played.send(500)
        played.measure()
    return row


def test_without_media_nobody_is_judged(played: Played) -> None:
    assert played.measure() == {}


def test_loss_on_the_way_up_falls_and_recovers(played: Played) -> None:
    audio(played)
    seen = []
    for lost in (25, 25, 0, 0, 0):
        played.receive(250 - lost, lost)
        seen.append(played.published())
    assert seen[0] == pytest.approx(0.8 * (100 - 10 * OPUS) + 0.2 * 100)
    assert seen[1] < seen[0]
    assert all(before < after for before, after in pairwise(seen[1:]))


def test_repairs_take_back_a_loss(played: Played) -> None:
    audio(played)
    played.receive(250, 10)
    worse = played.published()
    played.receive(250, -10)
    assert worse < played.published() < BEST


@pytest.mark.parametrize("reports", [False, True])
def test_a_track_of_which_nothing_comes(played: Played, reports: bool) -> None:
    audio(played)
    stream = played.shards[0].memory.table("streams")[0]
    stream["report_ns"] = played.now - 2 * WINDOW
    if reports:
        stream["report_ns"] = played.now + WINDOW - 1
    assert played.published() == (DRY if reports else LOST)


def test_a_track_of_which_nothing_ever_came_is_not_judged(played: Played) -> None:
    played.publish(MediaKind.AUDIO, Codec.OPUS)
    assert [played.published() for _ in range(3)] == [BEST] * 3


def test_a_muted_track_and_the_windows_around_it_are_not_judged(played: Played) -> None:
    track = audio(played)
    played.receive(200, 50)
    assert played.published() < 60
    played.muted = [track]
    played.receive(10, 10)
    assert played.published() == BEST
    assert played.published() == BEST, "nothing comes of a muted track"
    played.muted = []
    played.receive(10, 10)
    assert played.published() == BEST, "the window in which it was unmuted"
    played.receive(200, 50)
    assert played.published() < 60


def test_who_was_lost_stays_lost_when_it_mutes(played: Played) -> None:
    track = audio(played)
    played.shards[0].memory.table("streams")[0]["report_ns"] = 1
    assert played.published() == LOST
    played.muted = [track]
    assert played.published() == LOST


def test_a_row_that_is_used_again_begins_anew(played: Played) -> None:
    audio(played)
    played.receive(100, 100)
    assert played.published() < 60
    memory = played.shards[0].memory
    memory.table("tracks")[0]["generation"] = 2
    memory.table("streams")["received"][0] = memory.table("streams")["lost"][0] = 50
    assert played.published() == BEST


def test_layers_that_the_publisher_does_not_send(played: Played) -> None:
    watched(played)
    played.shards[0].memory.table("tracks")[0]["live"] = 0b001
    seen = []
    for _ in range(3):
        played.receive(500)
        seen.append(played.published())
    assert seen[0] == pytest.approx(0.8 * (100 - 35 * 1) + 0.2 * 100), "two layers for half of a window"
    assert seen[2] < seen[1] < seen[0]


def test_layers_that_nobody_prefers_are_not_missed(played: Played) -> None:
    row = watched(played)
    row["preferred_spatial"] = 0
    played.shards[0].memory.table("tracks")[0]["live"] = 0b001
    played.receive(500)
    assert played.published() == BEST


def test_layers_that_rest_are_not_missed_though_there_were_fewer(played: Played) -> None:
    watched(played, layers=2)
    track = played.shards[0].memory.table("tracks")[0]
    track["resting"], track["live"] = 0b110, 0b001
    played.receive(500)
    assert played.published() == BEST
    track["resting"], track["live"] = 0, 0b011
    for _ in range(3):
        played.receive(500)
        assert played.published() == BEST


def test_a_video_that_nobody_prefers_may_stop(played: Played) -> None:
    row = watched(played)
    row["pause_requested"] = 1
    assert played.published() == BEST
    row["pause_requested"] = 0
    assert played.published() == BEST, "the window in which it is asked for again"
    assert played.published() == DRY


def test_a_video_that_never_had_a_higher_layer_does_not_miss_it(played: Played) -> None:
    watched(played, layers=1)
    played.receive(500)
    assert played.published() == BEST


def test_loss_on_the_way_down_falls_and_recovers(played: Played) -> None:
    watched(played)
    seen = []
    for lost in (25, 25, 0, 0, 0):
        played.receive(500)
        played.send(500, lost)
        seen.append(played.sent())
    assert seen[0] == pytest.approx(0.8 * 50 + 0.2 * 100)
    assert seen[1] < seen[0]
    assert all(before < after for before, after in pairwise(seen[1:]))


def test_what_the_publisher_lost_is_not_the_viewers_fault(played: Played) -> None:
    watched(played)
    for _ in range(3):
        played.receive(450, 50)
        played.send(450, holes=50)
        assert played.sent() == BEST
    assert played.published() < 60


def test_a_window_without_a_report_changes_nothing(played: Played) -> None:
    watched(played)
    played.send(500, lost=100)
    before = played.sent()
    played.send(500, lost=100, report=False)
    assert played.sent() == before


def test_a_viewer_that_stops_reporting_is_poor(played: Played) -> None:
    watched(played)
    seen = []
    for _ in range(8):
        played.send(500, report=False)
        seen.append(played.sent())
    assert seen[:5] == [BEST] * 5
    assert seen[-1] == DRY
    row = played.shards[-1].memory.table("subscriptions")[0]
    row["pause_requested"] = 1
    assert played.sent() == BEST


def test_nothing_is_expected_of_a_viewer_that_is_sent_nothing(played: Played) -> None:
    watched(played)
    assert [played.sent() for _ in range(10)] == [BEST] * 10


def test_a_video_that_is_paused_for_lack_of_bandwidth(played: Played) -> None:
    row = watched(played)
    row["rung"] = Rung.PAUSED
    assert played.sent() == LEAST
    row["rung"] = Rung.LOWEST
    played.send(500)
    assert played.sent() == LEAST, "the window in which it went on"
    played.send(500)
    assert played.sent() == pytest.approx(0.4 * 100 + 0.6 * LEAST)


def test_layers_for_which_there_is_no_bandwidth(played: Played) -> None:
    row = watched(played)
    row["allowed_spatial"], row["reason"], row["rung"] = 1, Reason.BANDWIDTH, Rung.HIGHER
    played.send(500)
    assert played.sent() == pytest.approx(0.8 * (100 - 35 / 2) + 0.2 * 100)
    row["reason"] = Reason.CLIENT
    played.send(500)
    assert played.sent() > 80


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({"allowed_spatial": 2}, 0),
        ({"allowed_spatial": 1}, 1),
        ({"allowed_spatial": 0}, 2),
        ({"allowed_spatial": 0, "preferred_spatial": 1}, 1),
        ({"allowed_spatial": 0, "allowed_temporal": 0}, 2 + 2 / 3),
        ({"allowed_spatial": 0, "allowed_temporal": 0, "preferred_spatial": 0, "preferred_temporal": 1}, 1 / 3),
        ({"rung": Rung.KEY_FRAMES_ONLY, "allowed_spatial": 0}, 3),
        ({"allowed_spatial": 0, "reason": Reason.NOT_LIVE}, 0),
    ],
)
def test_how_many_layers_are_missed(played: Played, changes: dict[str, int], missed: float) -> None:
    row = watched(played)
    memory = played.shards[0].memory
    memory.table("streams")["layer_bytes"][0, :3] = 1000  # three temporal layers
    row["reason"], row["rung"] = Reason.BANDWIDTH, Rung.HIGHER
    for name, value in changes.items():
        row[name] = value
    found = module._missed_by_bandwidth(memory, memory.table("subscriptions")[:1], np.array([0]))
    assert found.tolist() == [pytest.approx(missed)]


def test_a_layer_that_is_not_live_is_not_missed_by_the_viewer(played: Played) -> None:
    row = watched(played)
    memory = played.shards[0].memory
    memory.table("tracks")[0]["live"] = 0b011
    row["reason"], row["rung"], row["allowed_spatial"] = Reason.BANDWIDTH, Rung.HIGHER, 1
    found = module._missed_by_bandwidth(memory, memory.table("subscriptions")[:1], np.array([0]))
    assert found.tolist() == [0]


def test_spatial_layers_inside_one_stream(played: Played) -> None:
    played.publish(MediaKind.VIDEO, Codec.VP9)
    memory = played.shards[0].memory
    memory.table("streams")["layer_bytes"][0] = [1] * 12
    assert module._tallest_present(memory, np.array([0])).tolist() == [2]
    memory.table("streams")["layer_bytes"][0, 8:] = 0
    assert module._tallest_present(memory, np.array([0])).tolist() == [1]
    memory.table("tracks")[0]["live"] = 0
    assert module._tallest_present(memory, np.array([0])).tolist() == [-1]


def test_jitter_of_the_publisher_is_not_the_viewers(played: Played) -> None:
    row = watched(played)
    played.shards[0].memory.table("streams")["jitter"][0] = 16 * 9000
    row["jitter"] = 9000
    played.send(500)
    assert played.sent() == BEST
    row["jitter"] = 9000 + 90 * 160
    played.send(500)
    assert played.sent() == pytest.approx(0.8 * 80 + 0.2 * 100)


def test_the_round_trip_counts_both_ways(played: Played) -> None:
    watched(played)
    transports = played.shards[0].memory.table("transports")
    transports["rtt_ns"][:2] = 640_000_000
    played.receive(500)
    played.send(500)
    worse = 0.8 * 80 + 0.2 * 100
    assert played.measure() == pytest.approx({played.publisher.id: worse, played.viewer.id: worse})


def test_of_several_tracks_the_worst_counts(played: Played) -> None:
    watched(played)
    memory = played.shards[0].memory
    tracks = memory.table("tracks")
    tracks[1] = tracks[0]
    tracks["streams"][1] = [2, -1, -1]
    tracks["layer_count"][1] = 1
    memory.thread["track_end"] = 2
    played.receive(100, layer=2)
    played.measure()
    played.receive(500)
    played.receive(50, 50, layer=2)
    assert played.published() < 60


def test_a_viewer_in_another_thread(played: Played) -> None:
    """What the viewer prefers counts at the publisher, whose mute counts at the viewer."""
    two = Played(shards=2)
    track = two.publish(MediaKind.VIDEO, Codec.VP8, 3)
    row = two.subscribe()
    for _ in range(2):
        two.receive(500)
        two.send(500)
        assert set(two.measure().values()) == {BEST}
    two.shards[0].memory.table("tracks")[0]["live"] = 0b001
    two.receive(500)
    two.send(500, lost=25)
    scores = two.measure()
    assert scores[two.publisher.id] == pytest.approx(0.8 * 65 + 0.2 * 100)
    assert scores[two.viewer.id] == pytest.approx(0.8 * 50 + 0.2 * 100)
    row["preferred_spatial"] = 0
    two.muted = [track]
    two.send(500, lost=25)
    assert set(two.measure().values()) == {BEST}


def test_a_measurement_looks_up_as_much_for_many_as_for_one(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    watched(played)
    memory = played.shards[0].memory
    looked_up: list[str] = []
    real = memory.table

    def table(name: str) -> Any:
        looked_up.append(name)
        return real(name)

    monkeypatch.setattr(memory, "table", table)
    played.measure()
    few = len(looked_up)
    for name in ("subscriptions", "tracks"):
        real(name)[1:100] = real(name)[0]
    memory.thread["subscription_end"] = memory.thread["track_end"] = 100
    looked_up.clear()
    played.measure()
    assert len(looked_up) == few
