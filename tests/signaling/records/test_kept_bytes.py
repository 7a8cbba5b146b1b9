"""signaling/records/kept_bytes.py: what rooms keep because applications said so, alone and together."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from livekit.protocol import agent_dispatch
from livekit.protocol.room import CreateRoomRequest, RoomConfiguration

from signaling.config.configuration import RoomOptions
from signaling.errors import TooMuchKept
from signaling.http.join import JoinError
from signaling.limits import MAX_KEPT_BYTES, MAX_KEPT_BYTES_OF_A_ROOM, SMALL_KEPT_BYTES
from signaling.records import kept_bytes
from signaling.records.kept_bytes import KeptBytes, KeptBytesOfRoom
from tests.signaling.support.call import Call


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds of some bytes."""
    monkeypatch.setattr(kept_bytes, "MAX_KEPT_BYTES", 100)
    monkeypatch.setattr(kept_bytes, "MAX_KEPT_BYTES_OF_A_ROOM", 80)
    monkeypatch.setattr(kept_bytes, "SMALL_KEPT_BYTES", 10)


def settings(size: int, **fields: Any) -> CreateRoomRequest:
    return CreateRoomRequest(metadata="m" * size, **fields)


async def test_the_metadata_of_all_rooms_are_bounded_and_small_ones_always_fit(call: Call, small: None) -> None:
    for name in ("hall", "attic"):
        call.rooms.create(name, settings=settings(60))
    with pytest.raises(TooMuchKept):
        call.rooms.create("cellar", settings=settings(60))
    assert call.rooms.node.dropped["room_bytes"] == 1
    assert "cellar" not in call.rooms.rooms
    for number in range(20):
        call.rooms.create(f"small {number}", settings=settings(10))
    call.rooms.close("attic")
    assert call.rooms.create("cellar", settings=settings(60)).info.metadata == "m" * 60


async def test_what_is_refused_to_a_live_room_changes_nothing(call: Call, small: None) -> None:
    room = call.rooms.create("hall", settings=settings(60, max_participants=3))
    for change in (
        lambda: call.rooms.create("hall", settings=settings(81, max_participants=5)),
        lambda: room.set_metadata("m" * 81),
        lambda: room.dispatches.add(agent_dispatch.RoomAgentDispatch(metadata="m" * 40)),
    ):
        with pytest.raises(TooMuchKept):
            change()
    assert (room.info.metadata, room.info.max_participants) == ("m" * 60, 3)
    assert not list(room.dispatches.find(""))
    room.set_metadata("")
    dispatch = room.dispatches.add(agent_dispatch.RoomAgentDispatch(agent_name="a"))
    room.dispatches.remove(dispatch.id)
    assert call.rooms.node.kept.counted == 0


async def test_a_room_that_cannot_keep_its_agents_is_not_created(call: Call, small: None) -> None:
    agents = [agent_dispatch.RoomAgentDispatch(metadata="m" * 30)] * 2
    with pytest.raises(TooMuchKept):
        call.rooms.create("hall", RoomOptions(forward_loudest=3), settings(20, agents=agents))
    assert not call.rooms.rooms
    assert call.rooms.node.kept.counted == 0
    assert not call.rooms.node._groups, "no group of voices is lost"


async def test_a_join_whose_token_brings_too_much_is_refused(call: Call, small: None) -> None:
    with pytest.raises(JoinError) as refused:
        call.rooms.admit(call.parameters("ann", room_config=RoomConfiguration(metadata="m" * 81)))
    assert refused.value.status == 503
    assert not call.rooms.rooms
    await call.join("ann")


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3_000_000))))
def test_what_is_counted_is_what_rooms_keep(steps: list[tuple[int, int]]) -> None:
    everything = KeptBytes(Counter())
    rooms = [KeptBytesOfRoom(everything) for _ in range(4)]
    kept = [0] * 4
    for number, size in steps:
        try:
            rooms[number].replace(kept[number], size)
            kept[number] = size
        except TooMuchKept:
            assert size > kept[number]
        assert everything.counted == sum(max(0, each - SMALL_KEPT_BYTES) for each in kept)
        assert max(kept) <= MAX_KEPT_BYTES_OF_A_ROOM
        assert everything.counted <= MAX_KEPT_BYTES
    for room in rooms:
        room.release()
        room.release()
    assert everything.counted == 0
