"""A film with a sound in it, and what a recording must show of it: 440 Hz, red on the left and blue on the right."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT, FPS, RATE, HERTZ = 640, 360, 25, 48_000, 440
RED, BLUE = (220, 0, 0), (0, 0, 220)
TOLERANCE = 40
"""How far a colour may be off that went through two encoders."""


def write_film(path: Path, seconds: int) -> None:
    """An .mp4 of H.264 and AAC."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:, : WIDTH // 2], pixels[:, WIDTH // 2 :] = RED, BLUE
    samples = RATE // FPS
    with av.open(path, "w") as file:
        video = file.add_stream("libx264", rate=FPS)
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = file.add_stream("aac", rate=RATE, layout="mono")
        assert isinstance(audio, av.AudioStream)
        for n in range(seconds * FPS):
            picture = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format="yuv420p")
            picture.pts, picture.time_base = n, Fraction(1, FPS)
            file.mux(video.encode(picture))
            angles = 2 * np.pi * HERTZ * (n * samples + np.arange(samples)) / RATE
            sound = av.AudioFrame.from_ndarray((np.sin(angles) * 12_000).astype(np.int16)[None, :], "s16", "mono")
            sound.sample_rate, sound.pts = RATE, n * samples
            file.mux(audio.encode(sound))
        file.mux(video.encode(None))
        file.mux(audio.encode(None))


def loudest_hertz(path: Path) -> tuple[float, float]:
    """(seconds, frequency) of what a recording sounds like."""
    with av.open(path) as file:
        stream = file.streams.audio[0]
        frames = [frame.to_ndarray().reshape(-1, stream.channels)[:, 0] for frame in file.decode(stream)]
    samples = np.concatenate(frames).astype(np.float64)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return len(samples) / RATE, float(spectrum.argmax()) * RATE / len(samples)


def pictures(path: Path) -> list[av.VideoFrame]:
    """All pictures of a recording."""
    with av.open(path) as file:
        return list(file.decode(video=0))


def shows_the_film(picture: av.VideoFrame) -> bool:
    """Whether a picture has the film's size and colours."""
    pixels = picture.to_ndarray(format="rgb24").astype(int)
    if pixels.shape != (HEIGHT, WIDTH, 3):
        return False
    sides = ((pixels[HEIGHT // 2, WIDTH // 4], RED), (pixels[HEIGHT // 2, 3 * WIDTH // 4], BLUE))
    return all(np.abs(seen - wanted).max() < TOLERANCE for seen, wanted in sides)
