"""signaling/api/twirp.py, encoding.py, bodies.py and repeats.py: routes, encodings, errors, tokens and bounds."""

import asyncio
import base64
import hashlib
from collections import Counter
from typing import Any

import httpx
import pytest
from livekit.protocol import agent_dispatch, egress, ingress, models, room, sip
from starlette.requests import Request

from signaling.api import bodies, repeats
from signaling.api.bodies import MAX_BODY_BYTES, Bodies
from signaling.api.errors import STATUS, ApiError
from signaling.api.repeats import KEPT_S, Repeats
from signaling.api.routes import services
from signaling.http import shares
from signaling.http.shares import ExcessiveUse, Share
from tests.signaling.support.api import ADMIN, Api, token
from tests.signaling.support.api_calls import CALLS, EVERYTHING, FIELDS

LIST: dict[str, Any] = {"roomList": True}
DENIED = {"code": "unauthenticated", "msg": "permissions denied"}


def test_every_call_of_livekits_services_is_there_and_has_a_grant_here(api_calls: set[str]) -> None:
    found = [
        file.services_by_name[name]
        for file in (module.DESCRIPTOR for module in (room, agent_dispatch, egress, ingress, sip))
        for name in file.services_by_name
    ]
    names = {f"{service.name}/{method.name}" for service in found for method in service.methods}
    assert names == CALLS.keys() == api_calls


@pytest.fixture
def api_calls(api: Api) -> set[str]:
    return {f"{service}/{name}" for service, methods in services(api.call.rooms).items() for name in methods}


async def test_a_call_without_its_grant_or_without_a_token_is_unauthenticated(api: Api) -> None:
    for name, grant in CALLS.items():
        assert (await api.post(name)).json() == DENIED, name
        video = {key: value for key, value in EVERYTHING.items() if key != grant}
        sip = {key: True for key in ("admin", "call") if key != grant}
        answer = await api.post(name, FIELDS, bearer=token(video, sip=sip))
        assert (answer.status_code, answer.json()) == (401, DENIED), name


async def test_a_call_with_its_grant_is_answered_by_its_service(api: Api) -> None:
    for name in CALLS:
        bearer = token(EVERYTHING, sip={"admin": True, "call": True})
        answer = await api.post(name, FIELDS, bearer=bearer)
        assert answer.json() != DENIED, name
        assert answer.headers["content-type"] == "application/json", name
        if name.startswith(("Egress", "Ingress")):
            service = name.partition("/")[0].lower()
            assert answer.json() == {"code": "internal", "msg": f"{service} not connected (redis required)"}


async def test_an_administrator_of_another_room_may_do_nothing(api: Api) -> None:
    await api.call.join("ann")
    for name, grant in CALLS.items():
        if grant in ("roomAdmin", "destinationRoom"):
            video = EVERYTHING | {"room": "attic"}
            assert (await api.post(name, FIELDS, video)).json() == DENIED, name


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"method": "GET"}, "bad_route"),
        ({"method": "PUT"}, "bad_route"),
        ({"name": "RoomService/Nothing"}, "bad_route"),
        ({"name": "Nothing/ListRooms"}, "bad_route"),
        ({"name": "RoomService/ListRooms/more"}, "bad_route"),
        ({"headers": {"Content-Type": "text/plain"}}, "bad_route"),
        ({"headers": {"Content-Type": ""}}, "bad_route"),
        ({"body": b"\x0a\xff"}, "malformed"),
        ({"body": b"{", "headers": {"Content-Type": "application/json"}}, "malformed"),
        ({"body": b"[]", "headers": {"Content-Type": "application/json"}}, "malformed"),
        ({"body": b"\xff", "headers": {"Content-Type": "application/json"}}, "malformed"),
        ({"body": {"names": 3}}, "malformed"),
        ({"body": {"names": ["n"] * 5001}}, "invalid_argument"),
        ({"body": room.ListRoomsRequest(names=["n"] * 5001)}, "invalid_argument"),
    ],
)
async def test_what_cannot_be_routed_or_read_is_an_error_in_json(api: Api, fields: dict[str, Any], code: str) -> None:
    given = {"name": "RoomService/ListRooms", "video": LIST} | fields
    answer = await api.post(**given)
    assert (answer.status_code, answer.json()["code"]) == (STATUS[code], code)
    assert answer.headers["content-type"] == "application/json"


