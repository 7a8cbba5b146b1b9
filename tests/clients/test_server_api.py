"""The server API beside real clients: what LiveKit's own client for it asks for happens to SDKs and browsers."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from livekit import rtc
from livekit.api import AccessToken, LiveKitAPI, TwirpError, VideoGrants
from livekit.protocol import models
from livekit.protocol import room as protocol

from tests.clients.conftest import PeerFactory
from tests.clients.facts import hears
from tests.clients.json_peer import JsonPeer
from tests.clients.peers import BrowserPeer, SdkPeer, eventually
from tests.clients.sfu_server import KEY, SECRET, ServerUnderTest

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]

SILENT_LOOKS = 8
"""Looks at a track that must have brought nothing in between."""


@pytest_asyncio.fixture(loop_scope="session")
async def api(server: ServerUnderTest) -> AsyncIterator[LiveKitAPI]:
    async with LiveKitAPI(server.http_url, KEY, SECRET) as client:
        yield client


async def test_a_client_that_does_not_heed_a_mute_is_not_heard(
    server: ServerUnderTest, make_peer: PeerFactory, room: str, api: LiveKitAPI
) -> None:
    ann: SdkPeer = await make_peer("sdk", "ann")
    await ann.join(server, room)
    hand = JsonPeer("hand")
    try:
        await hand.join(server, room)
        sid = await hand.publish_audio()
        await hears(ann, "hand")
        request = protocol.MuteRoomTrackRequest(room=room, identity="hand", track_sid=sid, muted=True)
        assert (await api.room.mute_published_track(request)).track.muted
        assert (await hand.socket.expect("mute")) == {"sid": sid, "muted": True}

        async def packets() -> int:
            return (await ann.received())["hand"]["microphone"].packets

        counts = [await packets()]

        async def nothing_new() -> bool:
            await asyncio.sleep(0.1)
            counts.append(await packets())
            return counts[-1] == counts[-2]

        await eventually(nothing_new, "the last packet that was on its way")
        assert [await nothing_new() for _ in range(SILENT_LOOKS)] == [True] * SILENT_LOOKS
        await hand.socket.send(mute={"sid": sid, "muted": False})

        async def something_new() -> bool:
            return await packets() > counts[-1]

        await eventually(something_new, "packets after the client said that it is not muted")
    finally:
        await hand.leave()


async def test_an_application_moderates_a_call(
    server: ServerUnderTest, make_peer: PeerFactory, room: str, api: LiveKitAPI
) -> None:
    ann: SdkPeer = await make_peer("sdk", "ann")
    ada: BrowserPeer = await make_peer("chromium", "ada")
    events: list[tuple[str, Any]] = []
    ann.room.on("disconnected", lambda reason: events.append(("disconnected", reason)))
    ann.room.on("room_metadata_changed", lambda old, new: events.append(("metadata", new)))
    await api.room.create_room(protocol.CreateRoomRequest(name=room, metadata="before"))
    await ann.join(server, room)
    await ada.join(server, room)
    assert ann.room.metadata == "before"
    camera = await ann.publish_video()
    await ann.publish_audio()
    await hears(ada, "ann")

    await api.room.update_room_metadata(protocol.UpdateRoomMetadataRequest(room=room, metadata="recording"))
    await eventually(lambda: _is(("metadata", "recording") in events), "the room's metadata")

    changed = protocol.UpdateParticipantRequest(
        room=room,
        identity="ann",
        name="Ann B.",
        attributes={"hand": "up"},
        permission=models.ParticipantPermission(
            can_subscribe=True, can_publish=True, can_publish_data=True, can_publish_sources=[models.MICROPHONE]
        ),
    )
    await api.room.update_participant(changed)

    async def ada_sees() -> Any:
        return await ada.run(
            "(p => [p.name, p.attributes.hand, [...p.trackPublications.values()].map(t => t.source)])"
            "([...room.remoteParticipants.values()].find(p => p.identity === 'ann'))"
        )

    async def ada_saw_it() -> bool:
        return bool(await ada_sees() == ["Ann B.", "up", ["microphone"]])

    await eventually(ada_saw_it, "the new name, attribute and permission", detail=ada_sees)
    assert ann.room.local_participant.name == "Ann B."
    listed = await api.room.list_participants(protocol.ListParticipantsRequest(room=room))
    assert {each.identity: each.state for each in listed.participants} == {
        "ann": models.ParticipantInfo.ACTIVE,
        "ada": models.ParticipantInfo.ACTIVE,
    }
    assert camera not in [track.sid for each in listed.participants for track in each.tracks]

    data = protocol.SendDataRequest(room=room, data=b"bell", topic="n", destination_identities=["ann"])
    await api.room.send_data(data)
    await eventually(lambda: _is(("", "bell") in ann._messages), "data of the server")
    assert ("", "bell") not in await ada.messages()

    request = protocol.RoomParticipantIdentity(room=room, identity="ann")
    await api.room.remove_participant(request)
    removed = ("disconnected", models.PARTICIPANT_REMOVED)
    await eventually(lambda: _is(removed in events), "the removal", detail=lambda: _is(events))
    with pytest.raises(TwirpError) as caught:
        await api.room.get_participant(request)
    assert caught.value.code == "not_found"
    await api.room.delete_room(protocol.DeleteRoomRequest(room=room))

    async def ada_is_out() -> bool:
        return bool(await ada.run("room.state === 'disconnected'"))

    await eventually(ada_is_out, "the end of the room")


async def test_an_application_calls_methods_of_participants(
    server: ServerUnderTest, make_peer: PeerFactory, room: str, api: LiveKitAPI
) -> None:
    ann: SdkPeer = await make_peer("sdk", "ann")
    await ann.join(server, room)

    async def greet(call: rtc.RpcInvocationData) -> str:
        if call.payload == "nobody":
            raise rtc.RpcError(1234, "nobody is here", "really")
        return f"hello {call.payload}"

    ann.room.local_participant.register_rpc_method("greet", greet)
    grants = VideoGrants(room_admin=True, room=room)
    headers = {"Authorization": f"Bearer {AccessToken(KEY, SECRET).with_grants(grants).to_jwt()}"}

    async def call(method: str, payload: str) -> str:
        request = protocol.PerformRpcRequest(room=room, destination_identity="ann", method=method, payload=payload)
        client = api.room._client
        answer = await client.request("RoomService", "PerformRpc", request, headers, protocol.PerformRpcResponse)
        return str(answer.payload)

    assert await call("greet", "you") == "hello you"
    errors = {("greet", "nobody"): "internal", ("sing", ""): "invalid_argument"}
    for arguments, code in errors.items():
        with pytest.raises(TwirpError) as caught:
            await call(*arguments)
        assert caught.value.code == code
    assert caught.value.message.startswith("RpcError 1400: ")


async def _is(value: Any) -> Any:
    return value
