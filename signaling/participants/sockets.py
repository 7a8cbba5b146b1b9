"""The WebSockets of one participant: the one that its client uses, and a newer one that has not been heard yet.

A client that loses its socket opens another. If it gives up an attempt and makes the next one, both may reach the
server, in any order, and the server cannot tell which of them has a client at its end. So what is sent goes to both
until one proves it: the newer one with its first message, the older one with what it says while the newer is silent.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from livekit.protocol.rtc import SignalResponse

from signaling.http.connection import Broadcast, SignalConnection

HEARD_WITHIN_S = 10.0
"""The time in which one of two sockets has to be heard. Clients ping every five seconds; SDKs speak at once."""
CLOSE_RECONNECT = 4000
"""livekit-client reconnects after any code but 1000 (RFC 6455 section 7.4.2: 4000 and up are private)."""


class Sockets:
    """One socket, or two for a short time."""

    def __init__(self, spawn: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        """Start without any. `spawn` runs what closes a socket."""
        self.current: SignalConnection | None = None
        """The socket that the client uses, as far as is known."""
        self._newcomer: SignalConnection | None = None
        self._came_at = 0.0
        self._heard_at = 0.0
        self._spawn = spawn

    def has(self, connection: SignalConnection) -> bool:
        """Tell whether a socket is one of these."""
        return connection is self.current or connection is self._newcomer

    def attach(self, connection: SignalConnection, now: float) -> bool:
        """Take another socket; return whether it is the client's from now on.

        Beside an open socket it is a newcomer, and takes the place of an earlier one.
        """
        if self.current is None or self.current.ended:
            self.current, self._heard_at = connection, now
            return True
        if self._newcomer is not None:
            self._close(self._newcomer)
        self._newcomer, self._came_at = connection, now
        return False

    def note_message(self, connection: SignalConnection, now: float) -> bool:
        """Note that a message came on one of the sockets; return whether that made the newcomer the client's."""
        self._heard_at = now
        if connection is not self._newcomer:
            return False
        self._promote()
        return True

    def end(self, connection: SignalConnection) -> bool:
        """Note that a socket has ended; return whether that made the newcomer the client's."""
        if connection is self._newcomer:
            self._newcomer = None
        elif connection is self.current:
            self.current, self._newcomer = self._newcomer, None
            return self.current is not None
        return False

    def tick(self, now: float) -> bool:
        """Decide between two sockets if the newer one is silent; return whether it has become the client's."""
        if self._newcomer is None or now - self._came_at <= HEARD_WITHIN_S:
            return False
        if self._heard_at > self._came_at:
            self._close(self._newcomer)
            self._newcomer = None
            return False
        self._promote()
        return True

    def send(self, response: SignalResponse | Broadcast) -> None:
        """Send to the client."""
        if self.current is not None:
            self.current.send(response)
        if self._newcomer is not None:
            self._newcomer.send(response)

    def close(self, code: int) -> None:
        """Close them. They stay here until they have ended."""
        for connection in (self.current, self._newcomer):
            if connection is not None:
                self._close(connection, code)

    def forget(self) -> None:
        """Let go of them, whatever becomes of them."""
        self.current = self._newcomer = None

    def _promote(self) -> None:
        if self.current is not None:
            self._close(self.current)
        self.current, self._newcomer = self._newcomer, None

    def _close(self, connection: SignalConnection, code: int = CLOSE_RECONNECT) -> None:
        self._spawn(connection.close(code))
