"""Two media threads' memories, turned by hand: what one relays, viewers of the other see."""

import numpy as np
import pytest

from sfu.media.pacing.pacer import PACE_NS
from sfu.media.relay_in import receive_relayed, relays_wait
from sfu.media.send.relay_out import (
    add_mirror,
    relay_back,
    relay_report,
    remove_mirror,
)
from sfu.media.stream.subscriber_loss import TELL_NS, WINDOW_NS, note_subscriber_loss, subscriber_loss
from sfu.parameters import Codec
from sfu.schema.capacities import MEDIA_PER_TRANSPORT, RELAY_SLOTS
from tests.sfu.support.ice import drop_counts
from tests.sfu.support.publisher import VP8, VP8_DELTA, VP8_KEY, packet
from tests.sfu.support.subscribers import EXTENSIONS, MS, PUBLISHER, SECOND, Room

HOME, AWAY = 0, 1
GENERATION, MIRROR_GENERATION = 3, 9


class Relay:
    """A publisher's room in one thread, its mirror in another."""

    def __init__(self) -> None:
        self.home, self.away = Room(), Room()
        memories = [self.home.memory, self.away.memory]
        for room in (self.home, self.away):
            room.memory.join(memories)
            room.memory.open_wakeups()
            media = room.memory.table("media")[PUBLISHER * MEDIA_PER_TRANSPORT]
            media["codec_of_pt"][VP8], media["clock_of_pt"][VP8] = Codec.VP8, 90_000
            for kind, number in EXTENSIONS.items():
                media["extension_of_id"][number] = kind
        self.home.track["generation"] = GENERATION
        mirror, transport = self.away.track, self.away.memory.table("transports")[PUBLISHER]
        mirror["generation"] = MIRROR_GENERATION
        mirror["source_thread"], mirror["source_row"], mirror["source_generation"] = HOME, 0, GENERATION
        transport["relayed"], transport["secure"], transport["path"] = 1, 0, -1
        transport["first_track"] = 0
        self.away.stream()["ssrc"] = 0
        self.number = 0

    def add(self) -> None:
        add_mirror(self.home.record, self.home.memory.arena, 0, AWAY, 0, MIRROR_GENERATION, self.home.now)

    def publish(self, payload: bytes) -> None:
        """One more packet of the publisher is stored, forwarded and relayed."""
        data = packet(self.number, ssrc=77, payload_type=VP8, timestamp=3000 * self.number, payload=payload, marker=1)
        stored, stream = self.home.store_whole(data, self.number), self.home.stream()
        at = int(stream["cache_start"]) + (int(stored["start"]) & (int(stream["cache_bytes"]) - 1))
        self.home.memory.arena[at : at + len(data)] = np.frombuffer(data, np.uint8)
        self.home.forward()
        self.number += 1

    def pass_on(self) -> None:
        receive_relayed(self.away.record, self.away.memory.arena, self.away.now)
        self.away.collect()

    def close(self) -> None:
        for room in (self.home, self.away):
            room.memory.close_wakeups()


def drops(room: Room) -> dict[str, int]:
    return drop_counts(room.memory)


@pytest.fixture
def relay() -> Relay:
    made = Relay()
    made.away.add_viewer()
    return made


def test_what_one_thread_receives_viewers_of_another_see(relay: Relay) -> None:
    here = relay.home.add_viewer()
    relay.add()
    payloads = [VP8_KEY, *(VP8_DELTA + bytes([n]) for n in range(5))]
    for payload in payloads:
        relay.publish(payload)
        relay.pass_on()
    local, remote = here.take(), relay.away.viewers[0].take()
    assert [one.payload for one in remote] == [one.payload for one in local]
    assert [one.marker for one in remote] == [one.marker for one in local]
    assert np.diff([one.sequence_number for one in remote]).tolist() == [1] * 5
    assert np.diff([one.timestamp for one in remote]).tolist() == [3000] * 5
    assert drops(relay.home) == drops(relay.away) == {}
    relay.close()


def test_a_new_mirror_starts_with_the_key_frame_that_is_there(relay: Relay) -> None:
    for payload in (VP8_KEY, VP8_DELTA, VP8_DELTA):
        relay.publish(payload)
    relay.add()
    relay.pass_on()
    assert len(relay.away.viewers[0].take()) == 3
    relay.close()


def test_a_key_frame_that_is_wanted_in_one_thread_is_asked_for_in_the_other(relay: Relay) -> None:
    relay.add()
    relay.publish(VP8_DELTA)
    relay.pass_on()
    assert relay.away.viewers[0].take() == []
    relay.home.stream()["key_frame_requested"] = 0
    for _ in range(3):  # asked for once, however often the pass runs
        relay_back(relay.away.record, relay.away.now)
    relays = relay.home.memory.table("relays")[AWAY]
    assert (relays["written"], relays["read"]) == (1, 0)
    assert relays_wait(relay.home.record)
    receive_relayed(relay.home.record, relay.home.memory.arena, relay.home.now)
    assert relay.home.stream()["key_frame_requested"] == 1
    relay.publish(VP8_KEY)
    relay.pass_on()
    assert len(relay.away.viewers[0].take()) == 1
    relay.close()


def lose(relay: Relay, fraction: int, after: int = 0) -> int:
    """A viewer in the other thread lost so many 256ths, so much later; returns the entries in the queue by then."""
    relay.away.now += after
    note_subscriber_loss(relay.away.stream(), fraction, relay.away.now)
    relay_back(relay.away.record, relay.away.now)
    return int(relay.home.memory.table("relays")[AWAY]["written"])


