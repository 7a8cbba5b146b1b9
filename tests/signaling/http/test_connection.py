"""signaling/http/connection.py: signal messages in frames, and a queue that a slow client cannot grow without end."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from livekit.protocol import models, rtc
from starlette.websockets import WebSocket

from signaling.http import connection as module
from signaling.http.connection import BadMessage, Broadcast, SignalConnection, decode_request, encode_response
from signaling.http.shares import TURN_S
from tests.signaling.support.call import settle

PONG = rtc.SignalResponse(pong=1_700_000_000_000)


class Socket:
    """The ASGI server's side of one WebSocket, in memory; `direct` with the short ways of `connection.Direct`."""

    take: Callable[[bytes], bool] | None = None

    def __init__(self, direct: bool = False) -> None:
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.incoming.put_nowait({"type": "websocket.connect"})
        self.sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.writable = asyncio.Event()
        self.writable.set()
        self.gone = False
        scope: dict[str, Any] = {"type": "websocket", "path": "/rtc", "headers": [], "query_string": b""}
        if direct:
            scope["extensions"] = {module.DIRECT: self}
        self.websocket = WebSocket(scope, self.incoming.get, self._send)

    async def _send(self, message: Any) -> None:
        await self.writable.wait()
        if self.gone:
            raise OSError("gone")
        self.sent.put_nowait(message)

    def send_now(self, frame: bytes | str) -> bool:
        if self.gone or not self.writable.is_set():
            return False
        self.sent.put_nowait({"text" if isinstance(frame, str) else "bytes": frame})
        return True

    def client_sends(self, frame: bytes | str) -> None:
        if isinstance(frame, bytes) and self.take is not None and self.incoming.empty() and self.take(frame):
            return
        kind = "text" if isinstance(frame, str) else "bytes"
        self.incoming.put_nowait({"type": "websocket.receive", kind: frame})

    def client_leaves(self) -> None:
        self.incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})

    async def client_receives(self) -> bytes | str:
        message = await self.sent.get()
        frame: bytes | str = message["bytes"] if message.get("bytes") is not None else message["text"]
        return frame


def ignore(_: object) -> None:
    """Take it and do nothing."""


def answer_on(connection: SignalConnection) -> Callable[[rtc.SignalRequest], None]:
    return lambda request: connection.send(rtc.SignalResponse(pong=request.ping))


class Inbox:
    """What comes from a client, one after the other."""

    def __init__(self, connection: SignalConnection) -> None:
        self._came: asyncio.Queue[rtc.SignalRequest | BadMessage] = asyncio.Queue()
        self._task = asyncio.create_task(connection.serve(self._came.put_nowait, self._came.put_nowait))

    async def next(self) -> rtc.SignalRequest:
        came = await asyncio.wait_for(self._came.get(), 5)
        if isinstance(came, BadMessage):
            raise came
        return came


async def accepted(direct: bool = False) -> Socket:
    socket = Socket(direct)
    await socket.websocket.accept()
    assert (await socket.sent.get())["type"] == "websocket.accept"
    return socket


async def test_messages_are_protobuf_until_the_client_sends_text() -> None:
    socket = await accepted()
    async with SignalConnection(socket.websocket) as connection:
        inbox = Inbox(connection)
        connection.send(PONG)
        assert await socket.client_receives() == PONG.SerializeToString()
        socket.client_sends('{"ping": "5"}')
        request = await inbox.next()
        assert request.ping == 5
        connection.send(PONG)
        assert await socket.client_receives() == '{"pong": "1700000000000"}'
        socket.client_sends(rtc.SignalRequest(ping=6).SerializeToString())
        await inbox.next()
        connection.send(PONG)
        assert await socket.client_receives() == PONG.SerializeToString()


async def test_the_json_subprotocol_speaks_json_first() -> None:
    socket = await accepted()
    async with SignalConnection(socket.websocket, as_json=True) as connection:
        connection.send(rtc.SignalResponse(join=rtc.JoinResponse(server_version="1", subscriber_primary=True)))
        frame = await socket.client_receives()
        assert json.loads(frame) == {"join": {"serverVersion": "1", "subscriberPrimary": True}}


