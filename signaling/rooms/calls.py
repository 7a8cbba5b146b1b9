"""Calls of the server to participants (LiveKit's RPC): sends the request as a data packet, and waits for the answer.

A caller is known to the participant by an identity that only this call has, so answers come back to it and to nobody
else. `data.py` passes on answers; the events of rooms tell when the participant has left.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from livekit.protocol.models import DataPacket, RpcRequest, RpcResponse

from sfu.parameters import Channel
from signaling.limits import MAX_RPC_CALLS, MAX_RPC_CALLS_OF_A_ROOM
from signaling.rooms.events import ParticipantLeft, RoomEvent
from signaling.rooms.member import Member

if TYPE_CHECKING:
    from sfu.engine import Engine

MAX_PAYLOAD_BYTES = 15 * 1024
"""UTF-8 bytes of the payload of a request and of an answer, as in LiveKit's SDKs."""
MAX_ROUND_TRIP_S = 2.0
"""How long the participant may take to acknowledge a request."""
RESPONSE_TIMEOUT_S = 10.0
"""How long the answer may take if the caller names no time."""
MAX_RESPONSE_TIMEOUT_S = 300.0
"""The longest time that a caller may name."""
RPC_VERSION = 1


class RpcCode(IntEnum):
    """LiveKit's codes of failed calls."""

    UNSUPPORTED_METHOD = 1400
    RECIPIENT_NOT_FOUND = 1401
    REQUEST_TOO_LARGE = 1402
    UNSUPPORTED_SERVER = 1403
    UNSUPPORTED_VERSION = 1404
    APPLICATION_ERROR = 1500
    CONNECTION_TIMEOUT = 1501
    RESPONSE_TIMEOUT = 1502
    RECIPIENT_DISCONNECTED = 1503
    RESPONSE_TOO_LARGE = 1504
    SEND_FAILED = 1505


TEXTS: dict[int, str] = {
    RpcCode.CONNECTION_TIMEOUT: "Connection timeout",
    RpcCode.RESPONSE_TIMEOUT: "Response timeout",
    RpcCode.RECIPIENT_DISCONNECTED: "Recipient disconnected",
    RpcCode.RESPONSE_TOO_LARGE: "Response payload too large",
    RpcCode.SEND_FAILED: "Failed to send",
    RpcCode.REQUEST_TOO_LARGE: "Request payload too large",
}
"""LiveKit's texts of the errors that arise here. Those of others come from the participant."""


class RpcError(Exception):
    """A call failed; `code` is LiveKit's, and the text says why."""

    def __init__(self, code: int, message: str = "", data: str = "") -> None:
        """An error of the participant has a message and may have data."""
        super().__init__(f"RpcError {code}: {message or TEXTS.get(code, '')}" + (f": {data}" if data else ""))
        self.code = code


@dataclass(slots=True)
class _Call:
    """A call that waits."""

    callee_sid: str
    heard: asyncio.Event
    """Set when the call was acknowledged or answered, or has failed."""
    answer: "asyncio.Future[str]"


