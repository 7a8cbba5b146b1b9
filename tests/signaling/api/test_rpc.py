"""PerformRpc in signaling/api/room_service.py, and signaling/rooms/calls.py: calls of methods of participants."""

import asyncio
from typing import Any

import pytest
from livekit.protocol import models, room, rtc

from signaling.api import bodies
from signaling.rooms.calls import RpcError
from tests.signaling.support.api import ADMIN, Api
from tests.signaling.support.call import Client

DEADLINE_S = 30.0


def rpc(**fields: Any) -> room.PerformRpcRequest:
    return room.PerformRpcRequest(**{"room": "hall", "destination_identity": "ann", "method": "greet"} | fields)


async def called(api: Api) -> models.RpcRequest:
    """Wait until a participant is called; the request as it sees it."""
    async with asyncio.timeout(DEADLINE_S):
        while not api.call.engine.sent:  # noqa: ASYNC110  # the engine tells nobody what it was told
            await asyncio.sleep(0.001)
    packet = models.DataPacket.FromString(api.call.engine.sent.pop()[2])
    assert packet.participant_identity == packet.rpc_request.id
    return packet.rpc_request


async def answer(client: Client, request: models.RpcRequest, **fields: Any) -> None:
    to = [request.id]
    ack = models.RpcAck(request_id=request.id)
    await client.send_data(models.DataPacket(rpc_ack=ack, destination_identities=to))
    response = models.RpcResponse(request_id=request.id, **fields)
    await client.send_data(models.DataPacket(rpc_response=response, destination_identities=to))


async def test_a_participant_is_called_and_answers(api: Api) -> None:
    ann, ben = await api.call.join("ann"), await api.call.join("ben")
    calling = asyncio.create_task(api.post("RoomService/PerformRpc", rpc(payload="you"), ADMIN))
    request = await called(api)
    assert (request.method, request.payload, request.response_timeout_ms, request.version) == (
        "greet",
        "you",
        10_000,
        1,
    )
    await answer(ben, request, payload="not asked")
    await answer(ann, request, payload="hello you")
    response = room.PerformRpcResponse.FromString((await calling).content)
    assert response.payload == "hello you"


@pytest.mark.parametrize(
    ("code", "expected"), [(1500, "internal"), (1400, "invalid_argument"), (42, "internal"), (1502, "canceled")]
)
async def test_an_error_of_a_participant_has_livekits_text_and_code(api: Api, code: int, expected: str) -> None:
    ann = await api.call.join("ann")
    calling = asyncio.create_task(api.post("RoomService/PerformRpc", rpc(), ADMIN))
    await answer(ann, await called(api), error=models.RpcError(code=code, message="no", data="really"))
    assert (await calling).json() == {"code": expected, "msg": f"RpcError {code}: no: really"}


async def test_a_call_to_a_participant_that_leaves_fails(api: Api) -> None:
    ann = await api.call.join("ann")
    calling = asyncio.create_task(api.post("RoomService/PerformRpc", rpc(), ADMIN))
    await called(api)
    await ann.send(leave=rtc.LeaveRequest())
    assert (await calling).json() == {"code": "unavailable", "msg": "RpcError 1503: Recipient disconnected"}


async def test_a_call_that_waits_holds_nothing_of_its_body(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MAX_BODIES_BYTES", 40_000)
    ann = await api.call.join("ann")
    unknown = b"\xc2\x3e" + b"\xc0\xb8\x02" + bytes(40_000)  # field 1000, of 40,000 bytes
    calling = asyncio.create_task(api.post("RoomService/PerformRpc", rpc().SerializeToString() + unknown, ADMIN))
    request = await called(api)
    large = room.SendDataRequest(room="hall", data=bytes(50_000))
    assert (await api.post("RoomService/SendData", large, ADMIN)).status_code == 200
    await answer(ann, request, payload="hello")
    assert (await calling).status_code == 200


async def test_a_call_that_waits_keeps_nothing_of_its_body_alive(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = asyncio.Event()

    class Body(bytes):
        def __del__(self) -> None:
            gone.set()

    monkeypatch.setattr(bodies, "bytes", Body, raising=False)
    ann = await api.call.join("ann")
    calling = asyncio.create_task(api.post("RoomService/PerformRpc", rpc(), ADMIN))
    request = await called(api)
    assert gone.is_set()
    await answer(ann, request, payload="hello")
    assert (await calling).status_code == 200


@pytest.mark.alone
async def test_a_call_that_is_not_acknowledged_or_not_answered_fails(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signaling.rooms.calls.MAX_ROUND_TRIP_S", 0.05)
    ann = await api.call.join("ann")
    late = await api.post("RoomService/PerformRpc", rpc(), ADMIN)
    assert late.json() == {"code": "canceled", "msg": "RpcError 1501: Connection timeout"}
    api.call.engine.sent.clear()
    calling = asyncio.create_task(api.post("RoomService/PerformRpc", rpc(response_timeout_ms=200), ADMIN))
    request = await called(api)
    await ann.send_data(models.DataPacket(rpc_ack=models.RpcAck(request_id=request.id)))
    assert (await calling).json() == {"code": "canceled", "msg": "RpcError 1502: Response timeout"}


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"destination_identity": ""}, "invalid_argument"),
        ({"payload": "p" * (15 * 1024 + 1)}, "invalid_argument"),
        ({"method": "m" * 65}, "invalid_argument"),
        ({"response_timeout_ms": 300_001}, "invalid_argument"),
    ],
)
async def test_calls_are_bounded(api: Api, fields: dict[str, Any], code: str) -> None:
    await api.call.join("ann")
    assert (await api.post("RoomService/PerformRpc", rpc(**fields), ADMIN)).json()["code"] == code
    assert not api.call.engine.sent


async def test_calls_that_wait_are_bounded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signaling.rooms.calls.MAX_RPC_CALLS", 0)
    await api.call.join("ann")
    answer = await api.post("RoomService/PerformRpc", rpc(), ADMIN)
    assert answer.json() == {"code": "internal", "msg": "RpcError 1505: Failed to send"}
    assert api.call.rooms.node.dropped["rpc_calls"] == 1


async def test_one_room_cannot_take_all_calls_that_may_wait(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signaling.rooms.calls.MAX_RPC_CALLS_OF_A_ROOM", 1)
    ann, calls = await api.call.join("ann"), api.call.rooms.node.calls
    waiting = asyncio.create_task(calls.perform(ann.participant, "greet", ""))
    request = await called(api)
    with pytest.raises(RpcError, match="Failed to send"):
        await calls.perform(ann.participant, "greet", "")
    assert api.call.rooms.node.dropped["rpc_calls"] == 1
    elsewhere = await api.call.join("eve", room="attic")
    other = asyncio.create_task(calls.perform(api.call.rooms.rooms["attic"].participants["eve"], "greet", ""))
    await called(api)
    await answer(ann, request, payload="hello")
    assert await waiting == "hello"
    api.call.rooms.close("attic")
    with pytest.raises(RpcError, match="disconnected"):
        await other
    assert elsewhere.connection.code == 1000
    again = asyncio.create_task(calls.perform(ann.participant, "greet", ""))
    await answer(ann, await called(api), payload="again")
    assert await again == "again"


async def test_who_is_not_there_cannot_be_called(api: Api) -> None:
    for text in ("requested room does not exist", "participant does not exist"):
        assert (await api.post("RoomService/PerformRpc", rpc(), ADMIN)).json() == {"code": "not_found", "msg": text}
        await api.call.join("ben")
