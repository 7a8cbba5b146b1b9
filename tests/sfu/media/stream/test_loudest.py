"""Which voices of a room are forwarded when only the loudest are."""

from typing import Any

import numpy as np
import pytest

from sfu.media.stream.loudest import FORGOTTEN_NS, UNMOVED_PACKETS, is_loud, join_group, leave_group, note_loudness
from sfu.parameters import Codec
from sfu.schema.codes import MediaKind
from sfu.schema.memory import Memory
from tests.sfu.support.subscribers import MS, START, Room

GROUP, LIMIT = 7, 2
LOUD, MEDIUM, QUIET, SILENT = 20, 40, 60, 127


class Voices:
    """A group of tracks, spoken for by hand."""

    def __init__(self, count: int, memory: Memory | None = None, first: int = 0) -> None:
        self.memory = memory or Memory()
        self.rows = list(range(first, first + count))
        self.now = START
        for row in self.rows:
            self.track(row)["group"], self.track(row)["group_limit"] = GROUP, LIMIT
            join_group(self.memory.record, row)

    def track(self, row: int) -> Any:
        return self.memory.table("tracks")[row]

    def say(self, levels: dict[int, int], packets: int = 1) -> list[int]:
        """Everybody sends packets with its level; the rows that are forwarded in the end."""
        for _ in range(packets):
            self.now += 20 * MS
            for row, level in levels.items():
                note_loudness(self.track(row), level, self.now)
            forwarded = [row for row in self.rows if is_loud(self.memory.record, row, self.now)]
        return forwarded


def test_the_loudest_are_forwarded() -> None:
    voices = Voices(4)
    assert voices.say({0: QUIET, 1: LOUD, 2: MEDIUM, 3: SILENT}, 3) == [1, 2]


def test_as_many_as_there_are_while_they_are_few() -> None:
    voices = Voices(2)
    assert voices.say({0: SILENT, 1: QUIET}) == [0, 1]


def test_a_pause_between_words_keeps_the_place() -> None:
    voices = Voices(3)
    assert voices.say({0: LOUD, 1: LOUD, 2: MEDIUM}, 5) == [0, 1]
    assert voices.say({0: SILENT, 1: LOUD, 2: MEDIUM}, 10) == [0, 1]
    assert voices.say({0: SILENT, 1: LOUD, 2: MEDIUM}, 100) == [1, 2]


def test_two_of_about_the_same_loudness_do_not_take_turns() -> None:
    voices = Voices(3)
    first = voices.say({0: LOUD, 1: LOUD, 2: LOUD}, 2)
    for n in range(20):
        swinging = {0: LOUD + n % 3, 1: LOUD + (n + 1) % 3, 2: LOUD + (n + 2) % 3}
        assert voices.say(swinging) == first


def test_who_sends_nothing_any_more_holds_no_place() -> None:
    voices = Voices(3)
    assert voices.say({0: LOUD, 1: LOUD, 2: MEDIUM}, 3) == [0, 1]
    voices.now += FORGOTTEN_NS
    note_loudness(voices.track(2), MEDIUM, voices.now)
    assert is_loud(voices.memory.record, 2, voices.now)


def test_a_publisher_has_one_place_whatever_it_publishes() -> None:
    voices = Voices(5)
    for row, owner in enumerate((4, 9, 4, 4, 8)):
        leave_group(voices.memory.record, row)
        voices.track(row)["owner"] = owner
        join_group(voices.memory.record, row)
    levels = {0: LOUD, 1: MEDIUM, 2: LOUD - 5, 3: LOUD, 4: QUIET}
    assert voices.say(levels, 3) == [1, 2]
    assert voices.say(levels | {3: LOUD - 15}, 3) == [1, 3]
    leave_group(voices.memory.record, 3)
    voices.rows.remove(3)
    levels.pop(3)
    assert voices.say(levels, 3) == [1, 2]


def test_a_level_that_never_moves_comes_after_all_that_do() -> None:
    voices = Voices(4)
    assert voices.say({0: 0, 1: 0, 2: QUIET, 3: MEDIUM}, 10) == [0, 1]
    for n in range(UNMOVED_PACKETS):
        forwarded = voices.say({0: 0, 1: 0, 2: QUIET + n % 2, 3: MEDIUM + n % 3})
    assert forwarded == [2, 3]
    assert voices.say({0: 1, 1: 0, 2: QUIET, 3: MEDIUM}) == [0, 3], "the moment it moves it counts again"


def test_who_was_silent_for_long_has_a_place_with_the_first_word() -> None:
    voices = Voices(3)
    for n in range(2 * UNMOVED_PACKETS):
        voices.say({0: SILENT, 1: MEDIUM + n % 2, 2: MEDIUM + n % 3})
    assert 0 in voices.say({0: LOUD, 1: MEDIUM, 2: MEDIUM})


@pytest.mark.parametrize("leaver", [0, 1, 2])
def test_who_leaves_gives_its_place_to_the_next(leaver: int) -> None:
    voices = Voices(3)
    voices.say({0: LOUD, 1: LOUD, 2: LOUD}, 3)
    leave_group(voices.memory.record, leaver)
    rest = [row for row in range(3) if row != leaver]
    voices.rows = rest
    assert voices.say(dict.fromkeys(rest, QUIET)) == rest
    for row in rest:
        leave_group(voices.memory.record, row)
    assert not voices.memory.table("groups").any()


def test_a_listener_hears_a_voice_that_becomes_loud_without_a_gap_in_numbers() -> None:
    room = Room(Codec.OPUS, kind=MediaKind.AUDIO)
    room.track["group"], room.track["group_limit"] = GROUP, 1
    join_group(room.record, 0)
    rival = Voices(1, room.memory, first=1)
    viewer = room.add_viewer(rtx=False)
    heard = []
    for number in range(30):
        room.pass_time(20 * MS)
        loud = 10 <= number < 20
        note_loudness(room.track, LOUD if loud else SILENT, room.now)
        note_loudness(rival.track(1), MEDIUM, room.now)
        is_loud(room.record, 1, room.now)
        room.store(number, timestamp=960 * number, flags=0)
        room.track["loudness"] = 4 * (SILENT - LOUD) if loud else 0  # at once, not by and by
        room.forward()
        heard += [(number, packet) for packet in viewer.take()]
    assert [number for number, _ in heard] == list(range(10, 20))
    assert np.diff([packet.sequence_number for _, packet in heard]).tolist() == [1] * 9
    assert np.diff([packet.timestamp for _, packet in heard]).tolist() == [960] * 9
