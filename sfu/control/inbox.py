"""DTLS datagrams on their way from the slow queue to their transports: one of each transport in turn.

So a peer that sends many, or costly ones, delays its own. How many of one transport wait, here and in the queue
together, is bounded where they are put into the queue (`capacities.SLOW_PER_TRANSPORT`).
"""

from collections import deque

from sfu.control.mailbox import SLOW_BATCH, Datagram, Mailbox

MAX_WAITING = 16_384
"""Datagrams here. The rest stays in the queue, which is too full for more then. Of those there, a batch is taken for
each that is handed out here: the queue empties faster than it is filled."""


class Inbox:
    """The DTLS datagrams of one media thread that wait for their turn."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._count = 0
        self._waiting: dict[int, deque[Datagram]] = {}
        """Datagrams by transport row, the row that is served next first."""

    def take(self) -> Datagram | None:
        """The next datagram, None when there is none. It counts as handled from now on."""
        if self._count <= MAX_WAITING - SLOW_BATCH:
            taken = self._mailbox.take_datagrams()
            if len(taken) == 1 and not self._waiting:  # nearly always
                self._mailbox.handled(taken[0].transport)
                return taken[0]
            for each in taken:
                self._put(each)
        if not self._waiting:
            return None
        row = next(iter(self._waiting))
        datagrams = self._waiting.pop(row)
        datagram = datagrams.popleft()
        self._count -= 1
        if datagrams:
            self._waiting[row] = datagrams  # behind all others
        self._mailbox.handled(row)
        return datagram

    def _put(self, datagram: Datagram) -> None:
        queue = self._waiting.get(datagram.transport)
        if queue is None:
            queue = self._waiting[datagram.transport] = deque()
        queue.append(datagram)
        self._count += 1
