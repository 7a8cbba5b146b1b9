"""What is told of each video's layers: how long a key frame is waited for, and the debug log."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sfu.control.observing.explain import MAX_TOLD, Lines, ShardExplanations
from sfu.control.tracks import Owners, Subscription
from sfu.engine import Engine, EngineOptions, LayerUse
from sfu.parameters import Encoding, Kind, PublishParameters, SubscribeParameters
from sfu.schema.bandwidth_codes import Reason
from sfu.schema.codes import Command, RowState
from tests.sfu.support.stand_in import StandIn


class Watched:
    """One forwarded video, whose row the test writes as the media thread would."""

    def __init__(self, engine: Engine) -> None:
        publisher, viewer = engine.open_transport().id, engine.open_transport().id
        track = engine.publish(publisher, PublishParameters(Kind.VIDEO, "0", 3 * (Encoding(),)))
        self.id = engine.subscribe(track, viewer, SubscribeParameters("1", 96)).id
        self.subscription: Subscription = engine._forwarding.open_subscription(self.id)
        shard = self.subscription.transport.shard
        self.row: Any = shard.memory.table("subscriptions")[self.subscription.row]
        shard.memory.thread["subscription_end"] = self.subscription.row + 1
        self.row["state"], self.row["layer"], self.row["target_layer"] = RowState.OPEN, 2, 2
        self.row["paused"] = 0
        self.lines = Lines()
        owners = Owners(subscriptions={self.subscription.row: self.subscription})
        self.explanations = ShardExplanations(shard, owners, self.lines)

    def waiting_s(self, now: float) -> float:
        self.explanations.look(now)
        return self.explanations.waiting_s(self.subscription.row, now)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    made = Engine(EngineOptions(udp_ports=(0,), node_ips=("127.0.0.1",)), StandIn)
    await made.start()
    yield made
    await made.stop()


async def test_how_long_a_key_frame_is_waited_for(engine: Engine) -> None:
    watched = Watched(engine)
    assert watched.waiting_s(100.0) == 0
    watched.row["target_layer"] = 1
    assert [watched.waiting_s(now) for now in (101.0, 102.0, 104.0)] == [0, 1, 3]
    watched.row["paused"] = 1
    assert watched.waiting_s(105.0) == 0
    watched.row["paused"] = 0
    assert [watched.waiting_s(now) for now in (106.0, 107.0)] == [0, 1]
    watched.row["layer"] = 1
    assert watched.waiting_s(108.0) == 0


async def test_another_use_of_a_row_waits_from_its_own_beginning(engine: Engine) -> None:
    watched = Watched(engine)
    watched.row["target_layer"] = 1
    assert [watched.waiting_s(now) for now in (100.0, 110.0)] == [0, 10]
    watched.row["generation"] += 1
    assert watched.explanations.waiting_s(watched.subscription.row, 110.0) == 0
    assert [watched.waiting_s(now) for now in (111.0, 113.0)] == [0, 2]


async def test_the_statistics_say_it(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(engine)
    watched.row["target_layer"] = 1
    now = [50.0]
    monkeypatch.setattr(engine._explanations, "_clock", lambda: now[0])
    engine._explanations.repeat(engine._later)
    now[0] = 57.0
    told = engine.subscription_statistics(watched.id)
    assert (told.waiting_s, told.reason) == (7.0, "key_frame")


async def test_changes_are_told_once_in_the_debug_log(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(engine)
    watched.explanations.look(1.0)
    assert not caplog.messages, "nobody reads it"
    with caplog.at_level(logging.DEBUG, "sfu.control.observing.explain"):
        for now in (2.0, 3.0):
            watched.explanations.look(now)
        assert len(caplog.messages) == 1
        watched.row["allowed_spatial"], watched.row["reason"] = 1, Reason.BANDWIDTH
        watched.row["target_layer"] = 1
        watched.explanations.look(4.0)
    assert len(caplog.messages) == 2
    assert "2.0 is sent" in caplog.messages[1]
    assert "bandwidth, waits for a key frame since 0 s" in caplog.messages[1]


async def test_no_more_lines_than_a_bound_are_written_and_the_rest_is_counted(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    watched, count = Watched(engine), MAX_TOLD + 30
    owned = dict.fromkeys(range(count), watched.subscription)
    shard = watched.subscription.transport.shard
    rows = shard.memory.table("subscriptions")
    rows[:count] = watched.row
    shard.memory.thread["subscription_end"] = count
    explanations = ShardExplanations(shard, Owners(subscriptions=owned), watched.lines)
    with caplog.at_level(logging.DEBUG, "sfu.control.observing.explain"):
        explanations.look(1.0)
        assert len(caplog.messages) == MAX_TOLD
        explanations.look(2.0)
        assert len(caplog.messages) == MAX_TOLD, "of this look; and what was left out is no longer new"
        watched.lines.renew()
        assert caplog.messages[MAX_TOLD:] == ["30 more changes of what subscriptions are sent were left out"]
        rows["layer"][:count] = 1
        explanations.look(3.0)
        watched.lines.renew()
    assert len(caplog.messages) == 2 * MAX_TOLD + 2


async def test_those_left_out_come_first_at_the_next_look(engine: Engine) -> None:
    watched, count = Watched(engine), MAX_TOLD + 30
    shard = watched.subscription.transport.shard
    rows = shard.memory.table("subscriptions")
    rows[:count] = watched.row
    shard.memory.thread["subscription_end"] = count
    explanations = ShardExplanations(shard, Owners(subscriptions={}), watched.lines)
    explanations._tell(rows[:count], rows["state"][:count] == RowState.OPEN, 1.0)
    assert explanations._first == MAX_TOLD


async def test_what_is_taken_of_a_track_is_what_its_viewers_are_sent_and_may_be_sent(engine: Engine) -> None:
    watched = Watched(engine)
    row, track = watched.row, watched.subscription.track.id
    row["preferred_spatial"], row["allowed_spatial"], row["reason"] = 2, 3, Reason.CLIENT
    assert engine.layer_uses() == {track: LayerUse(sent=2, granted=2)}
    row["allowed_spatial"], row["reason"] = 1, Reason.BANDWIDTH
    assert engine.layer_uses() == {track: LayerUse(sent=2, granted=1)}, "it is still sent"
    row["layer"] = 1
    assert engine.layer_uses() == {track: LayerUse(sent=1, granted=1)}
    row["reason"] = Reason.NOT_LIVE
    assert engine.layer_uses() == {track: LayerUse(sent=1, granted=2)}, "bandwidth does not deny it"
    row["allowed_spatial"], row["layer"], row["reason"] = -1, -1, Reason.PAUSED
    assert engine.layer_uses() == {track: LayerUse(sent=-1, granted=-1)}
    row["pause_requested"] = 1
    assert engine.layer_uses() == {}


async def test_the_viewer_with_the_best_path_decides_what_is_taken_in_any_thread() -> None:
    engine = Engine(EngineOptions(udp_ports=(0, 0), node_ips=("127.0.0.1",)), StandIn)
    await engine.start()
    publisher = engine.open_transport().id
    track = engine.publish(publisher, PublishParameters(Kind.VIDEO, "0", 3 * (Encoding(),)))
    engine.set_resting(track, [2])
    rows = []
    for number in range(3):
        subscription = engine.subscribe(track, engine.open_transport().id, SubscribeParameters(str(number), 96)).id
        await asyncio.sleep(0)  # the media thread opens it
        found = engine._forwarding.open_subscription(subscription)
        shard = found.transport.shard
        shard.memory.thread["subscription_end"] = found.row + 1
        row = shard.memory.table("subscriptions")[found.row]
        row["state"], row["layer"], row["preferred_spatial"], row["pause_requested"] = RowState.OPEN, number // 2, 2, 0
        row["allowed_spatial"], row["reason"] = number // 2, Reason.BANDWIDTH
        rows.append(row)
    (mirror,) = engine._forwarding.open_track(track).mirrors.values()
    assert mirror.subscriptions in (1, 2)
    assert engine.layer_uses() == {track: LayerUse(sent=1, granted=1)}
    rows[0]["reason"] = Reason.CLIENT
    assert engine.layer_uses() == {track: LayerUse(sent=1, granted=2)}
    commands = mirror.shard.thread.commands  # type: ignore[attr-defined]
    assert [fields for kind, _, fields in commands if kind == Command.SET_RESTING] == [{"layers": 0b100}]
    await engine.stop()
