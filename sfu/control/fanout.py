"""Data messages to many transports, in pieces: a message costs some 50 us for every receiver.

What cannot be sent within SLICE_S waits its turn behind the event loop's other work, in a queue of its sender's. The
queues are served round robin, so that who sends much delays nobody else; order is kept within each. What waits is
taken out of its sender's SCTP receive window.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from sfu.control.data.backlog import Ledger, Message
from sfu.control.transports import Transport, TransportState
from sfu.parameters import Channel

SLICE_S = 0.005
"""Longest time that one turn of the loop spends on sending."""
TURN_DELIVERIES = 16
"""What a sender gets before the next one's turn, counted in messages times receivers."""
MAX_LOSSY_WAITING = 256
"""Messages in a sender's queue beyond which its lossy ones are dropped: they would come too late to be of use."""
MAX_WAITING_BYTES = 64 << 20
"""Bytes in all queues. Beyond it only senders that have more than their share of it lose messages. A sender has less
than `association.MAX_UNREAD_BYTES` in any case."""
RECEIVER_BYTES = 8
"""What each receiver of a message that waits costs beside it: in a large room the list is more than the message."""


class Waiting(NamedTuple):
    """A message, and who has not got it yet."""

    receivers: Iterator[Transport]
    channel: Channel
    message: Message
    receivers_size: int
    """Bytes of their list."""

    @property
    def size(self) -> int:
        """Bytes of the message and of the list of its receivers."""
        return self.message.size + self.receivers_size

    def hold(self, sender: Transport | None) -> None:
        """Take all of it out of its sender's window."""
        self.message.hold()
        if sender is not None:
            sender.hold_window(self.receivers_size)

    def let_go(self, sender: Transport | None) -> None:
        """Give the sender's window back."""
        self.message.let_go()
        if sender is not None:
            sender.release_window(self.receivers_size)


class _Queue:
    """What waits of one sender: messages, and who has not got each yet."""

    def __init__(self) -> None:
        self.messages: deque[Waiting] = deque()
        self.size = 0


class Fanout:
    """Sends each message to its transports, at once if nothing waits and there is time."""

    def __init__(self, drops: Counter[str], clock: Callable[[], float]) -> None:
        """clock: seconds; not the loop's, which uvloop stops within a turn."""
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._drops = drops
        self._ledger = Ledger()
        self._queues: dict[Transport | None, _Queue] = {}
        """The queues of the senders of whom something waits; the one that is served next comes first."""
        self._size = 0
        self._next_slice: asyncio.Handle | None = None

    @property
    def lag(self) -> int:
        """Bytes that wait for slow receivers, each message counted once."""
        return self._ledger.total

    def send(self, sender: Transport | None, transports: Sequence[Transport], channel: Channel, payload: bytes) -> None:
        """Queue one message for some transports and send what the present slice allows.

        sender: the transport that is held back while the message waits; None: no transport is.
        """
        message = Message(payload, self._ledger, sender)
        receivers = iter(transports)
        if self._next_slice is None:
            end = self._clock() + SLICE_S
            for transport in receivers:
                if transport.state is TransportState.OPEN:
                    transport.send_data(channel, message)
                if self._clock() >= end:
                    break
            else:
                return
            self._next_slice = self._loop.call_soon(self._run)
        waiting = Waiting(receivers, channel, message, RECEIVER_BYTES * len(transports))
        if self._has_room(sender, waiting):
            self._put(sender, waiting)

    def stop(self) -> None:
        """Drop the messages that wait."""
        for sender, queue in self._queues.items():
            for waiting in queue.messages:
                waiting.let_go(sender)
        self._queues.clear()
        self._size = 0
        if self._next_slice is not None:
            self._next_slice.cancel()
            self._next_slice = None

    def _has_room(self, sender: Transport | None, waiting: Waiting) -> bool:
        queue = self._queues.get(sender)
        if queue is None:
            return True
        if waiting.channel is not Channel.RELIABLE and len(queue.messages) >= MAX_LOSSY_WAITING:
            self._drops["data_lossy_full"] += 1
            return False
        share = MAX_WAITING_BYTES // len(self._queues)
        if self._size + waiting.size > MAX_WAITING_BYTES and queue.size + waiting.size > share:
            self._drops["data_fanout_full"] += 1
            return False
        return True

    def _put(self, sender: Transport | None, waiting: Waiting) -> None:
        queue = self._queues.get(sender)
        if queue is None:
            queue = self._queues[sender] = _Queue()
        waiting.hold(sender)
        queue.messages.append(waiting)
        queue.size += waiting.size
        self._size += waiting.size

    def _run(self) -> None:
        """Serve the queues for one slice, and go on in the next turn of the loop if something is left."""
        self._next_slice = None
        end = self._clock() + SLICE_S
        while self._queues:
            sender = next(iter(self._queues))
            queue = self._queues.pop(sender)
            in_time = self._serve(sender, queue, end)
            if queue.messages:
                self._queues[sender] = queue  # behind all others
            if not in_time:
                break
        if self._queues:
            self._next_slice = self._loop.call_soon(self._run)

    def _serve(self, sender: Transport | None, queue: _Queue, end: float) -> bool:
        """Give one sender its turn; False when the time is over."""
        in_time, left = True, TURN_DELIVERIES
        while queue.messages and left and in_time:
            waiting = queue.messages[0]
            for transport in waiting.receivers:
                if transport.state is TransportState.OPEN:
                    transport.send_data(waiting.channel, waiting.message)
                left -= 1
                in_time = self._clock() < end
                if not left or not in_time:
                    break
            else:
                queue.messages.popleft()
                queue.size -= waiting.size
                self._size -= waiting.size
                waiting.let_go(sender)
        return in_time
