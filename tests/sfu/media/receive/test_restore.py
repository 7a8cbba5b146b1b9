"""Lost Opus packets that the redundancy of later RED packets brings back (RFC 2198)."""

import struct

import pytest
from aiortc import rtp
from hypothesis import given, settings
from hypothesis import strategies as st

from sfu.media.receive.restore import MAX_RESTORED
from sfu.media.wire.red import find_redundant
from sfu.parameters import Codec
from sfu.schema.capacities import PACKETS, SEQUENCE_START
from sfu.schema.codes import PacketFlag
from tests.sfu.support.publisher import OPUS, RED, START, Publisher, packet

STEP = 960
"""Timestamp units of 20 ms."""


def red(*blocks: tuple[int, bytes], primary: bytes = b"primary") -> bytes:
    """A payload with redundant (age, data), oldest first."""
    heads = b"".join(bytes([0x80 | OPUS]) + struct.pack("!I", age << 10 | len(data))[1:] for age, data in blocks)
    return heads + bytes([OPUS]) + b"".join(data for _, data in blocks) + primary


def frame(number: int) -> bytes:
    return b"frame %d" % number


class Microphone(Publisher):
    """Sends frame N as packet N, each with the `depth` frames before it."""

    def __init__(self, depth: int = 1) -> None:
        super().__init__()
        self.add_audio("a")
        self.depth = depth

    def send(self, number: int, *, at: int | None = None, depth: int | None = None) -> None:
        """at: of the sequence numbers, which are those of the frames unless there was silence."""
        blocks = [(STEP * k, frame(number - k)) for k in range(self.depth if depth is None else depth, 0, -1)]
        payload = red(*blocks, primary=frame(number))
        sequence = number if at is None else at
        self.receive(packet(sequence, payload_type=RED, timestamp=STEP * number, payload=payload, mid="a"))

    def held(self, sequence: int) -> rtp.RtpPacket:
        return rtp.RtpPacket.parse(self.stored(0, SEQUENCE_START + sequence))


@pytest.mark.parametrize("before", [7, 65_534, 65_535])
def test_a_lost_packet_is_stored_with_its_number_and_time(before: int) -> None:
    microphone = Microphone()
    microphone.send(before)
    microphone.send(before + 2)
    lost = microphone.held(before + 1)
    assert (lost.payload_type, lost.ssrc, lost.payload) == (OPUS, 1111, frame(before + 1))
    assert (lost.sequence_number, lost.timestamp) == ((before + 1) & 0xFFFF, STEP * (before + 1))
    entry = microphone.memory.table("packets")[0][(SEQUENCE_START + before + 1) & (PACKETS - 1)]
    assert (entry["codec"], entry["size"], entry["arrival_ns"]) == (Codec.OPUS, 12 + len(lost.payload), START)
    assert [low for _, low in microphone.log()] == [(before + k) & 0xFFFF for k in (0, 2, 1)]
    assert microphone.stream()["received"] == 2  # the publisher is told of the loss


def test_several_lost_packets_come_from_as_many_blocks() -> None:
    microphone = Microphone(depth=3)
    microphone.send(10)
    microphone.send(15)
    assert [microphone.held(n).payload for n in (12, 13, 14)] == [frame(n) for n in (12, 13, 14)]
    with pytest.raises(KeyError):
        microphone.held(11)


def test_what_arrives_itself_after_all_is_counted_and_not_stored_twice() -> None:
    microphone = Microphone()
    for number in (1, 3, 2, 2):
        microphone.send(number)
    assert microphone.held(2).payload_type == OPUS
    assert microphone.stream()["received"] == 3
    assert microphone.drops == {"duplicate": 2}
    entry = microphone.memory.table("packets")[0][(SEQUENCE_START + 2) & (PACKETS - 1)]
    assert not entry["flags"] & PacketFlag.RESTORED


