"""signaling/api/dispatch_service.py and signaling/records/dispatches.py: dispatched agents by LiveKit's client."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from livekit.api import TwirpError
from livekit.protocol import agent_dispatch

from signaling.errors import RequestRefused
from signaling.limits import MAX_DISPATCHES
from signaling.records.dispatches import Dispatches
from signaling.records.kept_bytes import KeptBytes, KeptBytesOfRoom
from tests.signaling.support.api import ADMIN, Api


async def test_an_agent_is_dispatched_listed_and_taken_back(api: Api) -> None:
    client = api.client.agent_dispatch
    request = agent_dispatch.CreateAgentDispatchRequest(room="hall", agent_name="scribe", metadata="m")
    request.attributes["language"] = "fr"
    created = await client.create_dispatch(request)
    assert (created.room, created.agent_name, created.metadata) == ("hall", "scribe", "m")
    assert dict(created.attributes) == {"language": "fr"}
    assert created.id.startswith("AD_")
    assert "hall" in api.call.rooms.rooms, "a missing room is created"
    assert await client.list_dispatch("hall") == [created]
    assert await client.get_dispatch(created.id, "hall") == created
    assert await client.get_dispatch("AD_none", "hall") is None
    gone = await client.delete_dispatch(created.id, "hall")
    assert (gone.id, gone.state.deleted_at > 0) == (created.id, True)
    assert await client.list_dispatch("hall") == []
    with pytest.raises(TwirpError) as caught:
        await client.delete_dispatch(created.id, "hall")
    assert (caught.value.code, caught.value.message) == ("not_found", "dispatch ID not found")


async def test_a_dispatch_creates_no_room_where_joins_do_not(api: Api) -> None:
    api.call.rooms.node.config = replace(api.call.config, auto_create=False)
    request = agent_dispatch.CreateAgentDispatchRequest(room="hall")
    with pytest.raises(TwirpError) as caught:
        await api.client.agent_dispatch.create_dispatch(request)
    assert (caught.value.code, caught.value.message) == ("not_found", "requested room does not exist")
    api.call.rooms.create("hall")
    assert (await api.client.agent_dispatch.create_dispatch(request)).room == "hall"


async def test_agents_for_which_there_is_no_memory_are_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signaling.records.kept_bytes.MAX_KEPT_BYTES", 0)
    body = {"room": "hall", "metadata": "m" * 5_000}
    answer = await api.post("AgentDispatchService/CreateDispatch", body, ADMIN)
    assert (answer.status_code, answer.json()["code"]) == (429, "resource_exhausted")
    assert api.call.rooms.node.dropped["room_bytes"] == 1


@pytest.mark.parametrize(
    ("name", "body", "code"),
    [
        ("ListDispatch", {}, "not_found"),
        ("DeleteDispatch", {"dispatch_id": "AD_x"}, "not_found"),
        ("CreateDispatch", {"metadata": "m" * (512 * 1024 + 1)}, "invalid_argument"),
        ("CreateDispatch", {"attributes": {"k": "v" * 65_536}}, "invalid_argument"),
        ("CreateDispatch", {"agent_name": "a" * 257}, "invalid_argument"),
        ("CreateDispatch", {"deployment": "d" * 257}, "invalid_argument"),
    ],
)
async def test_what_cannot_be_dispatched_is_refused(api: Api, name: str, body: dict[str, Any], code: str) -> None:
    answer = await api.post(f"AgentDispatchService/{name}", {"room": "hall"} | body, ADMIN)
    assert answer.json()["code"] == code
    assert not api.call.rooms.rooms


def test_dispatches_are_bounded() -> None:
    dropped: Counter[str] = Counter()
    dispatches = Dispatches("hall", KeptBytesOfRoom(KeptBytes(dropped)), dropped)
    request = agent_dispatch.CreateAgentDispatchRequest(room="hall")
    for _ in range(MAX_DISPATCHES):
        dispatches.add(request)
    with pytest.raises(RequestRefused):
        dispatches.add(request)
    assert dropped["agent_dispatches"] == 1
