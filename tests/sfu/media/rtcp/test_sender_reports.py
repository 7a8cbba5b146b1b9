"""Sender reports of subscriptions, read by aiortc."""

import pytest
from aiortc import rtp

from sfu.media.rates import rates_pass
from sfu.media.rtcp.reports import PERIOD_NS, sender_reports_pass
from sfu.media.subscriptions import set_layers
from sfu.schema.codes import PacketFlag
from tests.sfu.support.subscribers import MS, PRIMARY, PUBLISHER, SECOND, START_OF_KEY, Room

KEY = START_OF_KEY | PacketFlag.FRAME_END
WALL = 1_700_000_000 * SECOND
UNIX = 2_208_988_800


def ntp(wall: int) -> int:
    """ns since 1970 as 32.32 fixed point."""
    return ((wall // SECOND + UNIX) << 32) + ((wall % SECOND) << 32) // SECOND


def reports(room: Room) -> list[tuple[rtp.RtcpSrPacket, rtp.RtcpSdesPacket]]:
    sender_reports_pass(room.record, room.now)
    room.collect()
    compounds, room.viewers[0].control = room.viewers[0].control, []
    result = []
    for data in compounds:
        report, description = rtp.RtcpPacket.parse(data)
        assert isinstance(report, rtp.RtcpSrPacket)
        assert isinstance(description, rtp.RtcpSdesPacket)
        result.append((report, description))
    return result


@pytest.fixture
def room() -> Room:
    """Two packets were sent."""
    result = Room(layers=2)
    result.memory.thread["wall_offset_ns"] = WALL - result.now
    result.add_viewer()
    result.vp8(0, 1, timestamp=50_000, flags=KEY)
    result.vp8(1, 2, timestamp=53_000)
    result.forward()
    return result


def test_a_report_says_what_was_sent_and_who_sent_it(room: Room) -> None:
    report, description = reports(room)[0]
    assert report.ssrc == PRIMARY
    assert (report.sender_info.packet_count, report.sender_info.octet_count) == (2, 20)
    assert [(chunk.ssrc, chunk.items) for chunk in description.chunks] == [(PRIMARY, [(1, b"name")])]


def test_nothing_is_reported_before_the_first_packet() -> None:
    room = Room()
    room.add_viewer()
    assert reports(room) == []


def test_reports_come_once_a_second_and_soon_after_a_switch(room: Room) -> None:
    assert len(reports(room)) == 1
    room.pass_time(PERIOD_NS - 1)
    assert reports(room) == []
    room.pass_time(1)
    assert len(reports(room)) == 1
    room.vp8(0, 9, layer=1, flags=KEY)
    room.forward()
    assert len(reports(room)) == 1


def test_without_a_publishers_report_the_time_is_that_of_arrival(room: Room) -> None:
    room.pass_time(100 * MS)
    info = reports(room)[0][0].sender_info
    assert info.ntp_timestamp == ntp(WALL + 100 * MS)
    assert info.rtp_timestamp == 53_000 + 9_000


@pytest.mark.parametrize("ahead", [-3_600, 0, 86_400])
def test_the_publishers_report_is_carried_over_whatever_its_clock_says(room: Room, ahead: int) -> None:
    stream = room.stream(0)
    stream["report_ns"] = room.now
    stream["report_ntp"], stream["report_timestamp"] = ntp(WALL + ahead * SECOND), 60_000
    room.pass_time(200 * MS)
    info = reports(room)[0][0].sender_info
    assert info.ntp_timestamp == ntp(WALL + 200 * MS)
    assert abs(info.rtp_timestamp - (60_000 + 18_000)) <= 1


def test_all_streams_of_a_publisher_move_by_one_shift(room: Room) -> None:
    first, second = room.stream(0), room.stream(1)
    first["report_ns"], first["report_ntp"], first["report_timestamp"] = room.now, ntp(WALL), 60_000
    # the second stream's report was 30 ms longer on its way
    second["report_ns"], second["report_ntp"] = room.now + 31 * MS, ntp(WALL + 1 * MS)
    room.pass_time(200 * MS)
    info = reports(room)[0][0].sender_info
    shift = int(room.memory.table("transports")[PUBLISHER]["ntp_shift_ns"])
    assert 0 < shift <= 1 * MS
    assert abs(info.rtp_timestamp - (60_000 + (200 * MS - shift) * 90 // MS)) <= 2


def test_the_time_is_that_of_the_subscription_after_a_switch(room: Room) -> None:
    set_layers(room.record, 0, 1, 3)
    room.pass_time(100 * MS)
    room.vp8(0, 9, layer=1, timestamp=900_000, flags=KEY)
    room.forward()
    stream = room.stream(1)
    stream["report_ns"], stream["report_ntp"], stream["report_timestamp"] = room.now, ntp(WALL), 900_000
    assert abs(reports(room)[0][0].sender_info.rtp_timestamp - (53_000 + 9_000)) <= 1


def test_hostile_times_do_not_break_reports(room: Room) -> None:
    for moment in (1, (1 << 64) - 1):
        room.stream(0)["report_ns"] = room.now
        room.stream(0)["report_ntp"] = moment
        room.stream(1)["report_ns"] = room.now
        room.stream(1)["report_ntp"] = (1 << 63) + 5
        room.pass_time(PERIOD_NS)
        assert len(reports(room)) == 1


def test_a_transport_without_a_path_is_skipped(room: Room) -> None:
    room.transport()["path"] = -1
    assert reports(room) == []


def test_bit_rates_are_those_of_the_time_since_the_last_measurement(room: Room) -> None:
    rates_pass(room.record, room.now)
    room.pass_time(2 * SECOND)
    room.vp8(2, 3, flags=PacketFlag.FRAME_START, body=bytes(995))
    room.stream()["bytes"] += 500
    room.forward()
    rates_pass(room.record, room.now)
    assert room.subscription()["bitrate_bps"] == 4_000
    assert room.stream()["bitrate_bps"] == 2_000


def test_those_of_one_subscriber_leave_together(room: Room) -> None:
    """RFC 3550 section 6.1 lets a compound have several; each has its CNAME."""
    memory, first = room.memory, room.subscription()
    for number in range(1, 40):
        other = memory.table("subscriptions")[100 + number]
        memory.table("subscriptions")[100 + number] = first
        other["ssrc"] = 9_000 + number
        other["next_of_transport"] = first["next_of_transport"]
        first["next_of_transport"] = 100 + number
    memory.thread["subscription_end"] = 200
    for wait in (0, PERIOD_NS):
        room.pass_time(wait)
        sender_reports_pass(room.record, room.now)
        room.collect()
        compounds, room.viewers[0].control = room.viewers[0].control, []
        assert len(compounds) == 2
        assert all(len(each) <= 1150 for each in compounds)
        packets = [packet for each in compounds for packet in rtp.RtcpPacket.parse(each)]
        kinds = [type(packet) for packet in packets]
        assert kinds == [rtp.RtcpSrPacket, rtp.RtcpSdesPacket] * 40
        assert len({packet.ssrc for packet in packets if isinstance(packet, rtp.RtcpSrPacket)}) == 40
    room.pass_time(PERIOD_NS - 1)
    assert reports(room) == []


def test_one_that_begins_takes_those_along_that_are_due_soon(room: Room) -> None:
    memory, first = room.memory, room.subscription()
    memory.table("subscriptions")[100] = first
    other = memory.table("subscriptions")[100]
    other["ssrc"], other["next_of_transport"] = 9_000, -1
    first["next_of_transport"] = 100
    memory.thread["subscription_end"] = 200
    other["report_ns"] = room.now - PERIOD_NS // 2 + 1
    first["report_ns"] = 0
    sender_reports_pass(room.record, room.now)
    assert other["report_ns"] < room.now
    room.pass_time(1)
    first["report_ns"] = 0
    sender_reports_pass(room.record, room.now)
    assert other["report_ns"] == first["report_ns"] == room.now
