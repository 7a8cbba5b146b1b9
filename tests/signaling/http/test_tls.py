"""TLS on the main port: joins, bad handshakes, a certificate that changes, clients that do not read."""

import asyncio
import ipaddress
import os
import signal
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from livekit.protocol import rtc
from structlog.testing import capture_logs

from signaling.config.configuration import Config
from signaling.config.document import ConfigError
from signaling.http import arrivals
from signaling.http.first_bytes import MAGIC_COOKIE
from signaling.http.listener import running
from signaling.http.sockets import bind_sockets
from tests.signaling.http.test_server import CONFIG, PlayedEngine, PlayedRooms, connect, receive, token
from tests.signaling.support.authority import Authority
from tests.signaling.support.doorstep import DEADLINE_S, REQUEST, Doorstep, answer, doorstep, hang_up, until

BINDING = struct.pack("!HH", 1, 0) + MAGIC_COOKIE + bytes(12)
RECORD = b"\x16\x03\x01\x00\x64"
"""The head of a record of 100 bytes with a handshake in it."""


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def config(authority: Authority, tmp_path: Path) -> Config:
    return replace(CONFIG, tls=authority.write(tmp_path))


@pytest.fixture
async def server(config: Config, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Doorstep]:
    async with doorstep(config, monkeypatch) as opened:
        yield opened


@pytest.fixture
def context(authority: Authority) -> ssl.SSLContext:
    return authority.client_context()


async def test_http_and_https_are_answered_on_one_port(server: Doorstep, context: ssl.SSLContext) -> None:
    for scheme, told in (("http", "ws"), ("https", "wss")):
        base = f"{scheme}://127.0.0.1:{server.port}"
        async with httpx.AsyncClient(base_url=base, trust_env=False, verify=context) as client:
            assert (await client.get("/")).text == "OK"
            answer = await client.get("/demo/token", params={"room": "r", "identity": "i"})
            assert answer.json()["url"] == f"{told}://127.0.0.1:{server.port}"
    assert server.dropped == {}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_joins_over_tls(server: Doorstep, context: ssl.SSLContext, version: ssl.TLSVersion) -> None:
    context.minimum_version = context.maximum_version = version
    async with connect(f"wss://127.0.0.1:{server.port}/rtc?access_token={token()}", ssl=context) as client:
        assert (await receive(client)).join.server_version == "echo"
        for number in (1, 500_000):
            await client.send(rtc.SignalRequest(ping=number).SerializeToString())
            assert (await receive(client)).pong == number
        # As large as a message may be, so that it comes in many records.
        metadata = rtc.UpdateParticipantMetadata(metadata="m" * 1024 * 1024)
        await client.send(rtc.SignalRequest(ping=3, update_metadata=metadata).SerializeToString())
        assert await receive(client)
    await server.rooms.sessions[0].ended.wait()
    assert server.rooms.joins[0].client_info.address == "127.0.0.1"


@pytest.mark.parametrize("offered", [None, ["h2"], ["h2", "http/1.1"], ["stun.turn"]])
async def test_the_first_bytes_decide_and_not_what_is_offered(
    server: Doorstep, context: ssl.SSLContext, offered: list[str] | None
) -> None:
    if offered is not None:
        context.set_alpn_protocols(offered)
    context.check_hostname = False
    for name in (None, "sfu.example.org"):
        said = await server.ask(REQUEST, ssl=context, server_hostname=name or "")
        assert said.startswith(b"HTTP/1.1 200")


async def test_pieces_of_a_request_inside_of_tls_are_put_together(server: Doorstep, context: ssl.SSLContext) -> None:
    pieces = [REQUEST[at : at + 1] for at in range(len(REQUEST))]
    assert (await server.ask(*pieces, ssl=context)).startswith(b"HTTP/1.1 200")


