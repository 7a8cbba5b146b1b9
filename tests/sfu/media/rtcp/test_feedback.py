"""What publishers are told: NACK, PLI, transport-cc and receiver reports, decrypted and read by aiortc."""

import itertools
import struct
from typing import Any

import pytest
from aiortc.rtp import RtcpPacket, RtcpPsfbPacket, RtcpRrPacket, RtcpRtpfbPacket

from sfu.media.net.report_share import SRTCP_BYTES
from sfu.media.receive.nack import LATE_NS, MAX_TRIES, UNKNOWN_RTT_NS
from sfu.media.receive.transport_cc import INTERVAL_NS
from sfu.media.rtcp.feedback import (
    FIRST_REPORT_NS,
    MAX_REPORT_BLOCKS,
    REPORT_INTERVAL_NS,
    feedback_pass,
    receiver_reports_pass,
)
from sfu.media.stream.key_frames import KEY_FRAME_IDLE_RETRY_NS, KEY_FRAME_RETRY_NS
from sfu.media.stream.subscriber_loss import note_subscriber_loss
from sfu.schema.codes import RowState
from tests.reference.transport_feedback import parse, split
from tests.sfu.support.publisher import (
    MS,
    OPUS,
    OUR_SSRC,
    ROW,
    SECOND,
    START,
    VP8_KEY,
    Publisher,
    packet,
    rtx,
)

PASS = 20 * MS


@pytest.fixture
def publisher() -> Publisher:
    result = Publisher()
    result.add_track("0")
    return result


def feedback(publisher: Publisher, now: int) -> list[Any]:
    """What one pass sends, without the receiver report that every compound starts with."""
    feedback_pass(publisher.record, now)
    found: list[Any] = []
    for datagram in publisher.sent():
        assert len(datagram) <= 1200
        report, *rest = split(datagram)
        assert RtcpPacket.parse(report) == [RtcpRrPacket(ssrc=OUR_SSRC)]
        found += [parse(part) if part[1] == 205 and part[0] & 31 == 15 else RtcpPacket.parse(part)[0] for part in rest]
    return found


def reports(publisher: Publisher, now: int) -> list[RtcpRrPacket]:
    receiver_reports_pass(publisher.record, now)
    found: list[Any] = []
    for datagram in publisher.sent():
        assert len(datagram) <= 1200
        found += RtcpPacket.parse(datagram)
    return found


def wrapped(nack: RtcpRtpfbPacket) -> list[int]:
    """The numbers asked for; aiortc does not wrap what the mask adds to."""
    return [number & 0xFFFF for number in nack.lost]


def narrow(publisher: Publisher, bps: int) -> None:
    """The client receives on another transport, whose path carries so much."""
    publisher.transport["downlink"] = ROW + 2
    publisher.memory.table("transports")[ROW + 1]["estimate_bps"] = bps


def arrive(publisher: Publisher, *sequences: int, now: int = START, **more: Any) -> None:
    for sequence in sequences:
        publisher.receive(packet(sequence, mid="0", **more), now=now)


