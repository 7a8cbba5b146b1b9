"""What a bottleneck counts, and by which name."""

import json

import pytest

from bench.network.counts import DOWN, UP, Count, Lateness, Record, stream_of
from bench.network.link import Fate, Outcome
from tests.bench.support.packets import packet


@pytest.mark.parametrize(
    ("datagram", "stream"),
    [
        (packet(b"\x80\x60" + bytes(6) + (77).to_bytes(4, "big") + b"x"), "77"),
        (packet(b"\x80\xe0" + bytes(6) + (78).to_bytes(4, "big") + b"x", options=bytes(8)), "78"),
        (packet(b"\x81\xc9" + bytes(30)), "rtcp"),
        (packet(b"\x00\x01" + bytes(18)), "stun"),
        (packet(b"\x16\xfe" + bytes(18)), "dtls"),
        (packet(bytes(20), protocol=6), "tcp"),
        (packet(bytes(20), protocol=1), "other"),
        (packet(b""), "other"),
        (packet(b"")[:12], "other"),
    ],
)
def test_streams_have_names(datagram: bytes, stream: str) -> None:
    assert stream_of(datagram) == stream


def filled() -> Record:
    record = Record(began=100.0, realtime=True, late_ms=0.4, latest_ms=2.0)
    record.add(100.05, DOWN, "77", 1000, Fate(Outcome.ARRIVES, 100.1, 0.25))
    record.add(100.06, DOWN, "77", 500, Fate(Outcome.DROPPED, 0, 0.4))
    record.add(100.07, DOWN, "78", 100, Fate(Outcome.LOST, 0, 0.01))
    record.add(100.35, DOWN, "77", 100, Fate(Outcome.ARRIVES, 100.4, 0))
    record.add(100.06, UP, "77", 100, Fate(Outcome.ARRIVES, 100.1, 0))
    return record


def test_packets_are_counted_by_time_direction_and_stream() -> None:
    record = filled()
    first, second, third = record.select(DOWN, 0, 1)
    assert first == (0, "77", Count(2, 1500, 1, 0, 250.0, 0.0, 1000))
    assert (second[:2], second[2].lost, third[:2]) == ((0, "78"), 1, (3, "77"))
    assert list(record.select(DOWN, 0, 0.3)) == [first, second]
    record.add(100.36, DOWN, "rtcp", 100, Fate(Outcome.ARRIVES, 100.4, 0))
    assert record.media(DOWN, 0.3, 0.4) == [third[2]]


def test_a_record_is_read_as_it_was_written() -> None:
    record = filled()
    assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_lateness_is_read_at_a_share() -> None:
    late = Lateness()
    for number in range(1000):
        late.add(0.0002 if number < 990 else 0.03)
    assert late.at(0.5) == pytest.approx(0.3)
    assert late.at(0.99) == pytest.approx(0.3)
    assert late.at(1.0) == pytest.approx(30.1)
    late.add(100.0)
    assert late.at(1.0) == pytest.approx(1000)
