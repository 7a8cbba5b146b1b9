"""signaling/webhooks/notifier.py: from rooms to livekit-api's receiver, as the configuration says."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise

import pytest
from aiohttp import web
from livekit.protocol import models, rtc

from signaling.config.options import WebhookOptions
from signaling.webhooks import notifier, outbox
from tests.signaling.support.call import Call, settle
from tests.signaling.support.receiver import Receiver, receiving

VISITS = 100


@pytest.fixture
async def receiver(call: Call) -> AsyncIterator[Receiver]:
    """A receiver of the call's webhooks."""
    async with receiving() as running:
        tell(call, running.url)
        yield running
        await call.rooms.stop()


def tell(call: Call, *urls: str, **options: object) -> None:
    webhook = WebhookOptions(urls=urls, api_key="devkey", **options)  # type: ignore[arg-type]
    call.rooms.renew(replace(call.rooms.node.config, webhook=webhook))


async def test_who_leaves_and_rejoins_a_hundred_times_is_told_in_turn(call: Call, receiver: Receiver) -> None:
    sids = []
    for visit in range(VISITS):
        ann = await call.join("ann")
        await ann.connect()
        sids.append(ann.sid)
        if visit % 2:  # each second time a newer session takes its place
            await ann.send(leave=rtc.LeaveRequest())
    await call.join("eve")
    await call.rooms.stop()
    events = [(event.event, event.participant.sid) for event in receiver.events if event.participant.identity == "ann"]
    assert events == [(what, sid) for sid in sids for what in ("participant_joined", "participant_left")]
    assert [event.participant.identity for event in receiver.events if "aborted" in event.event] == ["eve"]
    assert receiver.names[-1] == "room_finished"


async def test_two_receivers_get_everything(call: Call, receiver: Receiver) -> None:
    async with receiving() as second:
        tell(call, receiver.url, second.url)
        ann = await call.join("ann")
        await ann.connect()
        await ann.publish("mic", "audio")
        for each in (receiver, second):
            await each.wait_for(3)
            assert each.names == ["room_started", "participant_joined", "track_published"]
        assert [event.id for event in receiver.events] == [event.id for event in second.events]


async def test_only_wanted_events_are_told(call: Call, receiver: Receiver) -> None:
    tell(call, receiver.url, include=frozenset(("participant_joined",)), exclude=frozenset(("participant_joined",)))
    ann = await call.join("ann")
    await ann.connect()
    await receiver.wait_for(1)
    tell(call, receiver.url, exclude=frozenset(("participant_joined", "room_finished")))
    await (await call.join("bob")).connect()
    await call.rooms.stop()
    assert receiver.names == ["participant_joined", "participant_left", "participant_left"]


async def test_a_dead_and_a_slow_receiver_delay_nobody(call: Call, receiver: Receiver) -> None:
    release = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        await release.wait()
        return web.Response()

    async with receiving() as slow:
        slow.answers = [hang]
        tell(call, "http://127.0.0.1:1/", slow.url, receiver.url)
        for name in ("ann", "bob"):
            client = await call.join(name)
            await client.connect()
            await client.send(leave=rtc.LeaveRequest())
            assert client.connection.code == 1000
        await receiver.wait_for(5)
        assert slow.events == []
        release.set()
        await slow.wait_for(4)


async def test_failures_that_pass_are_tried_again_with_the_same_id_and_a_new_signature(
    call: Call, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "FIRST_PAUSE_S", 1.1)  # a signature tells whole seconds
    monkeypatch.setattr(outbox, "JITTER", 0.0)
    receiver.answers = [500, 429]
    tell(call, receiver.url, include=frozenset(("room_started",)))
    await call.join("ann")
    await receiver.wait_for(1)
    assert receiver.names == ["room_started"]
    assert len(set(receiver.tokens)) == 3
    assert call.rooms.node.dropped.total() == 0


async def test_a_receiver_that_refuses_costs_one_message_each(call: Call, receiver: Receiver) -> None:
    receiver.answers = [422, 301]
    ann = await call.join("ann")
    await ann.connect()
    await ann.publish("mic", "audio")
    await receiver.wait_for(1)
    assert receiver.names == ["track_published"]
    assert receiver.events[0].num_dropped == 2
    assert call.rooms.node.dropped == {"webhook_refused": 2}


async def test_the_end_of_the_server_tells_who_left_and_which_rooms_ended(call: Call, receiver: Receiver) -> None:
    for name in ("ann", "bob"):
        await (await call.join(name)).connect()
    await call.rooms.stop()
    assert receiver.names[3:] == ["participant_left", "participant_left", "room_finished"]
    assert receiver.events[-1].room_end_reason == models.ROOM_END_SERVER_SHUTDOWN
    assert all(event.participant.disconnect_reason == models.SERVER_SHUTDOWN for event in receiver.events[3:5])


async def test_the_end_of_the_server_does_not_wait_for_a_dead_receiver(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifier, "DRAIN_S", 0.05)
    tell(call, "http://127.0.0.1:1/")
    await (await call.join("ann")).connect()
    await call.rooms.stop()
    assert call.rooms.node.dropped["webhook_unsent"] == 4


async def test_without_a_receiver_nothing_is_made(call: Call) -> None:
    await (await call.join("ann")).connect()
    await settle()
    assert call.rooms._webhooks._outbox.messages == 0


async def test_joined_and_left_alternate_also_while_sessions_cross(call: Call, receiver: Receiver) -> None:
    for _ in range(10):
        first = await call.join("ann")
        second = await call.join("ann")  # before the first one is active
        await second.connect()
        assert first.connection.code == 1000
    await call.rooms.stop()
    mine = [event for event in receiver.events if event.event in ("participant_joined", "participant_left")]
    assert len(mine) == 20
    for joined, left in list(pairwise(mine))[::2]:
        assert (joined.event, left.event) == ("participant_joined", "participant_left")
        assert joined.participant.sid == left.participant.sid
    assert receiver.names.count("participant_connection_aborted") == 10
