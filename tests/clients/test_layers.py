"""What a subscriber asks for is what it gets: layers by quality, by size, off and on again; and without freezes."""

from functools import partial
from typing import Any

import pytest

from tests.clients.conftest import PeerFactory
from tests.clients.peers import BrowserPeer, Media, eventually
from tests.clients.sfu_server import ServerUnderTest

pytestmark = [pytest.mark.client, pytest.mark.alone, pytest.mark.asyncio(loop_scope="session")]

HEIGHTS = {"LOW": 180, "MEDIUM": 360, "HIGH": 720}


async def _camera(peer: BrowserPeer) -> Media | None:
    return (await peer.received()).get("publisher", {}).get("camera")


async def _shows(peer: BrowserPeer, height: int) -> Media | None:
    media = await _camera(peer)
    return media if media is not None and media.height == height and media.frames > 5 else None


def _ask(quality: str) -> str:
    return f"peer.publication('publisher', 'camera').setVideoQuality(LivekitClient.VideoQuality.{quality})"


async def _publisher(
    server: ServerUnderTest, make_peer: PeerFactory, room: str, codec: str, **options: Any
) -> BrowserPeer:
    publisher: BrowserPeer = await make_peer("chromium", "publisher")
    await publisher.join(server, room)
    await publisher.publish_video(codec, width=1280, height=720, fps=12, **options)
    return publisher


@pytest.mark.parametrize("codec", ["vp8", "h264"])
async def test_simulcast_quality_decides_the_layer(
    server: ServerUnderTest, make_peer: PeerFactory, room: str, codec: str
) -> None:
    publisher = await _publisher(server, make_peer, room, codec, simulcast=True, backupCodec=False)
    viewer: BrowserPeer = await make_peer("chromium", "viewer")
    await viewer.join(server, room)
    await eventually(lambda: _camera(viewer), "a subscription", detail=viewer.received)
    for quality in ("LOW", "MEDIUM", "HIGH", "LOW"):
        await viewer.run(_ask(quality))
        height = HEIGHTS[quality]
        await eventually(partial(_shows, viewer, height), f"{quality} is {height} lines", 45, detail=publisher.sent)


async def test_a_change_of_layer_costs_the_other_layers_no_key_frame(
    server: ServerUnderTest, make_peer: PeerFactory, room: str
) -> None:
    publisher = await _publisher(server, make_peer, room, "vp8", simulcast=True, backupCodec=False)
    viewer: BrowserPeer = await make_peer("chromium", "viewer")
    await viewer.join(server, room)
    await eventually(partial(_shows, viewer, HEIGHTS["HIGH"]), "720 lines", 45, detail=publisher.sent)

    async def key_frames() -> tuple[int, int]:
        """How many the publisher was asked for, and made."""
        layers = [row for row in await publisher.sent() if row["source"] == "camera"]
        return sum(row["plis"] for row in layers), sum(row["keyFrames"] for row in layers)

    asked, made = await key_frames()
    for quality in ("LOW", "HIGH", "MEDIUM", "LOW"):
        await viewer.run(_ask(quality))
        await eventually(partial(_shows, viewer, HEIGHTS[quality]), quality, 45, detail=publisher.sent)
    asked_more, made_more = await key_frames()
    assert asked_more - asked >= 3
    assert made_more - made < 2 * (asked_more - asked), "without the format parameter it is three times as many"


async def test_vp9_svc_quality_decides_the_spatial_layer(
    server: ServerUnderTest, make_peer: PeerFactory, room: str
) -> None:
    publisher = await _publisher(server, make_peer, room, "vp9", backupCodec=False)
    viewer: BrowserPeer = await make_peer("chromium", "viewer")
    await viewer.join(server, room)
    await eventually(lambda: _camera(viewer), "a subscription", detail=viewer.received)
    for quality in ("LOW", "MEDIUM", "LOW"):
        await viewer.run(_ask(quality))
        height = HEIGHTS[quality]
        await eventually(partial(_shows, viewer, height), f"{quality} is {height} lines", 45, detail=publisher.sent)


@pytest.mark.parametrize("codec", ["vp8", "vp9"])  # not AV1, which did not fall to the lowest layer: compatibility.md
async def test_end_to_end_encrypted_video_changes_its_layer(
    server: ServerUnderTest, make_peer: PeerFactory, room: str, codec: str
) -> None:
    """Frames are encrypted in the client; layers and key frames are told outside, by descriptors and extensions."""
    secret = "known to the clients only"
    publisher: BrowserPeer = await make_peer("chromium", "publisher", passphrase=secret)
    await publisher.join(server, room)
    await publisher.publish_video(codec, width=1280, height=720, fps=12, simulcast=True, backupCodec=False)
    viewer: BrowserPeer = await make_peer("chromium", "viewer", passphrase=secret)
    await viewer.join(server, room)
    await eventually(lambda: _camera(viewer), "a subscription", detail=viewer.received)
    assert await viewer.run("peer.publication('publisher', 'camera').isEncrypted")
    sent = (await publisher.sent())[0]["codec"]
    for quality in ("LOW", "MEDIUM", "LOW"):
        await viewer.run(_ask(quality))
        height = HEIGHTS[quality]
        await eventually(
            partial(_shows, viewer, height), f"{sent}: {quality} is {height} lines", 45, detail=viewer.received
        )


async def test_a_disabled_track_stops_and_comes_back(
    server: ServerUnderTest, make_peer: PeerFactory, room: str
) -> None:
    await _publisher(server, make_peer, room, "vp8", simulcast=True)
    viewer: BrowserPeer = await make_peer("chromium", "viewer")
    await viewer.join(server, room)
    await eventually(lambda: _camera(viewer), "a subscription", detail=viewer.received)

    async def frames() -> int:
        media = await _camera(viewer)
        return media.frames if media else 0

    await eventually(lambda: _shows(viewer, 720), "video", detail=viewer.received)
    await viewer.run("peer.publication('publisher', 'camera').setEnabled(false)")
    last = [-1]

    async def stands_still() -> bool:
        before, last[0] = last[0], await frames()
        return before == last[0]

    await eventually(stands_still, "the picture to stop")
    stopped = await frames()
    await viewer.run("peer.publication('publisher', 'camera').setEnabled(true)")

    async def moves() -> bool:
        return await frames() > stopped + 5

    await eventually(moves, "the picture to move again", detail=viewer.received)
