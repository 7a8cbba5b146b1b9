"""A client written by hand with JSON frames takes part in a call; whatever nonsense one sends, the others go on."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
import websockets
from livekit.protocol.models import DisconnectReason
from livekit.protocol.rtc import SignalResponse

from bench.clients.endpoint import make_context
from tests.clients.conftest import PeerFactory
from tests.clients.facts import had, hears, reads
from tests.clients.json_peer import JsonPeer, JsonSocket, json_socket
from tests.clients.light_client import LightClient
from tests.clients.network import ADDRESS
from tests.clients.peers import BrowserPeer, SdkPeer, eventually
from tests.clients.sfu_server import ServerUnderTest

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]

TWO_MIB = 2 * 1024 * 1024
ONE_MIB = 1024 * 1024
SOUNDS = 25


@pytest.mark.parametrize("path", ["/rtc/v1", "/rtc"])
async def test_a_json_client_hears_and_is_heard_by_a_browser(
    server: ServerUnderTest, make_peer: PeerFactory, room: str, path: str
) -> None:
    ada: BrowserPeer = await make_peer("chromium", "ada")
    await ada.join(server, room)
    await ada.publish_audio()
    hand = JsonPeer("hand", path)
    try:
        await hand.join(server, room)
        await hand.publish_audio()
        await hears(ada, "hand")
        await hears(hand, "ada")
        await hand.say("written by hand")
        await reads(ada, "hand", "written by hand")
        await ada.say("read by hand")
        await reads(hand, "ada", "read by hand")
        linus: SdkPeer = await make_peer("sdk", "linus")
        await linus.join(server, room)
        await linus.publish_audio()
        await hears(linus, "hand")
        await hears(hand, "linus")
    finally:
        await hand.leave()
    await had(ada, "ParticipantDisconnected", "hand")


async def test_media_of_a_track_begins_with_the_answer_to_the_offer_that_tells_of_it(
    server: ServerUnderTest, room: str
) -> None:
    hand = JsonPeer("hand", "/rtc")
    try:
        await hand.join(server, room)
        await eventually(partial(_is_connected, hand), "the subscriber connection")
        async with json_socket(server.url, server.token(room, "ada", canSubscribe=False)) as socket:
            ada = LightClient(socket, (ADDRESS, server.udp_port), make_context())
            with contextlib.closing(ada.endpoint):
                hand.may_answer.clear()
                offers = len(hand.socket.seen)
                await ada.publish()
                await _speak(ada)
                await hand.socket.expect("offer", offers)
                await _speak(ada)
                assert "trackSubscribed" not in [name for name, _ in socket.seen]
                hand.may_answer.set()
                await eventually(partial(_speak, ada, until="trackSubscribed"), "media after the answer")
                await eventually(partial(_receives, hand, "ada"), "media from ada", detail=hand.received)
    finally:
        await hand.leave()


@pytest.mark.parametrize("path", ["/rtc/v1", "/rtc"])
async def test_a_client_that_waits_for_a_packet_is_shown_a_muted_track_and_then_hears_it(
    server: ServerUnderTest, room: str, path: str
) -> None:
    """As pion does: silence until the publisher speaks, and the voice in the same numbers."""
    async with json_socket(server.url, server.token(room, "ada", canSubscribe=False)) as socket:
        ada = LightClient(socket, (ADDRESS, server.udp_port), make_context())
        go, js = JsonPeer("go", path, sdk="go"), JsonPeer("js", path, sdk="js")
        try:
            with contextlib.closing(ada.endpoint):
                await ada.publish()
                await _speak(ada)
                sid = (await socket.expect("trackPublished"))["track"]["sid"]
                await socket.send(mute={"sid": sid, "muted": True})
                await asyncio.gather(go.join(server, room), js.join(server, room))
                ada.endpoint.check()
                await eventually(partial(_receives, go, "ada"), "silence", detail=go.received)
                assert not await _receives(js, "ada")
                assert "trackSubscribed" not in [name for name, _ in socket.seen]
                await socket.send(mute={"sid": sid, "muted": False})
                await eventually(partial(_speak, ada, until="trackSubscribed"), "media")
                await eventually(partial(_is_heard, ada, js), "media for the other", detail=js.received)
        finally:
            await asyncio.gather(go.leave(), js.leave())


async def _is_connected(peer: JsonPeer) -> bool:
    return peer.subscriber is not None and peer.subscriber.connectionState == "connected"


async def _receives(peer: JsonPeer, publisher: str) -> bool:
    return (await peer.received())[publisher]["microphone"].packets > 0


async def _is_heard(client: LightClient, peer: JsonPeer) -> bool:
    await _speak(client)
    return await _receives(peer, "ada")


async def _speak(client: LightClient, until: str = "") -> bool:
    """Send half a second of sound; whether the publisher has been told `until` then."""
    client.endpoint.check()
    for _ in range(SOUNDS):
        client.speak()
        await asyncio.sleep(0.02)
    return until in [name for name, _ in client.socket.seen]


@pytest_asyncio.fixture(loop_scope="session")
async def call(
    server: ServerUnderTest, make_peer: PeerFactory, room: str
) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    """Two native clients in the room, one of which hears the other; the value checks that this goes on."""
    speaker: SdkPeer = await make_peer("sdk", "speaker")
    listener: SdkPeer = await make_peer("sdk-dual", "listener")
    await asyncio.gather(speaker.join(server, room), listener.join(server, room))
    await speaker.publish_audio()
    await hears(listener, "speaker")

    async def goes_on() -> None:
        await hears(listener, "speaker")
        assert not speaker_left

    speaker_left: list[Any] = []
    for peer in (speaker, listener):
        peer.room.on("disconnected", speaker_left.append)
        peer.room.on("reconnecting", lambda: speaker_left.append("reconnecting"))
    yield goes_on


Call = Callable[[], Awaitable[Any]]


async def _still_serves(socket: JsonSocket) -> None:
    start = len(socket.seen)
    await socket.send(pingReq={"timestamp": "7", "rtt": "0"})
    assert (await socket.expect("pongResp", start))["lastPingTimestamp"] == "7"


@pytest.mark.parametrize(
    "frame",
    ["", "{", "[]", "null", '"text"', '{"offer": 3}', '{"mute": {"muted": "perhaps"}}', "[" * 100_000, "\ud7ff{}x"],
)
async def test_malformed_json_is_answered_and_forgiven(
    server: ServerUnderTest, room: str, call: Call, frame: str
) -> None:
    async with json_socket(server.url, server.token(room, "hand")) as socket:
        await socket.expect("join")
        start = len(socket.seen)
        await socket.send_frame(frame)
        answer = await socket.expect("requestResponse", start)
        assert answer["reason"] == "INVALID_REQUEST"
        assert answer["message"]
        await _still_serves(socket)
    await call()


async def test_garbage_protobuf_is_answered_and_forgiven(server: ServerUnderTest, room: str, call: Call) -> None:
    url = f"{server.url}/rtc/v1?access_token={server.token(room, 'hand')}&protocol=17"
    async with asyncio.timeout(20), websockets.connect(url, proxy=None) as socket:
        assert SignalResponse.FromString(await socket.recv(decode=False)).HasField("join")
        await socket.send(b"\xff" * 50)
        answer = SignalResponse()
        while not answer.HasField("request_response"):
            answer = SignalResponse.FromString(await socket.recv(decode=False))
        assert "protobuf" in answer.request_response.message
    await call()


async def test_who_sends_nothing_but_garbage_is_sent_away_with_a_reason(
    server: ServerUnderTest, room: str, call: Call
) -> None:
    async with json_socket(server.url, server.token(room, "hand")) as socket:
        await socket.expect("join")
        with contextlib.suppress(websockets.ConnectionClosed):
            for _ in range(50):
                await socket.send_frame("{")
        leave = await socket.expect("leave")
        assert leave["reason"] == DisconnectReason.Name(DisconnectReason.STATE_MISMATCH)
        await socket.expect_close()
    await call()


async def test_unknown_fields_and_kinds_are_ignored(server: ServerUnderTest, room: str, call: Call) -> None:
    async with json_socket(server.url, server.token(room, "hand")) as socket:
        await socket.expect("join")
        start = len(socket.seen)
        await socket.send(hologram={"depth": 3})
        await socket.send(addTrack={"cid": "a", "type": "AUDIO", "source": "MICROPHONE", "smell": "roses"})
        assert (await socket.expect("trackPublished", start))["cid"] == "a"
        await _still_serves(socket)
        assert "requestResponse" not in [name for name, _ in socket.seen[start:]]
    await call()


@pytest.mark.parametrize(
    ("request_name", "content", "answer", "fact"),
    [
        ("mute", {"sid": "TR_none", "muted": True}, "requestResponse", ("reason", "NOT_FOUND")),
        ("updateAudioTrack", {"trackSid": "TR_none"}, "requestResponse", ("reason", "NOT_FOUND")),
        ("updateVideoTrack", {"trackSid": "TR_none"}, "requestResponse", ("reason", "NOT_FOUND")),
        ("addTrack", {"cid": "a", "sid": "TR_none"}, "requestResponse", ("reason", "NOT_FOUND")),
        ("addTrack", {"cid": "a", "type": "DATA"}, "requestResponse", ("reason", "UNSUPPORTED_TYPE")),
        ("addTrack", {"type": "AUDIO"}, "requestResponse", ("reason", "INVALID_REQUEST")),
        (
            "subscription",
            {"trackSids": ["TR_none"], "subscribe": True},
            "subscriptionResponse",
            ("trackSid", "TR_none"),
        ),
        ("trackSetting", {"trackSids": ["x" * 1000]}, "requestResponse", ("reason", "INVALID_REQUEST")),
    ],
)
async def test_unknown_tracks_get_a_clear_answer(
    server: ServerUnderTest, room: str, request_name: str, content: Any, answer: str, fact: tuple[str, str]
) -> None:
    async with json_socket(server.url, server.token(room, "hand")) as socket:
        await socket.expect("join")
        start = len(socket.seen)
        await socket.send(**{request_name: content})
        received = await socket.expect(answer, start)
        assert received[fact[0]] == fact[1]
        await _still_serves(socket)


async def test_publishing_without_the_grant_is_refused(server: ServerUnderTest, room: str) -> None:
    async with json_socket(server.url, server.token(room, "hand", canPublish=False)) as socket:
        await socket.expect("join")
        start = len(socket.seen)
        await socket.send(addTrack={"cid": "a", "type": "AUDIO", "source": "MICROPHONE"})
        refused = await socket.expect("requestResponse", start)
        assert (refused["reason"], refused["addTrack"]["cid"]) == ("NOT_ALLOWED", "a")
        assert "trackPublished" not in [name for name, _ in socket.seen[start:]]


_SESSION = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=ice-ufrag:abcd\r\na=ice-pwd:{}\r\n"
    "a=fingerprint:sha-256 {}\r\na=setup:actpass\r\n"
).format("p" * 24, ":".join(["AB"] * 32))
_SECTION = (
    "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:{}\r\na=recvonly\r\na=rtcp-mux\r\n"
    "a=rtpmap:111 opus/48000/2\r\n"
)


@pytest.mark.parametrize(
    "sdp",
    [
        "",
        "nonsense",
        _SESSION + "m=audio",
        _SESSION.replace("a=fingerprint", "a=x-fingerprint") + _SECTION.format(0),
        _SESSION + _SECTION.format(0) + "a=x:" + "y" * ONE_MIB + "\r\n",
        _SESSION + "".join(_SECTION.format(number) for number in range(1_001)),
        _SESSION + _SECTION.format(0) * 2,
    ],
    ids=["empty", "text", "half a section", "no fingerprint", "more than 1 MiB", "1,001 sections", "a mid twice"],
)
async def test_an_unusable_offer_is_answered_with_leave(
    server: ServerUnderTest, room: str, call: Call, sdp: str
) -> None:
    async with json_socket(server.url, server.token(room, "hand")) as socket:
        await socket.expect("join")
        await socket.send(offer={"type": "offer", "sdp": sdp, "id": 1})
        leave = await socket.expect("leave")
        assert leave["reason"] not in ("", "UNKNOWN_REASON")
        await socket.expect_close()
    await call()


async def test_a_message_beyond_two_mebibytes_closes_the_socket(server: ServerUnderTest, room: str, call: Call) -> None:
    async with json_socket(server.url, server.token(room, "hand")) as socket:
        await socket.expect("join")
        with contextlib.suppress(websockets.ConnectionClosed):
            await socket.send_frame(json.dumps({"offer": {"sdp": "x" * TWO_MIB}}))
        assert await socket.expect_close() == 1009
    await call()


async def test_a_flood_of_requests_does_not_hold_up_the_others(server: ServerUnderTest, room: str, call: Call) -> None:
    async with json_socket(server.url, server.token(room, "hand")) as socket:
        await socket.expect("join")
        for number in range(2_000):
            await socket.send(trackSetting={"trackSids": [f"TR_{number}"], "disabled": True})
        await call()
        await _still_serves(socket)
