"""A client whose WebSocket broke comes back to the same stay in the room and learns what it missed."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from livekit.protocol.models import DisconnectReason

from bench.clients.endpoint import make_context
from tests.clients.conftest import PeerFactory
from tests.clients.facts import knows, misses, reads
from tests.clients.json_peer import JsonSocket, json_socket
from tests.clients.light_client import LightClient
from tests.clients.network import ADDRESS
from tests.clients.peers import SdkPeer, eventually
from tests.clients.sfu_server import ServerUnderTest

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]


def _known(socket: JsonSocket) -> dict[str, Any]:
    """Participants by identity, as told last."""
    known: dict[str, Any] = {}
    for name, content in socket.seen:
        if name == "update":
            known |= {info["identity"]: info for info in content["participants"]}
    return known


@contextlib.asynccontextmanager
async def _light(server: ServerUnderTest, token: str) -> AsyncIterator[LightClient]:
    async with json_socket(server.url, token) as socket:
        client = LightClient(socket, (ADDRESS, server.udp_port), make_context())
        with contextlib.closing(client.endpoint):
            yield client


async def _connected(socket: JsonSocket) -> None:
    """Wait until the server counts the client's media as connected: only then a stay outlives its socket."""

    async def active() -> bool:
        return bool(_known(socket).get("light", {}).get("state") == "ACTIVE")

    await eventually(active, "media is connected")


async def test_who_resumes_learns_what_happened_meanwhile(
    server: ServerUnderTest, make_peer: PeerFactory, room: str
) -> None:
    ada: SdkPeer = await make_peer("sdk", "ada")
    await ada.join(server, room, canUpdateOwnMetadata=True)
    grace: SdkPeer = await make_peer("sdk", "grace")
    await grace.join(server, room)
    token = server.token(room, "light")
    async with _light(server, token) as client:
        before = client.socket
        await client.publish()
        sid = (await before.expect("join"))["participant"]["sid"]
        await knows(ada, "light")
        await _connected(before)
        before.cut()
        await before.expect_close()
        await ada.room.local_participant.set_name("Countess")
        await ada.publish_audio()
        await grace.leave()
        await ada.say("you are away")
        await misses(ada, "grace")  # the server knows as well, then
        async with json_socket(server.url, token, reconnect="1", sid=sid) as after:
            client.socket = after
            await after.expect("reconnect")
            assert "join" not in dict(after.seen)

            async def informed() -> bool:
                known = _known(after)
                return (
                    known.get("ada", {}).get("name") == "Countess"
                    and bool(known["ada"].get("tracks"))
                    and known.get("grace", {}).get("state") == "DISCONNECTED"
                )

            await eventually(informed, "the news", detail=lambda: _told(after))
            wanted = await after.expect("mediaSectionsRequirement")
            answer = await client.offer(wanted.get("numAudios", 0))
            assert f"|{_known(after)['ada']['tracks'][0]['sid']}" in answer
            await after.send(leave={"reason": "CLIENT_INITIATED"})
            assert await after.expect_close() == 1000

    async def alone() -> bool:
        return not ada.room.remote_participants

    await eventually(alone, "the light client has left")


async def _told(socket: JsonSocket) -> list[tuple[str, Any]]:
    return socket.seen


async def test_a_stay_that_has_ended_cannot_be_resumed(
    server: ServerUnderTest, make_peer: PeerFactory, room: str
) -> None:
    ada: SdkPeer = await make_peer("sdk", "ada")
    await ada.join(server, room)
    token = server.token(room, "light")
    for sid in ("PA_none", ada.room.local_participant.sid, ""):
        async with json_socket(server.url, token, reconnect="1", sid=sid) as socket:
            leave = await socket.expect("leave")
            assert leave["action"] == "RECONNECT"
            assert leave["reason"] == DisconnectReason.Name(DisconnectReason.STATE_MISMATCH)
            assert await socket.expect_close() != 1000  # livekit-client would take that for a request to end
    assert not ada.room.remote_participants
    grace: SdkPeer = await make_peer("sdk", "grace")
    await grace.join(server, room)
    await knows(ada, "grace")
    await grace.say("undisturbed")
    await reads(ada, "grace", "undisturbed")


async def test_a_client_that_claims_tracks_nobody_knows_has_to_start_again(server: ServerUnderTest, room: str) -> None:
    token = server.token(room, "light")
    async with _light(server, token) as client:
        before = client.socket
        await client.publish()
        sid = (await before.expect("join"))["participant"]["sid"]
        await _connected(before)
        before.cut()
        await before.expect_close()
        async with json_socket(server.url, token, reconnect="1", sid=sid) as after:
            await after.expect("reconnect")
            await after.send(syncState={"publishTracks": [{"cid": "x", "track": {"sid": "TR_none"}}]})
            leave = await after.expect("leave")
            assert leave["action"] == "RECONNECT"
