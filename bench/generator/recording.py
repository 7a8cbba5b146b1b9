"""Patterns: tables of the packets that a publisher sends over and over, equal ones or recorded video of Chromium.

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
from sfu.media.send.batch import MAX_EQUALISING

FOLDER = Path(__file__).parents[1] / "recordings"
CHROMIUM = "chromium-vp8-720p"
"""1280x720, 30 frames/s, 2.3 Mbit/s, VP8 without simulcast, 10 s."""
EQUAL = "equal"
"""The pattern of packets that are all as large as their layer says."""
PER_FRAME = 10
"""Packets of a frame where equal packets are sent one by one."""
HEADER_BYTES = 12 + 4 + 8
"""RTP header, extension header, one-byte extensions: mid (1 character) and transport-cc, padded."""
LEAST_BYTES = HEADER_BYTES + 14 + MARK_BYTES
"""The least bytes of a packet: header, payload descriptor, head of a key frame, mark."""
KEY_EVERY = 30
"""Frames from one key frame to the next."""


def pattern(layer: Layer) -> Any:
    """Return the packets of a layer that has a pattern: (P,) packet_t.

    Raises:
        ValueError: there is no such pattern, or its file is malformed.
        OSError: the file cannot be read.
    """
    if layer.pattern == EQUAL:
        packets = equal_packets(layer.packet_bytes, max(layer.per_burst, PER_FRAME))
    else:
        packets = recorded_packets(layer.pattern)
    return equalised(packets) if layer.padded else packets


def patterns() -> list[str]:
    """Return the values that `Layer.pattern` may have."""
    return [EQUAL, *sorted(path.stem for path in FOLDER.glob("*.csv"))]


def equal_packets(packet_bytes: int, per_frame: int) -> Any:
    """Return KEY_EVERY frames of `per_frame` plaintext RTP packets with `packet_bytes` each: (P,) packet_t."""
    frame = np.repeat(np.arange(KEY_EVERY), per_frame)
    return _table(frame, np.full(len(frame), packet_bytes))


@cache
def recorded_packets(name: str) -> Any:
    """Return the packets of a recording: (P,) packet_t. All callers share one array.

    A packet is as large as the recorded payload with the header that the generator writes, and at least LEAST_BYTES.

    Raises:
        ValueError: the file is malformed.
        OSError: the file cannot be read.
    """
    path = FOLDER / f"{name}.csv"
    table = np.loadtxt(path, np.int64, delimiter=",", skiprows=1, ndmin=2)
    if table.shape[1:] != (2,) or not len(table):
        raise ValueError(f"{path} is not a recording: it needs the columns frame and payload_bytes")
    frame, payload_bytes = table.T
    return _table(frame, np.maximum(payload_bytes + HEADER_BYTES, LEAST_BYTES))


def _table(frame: Any, packet_bytes: Any) -> Any:
    """Make a table, (P,) packet_t, of each packet's frame number, which grows, and its bytes, both (P,) int."""
    packets = np.zeros(len(frame), packet_t)
    changes = np.diff(frame) != 0
    packets["bytes"] = packet_bytes
    packets["first"] = np.concatenate(([True], changes))
    packets["last"] = np.concatenate((changes, [True]))
    packets["key"] = (np.cumsum(packets["first"]) - 1) % KEY_EVERY == 0
    return packets


def equalised(packets: Any) -> Any:
    """Return a copy of (P,) packet_t with the padding that the server adds, so that few UDP_SEGMENT messages suffice.

    In one message all packets have one size, except that the last may be smaller. So, backwards through each frame, a
    packet that is up to MAX_EQUALISING bytes smaller than the next one is padded, as in `sfu.media.send.egress`.
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
    """Return the packets of a frame of (P,) packet_t, on average."""
    return len(packets) / int(packets["first"].sum())


def messages_per_frame(packets: Any) -> float:
    """Return the UDP_SEGMENT messages that a frame of (P,) packet_t takes to one receiver, on average."""
    messages = run = opened = before = 0
    for size, first in zip(packets["bytes"].tolist(), packets["first"].tolist(), strict=True):
        # a message ends after MAX_SEGMENTS, after its first smaller packet, and before a larger one
        if first or run == MAX_SEGMENTS or before < opened or size > opened:
            messages, run, opened = messages + 1, 0, size
        run, before = run + 1, size
    return messages / int(packets["first"].sum())
