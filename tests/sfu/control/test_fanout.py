"""Data messages to many transports, with a clock that the test moves."""

import asyncio
from collections import Counter
from typing import cast

import pytest

from sfu.control import fanout
from sfu.control.data.backlog import MESSAGE_BYTES, Message
from sfu.control.fanout import Fanout
from sfu.control.transports import Transport, TransportState
from sfu.parameters import Channel


class Receiving:
    """What the fan-out uses of a transport. Each message costs a millisecond of `clock`."""

    def __init__(self, clock: list[float]) -> None:
        self.state = TransportState.OPEN
        self.received: list[bytes] = []
        self._clock = clock

    def send_data(self, channel: Channel, message: Message) -> None:
        self.received.append(message.payload)
        self._clock[0] += 0.001


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


@pytest.fixture
async def sender(clock: list[float]) -> Fanout:
    return Fanout(Counter(), lambda: clock[0])


def as_transports(receiving: list[Receiving]) -> list[Transport]:
    return cast(list[Transport], receiving)


async def test_few_receivers_are_served_at_once(sender: Fanout, clock: list[float]) -> None:
    receiving = [Receiving(clock) for _ in range(4)]
    sender.send(None, as_transports(receiving), Channel.LOSSY, b"x")
    assert all(each.received == [b"x"] for each in receiving)


async def test_many_receivers_are_served_in_slices_and_in_order(sender: Fanout, clock: list[float]) -> None:
    receiving = [Receiving(clock) for _ in range(20)]
    for message in (b"1", b"2", b"3"):
        sender.send(None, as_transports(receiving), Channel.LOSSY, message)
    assert sum(len(each.received) for each in receiving) == 5
    turns = 0
    while any(len(each.received) < 3 for each in receiving):
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 11
    assert all(each.received == [b"1", b"2", b"3"] for each in receiving)


async def test_transport_that_closes_meanwhile_is_skipped(sender: Fanout, clock: list[float]) -> None:
    receiving = [Receiving(clock) for _ in range(8)]
    sender.send(None, as_transports(receiving), Channel.LOSSY, b"x")
    receiving[7].state = TransportState.CLOSING
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [len(each.received) for each in receiving] == [1] * 7 + [0]


async def test_what_waits_is_bounded_and_counted(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "MAX_WAITING_BYTES", 10 * (10 + MESSAGE_BYTES + 50 * fanout.RECEIVER_BYTES))
    drops: Counter[str] = Counter()
    sender = Fanout(drops, lambda: clock[0])
    receiving = [Receiving(clock) for _ in range(50)]
    for _ in range(20):
        sender.send(None, as_transports(receiving), Channel.RELIABLE, bytes(10))
    assert drops["data_fanout_full"] == 10
    sender.stop()
    await asyncio.sleep(0)
    assert sum(len(each.received) for each in receiving) == 5


class Sending(Receiving):
    """A sender's transport with its window."""

    def __init__(self, clock: list[float]) -> None:
        super().__init__(clock)
        self.held = 0

    def hold_window(self, size: int) -> None:
        self.held += size

    def release_window(self, size: int) -> None:
        self.held -= size


def as_transport(sending: Sending) -> Transport:
    return cast(Transport, sending)


async def until_sent(receiving: list[Receiving], count: int) -> None:
    for _ in range(100_000):
        if all(len(each.received) >= count for each in receiving):
            return
        await asyncio.sleep(0)
    raise AssertionError("not all was sent")


async def test_sender_of_much_delays_nobody_else(sender: Fanout, clock: list[float]) -> None:
    greedy, modest = Sending(clock), Sending(clock)
    crowd, pair = [Receiving(clock) for _ in range(50)], [Receiving(clock) for _ in range(2)]
    for _ in range(1000):
        sender.send(as_transport(greedy), as_transports(crowd), Channel.RELIABLE, b"x")
    for message in (b"1", b"2", b"3"):
        sender.send(as_transport(modest), as_transports(pair), Channel.RELIABLE, message)
    await until_sent(pair, 3)
    assert [each.received for each in pair] == [[b"1", b"2", b"3"]] * 2
    assert sum(len(each.received) for each in crowd) <= 5 + 2 * fanout.TURN_DELIVERIES
    assert modest.held == 0
    assert greedy.held >= 990 * MESSAGE_BYTES, "it is the one who is held back"
    await until_sent(crowd, 1000)
    await asyncio.sleep(0)
    assert greedy.held == 0


async def test_window_is_given_back_when_everybody_has_a_message(sender: Fanout, clock: list[float]) -> None:
    sending, receiving = Sending(clock), [Receiving(clock) for _ in range(20)]
    sender.send(as_transport(sending), as_transports(receiving), Channel.RELIABLE, bytes(1000))
    assert sending.held == 1000 + MESSAGE_BYTES + 20 * fanout.RECEIVER_BYTES
    await until_sent(receiving, 1)
    await asyncio.sleep(0)
    assert sending.held == 0


async def test_what_is_sent_at_once_costs_no_window(sender: Fanout, clock: list[float]) -> None:
    sending, receiving = Sending(clock), [Receiving(clock) for _ in range(3)]
    sending.hold_window = None  # type: ignore[method-assign, assignment]
    sender.send(as_transport(sending), as_transports(receiving), Channel.RELIABLE, bytes(1000))
    assert all(each.received for each in receiving)


async def test_window_is_given_back_when_the_fan_out_stops(sender: Fanout, clock: list[float]) -> None:
    sending = Sending(clock)
    sender.send(as_transport(sending), as_transports([Receiving(clock)] * 20), Channel.RELIABLE, b"x")
    sender.stop()
    assert sending.held == 0


async def test_who_has_less_than_a_fair_share_waiting_loses_nothing(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "MAX_WAITING_BYTES", 10 * (MESSAGE_BYTES + 50 * fanout.RECEIVER_BYTES))
    drops: Counter[str] = Counter()
    sender = Fanout(drops, lambda: clock[0])
    greedy, modest = Sending(clock), Sending(clock)
    crowd, pair = [Receiving(clock) for _ in range(50)], [Receiving(clock) for _ in range(2)]
    for _ in range(20):
        sender.send(as_transport(greedy), as_transports(crowd), Channel.RELIABLE, b"")
    for message in (b"1", b"2", b"3"):
        sender.send(as_transport(modest), as_transports(pair), Channel.RELIABLE, message)
    await until_sent(pair, 3)
    assert drops["data_fanout_full"] == 10


async def test_lossy_messages_that_would_come_too_late_are_dropped(clock: list[float]) -> None:
    drops: Counter[str] = Counter()
    sender = Fanout(drops, lambda: clock[0])
    sending, receiving = Sending(clock), [Receiving(clock) for _ in range(20)]
    for _ in range(fanout.MAX_LOSSY_WAITING + 10):
        sender.send(as_transport(sending), as_transports(receiving), Channel.LOSSY, b"x")
    assert drops["data_lossy_full"] == 10
    sender.send(as_transport(sending), as_transports(receiving), Channel.RELIABLE, b"the last")
    await until_sent(receiving, fanout.MAX_LOSSY_WAITING + 1)
    assert all(each.received[-1] == b"the last" for each in receiving)
