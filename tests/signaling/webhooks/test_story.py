"""Whatever happens in rooms, what applications are told of it is one consistent story."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from livekit.protocol import rtc
from livekit.protocol.webhook import WebhookEvent

from signaling.participants import renegotiation
from signaling.webhooks.messages import Messages
from tests.signaling.support.call import Call, Client
from tests.signaling.support.fake_peer_connection import FakeAnsweringConnection, FakeOfferingConnection
from tests.signaling.support.story import Story

PEOPLE = ("ann", "bob", "eve")
USUAL = ("join", "connect", "publish") * 3
STEPS = st.lists(
    st.tuples(
        st.sampled_from((*USUAL, "leave", "lose", "fail", "resume", "close", "wait", "agent")),
        st.sampled_from(PEOPLE),
    ),
    min_size=5,
    max_size=60,
)


async def take(call: Call, clients: dict[str, Client], step: str, who: str, number: int) -> None:
    room, client = call.rooms.rooms.get("hall"), clients.get(who)
    if step in ("join", "agent"):
        clients[who] = await call.join(who, {"agent": step == "agent"})
    elif step == "close":
        call.rooms.close("hall")
    elif step == "wait":
        await call.pass_time(7)
    elif room is None or client is None or who not in room.participants or client.connection.code is not None:
        return
    elif step == "connect":
        await client.connect()
    elif step == "publish":
        await client.publish(f"mic{number}", "audio")
    elif step == "leave":
        await client.send(leave=rtc.LeaveRequest())
    elif step == "lose":
        await client.lose_socket()
    elif step == "fail":
        await client.fail()
    elif step == "resume":
        clients[who] = await call.resume(client)


async def told_of(steps: list[tuple[str, str]]) -> list[WebhookEvent]:
    call, messages, told = Call(), Messages(), list[WebhookEvent]()
    call.rooms.node.events.subscribe(lambda event: told.extend(messages.of(event, full_room=False)))
    clients: dict[str, Client] = {}
    for number, (step, who) in enumerate(steps):
        await take(call, clients, step, who, number)
    await call.end()
    assert messages._here == set()
    return told


@given(STEPS)
@settings(max_examples=60, deadline=None)
def test_any_history_is_told_without_a_contradiction(steps: list[tuple[str, str]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(renegotiation, "AnsweringConnection", FakeAnsweringConnection)
        patch.setattr(renegotiation, "OfferingConnection", FakeOfferingConnection)
        patch.setattr(renegotiation, "COLLECT_S", 3600)
        told = asyncio.run(told_of(steps))
    assert Story(told).rooms == []
