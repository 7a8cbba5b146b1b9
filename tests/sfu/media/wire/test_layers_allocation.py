"""The header extension video-layers-allocation: a twin that writes it, and whatever else may come."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfu.media.wire.layers_allocation import NOT_READ, parse_layers_allocation
from sfu.schema.allocation_tables import COST_SPATIAL, COST_TEMPORAL, MEASURED_LAYERS, TARGET_STREAMS

Allocation = list[list[list[int]]]
"""kbit/s of temporal layers, by stream and spatial layer; an empty list: the layer is not active."""


def leb128(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes((0x80 | value & 0x7F,))
        value >>= 7
    return out + bytes((value,))


def written(own: int, streams: Allocation) -> bytes:
    """The extension as the documentation of libwebrtc describes it."""
    masks = [sum((len(temporals) > 0) << spatial for spatial, temporals in enumerate(layers)) for layers in streams]
    same = len(set(masks)) == 1
    out = bytes((own << 6 | (len(streams) - 1) << 4 | (masks[0] if same else 0),))
    if not same or masks[0] == 0:
        padded = [*masks, 0]
        out += bytes(padded[n] << 4 | padded[n + 1] for n in range(0, len(masks), 2))
    active = [temporals for layers in streams for temporals in layers if temporals]
    counts = [len(temporals) - 1 for temporals in active] + [0, 0, 0]
    for n in range(0, len(active), 4):
        out += bytes((counts[n] << 6 | counts[n + 1] << 4 | counts[n + 2] << 2 | counts[n + 3],))
    return out + b"".join(leb128(kbps) for temporals in active for kbps in temporals)


def parsed(data: bytes, at: int = 0, end: int | None = None) -> tuple[int, Any]:
    targets = np.full((TARGET_STREAMS, MEASURED_LAYERS), -1, np.int64)
    own = parse_layers_allocation(np.frombuffer(data, np.uint8), at, len(data) if end is None else end, targets)
    return int(own), targets.reshape(TARGET_STREAMS, COST_SPATIAL, COST_TEMPORAL)


def test_the_allocation_of_a_camera_in_three_streams() -> None:
    """As Chromium sends it: each stream has one spatial layer with three temporal ones."""
    data = bytes.fromhex("a1 a8 5a789601 f401 bc02 f403 9408 a00b a40d".replace(" ", ""))
    own, targets = parsed(data)
    assert own == 2
    assert targets[:3, 0].tolist() == [[90, 120, 150, 0], [244, 316, 500, 0], [1044, 1440, 1700, 0]]
    assert not targets[:, 1:].any()
    assert not targets[3].any()


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 3),
    st.lists(
        st.lists(st.lists(st.integers(0, (1 << 32) - 1), max_size=4), min_size=4, max_size=4), min_size=1, max_size=4
    ),
    st.binary(max_size=40),
)
def test_what_is_written_is_read(own: int, streams: Allocation, resolutions: bytes) -> None:
    data = written(own, streams)
    read, targets = parsed(data + resolutions)
    assert read == own
    for stream in range(TARGET_STREAMS):
        for spatial in range(COST_SPATIAL):
            there = streams[stream][spatial] if stream < len(streams) else []
            assert targets[stream, spatial].tolist() == there + (COST_TEMPORAL - len(there)) * [0]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.lists(st.lists(st.integers(1, 9_999), min_size=1, max_size=4), min_size=4, max_size=4),
        min_size=1,
        max_size=4,
    )
)
def test_one_that_is_cut_off_is_not_read(streams: Allocation) -> None:
    data = written(0, streams)
    for end in range(len(data)):
        assert parsed(data, 0, end)[0] == NOT_READ


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 80))
def test_nothing_is_read_beyond_the_end(data: bytes, at: int) -> None:
    """Whatever the bytes: what lies behind does not matter."""
    ours, theirs = parsed(data + bytes(64), at, len(data)), parsed(data + b"\xff" * 64, at, len(data))
    assert ours[0] == theirs[0]
    assert -1 <= ours[0] <= 3
    if ours[0] != NOT_READ:
        assert ours[1].tolist() == theirs[1].tolist()


@pytest.mark.parametrize("data", [b"", b"\x00", bytes.fromhex("0100ffffffffff01")])
def test_what_tells_nothing_is_not_read(data: bytes) -> None:
    """Nothing is sent, and a number of more than 32 bits."""
    assert parsed(data)[0] == NOT_READ
