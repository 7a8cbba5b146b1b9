"""Records how a real Chromium cuts video into packets: `python -m tests.clients.record_chromium`.

The recording is what `python -m bench forward` sends as "Chromium", so that its frames are as large as real ones.
Chromium publishes a camera of 1280x720 at 30 frames/s as VP8 without simulcast, through livekit-client, to a server
started here; a subscriber writes down the sizes of the packets that come. They are the sizes that Chromium chose: the
server forwards payloads as they are, and what it adds for UDP_SEGMENT is RTP padding, which is not counted.

Needs what the client tests need (`make clients`), about a minute, and 130 MB for the camera's film in the temporary
folder. The sizes of a new recording are not those of the old one: encoders follow the clock.

Output (bench/recordings/chromium-vp8-720p.csv): a line of headings, then one line a packet in order of its sequence
number: `frame` (0, 1, ...; frame 0 is a key frame) and `payload_bytes`, the RTP payload with the VP8 payload
descriptor, without header, header extensions and padding.
"""

import asyncio
import csv
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from aiortc import MediaStreamTrack
from aiortc.rtp import RtpPacket

from tests.clients.chromium import running_chromium
from tests.clients.json_peer import JsonPeer
from tests.clients.network import ADDRESS, enter_own_network
from tests.clients.pages import serving_pages
from tests.clients.peers import BrowserPeer, eventually
from tests.clients.sfu_server import running_server

OUTPUT = Path(__file__).parents[2] / "bench" / "recordings" / "chromium-vp8-720p.csv"
WIDTH, HEIGHT, FRAMES_PER_SECOND = 1280, 720, 30
BITRATE_BPS = 2_300_000
ENOUGH_BPS = 0.95 * BITRATE_BPS
"""At this rate the encoder is close to its target, and congestion control has stopped climbing."""
RECORDED_FRAMES = 300
RECORDING_TIMEOUT_S = 60
CLOCK_HZ = 90_000
"""Clock rate of video timestamps."""
KEY_FRAME_BIT = 0x01
"""A bit of the VP8 payload header that is clear in key frames (RFC 7741 section 4.3)."""

FILM_FRAMES = 90
NOISE_LEVELS = 3.0
"""Standard deviation of the camera's noise, of 255 levels: what keeps an encoder busy where nothing moves."""
MOTION_PIXELS = 24
"""How far the picture sways."""

PUBLISH = """room.localParticipant.publishTrack(
    (await navigator.mediaDevices.getUserMedia({video: {width: %d, height: %d, frameRate: %d}})).getVideoTracks()[0],
    {source: "camera", simulcast: false, videoCodec: "vp8", videoEncoding: {maxBitrate: %d, maxFramerate: %d}},
).then(({trackSid}) => trackSid)"""