@pytest.mark.parametrize("direct", [False, True])
async def test_messages_arrive_in_order_and_are_flushed_before_the_close(direct: bool) -> None:
    socket = await accepted(direct)
    async with SignalConnection(socket.websocket) as connection:
        for number in range(50):
            connection.send(rtc.SignalResponse(pong=number + 1))
    received = [await socket.sent.get() for _ in range(51)]
    assert [rtc.SignalResponse.FromString(message["bytes"]).pong for message in received[:50]] == list(range(1, 51))
    assert (received[50]["type"], received[50]["code"]) == ("websocket.close", 1000)


async def test_what_waited_for_a_slow_client_goes_before_what_is_new() -> None:
    socket = await accepted(direct=True)
    async with SignalConnection(socket.websocket) as connection:
        reader = asyncio.create_task(connection.serve(answer_on(connection), ignore))
        socket.writable.clear()
        for number in (1, 2):
            connection.send(rtc.SignalResponse(pong=number))
        await settle()  # the writer holds the first of them in its hands
        socket.writable.set()
        socket.client_sends(rtc.SignalRequest(ping=3).SerializeToString())
        connection.send(rtc.SignalResponse(pong=4))
        frames = [await socket.client_receives() for _ in range(4)]
        connection.send(rtc.SignalResponse(pong=5))
        frames.append(socket.sent.get_nowait()["bytes"])
        await connection.close()
        await reader
    assert [rtc.SignalResponse.FromString(frame).pong for frame in frames] == [1, 2, 3, 4, 5]  # type: ignore[arg-type]


async def test_a_request_is_answered_where_it_arrives() -> None:
    socket = await accepted(direct=True)
    async with SignalConnection(socket.websocket, as_json=True) as connection:
        reader = asyncio.create_task(connection.serve(answer_on(connection), ignore))
        await settle()
        socket.client_sends(rtc.SignalRequest(ping=7).SerializeToString())
        assert socket.sent.get_nowait() == {"bytes": rtc.SignalResponse(pong=7).SerializeToString()}
        assert socket.incoming.empty()
        reader.cancel()
        await settle()
        socket.client_sends(rtc.SignalRequest(ping=8).SerializeToString())
        request = await Inbox(connection).next()
        assert request.ping == 8, "nobody waited, so it is for whoever comes"


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("frame", [rtc.SignalRequest(ping=8).SerializeToString(), b"\xff\xff"])
async def test_an_error_of_who_handles_ends_the_service(direct: bool, frame: bytes) -> None:
    def fail(request: object) -> None:
        raise LookupError

    socket = await accepted(direct)

    async def session() -> None:
        async with SignalConnection(socket.websocket) as connection:
            await connection.serve(fail, fail)

    running = asyncio.create_task(session())
    await settle()
    socket.client_sends(frame)
    with pytest.raises(LookupError):
        await running
    assert (await socket.sent.get())["code"] == 1011


@pytest.mark.parametrize("direct", [False, True])
async def test_a_flood_is_handled_in_order_and_gives_the_others_their_turn(direct: bool) -> None:
    handled: list[int] = []
    most = 0

    def handle(request: rtc.SignalRequest) -> None:
        handled.append(request.ping)
        end = time.monotonic() + TURN_S / 4
        while time.monotonic() < end:
            pass

    socket = await accepted(direct)
    async with SignalConnection(socket.websocket) as connection:
        session = asyncio.create_task(connection.serve(handle, ignore))
        await settle()
        for number in range(40):
            socket.client_sends(rtc.SignalRequest(ping=number + 1).SerializeToString())
        assert len(handled) <= 4 if direct else not handled
        while len(handled) < 40:
            before = len(handled)
            await asyncio.sleep(0)
            most = max(most, len(handled) - before)
        socket.client_leaves()
        await session
    assert handled == list(range(1, 41))
    assert most <= 4


