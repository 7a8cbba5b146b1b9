"""LiveKit's server SDK of npm, which speaks JSON where that of PyPI speaks protobuf: calls, tokens, webhooks."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from livekit import rtc
from livekit.protocol import models

from tests.clients.conftest import PeerFactory
from tests.clients.facts import hears, reads, stands_still
from tests.clients.network import ADDRESS
from tests.clients.npm_backend import NpmBackend, npm_backend
from tests.clients.peers import SdkPeer, eventually
from tests.clients.sfu_server import KEY, ServerUnderTest, free_port, running_server

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]

NOT_FOUND = (404, "not_found", "participant does not exist")
RELIABLE = 0


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def both(
    own_network: None, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[ServerUnderTest, NpmBackend]]:
    """A server and a backend, each of which knows where the other is."""
    folder: Path = tmp_path_factory.mktemp("npm")
    port = free_port()
    async with npm_backend(f"http://127.0.0.1:{port}") as backend:
        hooks = f"http://127.0.0.1:{await backend.call('backend.port')}/"
        file = folder / "livekit.yaml"
        file.write_text(f"webhook:\n  api_key: {KEY}\n  urls: [{hooks}]\n")
        with running_server(folder, node_ip=ADDRESS, port=port, extra=("--config", str(file))) as server:
            yield server, backend


async def test_a_backend_on_npm_runs_a_room(
    both: tuple[ServerUnderTest, NpmBackend], make_peer: PeerFactory, room: str
) -> None:
    server, backend = both
    made = await backend.call(
        "rooms.createRoom",
        {"name": room, "emptyTimeout": 60, "maxParticipants": 5, "metadata": "new", "agents": [{"agentName": "a"}]},
    )
    assert (made["emptyTimeout"], made["maxParticipants"], made["metadata"]) == (60, 5, "new")
    assert (await backend.call("rooms.listRooms", [room]))[0]["sid"] == made["sid"]
    ann, bob = await _join(backend, server, make_peer, room)
    await hears(bob, "ann")
    listed = {each["identity"]: each for each in await backend.call("rooms.listParticipants", room)}
    assert sorted(listed) == ["ann", "bob"]
    assert (listed["ann"]["name"], listed["ann"]["metadata"]) == ("Ann", "m")
    assert listed["ann"]["attributes"] == {"seat": "1"}
    sid = listed["ann"]["tracks"][0]["sid"]
    await _moderate(backend, room, ann, bob, sid)
    await _end(backend, server, room, ann, bob)
    told = await backend.webhooks(8)
    assert {each["room"]["name"] for each in told} == {room}
    assert [(each["event"], each.get("participant", {}).get("identity")) for each in told] == [
        ("room_started", None),
        ("participant_joined", "ann"),
        ("track_published", "ann"),
        ("participant_joined", "bob"),
        ("track_unpublished", "ann"),
        ("participant_left", "ann"),
        ("participant_left", "bob"),
        ("room_finished", None),
    ]


async def _join(
    backend: NpmBackend, server: ServerUnderTest, make_peer: PeerFactory, room: str
) -> tuple[SdkPeer, SdkPeer]:
    """Let two in with tokens of the backend; the first one is heard."""
    grants = {"roomJoin": True, "room": room}
    ann: SdkPeer = await make_peer("sdk", "ann")
    options = {"identity": "ann", "name": "Ann", "metadata": "m", "attributes": {"seat": "1"}, "ttl": "1h"}
    token = await backend.call("backend.token", options, grants)
    await ann.connect(server.url, token)
    await backend.webhooks(2)
    await ann.publish_audio()
    await backend.webhooks(3)
    bob: SdkPeer = await make_peer("sdk-dual", "bob")
    await bob.connect(server.url, await backend.call("backend.token", {"identity": "bob"}, grants))
    await backend.webhooks(4)
    return ann, bob


async def _moderate(backend: NpmBackend, room: str, ann: SdkPeer, bob: SdkPeer, sid: str) -> None:
    """Change what the two have, see and hear."""
    assert (await backend.call("rooms.updateRoomMetadata", room, "old"))["metadata"] == "old"
    await _comes_true(lambda: bob.room.metadata == "old", "the room's metadata")
    changes = {"name": "Anna", "attributes": {"seat": "", "hand": "up"}, "metadata": "n"}
    changed = await backend.call("rooms.updateParticipant", room, "ann", changes)
    assert (changed["name"], changed["attributes"]) == ("Anna", {"hand": "up"})
    await _comes_true(lambda: bob.room.remote_participants["ann"].attributes == {"hand": "up"}, "attributes")
    await backend.call("rooms.updateSubscriptions", room, "bob", [sid], False)
    await stands_still(bob, "ann")
    assert (await backend.call("rooms.mutePublishedTrack", room, "ann", sid, True))["muted"]
    await _comes_true(lambda: bob.room.remote_participants["ann"].track_publications[sid].muted, "the mute")
    refused = await backend.fails("rooms.mutePublishedTrack", room, "ann", sid, False)
    assert refused == (412, "failed_precondition", "remote unmute not enabled")
    await backend.call(
        "rooms.sendData", room, {"base64": "YmVsbA=="}, RELIABLE, {"destinationIdentities": ["bob"], "topic": "t"}
    )
    await reads(bob, "", "bell")
    assert await ann.messages() == []
    for name in ("rooms.moveParticipant", "rooms.forwardParticipant"):
        assert await backend.fails(name, room, "ann", "elsewhere") == (500, "unknown", "not implemented")
    permission = {"canSubscribe": True, "canPublish": False, "canPublishData": True}
    answer = await backend.call("rooms.updateParticipant", room, "ann", {"permission": permission})
    assert answer["permission"] == {"canSubscribe": True, "canPublishData": True}
    await backend.webhooks(5)
    assert (await backend.call("rooms.getParticipant", room, "ann")).get("tracks", []) == []


async def _end(backend: NpmBackend, server: ServerUnderTest, room: str, ann: SdkPeer, bob: SdkPeer) -> None:
    """Remove one, so that old tokens of hers are refused, and end the room."""
    reasons: list[Any] = []
    ann.room.on("disconnected", reasons.append)
    bob.room.on("disconnected", reasons.append)
    token = server.token(room, "ann")
    later = {"revokeTokenTs": {"bigint": str(int(time.time()) + 60)}}
    await backend.call("rooms.removeParticipant", room, "ann", later)
    await _comes_true(lambda: reasons == [models.PARTICIPANT_REMOVED], "the removal")
    assert await backend.fails("rooms.getParticipant", room, "ann") == NOT_FOUND
    with pytest.raises(rtc.ConnectError):
        await rtc.Room().connect(server.url, token)
    await backend.call("rooms.deleteRoom", room)
    await _comes_true(lambda: reasons[1:] == [models.ROOM_DELETED], "the end of the room")
    assert await backend.fails("rooms.deleteRoom", room) == (404, "not_found", "requested room does not exist")
    assert (await backend.fails("strangers.listRooms"))[:2] == (401, "unauthenticated")


async def _comes_true(fact: Any, what: str) -> None:
    async def true() -> bool:
        return bool(fact())

    await eventually(true, what)


async def test_records_are_kept_and_what_is_not_here_says_so(
    both: tuple[ServerUnderTest, NpmBackend], room: str
) -> None:
    _, backend = both
    await _dispatches(backend, room)
    trunk = await _trunks(backend)
    await _rules(backend, room, trunk)
    absent = "egress not connected (redis required)"
    calls: dict[str, list[Any]] = {"listEgress": [{}], "startRoomCompositeEgress": [room, {}], "stopEgress": ["x"]}
    for name, arguments in calls.items():
        assert await backend.fails(f"egress.{name}", *arguments) == (500, "internal", absent)
    assert (await backend.fails("ingress.listIngress", {}))[:2] == (500, "internal")
    for service in ("rooms", "dispatches", "sip"):
        assert await backend.call("backend.uncalled", service) == []


async def _dispatches(backend: NpmBackend, room: str) -> None:
    made = await backend.call("dispatches.createDispatch", room, "scribe", {"metadata": "m"})
    assert (made["agentName"], made["room"], made["metadata"]) == ("scribe", room, "m")
    assert (await backend.call("dispatches.getDispatch", made["id"], room))["id"] == made["id"]
    assert [each["id"] for each in await backend.call("dispatches.listDispatch", room)] == [made["id"]]
    await backend.call("dispatches.deleteDispatch", made["id"], room)
    assert await backend.call("dispatches.listDispatch", room) == []


async def _trunks(backend: NpmBackend) -> str:
    """Make, list and change trunks; returns the id of the one that is left."""
    inbound = await backend.call("sip.createSipInboundTrunk", "in", ["+100"], {"authUsername": "u"})
    trunk = str(inbound["sipTrunkId"])
    same = await backend.fails("sip.createSipInboundTrunk", "again", ["+1 00"])
    assert same[:2] == (409, "already_exists")
    outbound = await backend.call("sip.createSipOutboundTrunk", "out", "sip.example.org", ["+200"], {"transport": 1})
    assert [each["name"] for each in await backend.call("sip.listSipInboundTrunk", {"trunkIds": [trunk]})] == ["in"]
    assert len(await backend.call("sip.listSipOutboundTrunk")) == 1
    assert sorted(each["name"] for each in await backend.call("sip.listSipTrunk")) == ["in", "out"]
    changed = await backend.call("sip.updateSipInboundTrunkFields", trunk, {"name": "inner"})
    assert (changed["name"], changed["authUsername"]) == ("inner", "u")
    replaced = await backend.call("sip.updateSipInboundTrunk", trunk, {"numbers": ["+101"], "name": "whole"})
    assert (replaced["numbers"], replaced["name"]) == (["+101"], "whole")
    out = outbound["sipTrunkId"]
    fields = await backend.call("sip.updateSipOutboundTrunkFields", out, {"metadata": "m"})
    assert (fields["metadata"], fields["address"]) == ("m", "sip.example.org")
    other = {"address": "sip.example.net", "numbers": ["+200"]}
    assert (await backend.call("sip.updateSipOutboundTrunk", out, other))["address"] == "sip.example.net"
    assert (await backend.call("sip.deleteSipTrunk", out))["sipTrunkId"] == out
    assert await backend.call("sip.listSipOutboundTrunk") == []
    return trunk


async def _rules(backend: NpmBackend, room: str, trunk: str) -> None:
    direct = {"type": "direct", "roomName": room, "pin": "12"}
    made = await backend.call("sip.createSipDispatchRule", direct, {"name": "rule", "trunkIds": [trunk]})
    rule = made["sipDispatchRuleId"]
    same = await backend.fails("sip.createSipDispatchRule", direct, {"trunkIds": [trunk]})
    assert same[:2] == (409, "already_exists")
    (listed,) = await backend.call("sip.listSipDispatchRule", {"trunkIds": [trunk]})
    assert listed["rule"]["dispatchRuleDirect"] == {"roomName": room, "pin": "12"}
    assert (await backend.call("sip.updateSipDispatchRuleFields", rule, {"name": "law"}))["name"] == "law"
    whole = {"rule": {"rule": {"case": "dispatchRuleDirect", "value": {"roomName": "attic"}}}}
    updated = await backend.call("sip.updateSipDispatchRule", rule, whole)
    assert updated["rule"]["dispatchRuleDirect"]["roomName"] == "attic"
    assert (await backend.call("sip.deleteSipDispatchRule", rule))["sipDispatchRuleId"] == rule
    assert await backend.call("sip.listSipDispatchRule") == []
    assert (await backend.fails("sip.createSipParticipant", trunk, "+300", room))[:2] == (404, "not_found")
    assert (await backend.fails("sip.transferSipParticipant", room, "phone", "tel:+1"))[:2] == (404, "not_found")
    assert (await backend.fails("sip.createSipTrunk", "+1"))[0] is not None