def _texture(generator: np.random.Generator, height: int, width: int) -> Any:
    """Blotches of all sizes, as surfaces have: (height, width) f4 around 0, deviation 1."""
    picture = np.zeros((height, width), np.float32)
    for size in (64, 32, 16, 8, 4):
        coarse = generator.standard_normal((height // size + 1, width // size + 1)).astype(np.float32)
        picture += np.kron(coarse, np.ones((size, size), np.float32))[:height, :width] * size**0.5
    return picture / picture.std()


def write_film(path: Path) -> None:
    """Write the camera's picture as YUV4MPEG2: a textured room that sways, somebody before it who moves, and noise.

    The motion begins again with the film, so that nothing jumps when Chromium repeats it.
    """
    generator = np.random.default_rng(1)
    margin = 2 * MOTION_PIXELS
    room = 110 + 25 * _texture(generator, HEIGHT + margin, WIDTH + margin)
    person = 150 + 20 * _texture(generator, HEIGHT * 2 // 3, WIDTH // 3)
    colour = np.full((HEIGHT // 2, WIDTH // 2), 120, np.uint8).tobytes() * 2
    with path.open("wb") as film:
        film.write(b"YUV4MPEG2 W%d H%d F%d:1 Ip A1:1 C420jpeg\n" % (WIDTH, HEIGHT, FRAMES_PER_SECOND))
        for number in range(FILM_FRAMES):
            angle = 2 * np.pi * number / FILM_FRAMES
            # now slow, now fast: frames of a call differ in size
            sway = int(MOTION_PIXELS * (1 + np.sin(angle + np.sin(angle))))
            picture = room[sway : sway + HEIGHT, margin - sway : margin - sway + WIDTH].copy()
            left = WIDTH // 3 + int(MOTION_PIXELS * 3 * np.cos(angle))
            picture[HEIGHT // 3 :, left : left + person.shape[1]] = person
            picture += generator.normal(0, NOISE_LEVELS, picture.shape)
            film.write(b"FRAME\n" + picture.clip(16, 235).astype(np.uint8).tobytes() + colour)


class Recorder(JsonPeer):
    """A subscriber that looks at packets, and neither decodes nor asks for anything."""

    def __init__(self, identity: str) -> None:
        super().__init__(identity)
        self.packets: list[RtpPacket] = []
        self.complete = asyncio.Event()
        self._timestamps: set[int] = set()

    def _on_track(self, track: MediaStreamTrack) -> None:
        receiver = next(each.receiver for each in self.connection.getTransceivers() if each.receiver.track is track)
        # aiortc has no place for those who want packets
        receiver._handle_rtp_packet = self._take  # type: ignore[method-assign]

    async def _take(self, packet: RtpPacket, arrival_time_ms: int) -> None:
        if not packet.payload or (self.packets and packet.payload_type != self.packets[0].payload_type):
            return  # probing for bandwidth, as padding or as repetition
        self.packets.append(packet)
        self._timestamps.add(packet.timestamp)
        if len(self._timestamps) > RECORDED_FRAMES:
            self.complete.set()


def frames_of(packets: list[RtpPacket]) -> list[list[int]]:
    """Payload sizes in bytes of RECORDED_FRAMES frames.

    Raises:
        ValueError: the recording is not whole.
    """
    packets = sorted(packets, key=lambda packet: (packet.sequence_number - packets[0].sequence_number) & 0xFFFF)
    first = packets[0].sequence_number
    frames: dict[int, list[RtpPacket]] = {}
    for number, packet in enumerate(packets):
        if packet.sequence_number != (first + number) & 0xFFFF:
            raise ValueError(f"packet {number} of {len(packets)} was lost")
        frames.setdefault(packet.timestamp, []).append(packet)
    whole = list(frames.values())[:RECORDED_FRAMES]
    if not all(frame[-1].marker for frame in whole):
        raise ValueError("a frame has no end")
    if _payload_header(whole[0][0].payload) & KEY_FRAME_BIT:
        raise ValueError("the recording does not begin with a key frame")
    return [[len(packet.payload) for packet in frame] for frame in whole]


def _payload_header(payload: bytes) -> int:
    """The first byte after the VP8 payload descriptor (RFC 7741 section 4.2)."""
    at = 1
    if payload[0] & 0x80:
        extension = payload[1]
        at += 1
        at += (2 if payload[at] & 0x80 else 1) if extension & 0x80 else 0
        at += bool(extension & 0x40) + bool(extension & 0x30)
    return payload[at]


def write_recording(frames: list[list[int]]) -> None:
    """Write OUTPUT, in the form that the head of this file describes."""
    with OUTPUT.open("w", encoding="ascii", newline="") as output:
        writer = csv.writer(output, lineterminator="\n")
        writer.writerow(("frame", "payload_bytes"))
        writer.writerows((number, size) for number, frame in enumerate(frames) for size in frame)


async def record(folder: Path) -> list[list[int]]:
    """Payload sizes in bytes by frame."""
    film = folder / "camera.y4m"
    write_film(film)
    with running_server(folder, node_ip=ADDRESS) as server, serving_pages() as url:
        async with running_chromium(film=film) as chromium:
            page = await chromium.new_page()
            await page.goto(url)
            publisher, recorder = BrowserPeer(page, "camera"), Recorder("recorder")
            await publisher.join(server, "recording")
            await publisher.run(PUBLISH % (WIDTH, HEIGHT, FRAMES_PER_SECOND, BITRATE_BPS, FRAMES_PER_SECOND))

            async def is_settled() -> bool:
                sent = await publisher.sent()
                return bool(sent) and sent[0]["width"] == WIDTH and sent[0]["target"] >= ENOUGH_BPS

            await eventually(is_settled, "video at its full bit rate", detail=publisher.sent)
            await recorder.join(server, "recording")
            async with asyncio.timeout(RECORDING_TIMEOUT_S):
                await recorder.complete.wait()
            await recorder.leave()
    tell(recorder.packets)
    return frames_of(recorder.packets)


def tell(packets: list[RtpPacket]) -> None:
    """Say how fast the video was: Chromium skips frames when it has too little of the machine."""
    seconds = ((packets[-1].timestamp - packets[0].timestamp) & 0xFFFFFFFF) / CLOCK_HZ
    bits = 8 * sum(len(packet.payload) for packet in packets)
    sys.stdout.write(f"{RECORDED_FRAMES / seconds:.1f} frames/s, {bits / seconds / 1e6:.2f} Mbit/s\n")


def main() -> None:
    """Record, and write the file."""
    enter_own_network()  # before there is a second thread
    with tempfile.TemporaryDirectory() as folder:
        frames = asyncio.run(record(Path(folder)))
    write_recording(frames)
    sys.stdout.write(f"{OUTPUT.name}: {len(frames)} frames, {sum(map(len, frames))} packets\n")


if __name__ == "__main__":
    main()
