"""The server API and webhooks beside livekit-server's: both get the same calls and the same visit, and differ where
docs/compatibility.md says so, and nowhere else.

This needs a livekit-server on PATH; its binary is built by `go install`.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import pytest_asyncio

from tests.clients.conftest import PeerFactory
from tests.clients.livekit_server import running_livekit
from tests.clients.network import ADDRESS
from tests.clients.peers import SdkPeer
from tests.clients.sfu_server import KEY, SECRET, ServerUnderTest, running_server
from tests.signaling.support.receiver import Receiver, receiving

pytestmark = pytest.mark.client

ROOM = "difference"
ADMIN: dict[str, Any] = {"roomAdmin": True, "room": ROOM}
EVERYTHING = {"roomCreate": True, "roomList": True, "roomRecord": True, "ingressAdmin": True, **ADMIN}
SIP_ADMIN = {"sip": {"admin": True}}
TIMES = ("creation_time", "creation_time_ms", "joined_at", "joined_at_ms")
COUNTS = ("num_participants", "num_publishers")
VOLATILE = frozenset(("sid", "id", "version", "state", "turn_password", "enabled_codecs", *TIMES, *COUNTS))
"""Fields whose values differ from run to run; counts, which livekit-server learns later; the lists of codecs."""
PREFIX = "twirp error unknown: "
"""What livekit-server 1.13.5 puts before some texts."""


@dataclass(frozen=True)
class Call:
    """One call, and where both may differ."""

    name: str
    body: Any
    grants: dict[str, Any] | None = None
    """The `video` claim, or one with a claim `sip` beside."""
    method: str = "POST"
    content_type: str = "application/json"
    differs: str = ""
    """Why the answers differ, if they do: docs/compatibility.md says it in bold letters."""


NOT_FOUND, NAMED = "Who is not there", "Names of arguments"
LIVE, DISPATCH = "A live room takes new settings", "No default dispatch"
RECORDING, SIP = "Recording", "SIP records"
CALLS = (
    Call("RoomService/ListRooms", {}, EVERYTHING),
    Call("RoomService/ListRooms", {"names": ["nowhere"]}, EVERYTHING),
    Call("RoomService/ListRooms", {"unknown_field": 1}, EVERYTHING),
    Call("RoomService/ListRooms", {}, {}),
    Call("RoomService/ListRooms", {}, None),
    Call("RoomService/ListRooms", {}, EVERYTHING, method="GET"),
    Call("RoomService/ListRooms", {}, EVERYTHING, content_type="text/plain"),
    Call("RoomService/ListRooms", b"{", EVERYTHING),
    Call("RoomService/ListRooms", b"\x0a\xff", EVERYTHING, content_type="application/protobuf"),
    Call("RoomService/Nothing", {}, EVERYTHING),
    Call("RoomService/CreateRoom", {"name": "made", "emptyTimeout": 33, "maxParticipants": 4}, EVERYTHING),
    Call("RoomService/CreateRoom", {"name": "made", "metadata": "m"}, EVERYTHING, differs=LIVE),
    Call("RoomService/CreateRoom", {}, EVERYTHING),
    Call("RoomService/CreateRoom", {"name": "x" * 300}, EVERYTHING, differs=NAMED),
    Call("RoomService/CreateRoom", {"name": "y", "metadata": "m" * 600_000}, EVERYTHING),
    Call("RoomService/CreateRoom", {"name": "y", "room_preset": "none"}, EVERYTHING),
    Call("RoomService/CreateRoom", {"name": "y", "egress": {}}, EVERYTHING),
    Call("RoomService/CreateRoom", {"name": "z", "egress": {"room": {}}}, EVERYTHING, differs=RECORDING),
    Call("RoomService/CreateRoom", {"name": "e", "egress": {"participant": {}, "tracks": {}}}, EVERYTHING),
    Call("RoomService/CreateRoom", {"name": "y"}, {}),
    Call("RoomService/DeleteRoom", {"room": "made"}, EVERYTHING),
    Call("RoomService/DeleteRoom", {"room": "nowhere"}, EVERYTHING),
    Call("RoomService/UpdateRoomMetadata", {"room": ROOM, "metadata": "data"}, ADMIN),
    Call("RoomService/UpdateRoomMetadata", {"room": "nowhere"}, ADMIN | {"room": "nowhere"}),
    Call("RoomService/UpdateRoomMetadata", {"room": ROOM}, ADMIN | {"room": "other"}),
    Call("RoomService/ListParticipants", {"room": ROOM}, ADMIN),
    Call("RoomService/ListParticipants", {"room": "nowhere"}, ADMIN | {"room": "nowhere"}),
    Call("RoomService/GetParticipant", {"room": ROOM, "identity": "ann"}, ADMIN),
    Call("RoomService/GetParticipant", {"room": ROOM, "identity": "nobody"}, ADMIN),
    Call("RoomService/UpdateParticipant", {"room": ROOM, "identity": "ann", "metadata": "null"}, ADMIN),
    Call(
        "RoomService/UpdateParticipant",
        {"room": ROOM, "identity": "ann", "name": "Anna", "attributes": {"a": "1", "b": ""}},
        ADMIN,
    ),
    Call(
        "RoomService/UpdateParticipant",
        {"room": ROOM, "identity": "ann", "permission": {"canSubscribe": True, "canPublishSources": ["CAMERA"]}},
        ADMIN,
    ),
    Call("RoomService/UpdateParticipant", {"room": ROOM, "identity": "nobody"}, ADMIN),
    Call("RoomService/UpdateParticipant", {"room": ROOM, "identity": "ann", "name": "n" * 300}, ADMIN),
    Call("RoomService/UpdateParticipant", {"room": ROOM, "identity": "ann", "metadata": "m" * 600_000}, ADMIN),
    Call("RoomService/UpdateParticipant", {"room": ROOM, "identity": "ann", "attributes": {"k": "v" * 70_000}}, ADMIN),
    Call("RoomService/MutePublishedTrack", {"room": ROOM, "identity": "ann", "track_sid": "x", "muted": True}, ADMIN),
    Call("RoomService/MutePublishedTrack", {"room": ROOM, "identity": "ann", "track_sid": "x"}, ADMIN),
    Call("RoomService/MutePublishedTrack", {"room": ROOM, "identity": "nobody"}, ADMIN, differs=NOT_FOUND),
    Call("RoomService/UpdateSubscriptions", {"room": ROOM, "identity": "ann", "track_sids": ["x"]}, ADMIN),
    Call("RoomService/UpdateSubscriptions", {"room": ROOM, "identity": "nobody"}, ADMIN, differs=NOT_FOUND),
    Call("RoomService/SendData", {"room": ROOM, "data": "aGVsbG8=", "kind": "RELIABLE"}, ADMIN),
    Call("RoomService/SendData", {"room": ROOM, "nonce": "aGVsbG8="}, ADMIN),
    Call("RoomService/SendData", {"room": "nowhere"}, ADMIN | {"room": "nowhere"}, differs=NOT_FOUND),
    Call("RoomService/PerformRpc", {"room": ROOM, "method": "m"}, ADMIN),
    Call("RoomService/PerformRpc", {"room": ROOM, "destination_identity": "ann", "method": "none"}, ADMIN),
    Call("RoomService/PerformRpc", {"room": ROOM, "destination_identity": "ann", "payload": "p" * 20_000}, ADMIN),
    Call("RoomService/PerformRpc", {"room": ROOM, "destination_identity": "nobody"}, ADMIN, differs=NOT_FOUND),
    Call("RoomService/MoveParticipant", {"room": ROOM, "identity": "ann", "destination_room": "x"}, ADMIN),
    Call(
        "RoomService/MoveParticipant",
        {"room": ROOM, "identity": "ann", "destination_room": "x"},
        ADMIN | {"destinationRoom": "x"},
    ),
    Call(
        "RoomService/ForwardParticipant",
        {"room": ROOM, "identity": "ann", "destination_room": "x"},
        ADMIN | {"destinationRoom": "x"},
    ),
    Call(
        "RoomService/MoveParticipant",
        {"room": ROOM, "identity": "nobody", "destination_room": "x"},
        ADMIN | {"destinationRoom": "x"},
        differs=NOT_FOUND,
    ),
    Call(
        "RoomService/ForwardParticipant",
        {"room": ROOM, "identity": "ann", "destination_room": ROOM},
        ADMIN | {"destinationRoom": ROOM},
    ),
    Call("AgentDispatchService/CreateDispatch", {"room": ROOM, "agent_name": "scribe", "metadata": "m"}, ADMIN),
    Call("AgentDispatchService/CreateDispatch", {"room": ROOM, "deployment": "d" * 400}, ADMIN, differs=NAMED),
    Call("AgentDispatchService/ListDispatch", {"room": ROOM}, ADMIN, differs=DISPATCH),
    Call("AgentDispatchService/ListDispatch", {"room": ROOM, "dispatch_id": "AD_none"}, ADMIN),
    Call("AgentDispatchService/DeleteDispatch", {"room": ROOM, "dispatch_id": "AD_none"}, ADMIN),
    Call("AgentDispatchService/ListDispatch", {"room": "nowhere"}, ADMIN | {"room": "nowhere"}, differs=NOT_FOUND),
    Call("Egress/ListEgress", {}, EVERYTHING),
    Call("Egress/StartRoomCompositeEgress", {"room_name": ROOM}, EVERYTHING, differs=RECORDING),
    Call("Egress/StopEgress", {"egress_id": "x"}, EVERYTHING),
    Call("Egress/UpdateLayout", {"egress_id": "x"}, EVERYTHING),
    Call("Egress/ListEgress", {}, ADMIN),
    Call("Ingress/ListIngress", {}, EVERYTHING),
    Call("Ingress/CreateIngress", {}, EVERYTHING),
    Call("Ingress/ListIngress", {}, ADMIN),
    Call("SIP/ListSIPDispatchRule", {}, ADMIN),
    Call("SIP/ListSIPDispatchRule", {}, SIP_ADMIN, differs=SIP),
    Call("RoomService/RemoveParticipant", {"room": ROOM, "identity": "nobody"}, ADMIN),
    Call("RoomService/RemoveParticipant", {"room": ROOM, "identity": "ann"}, ADMIN),
)


@pytest.fixture(scope="session")
def ours(own_network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerUnderTest]:
    """A server of ours without the rooms of other tests, which a list of all rooms would name."""
    with running_server(tmp_path_factory.mktemp("ours"), node_ip=ADDRESS) as running:
        yield running


@pytest.fixture(scope="session")
def theirs(own_network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerUnderTest]:
    """A livekit-server."""
    with running_livekit(tmp_path_factory.mktemp("livekit")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def both(
    theirs: ServerUnderTest, ours: ServerUnderTest, make_peer: PeerFactory
) -> AsyncIterator[tuple[ServerUnderTest, ServerUnderTest]]:
    """Both servers, with the same participant in the same room."""
    for each in (ours, theirs):
        ann: SdkPeer = await make_peer("sdk", "ann")
        await ann.join(each, ROOM)
    yield ours, theirs


async def ask(server: ServerUnderTest, call: Call) -> tuple[int, str, Any]:
    headers = {"Content-Type": call.content_type}
    if call.grants is not None:
        claims = {"iss": KEY, "sub": "backend", "nbf": 0, "exp": 2**31, "video": call.grants, **call.grants}
        headers["Authorization"] = f"Bearer {jwt.encode(claims, SECRET, algorithm='HS256')}"
    content = call.body if isinstance(call.body, bytes) else json.dumps(call.body).encode()
    url = f"{server.http_url}/twirp/livekit.{call.name}"
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        answer = await client.request(call.method, url, content=content, headers=headers)
    kind = answer.headers["content-type"]
    body = answer.json() if kind.startswith("application/json") else answer.text
    return answer.status_code, kind, steady(body)


def steady(value: Any) -> Any:
    """A JSON value without what differs from run to run."""
    if isinstance(value, dict):
        return {key: "..." if key in VOLATILE else steady(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [steady(inner) for inner in value]
    return value.removeprefix(PREFIX).strip() if isinstance(value, str) else value


@pytest.mark.asyncio(loop_scope="session")
async def test_both_servers_answer_alike(both: tuple[ServerUnderTest, ServerUnderTest]) -> None:
    ours, theirs = both
    wrong = []
    for call in CALLS:
        mine, other = await ask(ours, call), await ask(theirs, call)
        if (mine != other) != bool(call.differs):
            wrong.append(f"{call.name} {str(call.body)[:80]} {call.grants}\n  ours {mine}\ntheirs {other}")
    assert wrong == []


@pytest.mark.asyncio(loop_scope="session")
async def test_both_servers_tell_the_same_of_a_visit(
    own_network: None, make_peer: PeerFactory, room: str, tmp_path: Path
) -> None:
    told = {}
    for name in ("ours", "theirs"):
        async with receiving() as receiver:
            webhook = {"api_key": KEY, "urls": [receiver.url]}
            with contextlib.ExitStack() as stack:
                server = stack.enter_context(_telling(name, tmp_path, webhook=webhook, room={"departure_timeout": 1}))
                told[name] = await _visit(server, receiver, make_peer, room)
                await asyncio.to_thread(stack.close)
    assert told["ours"] == told["theirs"]


def _telling(name: str, folder: Path, **settings: Any) -> contextlib.AbstractContextManager[ServerUnderTest]:
    """One of the servers, with settings of LiveKit's file."""
    if name == "theirs":
        return running_livekit(folder, **settings)
    return running_server(folder, node_ip=ADDRESS, extra=("--config-body", json.dumps(settings)))


