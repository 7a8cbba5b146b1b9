"""A long stream of messages to a fast and to a slow receiver, from a sender that heeds its window."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from typing import cast

import pytest

from sfu.control.data import association, backlog, sctp
from sfu.control.data.backlog import Message
from sfu.control.data.sctp import DataChannels
from sfu.control.fanout import Fanout
from sfu.control.transports import Transport, TransportState
from sfu.parameters import Channel, DtlsRole
from tests.sfu.support.data_ends import End

CHUNK = 15_000
"""What LiveKit's byte streams put into one message."""


class Endless:
    """A client's application, which waits for its own stack as long as it takes and loses nothing."""

    def hold_window(self, size: int) -> None:
        """Ignore it: this application goes on all the same."""

    def release_window(self, size: int) -> None:
        """Ignore it: this application goes on all the same."""


class Leg:
    """The server's end of one participant's data channels, and the participant's own end."""

    def __init__(self, room: "Room") -> None:
        self.state = TransportState.OPEN
        self.peer = End()
        self.outbox: list[bytes] = []
        self.most_unread = 0
        self._room = room
        self._data = DataChannels(self, room.drops)
        self._data.start(DtlsRole.SERVER, 5000, 0, True)
        self.peer.data.start(DtlsRole.CLIENT, 5000, 0, False)

    def send_application_data(self, data: bytes) -> None:
        self.outbox.append(data)

    def channel_opened(self, channel: Channel) -> None:
        """Nobody asks."""

    def message_received(self, channel: Channel, payload: bytes) -> None:
        others = [cast(Transport, leg) for leg in self._room.legs if leg is not self]
        self._room.fanout.send(cast(Transport, self), others, channel, payload)

    def send_data(self, channel: Channel, message: Message) -> None:
        self._data.send(channel, message)

    def hold_window(self, size: int) -> None:
        self._data.hold_window(size)
        unread = self._data._association
        assert unread is not None
        self.most_unread = max(self.most_unread, unread._unread)

    def release_window(self, size: int) -> None:
        self._data.release_window(size)

    def carry(self, downwards: int) -> int:
        """Carry packets to the peer, so many at most, and all from it; returns how many there were."""
        packets, self.outbox = self.outbox[:downwards], self.outbox[downwards:]
        for packet in packets:
            self.peer.data.receive(packet)
        upwards = len(self.peer.outbox)
        for _ in range(upwards):
            self._data.receive(self.peer.outbox.popleft())
        return len(packets) + upwards

    def close(self) -> None:
        self._data.close()
        self.peer.data.close()


class Room:
    """Three participants; the link to the last one lets through few packets at a time."""

    def __init__(self) -> None:
        self.drops: Counter[str] = Counter()
        ticks = itertools.count()
        self.fanout = Fanout(self.drops, lambda: next(ticks) / 1000)  # so many messages are a slice on every machine
        self.legs: list[Leg] = []
        self.sender, self.fast, self.slow = (self._join() for _ in range(3))

    def _join(self) -> Leg:
        self.legs.append(Leg(self))
        return self.legs[-1]

    async def carry(self, to_slow: int) -> bool:
        """One step; False when nothing moved."""
        moved = [leg.carry(to_slow if leg is self.slow else 100) for leg in self.legs]
        await asyncio.sleep(0)
        return any(moved) or bool(self.fanout._queues)

    def close(self) -> None:
        self.fanout.stop()
        for leg in self.legs:
            leg.close()


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    made = Room()
    for _ in range(50):
        await made.carry(100)
    yield made
    made.close()
    await asyncio.sleep(0)


def stream(size: int) -> list[bytes]:
    return [number.to_bytes(4, "big") * (CHUNK // 4) for number in range(size // CHUNK)]


def received(leg: Leg) -> list[bytes]:
    return [payload for _, payload in leg.peer.messages]


@pytest.mark.parametrize(
    ("size", "lag"), [(4_000_000, 1 << 20), pytest.param(20_000_000, 16 << 20, marks=pytest.mark.slow)]
)
async def test_long_stream_reaches_the_slow_receiver_whole_and_the_fast_one_earlier(
    room: Room, monkeypatch: pytest.MonkeyPatch, size: int, lag: int
) -> None:
    monkeypatch.setattr(backlog, "MAX_LAG_BYTES", lag)
    messages = stream(size)
    for message in messages:
        room.sender.peer.send(Channel.RELIABLE, message, Endless())
    while len(room.fast.peer.messages) < len(messages):
        assert await room.carry(4)
    behind = (len(messages) - len(room.slow.peer.messages)) * CHUNK
    assert lag < behind < lag + 2 * association.WINDOW_BYTES + association.MAX_CONGESTION_BYTES
    while len(room.slow.peer.messages) < len(messages):
        assert await room.carry(4)
    assert received(room.fast) == received(room.slow) == messages
    assert room.drops.keys() <= {"sctp_beyond_window"}, "and that only of probes, which are sent again"
    assert room.drops.total() < len(messages) // 10
    assert 0 < room.sender.most_unread <= association.WINDOW_BYTES + association.WINDOW_BYTES // 32
    assert (room.fanout.lag, room.sender._data._association._unread) == (0, 0)  # type: ignore[union-attr]


async def test_receiver_that_takes_nothing_stops_the_stream_for_ten_seconds_only(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "MAX_LAG_BYTES", 1 << 20)
    messages = stream(4_000_000)
    for message in messages:
        room.sender.peer.send(Channel.RELIABLE, message, Endless())
    while await room.carry(0):
        pass
    before = len(room.fast.peer.messages)
    assert (1 << 20) // CHUNK < before < len(messages)
    room.sender.peer.send(Channel.LOSSY, b"news")
    for _ in range(sctp.STALL_POLLS):
        timer = room.slow._data._stall
        assert timer is not None
        timer.cancel()
        room.slow._data._look_after_stall()
    while len(room.fast.peer.messages) < len(messages) + 1:
        assert await room.carry(0)
    assert [payload for channel, payload in room.fast.peer.messages if channel is Channel.RELIABLE] == messages
    assert room.drops.keys() == {"data_stalled", "sctp_beyond_window"}