def test_a_packet_that_is_there_is_not_restored() -> None:
    microphone = Microphone()
    for number in (1, 2, 3):
        microphone.send(number)
    assert len(microphone.log()) == 3
    assert microphone.held(2).payload_type == RED


def test_the_one_lost_packet_after_a_silence_is_told_by_its_time() -> None:
    microphone = Microphone(depth=2)
    microphone.send(1)
    microphone.send(52, at=3)  # 51 was lost, 2 to 50 were never sent; the older block would not fit
    assert microphone.held(2).payload == frame(51)


def test_of_several_after_a_silence_none_can_be_told() -> None:
    microphone = Microphone(depth=2)
    microphone.send(1)
    microphone.send(52, at=4)
    assert len(microphone.log()) == 2


def test_a_wider_gap_than_anybody_repeats_stays() -> None:
    microphone = Microphone(depth=2)
    microphone.send(1)
    microphone.send(MAX_RESTORED + 3)
    assert len(microphone.log()) == 2
    microphone.send(2 * MAX_RESTORED + 4)  # as wide as can be
    assert len(microphone.log()) == 5


@pytest.mark.parametrize(
    "blocks",
    [[], [(STEP, b"")], [(2 * STEP, b"as old as what is there")], [(0, b"no age")]],
)
def test_without_a_fitting_block_nothing_is_restored(blocks: list[tuple[int, bytes]]) -> None:
    microphone = Microphone()
    microphone.send(1)
    microphone.receive(packet(3, payload_type=RED, timestamp=3 * STEP, payload=red(*blocks), mid="a"))
    assert len(microphone.log()) == 2


def test_redundancy_is_not_asked_to_go_back_before_the_beginning() -> None:
    microphone = Microphone()
    microphone.send(5)
    assert len(microphone.log()) == 1


@pytest.fixture(scope="module")
def shared() -> Microphone:
    return Microphone()


@given(
    payload=st.binary(max_size=80)
    | st.lists(st.tuples(st.integers(0, 16383), st.binary(max_size=9)), max_size=4).map(lambda b: red(*b)),
    gap=st.integers(1, 12),
    elapsed=st.integers(0, 2**32 - 1) | st.sampled_from([STEP * k for k in range(12)]),
)
@settings(max_examples=300, deadline=None)
def test_any_payload_restores_within_the_gap_or_nothing(
    shared: Microphone, payload: bytes, gap: int, elapsed: int
) -> None:
    microphone = shared
    first = int(microphone.stream()["highest"]) + 1 - SEQUENCE_START if microphone.stream()["highest"] >= 0 else 0
    before = int(microphone.track()["log_written"])
    microphone.receive(packet(first, payload_type=OPUS, timestamp=0, payload=b"opus", mid="a"))
    microphone.receive(packet(first + gap, payload_type=RED, timestamp=elapsed, payload=payload, mid="a"))
    stored = int(microphone.track()["log_written"]) - before
    assert stored <= 1 + gap
    for number in range(first + 1, first + gap):
        entry = microphone.memory.table("packets")[0][(SEQUENCE_START + number) & (PACKETS - 1)]
        if entry["sequence"] == SEQUENCE_START + number:
            assert microphone.held(number).payload in payload


@given(data=st.binary(max_size=60), lowest=st.integers(0, 20_000), highest=st.integers(-1, 20_000))
def test_blocks_lie_within_the_payload(data: bytes, lowest: int, highest: int) -> None:
    at, size, age = find_redundant(data, 0, len(data), lowest, highest)
    if size:
        assert 0 < at < at + size < len(data)
        assert lowest <= age <= highest


def test_what_is_too_old_to_be_kept_takes_the_place_of_nothing_newer() -> None:
    microphone = Microphone(depth=0)
    newest = PACKETS + 1
    for number in (0, *range(3, PACKETS), newest):
        microphone.send(number)
    microphone.send(2, depth=1)  # its redundancy has number 1, which stands where the newest one does
    assert microphone.held(newest).sequence_number == newest
    assert microphone.held(2).sequence_number == 2