async def test_the_close_code_is_the_callers() -> None:
    socket = await accepted()
    async with SignalConnection(socket.websocket) as connection:
        await connection.close(4001)
        await connection.close(1000)
        assert connection.ended
        connection.send(PONG)
    assert (await socket.sent.get())["code"] == 4001
    assert socket.sent.empty()


async def test_receive_ends_when_the_client_leaves() -> None:
    socket = await accepted()
    async with SignalConnection(socket.websocket) as connection:
        socket.client_leaves()
        await connection.serve(ignore, ignore)
        await connection.serve(ignore, ignore)
        connection.send(PONG)
    assert socket.sent.empty() or (await socket.sent.get())["type"] == "websocket.close"


async def test_a_close_from_our_side_wakes_the_reader() -> None:
    socket = await accepted()

    async def read() -> int:
        await connection.serve(ignore, ignore)
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    async with SignalConnection(socket.websocket) as connection:
        reader = asyncio.create_task(read())
        await asyncio.sleep(0)
        await connection.close(4000)
        assert await reader == 0, "the session goes on, and nothing thinks that it was cancelled"


async def test_a_reader_that_is_cancelled_during_a_close_stays_cancelled() -> None:
    socket = await accepted()
    async with SignalConnection(socket.websocket) as connection:
        reader = asyncio.create_task(connection.serve(ignore, ignore))
        await asyncio.sleep(0)
        reader.cancel()
        await connection.close(4000)
        with pytest.raises(asyncio.CancelledError):
            await reader


@pytest.mark.parametrize("direct", [False, True])
async def test_a_client_that_does_not_read_is_closed(monkeypatch: pytest.MonkeyPatch, direct: bool) -> None:
    monkeypatch.setattr(module, "FLUSH_TIMEOUT_S", 0.01)
    socket = await accepted(direct)
    socket.writable.clear()
    async with SignalConnection(socket.websocket) as connection:
        reader = asyncio.create_task(connection.serve(ignore, ignore))
        await asyncio.sleep(0)
        for _ in range(module.MAX_QUEUED_MESSAGES + 2):
            connection.send(PONG)
        assert connection.ended
        await reader


@pytest.mark.parametrize("direct", [False, True])
async def test_the_bytes_that_wait_for_a_client_are_bounded(monkeypatch: pytest.MonkeyPatch, direct: bool) -> None:
    monkeypatch.setattr(module, "FLUSH_TIMEOUT_S", 0.01)
    monkeypatch.setattr(module, "MAX_QUEUED_BYTES", 100)
    socket = await accepted(direct)
    socket.writable.clear()
    async with SignalConnection(socket.websocket) as connection:
        connection.send(rtc.SignalResponse(refresh_token="x" * 60))
        assert not connection.ended
        connection.send(rtc.SignalResponse(refresh_token="x" * 60))
        assert connection.ended


@pytest.mark.parametrize("direct", [False, True])
async def test_a_client_that_vanished_while_we_wrote_ends_the_connection(direct: bool) -> None:
    socket = await accepted(direct)
    socket.gone = True
    async with SignalConnection(socket.websocket) as connection:
        reader = asyncio.create_task(connection.serve(ignore, ignore))
        await asyncio.sleep(0)
        connection.send(PONG)
        await reader


async def test_an_error_of_the_session_closes_with_internal_error() -> None:
    socket = await accepted()
    with pytest.raises(LookupError):
        async with SignalConnection(socket.websocket):
            raise LookupError
    assert (await socket.sent.get())["code"] == 1011


async def test_a_bad_frame_is_reported_and_the_next_one_is_read() -> None:
    socket = await accepted()
    async with SignalConnection(socket.websocket) as connection:
        inbox = Inbox(connection)
        socket.client_sends(b"\xff\xff")
        with pytest.raises(BadMessage, match="no protobuf"):
            await inbox.next()
        socket.client_sends("{")
        with pytest.raises(BadMessage, match="no JSON"):
            await inbox.next()
        socket.client_sends('{"ping": 7}')
        request = await inbox.next()
        assert request.ping == 7


