"""Publish a file to a room: PyAV decodes it, LiveKit's SDK for Python encodes and sends it.

    .venv/bin/pip install livekit
    export LIVEKIT_URL=ws://127.0.0.1:7880 LIVEKIT_TOKEN=$(.venv/bin/aiosfu token --room demo --identity film)
    .venv/bin/python examples/publish_file.py film.mp4

It takes the first video and the first audio stream of the file, and leaves when they have been played.
"""

import asyncio
import os
import sys

import av
from livekit import rtc

RATE, CHANNELS = 48_000, 2


async def publish_video(room: rtc.Room, width: int, height: int) -> rtc.VideoSource:
    """Announce a camera of this size; what is captured by the source is sent."""
    source = rtc.VideoSource(width, height)
    track = rtc.LocalVideoTrack.create_video_track("film", source)
    options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_CAMERA, video_codec=rtc.VideoCodec.VP8)
    await room.local_participant.publish_track(track, options)
    return source


async def publish_audio(room: rtc.Room) -> rtc.AudioSource:
    """Announce a microphone. The source takes frames up to a second ahead, then `capture_frame` waits."""
    source = rtc.AudioSource(RATE, CHANNELS)
    track = rtc.LocalAudioTrack.create_audio_track("sound", source)
    options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
    await room.local_participant.publish_track(track, options)
    return source


async def play(room: rtc.Room, file: av.container.InputContainer) -> None:
    """Send the first video and the first audio stream of a file at the speed at which they play."""
    streams = [*file.streams.video[:1], *file.streams.audio[:1]]
    if file.streams.video:
        # Encoders want even sizes.
        width, height = file.streams.video[0].width // 2 * 2, file.streams.video[0].height // 2 * 2
        video = await publish_video(room, width, height)
    if file.streams.audio:
        audio = await publish_audio(room)
    resampler = av.AudioResampler("s16", "stereo", RATE)
    loop = asyncio.get_running_loop()
    started = loop.time()
    for frame in file.decode(*streams):
        if isinstance(frame, av.VideoFrame):
            await asyncio.sleep(started + (frame.time or 0) - loop.time())
            pixels = frame.to_ndarray(width=width, height=height, format="yuv420p").tobytes()
            video.capture_frame(rtc.VideoFrame(width, height, rtc.VideoBufferType.I420, pixels))
        elif isinstance(frame, av.AudioFrame):
            for part in resampler.resample(frame):
                samples = part.to_ndarray().tobytes()
                await audio.capture_frame(rtc.AudioFrame(samples, RATE, CHANNELS, part.samples))
    if file.streams.audio:
        await audio.wait_for_playout()


async def main(path: str) -> None:
    """Join the room that LIVEKIT_TOKEN names, play the file, and leave."""
    room = rtc.Room()
    await room.connect(os.environ["LIVEKIT_URL"], os.environ["LIVEKIT_TOKEN"])
    try:
        with av.open(path) as file:
            await play(room, file)
    finally:
        await room.disconnect()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
