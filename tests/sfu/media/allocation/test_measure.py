"""What each layer of a stream sends."""

import pytest

from sfu.media.allocation.measure import CAMERA_MEAN_NS, CHANGE_PERCENT, LEAST, SCREEN_MEAN_NS, measured_layer
from sfu.media.rates import rates_pass
from sfu.parameters import Codec
from sfu.schema.allocation_tables import COST_TEMPORAL, MEASURED_LAYERS
from sfu.schema.codes import MediaKind
from tests.sfu.support.publisher import MS, SECOND, START, VP8, Publisher, packet

BYTES, PACKETS = 1000, 20
"""Size of each packet (without a few bytes of its header), and packets in each second."""


def vp8(temporal: int, key: bool = False) -> bytes:
    """A payload of a descriptor with a temporal layer, and some bytes of a frame."""
    return bytes((0x90, 0xE0, 0x80, 1, 0, temporal << 6)) + (b"\x00" if key else b"\x01") + bytes(BYTES)


class Measured(Publisher):
    """Sends a second of packets at a time, and lets them be measured."""

    def __init__(self, screen: bool = False) -> None:
        super().__init__()
        self.add_track("0")
        self.track()["screen"] = screen
        self.now, self.number, self.size = START, 0, 0
        rates_pass(self.record, self.now)

    def second(
        self, *temporals: int, count: int = PACKETS, early: bool = False, key: bool = False, measure: bool = True
    ) -> None:
        at = self.now + (MS if early else SECOND - 20 * MS)
        for temporal in temporals:
            for _ in range(count):
                payload = vp8(temporal, key and temporal == 0)
                data = packet(self.number, mid="0", timestamp=3000 * self.number, payload=payload)
                self.size = len(data)
                self.receive(data, at)
                self.number += 1
        self.now += SECOND
        if measure:
            rates_pass(self.record, self.now)

    def bytes(self, temporal: int = 0) -> int:
        return int(self.stream()["layer_bytes"][temporal])


def test_bytes_and_packets_are_counted_for_each_temporal_layer() -> None:
    publisher = Measured()
    publisher.second(0, 2)
    publisher.second(0, 2, 2)
    assert [publisher.bytes(each) for each in range(4)] == [
        PACKETS * publisher.size,
        0,
        2 * PACKETS * publisher.size,
        0,
    ]
    assert list(publisher.stream()["layer_packets"][:4]) == [PACKETS, 0, 2 * PACKETS, 0]
    wire = 2 * PACKETS * (publisher.size + 44) * 8
    assert measured_layer(publisher.stream(), 0, 2, 44) == wire
    assert publisher.stream()["layer_bytes"][COST_TEMPORAL:].sum() == 0
    assert publisher.stream()["layer_bytes"].size == MEASURED_LAYERS


def test_a_layer_is_measured_from_its_first_whole_interval_on() -> None:
    publisher = Measured()
    publisher.second(0, count=1)
    assert measured_layer(publisher.stream(), 0, 0, 44) == 0
    publisher.second(0)
    assert publisher.bytes() == PACKETS * publisher.size


@pytest.mark.parametrize(("screen", "mean_ns"), [(False, CAMERA_MEAN_NS), (True, SCREEN_MEAN_NS)])
def test_rates_are_means_of_two_seconds_and_of_five_for_a_screen(screen: bool, mean_ns: int) -> None:
    publisher = Measured(screen)
    publisher.second(0)
    publisher.second(0)
    before = publisher.bytes()
    publisher.second(0, count=3 * PACKETS)
    assert publisher.bytes() == pytest.approx(before + 2 * before * SECOND / mean_ns, abs=2)


def test_a_track_that_is_muted_costs_next_to_nothing_and_afterwards_what_it_did_before() -> None:
    """Otherwise all that its viewers are sent would be too much for their paths until it is measured again."""
    publisher = Measured()
    publisher.second(0)
    publisher.second(0)
    before = measured_layer(publisher.stream(), 0, 0, 44)
    for _ in range(60):
        publisher.second()
    assert measured_layer(publisher.stream(), 0, 0, 44) == LEAST * 8
    publisher.second(0, key=True, measure=False)
    assert measured_layer(publisher.stream(), 0, 0, 44) == before
    publisher.second(0, count=2)
    assert measured_layer(publisher.stream(), 0, 0, 44) == pytest.approx(before * 0.6, rel=0.2), "measured as before"


def test_the_second_in_which_a_track_is_muted_says_nothing_of_its_rate() -> None:
    publisher = Measured()
    publisher.second(0)
    publisher.second(0)
    before = publisher.bytes()
    publisher.second(0, count=3, early=True)
    publisher.second()
    publisher.second(0)
    assert publisher.bytes() == before


def test_a_slow_track_is_measured_however_old_its_last_packet_is() -> None:
    publisher = Measured()
    publisher.second(0)
    publisher.second(0)
    for _ in range(20):
        publisher.second(0, count=1, early=True)
    assert publisher.bytes() == pytest.approx(publisher.size, rel=0.05)


def test_a_screen_that_stands_still_costs_ever_less() -> None:
    publisher = Measured(screen=True)
    publisher.second(0)
    publisher.second(0)
    for _ in range(60):
        publisher.second()
    assert publisher.bytes() == LEAST


def test_viewers_have_their_bandwidth_shared_out_anew_when_a_rate_changes() -> None:
    publisher = Measured()
    assert publisher.stream()["codec"] == Codec.NONE
    publisher.second(0)
    publisher.second(0)
    told = publisher.stream()["rate_told"]
    assert told == publisher.bytes()
    for count in (PACKETS, PACKETS + 2):
        publisher.second(0, count=count)
    assert publisher.stream()["rate_told"] == told, f"less than {CHANGE_PERCENT} %"
    publisher.second(0, count=2 * PACKETS)
    assert publisher.stream()["rate_told"] > told


def test_audio_is_measured_too() -> None:
    publisher = Publisher()
    publisher.add_track("a", kind=MediaKind.AUDIO)
    rates_pass(publisher.record, START)
    for second in range(2):
        for number in range(50):
            data = packet(50 * second + number, payload_type=111, mid="a", payload=bytes(80))
            publisher.receive(data, START + second * SECOND + 980 * MS)
        rates_pass(publisher.record, START + (second + 1) * SECOND)
    assert publisher.stream()["layer_packets"][0] == 50
    assert VP8 != 111
