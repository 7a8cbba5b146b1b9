"""Publish a file by WHIP: PyAV encodes it, and FFmpeg's own WHIP client sends it. No SDK, no WebSocket.

    export WHIP_URL=http://127.0.0.1:7880/whip/v1 WHIP_TOKEN=$(.venv/bin/aiosfu token --room demo --identity film)
    .venv/bin/python examples/publish_whip.py film.mp4

It sends the first video and the first audio stream of the file, as H.264 and Opus, and leaves when they have ended.
"""

import datetime
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import av
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

RATE = 48_000
BASELINE = {"profile": "baseline", "preset": "veryfast", "tune": "zerolatency", "g": "60", "bf": "0"}
"""What every browser decodes. WebRTC has no B-frames."""


def write_certificate(folder: Path) -> dict[str, str]:
    """Write a certificate for DTLS and return FFmpeg's options for it.

    Without it an FFmpeg that is linked with GnuTLS makes one on the curve P-224, which OpenSSL no longer takes.
    """
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.datetime.now(tz=datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
    certificate = builder.not_valid_after(now + datetime.timedelta(days=30)).sign(key, hashes.SHA256())
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    return {"cert_file": str(folder / "cert.pem"), "key_file": str(folder / "key.pem")}


def add_video(film: av.container.OutputContainer, source: av.VideoStream) -> av.VideoStream:
    """Add an H.264 stream with the size of a stream of the file. Encoders want even sizes."""
    video = film.add_stream("libx264", rate=source.average_rate or 30, options=BASELINE)
    assert isinstance(video, av.VideoStream)
    video.width, video.height, video.pix_fmt = source.width // 2 * 2, source.height // 2 * 2, "yuv420p"
    video.bit_rate = 1_500_000
    return video


def add_audio(film: av.container.OutputContainer) -> av.AudioStream:
    """Add an Opus stream."""
    audio = film.add_stream("libopus", rate=RATE, layout="stereo")
    assert isinstance(audio, av.AudioStream)
    return audio


def frames_in_time(file: av.container.InputContainer) -> Iterator[av.VideoFrame | av.AudioFrame]:
    """Yield pictures and sound of a file when they are due."""
    started = time.monotonic()
    for frame in file.decode(*file.streams.video[:1], *file.streams.audio[:1]):
        if isinstance(frame, av.VideoFrame | av.AudioFrame):
            time.sleep(max(0.0, started + (frame.time or 0.0) - time.monotonic()))
            yield frame


def play(path: str, url: str, options: dict[str, str]) -> None:
    """Play a file to a WHIP endpoint."""
    resampler = av.AudioResampler("s16", "stereo", RATE, 960)
    with av.open(path) as file, ExitStack() as ends:
        source = file.streams.video[0]
        # SDP does not tell the size of a picture.
        sized = f"{url}?width={source.width}&height={source.height}"
        film = ends.enter_context(av.open(sized, "w", format="whip", options=options))
        video = add_video(film, source)
        audio = add_audio(film) if file.streams.audio else None
        for frame in frames_in_time(file):
            if isinstance(frame, av.VideoFrame):
                film.mux(video.encode(frame.reformat(video.width, video.height, "yuv420p")))
            elif audio is not None:
                for part in resampler.resample(frame):
                    film.mux(audio.encode(part))
        film.mux(video.encode(None))
        if audio is not None:
            film.mux(audio.encode(None))


def main(path: str) -> None:
    """Play the file to the endpoint that WHIP_URL names, with the token WHIP_TOKEN."""
    with tempfile.TemporaryDirectory() as folder:
        options = {"authorization": os.environ["WHIP_TOKEN"]} | write_certificate(Path(folder))
        play(path, os.environ["WHIP_URL"], options)


if __name__ == "__main__":
    main(sys.argv[1])
