"""signaling/api/encoding.py: lists are written entry by entry, and others have their turn in between."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import Message
from livekit.protocol import agent_dispatch, models, room, sip

from signaling.api.encoding import Encoding, Listing, pieces
from signaling.api.routes import services
from signaling.http.shares import Share
from tests.signaling.support.api import ADMIN, Api

LISTS: tuple[type[Message], ...] = (
    room.ListRoomsResponse,
    room.ListParticipantsResponse,
    agent_dispatch.ListAgentDispatchResponse,
    sip.ListSIPInboundTrunkResponse,
    sip.ListSIPOutboundTrunkResponse,
    sip.ListSIPTrunkResponse,
    sip.ListSIPDispatchRuleResponse,
)
ROOMS = [models.Room(name="hall", metadata="a \u20ac"), None, models.Room(), models.Room(max_participants=3)]


@pytest.mark.parametrize("answer", LISTS)
def test_a_list_is_all_that_its_answer_has(answer: type[Message]) -> None:
    (field,) = answer.DESCRIPTOR.fields
    assert field.is_repeated
    assert field.message_type is not None


@pytest.mark.parametrize("count", range(len(ROOMS) + 1))
def test_the_pieces_of_a_list_are_the_answer(count: int) -> None:
    listing = Listing(room.ListRoomsResponse, ROOMS[:count])
    whole = listing.whole()
    assert room.ListRoomsResponse.FromString(b"".join(pieces(listing, Encoding.PROTOBUF))) == whole
    assert json.loads(b"".join(pieces(listing, Encoding.JSON))) == json.loads(*pieces(whole, Encoding.JSON))
    assert len(list(pieces(listing, Encoding.JSON))) <= count + 1


def giving_way(monkeypatch: pytest.MonkeyPatch, before: Callable[[], None]) -> list[int]:
    """Let a caller's turn be over after each piece; the list that is returned has the turns that others had then."""
    turns = 0
    gave_way: list[int] = []
    real = Share.give_way

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def give_way(share: Share) -> None:
        before()
        task = asyncio.create_task(other())
        began = turns
        await real(share)
        gave_way.append(turns - began)
        task.cancel()

    monkeypatch.setattr(Share, "turn_is_over", property(lambda _share: True))
    monkeypatch.setattr(Share, "give_way", give_way)
    return gave_way


@pytest.mark.parametrize("body", [{"room": "hall"}, room.ListParticipantsRequest(room="hall")])
async def test_others_have_their_turn_while_a_list_is_written(
    api: Api, monkeypatch: pytest.MonkeyPatch, body: dict[str, Any] | Message
) -> None:
    for number in range(5):
        await api.call.join(f"guest{number}")
    gave_way = giving_way(monkeypatch, lambda: None)
    assert (await api.post("RoomService/ListParticipants", body, ADMIN)).status_code == 200
    assert len(gave_way) >= 5
    assert all(gave_way)


async def test_what_ends_while_a_list_is_written_is_left_out(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    ann, _ = await api.call.join("ann"), await api.call.join("ben")
    api.call.rooms.create("attic")
    seen: list[None] = []

    def end() -> None:
        seen.append(None)
        if len(seen) == 2:  # the first entry is written
            api.call.room.remove(api.call.room.participants["ben"], models.PARTICIPANT_REMOVED)
            api.call.rooms.close("attic")

    giving_way(monkeypatch, end)
    listed = (await api.post("RoomService/ListParticipants", {"room": "hall"}, ADMIN)).json()
    assert [each["sid"] for each in listed["participants"]] == [ann.sid]
    api.call.rooms.create("attic")
    seen.clear()
    await api.call.join("ben")
    listed = (await api.post("RoomService/ListRooms", {}, {"roomList": True})).json()
    assert [each["name"] for each in listed["rooms"]] == ["hall"]


async def test_all_lists_of_the_api_are_written_so(api: Api) -> None:
    """Egress and Ingress have nothing to list."""
    api.call.rooms.create("")
    answers = {
        name: method.perform(method.request())
        for service, methods in services(api.call.rooms).items()
        if service not in ("Egress", "Ingress")
        for name, method in methods.items()
        if name.startswith("List")
    }
    assert {type(answer) for answer in answers.values()} == {Listing}
    assert {answer.answer for answer in answers.values() if isinstance(answer, Listing)} == set(LISTS)