@pytest.mark.parametrize("quality", ['"HIGH"', "2"])
@pytest.mark.parametrize("name", ["trackSetting", "track_setting"])
def test_json_takes_enum_names_and_numbers_and_both_spellings_of_fields(quality: str, name: str) -> None:
    request = decode_request(f'{{"{name}": {{"quality": {quality}, "fromTheFuture": 1}}}}')
    assert request.track_setting.quality == models.VideoQuality.HIGH


def test_unknown_fields_and_enum_values_are_accepted() -> None:
    assert decode_request('{"fromTheFuture": {"x": [1]}, "ping": 1}').ping == 1
    assert decode_request('{"addTrack": {"source": "HOLOGRAM", "cid": "c"}}').add_track.cid == "c"
    # Field 1000, varint 1: protobuf of a newer client.
    assert decode_request(b"\xc0\x3e\x01").WhichOneof("message") is None


def test_json_has_names_for_enums_and_text_for_long_integers() -> None:
    response = rtc.SignalResponse(leave=rtc.LeaveRequest(reason=models.DisconnectReason.DUPLICATE_IDENTITY))
    assert json.loads(encode_response(response, as_json=True)) == {"leave": {"reason": "DUPLICATE_IDENTITY"}}


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "3", "null", '"x"', "[" * 100_000, '{"offer": 1}', '{"ping": "many"}', '{"ping": Infinity}'),
        '{"trackSetting": {"quality": Infinity}}',
        '{"trackSetting": {}, "track_setting": {}}',
    ],
)
def test_text_that_is_no_request_is_a_bad_message(text: str) -> None:
    with pytest.raises(BadMessage):
        decode_request(text)


@given(st.one_of(st.binary(max_size=100), st.text(max_size=100)))
def test_any_frame_is_a_request_or_a_bad_message(frame: bytes | str) -> None:
    try:
        decode_request(frame)
    except BadMessage as error:
        assert str(error)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
field_names = st.sampled_from([field.json_name for field in rtc.SignalRequest.DESCRIPTOR.fields])


@given(st.dictionaries(field_names, json_values, max_size=2))
def test_any_json_value_in_a_known_field_is_a_request_or_a_bad_message(value: dict[str, Any]) -> None:
    try:
        decode_request(json.dumps(value))
    except BadMessage as error:
        assert str(error)


async def test_a_broadcast_is_encoded_once_for_each_kind_of_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []

    def encode(response: rtc.SignalResponse, as_json: bool) -> bytes | str:
        encoded.append(as_json)
        return encode_response(response, as_json)

    monkeypatch.setattr(module, "encode_response", encode)
    broadcast = Broadcast(PONG)
    for as_json in (False, True, False, True):
        socket = await accepted()
        async with SignalConnection(socket.websocket, as_json) as connection:
            connection.send(broadcast)
            assert await socket.client_receives() == encode_response(PONG, as_json)
    assert encoded == [False, True]


@pytest.mark.parametrize("half", ["\\ud83d", "\\uDE00"])
def test_half_a_character_in_json_is_replaced_wherever_it_stands(half: str) -> None:
    text = '{"updateMetadata": {"name": "cut %s", "metadata": "%s", "attributes": {"%s": "%s"}}}'
    update = decode_request(text.replace("%s", half)).update_metadata
    assert (update.name, update.metadata, dict(update.attributes)) == ("cut \ufffd", "\ufffd", {"\ufffd": "\ufffd"})
    assert decode_request('{"offer": {"sdp": "%s"}}'.replace("%s", half)).offer.sdp == "\ufffd"
    with pytest.raises(BadMessage, match="no JSON SignalRequest"):
        decode_request('{"offer": {"type": {"%s": "%s"}}}'.replace("%s", half))


def test_whole_characters_in_json_stay() -> None:
    assert decode_request('{"updateMetadata": {"name": "\\ud83d\\ude00 \\\\ud83d"}}').update_metadata.name == (
        "\U0001f600 \\ud83d"
    )


