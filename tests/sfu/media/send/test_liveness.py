"""Which simulcast layers count as alive, over seconds of simulated time, and what viewers then see."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from sfu.media.send.selection import DEAD_FRAMES, REVIVED_FRAMES, liveness_pass, receive_key_frame_request
from sfu.media.subscriptions import set_layers
from sfu.schema.codes import NoticeKind, PacketFlag
from tests.sfu.support.subscribers import MS, SECOND, START, START_OF_KEY, Room, Viewer

STEP = 10 * MS
PASS = 100 * MS


@dataclass
class Layer:
    """What an encoder does with one layer: so many frames a second, each in so many packets one after the other."""

    rate: Callable[[float], float]
    """Frames per second at a time in seconds."""
    packets: Callable[[bool], int] = lambda key: 1
    """How many packets a (key) frame has; one leaves every STEP."""
    sequence: int = 0
    picture: int = 0
    due: float = 0.0
    left: list[tuple[int, int]] = field(default_factory=list)
    """(flags, timestamp) of packets that wait to be sent."""
    keys: int = 0


class Encoder:
    """A publisher whose layers are encoded and sent in simulated time, and one viewer of all of them."""

    def __init__(self, *layers: Layer, target: int | None = None) -> None:
        self.layers = layers
        self.room = Room(layers=len(layers))
        self.viewer: Viewer = self.room.add_viewer()
        set_layers(self.room.record, 0, len(layers) - 1 if target is None else target, 3)
        self.changes: list[int] = []
        """The masks of live layers that were told, as somebody hears them who looks after each packet and pass."""
        self.asked = 0
        """Key frames that a publisher was asked for."""

    @property
    def seconds(self) -> float:
        return (self.room.now - START) / SECOND

    def play(self, seconds: float) -> list[int]:
        """Go on for so long; the layer that the viewer was shown at each step."""
        shown = []
        for _ in range(round(seconds * SECOND / STEP)):
            for number, layer in enumerate(self.layers):
                self._encode(number, layer)
                self._send(number, layer)
                self.room.forward()
                self._hear()
            self.room.pass_time(STEP)
            if (self.room.now - START) % PASS == 0:
                liveness_pass(self.room.record, self.room.now)
                self._hear()
            shown.append(int(self.room.subscription()["layer"]))
        return shown

    def _hear(self) -> None:
        self.changes += [value for _, value in self.room.notices(NoticeKind.LAYERS_CHANGED)]

    def _encode(self, number: int, layer: Layer) -> None:
        rate = layer.rate(self.seconds)
        if rate == 0:
            layer.due = self.seconds
            return
        if self.seconds + 1e-9 < layer.due:
            return
        layer.due += 1 / rate
        key = layer.picture == 0 or bool(self.room.stream(number)["key_frame_requested"])
        if key and layer.picture > 0:
            self.asked += 1
            self.room.stream(number)["key_frame_requested"] = 0
        layer.keys += key
        count = layer.packets(key)
        timestamp = round(self.seconds * 90_000)
        for k in range(count):
            flags = 0 if k else START_OF_KEY if key else PacketFlag.FRAME_START
            layer.left.append((flags | (PacketFlag.FRAME_END if k == count - 1 else 0), timestamp))
        layer.picture += 1

    def _send(self, number: int, layer: Layer) -> None:
        if layer.left:
            flags, timestamp = layer.left.pop(0)
            self.room.vp8(
                layer.sequence, layer.picture, layer=number, flags=flags, timestamp=timestamp,
                marker=bool(flags & PacketFlag.FRAME_END),
            )  # fmt: skip
            layer.sequence += 1


def steady(rate: float) -> Callable[[float], float]:
    return lambda seconds: rate


def until(end: float, rate: float, again: float = 1e9) -> Callable[[float], float]:
    return lambda seconds: rate if seconds < end or seconds >= again else 0


@pytest.mark.parametrize(("low", "high"), [(30, 1), (1, 30), (60, 3), (3, 60), (30, 5), (5, 30), (1, 1)])
def test_a_slow_layer_lives_beside_a_quick_one(low: int, high: int) -> None:
    encoder = Encoder(Layer(steady(low)), Layer(steady(high)))
    shown = encoder.play(30)
    assert encoder.changes in ([0b01, 0b11], [0b10, 0b11])
    assert set(shown) - {0} == {1}
    assert shown[500:] == [1] * (len(shown) - 500)


def test_a_viewer_of_a_slow_low_layer_stays_there() -> None:
    encoder = Encoder(Layer(steady(3)), Layer(steady(60)), target=0)
    assert set(encoder.play(20)) == {0}


@pytest.mark.parametrize("packets", [70, 150])
def test_a_layer_lives_while_its_large_key_frame_arrives(packets: int) -> None:
    high = Layer(steady(30), lambda key: packets if key else 1)
    encoder = Encoder(Layer(steady(30)), high)
    shown = encoder.play(20)
    assert encoder.changes == [0b01, 0b11]
    assert encoder.asked <= 2
    assert shown[300:] == [1] * (len(shown) - 300)


def test_a_layer_lives_that_pauses_after_its_large_key_frame() -> None:
    """As encoders do whose rate control pays for it."""
    high = Layer(lambda seconds: 30 if seconds < 0.05 or seconds > 1.4 else 0, lambda key: 50 if key else 1)
    encoder = Encoder(Layer(steady(30)), high)
    encoder.play(10)
    assert encoder.changes == [0b01, 0b11]


def test_who_sees_nothing_of_an_arriving_key_frame_does_not_make_the_publisher_begin_another() -> None:
    encoder = Encoder(Layer(steady(1), lambda key: 70 if key else 1))
    encoder.play(0.1)
    for _ in range(6):
        encoder.play(0.09)
        receive_key_frame_request(encoder.room.record, 0, encoder.room.now)
        assert not encoder.room.stream()["key_frame_requested"]
    encoder.play(0.2)  # it is whole, and the viewer cannot decode it all the same
    receive_key_frame_request(encoder.room.record, 0, encoder.room.now)
    assert encoder.room.stream()["key_frame_requested"]


@pytest.mark.parametrize("rate", [10, 30, 60])
def test_a_layer_that_ends_is_found_dead_within_half_a_second_of_usual_frames(rate: int) -> None:
    low = Layer(steady(rate))
    encoder = Encoder(low, Layer(until(10, rate)))
    encoder.play(10)
    last = low.picture
    while encoder.changes[-1] == 0b11:
        encoder.play(0.1)
        assert low.picture - last <= max(DEAD_FRAMES, 0.4 * rate) + 0.2 * rate
    assert encoder.changes[-1] == 0b01
    encoder.play(1)
    assert encoder.room.subscription()["layer"] == 0


def test_a_slow_layer_that_ends_is_found_dead_too() -> None:
    encoder = Encoder(Layer(steady(30)), Layer(until(10, 1)))
    encoder.play(15)
    assert encoder.changes == [0b01, 0b11, 0b01]


def test_a_dead_layer_needs_frames_and_not_a_packet_to_live_again() -> None:
    high = Layer(until(5, 30, again=8))
    encoder = Encoder(Layer(steady(30)), high, target=0)
    encoder.play(8)
    assert encoder.changes[-1] == 0b01
    while high.picture < 150 + REVIVED_FRAMES - 1:
        encoder.play(0.01)
    encoder.play(0.01)
    assert encoder.changes[-1] == 0b01
    encoder.play(0.3)
    assert encoder.changes == [0b01, 0b11, 0b01, 0b11]


def test_a_layer_that_becomes_slow_changes_its_state_no_more_than_once() -> None:
    encoder = Encoder(Layer(steady(30)), Layer(lambda seconds: 30 if seconds < 5 else 1))
    encoder.play(60)
    assert len(encoder.changes) <= 4
    assert encoder.changes[-1] == 0b11


def test_a_still_screen_kills_no_layer_and_teaches_no_patience() -> None:
    still = until(5, 30, again=65)
    encoder = Encoder(Layer(still), Layer(lambda seconds: still(seconds) if seconds < 70 else 0))
    encoder.play(66)
    assert encoder.changes == [0b01, 0b11]
    encoder.play(5)
    assert encoder.changes == [0b01, 0b11, 0b01]