async def test_a_body_of_more_than_ten_mebibytes_is_not_read(api: Api) -> None:
    for body in (bytes(MAX_BODY_BYTES + 1), room.SendDataRequest(room="hall", data=bytes(MAX_BODY_BYTES))):
        answer = await api.post("RoomService/SendData", body, ADMIN)
        assert (answer.status_code, answer.json()["code"]) == (413, "resource_exhausted")
    large = room.SendDataRequest(room="hall", data=bytes(MAX_BODY_BYTES - 100))
    assert (await api.post("RoomService/SendData", large, ADMIN)).json()["code"] == "not_found"


async def test_a_bad_token_is_an_error_in_json_that_does_not_repeat_it(api: Api) -> None:
    for bearer in (token(LIST, secret="another"), token(LIST, exp=1), token(LIST, iss="nobody"), "no token"):
        answer = await api.post("RoomService/ListRooms", bearer=bearer)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
        assert answer.headers["content-type"] == "application/json"
        assert bearer.rpartition(".")[2] not in answer.text
    wrong = await api.post("RoomService/ListRooms", headers={"Authorization": f"Basic {token(LIST)}"})
    assert wrong.json()["code"] == "unauthenticated"


async def test_a_token_may_be_in_the_query(api: Api) -> None:
    answer = await api.post(f"RoomService/ListRooms?access_token={token(LIST)}")
    assert answer.status_code == 200