async def test_a_proxy_header_comes_before_tls(
    config: Config, context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind = replace(config, proxy_networks=(ipaddress.ip_network("127.0.0.0/8"),))
    loop = asyncio.get_running_loop()
    async with doorstep(behind, monkeypatch) as server:
        client = socket.socket()
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", server.port))
        await loop.sock_sendall(client, b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n")
        url = f"wss://127.0.0.1:{server.port}/rtc?access_token={token()}"
        async with connect(url, sock=client, ssl=context) as joined:
            assert (await receive(joined)).HasField("join")
        assert server.rooms.joins[0].client_info.address == "2001:db8::7"
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await server.open(ssl=context)
        assert server.dropped == {"proxy_header": 1}


@pytest.mark.parametrize(
    "said", [RECORD, RECORD + b"\x01\x00", b"\x16"], ids=["a head", "the begin of a hello", "one byte"]
)
async def test_half_a_handshake_is_given_up(server: Doorstep, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setattr(arrivals, "HANDSHAKE_S", 0.3)
    assert await server.ask(said) == b""
    await until(lambda: server.dropped == {"tls_failed": 1})
    assert len(server.acceptor._waiting) == 0


async def test_garbage_in_place_of_a_handshake_is_closed_and_counted(
    server: Doorstep, caplog: pytest.LogCaptureFixture
) -> None:
    for said in (RECORD + b"\xff" * 100, b"\x16GET / HTTP/1.1\r\n\r\n" * 10, b"\x16" * 1000):
        assert b"HTTP" not in await server.ask(said)
    await until(lambda: server.dropped == {"tls_failed": 3})
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_client_that_ends_in_the_middle_of_a_handshake_is_forgotten(server: Doorstep) -> None:
    _, writer = await server.open()
    writer.write(RECORD)
    await until(lambda: len(server.acceptor._waiting) == 1)
    writer.transport.abort()
    await until(lambda: len(server.acceptor._waiting) == 0)
    assert server.dropped == {"tls_failed": 1}


async def secured(server: Doorstep, context: ssl.SSLContext) -> tuple[socket.socket, ssl.SSLObject, ssl.MemoryBIO]:
    """A client behind its handshake: its socket, its end of TLS, and what that has for the socket."""
    loop = asyncio.get_running_loop()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    end = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    client = socket.socket()
    client.setblocking(False)
    await loop.sock_connect(client, ("127.0.0.1", server.port))
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                await loop.sock_sendall(client, outgoing.read())
                incoming.write(await loop.sock_recv(client, 65536))
            else:
                await loop.sock_sendall(client, outgoing.read())
                return client, end, outgoing


async def closed(client: socket.socket) -> None:
    async with asyncio.timeout(DEADLINE_S):
        try:
            while await asyncio.get_running_loop().sock_recv(client, 65536):
                pass
        except ConnectionError:
            pass
    client.close()


async def test_garbage_after_the_handshake_is_closed_and_counted(
    server: Doorstep, context: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    client, _, _ = await secured(server, context)
    await asyncio.get_running_loop().sock_sendall(client, b"\x17\x03\x03\x00\x20" + bytes(32))
    await closed(client)
    await until(lambda: server.dropped == {"tls_failed": 1})
    assert len(server.acceptor._waiting) == 0
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("said", [b"", BINDING[:5]], ids=["nothing", "half"])
async def test_who_says_too_little_inside_of_tls_is_given_up(
    server: Doorstep, context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(arrivals, "FIRST_BYTES_S", 0.3)
    client, end, outgoing = await secured(server, context)
    if said:
        end.write(said)
        await asyncio.get_running_loop().sock_sendall(client, outgoing.read())
    await closed(client)
    assert server.dropped == {"first_bytes_late": 1}
    assert len(server.acceptor._waiting) == 0


@pytest.mark.parametrize(
    ("said", "reason"),
    [(BINDING, "media_over_tcp"), (b"\xff" * 20, "first_bytes_unknown"), (RECORD, "first_bytes_unknown")],
    ids=["TURN", "garbage", "TLS again"],
)
async def test_what_is_no_http_inside_of_tls_is_closed_and_counted(
    server: Doorstep, context: ssl.SSLContext, said: bytes, reason: str
) -> None:
    assert await server.ask(said, ssl=context) == b""
    assert server.dropped == {reason: 1}


async def test_a_handshake_that_makes_room_for_another_connection_ends(
    server: Doorstep, context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signaling.http.acceptor.MAX_ARRIVALS", 3)
    reader, half = await server.open()
    half.write(RECORD)
    await until(lambda: len(server.acceptor._waiting) == 1)
    behind, _, _ = await secured(server, context)
    silent = [await server.open() for _ in range(3)]
    assert await answer(reader) == b""
    await closed(behind)
    assert server.dropped == {"arrivals_full": 2}
    assert (await server.ask(REQUEST, ssl=context)).startswith(b"HTTP/1.1 200")
    for _, writer in [(reader, half), *silent]:
        await hang_up(writer)


async def test_a_client_that_pings_over_tls_and_does_not_read_grows_nothing(
    server: Doorstep, context: ssl.SSLContext
) -> None:
    loop = asyncio.get_running_loop()
    client, end, outgoing = await secured(server, context)
    upgrade = (
        f"GET /rtc?access_token={token()} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    end.write(upgrade.encode())
    await loop.sock_sendall(client, outgoing.read())
    await until(lambda: server.rooms.joins)
    ping = bytes((0x89, 0x80 | 125, 0, 0, 0, 0)) + b"p" * 125
    async with asyncio.timeout(DEADLINE_S * 3):
        while server.intake.dropped["pong"] < 1000:
            for _ in range(100):
                end.write(ping)
            await loop.sock_sendall(client, outgoing.read())
    (protocol,) = server.connections
    assert protocol.transport.get_write_buffer_size() < 1024 * 1024
    client.close()


async def test_a_new_certificate_is_shown_to_new_connections_and_a_bad_one_to_none(
    config: Config, authority: Authority, context: ssl.SSLContext, tmp_path: Path
) -> None:
    """Read again with SIGHUP, also where the configuration itself has a mistake."""
    mistakes = [True, False, False]
    asked = asyncio.Event()

    def read_again() -> Config:
        asked.set()
        if mistakes.pop(0):
            raise ConfigError("livekit.yaml:1: unknown key prot")
        return config

    async def shown(port: int) -> Any:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        serial = writer.get_extra_info("peercert")["serialNumber"]
        await hang_up(writer)
        return serial

    async def hang_up_signal() -> None:
        asked.clear()
        os.kill(os.getpid(), signal.SIGHUP)
        await asked.wait()

    async with running(config, PlayedEngine(), PlayedRooms(), bind_sockets(config), read_again) as ((_, port),):
        url = f"wss://127.0.0.1:{port}/rtc?access_token={token()}"
        async with connect(url, ssl=context) as client:
            await receive(client)
            serials = [await shown(port)]
            for _ in range(2):
                authority.write(tmp_path)
                await hang_up_signal()
                serials.append(await shown(port))
            assert len(set(serials)) == 3
            (tmp_path / "server.key").write_bytes(b"half")
            with capture_logs() as logs:
                await hang_up_signal()
            assert "the certificate was not read again" in [line["event"] for line in logs]
            assert await shown(port) == serials[-1]
            await client.send(rtc.SignalRequest(ping=7).SerializeToString())
            assert (await receive(client)).pong == 7
