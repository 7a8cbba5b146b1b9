"""What a publisher sends, packet by packet, as a table for the kernels: equal packets, or recorded video of Chromium.

A recording is a CSV file in bench/recordings with the columns `frame` and `payload_bytes`, one line a packet.
tests/clients/record_chromium.py makes it.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bench.generator.send import MARK_BYTES
from bench.generator.tables import packet_t
from bench.plans import Layer
from sfu.media.net.udp import MAX_SEGMENTS
from sfu.media.send.egress import MAX_EQUALISING

FOLDER = Path(__file__).parents[1] / "recordings"
CHROMIUM = "chromium-vp8-720p"
"""1280x720, 30 frames/s, 2.3 Mbit/s, VP8 without simulcast, 10 s."""
EQUAL = "equal"
"""The pattern of packets that are all as large as their layer says."""
PER_FRAME = 10
"""Packets of a frame of equal packets that are sent one by one."""
HEADER_BYTES = 12 + 4 + 8
"""RTP header, extension header, one-byte extensions: mid (1 character) and transport-cc, padded."""
LEAST_BYTES = HEADER_BYTES + 14 + MARK_BYTES
"""Of a packet: payload descriptor, head of a key frame, mark."""
KEY_EVERY = 30
"""Frames from one key frame to the next."""


def pattern(layer: Layer) -> Any:
    """The packets of a layer that has a pattern: (P,) packet_t. Raises ValueError or OSError."""
    if layer.pattern == EQUAL:
        packets = equal_packets(layer.packet_bytes, max(layer.per_burst, PER_FRAME))
    else:
        packets = recorded_packets(layer.pattern)
    return equalised(packets) if layer.padded else packets


def patterns() -> list[str]:
    """What `Layer.pattern` may be."""
    return [EQUAL, *sorted(path.stem for path in FOLDER.glob("*.csv"))]


def equal_packets(packet_bytes: int, per_frame: int) -> Any:
    """KEY_EVERY frames of `per_frame` packets, each of `packet_bytes` as plaintext RTP packet: (P,) packet_t."""
    frame = np.repeat(np.arange(KEY_EVERY), per_frame)
    return _table(frame, np.full(len(frame), packet_bytes))


@cache
def recorded_packets(name: str) -> Any:
    """The packets of a recording: (P,) packet_t, shared by all who ask. Raises ValueError or OSError.

    A packet is as large as the recorded payload with the header that the generator writes, and at least LEAST_BYTES.
    """
    path = FOLDER / f"{name}.csv"
    table = np.loadtxt(path, np.int64, delimiter=",", skiprows=1, ndmin=2)
    if table.shape[1:] != (2,) or not len(table):
        raise ValueError(f"{path} is not a recording: it needs the columns frame and payload_bytes")
    frame, payload_bytes = table.T
    return _table(frame, np.maximum(payload_bytes + HEADER_BYTES, LEAST_BYTES))


def _table(frame: Any, packet_bytes: Any) -> Any:
    """(P,) packet_t of each packet's frame number, which grows, and its size, both (P,) int."""
    packets = np.zeros(len(frame), packet_t)
    changes = np.diff(frame) != 0
    packets["bytes"] = packet_bytes
    packets["first"] = np.concatenate(([True], changes))
    packets["last"] = np.concatenate((changes, [True]))
    packets["key"] = (np.cumsum(packets["first"]) - 1) % KEY_EVERY == 0
    return packets


def equalised(packets: Any) -> Any:
    """The same as the server sends them, so that they fit into few UDP_SEGMENT messages: (P,) packet_t, a copy.

    In one message only the last packet may differ, by being smaller. So backwards through each frame, a packet that
    lacks up to MAX_EQUALISING bytes to what follows gets them, as in `sfu.media.send.egress`.
    """
    padded = packets.copy()
    sizes = padded["bytes"]
    following = 0
    for place in range(len(padded) - 1, -1, -1):
        if padded["last"][place]:
            following = 0
        if 0 < following - sizes[place] <= MAX_EQUALISING:
            sizes[place] = following
        following = sizes[place]
    return padded


def per_frame(packets: Any) -> float:
    """Packets of a frame, on average over (P,) packet_t."""
    return len(packets) / int(packets["first"].sum())


def messages_per_frame(packets: Any) -> float:
    """UDP_SEGMENT messages that a frame takes to one receiver, on average over (P,) packet_t."""
    messages = run = opened = before = 0
    for size, first in zip(packets["bytes"].tolist(), packets["first"].tolist(), strict=True):
        # a message ends after MAX_SEGMENTS, after its first smaller packet, and before a larger one
        if first or run == MAX_SEGMENTS or before < opened or size > opened:
            messages, run, opened = messages + 1, 0, size
        run, before = run + 1, size
    return messages / int(packets["first"].sum())