@pytest.mark.parametrize("query", ["&" * 100, "%41" * 20_001])
async def test_a_query_that_takes_long_to_read_is_not_read(api: Api, query: str) -> None:
    for path in ("/twirp/livekit.RoomService/ListRooms", "/statistics/hall"):
        for headers in ({}, {"Authorization": f"Bearer {token(EVERYTHING)}"}):
            async with httpx.AsyncClient(trust_env=False) as client:
                answer = await client.get(f"{api.url}{path}?{query}", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
            assert answer.headers["content-type"] == "application/json"


async def test_a_token_for_one_body_is_good_for_no_other(api: Api) -> None:
    body = room.ListRoomsRequest(names=["hall"])
    digest = base64.b64encode(hashlib.sha256(body.SerializeToString()).digest()).decode()
    bearer = token(LIST, sha256=digest)
    assert (await api.post("RoomService/ListRooms", body, bearer=bearer)).status_code == 200
    other = await api.post("RoomService/ListRooms", b"", bearer=bearer)
    assert other.json() == {"code": "unauthenticated", "msg": "the token is for another body"}


async def test_calls_are_answered_below_the_prefix_of_a_proxy(api: Api) -> None:
    assert (await api.post("RoomService/ListRooms", b"", LIST, prefix="/livekit/eu")).status_code == 200


async def test_the_api_is_for_pages_of_every_origin_too(api: Api) -> None:
    headers = {"Origin": "https://meet.example"}
    answer = await api.post("RoomService/ListRooms", b"", LIST, headers=headers)
    assert answer.headers["access-control-allow-origin"] == "https://meet.example"


async def test_json_is_read_in_both_spellings_and_written_with_zero_values(api: Api) -> None:
    for name in ("emptyTimeout", "empty_timeout"):
        body = {"name": "hall", name: 7, "unknown": [1]}
        answer = await api.post("RoomService/CreateRoom", body, {"roomCreate": True})
        assert answer.headers["content-type"] == "application/json"
        told = answer.json()
        assert told["empty_timeout"] == 7
        assert (told["metadata"], told["num_participants"], told["active_recording"]) == ("", 0, False)
        assert told["version"] is None
        assert told["creation_time"] == str(int(told["creation_time"]))
    await api.call.join("ann")
    listed = (await api.post("RoomService/ListParticipants", {"room": "hall"}, ADMIN)).json()
    (ann,) = listed["participants"]
    assert (ann["tracks"], ann["kind"], ann["permission"]["hidden"]) == ([], "STANDARD", False)


async def test_half_a_character_in_json_is_replaced(api: Api) -> None:
    await api.call.join("ann")
    body = b'{"room": "hall", "metadata": "cut \\ud83d"}'
    headers = {"Content-Type": "application/json; charset=utf-8"}
    answer = await api.post("RoomService/UpdateRoomMetadata", body, ADMIN, headers=headers)
    assert answer.json()["metadata"] == "cut �"


async def test_a_fault_of_ours_is_internal_and_costs_the_participant_only(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.call.join("ann")
    await api.call.join("ben")

    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("signaling.participants.participant.set_texts", fail)
    answer = await api.post("RoomService/UpdateParticipant", {"room": "hall", "identity": "ann"}, ADMIN)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert [*api.call.room.participants] == ["ben"]
    monkeypatch.setattr(api.call.rooms, "close", fail)
    answer = await api.post("RoomService/DeleteRoom", {"room": "hall"}, {"roomCreate": True})
    assert answer.json() == {"code": "internal", "msg": "internal error"}


class Spent(Share):
    """The share of somebody who has wanted too much for too long."""

    @property
    def turn_is_over(self) -> bool:
        return True

    async def give_way(self) -> None:
        raise ExcessiveUse


async def test_calls_are_counted_by_their_codes(api: Api) -> None:
    await api.post("RoomService/ListRooms", {}, LIST)
    await api.post("RoomService/ListRooms", {}, LIST)
    await api.post("RoomService/ListRooms", {}, {})
    await api.post("RoomService/DeleteRoom", {"room": "nowhere"}, {"roomCreate": True})
    for name in ("RoomService/Nothing", "x" * 500):
        await api.post(name, {}, LIST)
    assert api.call.rooms.census().api_calls == {
        ("RoomService/ListRooms", "ok"): 2,
        ("RoomService/ListRooms", "unauthenticated"): 1,
        ("RoomService/DeleteRoom", "not_found"): 1,
        ("unknown", "bad_route"): 2,
    }


async def test_a_caller_that_wants_too_much_of_the_server_is_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "Share", Spent)
    answer = await api.post("RoomService/ListRooms", b"", LIST)
    assert (answer.status_code, answer.json()["code"]) == (429, "resource_exhausted")
    assert api.call.rooms.node.dropped["api_calls_beyond_their_share"] == 1


async def test_calls_and_their_answers_are_charged_to_the_caller(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    spent: list[Share] = []
    monkeypatch.setattr(Share, "spend", lambda share, seconds: spent.append(share))
    await api.post("RoomService/ListRooms", b"", LIST)
    assert (before := len(spent)) > 1, "a large answer takes longer than finding it"
    await api.post("RoomService/ListRooms", b"\x0a\xff", LIST)
    assert len(spent) == before + 1, "one that cannot be read costs time as well"
    assert len(set(spent)) == 1
    await api.post("RoomService/ListRooms", b"", bearer=token(LIST, sub="ann"))
    assert len(set(spent)) == 2, "another bearer of the same API key has a share of its own"


async def test_the_body_of_a_participants_call_is_not_read(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Request] = []
    real = Bodies.read

    def note(self: Bodies, request: Request, who: object) -> Any:
        read.append(request)
        return real(self, request, who)

    monkeypatch.setattr(Bodies, "read", note)
    for video in ({}, {"room": "hall", "roomJoin": True}):
        assert (await api.post("RoomService/SendData", b"\x0a\xff", video)).json() == DENIED
    assert read == []
    assert (await api.post("RoomService/SendData", b"\x0a\xff", ADMIN)).json()["code"] == "malformed"
    assert len(read) == 1


async def test_a_creation_that_is_repeated_gives_its_first_answer(api: Api) -> None:
    body = {"room": "hall", "agent_name": "scribe"}

    async def create(request_id: str, video: dict[str, Any] = ADMIN) -> Any:
        headers = {"X-Livekit-Request-Id": request_id}
        return (await api.post("AgentDispatchService/CreateDispatch", body, video, headers=headers)).json()

    first = await create("one")
    assert await create("one") == first
    assert (await create("two"))["id"] != first["id"]
    assert (await create("one", {"roomAdmin": True, "room": "attic"})) == DENIED
    assert len(list(api.call.room.dispatches.find(""))) == 2
    api.call.now += KEPT_S + 1
    assert (await create("one"))["id"] != first["id"]
    assert (await create("x" * 129))["id"] != (await create("x" * 129))["id"]


@pytest.mark.parametrize(("bound", "value"), [("MAX_KEPT", 2), ("MAX_KEPT_BYTES", 6)])
def test_kept_answers_are_bounded(monkeypatch: pytest.MonkeyPatch, bound: str, value: int) -> None:
    monkeypatch.setattr(repeats, bound, value)
    dropped: Counter[str] = Counter()
    kept = Repeats(lambda: 0.0, dropped)
    answers = {each: models.Room(name=each) for each in "abc"}  # of three bytes each
    for name, answer in answers.items():
        kept.keep(("key", "call", "hall", name), answer)
    assert [kept.find(("key", "call", "hall", name)) for name in "abc"] == [None, answers["b"], answers["c"]]
    assert dropped["api_answers"] == 1


async def test_an_answer_is_repeated_to_tokens_of_its_room_only(api: Api) -> None:
    headers = {"X-Livekit-Request-Id": "one"}
    for room_name in ("hall", "attic"):
        body = {"room": room_name, "agent_name": "scribe"}
        video = {"roomAdmin": True, "room": room_name}
        answer = await api.post("AgentDispatchService/CreateDispatch", body, video, headers=headers)
        assert answer.json()["room"] == room_name


def _request(pieces: list[bytes]) -> Request:
    waiting = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    waiting.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Any:
        return waiting.pop(0)

    return Request({"type": "http", "method": "POST", "headers": []}, receive)


async def test_bodies_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MAX_BODIES_BYTES", 10)
    monkeypatch.setattr(bodies, "SMALL_BODY_BYTES", 2)
    dropped: Counter[str] = Counter()
    reader = Bodies(dropped)
    async with reader.read(_request([b"1", b"2345", b"67890"]), "ann") as body:
        assert body == b"1234567890"
        with pytest.raises(ApiError) as caught:
            await reader.read(_request([b"12345"]), "ann").__aenter__()
        assert (caught.value.code, dropped["api_bodies"]) == ("resource_exhausted", 1)
        async with reader.read(_request([b"12"]), "ann") as small:
            assert small == b"12", "a small one is read whatever is held"
    with pytest.raises(ApiError):
        await reader.read(_request([b"12345", b"67890123"]), "ann").__aenter__()
    async with reader.read(_request([b"123456789012"]), "ann") as body:
        assert len(body) == 12, "what was held is free again"


async def test_bodies_of_one_caller_keep_nobody_elses_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MAX_BODIES_OF_A_CALLER_BYTES", 10)
    monkeypatch.setattr(bodies, "SMALL_BODY_BYTES", 2)
    reader = Bodies(Counter())
    async with reader.read(_request([b"1234567890"]), "ann"):
        with pytest.raises(ApiError):
            await reader.read(_request([b"123456"]), "ann").__aenter__()
        async with reader.read(_request([b"1234567890"]), "ben") as other:
            assert len(other) == 10
    async with reader.read(_request([b"123456789012"]), "ann") as again:
        assert len(again) == 12, "what was held is free again"
    assert reader._callers == {}


async def test_a_slow_body_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_TIMEOUT_S", 0.01)

    async def receive() -> Any:
        await asyncio.Event().wait()

    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    with pytest.raises(ApiError) as caught:
        await Bodies(Counter()).read(request, "ann").__aenter__()
    assert caught.value.status == 408


@pytest.mark.alone
async def test_a_connection_that_is_used_is_not_closed(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signaling.http.http_protocol.HTTP_LIFETIME_S", 0.2)
    limits = httpx.Limits(max_connections=1)
    headers = {"Authorization": f"Bearer {token(LIST)}", "Content-Type": "application/protobuf"}
    async with httpx.AsyncClient(trust_env=False, limits=limits) as client:
        used = set()
        for _ in range(8):
            answer = await client.post(f"{api.url}/twirp/livekit.RoomService/ListRooms", headers=headers)
            used.add(answer.extensions["network_stream"].get_extra_info("client_addr"))
            await asyncio.sleep(0.05)
    assert len(used) == 1
