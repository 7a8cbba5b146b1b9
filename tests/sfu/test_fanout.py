"""Data messages to many transports, with a clock that the test moves."""

import asyncio
from collections import Counter
from typing import cast

import pytest

from sfu import fanout
from sfu.fanout import Fanout
from sfu.parameters import Channel
from sfu.transports import Transport, TransportState


class Receiving:
    """What the fan-out uses of a transport. Each message costs a millisecond of `clock`."""

    def __init__(self, clock: list[float]) -> None:
        self.state = TransportState.OPEN
        self.received: list[bytes] = []
        self._clock = clock

    def send_data(self, channel: Channel, payload: bytes) -> None:
        self.received.append(payload)
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
    sender.send(as_transports(receiving), Channel.LOSSY, b"x")
    assert all(each.received == [b"x"] for each in receiving)


async def test_many_receivers_are_served_in_slices_and_in_order(sender: Fanout, clock: list[float]) -> None:
    receiving = [Receiving(clock) for _ in range(20)]
    for message in (b"1", b"2", b"3"):
        sender.send(as_transports(receiving), Channel.LOSSY, message)
    assert sum(len(each.received) for each in receiving) == 5
    turns = 0
    while any(len(each.received) < 3 for each in receiving):
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 11
    assert all(each.received == [b"1", b"2", b"3"] for each in receiving)


async def test_transport_that_closes_meanwhile_is_skipped(sender: Fanout, clock: list[float]) -> None:
    receiving = [Receiving(clock) for _ in range(8)]
    sender.send(as_transports(receiving), Channel.LOSSY, b"x")
    receiving[7].state = TransportState.CLOSING
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [len(each.received) for each in receiving] == [1] * 7 + [0]


async def test_what_waits_is_bounded_and_counted(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "MAX_WAITING_BYTES", 100)
    drops: Counter[str] = Counter()
    sender = Fanout(drops, lambda: clock[0])
    receiving = [Receiving(clock) for _ in range(50)]
    for _ in range(20):
        sender.send(as_transports(receiving), Channel.RELIABLE, bytes(10))
    assert drops["data_fanout_full"] == 10
    sender.stop()
    await asyncio.sleep(0)
    assert sum(len(each.received) for each in receiving) == 5
