"""Data tracks of LiveKit's SDKs, between browsers and native clients with one connection and with two."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from livekit import rtc

from tests.clients.conftest import Join
from tests.clients.facts import knows
from tests.clients.peers import BrowserPeer, SdkPeer, eventually

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]

FRAME = bytes(range(256)) * 160
"""More than fits into one packet of a data track."""
PUSH_S = 0.1
KEEP = """(() => {
    window.frames_of_data = [];
    room.on('dataTrackPublished', async (track) => {
        const reader = track.subscribe().getReader();
        for (;;) {
            const { value, done } = await reader.read();
            if (done) return;
            window.frames_of_data.push([track.publisherIdentity, track.info.name, Array.from(value.payload)]);
        }
    });
    return 1;
})()"""
PUBLISH = """room.localParticipant.publishDataTrack({ name: 'lidar' }).then((track) => {
    const frame = Uint8Array.from({ length: 40960 }, (_, index) => index % 256);
    window.pushing = setInterval(() => track.tryPush({ payload: frame }).catch(() => 0), 100);
    return 1;
})"""

Seen = list[tuple[str, str, bytes]]
"""(publisher, name of the track, payload) of each frame."""


def keep(peer: SdkPeer) -> Seen:
    """Subscribe a native client to all data tracks, and collect their frames."""
    seen: Seen = []
    tasks: set[asyncio.Task[None]] = set()

    async def read(track: rtc.RemoteDataTrack) -> None:
        async for frame in track.subscribe():
            seen.append((track.publisher_identity, track.info.name, bytes(frame.payload)))

    def published(track: rtc.RemoteDataTrack) -> None:
        tasks.add(asyncio.get_running_loop().create_task(read(track)))

    peer.room.on("data_track_published", published)
    return seen


@contextlib.asynccontextmanager
async def pushing(peer: SdkPeer) -> AsyncIterator[rtc.LocalDataTrack]:
    """Publish a track, and push the same frame again and again: packets may be lost."""
    track = await peer.room.local_participant.publish_data_track(name="lidar")

    async def push() -> None:
        while track.is_published():
            track.try_push(rtc.DataTrackFrame(payload=FRAME))
            await asyncio.sleep(PUSH_S)

    task = asyncio.create_task(push())
    try:
        yield track
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def frames_of(page: BrowserPeer) -> Any:
    return await page.run("window.frames_of_data.slice(-1)")


@pytest.mark.parametrize("kind", ["sdk", "sdk-dual"])
async def test_frames_of_a_native_client_reach_everybody_whole(join: Join, kind: str) -> None:
    ada: SdkPeer = await join(kind, "ada")
    grace: SdkPeer = await join("sdk", "grace")
    dual: SdkPeer = await join("sdk-dual", "dual")
    page: BrowserPeer = await join("chromium", "page")
    seen, dual_seen = keep(grace), keep(dual)
    await page.run(KEEP)
    for other in (grace, dual, page):
        await knows(other, "ada")
    async with pushing(ada) as track:
        for frames in (seen, dual_seen):

            async def first(frames: Seen = frames) -> Any:
                return frames[:1]

            assert await eventually(first, "a frame of ada's") == [("ada", "lidar", FRAME)]

        async def last() -> Any:
            return await frames_of(page)

        assert await eventually(last, "a frame of ada's in the browser") == [["ada", "lidar", list(FRAME)]]
        await track.unpublish()


async def test_frames_of_a_browser_reach_a_native_client_whole(join: Join) -> None:
    page: BrowserPeer = await join("chromium", "page")
    grace: SdkPeer = await join("sdk", "grace")
    seen = keep(grace)
    await knows(grace, "page")
    await page.run(PUBLISH)

    async def first() -> Any:
        return seen[:1]

    assert await eventually(first, "a frame of the browser's") == [("page", "lidar", FRAME)]
    await page.run("clearInterval(window.pushing), 1")
