"""signaling/http/http_protocol.py: bounds for clients that have proved nothing yet, and for those that do not read."""

import asyncio
import base64
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import jwt
import pytest
import websockets
from livekit.protocol import rtc
from structlog.testing import capture_logs
from websockets.frames import Frame, Opcode

from signaling.config.options import MAX_METADATA_BYTES
from signaling.http import http_protocol, http_server
from signaling.http.connection import SignalConnection
from signaling.http.http_protocol import (
    MAX_CONNECTIONS,
    MAX_HEADERS,
    MAX_REQUEST_HEAD_BYTES,
    SLICE_BYTES,
    Intake,
    SignalProtocol,
    frame_head,
)
from tests.signaling.http.test_server import (
    CONFIG,
    EchoSession,
    PlayedEngine,
    PlayedRooms,
    connect,
    receive,
    running_on,
)

KEY = base64.b64encode(bytes(16)).decode()
UPGRADE = (
    f"Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
)
MIB = 1024 * 1024
DEADLINE_S = 20


class Heard(EchoSession):
    """Keeps the way past the queue, so that a test sees what the server holds."""

    async def run(self, connection: SignalConnection) -> None:
        self.rooms.protocols.append(connection._direct)  # type: ignore[attr-defined]
        await super().run(connection)


@dataclass
class HeardRooms(PlayedRooms):
    protocols: list[SignalProtocol] = field(default_factory=list)
    session: type[EchoSession] = Heard


