"""The queue between the engine and signalling."""

import asyncio
from collections import Counter

import pytest

from sfu.control import event_queue
from sfu.control.event_queue import EventQueue
from sfu.events import ChannelOpened, DataReceived, LayersChanged, StreamStarted, TransportConnected
from sfu.parameters import Channel, Codec, TrackId, TransportId

NUMBER = TransportId(1)


async def test_events_come_in_order_and_a_waiting_consumer_is_woken() -> None:
    queue = EventQueue(Counter())
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    for number in (1, 2, 3):
        queue.put(TransportConnected(TransportId(number)))
    assert [(await waiting).transport, (await queue.get()).transport, (await queue.get()).transport] == [1, 2, 3]  # type: ignore[union-attr]


async def test_unread_events_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_queue, "MAX_EVENTS", 2)
    drops: Counter[str] = Counter()
    queue = EventQueue(drops)
    for _ in range(5):
        queue.put(TransportConnected(NUMBER))
    assert drops == {"events_unread": 3}


async def test_what_changes_again_and_again_has_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_queue, "MAX_EVENTS", 5)
    drops: Counter[str] = Counter()
    queue = EventQueue(drops)
    loud, other = TrackId(1), TrackId(2)
    for number in range(100):
        queue.put(LayersChanged(loud, number))
        queue.put(StreamStarted(loud, 0, number, Codec.VP8))
        queue.put(ChannelOpened(NUMBER, Channel.LOSSY))
    queue.put(StreamStarted(other, 0, 7, Codec.OPUS))
    queue.put(TransportConnected(NUMBER))
    assert drops == {}
    assert [await queue.get() for _ in range(5)] == [
        LayersChanged(loud, 99),
        StreamStarted(loud, 0, 99, Codec.VP8),
        ChannelOpened(NUMBER, Channel.LOSSY),
        StreamStarted(other, 0, 7, Codec.OPUS),
        TransportConnected(NUMBER),
    ]
    queue.put(LayersChanged(loud, 100))
    assert await queue.get() == LayersChanged(loud, 100)


async def test_unread_messages_are_bounded_in_number_and_facts_still_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_queue, "MAX_DATA_EVENTS", 3)
    monkeypatch.setattr(event_queue, "MAX_EVENTS", 1)
    drops: Counter[str] = Counter()
    queue = EventQueue(drops)
    for _ in range(5):
        queue.put(DataReceived(NUMBER, Channel.LOSSY, b""))
    queue.put(TransportConnected(NUMBER))
    assert drops == {"data_unread": 2}
    assert [type(await queue.get()) for _ in range(4)] == [*3 * [DataReceived], TransportConnected]
    queue.put(DataReceived(NUMBER, Channel.LOSSY, b""))
    assert drops == {"data_unread": 2}


async def test_unread_data_is_bounded_in_bytes_and_other_events_still_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_queue, "MAX_DATA_BYTES", 25)
    drops: Counter[str] = Counter()
    queue = EventQueue(drops)
    for _ in range(3):
        queue.put(DataReceived(NUMBER, Channel.LOSSY, bytes(10)))
    queue.put(TransportConnected(NUMBER))
    assert drops == {"data_unread": 1}
    read = [await queue.get() for _ in range(3)]
    assert read[2] == TransportConnected(NUMBER)
    queue.put(DataReceived(NUMBER, Channel.LOSSY, bytes(20)))
    assert drops == {"data_unread": 1}
