"""Statistics of a room as JSON: who may read them, what is in them, and how much at a time."""

import asyncio
from typing import Any

import httpx
import pytest

from signaling.api import answers, statistics
from signaling.http.shares import ExcessiveUse, Share
from signaling.rooms.quality import QUALITY_INTERVAL_S
from tests.signaling.support.api import ADMIN, Api, token


async def get(
    api: Api, room: str = "hall", video: dict[str, Any] | None = None, identity: str = "backend", **query: str
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token(video, sub=identity)}"} if video is not None else {}
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        return await client.get(f"{api.url}/statistics/{room}", params=query, headers=headers)


@pytest.mark.parametrize(
    "video",
    [
        None,
        {},
        {"room": "hall"},
        {"roomJoin": True, "room": "attic"},
        {"roomAdmin": True, "room": "attic"},
        {"roomAdmin": True},
    ],
)
async def test_only_members_and_admins_of_the_room_may_read_them(api: Api, video: dict[str, Any] | None) -> None:
    await api.call.join("ann")
    answer = await get(api, video=video)
    assert answer.status_code == 401
    assert answer.json()["code"] == "unauthenticated"
    assert "ann" not in answer.text


async def test_a_room_that_is_not_there(api: Api) -> None:
    answer = await get(api, "attic", ADMIN | {"room": "attic"})
    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"


async def test_everything_of_everybody_is_told(api: Api) -> None:
    call = api.call
    ann = await call.join("ann")
    mic, cam = await ann.publish("mic", "audio"), await ann.publish("cam", "video")
    bob = await call.join("bob")
    for client in (ann, bob):
        await client.connect()
    call.engine.lost[ann.engine_track(cam)] = (90, 10)
    call.engine.scored = {ann.transport: 100.0, bob.transport: 35.0}
    subscription = bob.participant.subscriptions.active[cam].id
    assert subscription is not None
    call.engine.fractions[subscription] = (0.25, 40.0)
    await call.pass_time(QUALITY_INTERVAL_S)
    told = (await get(api, video=ADMIN)).json()
    assert told["room"] == {"name": "hall", "sid": call.room.info.sid}
    assert "next" not in told
    by_identity = {each["identity"]: each for each in told["participants"]}
    assert set(by_identity) == {"ann", "bob"}
    publisher, viewer = by_identity["ann"], by_identity["bob"]
    assert (publisher["quality"], publisher["score"], publisher["state"]) == ("EXCELLENT", 4.5, "ACTIVE")
    assert viewer["quality"] == "POOR"
    assert viewer["connections"][0]["estimate_bps"] == 1_000_000
    assert viewer["connections"][0]["reported_lost"] == 3
    assert {each["sid"]: (each["kind"], each["codec"], each["lost"]) for each in publisher["tracks"]} == {
        mic: ("audio", "opus", 0),
        cam: ("video", "vp8", 10),
    }
    assert publisher["subscriptions"] == viewer["tracks"] == []
    sent = {each["track_sid"]: each for each in viewer["subscriptions"]}
    assert set(sent) == {mic, cam}
    assert (sent[cam]["publisher"], sent[cam]["lost_fraction"], sent[cam]["rtt_ms"]) == ("ann", 0.25, 40.0)
    layers = {name: sent[cam][name] for name in ("current", "preferred", "allowed")}
    whole = {"spatial": 2, "temporal": 3}
    assert layers == {"current": {"spatial": 0, "temporal": 0}, "preferred": whole, "allowed": whole}
    assert (sent[cam]["reason"], sent[cam]["waiting_s"]) == ("client", 0.0)
    assert "preferred" not in sent[mic]


MEMBER = {"roomJoin": True, "room": "hall"}


async def test_a_participant_reads_what_is_about_itself(api: Api) -> None:
    ann = await api.call.join("ann")
    spy = await api.call.join("spy", {"hidden": True})
    seen, unseen = await ann.publish("cam", "video"), await spy.publish("mic", "audio")
    bob = await api.call.join("bob")
    for identity, sent in (("ann", {}), ("bob", {seen: "ann", unseen: ""})):
        told = (await get(api, video=MEMBER, identity=identity)).json()
        (own,) = told["participants"]
        assert own["identity"] == identity
        assert {each["track_sid"]: each["publisher"] for each in own["subscriptions"]} == sent
    assert own["sid"] == bob.sid
    everything = (await get(api, video=MEMBER | {"roomAdmin": True}, identity="bob")).json()["participants"]
    assert {each["publisher"] for entry in everything for each in entry["subscriptions"]} == {"ann", "spy"}


async def test_who_is_not_in_the_room_reads_nothing(api: Api) -> None:
    await api.call.join("ann")
    answer = await get(api, video=MEMBER, identity="eve")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    api.call.rooms.node.revocations.revoke("hall", "ann", 1)
    assert (await get(api, video=MEMBER, identity="ann")).status_code == 401


