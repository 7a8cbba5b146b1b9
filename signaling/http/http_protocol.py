"""Uvicorn's HTTP/1.1 and WebSocket protocols, with bounds for clients that have shown no token yet.

Who calls it: `listener.py` gives both classes to uvicorn, which makes one object per connection. A connection begins
as `ShortLivedHttp` (parsed by h11) and goes on as `SignalProtocol` (parsed by `websockets`) if it asks for an upgrade;
what one parser lets through the other reads too, because both take their limits from here.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

import h11
import structlog
import websockets.http11
from h11._receivebuffer import ReceiveBuffer
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.datastructures import Headers
from websockets.frames import Frame
from websockets.protocol import OPEN

from signaling.http.connection import DIRECT
from signaling.http.shares import TURN_S

MAX_REQUEST_HEAD_BYTES = 1024 * 1024 + 4096
"""Request line and headers together. A token that carries a participant's metadata has most of a MiB, in the query or
in `Authorization`; Go's servers allow as much."""
MAX_HEADERS = 1000
"""Headers of one request. Go counts bytes only, but here each header costs microseconds in two parsers."""
MAX_PATH_BYTES = 8 * 1024
"""The path of a request without the query, which is unquoted before anything is checked."""
MAX_LIST_HEADER_BYTES = 8 * 1024
"""Headers that are lists (`Connection` and those of the WebSocket handshake), together: each entry is parsed."""
MAX_KEPT_HEAD_BYTES = 8 * 1024
"""A larger request is the last one of its connection, which keeps it in memory until the next."""
MAX_UNFINISHED_HEADS_BYTES = 64 * 1024 * 1024
"""What all connections together may hold of requests that are not complete. Beyond it the largest are refused."""
HEADS_AFTER_RELIEF_BYTES = MAX_UNFINISHED_HEADS_BYTES * 7 // 8
"""What is left of them then, so that not every further packet looks for the largest."""
HTTP_LIFETIME_S = 30.0
"""How long a connection may stay plain HTTP, and how long an upgrade may stay unanswered. Requests here are short; a
head that never ends is not waited for."""
MAX_CONNECTIONS = 16_384
"""Connections at a time, WebSockets included; requests beyond are answered 503."""
SLICE_BYTES = 1024
"""What is parsed of a WebSocket between two looks at the clock: at most 170 frames. Empty frames, pings and pongs cost
ten microseconds and more each, and are not counted as requests."""

LIST_HEADERS = (b"connection:", b"upgrade:", b"sec-websocket-", b"transfer-encoding:", b"expect:")
BODY_HEADERS = (b"content-length", b"transfer-encoding")

log = structlog.get_logger("signaling.http")


class Intake:
    """What the connections of one server hold before anybody is known, and what was refused or dropped for it."""

    def __init__(self) -> None:
        self.held_bytes = 0
        """Bytes of unfinished request heads, of all connections together."""
        self.dropped: Counter[str] = Counter()
        """`head`: requests refused for what all hold; `upgrade`: refused beyond MAX_CONNECTIONS; `pong`: not sent."""
        self._held: dict[ShortLivedHttp, int] = {}

    def note(self, connection: "ShortLivedHttp", size: int) -> None:
        """`connection` holds `size` bytes of a request now; 0 when it is complete, or the connection gone."""
        self.held_bytes += size - self._held.pop(connection, 0)
        if size:
            self._held[connection] = size
            if self.held_bytes > MAX_UNFINISHED_HEADS_BYTES:
                self._relieve()

    def _relieve(self) -> None:
        """Refuse the largest. Ordinary requests come in one piece or a few, so they are not among them."""
        refused = 0
        for connection in sorted(self._held, key=self._held.__getitem__, reverse=True):
            if self.held_bytes <= HEADS_AFTER_RELIEF_BYTES:
                break
            refused += 1
            connection.refuse(HTTPStatus.SERVICE_UNAVAILABLE)
        self.dropped["head"] += refused
        log.warning("too much of unfinished requests, the largest are refused", refused=refused, held=self.held_bytes)


