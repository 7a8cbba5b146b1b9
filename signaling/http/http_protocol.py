"""Uvicorn's HTTP/1.1 and WebSocket protocols, with bounds for clients that have shown no token yet.

Who calls it: `listener.py` gives both classes to uvicorn, which makes one object for each connection. A connection
begins as `ShortLivedHttp`, parsed by h11. If it asks for an upgrade, it goes on as `SignalProtocol`, parsed by
`websockets`. Both parsers have the limits of this file, so the second one reads what the first one has accepted.
"""

import asyncio
import heapq
import struct
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, cast

import h11
import structlog
import websockets.http11
from h11._receivebuffer import ReceiveBuffer
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN

from signaling.http.connection import DIRECT
from signaling.http.shares import TURN_S
from signaling.networks import ByNetwork, network_of

MAX_REQUEST_HEAD_BYTES = 1024 * 1024 + 4096
"""Bytes of a request line with its headers. A token with a participant's metadata, in the query or in `Authorization`,
may have most of a MiB. Go's servers have the same bound."""
MAX_HEADERS = 1000
"""Headers of one request. Go bounds bytes only, but here each header costs microseconds in two parsers."""
MAX_PATH_BYTES = 8 * 1024
"""Bytes of a request's path without its query. The path is unquoted before anything is checked."""
MAX_LIST_HEADER_BYTES = 8 * 1024
"""Bytes of all headers that are lists (`Connection` and `Sec-WebSocket-*`), of which each entry is parsed."""
MAX_KEPT_HEAD_BYTES = 8 * 1024
"""Bytes above which a request is its connection's last, because the connection would keep it in memory."""
MAX_UNFINISHED_HEADS_BYTES = 64 * 1024 * 1024
"""Bytes of incomplete requests that all connections together may hold. Above that the largest are refused."""
HEADS_AFTER_RELIEF_BYTES = MAX_UNFINISHED_HEADS_BYTES * 7 // 8
"""The bytes down to which requests are then refused, so that not every further packet looks for the largest."""
HTTP_LIFETIME_S = 30.0
"""How long a connection may stay plain HTTP, and how long an upgrade may stay unanswered. Requests here are short."""
MAX_CONNECTIONS = 16_384
"""Connections at a time, WebSockets included. Further requests are answered 503."""
MADE_ROOM = MAX_CONNECTIONS // 16
"""Connections of plain HTTP that are then closed at a time, so that not every further one looks for the worst."""
SLICE_BYTES = 1024
"""Bytes of a WebSocket that are parsed between two looks at the clock. They hold at most 170 frames; empty frames,
pings and pongs cost 10 us or more each, and do not count as requests."""

LIST_HEADERS = (b"connection:", b"upgrade:", b"sec-websocket-", b"transfer-encoding:", b"expect:")
BODY_HEADERS = (b"content-length", b"transfer-encoding")

FIN = 0x80
"""The bit of a frame that ends its message."""
_MEDIUM, _LARGE = struct.Struct("!BBH"), struct.Struct("!BBQ")
"""Heads of frames of at least 126 bytes, and of at least 64 KiB."""

log = structlog.get_logger("signaling.http")


class Intake:
    """What the connections of a server hold before a token is known, and counters of what was refused or dropped."""

    def __init__(self) -> None:
        self.held_bytes = 0
        """Bytes of unfinished request heads, of all connections together."""
        self.dropped: Counter[str] = Counter()
        """`head`: requests refused because all held too much; `upgrade`: beyond MAX_CONNECTIONS; `pong`: not sent.
        `plain_http_full`: closed to make room. `arrivals.py` and `acceptor.py` count here too."""
        self._held: dict[ShortLivedHttp, int] = {}
        self._plain = ByNetwork[ShortLivedHttp]()
        """Connections of plain HTTP."""

    def came(self, connection: "ShortLivedHttp") -> None:
        """Note that `connection` speaks plain HTTP."""
        self._plain.add(connection.network, connection)

    def went(self, connection: "ShortLivedHttp") -> None:
        """Note that `connection` has ended, or is a WebSocket now."""
        self._plain.discard(connection.network, connection)

    def make_room(self) -> None:
        """Close `MADE_ROOM` connections of plain HTTP: the oldest of whoever has most of them.

        One byte makes a connection HTTP, and nobody has shown a token yet. So one client alone could have all of them.
        If there are fewer, it is WebSockets that have all, and requests are answered so.
        """
        if len(self._plain) < MADE_ROOM:
            return
        worst = [(-count, network) for network, count in self._plain.counts().items()]
        heapq.heapify(worst)
        for _ in range(MADE_ROOM):
            count, network = worst[0]
            self._plain.oldest(network).give_up()
            self.dropped["plain_http_full"] += 1
            if count == -1:
                heapq.heappop(worst)
            else:
                heapq.heapreplace(worst, (count + 1, network))

    def note(self, connection: "ShortLivedHttp", size: int) -> None:
        """Note that `connection` holds `size` bytes of a request; 0: it is complete, or the connection has ended."""
        self.held_bytes += size - self._held.pop(connection, 0)
        if size:
            self._held[connection] = size
            if self.held_bytes > MAX_UNFINISHED_HEADS_BYTES:
                self._relieve()

    def _relieve(self) -> None:
        """Refuse the largest requests. Ordinary ones arrive in one piece or a few, so they are not among these."""
        refused = 0
        for connection in sorted(self._held, key=self._held.__getitem__, reverse=True):
            if self.held_bytes <= HEADS_AFTER_RELIEF_BYTES:
                break
            refused += 1
            connection.refuse(HTTPStatus.SERVICE_UNAVAILABLE)
        self.dropped["head"] += refused
        log.warning("too much of unfinished requests, the largest are refused", refused=refused, held=self.held_bytes)