async def test_nothing_that_lets_somebody_in_and_no_address_is_told(api: Api) -> None:
    ann = await api.call.join("ann")
    await ann.connect()
    text = (await get(api, video=ADMIN)).text
    assert "ann" in text
    for secret in ("ufrag", "pppp", "192.0.2.1", "127.0.0.1", "secret", "eyJ"):
        assert secret not in text, secret


async def test_a_large_room_comes_in_pages(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "MAX_ENTRIES", 4)
    sids = {(await api.call.join(f"guest{number}")).sid for number in range(10)}
    seen: list[str] = []
    after = ""
    for _ in range(10):
        page = (await get(api, video=ADMIN, after=after)).json()
        seen += [each["sid"] for each in page["participants"]]
        assert len(page["participants"]) <= 4
        after = page.get("next", "")
        if not after:
            break
    assert len(seen) == len(sids)
    assert set(seen) == sids


async def test_what_ends_while_others_have_their_turn_is_left_out(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = await api.call.join("ann")
    await ann.publish("mic", "audio")
    await api.call.join("bob")
    assert len(api.call.engine.subscriptions) == 1
    real = Share.give_way

    async def give_way(share: Share) -> None:
        api.call.engine.subscriptions.clear()
        await real(share)

    monkeypatch.setattr(Share, "turn_is_over", property(lambda _share: True))
    monkeypatch.setattr(Share, "give_way", give_way)
    answer = await get(api, video=ADMIN)
    assert answer.status_code == 200
    assert [each["subscriptions"] for each in answer.json()["participants"]] == [[], []]


async def test_who_leaves_while_others_have_their_turn_is_left_out(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = [await api.call.join(name) for name in ("ann", "bob")]
    first, second = sorted(clients, key=lambda each: each.sid)
    real = Share.give_way

    async def give_way(share: Share) -> None:
        api.call.room.remove(second.participant, 0)
        await real(share)

    monkeypatch.setattr(Share, "turn_is_over", property(lambda _share: True))
    monkeypatch.setattr(Share, "give_way", give_way)
    answer = await get(api, video=ADMIN)
    assert answer.status_code == 200
    assert [each["sid"] for each in answer.json()["participants"]] == [first.sid]


async def test_a_track_of_a_source_that_is_not_known_is_told(api: Api) -> None:
    ann = await api.call.join("ann")
    await ann.publish("mic", "audio", source=99)
    answer = await get(api, video=ADMIN)
    assert [each["source"] for each in answer.json()["participants"][0]["tracks"]] == ["UNKNOWN"]


async def test_who_asks_too_much_is_refused_and_counted(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.call.join("ann")

    async def give_way(_share: Share) -> None:
        raise ExcessiveUse

    monkeypatch.setattr(Share, "turn_is_over", property(lambda _share: True))
    monkeypatch.setattr(Share, "give_way", give_way)
    answer = await get(api, video=ADMIN)
    assert answer.status_code == 429
    assert api.call.rooms.node.dropped["api_calls_beyond_their_share"] == 1


async def test_answers_that_nobody_reads_are_bounded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.call.join("ann")
    before = (await get(api, video=ADMIN)).text
    # It is sent as fast as its caller reads it, and is the same.
    monkeypatch.setattr(answers, "SENT_AT_ONCE_BYTES", 64)
    parts: list[bytes] = []
    real = answers._InParts.__call__

    async def call(self: Any, scope: Any, receive: Any, send: Any) -> None:
        async def note(message: Any) -> None:
            parts.append(message.get("body", b""))
            await send(message)

        await real(self, scope, receive, note)

    monkeypatch.setattr(answers._InParts, "__call__", call)
    assert (await get(api, video=ADMIN)).text == before
    assert b"".join(parts).decode() == before
    assert max(map(len, parts)) == 64
    monkeypatch.setattr(answers, "SMALL_ANSWER_BYTES", 64)
    monkeypatch.setattr(answers, "MAX_ANSWERS_BYTES", len(before) - 64)
    for _ in range(3):
        assert (await get(api, video=ADMIN)).status_code == 200
    monkeypatch.setattr(answers, "MAX_ANSWERS_BYTES", len(before) - 65)
    refused = await get(api, video=ADMIN)
    assert (refused.status_code, refused.json()["code"]) == (429, "resource_exhausted")
    assert api.call.rooms.node.dropped["api_answers_held"] == 1


async def test_others_have_their_turn_while_an_answer_is_written(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        await api.call.join(f"guest{number}")
    turns = 0
    writing = True

    async def other() -> None:
        nonlocal turns
        while writing:
            await asyncio.sleep(0)
            turns += 1

    gave_way: list[int] = []
    real = Share.give_way

    async def give_way(share: Share) -> None:
        before = turns
        await real(share)
        gave_way.append(turns - before)

    monkeypatch.setattr(Share, "turn_is_over", property(lambda _share: True))
    monkeypatch.setattr(Share, "give_way", give_way)
    task = asyncio.create_task(other())
    assert (await get(api, video=ADMIN)).status_code == 200
    writing = False
    await task
    assert len(gave_way) == 5
    assert all(each > 0 for each in gave_way)