@dataclass
class Running:
    rooms: HeardRooms
    port: int
    intake: Intake

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def ask(self, request: bytes) -> bytes:
        """Send, and return what came back until the server closed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = await asyncio.wait_for(reader.read(), DEADLINE_S)
        writer.close()
        return answer


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    intakes: list[Intake] = []

    class Kept(Intake):
        def __init__(self) -> None:
            super().__init__()
            intakes.append(self)

    monkeypatch.setattr(http_server, "Intake", Kept)
    rooms = HeardRooms()
    async with running_on(CONFIG, PlayedEngine(), rooms) as addresses:
        yield Running(rooms, addresses[0][1], intakes[0])


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
def test_frames_that_are_sent_at_once_are_those_of_the_websocket_library(opcode: Opcode, size: int) -> None:
    data = bytes(size)
    assert frame_head(opcode, size) + data == Frame(opcode, data).serialize(mask=False)


def token(**claims: Any) -> str:
    whole = {"iss": "devkey", "sub": "a", "exp": int(time.time()) + 86_400, "video": {"roomJoin": True, "room": "r"}}
    return jwt.encode(whole | claims, "secret")


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize("upgrade", [UPGRADE, "Host: x\r\n"], ids=["upgrade", "plain"])
@pytest.mark.parametrize(
    ("target", "headers", "expected"),
    [
        ("/rtc?x=" + "a" * 64 * 1024, "", 401),
        ("/rtc?x=" + "a" * 90 * 1024, "", 401),
        ("/rtc?x=" + "a" * MIB, "", 401),
        ("/rtc", f"X-Long: {'a' * 90 * 1024}\r\n", 401),
        ("/rtc", f"Authorization: Bearer {'a' * MIB}\r\n", 401),
        ("/rtc", "".join(f"X-{n}: y\r\n" for n in range(150)), 401),
        ("/rtc", "".join(f"X-{n}: y\r\n" for n in range(MAX_HEADERS - 10)), 401),
        ("/rtc", "Content-Length: 5\r\n", 401),
        ("/rtc", "Transfer-Encoding: chunked\r\n", 401),
        ("/rtc", "X-Latin: \xe9\r\n", 401),
        ("/rtc", "X-Control: \x01\r\n", 400),
        ("/rtc", "X-Folded: a\r\n b\r\n", 400),
        ("/rtc", "".join(f"X-{n}: y\r\n" for n in range(MAX_HEADERS + 1)), 431),
        ("/rtc?x=" + "a" * MAX_REQUEST_HEAD_BYTES, "", 431),
        ("/rtc", f"X-Long: {'a' * MAX_REQUEST_HEAD_BYTES}\r\n", 431),
        ("/rtc", f"Sec-WebSocket-Protocol: {'a,' * 10_000}\r\n", 431),
        ("/rtc", "Connection: a,b,c,d\r\n" * 900, 431),
        ("/rtc/" + "%41" * 3000, "", 414),
        ("/rtc?x=" + "%41" * 30_000, "", 400),
    ],
    ids=lambda value: str(value)[:20],
)
async def test_every_request_is_answered(
    server: Running, upgrade: str, target: str, headers: str, expected: int
) -> None:
    if upgrade != UPGRADE:
        target = target.replace("/rtc", "/rtc/validate")
        # h11 alone passes a control character on.
        expected = 401 if "X-Control" in headers else expected
    close = "" if upgrade == UPGRADE else "Connection: close\r\n"
    body = "hello" if "Length" in headers else "0\r\n\r\n" if "chunked" in headers else ""
    request = f"GET {target} HTTP/1.1\r\n{upgrade}{headers}{close}\r\n{body}"
    assert status(await server.ask(request.encode("latin-1"))) == expected
    assert server.intake.held_bytes == 0


async def test_what_is_no_request_is_counted_and_not_logged(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        assert status(await server.ask(b"GARBAGE\r\n\r\n")) == 400
    assert server.intake.dropped["bad_requests"] == 3
    assert [each for each in caplog.records if each.name.startswith("uvicorn")] == []


async def test_an_upgrade_with_a_good_token_and_a_body_is_answered_too(server: Running) -> None:
    request = f"GET /rtc?access_token={token()} HTTP/1.1\r\n{UPGRADE}Content-Length: 5\r\n\r\nhello"
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request.encode())
    assert status(await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE_S)) == 101
    writer.write(b"more of a body that is no frame")
    await asyncio.wait_for(reader.read(), DEADLINE_S)
    writer.close()


@pytest.mark.parametrize("where", ["query", "header"])
async def test_the_largest_metadata_is_taken_back_in_a_token(server: Running, where: str) -> None:
    bearer = token(metadata="m" * MAX_METADATA_BYTES, attributes={"a": "b" * 60 * 1024})
    assert len(bearer) > 700 * 1024
    target = "/rtc?access_token=" + bearer if where == "query" else "/rtc"
    headers = {} if where == "query" else {"Authorization": f"Bearer {bearer}"}
    async with connect(server.ws + target, additional_headers=headers) as client:
        assert (await receive(client)).HasField("join")
        assert len(server.rooms.joins[0].metadata) == MAX_METADATA_BYTES
        (protocol,) = server.rooms.protocols
        kept = [protocol.scope["query_string"], *(value for _, value in protocol.scope["headers"])]
        assert sum(map(len, kept)) == 0
        assert protocol.request.path == ""


async def test_a_connection_that_says_nothing_is_closed_and_a_websocket_is_not(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "HTTP_LIFETIME_S", 0.2)
    async with connect(f"{server.ws}/rtc?access_token={token()}") as client:
        await receive(client)
        for silence in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / "):
            await server.ask(silence)
        await client.send(rtc.SignalRequest(ping=8).SerializeToString())
        assert (await receive(client)).pong == 8


async def test_an_upgrade_that_the_application_does_not_answer_is_closed(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "HTTP_LIFETIME_S", 0.2)

    application = play_silence(monkeypatch)
    assert await server.ask(f"GET /rtc HTTP/1.1\r\n{UPGRADE}\r\n".encode()) == b""
    application.set()


async def test_bytes_that_are_no_frame_before_the_answer_end_the_connection(
    server: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    application = play_silence(monkeypatch)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET /rtc HTTP/1.1\r\n{UPGRADE}\r\n".encode())
    await asyncio.sleep(0.05)
    writer.write(b"\xff" * 100)
    assert await asyncio.wait_for(reader.read(), DEADLINE_S) == b""
    writer.close()
    application.set()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def play_silence(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Let the application answer nothing until the event is set."""
    go_on = asyncio.Event()

    async def silent(self: SignalProtocol) -> None:
        await go_on.wait()

    monkeypatch.setattr(SignalProtocol, "run_asgi", silent)
    return go_on


