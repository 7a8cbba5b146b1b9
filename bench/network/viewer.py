"""A process that receives everything in a room: `python -m bench.network.viewer URL TOKEN`, until its input ends.

Ten times a second it says its statistics, as getStats has them, and each picture that it has shown since: when, how
many lines, and how old (milliseconds).
"""

import asyncio
import sys
import time
from typing import Any

import numpy as np
from livekit import rtc

from bench.network import client
from bench.network.picture import WRAP_MS, read_time

INTERVAL_S = 0.1
COUNTERS = {
    "audio": ("total_samples_received", "concealed_samples", "silent_concealed_samples", "concealment_events"),
    "video": ("frames_decoded", "key_frames_decoded", "pli_count", "freeze_count", "total_freeze_duration"),
}
"""The reported statistics of inbound RTP, by kind of track."""


class Viewer:
    """Receives tracks and notes the pictures that it has shown."""

    def __init__(self) -> None:
        self._pictures: list[tuple[float, int, int | None]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def watch(self, track: rtc.Track, _publication: Any, _participant: Any) -> None:
        """Receive a track that was subscribed to."""
        work = self._look(track) if track.kind == rtc.TrackKind.KIND_VIDEO else self._listen(track)
        self._tasks.add(asyncio.get_running_loop().create_task(work))

    async def _look(self, track: rtc.Track) -> None:
        stream = rtc.VideoStream(track, capacity=2, format=rtc.VideoBufferType.I420)
        async for event in stream:
            frame, now = event.frame, time.monotonic()
            size = frame.width * frame.height
            luma = np.frombuffer(frame.data, np.uint8, size).reshape(frame.height, frame.width)
            taken = read_time(luma)
            age = None if taken is None else (int(1000 * now) - taken) % WRAP_MS
            self._pictures.append((now, frame.height, age))

    async def _listen(self, track: rtc.Track) -> None:
        async for _ in rtc.AudioStream(track, capacity=10):
            pass  # samples are made up where somebody plays them

    async def report(self, room: rtc.Room) -> None:
        """Print what was received since the last time, every INTERVAL_S, for ever."""
        due = time.monotonic()
        while True:
            facts = {each.stream.kind: _facts(each) for each in await client.streams(room, "inbound_rtp")}
            pictures, self._pictures = self._pictures, []
            client.say(**facts, pictures=pictures)
            due = max(due + INTERVAL_S, time.monotonic())
            await asyncio.sleep(due - time.monotonic())


def _facts(stream: Any) -> dict[str, Any]:
    inbound, received = stream.inbound, stream.received
    facts = {
        "ssrc": stream.stream.ssrc,
        "bytes": inbound.bytes_received,
        "packets": received.packets_received,
        "lost": received.packets_lost,
        "again": inbound.retransmitted_packets_received,
        "nacks": inbound.nack_count,
    }
    return facts | {name: getattr(inbound, name) for name in COUNTERS[stream.stream.kind]}


async def main(url: str, token: str) -> None:
    """Receive until standard input ends."""
    viewer = Viewer()
    room = rtc.Room()
    room.on("track_subscribed", viewer.watch)
    room.on("reconnecting", lambda: client.say(event="reconnecting"))
    room.on("reconnected", lambda: client.say(event="reconnected"))
    room.on("disconnected", lambda reason: client.say(event=f"disconnected {reason}"))
    received = 0

    async def take(reader: Any) -> None:
        nonlocal received
        async for chunk in reader:
            received += len(chunk)
        client.say(message=received)

    pending: set[asyncio.Task[None]] = set()
    room.register_byte_stream_handler("message", lambda reader, _: pending.add(asyncio.create_task(take(reader))))
    await room.connect(url, token, rtc.RoomOptions(connect_timeout=20))
    reporting = asyncio.create_task(viewer.report(room))
    async for _ in client.commands():
        pass
    reporting.cancel()
    await room.disconnect()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