class HeadBuffer(ReceiveBuffer):
    """h11's buffer, which refuses a head that it would take long to parse."""

    refusal = HTTPStatus.BAD_REQUEST
    """The status for whatever h11 cannot read."""
    head_bytes = 0
    """Bytes of the head of the request that was read last."""

    def maybe_extract_lines(self) -> list[bytearray] | None:
        """Return the lines of a complete head, or of a chunked body's trailer.

        Raises:
            h11.LocalProtocolError: it is too long or folded (RFC 9112 section 5.2); h11 makes it the peer's fault.
        """
        size = len(self)
        lines = super().maybe_extract_lines()
        if lines is None:
            if size > MAX_REQUEST_HEAD_BYTES:
                self.refusal = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            return None
        self.head_bytes = size - len(self)
        if lines and (len(lines[0]) if (end := lines[0].find(b"?")) < 0 else end) > MAX_PATH_BYTES:
            self.refusal = HTTPStatus.REQUEST_URI_TOO_LONG
            raise h11.LocalProtocolError("path too long", int(self.refusal))
        if self.head_bytes > MAX_REQUEST_HEAD_BYTES or len(lines) > MAX_HEADERS + 1 or _listed(lines):
            self.refusal = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise h11.LocalProtocolError("request head too large", int(self.refusal))
        if any(line.startswith((b" ", b"\t")) for line in lines[1:]):
            raise h11.LocalProtocolError("folded header")
        return lines