async def test_unfinished_heads_have_one_bound_and_the_largest_go_first(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "MAX_UNFINISHED_HEADS_BYTES", 8 * MIB)
    monkeypatch.setattr(http_protocol, "HEADS_AFTER_RELIEF_BYTES", 7 * MIB)
    small_reader, small = await asyncio.open_connection("127.0.0.1", server.port)
    small.write(f"GET /rtc?access_token={token()} HTTP/1.1\r\n{UPGRADE}".encode())
    greedy = []
    with capture_logs() as logs:
        for _ in range(30):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            greedy.append(writer)
            with contextlib.suppress(ConnectionError):
                writer.write(b"GET /rtc?x=" + b"a" * 900 * 1024)
                await writer.drain()
            await asyncio.sleep(0.001)
            assert server.intake.held_bytes <= 8 * MIB + 256 * 1024
        await until(lambda: server.intake.dropped["head"] >= 15)
    assert any(entry["log_level"] == "warning" for entry in logs)
    small.write(b"\r\n")
    assert status(await asyncio.wait_for(small_reader.readuntil(b"\r\n\r\n"), DEADLINE_S)) == 101
    for writer in [small, *greedy]:
        writer.close()
    await until(lambda: server.intake.held_bytes == 0)


async def until(true: Any) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not true():  # noqa: ASYNC110  # what is waited for belongs to the server, which tells nobody
            await asyncio.sleep(0.001)


async def test_a_query_of_many_parameters_is_refused(server: Running) -> None:
    for path in ("/rtc", "/rtc/validate", "/demo/token"):
        answer = await server.ask(f"GET {path}?{'a&' * 100_000} HTTP/1.1\r\n{UPGRADE}\r\n".encode())
        assert status(answer) == (400 if path == "/rtc" else 403)  # the others are no WebSockets
        answer = await server.ask(
            f"GET {path}?{'a&' * 100_000} HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n".encode()
        )
        assert status(answer) == (404 if path == "/rtc" else 400)


