"""One client's WebSocket as a stream of LiveKit's signal messages, in protobuf (binary frames) or JSON (text frames).

Who calls it: `server.py` opens it for a session, which sends messages and names the handler of requests. This file
knows the framing, and not the meaning of messages. Answers are in the kind of frame that the client sent last.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import structlog
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from livekit.protocol import rtc
from livekit.protocol.models import ParticipantInfo
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from signaling.http.bounds import check_json_kind
from signaling.http.json_text import JSON_ERRORS, read_json
from signaling.http.shares import Share, Shares

MAX_QUEUED_MESSAGES = 1000
"""Messages that wait for a slow client: more than a burst of a full room, fewer than one that has stopped reading."""
MAX_QUEUED_BYTES = 16 * 1024 * 1024
"""Bytes of all messages that wait: eight of the largest."""
DIRECT = "aiosfu.direct"
"""Name of the ASGI extension that holds a `Direct`."""
FLUSH_TIMEOUT_S = 2.0
"""How long `close` waits for a client to take what is queued."""
CLOSE_NORMAL = 1000
"""RFC 6455 section 7.4.1. LiveKit's JavaScript client does not resume after this code."""
CLOSE_OVERFLOW = 1008
CLOSE_INTERNAL_ERROR = 1011
SOCKET_GONE = (OSError, RuntimeError, WebSocketDisconnect)
"""What Starlette and uvicorn raise if the client has left or the socket was closed."""

log = structlog.get_logger("signaling.connection")


class BadMessage(Exception):
    """A client's frame that is no `SignalRequest`. The text says what is wrong."""


def decode_request(frame: bytes | str) -> rtc.SignalRequest:
    """Read one frame: bytes are protobuf, text is protojson. Unknown fields and unknown enum values are accepted.

    Raises:
        BadMessage: the frame holds anything else.
    """
    try:
        if isinstance(frame, bytes):
            return rtc.SignalRequest.FromString(frame)
        return read_json(frame, rtc.SignalRequest(), check_json_kind)
    except DecodeError as error:
        raise BadMessage("a binary frame is no protobuf SignalRequest") from error
    except JSON_ERRORS as error:
        raise BadMessage(f"a text frame is no JSON SignalRequest: {str(error)[:200]}") from error


def encode_response(response: rtc.SignalResponse, as_json: bool) -> bytes | str:
    """Write one frame. JSON is protojson: lowerCamelCase names, names of enums, and 64-bit integers as strings."""
    if as_json:
        return json_format.MessageToJson(response, indent=None, ensure_ascii=False)
    return response.SerializeToString()


class Broadcast:
    """A response to many clients, which is encoded once for each kind of frame and not for each client."""

    def __init__(self, response: rtc.SignalResponse) -> None:
        """`response` must not be changed afterwards."""
        self.response = response
        self._frames: dict[bool, bytes | str] = {}
        self._parts: list[tuple[str, Broadcast]] | None = None

    def encode(self, as_json: bool) -> bytes | str:
        """Return the frame of this kind."""
        if as_json not in self._frames:
            self._frames[as_json] = encode_response(self.response, as_json)
        return self._frames[as_json]

    def parts(self) -> "list[tuple[str, Broadcast]]":
        """Return what waits in a queue: an update as a message (sid, part) for each participant, others as they are."""
        if self._parts is None:
            if self.response.WhichOneof("message") != "update":
                self._parts = [("", self)]
            else:
                self._parts = [_part(info) for info in self.response.update.participants]
        return self._parts


def _part(info: ParticipantInfo) -> tuple[str, Broadcast]:
    return info.sid, Broadcast(rtc.SignalResponse(update=rtc.ParticipantUpdate(participants=[info])))


def _is_departure(update: rtc.SignalResponse) -> bool:
    return update.update.participants[0].state == ParticipantInfo.DISCONNECTED


@dataclass(slots=True)
class _Waiting:
    """A frame in the queue of a slow client."""

    sid: str
    """The sid of the participant that an update is about; empty: no newer frame may replace this one."""
    frame: bytes | str