class TestNack:
    @pytest.mark.parametrize("first", [100, 65_520, 65_535])
    def test_what_is_late_is_asked_for_by_the_numbers_of_the_wire(self, publisher: Publisher, first: int) -> None:
        arrive(publisher, first, first + 2, first + 30, first + 31, first + 32)
        (nack,) = feedback(publisher, START + PASS)
        assert isinstance(nack, RtcpRtpfbPacket)
        assert (nack.fmt, nack.ssrc, nack.media_ssrc) == (1, OUR_SSRC, 1111)
        assert wrapped(nack) == [(first + k) & 0xFFFF for k in (1, *range(3, 30))]
        assert publisher.memory.thread["nacks_sent"] == len(nack.lost)

    def test_a_number_that_may_only_be_overtaken_waits(self, publisher: Publisher) -> None:
        arrive(publisher, 1, 3)
        assert feedback(publisher, START + LATE_NS - 1) == []
        assert feedback(publisher, START + LATE_NS)[0].lost == [2]

    def test_it_is_repeated_until_answered(self, publisher: Publisher) -> None:
        arrive(publisher, 1, 3, 4)
        assert len(feedback(publisher, START)) == 1
        assert feedback(publisher, START + UNKNOWN_RTT_NS - 1) == []
        assert len(feedback(publisher, START + UNKNOWN_RTT_NS)) == 1
        publisher.receive(rtx(packet(2), 1, ssrc=999, mid="0"))
        assert feedback(publisher, START + 5 * UNKNOWN_RTT_NS) == []

    def test_a_publisher_with_a_long_way_is_asked_once_when_that_is_known(self, publisher: Publisher) -> None:
        publisher.transport["repair_ns"] = 200 * MS
        arrive(publisher, 1, 3, 4)
        assert len(feedback(publisher, START)) == 1
        assert feedback(publisher, START + 200 * MS - 1) == []
        publisher.receive(rtx(packet(2), 1, ssrc=999, mid="0"), now=START + 240 * MS)
        assert publisher.transport["repair_ns"] == 205 * MS

    def test_after_ten_tries_a_key_frame_is_asked_for_instead(self, publisher: Publisher) -> None:
        arrive(publisher, 1, 3, 4)
        found = [feedback(publisher, START + k * UNKNOWN_RTT_NS) for k in range(MAX_TRIES + 2)]
        assert [type(f[0]) if f else None for f in found] == [RtcpRtpfbPacket] * MAX_TRIES + [RtcpPsfbPacket, None]
        assert (publisher.memory.thread["nacks_sent"], publisher.memory.thread["plis_sent"]) == (MAX_TRIES, 1)

    def test_without_negotiated_nack_nothing_is_asked_for(self) -> None:
        publisher = Publisher()
        publisher.add_audio("0")
        arrive(publisher, 1, 5, 6, payload_type=OPUS, payload=b"x")
        assert feedback(publisher, START + PASS) == []

    def test_after_a_restart_the_new_numbers_are_asked_for(self, publisher: Publisher) -> None:
        arrive(publisher, 500)
        arrive(publisher, 7, 9, 10, ssrc=2222)
        (nack,) = feedback(publisher, START + PASS)
        assert (nack.media_ssrc, nack.lost) == (2222, [8])

    def test_the_widest_lists_fit_into_datagrams(self) -> None:
        publisher = Publisher()
        for mid in range(6):
            publisher.add_track(str(mid))
            for k in range(120):
                publisher.receive(packet(65_500 + 2 * k, ssrc=mid + 1, mid=str(mid)))
        nacks = feedback(publisher, START + PASS)
        assert {nack.media_ssrc: len(nack.lost) for nack in nacks} == dict.fromkeys(range(1, 7), 119)
        assert all(wrapped(nack) == [(65_501 + 2 * k) & 0xFFFF for k in range(119)] for nack in nacks)


