"""signaling/turn/wire/framing.py: streams in pieces, packets of every length, and what ends a connection."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signaling.turn.wire.framing import (
    MAGIC_COOKIE,
    MAX_MESSAGE_BYTES,
    MAX_PAYLOAD_BYTES,
    NO_CHANNEL,
    PACKETS_AT_ONCE,
    RUNS_AT_ONCE,
    NotTurn,
    Run,
    Taken,
    channel_data,
    frame_of,
    runs_of,
    split_frames,
)

FIRST = 0x4000
PACKETS = st.lists(st.tuples(st.integers(FIRST, FIRST + 2), st.binary(min_size=1, max_size=40)), max_size=12)


def said(channel: int, packet: bytes) -> bytes:
    return channel.to_bytes(2) + len(packet).to_bytes(2) + packet + bytes(-len(packet) % 4)


def framed(*packets: bytes) -> bytes:
    return b"".join(len(packet).to_bytes(2) + packet for packet in packets)


def message(size: int) -> bytes:
    return b"\0\1" + size.to_bytes(2) + MAGIC_COOKIE + bytes(12 + size)


def all_runs(data: bytes) -> tuple[list[tuple[int, bytes]], int]:
    """What is whole in a stream, by channel, and how many bytes that is."""
    *runs, taken = runs_of(memoryview(data))
    assert isinstance(taken, Taken)
    return [(run.channel, b"".join(run.parts)) for run in runs if isinstance(run, Run)], taken.size


def test_frames_of_one_channel_come_together_and_in_order_with_messages() -> None:
    packets = [said(FIRST, b"a"), said(FIRST, b"bc"), message(4), said(FIRST, b"d"), said(FIRST + 1, b"e"), message(0)]
    data = b"".join(packets)
    expected = [
        (FIRST, framed(b"a", b"bc")),
        (NO_CHANNEL, message(4)),
        (FIRST, framed(b"d")),
        (FIRST + 1, framed(b"e")),
        (NO_CHANNEL, message(0)),
    ]
    assert all_runs(data) == (expected, len(data))


@given(PACKETS, st.integers(0, 3))
def test_what_is_not_whole_is_left(packets: list[tuple[int, bytes]], cut: int) -> None:
    whole = b"".join(said(*each) for each in packets)
    last = said(FIRST, b"12345678")
    for rest in (last[: 4 + cut], last[:cut], message(8)[:20]):
        found, used = all_runs(whole + rest)
        assert used == len(whole)
        assert b"".join(frames for _, frames in found) == framed(*(packet for _, packet in packets))


@pytest.mark.parametrize(
    ("piece", "most"),
    [
        (said(FIRST, b"a"), PACKETS_AT_ONCE),
        (said(FIRST, b""), PACKETS_AT_ONCE),
        (message(0), RUNS_AT_ONCE),
        (said(FIRST, b"a") + said(FIRST + 1, b"b"), RUNS_AT_ONCE // 2),
        (said(FIRST, b"a") + message(0), RUNS_AT_ONCE // 2),
    ],
)
def test_a_stream_is_taken_in_parts_so_that_others_have_their_turn(piece: bytes, most: int) -> None:
    data, sizes = piece * most * 3, list[int]()
    while data:
        *_, taken = runs_of(memoryview(data))
        assert isinstance(taken, Taken)
        sizes.append(taken.size)
        data = data[taken.size :]
        assert taken.may_go_on or not data
    assert all(abs(size - len(piece * most)) <= len(piece) for size in sizes[:2])
    assert 3 <= len(sizes) <= 4


def test_empty_packets_are_left_out() -> None:
    data = said(FIRST, b"") + said(FIRST, b"a") + said(FIRST, b"")
    assert all_runs(data) == ([(FIRST, framed(b"a"))], len(data))


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\0\0\0",
        b"\xff\xff\xff\xff",
        FIRST.to_bytes(2) + (MAX_PAYLOAD_BYTES + 1).to_bytes(2),
        b"\0\1\0\0\x21\x13",
        b"\x16\x03\x01\x00\x05hello",
        b"\0\1" + (MAX_MESSAGE_BYTES - 19).to_bytes(2),
        said(FIRST, b"good") + b"GET / HTTP/1.1\r\n"[::-1],
    ],
)
def test_what_ends_a_connection(data: bytes) -> None:
    with pytest.raises(NotTurn):
        all_runs(data)


def test_the_longest_that_is_served() -> None:
    for longest in (said(FIRST, bytes(MAX_PAYLOAD_BYTES)), message(MAX_MESSAGE_BYTES - 20)):
        assert all_runs(longest)[1] == len(longest)


@given(st.binary(max_size=300))
def test_any_bytes_are_runs_or_an_error(data: bytes) -> None:
    try:
        runs, used = all_runs(data)
    except NotTurn:
        return
    assert 0 <= used <= len(data)
    assert sum(len(part) for _, part in runs) <= used


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=12), st.integers(0, 40))
def test_frames_of_the_media_become_channel_data(packets: list[bytes], cut: int) -> None:
    rest = framed(bytes(40))[:cut]
    frames, used = split_frames(memoryview(framed(*packets) + rest))
    assert used == len(framed(*packets))
    assert channel_data(FIRST, frames) == b"".join(said(FIRST, packet) for packet in packets)


@pytest.mark.parametrize(
    ("datagram", "expected"),
    [
        (said(FIRST, b"abc"), framed(b"abc")),
        (said(FIRST, b"abc")[:-1], framed(b"abc")),  # no padding is needed over UDP
        (said(FIRST, b"abc")[:-2], None),
        (said(FIRST, b""), None),
        (b"\x40\0\0", None),
        (b"\x40\0\xff\xffabc", None),
        (said(FIRST, bytes(MAX_PAYLOAD_BYTES + 1)), None),
    ],
)
def test_channel_data_in_a_datagram(datagram: bytes, expected: bytes | None) -> None:
    frame = frame_of(memoryview(datagram))
    assert (None if frame is None else bytes(frame)) == expected