def test_every_text_of_every_json_request_may_hold_half_a_character() -> None:
    """By reflection, so that a field that LiveKit adds is tried too."""
    tried = 0
    for field in rtc.SignalRequest.DESCRIPTOR.fields:
        for inner in field.message_type.fields if field.message_type else ():
            if inner.type == inner.TYPE_STRING and not inner.is_repeated:
                request = decode_request(json.dumps({field.json_name: {inner.json_name: "\ud83d"}}))
                assert getattr(getattr(request, field.name), inner.name) == "\ufffd"
                tried += 1
    assert tried > 10


def update_of(*infos: models.ParticipantInfo) -> Broadcast:
    return Broadcast(rtc.SignalResponse(update=rtc.ParticipantUpdate(participants=infos)))


@pytest.mark.parametrize("as_json", [False, True])
async def test_a_newer_update_takes_the_place_of_one_that_waits(as_json: bool) -> None:
    socket = await accepted(direct=True)
    gone = models.ParticipantInfo.DISCONNECTED
    async with SignalConnection(socket.websocket, as_json) as connection:
        socket.writable.clear()
        connection.send(PONG)
        await settle()  # the writer holds it in its hands
        metadata = "m" * 100_000
        for number in range(1_000):
            info = models.ParticipantInfo(sid="PA_a", version=number, metadata=metadata)
            connection.send(update_of(info, models.ParticipantInfo(sid=f"PA_{number}")))
        connection.send(PONG)
        connection.send(update_of(models.ParticipantInfo(sid="PA_a", state=gone)))
        connection.send(update_of(models.ParticipantInfo(sid="PA_5", version=7)))
        assert not connection.ended
        socket.writable.set()
        await connection.close()
    frames = [socket.sent.get_nowait() for _ in range(socket.sent.qsize() - 1)]
    if as_json:
        whole = [rtc.SignalResponse() for _ in frames]
        for response, frame in zip(whole, frames, strict=True):
            json_format.Parse(frame["text"], response)
    else:
        whole = [rtc.SignalResponse.FromString(frame["bytes"]) for frame in frames]
    told = [(i.sid, i.version, i.state) for response in whole for i in response.update.participants]
    assert told[0] == ("PA_a", 999, 0), "the newest state, in the place of the first"
    assert told[1:1001] == [(f"PA_{n}", 7 if n == 5 else 0, 0) for n in range(1_000)]
    assert told[1001:] == [("PA_a", 0, gone)], "a departure has a place of its own"
    assert [response.WhichOneof("message") for response in whole[-2:]] == ["pong", "update"]


async def test_who_leaves_and_comes_back_with_the_same_sid_is_back_at_a_client_that_reads_slowly() -> None:
    socket = await accepted(direct=True)
    gone, active = models.ParticipantInfo.DISCONNECTED, models.ParticipantInfo.ACTIVE
    async with SignalConnection(socket.websocket) as connection:
        socket.writable.clear()
        connection.send(PONG)
        await settle()  # the writer holds it in its hands
        for round_ in range(3):
            for version in (1, 2):
                info = models.ParticipantInfo(sid="PA_a", state=active, version=10 * round_ + version)
                connection.send(update_of(info, models.ParticipantInfo(sid="PA_b", version=round_)))
            if round_ < 2:
                connection.send(update_of(models.ParticipantInfo(sid="PA_a", state=gone)))
        socket.writable.set()
        await connection.close()
    frames = [socket.sent.get_nowait() for _ in range(socket.sent.qsize() - 1)]
    whole = [rtc.SignalResponse.FromString(frame["bytes"]) for frame in frames]
    told = [(i.version, i.state) for response in whole for i in response.update.participants if i.sid == "PA_a"]
    assert told == [(2, active), (0, gone), (12, active), (0, gone), (22, active)]
    others = [i.version for response in whole for i in response.update.participants if i.sid == "PA_b"]
    assert others == [2]