async def test_a_large_request_is_the_last_of_its_connection(server: Running) -> None:
    answer = await server.ask(b"GET /?" + b"a" * MIB + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status(answer) == 200


async def test_upgrades_beyond_the_connections_are_refused(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_CONNECTIONS > 1
    async with connect(f"{server.ws}/rtc?access_token={token()}") as client:
        await receive(client)
        monkeypatch.setattr(http_protocol, "MAX_CONNECTIONS", 2)
        with pytest.raises(websockets.InvalidStatus) as caught:
            async with connect(f"{server.ws}/rtc?access_token={token()}"):
                pass
        assert caught.value.response.status_code == 503
    assert server.intake.dropped["upgrade"] == 1


async def joined(server: Running, of: int = 1) -> socket.socket:
    """A client with a small window that never reads by itself; the `of`-th one."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", server.port))
    await loop.sock_sendall(client, f"GET /rtc?access_token={token()} HTTP/1.1\r\n{UPGRADE}\r\n".encode())
    await until(lambda: len(server.rooms.protocols) == of)
    return client


def frame(opcode: int, payload: bytes, fin: bool = True) -> bytes:
    """A client's frame with a mask of zeros (RFC 6455 section 5.2)."""
    assert len(payload) < 126
    return bytes((fin << 7 | opcode, 0x80 | len(payload), 0, 0, 0, 0)) + payload


async def test_a_client_that_pings_and_does_not_read_grows_nothing(server: Running) -> None:
    client = await joined(server)
    (protocol,) = server.rooms.protocols
    loop = asyncio.get_running_loop()
    pings = frame(9, b"p" * 125) * 2000
    largest = 0
    async with asyncio.timeout(DEADLINE_S):
        for _ in range(100):  # 25 MiB
            await loop.sock_sendall(client, pings)
            largest = max(largest, protocol.transport.get_write_buffer_size())
    assert largest < MIB
    assert server.intake.dropped["pong"] > 10_000
    client.close()


async def test_fragments_grow_nothing_but_their_bytes(server: Running) -> None:
    client = await joined(server)
    (protocol,) = server.rooms.protocols
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(client, frame(2, b"", fin=False) + frame(0, b"", fin=False) * 100_000)
    request = rtc.SignalRequest(ping=77).SerializeToString()
    pieces = b"".join(frame(0, request[n : n + 1], fin=False) for n in range(len(request)))
    await loop.sock_sendall(client, pieces)
    await until(lambda: bytes(protocol._message) == request)
    assert protocol.frames == []
    await loop.sock_sendall(client, frame(0, b""))
    answer = b""
    async with asyncio.timeout(DEADLINE_S):
        while rtc.SignalResponse(pong=77).SerializeToString() not in answer:
            answer += await loop.sock_recv(client, 4096)
    await loop.sock_sendall(client, frame(1, b'{"pi', fin=False) + frame(0, b'ng": "78"}'))
    async with asyncio.timeout(DEADLINE_S):
        while json.dumps({"pong": "78"}).encode() not in answer:
            answer += await loop.sock_recv(client, 4096)
    client.close()


@pytest.mark.parametrize("opcode", [9, 10, 0], ids=["ping", "pong", "fragment"])
async def test_empty_frames_of_one_are_parsed_in_turns_with_the_others(
    server: Running, monkeypatch: pytest.MonkeyPatch, opcode: int
) -> None:
    monkeypatch.setattr(http_protocol, "TURN_S", 0.0)
    async with connect(f"{server.ws}/rtc?access_token={token()}") as other:
        await receive(other)
        flood = frame(opcode, b"", fin=opcode != 0) * 40_000
        client = await joined(server, 2)
        protocol = server.rooms.protocols[1]
        if opcode == 0:
            protocol.data_received(frame(2, b"", fin=False))
        protocol.data_received(flood)
        assert len(flood) - len(protocol._backlog) == SLICE_BYTES
        for number in range(20):
            await other.send(rtc.SignalRequest(ping=number).SerializeToString())
            assert (await receive(other)).pong == number
        assert len(protocol._backlog) > len(flood) // 2
        assert not protocol.transport.is_reading()
        await until(lambda: not protocol._backlog)
        await until(lambda: protocol.transport.is_reading())
        if opcode == 0:
            protocol.data_received(frame(0, b""))
        protocol.data_received(frame(2, rtc.SignalRequest(ping=99).SerializeToString()))
        answer = b""
        async with asyncio.timeout(DEADLINE_S):
            while rtc.SignalResponse(pong=99).SerializeToString() not in answer[-200:]:
                answer += await asyncio.get_running_loop().sock_recv(client, 65536)
        client.close()


async def test_many_messages_wait_for_the_application_and_nothing_more_is_read(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await joined(server)
    (protocol,) = server.rooms.protocols
    asked = [frame(2, rtc.SignalRequest(ping=number).SerializeToString()) for number in range(1, 3001)]
    largest = 0
    take = protocol._is_waited_for

    def watched() -> bool:
        nonlocal largest
        largest = max(largest, protocol.queue.qsize())
        return take()

    monkeypatch.setattr(protocol, "_is_waited_for", watched)
    loop = asyncio.get_running_loop()
    sending = asyncio.create_task(loop.sock_sendall(client, b"".join(asked)))
    answer = b""
    async with asyncio.timeout(DEADLINE_S):
        while rtc.SignalResponse(pong=3000).SerializeToString() not in answer[-4096:]:
            answer += await loop.sock_recv(client, 65536)
    await sending
    assert all(rtc.SignalResponse(pong=number).SerializeToString() in answer for number in (1, 1500, 2999))
    assert 0 < largest <= SLICE_BYTES // min(map(len, asked)) + 1
    client.close()


@pytest.mark.parametrize("path", ["/rtc?access_token=x", "/nothing"])
async def test_a_refused_join_is_no_error_in_the_log(
    server: Running, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(websockets.InvalidStatus):
        async with connect(server.ws + path):
            pass
    await asyncio.sleep(0)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_join_that_is_refused_while_stopping_is_no_error_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    refused: list[int] = []

    class Slow(PlayedRooms):
        async def stop(self) -> None:
            with pytest.raises(websockets.InvalidStatus) as caught:
                async with connect(f"ws://127.0.0.1:{port}/rtc?access_token={token()}"):
                    pass
            refused.append(caught.value.response.status_code)

    async with running_on(CONFIG, PlayedEngine(), Slow()) as addresses:
        port = addresses[0][1]
    assert refused == [503]
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
