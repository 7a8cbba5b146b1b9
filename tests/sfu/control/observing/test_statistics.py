"""The numbers of the whole engine, with stand-ins for its media threads: sums, rows, estimates."""

import asyncio
import math
import socket
from collections.abc import AsyncIterator
from dataclasses import fields

import pytest

from sfu.control.event_queue import MAX_EVENTS
from sfu.engine import Engine, EngineOptions, Traffic
from sfu.events import SubscriptionStarted
from sfu.parameters import Encoding, Kind, PublishParameters, SubscribeParameters, SubscriptionId
from sfu.queues.control import push_slow
from sfu.schema.capacities import COMMAND_QUEUE, COMMANDS, RELAY_SLOTS, SLOW_SLOTS, TRANSPORTS
from sfu.schema.codes import Drop, PathKind, RowState
from tests.sfu.support.stand_in import StandIn

THREADS = 2


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    made = Engine(EngineOptions(udp_ports=(0,) * THREADS, node_ips=("127.0.0.1",)), StandIn)
    await made.start()
    yield made
    await made.stop()


async def test_traffic_is_the_sum_of_all_media_threads(engine: Engine) -> None:
    for shard, factor in zip(engine.shards, (1, 100), strict=True):
        for number, each in enumerate(fields(Traffic)):
            shard.memory.thread[each.name] = factor * number
    traffic = engine.totals().traffic
    assert [getattr(traffic, each.name) for each in fields(traffic)] == [101 * n for n in range(len(fields(traffic)))]


async def test_drops_of_all_threads_are_told_also_those_that_never_happened(engine: Engine) -> None:
    for shard in engine.shards:
        shard.memory.table("drops")[Drop.DUPLICATE] = 3
    drops = engine.drops()
    assert drops["duplicate"] == 3 * THREADS
    assert {drop.name.lower() for drop in Drop} <= set(drops)


async def test_queues_are_as_full_as_what_waits_in_them(engine: Engine) -> None:
    first, second = engine.shards
    first.memory.table("queues")[COMMAND_QUEUE]["written"] += COMMANDS // 4
    for _ in range(2):
        push_slow(second.memory.record, 0, 0, 0, 100)
    loads = engine.totals().threads
    assert [load.command_queue_fill for load in loads] == [0.25, 0.0]
    assert [load.datagram_queue_fill for load in loads] == [0.0, 2 / SLOW_SLOTS]
    first.memory.table("queues")[COMMAND_QUEUE]["written"] -= COMMANDS // 4


async def test_relayed_packets_that_wait_longest_count(engine: Engine) -> None:
    relays = engine.shards[1].memory.table("relays")
    relays["written"][0] += RELAY_SLOTS // 2
    assert [load.relay_queue_fill for load in engine.totals().threads] == [0.0, 0.5]


async def test_forwarding_delays_are_those_of_all_threads(engine: Engine) -> None:
    for shard in engine.shards:
        shard.memory.thread["delays"][:2] = (3, 1)
        shard.memory.thread["delays"][-1] = 1
        shard.memory.thread["delay_sum_ns"] = 1_500_000_000
    totals = engine.totals()
    assert [count for _, count in totals.forwarding_delays if count] == [6, 2, 2]
    assert totals.forwarding_delays[0] == (0.00005, 6)
    assert totals.forwarding_delays[-1] == (math.inf, 2)
    assert totals.forwarding_delay_sum_s == 3.0


async def test_the_queue_of_events_is_as_full_as_what_waits_in_it(engine: Engine) -> None:
    assert engine.totals().event_queue_fill == 0.0
    engine._events.put(SubscriptionStarted(SubscriptionId(1)))
    assert engine.totals().event_queue_fill == 1 / MAX_EVENTS
    await engine.next_event()
    assert engine.totals().event_queue_fill == 0.0


async def test_rows_are_those_of_all_threads(engine: Engine) -> None:
    for _ in range(3):
        engine.open_transport()
    totals = engine.totals()
    assert totals.rows_used["transports"] == 3
    assert totals.rows["transports"] == THREADS * TRANSPORTS
    assert totals.rows_used.keys() == totals.rows.keys()


async def test_subscriptions_are_counted_by_kind(engine: Engine) -> None:
    publisher, subscriber = engine.open_transport().id, engine.open_transport().id
    for mid, kind in (("0", Kind.AUDIO), ("1", Kind.VIDEO), ("2", Kind.VIDEO)):
        track = engine.publish(publisher, PublishParameters(kind, mid, (Encoding(),)))
        engine.subscribe(track, subscriber, SubscribeParameters(mid, 96, 97))
    await asyncio.sleep(0.01)  # the stand-ins apply the commands
    for shard in engine.shards:
        shard.memory.thread["subscription_end"] = shard.tables.subscriptions.used
    assert engine.totals().subscriptions == {Kind.AUDIO: 1, Kind.VIDEO: 2}


async def test_connections_are_counted_by_their_way(engine: Engine) -> None:
    first, second = engine.shards
    for shard in engine.shards:
        shard.memory.thread["transport_end"] = 4
        transports, paths = shard.memory.table("transports"), shard.memory.table("paths")
        # on paths 0, 1 and 2; without a path; and one that is closed
        transports["path"][:5] = (0, 1, 2, -1, 0)
        transports["state"][:5] = (RowState.OPEN, RowState.OPEN, RowState.OPEN, RowState.OPEN, RowState.FREE)
        paths["kind"][:3] = (PathKind.UDP, PathKind.TCP, PathKind.TCP)
        paths["connection"][:3] = (-1, 7, 8)
    with socket.socket() as one, socket.socket() as other:
        first._connections[7], first._connections[8] = (one, "turn_tls"), (other, "turn_udp")
        assert engine.totals().protocols == {"udp": 2, "turn_tls": 1, "turn_udp": 1, "tcp": 2}
        first._connections.clear()
    assert first is not second
    for shard in engine.shards:
        shard.memory.table("transports")["state"] = RowState.FREE


async def test_estimates_are_those_of_clients_that_give_feedback(engine: Engine) -> None:
    for shard, target in zip(engine.shards, (300_000, 2_000_000), strict=True):
        transports, estimates = shard.memory.table("transports"), shard.memory.table("estimates")
        shard.memory.thread["transport_end"] = 4
        estimates["target_bps"][:5] = target
        # open with feedback, open without any, closed, open and not begun, and beyond the last that was ever open
        transports["state"][:5] = (RowState.OPEN, RowState.OPEN, RowState.FREE, RowState.OPEN, RowState.OPEN)
        transports["estimated"][:5] = (1, 1, 1, 0, 1)
        estimates["feedbacks"][:5] = (9, 0, 9, 9, 9)
        transports["allocated_bps"][:5] = target // 2
    assert engine.estimates() == [(300_000, 150_000), (2_000_000, 1_000_000)]
    for shard in engine.shards:
        shard.memory.table("transports")["state"] = RowState.FREE


async def test_lost_packets_are_those_of_a_client_that_is_sent_numbered_ones(engine: Engine) -> None:
    transport = engine.open_transport().id
    for shard in engine.shards:
        shard.memory.table("send_logs")["reported_lost"] = 7  # it may be what the row's last transport left
    assert engine.transport_statistics(transport).reported_lost == 0
    for shard in engine.shards:
        shard.memory.table("transports")["logged"] = 1
    assert engine.transport_statistics(transport).reported_lost == 7