class ShortLivedHttp(H11Protocol):
    """Uvicorn's HTTP/1.1, which by itself waits for ever for a client that connects and says nothing."""

    def __init__(self, *arguments: Any, intake: Intake, **options: Any) -> None:
        """`intake` is the server's; the rest is uvicorn's."""
        super().__init__(*arguments, **options)
        self._intake = intake
        self._buffer = HeadBuffer()
        self.conn._receive_buffer = self._buffer
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Give the connection its time."""
        super().connection_made(transport)
        self._deadline = self.loop.call_later(HTTP_LIFETIME_S, self._end)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything at once: request and answer refer to each other, and both may be large."""
        super().connection_lost(exc)
        self._let_go()
        self.cycle = None  # type: ignore[assignment]  # uvicorn starts with None too

    def handle_events(self) -> None:
        """Read what has come, and note what is left of it."""
        super().handle_events()
        if self.transport.get_protocol() is self:
            self._intake.note(self, 0 if self.transport.is_closing() else len(self._buffer))

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Go on as a WebSocket. Whatever the request is like, it is answered."""
        if len(self.connections) >= MAX_CONNECTIONS:
            self._intake.dropped["upgrade"] += 1
            self.refuse(HTTPStatus.SERVICE_UNAVAILABLE)
            return
        # `websockets` cannot read a request with a body; whether its token is good is told nevertheless.
        self.headers = [(name, value) for name, value in self.headers if name not in BODY_HEADERS]
        super().handle_websocket_upgrade(event)
        cast("SignalProtocol", self.transport.get_protocol()).refuse_unread()
        self._let_go()

    def send_400_response(self, msg: str) -> None:
        """Answer what h11 could not read."""
        self.refuse(self._buffer.refusal)

    def refuse(self, status: HTTPStatus) -> None:
        """Answer with `status` and nothing else, and close."""
        if not self.transport.is_closing():
            self.transport.write(_refusal(status))
            self.transport.close()
        self._let_go()

    def on_response_complete(self) -> None:
        """Keep the connection for another request, unless that would keep a large one in memory."""
        if self._buffer.head_bytes > MAX_KEPT_HEAD_BYTES:
            self.transport.close()
        super().on_response_complete()

    def _let_go(self) -> None:
        self._intake.note(self, 0)
        self._buffer = self.conn._receive_buffer = HeadBuffer()
        self.scope = self.headers = None  # type: ignore[assignment]  # uvicorn starts with None too
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._deadline = self.loop.call_later(HTTP_LIFETIME_S, self._end)
        else:
            self.transport.close()


class SignalProtocol(WebSocketsSansIOProtocol):
    """Uvicorn's WebSocket, which is also a `connection.Direct`."""

    take: Callable[[bytes], bool] | None = None

    def __init__(self, *arguments: Any, intake: Intake, **options: Any) -> None:
        """`intake` is the server's; the rest is uvicorn's."""
        super().__init__(*arguments, **options)
        self._intake = intake
        self._message = bytearray()
        """The fragments so far of a message that has more than one."""
        self._backlog = bytearray()
        """Read and not parsed; nothing more is read meanwhile."""
        self._turn: asyncio.Handle | None = None
        self._deadline = self.loop.call_later(HTTP_LIFETIME_S, self._end)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the timer, which would keep the request in memory, and of what was not parsed."""
        self._deadline.cancel()
        self._backlog.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has come; of much, as much as the client's turn allows, and the rest when others had theirs."""
        if not self.handshake_initiated or (len(data) <= SLICE_BYTES and not self._backlog):
            super().data_received(data)
            return
        waiting = bool(self._backlog)
        self._backlog += data
        if not waiting:
            self._parse()
        elif not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    def _parse(self) -> None:
        self._turn = None
        end = time.monotonic() + TURN_S
        while self._backlog and not self.transport.is_closing():
            piece = bytes(self._backlog[:SLICE_BYTES])
            del self._backlog[:SLICE_BYTES]
            super().data_received(piece)
            if time.monotonic() >= end or self._is_waited_for():
                break
        if self.transport.is_closing():
            self._backlog.clear()
        elif self._backlog and not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()
        self._go_on()

    def _is_waited_for(self) -> bool:
        """Tell whether the application has to take messages before there can be more of them."""
        return not self.queue.empty() and not self.close_sent

    def _go_on(self) -> None:
        """Parse what is left in the loop's next turn, or read again when nothing is."""
        if self._is_waited_for():
            return  # `receive` comes back
        if self._backlog:
            if self._turn is None:
                self._turn = self.loop.call_soon(self._parse)
        elif self.read_paused and not self.transport.is_closing():
            self.read_paused = False
            self.transport.resume_reading()

    async def receive(self) -> Any:
        """Wait for what the application is told next (ASGI's `receive`)."""
        message = await self.queue.get()
        self._go_on()
        return message

    def handle_connect(self, event: websockets.http11.Request) -> None:
        """Ask the application, and keep no second copy of the request as long as the connection lasts."""
        super().handle_connect(event)
        event.path, event.headers = "", Headers()

    def refuse_unread(self) -> None:
        """Answer a request that `websockets` could not read, and close; uvicorn leaves it without an answer."""
        if self.handshake_initiated:
            return
        # For lengths `websockets` has prepared an answer, for everything else only the end.
        self.transport.write(b"".join(self.conn.data_to_send()) or _refusal(HTTPStatus.BAD_REQUEST))
        self.handshake_complete = self.close_sent = True
        self.transport.close()

    async def run_asgi(self) -> None:
        """Run the application. Afterwards nothing may refer to this object from inside, or it lives until collected."""
        extensions = cast("dict[str, Any]", self.scope["extensions"])
        extensions[DIRECT] = self
        try:
            await super().run_asgi()
        finally:
            del extensions[DIRECT]
            self.take = None

    async def send(self, message: Any) -> None:
        """Do what the application asks for (ASGI's `send`)."""
        await super().send(message)
        if message["type"] == "websocket.accept":
            # Read by now; with token and `join_request` it can have a MiB.
            self.scope["query_string"], self.scope["headers"] = b"", []
        elif message["type"] == "websocket.http.response.body" and self.close_sent:
            # A refusal is an answer too, which uvicorn would log as a missing one.
            self.handshake_complete = True

    def handle_ping(self) -> None:
        """Answer, unless the client does not read what was sent before (RFC 6455 section 5.5.3 leaves that open)."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()
            self._intake.dropped["pong"] += 1

    def handle_cont(self, event: Frame) -> None:
        """Add a fragment to its message: one buffer, however small the fragments are, and nothing for empty ones."""
        if self.frames:
            self._message = bytearray(self.frames.pop())
        self._message += event.data
        if event.fin:
            self.frames = [bytes(self._message)]
            self._message.clear()
            self.send_receive_event_to_app()

    def handle_parser_exception(self) -> None:
        """Close after bytes that are no WebSocket; where none was opened yet there is no close frame either."""
        if self.conn.close_sent is None:
            self.transport.close()
        else:
            super().handle_parser_exception()

    def send_receive_event_to_app(self) -> None:
        """Pass a message on: directly where that can be, else by uvicorn's queue."""
        whole = self.curr_msg_data_type == "bytes" and len(self.frames) == 1
        if whole and self.take is not None and self.queue.empty() and not self.close_sent and self.take(self.frames[0]):
            self.frames = []
        else:
            super().send_receive_event_to_app()

    def send_now(self, frame: bytes | str) -> bool:
        """See `Direct.send_now`; where this says False, `send` waits or raises."""
        if self.conn.state is not OPEN or self.transport.is_closing() or not self.writable.is_set():
            return False
        if isinstance(frame, str):
            self.conn.send_text(frame.encode())
        else:
            self.conn.send_binary(frame)
        self.transport.write(b"".join(self.conn.data_to_send()))
        return True

    def _end(self) -> None:
        if not self.handshake_complete:
            self.transport.close()


def limit_websockets() -> None:
    """Give `websockets`, which parses the request of an upgrade once more, the limits that h11 has here."""
    websockets.http11.MAX_LINE_LENGTH = MAX_REQUEST_HEAD_BYTES
    websockets.http11.MAX_NUM_HEADERS = MAX_HEADERS


def _refusal(status: HTTPStatus) -> bytes:
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n"
    )
    return f"{head}Content-Length: {len(status.phrase)}\r\n\r\n{status.phrase}".encode()


def _listed(lines: list[bytearray]) -> bool:
    """Tell whether the headers that are lists are too long together."""
    return sum(len(line) for line in lines if line[:20].lower().startswith(LIST_HEADERS)) > MAX_LIST_HEADER_BYTES
