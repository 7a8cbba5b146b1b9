"""Whether the client of a participant is still there: when it spoke last, on which socket, and if its media failed."""

from signaling.http.connection import SignalConnection
from signaling.participants.sockets import CLOSE_RECONNECT, Sockets
from signaling.rooms.node import Node

SILENT_S = 10.0
"""Clients ping every five seconds. After two missed pings an open socket no longer proves that the client is there."""
PING_TIMEOUT_S = 15.0
"""The time without a message after which the socket of a client that pings is closed. Clients are told it."""
FAILED_GRACE_S = 5.0
"""How long a participant whose media failed is kept, so that others see its full reconnect as one."""


class Presence:
    """What is known of one client. All times are the node's clock, in seconds."""

    def __init__(self, node: Node, sockets: Sockets) -> None:
        """Begin to listen to a client. `sockets` are those of its participant."""
        self._node = node
        self._sockets = sockets
        self.last_message_at = node.clock()
        """When the client's last message came."""
        self.pings = False
        """The client pings, so that its silence has a meaning."""
        self.expires_at: float | None = None
        """When to remove a client whose media failed; None: it has not."""

    @property
    def is_silent(self) -> bool:
        """Whether an open socket no longer proves that the client is there."""
        return self._node.clock() - self.last_message_at > SILENT_S

    def attach(self, connection: SignalConnection) -> None:
        """Take another socket of the client."""
        if self._sockets.attach(connection, self._node.clock()):
            self._begin_to_listen()

    def note_message(self, connection: SignalConnection) -> bool:
        """Note a message on a socket; return False if the participant has nothing to do with that any more."""
        if not self._sockets.has(connection):
            return False
        self.last_message_at = self._node.clock()
        if self._sockets.note_message(connection, self.last_message_at):
            self._begin_to_listen()
        return True

    def note_ping(self) -> None:
        """Note that the client pings, so that from now on its silence has a meaning."""
        self.pings = True

    def note_end(self, connection: SignalConnection) -> bool:
        """Note that a socket ended; return False if the participant has nothing to do with that any more."""
        if not self._sockets.has(connection):
            return False
        if self._sockets.end(connection):
            self._begin_to_listen()
        return True

    def expire_soon(self) -> None:
        """Note that the client's media failed, so that it has little time to come again."""
        self.expires_at = self._node.clock() + FAILED_GRACE_S

    def tick(self, now: float) -> None:
        """Decide between two sockets, and close that of a client that no longer pings."""
        if self._sockets.tick(now):
            self._begin_to_listen()
        if self._sockets.current is not None and now - self.last_message_at > PING_TIMEOUT_S and self.pings:
            self._node.spawn(self._sockets.current.close(CLOSE_RECONNECT))
            self.pings = False

    def _begin_to_listen(self) -> None:
        """Count the client's silence from now on, because it uses another socket."""
        self.last_message_at = self._node.clock()
        self.pings = False
