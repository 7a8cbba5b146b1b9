"""Record a track of a room with LiveKit's SDK for Python and PyAV: video to .webm or .mp4, audio to .wav.

    .venv/bin/pip install livekit
    export LIVEKIT_URL=ws://127.0.0.1:7880 LIVEKIT_TOKEN=$(.venv/bin/aiosfu token --room demo --identity recorder)
    .venv/bin/python examples/record_track.py heard.wav [seconds]

It takes the first track of the kind that fits the file, and stops when that ends or after so many seconds.
"""

import asyncio
import contextlib
import os
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from livekit import rtc

RATE = 48_000
CODECS = {".webm": "libvpx", ".mp4": "libx264", ".wav": "pcm_s16le"}
FAST = {".webm": {"deadline": "realtime", "cpu-used": "8"}, ".mp4": {"preset": "veryfast"}}


async def record_video(track: rtc.Track, size: tuple[int, int], path: Path) -> None:
    """Write the pictures of a track until this is cancelled. size: of the file; smaller layers are scaled up to it."""
    width, height = size
    with av.open(path, "w") as file:
        stream = file.add_stream(CODECS[path.suffix], rate=30, options=FAST[path.suffix])
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 2_000_000
        stream.codec_context.time_base = Fraction(1, 1000)
        first_us = None
        try:
            async for event in rtc.VideoStream(track, format=rtc.VideoBufferType.RGBA):
                first_us = event.timestamp_us if first_us is None else first_us
                pixels = np.frombuffer(event.frame.data, np.uint8).reshape(event.frame.height, event.frame.width, 4)
                picture = av.VideoFrame.from_ndarray(pixels, "rgba").reformat(width, height, "yuv420p")
                picture.pts, picture.time_base = (event.timestamp_us - first_us) // 1000, Fraction(1, 1000)
                file.mux(stream.encode(picture))
        finally:
            file.mux(stream.encode(None))


async def record_audio(track: rtc.Track, path: Path) -> None:
    """Write the sound of a track until this is cancelled."""
    with av.open(path, "w") as file:
        stream = file.add_stream(CODECS[path.suffix], rate=RATE, layout="mono")
        assert isinstance(stream, av.AudioStream)
        async for event in rtc.AudioStream(track, sample_rate=RATE, num_channels=1):
            sound = av.AudioFrame.from_ndarray(np.frombuffer(event.frame.data, np.int16)[None, :], "s16", "mono")
            sound.sample_rate = RATE
            file.mux(stream.encode(sound))


async def main(path: Path, seconds: float | None) -> None:
    """Join the room that LIVEKIT_TOKEN names, and record."""
    kind = rtc.TrackKind.KIND_AUDIO if path.suffix == ".wav" else rtc.TrackKind.KIND_VIDEO
    room, found, gone = rtc.Room(), asyncio.Queue[rtc.RemoteTrackPublication](), asyncio.Event()
    room.on("track_subscribed", lambda _, publication, __: found.put_nowait(publication))
    room.on("track_unsubscribed", lambda *_: gone.set())
    await room.connect(os.environ["LIVEKIT_URL"], os.environ["LIVEKIT_TOKEN"])
    print("waiting for a track", flush=True)
    while (publication := await found.get()).kind != kind:
        pass
    assert publication.track is not None
    if kind == rtc.TrackKind.KIND_AUDIO:
        recording = asyncio.create_task(record_audio(publication.track, path))
    else:
        size = publication.width, publication.height
        recording = asyncio.create_task(record_video(publication.track, size, path))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(gone.wait(), seconds)
    recording.cancel()
    await asyncio.wait([recording])
    await room.disconnect()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else None))
