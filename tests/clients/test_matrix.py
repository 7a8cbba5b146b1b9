"""Every kind of publisher is seen and heard, decoded, by every kind of subscriber, and all exchange data."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import PeerFactory
from tests.clients.network import ADDRESS
from tests.clients.peers import Media, Peer, eventually
from tests.clients.sfu_server import ServerUnderTest, running_server

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]

VISIO = {"adaptiveStream": True, "dynacast": True}
SUBSCRIBERS = ("chromium", "firefox", "sdk", "sdk-dual")
FRAMES = 10
"""Decoded frames that count as seeing."""

# (name, kind of client, its Room options, how it publishes, codecs that may arrive)
PUBLISHERS: list[tuple[str, str, dict[str, Any], dict[str, Any], set[str]]] = [
    ("visio", "chromium", VISIO, {"codec": "vp9", "backupCodec": {"codec": "vp8"}}, {"VP9", "VP8"}),
    ("vp8", "chromium", {}, {"codec": "vp8", "simulcast": True}, {"VP8"}),
    (
        "h264",
        "chromium",
        {"dynacast": True},
        {"codec": "h264", "simulcast": True, "backupCodec": True},
        {"H264", "VP8"},
    ),
    ("av1", "chromium", {}, {"codec": "av1", "backupCodec": False}, {"AV1"}),
    ("firefox-vp8", "firefox", {}, {"codec": "vp8", "simulcast": True}, {"VP8"}),
    ("firefox-vp9", "firefox", {}, {"codec": "vp9"}, {"VP8"}),
    ("firefox-av1", "firefox", {}, {"codec": "av1"}, {"VP8", "AV1"}),
    ("sdk", "sdk", {}, {"codec": "vp8"}, {"VP8"}),
    ("sdk-dual", "sdk-dual", {}, {"codec": "vp8"}, {"VP8"}),
    ("sdk-vp9", "sdk", {}, {"codec": "vp9"}, {"VP9"}),
    ("sdk-h264", "sdk", {}, {"codec": "h264"}, {"H264"}),
]


async def _video(peer: Peer, publisher: str) -> Media | None:
    media = (await peer.received()).get(publisher, {}).get("camera")
    return media if media is not None and media.frames >= FRAMES else None


async def _audio(peer: Peer, publisher: str) -> Media | None:
    media = (await peer.received()).get(publisher, {}).get("microphone")
    return media if media is not None and media.energy > 0 else None


async def _has_message(peer: Peer, sender: str, text: str) -> bool:
    return (sender, text) in await peer.messages()


@pytest.mark.parametrize(
    ("name", "kind", "options", "publish", "codecs"), PUBLISHERS, ids=[row[0] for row in PUBLISHERS]
)
async def test_is_seen_heard_and_read_by_every_subscriber(
    server: ServerUnderTest,
    make_peer: PeerFactory,
    room: str,
    name: str,
    kind: str,
    options: dict[str, Any],
    publish: dict[str, Any],
    codecs: set[str],
) -> None:
    publisher = await make_peer(kind, "publisher", **options)
    await publisher.join(server, room)
    await publisher.publish_audio()
    await publisher.publish_video(**publish)
    # Firefox has no H.264 here, and the native SDK offers no backup codec to fall back to
    kinds = [kind for kind in SUBSCRIBERS if (name, kind) != ("sdk-h264", "firefox")]
    peers = {subscriber: await make_peer(subscriber, subscriber) for subscriber in kinds}
    await asyncio.gather(*(peer.join(server, room) for peer in peers.values()))
    for subscriber, peer in peers.items():
        video = await eventually(partial(_video, peer, "publisher"), f"video in {subscriber}", detail=peer.received)
        assert video.codec in codecs
        assert video.width > 0
        await eventually(partial(_audio, peer, "publisher"), f"audio in {subscriber}", detail=peer.received)
        await peer.say(f"hello from {subscriber}")
        await eventually(
            partial(_has_message, publisher, subscriber, f"hello from {subscriber}"),
            f"message of {subscriber}",
            detail=publisher.messages,
        )
    await publisher.say("hello all")
    for subscriber, peer in peers.items():
        await eventually(
            partial(_has_message, peer, "publisher", "hello all"), f"message in {subscriber}", detail=peer.messages
        )


TURN_TO = """(async () => {
  const sender = room.localParticipant.getTrackPublication('camera').track.sender;
  const codec = RTCRtpSender.getCapabilities('video').codecs.find((each) => each.mimeType === %r);
  const parameters = sender.getParameters();
  parameters.encodings[0].codec = codec;
  await sender.setParameters(parameters);
  return 1;
})()"""


async def test_a_publisher_may_turn_to_another_codec_in_a_call(
    server: ServerUnderTest, make_peer: PeerFactory, room: str
) -> None:
    publisher = await make_peer("chromium", "publisher")
    await publisher.join(server, room)
    await publisher.publish_video(codec="vp8", simulcast=False)
    peers: dict[str, Peer] = {kind: await make_peer(kind, kind) for kind in SUBSCRIBERS}
    await asyncio.gather(*(peer.join(server, room) for peer in peers.values()))
    for kind, peer in peers.items():
        await eventually(partial(_video, peer, "publisher"), f"video in {kind}", detail=peer.received)
    for codec in ("VP9", "VP8"):
        await publisher.run(TURN_TO % f"video/{codec}")
        for kind, peer in peers.items():
            earlier = await _video(peer, "publisher")
            assert earlier is not None

            async def shown(
                kind: str = kind, peer: Peer = peer, seen: int = earlier.frames, codec: str = codec
            ) -> bool:
                now = await _video(peer, "publisher")
                # the native SDK goes on telling the first codec of a track
                return now is not None and (codec == now.codec or "sdk" in kind) and now.frames >= seen + 3 * FRAMES

            await eventually(shown, f"{codec} in {kind}", detail=peer.received)


async def test_everybody_hears_everybody_in_one_room(
    server: ServerUnderTest, make_peer: PeerFactory, room: str
) -> None:
    await _meet_and_listen(server, make_peer, room)


@pytest.mark.parametrize("threads", [2, 4])
async def test_everybody_sees_everybody_across_media_threads(
    own_network: None, make_peer: PeerFactory, room: str, tmp_path: Path, threads: int
) -> None:
    extra = ("--udp-port", "0", "--media-threads", str(threads))
    with running_server(tmp_path, node_ip=ADDRESS, extra=extra) as server:
        peers = await _meet_and_listen(server, make_peer, room)
        await peers["chromium"].publish_video(codec="vp8")
        await peers["sdk"].publish_video(codec="vp8")
        for publisher in ("chromium", "sdk"):
            for subscriber in peers.keys() - {publisher}:
                await eventually(
                    partial(_video, peers[subscriber], publisher),
                    f"video of {publisher} in {subscriber}",
                    detail=peers[subscriber].received,
                )
        for peer in peers.values():  # before their server goes
            await peer.leave()


async def _meet_and_listen(server: ServerUnderTest, make_peer: PeerFactory, room: str) -> dict[str, Peer]:
    peers: dict[str, Peer] = {kind: await make_peer(kind, kind) for kind in SUBSCRIBERS}
    await asyncio.gather(*(peer.join(server, room) for peer in peers.values()))
    await asyncio.gather(*(peer.publish_audio() for peer in peers.values()))
    for kind, peer in peers.items():
        for other in peers.keys() - {kind}:
            await eventually(partial(_audio, peer, other), f"audio of {other} in {kind}", detail=peer.received)
    return peers
