"""A process that publishes a camera in three layers of VP8, and speech: `python -m bench.network.publisher URL TOKEN`.

Each second it says what it sends by layer. The line {"message": BYTES} makes it send so much reliable data.
"""

import asyncio
import sys
import time

import numpy as np
from livekit import rtc

from bench.network import client
from bench.network.picture import HEIGHT, WIDTH, Camera

FRAMES_PER_S = 15
BITRATE = 1_700_000
"""The bit rate of the highest layer, which is what LiveKit's clients use for 720p."""
AUDIO_RATE, AUDIO_FRAME = 48_000, 4_800
_PITCH, _SYLLABLES_PER_S = 140, 4


async def _publish(room: rtc.Room) -> tuple[rtc.VideoSource, rtc.AudioSource]:
    video, audio = rtc.VideoSource(WIDTH, HEIGHT), rtc.AudioSource(AUDIO_RATE, 1)
    camera = rtc.TrackPublishOptions(
        source=rtc.TrackSource.SOURCE_CAMERA,
        simulcast=True,
        video_codec=rtc.VideoCodec.VP8,
        video_encoding=rtc.VideoEncoding(max_bitrate=BITRATE, max_framerate=FRAMES_PER_S),
    )
    microphone = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE, dtx=False)
    track = rtc.LocalVideoTrack.create_video_track("camera", video)
    await room.local_participant.publish_track(track, camera)
    speech = rtc.LocalAudioTrack.create_audio_track("microphone", audio)
    await room.local_participant.publish_track(speech, microphone)
    return video, audio


async def _film(source: rtc.VideoSource) -> None:
    camera, due = Camera(), time.monotonic()
    while True:
        picture = camera.picture(int(1000 * time.monotonic()))
        source.capture_frame(rtc.VideoFrame(WIDTH, HEIGHT, rtc.VideoBufferType.I420, picture))
        due = max(due + 1 / FRAMES_PER_S, time.monotonic())
        await asyncio.sleep(due - time.monotonic())


async def _speak(source: rtc.AudioSource) -> None:
    """Play a voice of many harmonics that swells and fades like syllables, and is never silent."""
    at = np.arange(AUDIO_RATE) / AUDIO_RATE  # a second holds whole periods of both
    voice = sum(np.sin(2 * np.pi * _PITCH * number * at) / number for number in range(1, 20))
    loud = 0.6 + 0.4 * np.sin(2 * np.pi * _SYLLABLES_PER_S * at)
    samples = (voice * loud * 8000).clip(-32000, 32000).astype(np.int16)
    while True:
        for start in range(0, AUDIO_RATE, AUDIO_FRAME):
            frame = samples[start : start + AUDIO_FRAME].tobytes()
            await source.capture_frame(rtc.AudioFrame(frame, AUDIO_RATE, 1, AUDIO_FRAME))


async def _report(room: rtc.Room) -> None:
    while True:
        layers = {}
        for stream in await client.streams(room, "outbound_rtp"):
            if stream.stream.kind == "video":
                layers[stream.outbound.rid] = {
                    "height": stream.outbound.frame_height,
                    "frames": stream.outbound.frames_sent,
                    "bytes": stream.sent.bytes_sent,
                    "key_frames": stream.outbound.key_frames_encoded,
                    "plis": stream.outbound.pli_count,
                    "limited": stream.outbound.quality_limitation_reason,
                }
        client.say(layers=layers)
        await asyncio.sleep(1)


async def _obey(room: rtc.Room) -> None:
    async for command in client.commands():
        if "message" in command:
            writer = await room.local_participant.stream_bytes("message", topic="message")
            await writer.write(bytes(command["message"]))
            await writer.aclose()
            client.say(sent=command["message"])


async def main(url: str, token: str) -> None:
    """Publish until standard input ends."""
    room = await client.joined(url, token)
    video, audio = await _publish(room)
    tasks = [asyncio.create_task(work) for work in (_film(video), _speak(audio), _report(room))]
    obeying = asyncio.create_task(_obey(room))
    done, _ = await asyncio.wait([*tasks, obeying], return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    for task in tasks:
        task.cancel()
    await room.disconnect()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
