"""What participants send each other besides media: packets, text, files, method calls; and who gets it from whom."""

import asyncio
import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from livekit import rtc
from livekit.protocol.models import DataPacket, UserPacket

from tests.clients.conftest import Join
from tests.clients.facts import knows, reads
from tests.clients.peers import BrowserPeer, Peer, SdkPeer, eventually

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]

LONG_TEXT = "".join(f"{number} Grüße 👋\n" for number in range(5_000))
"""Many chunks of a stream, and characters of one to four bytes across their borders."""
FILE = bytes(range(256)) * 1_000
LARGE = 60_000
"""Bytes of one reliable message, near the 64 KiB that a data channel takes."""


def keep_texts(peer: SdkPeer, topic: str = "lk.chat") -> list[tuple[str, str]]:
    """Collect the text streams that reach a native client as (sender, whole text)."""
    kept: list[tuple[str, str]] = []
    tasks: set[asyncio.Task[None]] = set()

    async def read(reader: rtc.TextStreamReader, sender: str) -> None:
        kept.append((sender, await reader.read_all()))

    def opened(reader: rtc.TextStreamReader, sender: str) -> None:
        tasks.add(asyncio.get_running_loop().create_task(read(reader, sender)))

    peer.room.register_text_stream_handler(topic, opened)
    return kept


def keep_files(peer: SdkPeer) -> list[tuple[str, str, bytes]]:
    """Collect the byte streams of topic "files" as (sender, name, content)."""
    kept: list[tuple[str, str, bytes]] = []
    tasks: set[asyncio.Task[None]] = set()

    async def read(reader: rtc.ByteStreamReader, sender: str) -> None:
        kept.append((sender, reader.info.name, b"".join([chunk async for chunk in reader])))

    def opened(reader: rtc.ByteStreamReader, sender: str) -> None:
        tasks.add(asyncio.get_running_loop().create_task(read(reader, sender)))

    peer.room.register_byte_stream_handler("files", opened)
    return kept


async def test_a_long_text_stream_reaches_browsers_and_native_clients_whole(join: Join) -> None:
    ada: BrowserPeer = await join("chromium", "ada")
    grace: SdkPeer = await join("sdk", "grace")
    dual: SdkPeer = await join("sdk-dual", "dual")
    texts, dual_texts = keep_texts(grace), keep_texts(dual)
    await knows(ada, "dual")
    await knows(grace, "dual")
    await ada.run(f"room.localParticipant.sendText({json.dumps(LONG_TEXT)}, {{topic: 'lk.chat'}}).then(() => 1)")
    for kept in (texts, dual_texts):
        assert await eventually(partial(_first, kept), "ada's text") == ("ada", LONG_TEXT)
    await grace.room.local_participant.send_text(LONG_TEXT[::-1], topic="lk.chat")
    await reads(ada, "grace", LONG_TEXT[::-1])


async def _first(kept: list[Any]) -> Any:
    return kept[0] if kept else None


async def test_files_arrive_whole_in_both_directions(join: Join, tmp_path: Path) -> None:
    ada: BrowserPeer = await join("chromium", "ada")
    grace: SdkPeer = await join("sdk", "grace")
    files = keep_files(grace)
    await knows(ada, "grace")
    await knows(grace, "ada")
    file = "new File([Uint8Array.from({length: 256000}, (_, i) => i % 256)], 'bytes.bin', {type: 'application/x-test'})"
    await ada.run(f"room.localParticipant.sendFile({file}, {{topic: 'files'}}).then(() => 1)")
    assert await eventually(partial(_first, files), "ada's file") == ("ada", "bytes.bin", FILE)
    path = tmp_path / "back.bin"
    path.write_bytes(FILE[::-1])
    await grace.room.local_participant.send_file(str(path), topic="files")

    async def received() -> Any:
        return (await ada.state())["files"]

    (seen,) = await eventually(received, "grace's file")
    assert (seen["from"], seen["name"], seen["size"]) == ("grace", "back.bin", len(FILE))
    assert seen["sha256"] == hashlib.sha256(FILE[::-1]).hexdigest()


async def test_a_large_file_reaches_everybody_whole_within_the_senders_window(join: Join, tmp_path: Path) -> None:
    ada: SdkPeer = await join("sdk", "ada")
    others: list[SdkPeer] = [await join("sdk", "grace"), await join("sdk-dual", "linus")]
    kept = [keep_files(other) for other in others]
    for other in others:
        await knows(ada, other.identity)
        await knows(other, "ada")
    content = FILE * 20
    path = tmp_path / "large.bin"
    path.write_bytes(content)
    await ada.room.local_participant.send_file(str(path), topic="files")
    for files in kept:
        sender, name, received = await eventually(partial(_first, files), "ada's file", within_s=60)
        assert (sender, name, len(received)) == ("ada", "large.bin", len(content))
        assert hashlib.sha256(received).digest() == hashlib.sha256(content).digest()


