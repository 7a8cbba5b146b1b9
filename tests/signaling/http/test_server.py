"""signaling/http/server.py and listener.py: real sockets and a real WebSocket client; rooms and engine are played."""

import asyncio
import base64
import contextlib
import gc
import os
import secrets
import signal
import socket
import time
import weakref
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import httpx
import jwt
import pytest
import websockets
from livekit.protocol import rtc
from starlette.routing import BaseRoute
from structlog.testing import capture_logs

from sfu.engine import Totals
from sfu.parameters import Kind
from signaling.config.api_keys import hide
from signaling.config.configuration import Config
from signaling.config.document import ConfigError
from signaling.config.turn_options import TurnOptions
from signaling.http import connection
from signaling.http.connection import SignalConnection
from signaling.http.http_server import MAX_MESSAGE_BYTES
from signaling.http.join import JoinError, JoinParameters
from signaling.http.listener import Engine, running, serve
from signaling.http.sockets import PortInUse, bind_sockets
from signaling.http.tokens import verify
from signaling.metrics.numbers import Census
from signaling.turn.service import TurnService
from tests.signaling.support.fake_engine import played_totals

KEYS = hide({"devkey": "secret"})
CONFIG = Config(keys=KEYS, port=0, bind_addresses=("127.0.0.1",), bind_addresses_given=True, development=True)


class EchoSession:
    """Answers every ping with the same number, and says goodbye when a client asks to leave."""

    def __init__(self, rooms: "PlayedRooms") -> None:
        self.rooms = rooms
        self.abandoned = False
        self.ended = asyncio.Event()
        self.bad: list[str] = []
        self.closing: asyncio.Task[None] | None = None

    async def run(self, connection: SignalConnection) -> None:
        connection.send(rtc.SignalResponse(join=rtc.JoinResponse(server_version="echo")))
        try:
            await connection.serve(partial(self._handle, connection), lambda what: self.bad.append(str(what)))
            if self.closing is not None:
                await self.closing
        finally:
            self.ended.set()

    def _handle(self, connection: SignalConnection, request: rtc.SignalRequest) -> None:
        if request.HasField("leave"):
            self.closing = asyncio.create_task(connection.close(4002))
        elif request.HasField("simulate"):
            raise RuntimeError("a bug in a session")
        else:
            connection.send(rtc.SignalResponse(pong=request.ping))

    def abandon(self) -> None:
        self.abandoned = True


@dataclass
class PlayedRooms:
    joins: list[JoinParameters] = field(default_factory=list)
    sessions: list[EchoSession] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    configs: list[Config] = field(default_factory=list)
    refuse: JoinError | None = None
    turn: TurnService = field(default_factory=lambda: TurnService(TurnOptions()))
    session: type[EchoSession] = EchoSession

    async def start(self) -> None:
        self.calls.append("rooms start")

    async def stop(self) -> None:
        self.calls.append("rooms stop")

    def admit(self, join: JoinParameters) -> EchoSession:
        self.validate(join)
        self.joins.append(join)
        self.sessions.append(self.session(self))
        return self.sessions[-1]

    def validate(self, join: JoinParameters) -> None:
        if self.refuse is not None:
            raise self.refuse

    def renew(self, config: Config) -> None:
        self.configs.append(config)

    def routes(self) -> list[BaseRoute]:
        return []

    def drops(self) -> dict[str, int]:
        return {"malformed_messages": 2}

    def census(self) -> Census:
        return Census(2, 5, {Kind.AUDIO: 4, Kind.VIDEO: 3})


@dataclass
class PlayedEngine:
    calls: list[str] = field(default_factory=list)
    fails: OSError | None = None

    async def start(self) -> None:
        self.calls.append("engine start")
        if self.fails is not None:
            raise self.fails

    async def stop(self) -> None:
        self.calls.append("engine stop")

    def media_addresses(self) -> tuple[tuple[str, int], ...]:
        return (("192.0.2.1", 7882),)

    def take_connection(
        self, connection: socket.socket, client: str = "", peer: tuple[str, int] | None = None, protocol: str = "tcp"
    ) -> None:
        with connection:
            self.calls.append(f"took {connection.recv(64, socket.MSG_PEEK)!r} of {client}")

    def drops(self) -> dict[str, int]:
        return {"srtp_auth": 3, "garbage": 0}

    def totals(self) -> Totals:
        return played_totals(packets_received=7, packets_sent=9, retransmissions_sent=2)

    def estimates(self) -> list[tuple[int, int]]:
        return [(700_000, 700_000)]