class Calls:
    """The calls of a process that wait for an answer."""

    def __init__(self, engine: "Engine", dropped: Counter[str]) -> None:
        """`dropped` counts calls that were refused because there are too many, as `rpc_calls`."""
        self._engine = engine
        self._dropped = dropped
        self._waiting: dict[str, _Call] = {}
        """Calls by the id of their request."""
        self._of_room: dict[str, dict[str, _Call]] = {}
        """The calls that wait in each room, by the id of their request."""

    async def perform(self, member: Member, method: str, payload: str, timeout_s: float = 0.0) -> str:
        """Call a method of a participant and return its answer.

        Args:
            member: the participant.
            method: the name under which it registered the method.
            payload: for the method, at most `MAX_PAYLOAD_BYTES`.
            timeout_s: how long the answer may take, at most `MAX_RESPONSE_TIMEOUT_S`; 0: `RESPONSE_TIMEOUT_S`.

        Raises:
            RpcError: it was not answered in time, or by an error; the participant left; the payload is too long; too
                many calls wait, of this room or of all.
        """
        if len(payload.encode()) > MAX_PAYLOAD_BYTES:
            raise RpcError(RpcCode.REQUEST_TOO_LARGE)
        room = member.room_name
        if len(self._waiting) >= MAX_RPC_CALLS or len(self._of_room.get(room, ())) >= MAX_RPC_CALLS_OF_A_ROOM:
            self._dropped["rpc_calls"] += 1
            raise RpcError(RpcCode.SEND_FAILED)
        timeout_s = min(timeout_s or RESPONSE_TIMEOUT_S, MAX_RESPONSE_TIMEOUT_S)
        loop = asyncio.get_running_loop()
        request_id = str(uuid.uuid4())
        call = _Call(member.sid, asyncio.Event(), loop.create_future())
        self._add(room, request_id, call)
        began = loop.time()
        packet = _request(request_id, method, payload, timeout_s).SerializeToString()
        try:
            self._engine.send_data([member.data_transport], Channel.RELIABLE, packet)
            if timeout_s > MAX_ROUND_TRIP_S:
                await _before(call.heard.wait(), began + MAX_ROUND_TRIP_S, RpcCode.CONNECTION_TIMEOUT)
            return str(await _before(call.answer, began + timeout_s, RpcCode.RESPONSE_TIMEOUT))
        finally:
            self._forget(room, request_id)
            if not call.answer.cancel() and not call.answer.cancelled():
                call.answer.exception()  # so that nobody misses it, if the caller has gone meanwhile

    def _add(self, room: str, request_id: str, call: _Call) -> None:
        self._waiting[request_id] = call
        self._of_room.setdefault(room, {})[request_id] = call

    def _forget(self, room: str, request_id: str) -> None:
        del self._waiting[request_id]
        of_room = self._of_room[room]
        del of_room[request_id]
        if not of_room:
            del self._of_room[room]

    def take(self, callee_sid: str, packet: DataPacket) -> bool:
        """Take an acknowledgement or an answer of a participant; return False if it is not for a call of the server."""
        response = packet.rpc_response
        call = self._waiting.get(response.request_id or packet.rpc_ack.request_id)
        if call is None or call.callee_sid != callee_sid:
            return False
        call.heard.set()
        if response.request_id and not call.answer.done():
            _answer(call, response)
        return True

    def note(self, event: RoomEvent) -> None:
        """Let the calls to a participant fail when it leaves. This listens to the events of rooms."""
        if not self._waiting or not isinstance(event, ParticipantLeft):
            return
        for call in self._of_room.get(event.room.name, {}).values():
            if call.callee_sid == event.participant.sid and not call.answer.done():
                call.heard.set()
                call.answer.set_exception(RpcError(RpcCode.RECIPIENT_DISCONNECTED))


async def _before(waiting: Awaitable[object], deadline: float, late: int) -> object:
    """Wait until `deadline`, in seconds of the event loop's clock; then raise the error with the code `late`."""
    try:
        async with asyncio.timeout_at(deadline):
            return await waiting
    except TimeoutError as error:
        raise RpcError(late) from error


def _request(request_id: str, method: str, payload: str, timeout_s: float) -> DataPacket:
    request = RpcRequest(
        id=request_id,
        method=method,
        payload=payload,
        response_timeout_ms=int(timeout_s * 1000),
        version=RPC_VERSION,
    )
    return DataPacket(kind=DataPacket.RELIABLE, participant_identity=request_id, rpc_request=request)


def _answer(call: _Call, response: RpcResponse) -> None:
    if response.HasField("error"):
        error = response.error
        call.answer.set_exception(RpcError(error.code, error.message, error.data))
    elif len(response.payload.encode()) > MAX_PAYLOAD_BYTES:
        call.answer.set_exception(RpcError(RpcCode.RESPONSE_TOO_LARGE))
    else:
        call.answer.set_result(response.payload)