async def test_methods_are_called_across_clients_with_answers_and_errors(join: Join) -> None:
    ada: BrowserPeer = await join("chromium", "ada")
    grace: SdkPeer = await join("sdk", "grace")
    await knows(ada, "grace")
    await knows(grace, "ada")

    async def square(call: rtc.RpcInvocationData) -> str:
        if call.payload == "none":
            raise rtc.RpcError(1234, "not a number")
        return f"{call.caller_identity} {int(call.payload) ** 2}"

    grace.room.local_participant.register_rpc_method("square", square)

    async def call(method: str, payload: str) -> Any:
        request = json.dumps({"destinationIdentity": "grace", "method": method, "payload": payload})
        return await ada.run(
            f"room.localParticipant.performRpc({request}).catch((error) => [error.code, error.message])"
        )

    assert await call("square", "12") == "ada 144"
    assert await call("square", "none") == [1234, "not a number"]
    assert (await call("unknown", ""))[0] == rtc.RpcError.ErrorCode.UNSUPPORTED_METHOD
    answer = await grace.room.local_participant.perform_rpc(
        destination_identity="ada", method="greet", payload="x" * 10_000
    )
    assert answer == "hello grace: " + "x" * 10_000


async def test_chat_messages_of_one_browser_reach_the_other(join: Join) -> None:
    ada: BrowserPeer = await join("chromium", "ada")
    linus: BrowserPeer = await join("firefox", "linus")
    await knows(ada, "linus")
    await ada.run("room.localParticipant.sendChatMessage('hi from Chromium').then(() => 1)")
    await reads(linus, "ada", "hi from Chromium")
    await linus.run("room.localParticipant.sendChatMessage('hi from Firefox').then(() => 1)")
    await reads(ada, "linus", "hi from Firefox")


@pytest.mark.parametrize("reliable", [True, False], ids=["reliable", "lossy"])
async def test_packets_keep_their_topic_and_kind(join: Join, reliable: bool) -> None:
    ada: BrowserPeer = await join("chromium", "ada")
    grace: SdkPeer = await join("sdk", "grace")
    packets: list[rtc.DataPacket] = []
    grace.room.on("data_received", packets.append)
    await knows(ada, "grace")
    await knows(grace, "ada")

    async def of_ada() -> Any:
        # a lossy message is lost while the channel opens, so it is said again
        await ada.say("ping", topic="sensor", reliable=reliable)
        return next((packet for packet in packets if packet.topic == "sensor"), None)

    packet = await eventually(of_ada, "ada's packet")
    assert packet.data == b"ping"
    assert packet.participant.identity == "ada"
    assert packet.kind == (rtc.DataPacketKind.KIND_RELIABLE if reliable else rtc.DataPacketKind.KIND_LOSSY)

    async def of_grace() -> Any:
        await grace.say("pong", topic="motor", reliable=reliable)
        return next((row for row in (await ada.state())["messages"] if row["topic"] == "motor"), None)

    seen = await eventually(of_grace, "grace's packet")
    assert (seen["from"], seen["text"]) == ("grace", "pong")
    assert seen["kind"] == (0 if reliable else 1)


async def test_only_the_addressee_gets_a_message_and_nobody_gets_his_own(join: Join) -> None:
    ada: BrowserPeer = await join("chromium", "ada")
    grace: SdkPeer = await join("sdk", "grace")
    linus: SdkPeer = await join("sdk-dual", "linus")
    for peer in (ada, grace, linus):
        for other in {"ada", "grace", "linus"} - {peer.identity}:
            await knows(peer, other)
    await ada.say("for grace", destinationIdentities=["grace"])
    await ada.say("for nobody", destinationIdentities=["nobody"])
    await ada.say("for all")  # reliable messages keep their order, so this one comes after everything before it
    await reads(grace, "ada", "for all")
    await reads(linus, "ada", "for all")
    assert await grace.messages() == [("ada", "for grace"), ("ada", "for all")]
    assert await linus.messages() == [("ada", "for all")]
    await grace.room.local_participant.publish_data("to ada and me", destination_identities=["ada", "grace"])
    await grace.say("the end")
    await reads(ada, "grace", "the end")
    await reads(linus, "grace", "the end")
    assert await ada.messages() == [("grace", "to ada and me"), ("grace", "the end")]
    assert await grace.messages() == [("ada", "for grace"), ("ada", "for all")]


@pytest.mark.parametrize("kind", ["chromium", "firefox", "sdk-dual"])
async def test_a_large_reliable_message_arrives_whole(join: Join, kind: str) -> None:
    sender: Peer = await join(kind, "sender")
    grace: SdkPeer = await join("sdk", "grace")
    await knows(sender, "grace")
    text = "".join(chr(ord("a") + number % 26) for number in range(LARGE))
    await sender.say(text)
    await reads(grace, "sender", text)
    await grace.say(text[::-1])
    await reads(sender, "grace", text[::-1])


async def test_the_server_stamps_who_sent_a_packet(join: Join) -> None:
    mallory: BrowserPeer = await join("chromium", "mallory")
    ada: BrowserPeer = await join("chromium", "ada")
    grace: SdkPeer = await join("sdk", "grace")
    await knows(mallory, "grace")
    await knows(grace, "mallory")
    await mallory.say("opens the channel")
    await reads(grace, "mallory", "opens the channel")
    user = UserPacket(payload=b"I am Ada", participant_identity="ada", participant_sid="PA_forged")
    forged = DataPacket(user=user, participant_identity="ada", participant_sid="PA_forged")
    raw = list(forged.SerializeToString())
    kind = "LivekitClient.DataPacket_Kind.RELIABLE"
    await mallory.run(f"void room.engine.dataChannelForKind({kind}).send(Uint8Array.from({raw}))")
    for peer in (grace, ada):
        await reads(peer, "mallory", "I am Ada")
        assert ("ada", "I am Ada") not in await peer.messages()
