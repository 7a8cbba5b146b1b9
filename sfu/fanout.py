"""Data messages to many transports, in pieces: a message costs some 50 us for every receiver.

What cannot be sent within SLICE_S waits its turn behind the event loop's other work; order is kept.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence

from sfu.parameters import Channel
from sfu.transports import Transport, TransportState

SLICE_S = 0.005
"""Longest time that one turn of the loop spends on sending."""
MAX_WAITING_MESSAGES = 16_384
MAX_WAITING_BYTES = 64 << 20


class Fanout:
    """Sends each message to its transports, at once if nothing waits and there is time."""

    def __init__(self, drops: Counter[str], clock: Callable[[], float]) -> None:
        """clock: seconds; not the loop's, which uvloop stops within a turn."""
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._drops = drops
        self._waiting: deque[tuple[Iterator[Transport], Channel, bytes]] = deque()
        self._waiting_bytes = 0
        self._next_slice: asyncio.Handle | None = None

    def send(self, transports: Sequence[Transport], channel: Channel, payload: bytes) -> None:
        """Queue one message for some transports and send what the present slice allows."""
        if len(self._waiting) >= MAX_WAITING_MESSAGES or self._waiting_bytes + len(payload) > MAX_WAITING_BYTES:
            self._drops["data_fanout_full"] += 1
            return
        self._waiting.append((iter(transports), channel, payload))
        self._waiting_bytes += len(payload)
        if self._next_slice is None:
            self._run()

    def stop(self) -> None:
        """Forget what waits."""
        self._waiting.clear()
        self._waiting_bytes = 0
        if self._next_slice is not None:
            self._next_slice.cancel()
            self._next_slice = None

    def _run(self) -> None:
        self._next_slice = None
        end = self._clock() + SLICE_S
        while self._waiting:
            transports, channel, payload = self._waiting[0]
            for transport in transports:
                if transport.state is TransportState.OPEN:
                    transport.send_data(channel, payload)
                if self._clock() >= end:
                    self._next_slice = self._loop.call_soon(self._run)
                    return
            self._waiting.popleft()
            self._waiting_bytes -= len(payload)
