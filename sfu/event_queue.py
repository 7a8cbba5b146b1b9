"""The queue of events from the engine to signalling: one consumer, bounded."""

import asyncio
from collections import Counter, deque

from sfu.events import DataReceived, Event

MAX_EVENTS = 65_536
"""Facts that wait. Signalling reads them at once; a consumer this far behind will not recover by having more."""
MAX_DATA_BYTES = 64 << 20
"""Payload of data messages that wait; further ones are dropped."""


class EventQueue:
    """Append with `put`, wait with `get`. Lost events are counted in `drops`."""

    def __init__(self, drops: Counter[str]) -> None:
        self._drops = drops
        self._events: deque[Event] = deque()
        self._data_bytes = 0
        self._filled = asyncio.Event()

    def put(self, event: Event) -> None:
        """Add an event; never waits."""
        size = len(event.payload) if isinstance(event, DataReceived) else 0
        if size and self._data_bytes + size > MAX_DATA_BYTES:
            self._drops["data_unread"] += 1
            return
        if len(self._events) >= MAX_EVENTS:
            self._drops["events_unread"] += 1
            return
        self._data_bytes += size
        self._events.append(event)
        self._filled.set()

    async def get(self) -> Event:
        """The oldest event, as soon as there is one."""
        while not self._events:
            self._filled.clear()
            await self._filled.wait()
        event = self._events.popleft()
        if isinstance(event, DataReceived):
            self._data_bytes -= len(event.payload)
        return event
