"""SCTP packets that must not reach aiortc, and those that must."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfu.control.data import sctp_fence
from sfu.control.data.sctp_fence import refusal
from tests.deadline import deadline

HEADER = bytes.fromhex("138813880000000000000000")
WITH_PARAMETERS = {
    "INIT": 1,
    "INIT ACK": 2,
    "HEARTBEAT": 4,
    "HEARTBEAT ACK": 5,
    "ABORT": 6,
    "ERROR": 9,
    "RE-CONFIG": 130,
}
ANY_KIND = st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14, 64, 128, 130, 192])


def chunk(kind: int, body: bytes = b"", length: int | None = None) -> bytes:
    raw = struct.pack("!BBH", kind, 0, 4 + len(body) if length is None else length) + body
    return raw + bytes(-len(raw) % 4)


def parameter(kind: int, value: bytes = b"", length: int | None = None) -> bytes:
    raw = struct.pack("!HH", kind, 4 + len(value) if length is None else length) + value
    return raw + bytes(-len(raw) % 4)


def with_parameters(kind: int, *parameters: bytes) -> bytes:
    return chunk(kind, bytes(16 if kind in (1, 2) else 0) + b"".join(parameters))


def data(payload: bytes = b"x") -> bytes:
    return chunk(0, bytes(12) + payload)


@pytest.mark.parametrize("kind", WITH_PARAMETERS.values(), ids=WITH_PARAMETERS.keys())
@pytest.mark.parametrize("length", [0, 1, 3, 9, 65_535])
def test_parameter_with_a_wrong_length_is_refused(kind: int, length: int) -> None:
    assert refusal(HEADER + with_parameters(kind, parameter(1, b"four", length))) == "parameter length"
    assert refusal(HEADER + with_parameters(kind, parameter(1, b"four"))) == ""


def test_packet_that_once_stopped_the_server_is_refused() -> None:
    assert refusal(bytes.fromhex("13881388000000008e7a664f0400000800000000")) == "parameter length"


@pytest.mark.parametrize("length", [0, 3, 5, 65_535])
def test_chunk_with_a_wrong_length_is_refused(length: int) -> None:
    assert refusal(HEADER + chunk(11, b"", length)) == "chunk length"


@pytest.mark.parametrize(("kind", "shortest"), [(0, 13), (1, 16), (2, 16), (3, 12), (7, 4), (192, 4)])
def test_chunk_that_lacks_its_fixed_part_is_refused(kind: int, shortest: int) -> None:
    assert refusal(HEADER + chunk(kind, bytes(shortest - 1))) == "chunk too short"
    assert refusal(HEADER + chunk(kind, bytes(shortest))) == ""


def test_packet_without_a_chunk_is_refused() -> None:
    for size in range(16):
        assert refusal((HEADER + bytes(4))[:size])


def test_data_chunks_are_bounded() -> None:
    assert refusal(HEADER + data() * sctp_fence.MAX_CHUNKS) == ""
    assert refusal(HEADER + data() * (sctp_fence.MAX_CHUNKS + 1)) == "too many chunks"


@pytest.mark.parametrize(
    ("kind", "most"),
    [(3, 1), (192, 1), *((kind, sctp_fence.MAX_CONTROL_CHUNKS) for kind in (4, 5, 7, 8, 9, 10, 77, 130))],
)
def test_chunks_that_are_answered_or_cost_a_walk_are_bounded(kind: int, most: int) -> None:
    one = chunk(kind, bytes(12) if kind in (3, 7, 192) else b"")
    assert refusal(HEADER + one * most + data()) == ""
    assert refusal(HEADER + one * (most + 1)) == "too many control chunks"


def test_requests_of_a_reconfiguration_are_bounded() -> None:
    request = parameter(17, bytes(8))
    assert refusal(HEADER + with_parameters(130, request, request)) == ""
    assert refusal(HEADER + with_parameters(130, request, request, request)) == "too many parameters"


def test_parameters_are_bounded() -> None:
    assert refusal(HEADER + with_parameters(1, *[parameter(5)] * sctp_fence.MAX_PARAMETERS)) == ""
    assert refusal(HEADER + with_parameters(1, *[parameter(5)] * (sctp_fence.MAX_PARAMETERS + 1)))


def test_blocks_of_a_sack_must_be_in_it() -> None:
    assert refusal(HEADER + chunk(3, struct.pack("!LLHH", 1, 1, 1, 1) + bytes(8))) == ""
    assert refusal(HEADER + chunk(3, struct.pack("!LLHH", 1, 1, 2, 1) + bytes(8))) == "blocks beyond the SACK"


def test_streams_of_a_forward_tsn_are_bounded() -> None:
    streams = sctp_fence.MAX_SKIPPED_STREAMS
    assert refusal(HEADER + chunk(192, bytes(4 + 4 * streams))) == ""
    assert refusal(HEADER + chunk(192, bytes(8 + 4 * streams))) == "streams of a FORWARD TSN"
    assert refusal(HEADER + chunk(192, bytes(6))) == "streams of a FORWARD TSN"


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.tuples(ANY_KIND, st.binary(max_size=60), st.none() | st.integers(0, 70))).map(
        lambda chunks: b"".join(chunk(*each) for each in chunks)
    )
    | st.binary(max_size=2000)
)
def test_any_packet_is_judged_in_one_pass(tail: bytes) -> None:
    with deadline(1):
        refusal(HEADER + tail)
