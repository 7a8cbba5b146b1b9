"""Answers to NACKs: RTX packets (RFC 4588) that decrypt to what was sent before."""

from typing import Any

import pytest
from aiortc import rtp

from sfu.media.send.repair_share import EMPTY_QUEUE_MS
from sfu.media.send.retransmit import MAX_RESENDS, RTX_BYTES, answer_nack
from sfu.media.subscriptions import close_subscription, set_layers
from sfu.parameters import Extension
from sfu.schema.bandwidth_codes import Held
from sfu.schema.capacities import HISTORY
from sfu.schema.codes import Drop, PacketFlag
from tests.sfu.media.send.test_forwarding import elements
from tests.sfu.support.ice import drop_counts
from tests.sfu.support.subscribers import MS, REPAIR, RTX_PAYLOAD_TYPE, START_OF_KEY, Room

KEY = START_OF_KEY | PacketFlag.FRAME_END
TAG_BYTES = 16
"""Bytes of the authentication tag of AEAD_AES_128_GCM."""


def nack(room: Room, sequence: int) -> list[rtp.RtpPacket]:
    answer_nack(room.record, room.memory.arena, 0, sequence & 0xFFFF, room.now)
    room.collect()
    return room.viewers[0].take()


@pytest.fixture
def room() -> Room:
    """VP8 frames 0, 1, 3 were sent, 2 was dropped as a higher temporal layer."""
    result = Room()
    result.add_viewer()
    result.vp8(0, 100, 10, flags=KEY)
    result.forward()
    set_layers(result.record, 0, 2, 0)
    result.vp8(1, 101, 11)
    result.vp8(2, 102, 11, temporal=1)
    result.vp8(3, 103, 12)
    result.forward()
    return result


def test_a_missing_packet_comes_again_with_the_ids_that_it_had(room: Room) -> None:
    sent = room.viewers[0].take()
    assert len(sent) == 3
    bytes_before = int(room.memory.thread["bytes_sent"])
    again = nack(room, sent[2].sequence_number)[0]
    assert (again.ssrc, again.payload_type, again.timestamp) == (REPAIR, RTX_PAYLOAD_TYPE, sent[2].timestamp)
    assert again.payload[:2] == sent[2].sequence_number.to_bytes(2, "big")
    assert again.payload[2:] == sent[2].payload
    assert again.marker == sent[2].marker
    assert room.subscription()["retransmitted"] == 1
    thread = room.memory.thread
    assert thread["retransmissions_sent"] == 1
    assert thread["retransmission_bytes_sent"] == thread["bytes_sent"] - bytes_before - TAG_BYTES


def test_retransmissions_count_in_numbers_of_their_own_and_in_transport_wide_ones(room: Room) -> None:
    viewer = room.viewers[0]
    sent = viewer.take()
    room.subscription()["rtx_mid_acknowledged"] = 0
    first_number = int(room.transport()["next_number"]) & 0xFFFF
    for packet in sent:
        answer_nack(room.record, room.memory.arena, 0, packet.sequence_number, room.now)
    room.collect()
    blocks = [elements(data) for data in viewer.received]
    assert [int.from_bytes(block[4], "big") for block in blocks] == [first_number + k for k in range(3)]
    assert all(block[1] == b"v1" for block in blocks)
    numbers = [packet.sequence_number for packet in viewer.take()]
    assert numbers == [numbers[0] + k for k in range(3)]
    assert int(Extension.REPAIRED_RID) not in blocks[0]


def test_a_nack_that_crossed_the_retransmission_is_ignored(room: Room) -> None:
    room.transport()["rtt_ns"] = 80 * MS
    number = room.viewers[0].take()[0].sequence_number
    assert len(nack(room, number)) == 1
    room.pass_time(79 * MS)
    assert nack(room, number) == []
    room.pass_time(1 * MS)
    assert len(nack(room, number)) == 1


def test_one_packet_is_resent_a_bounded_number_of_times(room: Room) -> None:
    number = room.viewers[0].take()[0].sequence_number
    answers = []
    for _ in range(MAX_RESENDS + 3):
        answers += nack(room, number)
        room.pass_time(200 * MS)
    assert len(answers) == MAX_RESENDS


def test_a_queue_that_has_grown_lets_nacks_cross_for_longer(room: Room) -> None:
    estimate = measured(room)
    estimate["rtt_ns"] = 400 * MS
    number = room.viewers[0].take()[0].sequence_number
    assert len(nack(room, number)) == 1
    room.pass_time(399 * MS)
    assert nack(room, number) == []
    room.pass_time(1 * MS)
    assert len(nack(room, number)) == 1


def measured(room: Room) -> Any:
    """The estimate of the viewer's path, of which feedback has come."""
    room.transport()["estimated"] = 1
    estimate = room.memory.table("estimates")[room.viewers[0].row]
    estimate["feedbacks"], estimate["target_bps"] = 1, 600_000
    return estimate


