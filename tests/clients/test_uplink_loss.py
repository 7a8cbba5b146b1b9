"""A publisher far away that loses packets on its way up: the repairs come late, and the viewers see them all."""

import asyncio
import functools
from dataclasses import dataclass

import numpy as np
import pytest
from livekit import rtc

from tests.clients.conftest import PeerFactory
from tests.clients.facts import media
from tests.clients.lossy_path import LossyPath, lossy_path
from tests.clients.peers import SdkPeer, eventually
from tests.clients.sfu_server import ServerUnderTest

pytestmark = [pytest.mark.client, pytest.mark.alone, pytest.mark.asyncio(loop_scope="session")]

WIDTH, HEIGHT, FRAMES_PER_S, BITRATE = 640, 360, 20, 3_000_000
ROUND_TRIP_S, LOSS = 0.25, 0.01
PACKETS_PER_S = 220
"""With the padding between them, more than 64 packets pass before a lost one can be there again."""
UNREPAIRED = 0.15
"""The share of lost packets that may cost a key frame each: this client probes for bandwidth with padding under the
numbers of the stream, at times so much that a repair comes more than 512 numbers late."""
MEASURED_FRAMES = 160


async def _publish_noise(peer: SdkPeer) -> rtc.LocalTrackPublication:
    """One layer of pictures that no encoder makes small."""
    source = rtc.VideoSource(WIDTH, HEIGHT)
    track = rtc.LocalVideoTrack.create_video_track("camera", source)
    options = rtc.TrackPublishOptions(
        source=rtc.TrackSource.SOURCE_CAMERA,
        simulcast=False,
        video_codec=rtc.VideoCodec.VP8,
        video_encoding=rtc.VideoEncoding(max_bitrate=BITRATE, max_framerate=FRAMES_PER_S),
    )
    publication = await peer.room.local_participant.publish_track(track, options)
    generator = np.random.default_rng(1)
    blocks = generator.integers(0, 255, (12, HEIGHT // 4, WIDTH // 4, 4), np.uint8)
    pictures = [block.repeat(4, axis=0).repeat(4, axis=1).tobytes() for block in blocks]

    async def play() -> None:
        number = 0
        while True:
            number += 1
            picture = pictures[number % len(pictures)]
            source.capture_frame(rtc.VideoFrame(WIDTH, HEIGHT, rtc.VideoBufferType.RGBA, picture))
            await asyncio.sleep(1 / FRAMES_PER_S)

    peer._players[publication.sid] = peer._spawn(play())
    return publication


@dataclass(frozen=True)
class Sent:
    """What the publisher says about its one layer, and what its way has lost of it."""

    frames: int
    key_frame_requests: int
    again: int
    packets: int
    lost: int


async def _sent(publication: rtc.LocalTrackPublication, path: LossyPath) -> Sent:
    assert publication.track is not None
    for stat in await publication.track.get_stats():
        if stat.WhichOneof("stats") == "outbound_rtp":
            outbound, ssrc = stat.outbound_rtp.outbound, stat.outbound_rtp.stream.ssrc
            counts = outbound.frames_sent, outbound.pli_count, outbound.retransmitted_packets_sent
            return Sent(*counts, path.packets[ssrc], path.lost[ssrc])
    return Sent(0, 0, 0, 0, 0)


async def test_late_repairs_reach_the_viewer_and_are_asked_for_once(
    server: ServerUnderTest, make_peer: PeerFactory, room: str
) -> None:
    far: SdkPeer = await make_peer("sdk", "far")
    viewer: SdkPeer = await make_peer("sdk", "viewer")
    await viewer.join(server, room)
    async with lossy_path(server, round_trip_s=ROUND_TRIP_S, loss=LOSS) as path:
        await far.join(path.server, room)
        publication = await _publish_noise(far)
        sent = functools.partial(_sent, publication, path)

        async def fast_enough() -> bool:
            """A second at a high bit rate in which nobody asked for a key frame, as at the beginning."""
            before = await sent()
            await asyncio.sleep(1)
            now = await sent()
            return now.packets - before.packets > PACKETS_PER_S and now.key_frame_requests == before.key_frame_requests

        await eventually(fast_enough, "a high bit rate", 60, sent)
        first, seen = await sent(), await media(viewer, "far", "camera")

        async def measured() -> bool:
            return (await sent()).frames >= first.frames + MEASURED_FRAMES

        await eventually(measured, f"{MEASURED_FRAMES} more frames", 60)
        last, now = await sent(), await media(viewer, "far", "camera")
        assert seen is not None
        assert now is not None
        lost, decoded = last.lost - first.lost, now.details["decoded"] - seen.details["decoded"]
        assert lost > 10, "hardly anything was lost, so nothing was shown"
        assert decoded > 0.8 * (last.frames - first.frames)
        assert last.key_frame_requests - first.key_frame_requests <= UNREPAIRED * lost, (seen.details, now.details)
        assert last.again - first.again < 1.3 * lost
        await far.leave()