class Direct(Protocol):
    """Ways past the server's queue and our tasks. Waking a task costs more than answering a ping."""

    take: Callable[[bytes], bool] | None
    """Called with each binary frame before which no other waits. If it returns False, the frame goes into the queue."""

    def send_now(self, frame: bytes | str) -> bool:
        """Send a message as ASGI's `send` does; return False if that would have to wait, or if the socket has ended."""


class SignalConnection:
    """An accepted WebSocket. Use as an async context manager: leaving it flushes and closes.

    All methods belong to the event loop's thread.
    """

    def __init__(self, websocket: WebSocket, as_json: bool = False) -> None:
        """Wrap `websocket`. `as_json`: the client asked for the subprotocol `json`, so the first message is JSON."""
        self._websocket = websocket
        self._as_json = as_json
        self._direct: Direct | None = websocket.scope.get("extensions", {}).get(DIRECT)
        self._handle: Callable[[rtc.SignalRequest], None] | None = None
        self._reject: Callable[[BadMessage], None] | None = None
        self._queue: deque[_Waiting] = deque()
        self._updates: dict[str, _Waiting] = {}
        """The waiting update about each participant, by sid."""
        self._queued_bytes = 0
        self._pending = asyncio.Event()
        self._flushed = asyncio.Event()
        self._flushed.set()
        self._ended = False
        self._reader: asyncio.Task[Any] | None = None
        """The task that waits for the client's next frame."""
        self._share = Share(Shares(time.monotonic))
        self._error: Exception | None = None
        """The exception that a handler raised in the callback that read the request."""
        self._writer: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Start the task that writes queued messages."""
        self._writer = asyncio.create_task(self._write(), name="signal-writer")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Flush and close. After an exception the client is not waited for."""
        try:
            if kind is None:
                await self.close()
            else:
                await self._abort(CLOSE_INTERNAL_ERROR)
        finally:
            if self._writer is not None:
                self._writer.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._writer

    @property
    def ended(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._ended

    def send(self, response: rtc.SignalResponse | Broadcast) -> None:
        """Send one message, or queue it if the client is slow, and return at once.

        A client that does not read its messages is disconnected before they take much memory.
        """
        if self._ended:
            return
        if isinstance(response, Broadcast):
            frame = response.encode(self._as_json)
        else:
            frame = encode_response(response, self._as_json)
        # What waits already, or is being written, goes first.
        if self._direct is not None and self._flushed.is_set() and self._direct.send_now(frame):
            return
        whole = response if isinstance(response, Broadcast) else Broadcast(response)
        for sid, part in whole.parts():
            if sid and _is_departure(part.response):
                self._keep_places(sid)
                sid = ""
            self._enqueue(sid, frame if part is whole else part.encode(self._as_json))
        self._flushed.clear()
        self._pending.set()

    def _keep_places(self, sid: str) -> None:
        """Let no later update replace the one that waits about a participant, because its departure comes next.

        If a participant is hidden and then shown again, its departure must be told before its return.
        """
        waiting = self._updates.pop(sid, None)
        if waiting is not None:
            waiting.sid = ""

    def _enqueue(self, sid: str, frame: bytes | str) -> None:
        """Queue a frame. An update about a participant replaces the one that waits already."""
        before = self._updates.get(sid)
        self._queued_bytes += len(frame) - (len(before.frame) if before is not None else 0)
        messages = len(self._queue) - len(self._updates)
        if (not sid and messages >= MAX_QUEUED_MESSAGES) or self._queued_bytes > MAX_QUEUED_BYTES:
            if not self._ended:
                log.warning("client does not read its messages, closing", queued=len(self._queue))
            self._end()
        elif before is not None:
            before.frame = frame
        else:
            waiting = _Waiting(sid, frame)
            self._queue.append(waiting)
            if sid:
                self._updates[sid] = waiting

    async def serve(
        self,
        handle: Callable[[rtc.SignalRequest], None],
        reject: Callable[[BadMessage], None],
        share: Share | None = None,
    ) -> None:
        """Pass the client's requests to `handle`, in order, until the socket ends.

        If the server permits it and it is the client's turn, a request is handled in the callback that read it; a
        client that floods must wait for its turn. An exception of `handle` or `reject` ends this. Another call goes on
        with what has come since the last one ended.

        Args:
            handle: takes a request.
            reject: takes the error of a malformed frame. The connection stays open unless `reject` closes it.
            share: the share of the control thread that the client may use.

        Raises:
            ExcessiveUse: the client has wanted more than its share for too long. The caller decides what happens.
        """
        self._handle, self._reject = handle, reject
        self._share = share or self._share
        if self._direct is not None:
            self._direct.take = self._take
        while True:
            if self._share.turn_is_over:
                await self._share.give_way()
            frame = await self._receive_frame()
            if self._error is not None:
                raise self._error
            if frame is None:
                return
            self._take_in(frame)

    async def close(self, code: int = CLOSE_NORMAL) -> None:
        """Send what is queued, then the close frame. A second call does nothing more."""
        if self._ended:
            await self._abort(CLOSE_OVERFLOW)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_TIMEOUT_S):
                await self._flushed.wait()
        self._end()
        await self._abort(code)

    def _take(self, frame: bytes) -> bool:
        if self._reader is None or self._share.turn_is_over:
            return False
        try:
            self._take_in(frame)
        except Exception as error:
            self._error = error  # for whoever serves
            self._end()
        return True

    def _take_in(self, frame: bytes | str) -> None:
        """Handle one frame and charge the client for it. Every request passes here."""
        handle, reject, share = self._handle, self._reject, self._share
        if handle is None or reject is None:
            return  # it has ended
        began = share.clock()
        share.note()
        self._as_json = isinstance(frame, str)
        try:
            request = decode_request(frame)
        except BadMessage as error:
            reject(error)
        else:
            handle(request)
        share.spend(share.clock() - began)

    async def _receive_frame(self) -> bytes | str | None:
        if self._ended or self._websocket.client_state is not WebSocketState.CONNECTED:
            return None
        reader = self._reader = asyncio.current_task()
        try:
            message = await self._websocket.receive()
        except asyncio.CancelledError:
            # `_end` wakes the caller so; more than that was cancelled if somebody else wants the task to end.
            if not self.ended or (reader is not None and reader.uncancel() > 0):
                raise
            log.debug("closed from our side")
            return None
        finally:
            self._reader = None
        if message["type"] == "websocket.disconnect":
            self._end()
            return None
        data: bytes | None = message.get("bytes")
        text: str = message.get("text") or ""
        return text if data is None else data

    async def _write(self) -> None:
        try:
            while True:
                await self._pending.wait()
                self._pending.clear()
                while self._queue:
                    waiting = self._queue.popleft()
                    frame = waiting.frame
                    self._updates.pop(waiting.sid, None)
                    self._queued_bytes -= len(frame)
                    if isinstance(frame, str):
                        await self._websocket.send_text(frame)
                    else:
                        await self._websocket.send_bytes(frame)
                self._flushed.set()
        except SOCKET_GONE as error:
            log.debug("writing ended", reason=repr(error))
        finally:
            self._end()

    def _end(self) -> None:
        if self._reader is not None and not self._ended:
            self._reader.cancel()
        self._ended = True
        self._handle = self._reject = None
        self._queue.clear()
        self._updates.clear()
        self._queued_bytes = 0
        self._flushed.set()

    async def _abort(self, code: int) -> None:
        """Close without sending what is queued. A client that takes no close frame is left to TCP."""
        self._end()
        if self._websocket.application_state is not WebSocketState.CONNECTED:
            return
        if self._writer is not None:
            self._writer.cancel()
        with contextlib.suppress(TimeoutError, *SOCKET_GONE):
            async with asyncio.timeout(FLUSH_TIMEOUT_S):
                await self._websocket.close(code)
