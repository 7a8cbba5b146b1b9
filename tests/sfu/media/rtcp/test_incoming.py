"""RTCP from peers: what it changes, and that nothing else gets through."""

import struct
from typing import Any

import numpy as np
import pytest
from aiortc import rtp
from aiortc.rtp import (
    RtcpByePacket,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSdesPacket,
    RtcpSenderInfo,
    RtcpSourceInfo,
    RtcpSrPacket,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from sfu.media.net.lookup import insert_outgoing
from sfu.media.receive.sources import DISPLACED_NS
from sfu.media.rtcp.incoming import MAX_NACKED, MIN_REPORT_NS, receive_compound, receive_rtcp
from sfu.media.wire.rtcp import middle_ntp
from sfu.schema.capacities import RTCP_SENDERS, SEQUENCE_START
from sfu.schema.codes import MediaKind, NoticeKind, RowState
from tests.sfu.support.publisher import MS, OUR_SSRC, ROW, SECOND, START, Publisher, packet

SUBSCRIPTION = 4
OUT, OUT_RTX = 50_001, 50_002
PEER = 31


def wall_time(peer: Publisher, now: int) -> int:
    """ns since 1970 at `now`, as the media thread has it."""
    return now + int(peer.memory.thread["wall_offset_ns"])


@pytest.fixture
def peer() -> Publisher:
    """A peer that publishes a track (SSRC 10, RTX 11) and is sent another (SSRC OUT, RTX OUT_RTX)."""
    return make_peer()


def make_peer() -> Publisher:
    result = Publisher()
    result.add_track("0", ssrcs=(10,), rtx_ssrcs=(11,))
    row = subscription(result)
    row["state"], row["kind"], row["transport"], row["track"] = RowState.OPEN, MediaKind.VIDEO, ROW, 0
    row["ssrc"], row["rtx_ssrc"], row["rtx_payload_type"] = OUT, OUT_RTX, 97
    row["history_use"] = 1
    row["packets"], row["out_highest"], row["generation"] = 1, 1000, 1
    row["layer"] = row["target_layer"] = 0
    insert_outgoing(result.record, SUBSCRIPTION, 0)
    insert_outgoing(result.record, SUBSCRIPTION, 1)
    return result


def subscription(peer: Publisher) -> Any:
    return peer.memory.table("subscriptions")[SUBSCRIPTION]


def receive(peer: Publisher, *packets: Any, now: int = START) -> None:
    """A compound as if decrypted."""
    data = b"".join(bytes(part) for part in packets)
    array = np.frombuffer(data, np.uint8).copy() if data else np.zeros(0, np.uint8)
    receive_compound(peer.record, peer.memory.arena, array, len(data), ROW, now)


def block(ssrc: int, **values: int) -> RtcpReceiverInfo:
    fields = {"fraction_lost": 0, "packets_lost": 0, "highest_sequence": 0, "jitter": 0, "lsr": 0, "dlsr": 0} | values
    return RtcpReceiverInfo(ssrc=ssrc, **fields)


def sender_report(ssrc: int = 10, ntp: int = 0x0123456789ABCDEF, timestamp: int = 0xFFFFFFFF) -> RtcpSrPacket:
    info = RtcpSenderInfo(ntp_timestamp=ntp, rtp_timestamp=timestamp, packet_count=1, octet_count=2)
    return RtcpSrPacket(ssrc=ssrc, sender_info=info)


class TestSenderReports:
    def test_they_are_kept_with_their_arrival(self, peer: Publisher) -> None:
        peer.receive(packet(1, ssrc=10))
        receive(peer, sender_report(), now=START + 5)
        stream = peer.stream()
        assert int(stream["report_ntp"]) == 0x0123456789ABCDEF
        assert (stream["report_timestamp"], stream["report_ns"]) == (0xFFFFFFFF, START + 5)

    @pytest.mark.parametrize("report", [sender_report(11), sender_report(12), sender_report(ntp=0)])
    def test_those_of_repairs_strangers_and_senders_without_a_clock_are_not(
        self, peer: Publisher, report: RtcpSrPacket
    ) -> None:
        peer.receive(packet(1, ssrc=10))
        peer.receive(packet(1, ssrc=11, payload_type=97, payload=b""))
        receive(peer, report)
        assert peer.stream()["report_ntp"] == 0

    def test_those_that_follow_each_other_too_fast_are_passed_over(self, peer: Publisher) -> None:
        peer.receive(packet(1, ssrc=10))
        receive(peer, sender_report(timestamp=1), sender_report(timestamp=2), now=START)
        receive(peer, sender_report(timestamp=3), now=START + MIN_REPORT_NS - 1)
        assert (peer.stream()["report_timestamp"], peer.stream()["report_ns"]) == (1, START)
        receive(peer, sender_report(timestamp=4), now=START + MIN_REPORT_NS)
        assert peer.stream()["report_timestamp"] == 4

    def test_their_report_blocks_count(self, peer: Publisher) -> None:
        report = sender_report()
        report.reports = [block(OUT)]
        receive(peer, report)
        assert subscription(peer)["mid_acknowledged"] == 1


class TestReportBlocks:
    def test_loss_and_jitter_are_kept(self, peer: Publisher) -> None:
        receive(peer, RtcpRrPacket(ssrc=PEER, reports=[block(OUT, fraction_lost=7, packets_lost=-3, jitter=99)]))
        row = subscription(peer)
        assert (row["lost"], row["jitter"]) == (-3, 99)

    def test_what_had_been_sent_is_kept_with_them(self, peer: Publisher) -> None:
        row = subscription(peer)
        row["packets"] = 90
        receive(peer, RtcpRrPacket(ssrc=PEER, reports=[block(OUT, packets_lost=10)]), now=START + 5)
        row["packets"] = 95
        receive(peer, RtcpRrPacket(ssrc=PEER, reports=[block(OUT_RTX), block(1)]), now=START + 6)
        assert (row["reported_ns"], row["reported_packets"]) == (START + 5, 90)

    def test_each_ssrc_acknowledges_its_own_mid(self, peer: Publisher) -> None:
        receive(peer, RtcpRrPacket(ssrc=PEER, reports=[block(OUT_RTX)]))
        row = subscription(peer)
        assert (row["mid_acknowledged"], row["rtx_mid_acknowledged"]) == (0, 1)
        receive(peer, RtcpRrPacket(ssrc=PEER, reports=[block(OUT)]))
        assert (row["mid_acknowledged"], row["rtx_mid_acknowledged"]) == (1, 1)

    def test_blocks_about_strangers_are_counted(self, peer: Publisher) -> None:
        receive(peer, RtcpRrPacket(ssrc=PEER, reports=[block(1), block(OUT), block(2)]))
        assert peer.drops == {"foreign_ssrc": 2}
        assert subscription(peer)["mid_acknowledged"] == 1

    @pytest.mark.parametrize("wall", [0, 3 * SECOND // 7, 1_760_000_000 * SECOND + 12345, (65536 - 1) * SECOND])
    def test_the_round_trip_is_what_the_peer_did_not_keep(self, peer: Publisher, wall: int) -> None:
        peer.memory.thread["wall_offset_ns"] = wall
        sent, kept, trip = START, 400 * MS, 80 * MS
        report = block(OUT, lsr=middle_ntp(wall_time(peer, sent)), dlsr=kept * 65536 // SECOND)
        receive(peer, RtcpRrPacket(ssrc=PEER, reports=[report]), now=sent + kept + trip)
        assert peer.transport["rtt_ns"] == pytest.approx(trip, abs=MS // 10)

    def test_round_trips_are_averaged(self, peer: Publisher) -> None:
        peer.transport["rtt_ns"] = 80 * MS
        report = block(OUT, lsr=middle_ntp(wall_time(peer, START)))
        receive(peer, RtcpRrPacket(ssrc=PEER, reports=[report]), now=START + 160 * MS)
        assert peer.transport["rtt_ns"] == pytest.approx(90 * MS, abs=MS // 10)

    @pytest.mark.parametrize("lsr", [0, 12345])
    def test_impossible_round_trips_are_ignored(self, peer: Publisher, lsr: int) -> None:
        receive(peer, RtcpRrPacket(ssrc=PEER, reports=[block(OUT, lsr=lsr, dlsr=1 << 30)]))
        assert peer.transport["rtt_ns"] == 0

    def test_middle_of_ntp_is_that_of_rfc_3550(self) -> None:
        seconds = 1_760_000_000.75
        expected = int((seconds + 2_208_988_800) * 65536) & 0xFFFFFFFF
        assert middle_ntp(int(seconds * SECOND)) == expected


class TestNack:
    """No packet was sent, so each number that is looked up counts as unknown."""

    def test_each_number_is_answered(self, peer: Publisher) -> None:
        receive(peer, RtcpRtpfbPacket(fmt=1, ssrc=PEER, media_ssrc=OUT, lost=[7, 8, 23, 24, 400]))
        assert peer.drops == {"nack_unknown": 5}
        assert peer.memory.thread["nacks_received"] == 5

    def test_the_mask_goes_over_the_wrap(self, peer: Publisher) -> None:
        receive(peer, struct.pack("!BBHLLHH", 0x81, 205, 3, PEER, OUT, 65_535, 1))
        assert peer.drops == {"nack_unknown": 2}

    def test_those_about_repairs_are_ignored(self, peer: Publisher) -> None:
        receive(peer, RtcpRtpfbPacket(fmt=1, ssrc=PEER, media_ssrc=OUT_RTX, lost=[1]))
        assert peer.drops == {}
        assert peer.memory.thread["nacks_received"] == 0

    def test_those_about_strangers_are_counted(self, peer: Publisher) -> None:
        receive(peer, RtcpRtpfbPacket(fmt=1, ssrc=PEER, media_ssrc=10, lost=[1]))
        assert peer.drops == {"foreign_ssrc": 1}

    def test_a_datagram_gets_so_many_answers_and_no_more(self, peer: Publisher) -> None:
        nack = struct.pack("!BBHLL", 0x81, 205, 2 + 50, PEER, OUT) + struct.pack("!HH", 5, 0xFFFF) * 50
        receive(peer, nack, nack)
        assert peer.drops == {"nack_unknown": MAX_NACKED}
        assert peer.memory.thread["nacks_received"] == MAX_NACKED


class TestKeyFrameRequests:
    def test_pli_is_passed_on(self, peer: Publisher) -> None:
        receive(peer, RtcpPsfbPacket(fmt=1, ssrc=PEER, media_ssrc=OUT))
        assert peer.stream()["key_frame_requested"] == 1
        assert (peer.memory.thread["plis_received"], peer.memory.thread["firs_received"]) == (1, 0)

    def test_fir_names_its_ssrcs_inside(self, peer: Publisher) -> None:
        entries = struct.pack("!LLLL", 999, 0, OUT, 1 << 24)
        receive(peer, RtcpPsfbPacket(fmt=4, ssrc=PEER, media_ssrc=0, fci=entries))
        assert peer.stream()["key_frame_requested"] == 1
        assert peer.drops == {"foreign_ssrc": 1}
        assert (peer.memory.thread["plis_received"], peer.memory.thread["firs_received"]) == (0, 1)

    def test_those_about_repairs_and_strangers_are_not(self, peer: Publisher) -> None:
        receive(peer, RtcpPsfbPacket(fmt=1, ssrc=PEER, media_ssrc=OUT_RTX))
        receive(peer, RtcpPsfbPacket(fmt=1, ssrc=PEER, media_ssrc=10))
        assert peer.stream()["key_frame_requested"] == 0
        assert peer.drops == {"foreign_ssrc": 1}
        assert peer.memory.thread["plis_received"] == 0


@pytest.mark.parametrize("bitrate", [1, 262_143, 1_234_560_000, (1 << 40)])
def test_remb_is_kept(peer: Publisher, bitrate: int) -> None:
    fci = rtp.pack_remb_fci(bitrate, [OUT])
    receive(peer, RtcpPsfbPacket(fmt=15, ssrc=PEER, media_ssrc=0, fci=fci))
    assert peer.transport["remb_bps"] == rtp.unpack_remb_fci(fci)[0]


def test_an_absurd_remb_does_not_overflow(peer: Publisher) -> None:
    receive(peer, RtcpPsfbPacket(fmt=15, ssrc=PEER, media_ssrc=0, fci=b"REMB\x01\xff\xff\xff" + bytes(4)))
    assert peer.transport["remb_bps"] > 1 << 60


def test_bye_unbinds_and_a_newer_number_binds_at_once(peer: Publisher) -> None:
    for sequence in (65_530, 65_532):
        peer.receive(packet(sequence, ssrc=10))
    receive(peer, RtcpByePacket(sources=[99, 10]))
    assert peer.stream()["source"] == -1
    peer.receive(packet(65_531, ssrc=10))  # the BYE has overtaken it
    assert len(peer.log()) == 2
    assert peer.stream()["source"] == -1
    peer.receive(packet(3, ssrc=10))  # it goes on, and its numbers with it, also past their end
    assert len(peer.log()) == 3
    assert peer.stream()["highest"] == SEQUENCE_START + 65_539


def test_after_a_bye_what_it_overtook_binds_when_a_while_has_passed(peer: Publisher) -> None:
    peer.receive(packet(5, ssrc=10))
    receive(peer, RtcpByePacket(sources=[10]))
    peer.receive(packet(4, ssrc=10), now=START + DISPLACED_NS - 1)
    assert len(peer.log()) == 1
    peer.receive(packet(4, ssrc=10), now=START + DISPLACED_NS)
    assert len(peer.log()) == 2


def test_an_ssrc_that_lost_its_stream_does_not_take_it_back_with_a_bye(peer: Publisher) -> None:
    peer.receive(packet(1, ssrc=10, mid="0"))
    peer.receive(packet(1, ssrc=20, mid="0"))
    receive(peer, RtcpByePacket(sources=[10]))
    peer.receive(packet(2, ssrc=10, mid="0"))
    assert peer.stream()["ssrc"] == 20


def test_starts_and_ends_are_one_notice_until_it_is_heard(peer: Publisher) -> None:
    for sequence in range(50):
        peer.receive(packet(sequence, ssrc=10))
        receive(peer, RtcpByePacket(sources=[10]))
    assert len(peer.log()) == 50
    assert [kind for kind, *_ in peer.notices()] == [NoticeKind.STREAM_STARTED]


def test_a_whole_compound_is_read(peer: Publisher) -> None:
    peer.receive(packet(1, ssrc=10))
    description = RtcpSdesPacket(chunks=[RtcpSourceInfo(ssrc=10, items=[(1, b"cname")])])
    application = struct.pack("!BBHL4s", 0x80, 204, 2, 10, b"name")
    extended = struct.pack("!BBHL", 0x80, 207, 1, 10)
    transport_cc = struct.pack("!BBHLLHHLHH", 0x8F, 205, 5, 10, OUT, 1, 1, 0, 1, 0)
    receive(
        peer,
        sender_report(),
        description,
        application,
        extended,
        transport_cc,
        RtcpPsfbPacket(fmt=1, ssrc=10, media_ssrc=OUT),
    )
    assert peer.stream()["report_ns"] == START
    assert peer.stream()["key_frame_requested"] == 1
    assert peer.drops == {"feedback_unknown": 1}  # of a number that was never sent


@pytest.mark.parametrize("padding", [1, 2, 3, 4])
def test_any_packet_may_be_padded(peer: Publisher, padding: int) -> None:
    """libwebrtc pads transport-cc feedback by 1 to 3 bytes and sends several in one compound."""
    body = struct.pack("!LLHHLH", 10, OUT, 1, 1, 0, 1) + bytes(5) + bytes([padding])
    transport_cc = struct.pack("!BBH", 0xAF, 205, len(body) // 4) + body
    receive(peer, transport_cc, transport_cc, RtcpPsfbPacket(fmt=1, ssrc=PEER, media_ssrc=OUT))
    assert peer.drops == {"feedback_unknown": 2}
    assert peer.stream()["key_frame_requested"] == 1


good = bytes(RtcpRrPacket(ssrc=PEER, reports=[block(OUT)]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        good[:4],
        good[:-4],
        good + b"\x80",
        good + bytes(4),
        b"\x82" + good[1:],  # says two blocks, has one
        b"\x41" + good[1:],  # version 1
        b"\xa1" + good[1:-1] + b"\x00",  # padding of nothing
        b"\xa1" + good[1:-1] + b"\xff",
        b"\xa1" + good[1:-1] + b"\x01",  # padding inside the block
        struct.pack("!BBHL", 0x80, 200, 1, 10),
        struct.pack("!BBHL", 0x82, 203, 1, 10),
        struct.pack("!BBHL", 0x81, 205, 1, 10),
        struct.pack("!BBHLL", 0x81, 205, 2, 10, OUT),
        struct.pack("!BBHLL", 0x8F, 205, 2, 10, OUT),
        struct.pack("!BBHLL", 0x84, 206, 2, 10, 0),
        struct.pack("!BBHLLL", 0x84, 206, 3, 10, 0, OUT),
        struct.pack("!BBHLL", 0x8F, 206, 4, 10, 0) + b"REMB\x05\x00\x00\x00",
        good + struct.pack("!BBH", 0x80, 202, 0xFFFF),
    ],
)
def test_wrong_lengths_are_counted_and_the_good_parts_obeyed(peer: Publisher, data: bytes) -> None:
    receive(peer, data)
    assert peer.drops == {"rtcp_malformed": 1}
    assert subscription(peer)["mid_acknowledged"] == (data[: len(good)] == good)


@pytest.mark.parametrize(
    "bad",
    [
        struct.pack("!BBHL", 0x82, 200, 1, 10),
        b"\xa1" + good[1:-1] + b"\xff",
        struct.pack("!BBHLL", 0x81, 205, 2, 10, OUT),
        struct.pack("!BBHL", 0x80, 207, 1, 10) + struct.pack("!BBHLLLL", 0xA0, 207, 4, 10, 0, 0, 20),
        struct.pack("!BBHLBBH", 0x80, 207, 2, 10, 5, 0, 9),
    ],
)
def test_a_bad_part_costs_the_others_nothing(peer: Publisher, bad: bytes) -> None:
    receive(peer, good, bad, RtcpPsfbPacket(fmt=1, ssrc=PEER, media_ssrc=OUT))
    assert peer.drops == {"rtcp_malformed": 1}
    assert subscription(peer)["mid_acknowledged"] == 1
    assert peer.stream()["key_frame_requested"] == 1


class TestReferenceTimes:
    """RFC 3611: the peer says which of our reference times it had last, and how long ago."""

    def answer(self, ssrc: int, sent: int, kept: int, *, before: bytes = b"") -> bytes:
        body = before + struct.pack("!BBHLLL", 5, 0, 3, ssrc, sent, kept * 65536 // SECOND)
        return struct.pack("!BBHL", 0x80, 207, 1 + len(body) // 4, 10) + body

    @pytest.mark.parametrize("before", [b"", struct.pack("!BBHLL", 4, 0, 2, 1, 2), bytes.fromhex("09000000")])
    def test_they_tell_the_round_trip(self, peer: Publisher, before: bytes) -> None:
        sent, kept, trip = START, 400 * MS, 80 * MS
        receive(
            peer, self.answer(OUR_SSRC, middle_ntp(wall_time(peer, sent)), kept, before=before), now=sent + kept + trip
        )
        assert peer.transport["rtt_ns"] == pytest.approx(trip, abs=MS // 10)

    @pytest.mark.parametrize(("ssrc", "sent"), [(OUR_SSRC + 1, None), (OUR_SSRC, 0)])
    def test_others_tell_nothing(self, peer: Publisher, ssrc: int, sent: int | None) -> None:
        time = middle_ntp(wall_time(peer, START)) if sent is None else sent
        receive(peer, self.answer(ssrc, time, 0), now=START + 80 * MS)
        assert peer.transport["rtt_ns"] == 0
        assert peer.drops == {}


def test_protected_rtcp_is_decrypted_and_forged_is_not(peer: Publisher) -> None:
    data = peer.out.protect_rtcp(good)
    for datagram in (data, data, good + bytes(20)):
        peer.memory.table("rx")[0][: len(datagram)] = np.frombuffer(datagram, np.uint8)
        receive_rtcp(peer.record, peer.memory.arena, 0, len(datagram), ROW, START)
    assert peer.drops == {"srtcp": 2}  # the second is a replay
    assert subscription(peer)["mid_acknowledged"] == 1
    assert peer.transport["packets_in"] == 1
    thread = peer.memory.thread
    assert (thread["packets_received"], thread["bytes_received"]) == (1, len(data))


def test_libsrtp_remembers_few_senders_of_rtcp_alone(peer: Publisher) -> None:
    first = peer.out.protect_rtcp(bytes(RtcpRrPacket(ssrc=100)))
    datagrams = [first, *(peer.out.protect_rtcp(bytes(RtcpRrPacket(ssrc=101 + k))) for k in range(RTCP_SENDERS)), first]
    for datagram in datagrams:
        peer.memory.table("rx")[0][: len(datagram)] = np.frombuffer(datagram, np.uint8)
        receive_rtcp(peer.record, peer.memory.arena, 0, len(datagram), ROW, START)
    assert peer.drops == {}  # the first was forgotten, so it is no replay


@pytest.fixture(scope="module")
def shared() -> Publisher:
    result = make_peer()
    result.receive(packet(1, ssrc=10))
    return result


rtcp_packets = st.builds(
    lambda first, kind, words, body: struct.pack("!BBH", first, kind, words) + (body + bytes(60))[: 4 * words],
    st.integers(0x80, 0xBF),
    st.sampled_from([200, 201, 202, 203, 204, 205, 206, 207]),
    st.integers(0, 14),
    st.binary(max_size=60)
    | st.builds(lambda tail: struct.pack("!LL", PEER, OUT) + b"REMB" + tail, st.binary(max_size=40)),
)


@given(data=st.binary(max_size=120) | st.lists(rtcp_packets, max_size=4).map(b"".join))
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_obeyed_or_counted(shared: Publisher, data: bytes) -> None:
    before = shared.drops.get("rtcp_malformed", 0)
    receive(shared, data)
    assert 0 <= shared.drops.get("rtcp_malformed", 0) - before <= 1 + len(data) // 4
    assert subscription(shared)["state"] == RowState.OPEN
    assert shared.stream()["state"] == RowState.OPEN


ssrcs = st.sampled_from([10, 11, OUT, OUT_RTX, 99])
blocks = st.lists(st.builds(block, ssrcs, fraction_lost=st.integers(0, 255), lsr=st.integers(0, 2**32 - 1)), max_size=3)
compounds = st.lists(
    st.builds(RtcpRrPacket, ssrc=ssrcs, reports=blocks)
    | st.builds(sender_report, ssrcs)
    | st.builds(RtcpByePacket, sources=st.lists(ssrcs, max_size=3))
    | st.builds(RtcpSdesPacket, chunks=st.just([RtcpSourceInfo(ssrc=10, items=[(1, b"cname")])]))
    | st.builds(RtcpPsfbPacket, fmt=st.just(1), ssrc=ssrcs, media_ssrc=ssrcs)
    | st.builds(RtcpRtpfbPacket, fmt=st.just(1), ssrc=ssrcs, media_ssrc=ssrcs, lost=st.just([1, 2, 60])),
    min_size=1,
    max_size=5,
)


@given(compound=compounds, cut=st.integers(0, 400))
@settings(max_examples=300, deadline=None)
def test_what_aiortc_writes_is_obeyed_and_not_when_cut(shared: Publisher, compound: list[Any], cut: int) -> None:
    parts = [bytes(part) for part in compound]
    if len(parts[0]) < 8:  # an empty BYE alone is no compound
        return
    data = b"".join(parts)
    before = shared.drops.get("rtcp_malformed", 0)
    receive(shared, data)
    assert shared.drops.get("rtcp_malformed", 0) == before
    ends = {sum(map(len, parts[: k + 1])) for k in range(len(parts))}
    if cut < len(data) and cut not in ends:
        receive(shared, data[:cut])
        assert shared.drops.get("rtcp_malformed", 0) == before + 1