def test_what_viewers_of_another_thread_lose_its_publisher_hears(relay: Relay) -> None:
    relay.add()
    told = [lose(relay, fraction, TELL_NS) for fraction in (30, 30, 20, 40)]
    assert told == [1, 1, 1, 2], "told only when it got worse"
    receive_relayed(relay.home.record, relay.home.memory.arena, relay.home.now)
    assert relay.home.stream()["subscriber_loss"] == 40
    assert relay.home.stream()["key_frame_requested"] == 0
    relay.close()


def test_viewers_who_report_ever_more_fill_no_queue(relay: Relay) -> None:
    relay.add()
    for fraction in range(1, 256):
        entries = lose(relay, fraction, MS)
    assert entries == 1
    assert lose(relay, 1, TELL_NS) == 2
    receive_relayed(relay.home.record, relay.home.memory.arena, relay.home.now)
    assert relay.home.stream()["subscriber_loss"] == 255
    relay.close()


def test_a_loss_that_lasts_is_not_forgotten_by_the_publishers_thread(relay: Relay) -> None:
    relay.add()
    for _ in range(4 * WINDOW_NS // SECOND):
        lose(relay, 30, SECOND)
    relay.home.now = relay.away.now
    receive_relayed(relay.home.record, relay.home.memory.arena, relay.home.now)
    assert relay.home.memory.table("relays")[AWAY]["written"] <= 5
    for _ in range(2 * WINDOW_NS // SECOND):
        lose(relay, 30, SECOND)
        relay.home.now = relay.away.now
        receive_relayed(relay.home.record, relay.home.memory.arena, relay.home.now)
        assert subscriber_loss(relay.home.stream(), relay.home.now) == 30
    relay.close()


def test_sender_reports_are_relayed_and_so_is_the_newest_one_to_a_new_mirror(relay: Relay) -> None:
    stream = relay.home.stream()
    for n in (1, 2):
        stream["report_ntp"], stream["report_timestamp"], stream["report_ns"] = n << 40, n * 90, n * MS
        if n == 1:
            relay.add()
        else:
            relay_report(relay.home.record, 0)
        relay.pass_on()
        mirrored = relay.away.stream()
        names = ("report_ntp", "report_timestamp", "report_ns")
        assert [int(mirrored[name]) for name in names] == [n << 40, n * 90, n * MS]
    relay.close()


def test_a_publisher_that_starts_anew_does_so_in_the_mirror_too(relay: Relay) -> None:
    relay.add()
    relay.publish(VP8_KEY)
    relay.pass_on()
    relay.home.stream()["ssrc"] = 4711
    relay.publish(VP8_KEY)
    relay.pass_on()
    assert relay.away.stream()["ssrc"] == 4711
    assert len(relay.away.viewers[0].take()) == 2
    relay.close()


def test_what_comes_for_a_mirror_that_has_ended_is_dropped_and_counted(relay: Relay) -> None:
    relay.add()
    relay.publish(VP8_KEY)
    relay.away.track["generation"] = MIRROR_GENERATION + 1
    relay.pass_on()
    assert relay.away.viewers[0].take() == []
    assert drops(relay.away) == {"relay_stale": 1}
    relay.close()


def test_a_thread_that_is_far_behind_loses_the_newest_and_goes_on(relay: Relay) -> None:
    relay.add()
    relay.publish(VP8_KEY)
    for _ in range(RELAY_SLOTS + 9):
        relay.publish(VP8_DELTA)
    assert drops(relay.home) == {"relay_full": 10}
    relay.pass_on()
    assert relay.away.subscription()["packets"] == RELAY_SLOTS
    relay.publish(VP8_KEY)
    relay.pass_on()
    assert relay.away.subscription()["packets"] == RELAY_SLOTS + 1
    relay.close()


def test_nothing_is_relayed_to_a_mirror_that_was_removed(relay: Relay) -> None:
    relay.add()
    relay.publish(VP8_KEY)
    remove_mirror(relay.home.record, 0, AWAY)
    relay.publish(VP8_KEY)
    relay.pass_on()
    assert len(relay.away.viewers[0].take()) == 1
    assert relay.home.track["mirrors"] == 0
    relay.close()


def test_an_entry_that_raised_is_not_tried_again(relay: Relay) -> None:
    relay.add()
    relay.publish(VP8_KEY)
    relay.publish(VP8_DELTA)
    relay.away.memory.thread["relay_in_hand"] = HOME  # as an exception in the first entry leaves it
    relay.pass_on()
    assert int(relay.away.stream()["received"]) == 1
    assert not relays_wait(relay.away.record)
    relay.publish(VP8_DELTA)
    relay.away.memory.thread["relay_in_hand"] = HOME
    for _ in range(2):  # nothing else came: the entry is passed over once
        relay.pass_on()
    relays = relay.away.memory.table("relays")[HOME]
    assert (relays["written"], relays["read"]) == (3, 3)
    relay.close()


def test_what_waits_for_a_viewer_of_a_mirror_is_sent_at_the_rate_of_its_path(relay: Relay) -> None:
    here = relay.home.add_viewer()
    relay.away.limit(400_000)
    relay.add()
    relay.publish(VP8_KEY)
    relay.pass_on()
    relay.away.turn()
    for n in range(20):
        relay.publish(VP8_DELTA + bytes([n]) * 1_000)
    relay.pass_on()
    relay.away.turn()
    got = relay.away.viewers[0].take()
    assert 1 < len(got) < 10
    assert len(here.take()) == 21, "the others do not wait"
    while relay.away.transport()["first_waiting"]:
        relay.away.turn(PACE_NS)
        got += relay.away.viewers[0].take()
    assert np.diff([one.sequence_number for one in got]).tolist() == [1] * 20
    assert drops(relay.away) == {}
    relay.close()
