"""Which microphones have a place where a subscriber's path does not carry all of them."""

from typing import Any

from sfu.media.send.voices import is_voice
from sfu.media.stream.loudest import FORGOTTEN_NS, UNMOVED_PACKETS
from sfu.schema.capacities import VOICES
from sfu.schema.codes import MediaKind, RowState
from sfu.schema.memory import Memory
from tests.sfu.support.subscribers import MS, START

LOUD, QUIETER, QUIET = 100, 60, 10
"""Values of `loudness`, which grows with what is heard."""


class Microphones:
    """One subscriber with an audio subscription to each of some tracks; row k forwards track k with stream k."""

    def __init__(self, owners: list[int]) -> None:
        self.memory, self.now = Memory(), START
        for row, owner in enumerate(owners):
            subscription = self.memory.table("subscriptions")[row]
            subscription["state"], subscription["kind"], subscription["track"] = RowState.OPEN, MediaKind.AUDIO, row
            self.track(row)["owner"], self.track(row)["streams"][0] = owner, row

    def track(self, row: int) -> Any:
        return self.memory.table("tracks")[row]

    def speak(self, loudness: dict[int, int]) -> list[int]:
        """Let packets of some tracks come, 20 ms later; return the rows whose packet is sent."""
        self.now += 20 * MS
        sent = []
        for row, value in loudness.items():
            self.track(row)["loudness"] = value
            self.memory.table("streams")[row]["last_ns"] = self.now
            sent += [row] if is_voice(self.memory.record, row, self.now) else []
        return sent


def test_the_first_have_places_until_others_are_clearly_louder() -> None:
    room = Microphones([1, 2, 3, 4])
    assert room.speak(dict.fromkeys(range(4), QUIETER)) == [0, 1, 2]
    assert room.speak({0: QUIETER, 1: QUIETER, 2: QUIET, 3: QUIETER + 1}) == [0, 1, 2, 3]
    assert room.speak({0: QUIETER, 1: QUIETER, 2: QUIET, 3: QUIETER}) == [0, 1, 3]


def test_a_publisher_has_one_place() -> None:
    room = Microphones([1, 1, 2])
    assert room.speak({0: QUIETER, 1: QUIETER, 2: QUIETER}) == [0, 2]
    assert room.speak({1: LOUD, 0: QUIETER, 2: QUIETER}) == [1, 2]


def test_a_publisher_has_one_place_also_after_silence() -> None:
    room = Microphones([1, 2, 2, 3, 4])
    assert room.speak({0: QUIETER, 1: QUIETER}) == [0, 1]
    room.now += FORGOTTEN_NS
    assert room.speak({2: QUIETER}) == [2]
    assert room.speak({1: QUIETER, 2: QUIETER}) == [2], "it took the place of its publisher and no other"
    assert len(room.speak({2: QUIETER, 3: QUIETER, 4: QUIETER})) == VOICES


def test_a_level_that_never_moves_gives_way_to_one_that_does() -> None:
    room = Microphones([1, 2, 3, 4])
    for row in range(3):
        room.track(row)["unmoved"] = UNMOVED_PACKETS
    assert room.speak({0: LOUD, 1: LOUD, 2: LOUD}) == [0, 1, 2]
    assert 3 in room.speak({0: LOUD, 1: LOUD, 2: LOUD, 3: QUIETER})


def test_who_sends_nothing_any_more_holds_no_place() -> None:
    room = Microphones([1, 2, 3, 4])
    assert room.speak({0: LOUD, 1: LOUD, 2: LOUD, 3: QUIET}) == [0, 1, 2]
    room.now += FORGOTTEN_NS
    assert room.speak({3: QUIET}) == [3]