def running_on(
    config: Config, engine: Engine, rooms: PlayedRooms
) -> contextlib.AbstractAsyncContextManager[list[tuple[str, int]]]:
    return running(config, engine, rooms, bind_sockets(config))


@dataclass
class Running:
    rooms: PlayedRooms
    port: int

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}"


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    rooms = PlayedRooms()
    async with running_on(CONFIG, PlayedEngine(), rooms) as addresses:
        yield Running(rooms, addresses[0][1])


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False) as client:
        yield client


def token(**video: Any) -> str:
    grants = {"roomJoin": True, "room": "r"} | video
    return jwt.encode({"iss": "devkey", "sub": "a", "exp": int(time.time()) + 86_400, "video": grants}, "secret")


def join_request(sdp_bytes: int = 100) -> str:
    # Random, so that nothing on the way could compress it.
    offer = rtc.SessionDescription(type="offer", sdp=secrets.token_hex(sdp_bytes // 2), id=1)
    wrapped = rtc.WrappedJoinRequest(join_request=rtc.JoinRequest(publisher_offer=offer).SerializeToString())
    return base64.urlsafe_b64encode(wrapped.SerializeToString()).decode().rstrip("=")


def connect(url: str, **options: Any) -> websockets.connect:
    return websockets.connect(url, proxy=None, compression=None, **options)


async def receive(client: websockets.ClientConnection) -> rtc.SignalResponse:
    frame = await client.recv()
    assert isinstance(frame, bytes)
    return rtc.SignalResponse.FromString(frame)


async def test_what_was_dropped_is_in_the_log_when_the_server_stops() -> None:
    with capture_logs() as logs:
        async with running_on(CONFIG, PlayedEngine(), PlayedRooms()):
            pass
    told = [entry["drops"] for entry in logs if entry["event"] == "dropped"]
    assert told == [{"malformed_messages": 2, "srtp_auth": 3}]


async def test_health_is_ok_when_ready(server: Running, http: httpx.AsyncClient) -> None:
    answer = await http.get(server.http + "/")
    assert (answer.status_code, answer.text) == (200, "OK")
    assert (await http.head(server.http + "/")).status_code == 200


@pytest.mark.parametrize("path", ["/rtc", "//rtc"])
async def test_a_client_joins_on_the_old_path(server: Running, path: str) -> None:
    async with connect(f"{server.ws}{path}?access_token={token()}&protocol=16") as client:
        assert (await receive(client)).join.server_version == "echo"
        await client.send(rtc.SignalRequest(ping=42).SerializeToString())
        assert (await receive(client)).pong == 42
    assert server.rooms.joins[0].client_info.protocol == 16
    assert server.rooms.joins[0].client_info.address == "127.0.0.1"
    assert not server.rooms.joins[0].single_pc
    await server.rooms.sessions[0].ended.wait()


async def test_a_join_request_of_40_kib_fits_into_the_query(server: Running) -> None:
    url = f"{server.ws}/rtc/v1?access_token={token()}&join_request={join_request(30 * 1024)}"
    assert len(url) > 40 * 1024
    async with connect(url) as client:
        assert (await receive(client)).HasField("join")
    offer = server.rooms.joins[0].publisher_offer
    assert offer is not None
    assert len(offer.sdp) == 30 * 1024


async def test_the_token_may_come_in_a_header(server: Running) -> None:
    async with connect(f"{server.ws}/rtc", additional_headers={"Authorization": f"Bearer {token()}"}) as client:
        assert (await receive(client)).HasField("join")


async def test_the_json_subprotocol_is_confirmed_and_spoken(server: Running) -> None:
    protocols = [websockets.Subprotocol("json")]
    async with connect(f"{server.ws}/rtc?access_token={token()}", subprotocols=protocols) as client:
        assert client.subprotocol == "json"
        assert await client.recv() == '{"join": {"serverVersion": "echo"}}'
        await client.send('{"ping": 3}')
        assert await client.recv() == '{"pong": "3"}'


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/rtc?access_token=x", 401, "invalid authorization token"),
        ("/rtc", 401, "no access token"),
        ("/rtc/v1?access_token={token}&join_request=!", 400, "cannot decode wrapped join_request"),
    ],
)
async def test_errors_are_http_answers_before_the_upgrade(
    server: Running, http: httpx.AsyncClient, path: str, status: int, text: str
) -> None:
    path = path.format(token=token())
    with pytest.raises(websockets.InvalidStatus) as caught:
        async with connect(server.ws + path):
            pass
    assert caught.value.response.status_code == status
    assert text in caught.value.response.body.decode()
    answer = await http.get(server.http + path.replace("?", "/validate?") + ("" if "?" in path else "/validate"))
    assert answer.status_code == status
    assert text in answer.text
    assert server.rooms.joins == []


