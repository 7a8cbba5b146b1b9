"""Whatever applications and clients do, a room, its participants' views, webhooks and answers of the API agree."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from livekit.protocol import agent_dispatch, models, room, rtc
from livekit.protocol.webhook import WebhookEvent

from signaling.api.dispatch_service import DispatchService
from signaling.api.errors import ApiError, refused
from signaling.api.room_service import RoomService
from signaling.errors import RequestRefused
from signaling.participants import renegotiation
from signaling.rooms.events import RoomEvent
from signaling.webhooks.messages import Messages
from tests.signaling.support.call import Call, Client, settle
from tests.signaling.support.fake_peer_connection import FakeAnsweringConnection, FakeOfferingConnection
from tests.signaling.support.story import Story

PEOPLE = ("ann", "bob", "eve")
LISTENER = "zoe"
"""Joins first, does nothing, and is told everything."""
CLIENTS_STEPS = ("join", "connect", "publish", "unmute", "leave", "lose", "resume", "wait", "receive")
ABOUT_THE_ROOM = ("metadata", "create", "delete", "data", "list", "dispatch")
"""Calls that do not depend on whether a participant is there."""
CALLS = (
    *("name", "attributes", "silence", "allow", "hide", "mute", "subscribe", "remove", "revoke", "recall"),
    *ABOUT_THE_ROOM,
)
LEAST_CALLS = 1_000
"""Calls that a run of the test makes at least. A history has forty to eighty steps, a third of them calls."""
STEPS = st.lists(
    st.tuples(
        st.sampled_from(("join", "connect", "publish", "receive", "mute") * 6 + CLIENTS_STEPS + CALLS),
        st.sampled_from(PEOPLE),
    ),
    min_size=40,
    max_size=80,
)
ALLOWED = {
    "silence": models.ParticipantPermission(can_subscribe=True),
    "allow": models.ParticipantPermission(can_subscribe=True, can_publish=True, can_publish_data=True),
    "hide": models.ParticipantPermission(can_subscribe=True, can_publish=True, hidden=True),
}


class History:
    """A room, its clients, and the calls of an application."""

    def __init__(self) -> None:
        self.call = Call()
        self.service = RoomService(self.call.rooms)
        self.dispatching = DispatchService(self.call.rooms)
        self.dispatches: list[str] = []
        """The ids of the dispatches that must be there."""
        self.calls = 0
        self.clients: dict[str, Client] = {}
        self.revoked: set[str] = set()
        self.metadata = ""
        self.messages, self.told = Messages(), list[WebhookEvent]()
        self.call.rooms.node.events.subscribe(self._tell)

    def _tell(self, event: RoomEvent) -> None:
        self.told.extend(self.messages.of(event, full_room=False))

    async def take(self, step: str, who: str, number: int) -> None:
        client = self.clients.get(who)
        here = client is not None and who in self.call.room.participants and client.connection.code is None
        if step == "join":
            if who not in self.revoked:
                self.clients[who] = await self.call.join(who)
        elif step == "wait":
            await self.call.pass_time(2)
        elif step == "receive":
            await self.call.collect()
            await self.clients[LISTENER].offer(id=number)
        elif step in CALLS:
            self.ask(step, who, number)
            if step == "delete":
                await self.begin_again()
        elif here and client is not None:
            await self.act(step, client, number)
        await settle()
        self.check_media()

    async def begin_again(self) -> None:
        """After a room was deleted, everybody is out, and the listener joins the next one."""
        await settle()
        assert self.clients[LISTENER].of("leave")[-1].reason == models.ROOM_DELETED
        assert not self.call.rooms.rooms
        self.clients, self.metadata = {LISTENER: await self.call.join(LISTENER)}, ""
        self.dispatches = []

    async def act(self, step: str, client: Client, number: int) -> None:
        """Do what a client that is there does."""
        tracks = client.participant.publishing.tracks
        if step == "connect":
            await client.connect()
        elif step == "publish" and client.participant.permission.can_publish:
            await client.publish(f"mic{number}", "audio")
        elif step == "unmute" and tracks:
            await client.send(mute=rtc.MuteTrackRequest(sid=next(iter(tracks)), muted=False))
        elif step == "leave":
            await client.send(leave=rtc.LeaveRequest())
        elif step == "lose":
            await client.lose_socket()
        elif step == "resume" and client.identity not in self.revoked:
            self.clients[client.identity] = await self.call.resume(client)

    def ask(self, step: str, who: str, number: int) -> None:
        """Make a call of an application. What is not there is the only thing that may refuse it."""
        there = bool(self.dispatches) if step == "recall" else who in self.call.room.participants
        self.calls += 1
        try:
            self._calls(who, number)[step]()
        except (ApiError, RequestRefused) as error:
            assert (refused(error) if isinstance(error, RequestRefused) else error).code == "not_found"
            assert not there
        else:
            assert there or step in ABOUT_THE_ROOM

    def _calls(self, who: str, number: int) -> dict[str, Callable[[], object]]:
        service = self.service
        target: dict[str, Any] = {"room": "hall", "identity": who}

        def update(**fields: Any) -> Callable[[], object]:
            return lambda: service.update_participant(room.UpdateParticipantRequest(**target, **fields))

        def mute() -> None:
            member = self.call.room.participants.get(who)
            sid = next(iter(member.publishing.tracks), "TR_none") if member is not None else ""
            service.mute_published_track(room.MuteRoomTrackRequest(**target, track_sid=sid, muted=True))

        def remove(before: int) -> None:
            if before:
                self.revoked.add(who)
            request = room.RoomParticipantIdentity(**target, revoke_token_ts=before)
            service.remove_participant(request)

        def metadata() -> None:
            self.metadata = f"metadata {number}"
            service.update_room_metadata(room.UpdateRoomMetadataRequest(room="hall", metadata=self.metadata))

        def create() -> None:
            self.metadata = f"created {number}"
            answer = service.create_room(room.CreateRoomRequest(name="hall", metadata=self.metadata))
            assert (answer.sid, answer.metadata) == (self.call.room.info.sid, self.metadata)

        def send() -> None:
            self.call.engine.sent.clear()
            service.send_data(room.SendDataRequest(room="hall", data=b"bell"))
            members = self.call.room.participants.values()
            ((transports, _, _),) = self.call.engine.sent
            assert sorted(transports) == sorted(each.data_transport for each in members if each.expires_at is None)

        def dispatch() -> None:
            request = agent_dispatch.CreateAgentDispatchRequest(room="hall", agent_name=who)
            self.dispatches.append(self.dispatching.create_dispatch(request).id)

        def recall() -> None:
            wanted = self.dispatches.pop(number % len(self.dispatches)) if self.dispatches else "AD_none"
            request = agent_dispatch.DeleteAgentDispatchRequest(room="hall", dispatch_id=wanted)
            assert self.dispatching.delete_dispatch(request).id == wanted

        everything = [sid for member in self.call.room.participants.values() for sid in member.publishing.tracks]
        choice = room.UpdateSubscriptionsRequest(**target, track_sids=everything, subscribe=bool(number % 2))
        return {
            "name": update(name=f"name {number}"),
            "attributes": update(attributes={"number": str(number), "gone": ""}),
            **{name: update(permission=permission) for name, permission in ALLOWED.items()},
            "mute": mute,
            "subscribe": lambda: service.update_subscriptions(choice),
            "metadata": metadata,
            "create": create,
            "delete": lambda: service.delete_room(room.DeleteRoomRequest(room="hall")),
            "data": send,
            "list": self.check_lists,
            "dispatch": dispatch,
            "recall": recall,
            "remove": lambda: remove(0),
            "revoke": lambda: remove(1),
        }

    def check(self) -> None:
        """Compare what the listener was told with what the API answers, and with what is forwarded."""
        listener = self.clients[LISTENER]
        told = {info.sid: info for info in listener.joined.other_participants}
        for update in listener.of("update"):
            for info in update.participants:
                told[info.sid] = info
                if info.state == models.ParticipantInfo.DISCONNECTED:
                    del told[info.sid]
        told.pop(listener.sid, None)
        answer = self.service.list_participants(room.ListParticipantsRequest(room="hall")).whole()
        listed = {info.sid: info for info in answer.participants if not info.permission.hidden}
        assert listed.pop(listener.sid).identity == LISTENER
        assert told == listed
        heard = [update.room.metadata for update in listener.of("room_update")]
        assert (heard[-1] if heard else "") == self.metadata == self.call.room.info.metadata
        assert not self.revoked & {info.identity for info in answer.participants}
        self.check_lists()

    def check_lists(self) -> None:
        """Compare the answers that list rooms and participants with each other, and with what webhooks told."""
        answer = self.service.list_participants(room.ListParticipantsRequest(room="hall")).whole()
        (hall,) = self.service.list_rooms(room.ListRoomsRequest()).whole().rooms
        story = Story(self.told)
        active = [info for info in answer.participants if info.state == models.ParticipantInfo.ACTIVE]
        assert story.rooms == [hall.sid]
        assert story.here == {info.sid: info.identity for info in active}
        assert story.tracks == {track.sid: info.sid for info in active for track in info.tracks}
        assert hall.num_participants == sum(not info.permission.hidden for info in answer.participants)
        listed = self.dispatching.list_dispatch(agent_dispatch.ListAgentDispatchRequest(room="hall")).whole()
        assert [each.id for each in listed.agent_dispatches] == self.dispatches
        assert not self.service.list_rooms(room.ListRoomsRequest(names=["attic"])).whole().rooms

    def check_media(self) -> None:
        """What is muted by the server is not forwarded, at any moment."""
        for member in self.call.room.participants.values():
            for track in member.publishing.tracks.values():
                assert track.blocked <= track.info.muted
        engine = self.call.engine
        for subscription, (engine_track, _, _) in engine.subscriptions.items():
            if self.call.rooms.node.tracks[engine_track].blocked:
                assert engine.paused[subscription]


async def play(steps: list[tuple[str, str]]) -> int:
    """Let a history happen; return how many calls it had."""
    history = History()
    history.clients[LISTENER] = await history.call.join(LISTENER)
    for number, (step, who) in enumerate(steps):
        await history.take(step, who, number)
    await history.call.pass_time(2)  # what waits for its allowance is told
    history.check()
    await history.call.end()
    assert Story(history.told).rooms == []
    return history.calls


def test_any_history_of_calls_and_clients_is_told_consistently(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renegotiation, "AnsweringConnection", FakeAnsweringConnection)
    monkeypatch.setattr(renegotiation, "OfferingConnection", FakeOfferingConnection)
    monkeypatch.setattr(renegotiation, "COLLECT_S", 3600)
    calls = 0

    @given(STEPS)
    @settings(max_examples=100, deadline=None)
    def any_history(steps: list[tuple[str, str]]) -> None:
        nonlocal calls
        calls += asyncio.run(play(steps))

    any_history()
    assert calls >= LEAST_CALLS