class HeadBuffer(ReceiveBuffer):
    """h11's buffer, with refusal of a head that would take long to parse."""

    refusal = HTTPStatus.BAD_REQUEST
    """The status of the answer to what h11 cannot read."""
    head_bytes = 0
    """Bytes of the head that was read last."""

    def maybe_extract_lines(self) -> list[bytearray] | None:
        """Return the lines of a complete head, or of a chunked body's trailer.

        Raises:
            h11.LocalProtocolError: it is too long or folded (RFC 9112 section 5.2). h11 reports it as the peer's error.
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
    """Uvicorn's HTTP/1.1, with a deadline for clients that connect and send nothing."""

    def __init__(
        self, *arguments: Any, intake: Intake, told_client: tuple[str, int] | None = None, **options: Any
    ) -> None:
        """`intake` is the server's, `told_client` is where the client is if a PROXY header told it. The other
        arguments are uvicorn's."""
        super().__init__(*arguments, **options)
        self._intake = intake
        self._told_client = told_client
        self._buffer = HeadBuffer()
        self.conn._receive_buffer = self._buffer
        self._deadline: asyncio.TimerHandle | None = None
        self.network = ""
        """What counts as one client."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Start the connection's deadline."""
        super().connection_made(transport)
        if self._told_client is not None:
            self.client = self._told_client
            upgraded = cast("Callable[..., Any]", self.ws_protocol_class)
            self.ws_protocol_class = cast("type[asyncio.Protocol]", partial(upgraded, told_client=self._told_client))
        self.network = network_of(self.client[0]) if self.client else ""
        self._intake.came(self)
        self._deadline = self.loop.call_later(HTTP_LIFETIME_S, self._end)

    def connection_lost(self, exc: Exception | None) -> None:
        """Release everything at once: request and response refer to each other, and both may be large."""
        super().connection_lost(exc)
        self._intake.went(self)
        self._let_go()
        self.cycle = None  # type: ignore[assignment]  # uvicorn starts with None too

    def handle_events(self) -> None:
        """Read what has arrived, and note what remains of it."""
        super().handle_events()
        if self.transport.get_protocol() is self:
            self._intake.note(self, 0 if self.transport.is_closing() else len(self._buffer))

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Go on as a WebSocket. Every request is answered, also one that cannot be upgraded."""
        if len(self.connections) >= MAX_CONNECTIONS:
            self._intake.dropped["upgrade"] += 1
            self.refuse(HTTPStatus.SERVICE_UNAVAILABLE)
            return
        # `websockets` cannot read a request with a body; whether its token is good is told nevertheless.
        self.headers = [(name, value) for name, value in self.headers if name not in BODY_HEADERS]
        super().handle_websocket_upgrade(event)
        cast("SignalProtocol", self.transport.get_protocol()).refuse_unread()
        self._intake.went(self)
        self._let_go()

    def send_400_response(self, msg: str) -> None:
        """Answer what h11 could not read."""
        self._intake.dropped["bad_requests"] += 1
        self.refuse(self._buffer.refusal)

    def refuse(self, status: HTTPStatus) -> None:
        """Answer with `status` and nothing else, and close."""
        if not self.transport.is_closing():
            self.transport.write(_refusal(status))
            self.transport.close()
        self._let_go()

    def give_up(self) -> None:
        """Close at once, because others need the room."""
        self.connections.discard(self)
        self._intake.went(self)
        self.transport.abort()

    def on_response_complete(self) -> None:
        """Keep the connection for another request, unless that would keep a large one in memory."""
        self.cycle.body.clear()  # what the application has not read would stay as long as the connection
        if self._buffer.head_bytes > MAX_KEPT_HEAD_BYTES:
            self.transport.close()
        elif self._deadline is not None:
            # Who makes one request after another would otherwise lose the one that meets the end.
            self._deadline.cancel()
            self._deadline = self.loop.call_later(HTTP_LIFETIME_S, self._end)
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
    """Uvicorn's WebSocket, which also implements `connection.Direct`."""

    take: Callable[[bytes], bool] | None = None

    def __init__(
        self, *arguments: Any, intake: Intake, told_client: tuple[str, int] | None = None, **options: Any
    ) -> None:
        """`intake` and `told_client` are as for `ShortLivedHttp`. The other arguments are uvicorn's."""
        super().__init__(*arguments, **options)
        self._intake = intake
        self._told_client = told_client
        self._message = bytearray()
        """The fragments received so far of a message."""
        self._backlog = bytearray()
        """Bytes that are read and not parsed. Nothing more is read meanwhile."""
        self._turn: asyncio.Handle | None = None
        self._deadline = self.loop.call_later(HTTP_LIFETIME_S, self._end)

    def connection_made(self, transport: Any) -> None:
        """Take over the connection."""
        super().connection_made(transport)
        self.client = self._told_client or self.client

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the deadline, which would keep the request in memory, and drop what was not parsed."""
        self._deadline.cancel()
        self._backlog.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived, as far as the client's turn allows, and the rest after others had their turn."""
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
        """Tell whether the application must take messages before more can be parsed."""
        return not self.queue.empty() and not self.close_sent

    def _go_on(self) -> None:
        """Parse the rest in the event loop's next turn, or read again if there is none."""
        if self._is_waited_for():
            return  # `receive` comes back
        if self._backlog:
            if self._turn is None:
                self._turn = self.loop.call_soon(self._parse)
        elif self.read_paused and not self.transport.is_closing():
            self.read_paused = False
            self.transport.resume_reading()

    async def receive(self) -> Any:
        """Wait for the application's next message (ASGI's `receive`)."""
        message = await self.queue.get()
        self._go_on()
        return message

    def handle_connect(self, event: websockets.http11.Request) -> None:
        """Start the application, and keep no second copy of the request while the connection lasts."""
        super().handle_connect(event)
        event.path, event.headers = "", Headers()

    def refuse_unread(self) -> None:
        """Answer a request that `websockets` could not read, and close. Uvicorn itself does not answer it."""
        if self.handshake_initiated:
            return
        # For lengths `websockets` has prepared an answer, for everything else only the end.
        self.transport.write(b"".join(self.conn.data_to_send()) or _refusal(HTTPStatus.BAD_REQUEST))
        self.handshake_complete = self.close_sent = True
        self.transport.close()

    async def run_asgi(self) -> None:
        """Run the application. Afterwards nothing inside may refer to this object, which else lives until collected."""
        extensions = cast("dict[str, Any]", self.scope["extensions"])
        extensions[DIRECT] = self
        try:
            await super().run_asgi()
        finally:
            del extensions[DIRECT]
            self.take = None

    async def send(self, message: Any) -> None:
        """Do what the application requests (ASGI's `send`)."""
        await super().send(message)
        if message["type"] == "websocket.accept":
            # Read by now; with token and `join_request` it can have a MiB.
            self.scope["query_string"], self.scope["headers"] = b"", []
        elif message["type"] == "websocket.http.response.body" and self.close_sent:
            # A refusal is an answer too, which uvicorn would log as a missing one.
            self.handshake_complete = True

    def handle_ping(self) -> None:
        """Answer a ping, unless the client does not read what was sent before (RFC 6455 section 5.5.3 permits that)."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()
            self._intake.dropped["pong"] += 1

    def handle_cont(self, event: Frame) -> None:
        """Add a fragment to the buffer of its message, so that many small or empty fragments cost no memory each."""
        if self.frames:
            self._message = bytearray(self.frames.pop())
        self._message += event.data
        if event.fin:
            self.frames = [bytes(self._message)]
            self._message.clear()
            self.send_receive_event_to_app()

    def handle_parser_exception(self) -> None:
        """Close after bytes that are no WebSocket. Before the handshake there is no close frame."""
        if self.conn.close_sent is None:
            self.transport.close()
        else:
            super().handle_parser_exception()

    def send_receive_event_to_app(self) -> None:
        """Pass a message on: directly if possible, else through uvicorn's queue."""
        whole = self.curr_msg_data_type == "bytes" and len(self.frames) == 1
        if whole and self.take is not None and self.queue.empty() and not self.close_sent and self.take(self.frames[0]):
            self.frames = []
        else:
            super().send_receive_event_to_app()

    def send_now(self, frame: bytes | str) -> bool:
        """Implement `Direct.send_now`. If it returns False, `send` waits or raises."""
        if self.conn.state is not OPEN or self.transport.is_closing() or not self.writable.is_set():
            return False
        # As `conn.send_binary` would write it, at a fifth of the cost: in a large room one join is many frames.
        opcode, data = (Opcode.TEXT, frame.encode()) if isinstance(frame, str) else (Opcode.BINARY, frame)
        self.transport.write(frame_head(opcode, len(data)) + data)
        return True

    def _end(self) -> None:
        if not self.handshake_complete:
            self.transport.close()


def frame_head(opcode: int, size: int) -> bytes:
    """Return what precedes `size` bytes of a whole message from a server (RFC 6455 section 5.2)."""
    if size < 126:
        return bytes((FIN | opcode, size))
    return _MEDIUM.pack(FIN | opcode, 126, size) if size < 1 << 16 else _LARGE.pack(FIN | opcode, 127, size)


def limit_websockets() -> None:
    """Give `websockets`, which parses the request of an upgrade again, the limits that h11 has here."""
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
