"""Video that has to wait for its path, with a hand clock: what leaves when, what is left out, what is requested."""

import pytest
from aiortc import rtp

from sfu.media.pacing.pacer import PACE_NS
from sfu.media.pacing.skipping import OLD_NS
from sfu.media.send.budget import (
    DRAINING_PERCENT,
    KEY_FRAME_FAST_NS,
    KEY_FRAME_PERCENT,
    KEY_FRAME_STEADY_PERCENT,
    PACING_PERCENT,
    pace_bps,
)
from sfu.media.send.selection import liveness_pass, receive_key_frame_request
from sfu.media.subscriptions import set_layers
from sfu.media.timers import next_timer
from sfu.schema.bandwidth_codes import Held
from sfu.schema.capacities import CACHE_BYTES, TRACK_LOG
from sfu.schema.codes import MediaKind, PacketFlag
from sfu.schema.estimate_tables import START_BPS
from sfu.schema.send_log_tables import AT_ONCE
from tests.sfu.support.ice import drop_counts
from tests.sfu.support.paced import BODY, WIRE_BYTES, Stream, assert_no_gap, drain, drain_after_turn, numbers, prepared
from tests.sfu.support.subscribers import MS, SECOND, START_OF_KEY, Room

# Budget.


def test_what_the_budget_covers_leaves_in_its_turn() -> None:
    room, [stream] = prepared(2_000_000)
    stream.frame(5)
    room.turn()
    assert len(room.viewers[0].take()) == 5
    assert room.subscription()["waits_at"] == -1
    assert not room.memory.thread["first_paced"]
    assert not room.memory.thread["first_fresh"]


def test_a_frame_beyond_the_budget_leaves_at_the_rate_of_the_path() -> None:
    room, [stream] = prepared(600_000)
    stream.frame(20)
    sent: list[tuple[int, rtp.RtpPacket]] = []
    start = room.now
    for _ in range(200):
        room.turn(PACE_NS)
        sent += [(room.now - start, packet) for packet in room.viewers[0].take()]
    assert len(sent) == 20
    assert_no_gap([packet for _, packet in sent])
    rate = 600_000 * PACING_PERCENT // 100
    burst = rate * 0.040 / 8
    for at, packets in ((at, k + 1) for k, (at, _) in enumerate(sent)):
        assert (packets - 1) * 1_040 <= burst + rate * at / 8e9
    assert sent[-1][0] < 20 * WIRE_BYTES * 8e9 / rate
    assert drop_counts(room.memory) == {}


def test_one_refill_is_one_flush() -> None:
    room, [stream] = prepared(3_000_000)
    stream.frame(60)
    room.turn()
    log, row = room.memory.table("send_logs"), room.viewers[0].row
    before = int(log[row]["count"])
    room.viewers[0].take()
    room.turn(PACE_NS)
    count = int(log[row]["count"])
    assert len(room.viewers[0].take()) == count - before >= 2
    first = int(room.transport()["next_number"]) - (count - before)
    flushes = {int(log[row]["entries"][number & 1023]["flush"]) for number in range(first, first + count - before)}
    assert len(flushes) == 1


def test_a_path_gets_ten_packets_at_once_until_it_has_shown_that_it_takes_more() -> None:
    room, [stream] = prepared(50_000_000)
    stream.frame(40)
    room.turn()
    assert len(room.viewers[0].take()) == AT_ONCE
    room.memory.table("send_logs")[room.viewers[0].row]["burst_most"] = 2 * AT_ONCE
    room.turn(PACE_NS)
    assert len(room.viewers[0].take()) == 2 * AT_ONCE
    stream.frame(4)
    assert len(drain(room)) == 14


def test_before_the_first_feedback_a_multiple_of_the_start_rate_is_sent() -> None:
    room = Room()
    room.add_viewer()
    room.transport()["unreported"] = 0
    stream = Stream(room)
    stream.frame(60, key=True)
    sent = []
    for _ in range(80):
        room.turn(PACE_NS)
        sent.append(len(room.viewers[0].take()))
    assert max(sent) <= AT_ONCE
    rate = sum(sent[8:32]) * WIRE_BYTES * 8 / (24 * 0.005)
    assert rate == pytest.approx(2.5 * START_BPS, rel=0.1)
    assert sum(sent) == 60


def test_before_the_first_feedback_a_resumed_client_is_sent_what_its_path_carried() -> None:
    room = Room()
    viewer = room.add_viewer()
    room.transport()["unreported"] = 0
    room.transport()["resumed_bps"] = 2_000_000
    assert pace_bps(room.record, viewer.row, room.now) == 2_000_000 * PACING_PERCENT // 100