class TestKeyFrames:
    @pytest.fixture
    def publisher(self, publisher: Publisher) -> Publisher:
        arrive(publisher, 1)
        publisher.stream()["key_frame_requested"] = 1
        return publisher

    def test_the_first_request_leaves_with_the_next_pass(self, publisher: Publisher) -> None:
        (pli,) = feedback(publisher, START + 1)
        assert isinstance(pli, RtcpPsfbPacket)
        assert (pli.fmt, pli.ssrc, pli.media_ssrc, pli.fci) == (1, OUR_SSRC, 1111, b"")

    def test_requests_are_throttled_and_repeated_while_frames_come(self, publisher: Publisher) -> None:
        asked = []
        for k in range(100):
            now = START + k * PASS
            arrive(publisher, 2 + k, now=now)
            if feedback(publisher, now):
                asked.append(now)
        assert [b - a for a, b in itertools.pairwise(asked)] == [KEY_FRAME_RETRY_NS] * 3

    def test_a_silent_layer_is_asked_less_often(self, publisher: Publisher) -> None:
        asked = [k for k in range(250) if feedback(publisher, START + (k + 1) * PASS)]
        assert asked == [0, KEY_FRAME_IDLE_RETRY_NS // PASS, 2 * KEY_FRAME_IDLE_RETRY_NS // PASS]

    def test_a_key_frame_ends_it(self, publisher: Publisher) -> None:
        arrive(publisher, 2, payload=VP8_KEY)
        assert feedback(publisher, START + 1) == []

    def test_a_stream_that_never_came_is_asked_when_it_comes(self, publisher: Publisher) -> None:
        publisher.add_track("1")
        publisher.stream(0)["key_frame_requested"] = 0
        publisher.stream(1)["key_frame_requested"] = 1
        assert feedback(publisher, START + PASS) == []
        publisher.receive(packet(1, ssrc=2222, mid="1"))
        assert [pli.media_ssrc for pli in feedback(publisher, START + 2 * PASS)] == [2222]


class TestTransportFeedback:
    def test_it_leaves_every_interval(self, publisher: Publisher) -> None:
        seen = {}
        for k in range(50):
            now = START + k * 10 * MS
            arrive(publisher, k, transport_sequence_number=k, now=now)
            for part in feedback(publisher, now):
                seen[now] = part
        times = list(seen)
        assert all(b - a == INTERVAL_NS for a, b in itertools.pairwise(times))
        reported = {key for part in seen.values() for key in part.arrivals}
        assert reported >= set(range(45))

    def test_unbound_packets_are_reported_too(self, publisher: Publisher) -> None:
        publisher.receive(packet(1, ssrc=5, mid="x", transport_sequence_number=65_535))
        publisher.receive(packet(2, ssrc=5, mid="x", transport_sequence_number=0))
        (part,) = feedback(publisher, START)
        assert list(part.arrivals) == [65_535, 0]
        assert part.media_ssrc == 5

    def test_a_burst_beyond_the_log_is_reported_before_it_is_overwritten(self, publisher: Publisher) -> None:
        for k in range(1500):
            publisher.receive(packet(k, mid="0", transport_sequence_number=k), arrival=START + k * 10_000)
        feedback_pass(publisher.record, START + PASS)
        numbers: list[int] = []
        for datagram in publisher.sent():
            for part in split(datagram)[1:]:
                if part[0] & 31 == 15:
                    numbers += parse(part).arrivals
        assert numbers == list(range(1500))

    def test_all_that_is_sent_at_once_counts_for_when_the_next_is_due(self, publisher: Publisher) -> None:
        for k in (*range(100), 440):
            publisher.receive(packet(k, mid="0", transport_sequence_number=k), arrival=START + k * 10_000)
        feedback_pass(publisher.record, START + PASS)
        datagrams = [each for each in publisher.sent() if any(part[0] & 31 == 15 for part in split(each)[1:])]
        sizes = [len(datagram) for datagram in datagrams]
        assert len(sizes) == 2
        sent = publisher.memory.table("arrivals")[ROW]["sent_bytes"]
        assert sent == sum(sizes) + SRTCP_BYTES * len(sizes)


class TestReceiverReports:
    def test_the_first_comes_soon_and_then_one_a_second(self, publisher: Publisher) -> None:
        arrive(publisher, 1, 2)
        times = [k for k in range(40) if reports(publisher, START + k * FIRST_REPORT_NS)]
        assert times == [0, 10, 20, 30]

    def test_a_new_ssrc_is_reported_soon(self, publisher: Publisher) -> None:
        arrive(publisher, 1)
        reports(publisher, START)
        publisher.add_track("1")
        publisher.receive(packet(1, ssrc=2222, mid="1"))
        (report,) = reports(publisher, START + FIRST_REPORT_NS)
        assert {block.ssrc for block in report.reports} == {1111, 2222}

    def test_nothing_is_reported_before_a_source_is_assigned(self, publisher: Publisher) -> None:
        publisher.receive(packet(1, mid="x"))
        publisher.receive(packet(1, ssrc=2222, payload_type=97, payload=b"", mid="0"))
        assert reports(publisher, START + REPORT_INTERVAL_NS) == []

    def test_contents(self, publisher: Publisher) -> None:
        arrive(publisher, 65_535, 0, 3)
        (report,) = reports(publisher, START)
        assert report.ssrc == OUR_SSRC
        (block,) = report.reports
        assert (block.ssrc, block.highest_sequence, block.packets_lost) == (1111, 65_536 + 3, 2)
        assert publisher.stream()["acknowledged"] == 1

    def test_the_last_of_them_tells_the_time(self) -> None:
        """RFC 3611 section 4.4; it is how the round trip to a peer that only publishes becomes known."""
        publisher = Publisher()
        publisher.memory.thread["wall_offset_ns"] = 1_760_000_000 * SECOND - START
        for mid in range(MAX_REPORT_BLOCKS + 1):
            publisher.add_track(str(mid), ssrcs=(1000 + mid,))
            publisher.receive(packet(1, ssrc=1000 + mid))
        receiver_reports_pass(publisher.record, START + 750 * MS)
        first, last = (split(datagram) for datagram in publisher.sent())
        assert len(first) == 1
        fields = struct.unpack("!BBHLBBHLL", last[1])
        assert fields[:7] == (0x80, 207, 4, OUR_SSRC, 4, 0, 2)
        assert fields[7:] == (1_760_000_000 + 2_208_988_800, 3 << 30)

    def test_what_subscribers_lose_is_reported_as_the_publishers_own(self, publisher: Publisher) -> None:
        publisher.add_audio("1")
        for sequence in (1, 2):
            publisher.receive(packet(sequence, ssrc=2222, payload_type=OPUS, payload=b"x", mid="1"))
        note_subscriber_loss(publisher.stream(1), 64, START)
        for second, expected in ((0, 64), (1, 64), (9, 64), (15, 0)):
            (report,) = reports(publisher, START + second * REPORT_INTERVAL_NS)
            (block,) = [each for each in report.reports if each.ssrc == 2222]
            assert (block.fraction_lost, block.packets_lost) == (expected, 0), "the cumulative number stays true"

    def test_the_worst_of_subscribers_counts_and_the_publishers_own_if_it_is_worse(self, publisher: Publisher) -> None:
        publisher.add_audio("1")
        for sequence in (1, 5):
            publisher.receive(packet(sequence, ssrc=2222, payload_type=OPUS, payload=b"x", mid="1"))
        for fraction in (3, 20, 7):
            note_subscriber_loss(publisher.stream(1), fraction, START)
        (block,) = reports(publisher, START)[0].reports
        assert block.fraction_lost == 256 * 3 // 5
        (block,) = reports(publisher, START + REPORT_INTERVAL_NS)[0].reports
        assert block.fraction_lost == 20

    def test_where_the_way_to_the_client_is_narrow_they_are_rarer(self, publisher: Publisher) -> None:
        narrow(publisher, 100_000)
        arrive(publisher, 1, 2)
        times = [k for k in range(60) if reports(publisher, START + k * FIRST_REPORT_NS)]
        size = int(publisher.transport["receiver_reports_bytes"])
        assert times[0] == 0
        assert all(b - a >= size * 8 * 10 // 500 for a, b in itertools.pairwise(times))
        narrow(publisher, 30_000)
        arrive(publisher, 3)
        assert reports(publisher, START + 20 * SECOND)
        assert reports(publisher, START + 25 * SECOND), "but no rarer than every five seconds"

    def test_many_streams_take_several_reports(self) -> None:
        publisher = Publisher()
        for mid in range(MAX_REPORT_BLOCKS + 5):
            publisher.add_track(str(mid), ssrcs=(1000 + mid,))
            publisher.receive(packet(1, ssrc=1000 + mid))
        found = reports(publisher, START)
        assert [len(report.reports) for report in found] == [MAX_REPORT_BLOCKS, 5]
        assert len({block.ssrc for report in found for block in report.reports}) == MAX_REPORT_BLOCKS + 5


@pytest.mark.parametrize(("column", "value"), [("secure", 0), ("path", -1), ("state", RowState.FREE)])
def test_nothing_is_sent_while_it_cannot_leave(publisher: Publisher, column: str, value: int) -> None:
    arrive(publisher, 1, 4, 5, transport_sequence_number=1)
    publisher.stream()["key_frame_requested"] = 1
    publisher.memory.table("transports")[ROW][column] = value
    feedback_pass(publisher.record, START + PASS)
    receiver_reports_pass(publisher.record, START + REPORT_INTERVAL_NS)
    assert publisher.memory.thread["tx_count"] == 0