@pytest.mark.parametrize(
    ("loss", "queue_ms", "share"),
    [(0.0, 0, 0.1), (0.12, 0, 0.24), (0.12, EMPTY_QUEUE_MS, 0.12), (0.2, EMPTY_QUEUE_MS, 0.2), (0.9, 0, 0.3)],
)
def test_repeats_are_a_share_of_the_estimate(room: Room, loss: float, queue_ms: float, share: float) -> None:
    """They may take twice what is lost where no queue is the reason of that."""
    estimate = measured(room)
    estimate["target_bps"], estimate["average_loss"], estimate["delay_ms"] = 1_000_000, loss, queue_ms
    room.memory.table("send_logs")[room.viewers[0].row]["repair_ns"] = room.now
    room.viewers[0].take()
    room.store(4, flags=KEY, payload=bytes(940))
    room.forward()
    number = room.viewers[0].take()[0].sequence_number
    repeated = 0
    for _ in range(1_000):  # 10 s
        room.pass_time(10 * MS)
        room.memory.table("history")[0]["resent"] = 0
        repeated += sum(len(packet.payload) + RTX_BYTES for packet in nack(room, number))
    assert repeated * 8 / 10 == pytest.approx(share * 1_000_000, rel=0.1)
    assert drop_counts(room.memory)["repair_share"] > 0


@pytest.mark.parametrize(
    ("loss", "queue_ms", "growing", "copies"),
    [(0.05, 10.0, 0, 2), (0.01, 10.0, 0, 1), (0.05, 80.0, 0, 1), (0.05, 10.0, 1, 1)],
)
def test_a_path_that_loses_by_chance_gets_each_repeat_twice(
    room: Room, loss: float, queue_ms: float, growing: int, copies: int
) -> None:
    row = measured(room)
    row["average_loss"], row["delay_state"], row["silent"] = loss, growing, 0
    row["delay_ms"], row["base_ms"], row["base_before_ms"] = 100.0 + queue_ms, 100.0, 120.0
    room.pass_time(1_000 * MS)
    number = room.viewers[0].take()[0].sequence_number
    packets = nack(room, number)
    assert len(packets) == copies
    assert {packet.payload for packet in packets} == {packets[0].payload}


def test_without_feedback_everything_is_repeated(room: Room) -> None:
    number = room.viewers[0].take()[0].sequence_number
    for _ in range(200):
        room.pass_time(30 * MS)
        room.memory.table("history")[0]["resent"] = 0
        assert len(nack(room, number)) == 1


def test_what_came_before_a_key_frame_that_has_arrived_is_not_repeated(room: Room) -> None:
    room.transport()["rtt_ns"] = 80 * MS
    numbers = [packet.sequence_number for packet in room.viewers[0].take()]
    room.vp8(4, 104, flags=KEY)
    room.forward()
    numbers.append(room.viewers[0].take()[0].sequence_number)
    assert len(nack(room, numbers[1])) == 1  # it may be shown before the key frame is there
    room.pass_time(81 * MS)
    assert nack(room, numbers[2]) == []
    assert len(nack(room, numbers[3])) == 1


def test_what_was_sent_of_a_layer_that_was_left_is_not_repeated() -> None:
    """Repairs of it would only delay the key frame of the next layer, on a path that has become narrow."""
    room = Room(layers=2)
    room.add_viewer()
    room.vp8(0, 100, 10, flags=KEY, layer=1)
    room.vp8(1, 101, 11, layer=1)
    room.forward()
    old = [packet.sequence_number for packet in room.viewers[0].take()]
    assert len(nack(room, old[1])) == 1
    set_layers(room.record, 0, 0, 0)
    room.vp8(0, 104, 10, flags=KEY, layer=0)
    room.forward()
    new = [packet.sequence_number for packet in room.viewers[0].take()]
    room.pass_time(200 * MS)
    assert nack(room, old[1]) == []
    assert len(nack(room, new[0])) == 1
    room.subscription()["held"] = Held.SWITCH
    room.pass_time(200 * MS)
    assert nack(room, new[0]) == [], "the picture stands until a key frame of another layer comes"


@pytest.mark.parametrize("offset", [-1, 3, HISTORY, 5000])
def test_numbers_that_were_never_sent_are_counted(room: Room, offset: int) -> None:
    number = room.viewers[0].take()[0].sequence_number
    assert nack(room, number + offset) == []
    assert room.memory.table("drops")[Drop.NACK_UNKNOWN] == 1


def test_a_packet_that_left_the_cache_is_not_answered(room: Room) -> None:
    number = room.viewers[0].take()[0].sequence_number
    room.stream()["cache_written"] += room.stream()["cache_bytes"]
    assert nack(room, number) == []


def test_what_an_earlier_subscription_of_the_row_sent_is_not_answered(room: Room) -> None:
    number = room.viewers[0].take()[0].sequence_number
    close_subscription(room.record, 0)
    room.viewers.clear()
    room.pass_time(MS)
    room.add_viewer()
    room.subscription()["history_use"] += 1
    room.vp8(4, 104, flags=KEY)
    room.forward()
    room.viewers[0].take()
    assert nack(room, number) == []


def test_without_negotiated_rtx_nothing_is_sent() -> None:
    room = Room()
    viewer = room.add_viewer(rtx=False)
    room.vp8(0, 100, flags=KEY)
    room.vp8(1, 101, flags=PacketFlag.FRAME_START)
    room.forward()
    assert nack(room, viewer.take()[0].sequence_number) == []
