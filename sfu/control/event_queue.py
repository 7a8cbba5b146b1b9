"""The queue of events from the engine to signalling: one consumer, bounded.

Data messages have bounds of their own, and what may change again and again has one place for each track or
channel: what one client does at will takes no place from what is said once of others.
"""

import asyncio
from collections import Counter, deque

from sfu.events import ChannelOpened, DataReceived, Event, LayersChanged, StreamStarted, SubscriptionPaused

MAX_EVENTS = 65_536
"""Facts that wait. Signalling reads them at once; a consumer this far behind will not recover by having more."""
MAX_DATA_BYTES, MAX_DATA_EVENTS = 64 << 20, 65_536
"""Payload of data messages that wait, and how many; further ones are dropped."""


class EventQueue:
    """Append with `put`, wait with `get`. Lost events are counted in `drops`."""

    def __init__(self, drops: Counter[str]) -> None:
        self._drops = drops
        self._events: deque[Event] = deque()
        self._newest: dict[tuple[object, ...], Event] = {}
        """What waits under a subject: `get` returns it in the place of the first that waited there."""
        self._data_events = self._data_bytes = 0
        self._filled = asyncio.Event()

    def put(self, event: Event) -> None:
        """Add an event; never waits."""
        if isinstance(event, DataReceived):
            size = len(event.payload)
            if self._data_events >= MAX_DATA_EVENTS or self._data_bytes + size > MAX_DATA_BYTES:
                self._drops["data_unread"] += 1
                return
            self._data_events += 1
            self._data_bytes += size
        else:
            subject = _subject(event)
            if subject in self._newest:
                self._newest[subject] = event
                return
            if len(self._events) - self._data_events >= MAX_EVENTS:
                self._drops["events_unread"] += 1
                return
            if subject:
                self._newest[subject] = event
        self._events.append(event)
        self._filled.set()

    @property
    def fill(self) -> float:
        """0 to 1: how much of it is taken."""
        return max((len(self._events) - self._data_events) / MAX_EVENTS, self._data_bytes / MAX_DATA_BYTES)

    async def get(self) -> Event:
        """The oldest event, as soon as there is one."""
        while not self._events:
            self._filled.clear()
            await self._filled.wait()
        event = self._events.popleft()
        if isinstance(event, DataReceived):
            self._data_events -= 1
            self._data_bytes -= len(event.payload)
            return event
        return self._newest.pop(_subject(event), event)


def _subject(event: Event) -> tuple[object, ...]:
    """What an event is about that may be told again with something newer; empty: it is told once."""
    match event:
        case StreamStarted():
            return StreamStarted, event.track, event.layer
        case LayersChanged():
            return LayersChanged, event.track
        case ChannelOpened():
            return ChannelOpened, event.transport, event.channel
        case SubscriptionPaused():
            return SubscriptionPaused, event.subscription
    return ()
