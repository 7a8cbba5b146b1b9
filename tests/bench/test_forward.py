"""The loads of `python -m bench forward`: what recorded video is, how the floor pads it, and that all of it comes."""

import itertools
import os
import socket
import struct
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pylibsrtp import Policy, Session, ffi

from bench import floor
from bench.accounting import confined, cores
from bench.forward import Child, FloorBench, Result, ServerBench, Shape
from bench.generator import recording
from bench.generator.recording import (
    CHROMIUM,
    equal_packets,
    equalised,
    messages_per_frame,
    per_frame,
    recorded_packets,
)
from bench.load import HEADER_BYTES, LEAST_BYTES, SLOTS, Generator, packet_t, send_burst

KEY = bytes(range(28))
SUBSCRIBERS, PACKETS_PER_SECOND = 3, 2_000
CORE = cores()[0][0]


def table(*frames: list[int]) -> Any:
    """(P,) packet_t of frames with packets of these sizes."""
    packets = np.zeros(sum(map(len, frames)), packet_t)
    packets["bytes"] = list(itertools.chain(*frames))
    packets["first"] = [place == 0 for frame in frames for place in range(len(frame))]
    packets["last"] = [place == len(frame) - 1 for frame in frames for place in range(len(frame))]
    packets["key"][0] = 1
    return packets


def policy(kind: Any) -> Policy:
    return Policy(key=KEY, ssrc_type=kind, srtp_profile=Policy.SRTP_PROFILE_AEAD_AES_128_GCM)


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


def test_frames_come_as_often_as_the_packets_per_second_say() -> None:
    assert Shape(50, 60_000).interval_ns == 833_333
    assert Shape(50, 60_000, per_burst=10).interval_ns == 8_333_333
    frames_per_second = 60_000 / 50 / per_frame(recorded_packets(CHROMIUM))
    assert Shape.chromium(50, 60_000).interval_ns == int(1e9 / frames_per_second)


def sent_by(generator: Generator, packets: Any, bursts: int) -> list[list[bytes]]:
    """What `send_burst` puts on the wire, decrypted, burst by burst."""
    outward, inward = Session(policy(Policy.SSRC_ANY_OUTBOUND)), Session(policy(Policy.SSRC_ANY_INBOUND))
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        receiver.bind(("127.0.0.1", 0))
        receiver.setblocking(False)
        sender.connect(receiver.getsockname())
        load = generator.load
        load["publisher_fd"] = sender.fileno()
        load["publisher_srtp"] = int(ffi.cast("uintptr_t", outward._srtp[0]))
        found: list[list[bytes]] = []
        for now in range(bursts):
            send_burst(load[0], packets, generator.slots, generator.iov, generator.scratch, now)
            found.append([])
            while len(found[-1]) < 1000:
                try:
                    found[-1].append(inward.unprotect(receiver.recv(2048)))
                except BlockingIOError:
                    break
    return found


def test_a_burst_is_a_frame_of_any_size_and_the_table_begins_again() -> None:
    frames = [[1000] * (2 * SLOTS + 3), [900, 901], [LEAST_BYTES]]
    bursts = sent_by(Generator(), table(*frames), 4)
    assert [[len(packet) for packet in burst] for burst in bursts] == [*frames, frames[0]]
    every = [packet for burst in bursts for packet in burst]
    headers = [struct.unpack_from("!BBHI", packet) for packet in every]
    assert [number for _, _, number, _ in headers] == list(range(len(every)))
    assert [[packet[1] >> 7 for packet in burst] for burst in bursts] == [[0] * (len(b) - 1) + [1] for b in bursts]
    assert [{struct.unpack_from("!I", packet, 4)[0] for packet in burst} for burst in bursts] == [
        {3000},
        {6000},
        {9000},
        {12_000},
    ]
    starts = [[packet[HEADER_BYTES] & 0x10 != 0 for packet in burst] for burst in bursts]
    assert starts == [[True] + [False] * (len(burst) - 1) for burst in bursts]
    assert [burst[0][HEADER_BYTES + 4] & 1 for burst in bursts] == [0, 1, 1, 0]  # the P bit: no key frame


def test_equal_packets_leave_one_by_one_or_in_bursts() -> None:
    smooth, framed = Generator(), Generator()
    smooth.load["per_burst"], framed.load["per_burst"] = 1, 10
    packets = equal_packets(1200, 10)
    assert [len(burst) for burst in sent_by(smooth, packets, 25)] == [1] * 25
    bursts = sent_by(framed, packets, 31)
    assert [[packet[1] >> 7 for packet in burst] for burst in bursts] == [[0] * 9 + [1]] * 31
    assert {len(packet) for burst in bursts for packet in burst} == {1200}
    assert [number for number, burst in enumerate(bursts) if burst[0][HEADER_BYTES + 4] & 1 == 0] == [0, 30]


def test_the_floor_sends_frames_in_the_sizes_it_is_given() -> None:
    frames = [[1000, 1000, 700], [600] * (SLOTS + 1)]
    child = Child(partial(floor.main, core=CORE))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(10)
        start = time.monotonic_ns() + 200_000_000
        record = {"start_ns": start, "measure_ns": start, "end_ns": start + 30_000_000, "interval_ns": 10_000_000}
        child.pipe.send((record, table(*frames), [(receiver.getsockname()[1], KEY)], True))
        assert child.pipe.recv() == "ready"
        session = Session(policy(Policy.SSRC_ANY_INBOUND))
        sizes = [*frames[0], *frames[1], *frames[0]]
        assert [len(session.unprotect(receiver.recv(2048))) for _ in sizes] == sizes
    assert child.pipe.recv() == (len(sizes), len(sizes))
    child.pipe.send(None)
    child.join()


def check(result: Result, packets_per_second: int) -> None:
    assert result.delivered == result.offered
    assert result.offered > 0.8 * packets_per_second
    assert 0 < result.latency_us[0] <= result.latency_us[2] < 60e6  # a time that was read where it was written


def test_server_and_floor_leave_the_generators_core_though_it_is_kept_there() -> None:
    (core, *_), own_core = cores()
    with confined((own_core,)), ServerBench(1, core) as server:
        bench = FloorBench(core)
        assert os.sched_getaffinity(0) == {own_core}
        assert os.sched_getaffinity(server.pid) == os.sched_getaffinity(bench._child.pid) == {core}
        bench.close()
    assert core != own_core or len(os.sched_getaffinity(0)) == 1


def test_the_floor_delivers_recorded_video() -> None:
    shape = Shape.chromium(SUBSCRIBERS, PACKETS_PER_SECOND, 1.0)
    Generator().warm_up()
    bench = FloorBench(CORE)
    try:
        check(bench.run(shape, segments=True), PACKETS_PER_SECOND)
    finally:
        bench.close()


def test_the_server_delivers_recorded_video_and_goes_on_with_another_load() -> None:
    Generator().warm_up()
    with ServerBench(SUBSCRIBERS, CORE) as server:
        check(server.run(Shape.chromium(SUBSCRIBERS, PACKETS_PER_SECOND, 1.0)), PACKETS_PER_SECOND)
        check(server.run(Shape(SUBSCRIBERS, PACKETS_PER_SECOND, seconds=1.0)), PACKETS_PER_SECOND)
        assert server.drops() == {}