def test_what_was_allocated_leaves_in_time_though_it_exceeds_the_estimate() -> None:
    room, _ = prepared(100_000)
    row = room.viewers[0].row
    estimate, log = room.memory.table("estimates")[row], room.memory.table("send_logs")[row]
    estimate["base_ms"] = estimate["base_before_ms"] = 20.0
    log["key_waits"], log["overdrawn_ns"] = 1, room.now - KEY_FRAME_FAST_NS
    for allocated, delay, rate in (
        (90_000, 20.0, 100_000 * KEY_FRAME_STEADY_PERCENT // 100),
        (140_000, 20.0, 140_000),
        (140_000, 121.0, 100_000 * DRAINING_PERCENT // 100),
        (900_000, 20.0, 100_000 * KEY_FRAME_PERCENT // 100),
    ):
        room.transport()["allocated_bps"] = allocated
        estimate["delay_ms"] = delay
        assert pace_bps(room.record, row, room.now) == rate


def test_the_rest_of_a_picture_of_a_layer_that_is_left_does_not_wait() -> None:
    room, [stream] = prepared(600_000)
    stream.frame(20)
    room.turn()
    sent = len(room.viewers[0].take())
    assert 0 < sent < 20
    room.subscription()["held"] = Held.SWITCH
    assert drain(room) == []
    used = int(room.subscription()["out_highest"])
    room.subscription()["held"], room.subscription()["layer"] = Held.NOTHING, -1
    stream.frame(key=True)
    (packet,) = drain(room)
    assert packet.sequence_number == (used + 2) & 0xFFFF, "one number tells that the picture before is incomplete"


def test_while_packets_wait_on_the_path_nothing_leaves_faster_than_the_estimate() -> None:
    room, _ = prepared(800_000)
    row = room.viewers[0].row
    estimate = room.memory.table("estimates")[row]
    estimate["base_ms"], estimate["base_before_ms"] = 20.0, 30.0
    for delay, percent in ((120.0, PACING_PERCENT), (121.0, DRAINING_PERCENT)):
        estimate["delay_ms"] = delay
        assert pace_bps(room.record, row, room.now) == 800_000 * percent // 100


def test_who_sends_no_feedback_is_not_paced() -> None:
    room, [stream] = prepared(600_000)
    room.transport()["unreported"], room.transport()["estimate_bps"] = 1, 0
    stream.frame(50)
    room.forward()
    assert len(room.viewers[0].take()) == 50
    assert not room.transport()["first_waiting"]


def test_who_reports_nothing_any_more_and_never_did_is_sent_all_that_waits() -> None:
    room, [stream] = prepared(100_000)
    stream.frame(50)
    room.turn()
    room.transport()["unreported"], room.transport()["estimate_bps"] = 1, 0
    assert len(room.viewers[0].take()) + len(drain(room, milliseconds=50)) == 50


def test_audio_does_not_wait_and_is_charged() -> None:
    room = Room(kind=MediaKind.AUDIO)
    viewer = room.add_viewer(rtx=False)
    room.limit(100_000)
    for number in range(40):
        room.store(number, payload=bytes(100))
    room.forward()
    assert len(viewer.take()) == 40
    log = room.memory.table("send_logs")[viewer.row]
    assert log["bytes"] > 40 * 100


def test_what_never_waits_uses_up_the_budget_of_half_a_second_at_most() -> None:
    room, [stream] = prepared(400_000)
    log = room.memory.table("send_logs")[room.viewers[0].row]
    stream.frame(2)
    room.turn()
    assert len(room.viewers[0].take()) == 2
    log["bytes"] += 1_000_000
    stream.frame(2)
    room.turn()
    assert room.viewers[0].take() == []
    sent = 0
    for _ in range(110):
        room.turn(PACE_NS)
        sent += len(room.viewers[0].take())
    assert sent == 2


def test_the_loop_wakes_for_what_waits() -> None:
    room, [stream] = prepared(300_000)
    room.memory.thread["consent_ns"] = room.memory.thread["feedback_ns"] = room.now + 10 * SECOND
    for name in ("liveness_ns", "reports_ns", "levels_ns", "bandwidth_ns"):
        room.memory.thread[name] = room.now + 10 * SECOND
    assert next_timer(room.record) == room.now + 10 * SECOND
    stream.frame(20)
    room.turn()
    assert next_timer(room.record) == room.now + PACE_NS
    drain(room)
    assert next_timer(room.record) > room.now + SECOND


# What is left out.


def test_upper_temporal_layers_are_left_out_while_too_much_waits() -> None:
    room, [stream] = prepared(290_000)
    got = []
    sent = 0
    for k in range(60):  # 30 frames/s of 3 packets: 790 kbit/s, of which the base layer is half
        stream.frame(3, temporal=k % 2)
        sent += 3
        for _ in range(7):
            room.turn(PACE_NS)
            got += room.viewers[0].take()
    got += drain(room)
    assert_no_gap(got)
    left_out = drop_counts(room.memory)["pacer_temporal"]
    assert left_out + len(got) == sent
    assert left_out > 30
    assert room.subscription()["target_temporal"] == 3, "all layers again"
    room.turn(SECOND)
    stream.frame(1, temporal=1)
    room.turn()
    after = room.viewers[0].take()
    assert len(after) == 1
    assert_no_gap([got[-1], *after])


def test_what_is_older_than_the_newest_key_frame_is_left_out() -> None:
    room, [stream] = prepared(200_000)
    got, old = [], []
    for _ in range(30):  # one second of 500 kbit/s
        old.append(stream.frame(2))
        for _ in range(7):
            room.turn(PACE_NS)
            got += room.viewers[0].take()
    key = stream.frame(2, key=True)
    after = stream.frame(1)
    got += drain(room)
    assert_no_gap(got)
    ends = [packet.timestamp for packet in got if packet.marker]
    assert len(ends) < 32
    assert drop_counts(room.memory) == {"pacer_old": 62 - len(got) + 1}
    assert len(got) == 2 * (len(ends) - 1) + 1, "every frame is whole"
    assert (ends[-1] - ends[-2], after - key) == (3_000, 3_000)


def test_what_waits_without_a_newer_key_frame_is_sent_in_order() -> None:
    room, [stream] = prepared(300_000)
    for _ in range(20):
        stream.frame(2)
    got = drain(room)
    assert len(got) == 40
    assert_no_gap(got)
    assert drop_counts(room.memory) == {}


def test_a_key_frame_once_begun_is_sent_to_its_end() -> None:
    room, [stream] = prepared(600_000)
    stream.frame(130, key=True)
    got = []
    for _ in range(100):
        room.turn(PACE_NS)
        got += room.viewers[0].take()
    assert 0 < len(got) < 130
    stream.frame(2, key=True)
    got += drain(room)
    assert len([packet for packet in got if packet.timestamp == got[0].timestamp]) == 130
    assert_no_gap(got)
    assert len(got) == 132


def test_who_reports_nothing_any_more_gets_nothing_that_is_old() -> None:
    room, [stream] = prepared(100_000)
    room.memory.table("estimates")[room.viewers[0].row]["silent"] = 1
    arrived = {}
    for _ in range(60):
        arrived[stream.frame(2)] = room.now
        room.turn(33 * MS)
        for packet in room.viewers[0].take():
            offset = int(room.subscription()["timestamp_offset"])
            assert room.now - arrived[(packet.timestamp + offset) & 0xFFFFFFFF] <= OLD_NS + 33 * MS
    assert drop_counts(room.memory)["pacer_old"] > 0
    assert room.stream()["key_frame_requested"]
    stream.frame(1, key=True)
    room.turn(10 * MS)
    room.turn(500 * MS)
    assert room.subscription()["layer"] == 0


def test_what_waits_longer_than_the_log_remembers_is_left_out_and_a_key_frame_is_requested() -> None:
    room, [stream] = prepared(30_000)
    for _ in range(TRACK_LOG + 100):
        stream.frame(1, body=b"tiny")
        room.turn()
    room.turn(100 * MS)
    assert drop_counts(room.memory)["pacer_overtaken"] > 0
    assert room.subscription()["layer"] == -1
    assert room.stream()["key_frame_requested"]
    stream.frame(1, key=True)
    got = drain(room)
    assert room.subscription()["layer"] == 0
    assert got[-1].marker


def test_what_the_packet_cache_has_lost_is_left_out_and_a_key_frame_is_requested() -> None:
    room, [stream] = prepared(100_000, cache=CACHE_BYTES["low"])
    stream.frame(10)
    room.turn()
    for _ in range(30):
        stream.frame(10)
        room.turn()
    room.turn(SECOND)
    assert drop_counts(room.memory)["pacer_overtaken"] > 0
    assert room.stream()["key_frame_requested"]
    room.viewers[0].take()
    stream.frame(1, key=True)
    got = drain(room)
    assert len([packet for packet in got if packet.marker]) == 1


# Layers.


def test_the_key_frame_of_a_better_layer_is_spaced() -> None:
    room, [low, high] = prepared(600_000, layers=2)
    set_layers(room.record, 0, 1, 3)
    high.frame(30, key=True)
    got: list[rtp.RtpPacket] = []
    turns = 0
    while len(got) < 30:
        low.frame(1, body=b"low")
        room.turn(PACE_NS)
        got += [packet for packet in room.viewers[0].take() if len(packet.payload) > 100]
        turns += 1
        assert turns < 200
    assert turns > 30
    assert room.subscription()["layer"] == 1
    assert numbers(got) == list(range(got[0].sequence_number, got[0].sequence_number + 30))


def test_layers_change_in_the_order_in_which_they_wait() -> None:
    room, [low, high] = prepared(300_000, layers=2)
    set_layers(room.record, 0, 1, 3)
    low.frame(8)
    high.frame(4, key=True)
    low.frame(1)
    high.frame(1)
    got = drain(room)
    assert [
        len([1 for packet in got if packet.timestamp == stamp]) for stamp in dict.fromkeys(p.timestamp for p in got)
    ] == [8, 4, 1]
    assert_no_gap(got)
    assert not room.stream(1)["key_frame_requested"]


def test_down_to_a_lower_layer_what_waits_of_the_higher_one_is_left_out_when_it_is_old() -> None:
    room, [low, high] = prepared(300_000, layers=2)
    set_layers(room.record, 0, 1, 3)
    high.frame(2, key=True)
    assert len(drain(room)) == 2
    got = []
    for _ in range(20):
        high.frame(4)
        room.turn(30 * MS)
        got += room.viewers[0].take()
    set_layers(room.record, 0, 0, 3)
    low.frame(1, key=True)
    low.frame(1)
    got += drain(room)
    assert room.subscription()["layer"] == 0
    assert_no_gap(got)
    assert drop_counts(room.memory)["pacer_old"] > 20


def test_a_key_frame_that_waits_is_not_requested_again() -> None:
    room, [low, high] = prepared(300_000, layers=2)
    set_layers(room.record, 0, 1, 3)
    low.frame(30)
    high.frame(20, key=True)
    room.turn()
    assert not room.stream(1)["key_frame_requested"]
    for _ in range(10):
        room.turn(PACE_NS)
    liveness_pass(room.record, room.now)
    receive_key_frame_request(room.record, 0, room.now)
    assert not room.stream(1)["key_frame_requested"]
    while room.subscription()["layer"] != 1:
        room.turn(PACE_NS)
    assert not room.subscription()["last_marker"]
    receive_key_frame_request(room.record, 0, room.now + 700 * MS)
    assert not room.stream(1)["key_frame_requested"], "a part of it waits"
    drain(room)
    room.turn(SECOND)
    receive_key_frame_request(room.record, 0, room.now)
    assert room.stream(1)["key_frame_requested"]


def test_packets_that_overtook_the_start_of_a_key_frame_wait_with_it() -> None:
    room = Room()
    viewer = room.add_viewer()
    room.limit(300_000)
    room.vp8(2, 5, start=False, flags=PacketFlag.KEY_FRAME, timestamp=0, body=b"third" + BODY)
    room.vp8(1, 5, start=False, flags=PacketFlag.KEY_FRAME, timestamp=0, body=b"later" + BODY, marker=False)
    room.vp8(0, 5, flags=START_OF_KEY, timestamp=0, body=b"first" + BODY, marker=False)
    got = drain_after_turn(room, viewer)
    assert sorted(packet.payload[5:10] for packet in got) == [b"first", b"later", b"third"]
    got.sort(key=lambda packet: packet.sequence_number)
    assert [packet.payload[5:10] for packet in got] == [b"first", b"later", b"third"]


def test_a_new_viewer_starts_from_the_cached_key_frame_at_the_rate_of_its_path() -> None:
    room, [stream] = prepared(2_000_000)
    stream.frame(20, key=True)
    stream.frame(3)
    drain(room)
    viewer = room.add_viewer()
    room.limit(600_000, 1)
    room.turn()
    first = viewer.take()
    assert 0 < len(first) < 10
    got = first + drain(room, 1)
    assert len(got) == 23
    assert_no_gap(got)
    assert not room.stream()["key_frame_requested"]