async def _visit(
    server: ServerUnderTest, receiver: Receiver, make_peer: PeerFactory, room: str
) -> list[tuple[Any, ...]]:
    """One publishes, mutes, is displaced by itself, and leaves; a hidden one is removed. Returns what was told."""
    ann: SdkPeer = await make_peer("sdk", "ann")
    await ann.join(server, room)
    await receiver.wait_for(2)
    await ann.publish_audio()
    await receiver.wait_for(3)
    (publication,) = ann.room.local_participant.track_publications.values()
    assert publication.track is not None
    publication.track.mute()
    bob: SdkPeer = await make_peer("sdk-dual", "bob")
    await bob.join(server, room, hidden=True)
    await receiver.wait_for(4)
    again: SdkPeer = await make_peer("sdk", "ann")
    await again.join(server, room)
    await receiver.wait_for(7)
    removal = Call(
        "RoomService/RemoveParticipant", {"room": room, "identity": "bob"}, {"roomAdmin": True, "room": room}
    )
    _, _, answer = await ask(server, removal)
    assert answer == {}
    await receiver.wait_for(8)
    await again.leave()
    await receiver.wait_for(10)
    return [
        (
            event.event,
            event.participant.identity,
            event.participant.name,
            event.participant.disconnect_reason,
            event.track.source,
            event.track.mime_type,
            event.track.muted,
        )
        for event in receiver.events
    ]


def test_every_difference_is_told_to_users() -> None:
    told = (Path(__file__).parents[2] / "docs" / "compatibility.md").read_text(encoding="utf-8")
    assert [call.differs for call in CALLS if call.differs and f"**{call.differs}**" not in told] == []