async def test_what_rooms_refuse_is_answered_with_their_status(server: Running, http: httpx.AsyncClient) -> None:
    server.rooms.refuse = JoinError(404, "requested room does not exist")
    with pytest.raises(websockets.InvalidStatus) as caught:
        async with connect(f"{server.ws}/rtc?access_token={token()}"):
            pass
    assert caught.value.response.status_code == 404
    answer = await http.get(f"{server.http}/rtc/validate?access_token={token()}")
    assert (answer.status_code, answer.text) == (404, "requested room does not exist")


@pytest.mark.parametrize(
    "path", ["/rtc/validate?access_token={0}", "/rtc/v1/validate?access_token={0}&join_request={1}"]
)
async def test_validation_creates_nothing(server: Running, http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(server.http + path.format(token(), join_request()), headers={"Origin": "https://a.example"})
    assert (answer.status_code, answer.text) == (200, "success")
    assert answer.headers["access-control-allow-origin"] == "https://a.example"
    assert answer.headers["vary"] == "Origin"
    assert server.rooms.joins == []


async def test_a_preflight_from_anywhere_may_be_remembered_for_a_day(server: Running, http: httpx.AsyncClient) -> None:
    headers = {
        "Origin": "https://meet.example",
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "authorization,x-anything",
    }
    answer = await http.options(server.http + "/rtc/validate", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://meet.example"
    assert answer.headers["vary"].startswith("Origin")
    assert "x-anything" in answer.headers["access-control-allow-headers"]
    assert answer.headers["access-control-max-age"] == "86400"


@pytest.mark.parametrize("path", ["/rtc", "/rtc/v1", "/nothing", "/rtc/"])
async def test_plain_requests_elsewhere_are_not_found(server: Running, http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(f"{server.http}{path}?access_token={token()}")).status_code == 404


async def test_a_message_over_2_mib_closes_with_1009(server: Running) -> None:
    async with connect(f"{server.ws}/rtc?access_token={token()}", max_size=None) as client:
        await receive(client)
        request = rtc.SignalRequest(update_metadata=rtc.UpdateParticipantMetadata(metadata="x" * MAX_MESSAGE_BYTES))
        with contextlib.suppress(websockets.ConnectionClosed):
            await client.send(request.SerializeToString())
        with pytest.raises(websockets.ConnectionClosed) as caught:
            await client.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009
    await server.rooms.sessions[0].ended.wait()


async def test_a_message_just_below_2_mib_is_taken(server: Running) -> None:
    async with connect(f"{server.ws}/rtc?access_token={token()}", max_size=None) as client:
        await receive(client)
        metadata = "x" * (MAX_MESSAGE_BYTES - 100)
        request = rtc.SignalRequest(update_metadata=rtc.UpdateParticipantMetadata(metadata=metadata))
        await client.send(request.SerializeToString())
        assert (await receive(client)).pong == 0


async def test_a_client_that_stops_reading_is_closed_and_nobody_waits_for_it(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "FLUSH_TIMEOUT_S", 0.01)
    flooded = asyncio.Event()

    class Talkative(EchoSession):
        async def run(self, connection: SignalConnection) -> None:
            while not connection.ended:
                connection.send(rtc.SignalResponse(refresh_token="x" * 1024 * 1024))
                await asyncio.sleep(0)
            flooded.set()
            await connection.serve(print, print)

    url = f"{server.ws}/rtc?access_token={token()}"
    async with connect(url) as other:
        await receive(other)
        monkeypatch.setattr(server.rooms, "session", Talkative)
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        key = base64.b64encode(bytes(16)).decode()
        writer.write(
            f"GET /rtc?access_token={token()} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        await asyncio.wait_for(flooded.wait(), 20)
        await other.send(rtc.SignalRequest(ping=9).SerializeToString())
        assert (await receive(other)).pong == 9
        writer.transport.abort()


async def test_a_session_is_forgotten_with_its_socket(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    freed = asyncio.Event()
    watched = []

    class Handling(EchoSession):
        async def run(self, connection: SignalConnection) -> None:
            watched.append(weakref.ref(connection, lambda _: freed.set()))
            await connection.serve(lambda request: connection.send(rtc.SignalResponse(pong=request.ping)), print)

    monkeypatch.setattr(server.rooms, "session", Handling)
    gc.disable()
    try:
        async with connect(f"{server.ws}/rtc?access_token={token()}") as client:
            await client.send(rtc.SignalRequest(ping=4).SerializeToString())
            assert (await receive(client)).pong == 4
        await asyncio.wait_for(freed.wait(), 5)
    finally:
        gc.enable()


async def test_garbage_frames_are_told_to_the_session_and_the_socket_stays(server: Running) -> None:
    async with connect(f"{server.ws}/rtc?access_token={token()}") as client:
        await receive(client)
        await client.send(b"\xff\xff\xff")
        await client.send("{not json")
        await client.send(rtc.SignalRequest(ping=1).SerializeToString())
        assert (await receive(client)).pong == 1
    assert len(server.rooms.sessions[0].bad) == 2


async def test_the_session_chooses_the_close_code(server: Running) -> None:
    async with connect(f"{server.ws}/rtc?access_token={token()}") as client:
        await receive(client)
        await client.send(rtc.SignalRequest(leave=rtc.LeaveRequest()).SerializeToString())
        with pytest.raises(websockets.ConnectionClosed) as caught:
            await client.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 4002


async def test_a_bug_in_one_session_costs_that_session_only(server: Running) -> None:
    url = f"{server.ws}/rtc?access_token={token()}"
    with capture_logs() as logs:
        async with connect(url) as unlucky, connect(url) as other:
            await receive(unlucky)
            await receive(other)
            await unlucky.send(rtc.SignalRequest(simulate=rtc.SimulateScenario()).SerializeToString())
            with pytest.raises(websockets.ConnectionClosed) as caught:
                await unlucky.recv()
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1011
            await other.send(rtc.SignalRequest(ping=9).SerializeToString())
            assert (await receive(other)).pong == 9
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["session failed"]


async def test_compression_is_not_negotiated(server: Running) -> None:
    async with websockets.connect(f"{server.ws}/rtc?access_token={token()}", proxy=None) as client:
        assert client.response is not None
        assert "Sec-WebSocket-Extensions" not in client.response.headers


async def test_access_tokens_are_not_logged(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    bearer = token()
    with caplog.at_level("INFO"):
        async with connect(f"{server.ws}/rtc?access_token={bearer}") as client:
            await receive(client)
    assert bearer not in caplog.text


async def test_the_demo_page_gets_its_token_under_dev(server: Running, http: httpx.AsyncClient) -> None:
    query = {"room": "r", "identity": "i", "name": "N"}
    answer = await http.get(server.http + "/demo/token", params=query)
    claims = verify(answer.json()["token"], KEYS)
    assert (claims.identity, claims.name, claims.video.room) == ("i", "N", "r")
    assert claims.video.room_join
    assert answer.json()["url"] == server.ws
    trial = await http.head(server.http + "/demo/token", params=query)  # the page asks first whether there are tokens
    assert (trial.status_code, trial.content) == (200, b"")
    assert (await http.get(server.http + "/demo/token", params={"room": "r"})).status_code == 400
    for origin in ("https://evil.example", "null", "http://[", server.http + "0", "http://127.0.0.1"):
        elsewhere = await http.get(server.http + "/demo/token", params=query, headers={"Origin": origin})
        assert elsewhere.status_code == 403
    assert (
        await http.get(server.http + "/demo/token", params=query, headers={"Origin": server.http})
    ).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:7880", 200),
        ("192.0.2.7", 200),
        ("[::1]:7880", 200),
        ("localhost:7880", 200),
        ("LOCALHOST", 200),
        ("aiosfu.localhost", 200),
        (socket.gethostname(), 200),
        ("rebound.example", 403),
        ("rebound.example:7880", 403),
        ("127.0.0.1.rebound.example", 403),
        ("localhost.rebound.example", 403),
        ("rebound.example@127.0.0.1", 403),
        ("[rebound.example]", 403),
        ("", 403),
    ],
)
async def test_a_page_whose_name_was_led_here_gets_no_token(
    server: Running, http: httpx.AsyncClient, host: str, status: int
) -> None:
    url = f"{server.http}/demo/token?room=r&identity=i"
    for origin in ({}, {"Origin": f"http://{host}"}):
        answer = await http.get(url, headers={"Host": host} | origin)
        assert answer.status_code == status


async def test_without_dev_nobody_gets_a_token_for_the_asking(http: httpx.AsyncClient) -> None:
    config = Config(keys=KEYS, port=0, bind_addresses=("127.0.0.1",))
    async with running_on(config, PlayedEngine(), PlayedRooms()) as addresses:
        for method in ("GET", "HEAD"):
            answer = await http.request(method, f"http://127.0.0.1:{addresses[0][1]}/demo/token?room=r&identity=i")
            assert answer.status_code == 404


async def test_the_demo_page_is_served(server: Running, http: httpx.AsyncClient) -> None:
    answer = await http.get(server.http + "/demo", follow_redirects=True)
    assert answer.status_code == 200
    assert "text/html" in answer.headers["content-type"]
    assert (await http.get(server.http + "/demo/..%2fserver.py")).status_code == 404


async def test_starting_and_stopping_keep_their_order() -> None:
    calls: list[str] = []
    engine, rooms = PlayedEngine(calls), PlayedRooms(calls=calls)
    async with running_on(CONFIG, engine, rooms):
        assert calls == ["engine start", "rooms start"]
    assert calls == ["engine start", "rooms start", "rooms stop", "engine stop"]


async def test_a_taken_tcp_port_is_one_line_and_starts_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        engine = PlayedEngine()
        with pytest.raises(PortInUse, match=f"127.0.0.1 TCP port {port}: Address already in use"):
            async with running_on(replace(CONFIG, port=port), engine, PlayedRooms()):
                pass
    assert engine.calls == []


async def test_a_port_that_another_process_took_meanwhile_is_one_line_and_stops_everything() -> None:
    with socket.socket() as rival:
        rival.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        rival.bind(("127.0.0.1", 0))
        calls: list[str] = []

        class Rival(PlayedEngine):
            async def start(self) -> None:
                await super().start()
                rival.listen()

        with pytest.raises(PortInUse, match="Address already in use"):
            async with running_on(replace(CONFIG, port=rival.getsockname()[1]), Rival(calls), PlayedRooms(calls=calls)):
                pass
    assert calls == ["engine start", "rooms start", "rooms stop", "engine stop"]


async def test_a_taken_udp_port_is_one_line() -> None:
    engine = PlayedEngine(fails=OSError(98, "Address already in use"))
    with pytest.raises(PortInUse, match="cannot bind UDP port 7882: Address already in use"):
        async with running_on(CONFIG, engine, PlayedRooms()):
            pass


async def test_clients_are_closed_when_the_server_stops() -> None:
    rooms = PlayedRooms()
    async with contextlib.AsyncExitStack() as stack:
        async with running_on(CONFIG, PlayedEngine(), rooms) as addresses:
            url = f"ws://127.0.0.1:{addresses[0][1]}/rtc?access_token={token()}"
            client = await stack.enter_async_context(connect(url))
            await receive(client)
        with pytest.raises(websockets.ConnectionClosed):
            await client.recv()
        assert rooms.sessions[0].ended.is_set()


async def test_a_signal_stops_the_server() -> None:
    announced: asyncio.Future[list[tuple[str, int]]] = asyncio.get_running_loop().create_future()
    rooms = PlayedRooms()
    task = asyncio.create_task(serve(CONFIG, PlayedEngine(), rooms, bind_sockets(CONFIG), announced.set_result))
    await announced
    os.kill(os.getpid(), signal.SIGTERM)
    await task
    assert rooms.calls == ["rooms start", "rooms stop"]


async def test_a_hangup_reads_keys_again_and_keeps_what_cannot_change() -> None:
    rooms, announced = PlayedRooms(), asyncio.Future[list[tuple[str, int]]]()
    fresh: list[Config | Exception] = [
        ConfigError("livekit.yaml:1: unknown key prot"),
        RuntimeError("a bug"),
        replace(CONFIG, keys=hide({"newkey": "secret"}), port=1),
    ]
    read = asyncio.Event()

    def read_again() -> Config:
        read.set()
        if isinstance(following := fresh.pop(0), Exception):
            raise following
        return following

    with capture_logs() as logs:
        serving = serve(CONFIG, PlayedEngine(), rooms, bind_sockets(CONFIG), announced.set_result, read_again)
        task = asyncio.create_task(serving)
        ((address, port),) = await announced
        async with httpx.AsyncClient(base_url=f"http://{address}:{port}") as client:
            while fresh:
                answer = await client.get("/rtc/validate", params={"access_token": token()})
                assert answer.status_code == 200
                read.clear()
                os.kill(os.getpid(), signal.SIGHUP)
                await read.wait()
            answer = await client.get("/rtc/validate", params={"access_token": token()})
        os.kill(os.getpid(), signal.SIGTERM)
        await task
    assert answer.status_code == 401
    (renewed,) = rooms.configs
    assert (list(renewed.keys), renewed.port) == (["newkey"], 0)
    told = [(line["event"], line.get("why") or line.get("changed") or line.get("settings")) for line in logs]
    whys = [why for event, why in told if event.endswith("not read again")]
    assert whys == ["livekit.yaml:1: unknown key prot", "a bug"]
    assert ("the configuration was read again", ("keys",)) in told
    assert ("changed settings that need a new start", ("port",)) in told
