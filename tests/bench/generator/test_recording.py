"""Tables of packets: recorded video, equal packets, and what padding makes of them."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.generator import recording
from bench.generator.recording import (
    CHROMIUM,
    HEADER_BYTES,
    LEAST_BYTES,
    equalised,
    messages_per_frame,
    pattern,
    per_frame,
    recorded_packets,
)
from bench.generator.tables import packet_t
from bench.plans import Layer


def table(*frames: list[int]) -> Any:
    """(P,) packet_t of frames with packets of these sizes."""
    packets = np.zeros(sum(map(len, frames)), packet_t)
    packets["bytes"] = list(itertools.chain(*frames))
    packets["first"] = [place == 0 for frame in frames for place in range(len(frame))]
    packets["last"] = [place == len(frame) - 1 for frame in frames for place in range(len(frame))]
    packets["key"][0] = 1
    return packets


def test_the_recording_is_ten_seconds_of_video() -> None:
    packets = recorded_packets(CHROMIUM)
    payload_bytes = packets["bytes"] - HEADER_BYTES
    assert packets["first"].sum() == packets["last"].sum() == 300
    assert payload_bytes.min() > 0
    assert payload_bytes.max() <= 1200
    assert 5 < per_frame(packets) < 12
    assert 2e6 < payload_bytes.sum() * 8 / 10 < 2.5e6
    # as far as one packet differs from the next of its frame, it is by a byte: or it is no recording of an encoder
    differences = np.diff(payload_bytes)[packets["first"][1:] == 0]
    assert (np.abs(differences) <= 1).mean() > 0.95
    assert (differences == 1).any()


def test_frames_begin_and_end_in_the_table_and_every_thirtieth_is_a_key_frame() -> None:
    packets = recorded_packets(CHROMIUM)
    assert packets["first"][0]
    assert packets["last"][-1]
    assert np.array_equal(packets["first"][1:], packets["last"][:-1])
    frame = np.cumsum(packets["first"]) - 1
    assert sorted({int(number) for number in frame[packets["key"] == 1]}) == list(range(0, 300, 30))


def test_tiny_payloads_have_room_for_the_send_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny.csv").write_text("frame,payload_bytes\n7,1\n7,900\n8,40\n")
    monkeypatch.setattr(recording, "FOLDER", tmp_path)
    packets = recorded_packets("tiny")
    assert packets["bytes"].tolist() == [LEAST_BYTES, HEADER_BYTES + 900, HEADER_BYTES + 40]
    assert packets["first"].tolist() == [1, 0, 1]
    assert packets["last"].tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    "text", ["frame,payload_bytes\n1\n", "frame,payload_bytes\n1,x\n", "frame,payload_bytes,x\n1,2,3\n"]
)
def test_what_is_not_a_recording_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / f"bad{len(text)}.csv").write_text(text)
    monkeypatch.setattr(recording, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match=r"\S"):
        recorded_packets(f"bad{len(text)}")


@pytest.mark.parametrize(
    ("frame", "padded"),
    [
        ([1000], [1000]),
        ([1000, 1000], [1000, 1000]),
        ([1000, 1001], [1001, 1001]),
        ([992, 1000], [1000, 1000]),
        ([991, 1000], [991, 1000]),  # more than may be added
        ([1001, 1000], [1001, 1000]),  # the last one may be smaller
        ([1000, 1001, 1001, 700], [1001, 1001, 1001, 700]),
        ([984, 992, 1000], [984, 1000, 1000]),  # 984 lacks 16 to what 992 has become
        ([1001, 1002, 1000, 1003], [1003, 1003, 1003, 1003]),
        ([1005, 1000, 1003], [1005, 1003, 1003]),
    ],
)
def test_packets_of_a_frame_are_padded_backwards(frame: list[int], padded: list[int]) -> None:
    packets = table(frame)
    assert equalised(packets)["bytes"].tolist() == padded
    assert packets["bytes"].tolist() == frame


def test_a_frame_is_not_padded_to_the_next_ones_size() -> None:
    assert equalised(table([1000, 1001], [1004]))["bytes"].tolist() == [1001, 1001, 1004]


@pytest.mark.parametrize(
    ("frames", "messages"),
    [
        ([[1000] * 10], 1),
        ([[1000, 1001, 1001]], 2),
        ([[1001, 1001, 1000]], 1),
        ([[1001, 1000, 1000]], 2),
        ([[1000] * 49], 2),
        ([[1000], [1000]], 1),
        ([[1000, 1001], [1000]], 1.5),
    ],
)
def test_messages_are_counted_as_the_kernel_allows_them(frames: list[list[int]], messages: float) -> None:
    assert messages_per_frame(table(*frames)) == messages


def test_padding_saves_messages_in_recorded_video() -> None:
    packets = recorded_packets(CHROMIUM)
    assert messages_per_frame(equalised(packets)) < messages_per_frame(packets)


def test_a_layer_says_which_packets_are_sent() -> None:
    equal = pattern(Layer("", 100, 1200, "equal", per_burst=1))
    assert set(equal["bytes"].tolist()) == {1200}
    assert per_frame(equal) == 10
    assert per_frame(pattern(Layer("", 100, 1200, "equal", per_burst=30))) == 30
    recorded, padded = (pattern(Layer("", 100, 0, CHROMIUM, padded=padded)) for padded in (False, True))
    assert np.array_equal(recorded, recorded_packets(CHROMIUM))
    assert np.array_equal(padded, equalised(recorded))
    assert not np.array_equal(padded, recorded)
