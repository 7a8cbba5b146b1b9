"""Packets that transport-cc feedback reports as lost, and that are sent again without a NACK."""

from typing import Any

import numpy as np
import pytest

from sfu.media.rtcp.incoming import MAX_NACKED, receive_compound
from sfu.media.send.repair_share import CHANCE_LOSS
from sfu.schema.capacities import SEQUENCE_START
from sfu.schema.codes import MediaKind
from tests.sfu.support.feedback_packet import transport_feedback
from tests.sfu.support.paced import Stream, prepared
from tests.sfu.support.subscribers import MS, Room

pytestmark = pytest.mark.timeout(600)  # kernels that are not in the cache are compiled first

PACKETS = 5


class Lossy:
    """A room whose viewer has been sent five packets over a path that loses by chance."""

    def __init__(self) -> None:
        self.room, streams = prepared(5_000_000)
        self.stream: Stream = streams[0]
        self.estimate["average_loss"] = 0.05
        self.first = self.next_number()
        self.stream.frame(PACKETS)
        self.room.turn()
        self.sent = [packet.sequence_number for packet in self.room.viewers[0].take()]
        self.room.memory.table("flush_ns")[:] = self.room.now
        assert len(self.sent) == PACKETS

    @property
    def estimate(self) -> Any:
        return self.room.memory.table("estimates")[self.room.viewers[0].row]

    def next_number(self) -> int:
        return int(self.room.transport()["next_number"]) - SEQUENCE_START

    def report(self, *missing: int, count: int = PACKETS) -> list[int]:
        """Let feedback say that these of the packets are missing. Returns the numbers of those that are sent again."""
        room, numbers = self.room, range(self.first, self.first + count)
        arrived = {number: room.now + 20 * MS for number in numbers if number - self.first not in missing}
        data = np.frombuffer(transport_feedback(arrived, numbers[0], numbers[-1], 0), np.uint8).copy()
        receive_compound(room.record, room.memory.arena, data, len(data), room.viewers[0].row, room.now + 40 * MS)
        room.collect()
        return [int.from_bytes(packet.payload[:2], "big") for packet in room.viewers[0].take()]


@pytest.fixture
def lossy() -> Lossy:
    return Lossy()


def test_a_lost_packet_is_sent_again_at_once(lossy: Lossy) -> None:
    assert set(lossy.report(1, 3)) == {lossy.sent[1], lossy.sent[3]}
    assert lossy.report(1, 3) == [], "it was reported before"


def test_a_repeat_that_is_lost_is_sent_again_too(lossy: Lossy) -> None:
    before = lossy.next_number()
    again = lossy.report(1)
    lossy.first, lossy.room.now = before, lossy.room.now + 100 * MS
    assert set(lossy.report(0, count=lossy.next_number() - before + 1)) == {lossy.sent[1]} == set(again)


def test_only_chance_loss_is_repaired_without_a_nack(lossy: Lossy) -> None:
    lossy.estimate["average_loss"] = CHANCE_LOSS / 2
    assert lossy.report(1, 3) == []


def test_a_full_queue_is_not_filled_further(lossy: Lossy) -> None:
    lossy.estimate["delay_ms"] = 500.0
    assert lossy.report(1, 3) == []


def test_what_was_sent_to_another_transport_is_not_touched(lossy: Lossy) -> None:
    lossy.room.subscription()["transport"] = lossy.room.viewers[0].row + 1
    assert lossy.report(1, 3) == []


def test_audio_is_not_sent_again() -> None:
    room = Room(kind=MediaKind.AUDIO)
    room.add_viewer(rtx=False)
    room.store(0)
    room.turn()
    room.viewers[0].take()
    log = room.memory.table("send_logs")[room.viewers[0].row]
    assert int(log["count"]) == 1
    assert not log["copies"].any()


def test_a_feedback_repeats_no_more_than_a_nack_may(lossy: Lossy) -> None:
    assert PACKETS < MAX_NACKED
    lossy.room.memory.table("send_logs")[lossy.room.viewers[0].row]["repair_bytes"] = 0
    lossy.estimate["target_bps"] = 10_000
    assert len(lossy.report(0, 1, 2, 3)) <= 2, "repeats have their share"
