"""What streams with a table of packets put on the wire, burst by burst, and what happens while nothing may be sent."""

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.generator import recording
from bench.generator.generator import Generator
from bench.generator.recording import HEADER_BYTES, LEAST_BYTES
from bench.generator.send import hold, send_burst
from bench.generator.tables import SLOTS
from bench.plans import Connected, Layer, Plan, SendStream

MID = bytes((4 << 4, 48))
TRANSPORT_CC_ID = 3
FRAME_NS = 33_000_000


class Publisher:
    """A generator with one stream, which goes in the clear to a socket here."""

    def __init__(self, layer: Layer) -> None:
        self.generator = Generator()
        self.receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.receiver.bind(("127.0.0.1", 0))
        self.receiver.setblocking(False)
        self.sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sender.connect(self.receiver.getsockname())
        stream = SendStream(0x1234, 96, "video", layer, 0, MID, TRANSPORT_CC_ID)
        self.generator.add(Connected(Plan("room", "publisher"), self.sender, 0, 0, [stream]))
        self.record = self.generator._tables.record

    def burst(self, due_ns: int) -> list[bytes]:
        """The packets of the next burst."""
        send_burst(self.record, 0, due_ns)
        found = []
        while True:
            try:
                found.append(self.receiver.recv(2048))
            except BlockingIOError:
                return found

    def bursts(self, count: int) -> list[list[bytes]]:
        return [self.burst(number * FRAME_NS) for number in range(1, count + 1)]

    def close(self) -> None:
        self.generator.stop()
        self.sender.close()
        self.receiver.close()


@pytest.fixture
def frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[int]]]:
    """The sizes of a recording's packets by frame; its name is `mine`."""
    sizes = [[1000] * (2 * SLOTS + 3), [900, 901], [LEAST_BYTES]]
    lines = [f"{number},{size - HEADER_BYTES}" for number, frame in enumerate(sizes) for size in frame]
    (tmp_path / "mine.csv").write_text("\n".join(["frame,payload_bytes", *lines]) + "\n")
    monkeypatch.setattr(recording, "FOLDER", tmp_path)
    recording.recorded_packets.cache_clear()
    yield sizes
    recording.recorded_packets.cache_clear()


def test_a_burst_is_a_frame_of_any_size_and_the_table_begins_again(frames: list[list[int]]) -> None:
    publisher = Publisher(Layer("", 100, 0, "mine"))
    bursts = publisher.bursts(4)
    publisher.close()
    assert [[len(packet) for packet in burst] for burst in bursts] == [*frames, frames[0]]
    every = [packet for burst in bursts for packet in burst]
    headers = [struct.unpack_from("!BBHI", packet) for packet in every]
    assert [number for _, _, number, _ in headers] == list(range(len(every)))
    assert [struct.unpack_from("!H", packet, 19)[0] for packet in every] == list(range(len(every)))
    assert [[packet[1] >> 7 for packet in burst] for burst in bursts] == [[0] * (len(b) - 1) + [1] for b in bursts]
    times = [{struct.unpack_from("!I", packet, 4)[0] for packet in burst} for burst in bursts]
    assert times == [{number * 2970} for number in range(1, 5)]
    starts = [[packet[HEADER_BYTES] & 0x10 != 0 for packet in burst] for burst in bursts]
    assert starts == [[True] + [False] * (len(burst) - 1) for burst in bursts]
    assert [burst[0][HEADER_BYTES + 4] & 1 for burst in bursts] == [0, 1, 1, 0]  # the P bit: no key frame


def test_equal_packets_leave_one_by_one_or_in_bursts() -> None:
    smooth, framed = Publisher(Layer("", 100, 1200, "equal", 1)), Publisher(Layer("", 100, 1200, "equal", 10))
    singles, bursts = smooth.bursts(25), framed.bursts(31)
    smooth.close()
    framed.close()
    assert [len(burst) for burst in singles] == [1] * 25
    assert len({packet[4:8] for (packet,) in singles}) == 3  # frames of ten have one timestamp
    assert [[packet[1] >> 7 for packet in burst] for burst in bursts] == [[0] * 9 + [1]] * 31
    assert {len(packet) for burst in bursts for packet in burst} == {1200}
    assert [number for number, burst in enumerate(bursts) if burst[0][HEADER_BYTES + 4] & 1 == 0] == [0, 30]


def test_what_was_due_while_nothing_may_be_sent_is_not_made_up_for(frames: list[list[int]]) -> None:
    publisher = Publisher(Layer("", 100, 0, "mine"))
    first, _ = publisher.bursts(2)
    control, due = publisher.generator._tables.control, publisher.generator._tables.table("heap_due")
    control["scheduled"], control["adopted"], due[0] = 1, 1, 5
    hold(publisher.record, 1_000)
    assert due[0] == 1_000
    hold(publisher.record, 900)
    assert due[0] == 1_000
    again = publisher.burst(FRAME_NS)
    publisher.close()
    assert [len(packet) for packet in again] == [len(packet) for packet in first] == frames[0]
    assert again[0][HEADER_BYTES + 4] & 1 == 0  # a key frame, whose numbers go on
    assert struct.unpack_from("!H", again[0], 2)[0] == len(frames[0]) + len(frames[1])


def test_more_packets_than_there_is_room_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.generator.generator.PATTERN_PACKETS", 400)
    publisher = Publisher(Layer("", 100, 1200, "equal", 10))
    send = publisher.generator._tables.table("sends")[0]
    with pytest.raises(ValueError, match="no room for more than 400 packets"):
        publisher.generator._fill_pattern(send, Layer("", 100, 1200, "equal", 10))
    publisher.close()
