"""Reliable messages that a receiver has not taken yet, and how they hold their sender back.

A message is one object for all its receivers. Each of them may lag; a message that lies too far back in a receiver's
backlog keeps its bytes of the sender's SCTP receive window until the receiver has come near enough. So the sender is
slowed down to its slowest receiver. Other senders are not, and fast receivers have everything already.
"""

from collections import deque
from typing import Protocol

MESSAGE_BYTES = 256
"""What a message costs beside its payload: many empty ones are not nothing."""
MAX_LAG_BYTES = 16 << 20
"""How far a receiver may lag before it holds its senders back: a file of ordinary size goes at everybody's own pace."""
MAX_TOTAL_LAG_BYTES = 256 << 20
"""What may wait in the whole server, each message counted once."""
CROWDED_LAG_BYTES = 1 << 20
"""How far a receiver may lag while more than that waits."""


class Window(Protocol):
    """Who sends a message: a transport, whose peer may send as much as its receive window says."""

    def hold_window(self, size: int) -> None:
        """Take bytes out of the window."""

    def release_window(self, size: int) -> None:
        """Give these bytes back to the window."""


class Ledger:
    """What waits in all backlogs of a server together."""

    def __init__(self) -> None:
        self.total = 0

    @property
    def allowance(self) -> int:
        """Bytes that a receiver may lag at present."""
        return MAX_LAG_BYTES if self.total <= MAX_TOTAL_LAG_BYTES else CROWDED_LAG_BYTES


class Message:
    """One message on its way to its receivers."""

    __slots__ = ("_holds", "_sender", "_waits", "ledger", "payload", "size")

    def __init__(self, payload: bytes, ledger: Ledger, sender: Window | None) -> None:
        """sender: the window that is held back while the message does not get on; None: no window is."""
        self.payload = payload
        self.size = len(payload) + MESSAGE_BYTES
        self.ledger = ledger
        self._sender = sender
        self._holds = self._waits = 0

    @property
    def has_sender(self) -> bool:
        """Whether somebody can be held back, as nobody can for what the server itself sends."""
        return self._sender is not None

    def hold(self) -> None:
        """Keep the sender's window for one reason more."""
        if self._holds == 0 and self._sender is not None:
            self._sender.hold_window(self.size)
        self._holds += 1

    def let_go(self) -> None:
        """Take away one reason to hold the sender back."""
        self._holds -= 1
        if self._holds == 0 and self._sender is not None:
            self._sender.release_window(self.size)

    def queued(self) -> None:
        """Count one more backlog that holds the message."""
        if self._waits == 0:
            self.ledger.total += self.size
        self._waits += 1

    def unqueued(self) -> None:
        """Count one fewer backlog that holds the message."""
        self._waits -= 1
        if self._waits == 0:
            self.ledger.total -= self.size


class Backlog:
    """The messages that wait for one receiver, in order."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._held: deque[tuple[int, Message]] = deque()
        """Those that hold their sender back, with the value of `_begun` plus lag at which each ends."""
        self._begun = 0
        """Bytes that have ever left."""
        self.size = 0

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def holds_back(self) -> bool:
        """Whether somebody is held back by this receiver."""
        return bool(self._held)

    def append(self, message: Message) -> None:
        """Add a message to those that wait."""
        message.queued()
        self._messages.append(message)
        self.size += message.size
        if self._held or self.size > message.ledger.allowance:
            message.hold()
            self._held.append((self._begun + self.size, message))

    def popleft(self) -> Message:
        """Take the oldest message.

        Raises:
            IndexError: there is none.
        """
        message = self._messages.popleft()
        message.unqueued()
        self.size -= message.size
        self._begun += message.size
        within = self._begun + message.ledger.allowance
        while self._held and (not self._messages or self._held[0][0] <= within):
            self._held.popleft()[1].let_go()
        return message

    def clear(self) -> None:
        """Forget all waiting messages, so that they no longer hold back their senders."""
        while self._messages:
            self.popleft()
