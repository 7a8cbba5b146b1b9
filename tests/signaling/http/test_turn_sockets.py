"""TURN beside HTTP: on the main port, with TLS and without, on ports of its own, and what is refused at the start."""

import asyncio
import queue
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from signaling.config.configuration import Config
from signaling.config.document import ConfigError
from signaling.config.options import TlsOptions
from signaling.config.turn_options import TurnOptions
from signaling.http.sockets import PortInUse
from signaling.http.turn_sockets import bind_turn_sockets, check_turn, turn_certificate
from signaling.turn.allocation.credentials import Credentials
from signaling.turn.service import TurnService
from signaling.turn.wire.stun_messages import Address
from tests.signaling.http.test_server import CONFIG, PlayedEngine, PlayedRooms, running_on
from tests.signaling.support.authority import Authority
from tests.signaling.support.doorstep import REQUEST
from tests.signaling.support.running_turn import CHECK, PATIENCE_S, Handed, StreamEnd, bound
from tests.signaling.support.taken_ports import taken_on_ipv6

MEDIA = Address(bytes((192, 0, 2, 1)), 7882)
SID = "PA_ann"
Way = tuple[Callable[[], object], Callable[[], bytes]]


@dataclass
class KeepingEngine(PlayedEngine):
    """Keeps the connections that it is given."""

    handed: "queue.SimpleQueue[Handed]" = field(default_factory=queue.SimpleQueue)

    def take_connection(
        self, connection: socket.socket, client: str = "", peer: tuple[str, int] | None = None, protocol: str = "tcp"
    ) -> None:
        assert peer is not None
        connection.settimeout(PATIENCE_S)
        origin, relayed = (Address(socket.inet_aton(host), port) for host, port in ((client, 0), peer))
        self.handed.put(Handed(connection, origin, relayed, protocol))


def free_port() -> int:
    with bound(socket.SOCK_STREAM) as probe:
        return int(probe.getsockname()[1])


@dataclass
class Place:
    config: Config
    rooms: PlayedRooms
    engine: KeepingEngine
    port: int

    def reach_media(self, connection: socket.socket) -> tuple[StreamEnd, Handed]:
        """Have a client allocate and bind a channel; return it, and what the engine got."""
        client = StreamEnd(connection)
        (server,) = self.rooms.turn.ice_servers(SID, time.time())
        client.turn.credentials = Credentials(server.username, server.credential)
        assert client.allocate() == 0
        assert client.bind(MEDIA) == 0
        client.say(CHECK)
        return client, self.engine.handed.get(timeout=PATIENCE_S)

    async def talk(self, port: int, wrap: Callable[[socket.socket], socket.socket] | None = None) -> str:
        """Have a client allocate, and pass packets both ways; return what statistics call its way."""
        return await asyncio.to_thread(self._talk, port, wrap)

    def _talk(self, port: int, wrap: Callable[[socket.socket], socket.socket] | None) -> str:
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as plain:
            connection = wrap(plain) if wrap is not None else plain
            with connection:
                client, engine = self.reach_media(connection)
                with engine.socket:
                    assert engine.frame() == CHECK
                    assert engine.relayed == client.relayed
                    packets = [bytes(1000)] * 200
                    client.say(*packets)
                    assert [engine.frame() for _ in packets] == packets
                    engine.send(*packets[:10])
                    assert [client.heard() for _ in packets[:10]] == packets[:10]
                    return engine.way


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def secure(authority: Authority) -> Callable[[socket.socket], socket.socket]:
    trusting = authority.client_context()

    def wrap(plain: socket.socket) -> socket.socket:
        return trusting.wrap_socket(plain, server_hostname="127.0.0.1")

    return wrap


@pytest.fixture
async def place(authority: Authority, tmp_path: Path) -> AsyncIterator[Place]:
    options = TurnOptions(
        enabled=True,
        domain="turn.example.org",
        udp_port=free_port(),
        tcp_port=free_port(),
        tls_port=free_port(),
        bind=("127.0.0.1",),
    )
    config = replace(CONFIG, tls=authority.write(tmp_path), turn=options)
    rooms, engine = PlayedRooms(turn=TurnService(options, "secret")), KeepingEngine()
    async with AsyncExitStack() as stack:
        addresses = await stack.enter_async_context(running_on(config, engine, rooms))
        rooms.turn.admit(SID, "room", ("key", "ann"))
        yield Place(config, rooms, engine, addresses[0][1])


async def test_turn_comes_to_the_main_port_and_to_its_own(
    place: Place, secure: Callable[[socket.socket], socket.socket]
) -> None:
    assert await place.talk(place.port) == "turn_tcp"
    assert await place.talk(place.port, secure) == "turn_tls"
    assert await place.talk(place.config.turn.tcp_port) == "turn_tcp"
    assert await place.talk(place.config.turn.tls_port, secure) == "turn_tls"
    assert {reason: count for reason, count in place.rooms.turn.drops().items() if count} == {}


async def test_http_goes_on_beside_it(place: Place, authority: Authority) -> None:
    for context in (None, authority.client_context()):
        reader, writer = await asyncio.open_connection("127.0.0.1", place.port, ssl=context)
        writer.write(REQUEST)
        assert (await reader.read(100)).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_inside_of_tls_nothing_is_kept_without_bound(
    place: Place, secure: Callable[[socket.socket], socket.socket]
) -> None:
    """A client that takes nothing lets the engine wait, and an engine that takes nothing the client."""

    def stall() -> None:
        with socket.create_connection(("127.0.0.1", place.port), PATIENCE_S) as plain, secure(plain) as connection:
            client, engine = place.reach_media(connection)
            with engine.socket:
                down: Way = (lambda: engine.send(bytes(1000)), client.heard)
                up: Way = (lambda: client.say(bytes(1000)), engine.frame)
                for send, receive in (down, up):
                    for each in (engine.socket, connection):
                        each.settimeout(0.5)
                    sent = 0
                    while sent < 50_000:
                        try:
                            send()
                        except TimeoutError:
                            break
                        sent += 1
                    assert sent < 50_000
                    for each in (engine.socket, connection):
                        each.settimeout(PATIENCE_S)
                    if receive == engine.frame:
                        assert engine.frame() == CHECK
                    for _ in range(sent if receive == client.heard else sent - 1):
                        assert receive() == bytes(1000)

    await asyncio.to_thread(stall)


async def test_inside_of_tls_the_event_loop_has_no_part_in_packets(
    place: Place, secure: Callable[[socket.socket], socket.socket]
) -> None:
    with socket.create_connection(("127.0.0.1", place.port), PATIENCE_S) as plain:
        connection = await asyncio.to_thread(secure, plain)
        with connection:
            client, engine = await asyncio.to_thread(place.reach_media, connection)
            with engine.socket:
                assert await asyncio.to_thread(engine.frame) == CHECK
                # From here on the event loop stands still, as the test does not give it back.
                client.say(bytes(1000))
                assert engine.frame() == bytes(1000)
                engine.send(bytes(500))
                assert client.heard() == bytes(500)


async def test_connections_inside_of_tls_end_with_either_side(
    place: Place, secure: Callable[[socket.socket], socket.socket]
) -> None:
    def end_both_ways() -> None:
        with socket.create_connection(("127.0.0.1", place.port), PATIENCE_S) as plain, secure(plain) as connection:
            connection.sendall(b"\0\1\0\0\x21\x12\xa4\x42" + bytes(12))
            assert connection.recv(100)
            connection.sendall(b"\xff" * 100)
            assert StreamEnd(connection).ended()
        with socket.create_connection(("127.0.0.1", place.port), PATIENCE_S) as plain, secure(plain) as connection:
            client = StreamEnd(connection)
            (server,) = place.rooms.turn.ice_servers(SID, time.time())
            client.turn.credentials = Credentials(server.username, server.credential)
            assert client.allocate() == 0

    await asyncio.to_thread(end_both_ways)
    thread = place.rooms.turn._thread
    assert thread is not None
    async with asyncio.timeout(PATIENCE_S):
        while thread.allocations() or len(thread._connections):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_which_certificate_the_turn_server_has(authority: Authority, tmp_path: Path) -> None:
    files = authority.write(tmp_path)
    options = TurnOptions(enabled=True, domain="d", tls_port=5349)
    assert turn_certificate(replace(CONFIG, turn=options)) is None
    assert turn_certificate(replace(CONFIG, turn=options, tls=files)) == files
    assert turn_certificate(replace(CONFIG, turn=replace(options, tls=files))) == files
    assert turn_certificate(replace(CONFIG, turn=replace(options, tls=files, external_tls=True))) is None
    assert turn_certificate(replace(CONFIG, turn=replace(options, tls=files, tls_port=443), port=443)) is None


def test_what_is_wrong_is_known_before_anything_slow(authority: Authority, tmp_path: Path) -> None:
    options = TurnOptions(enabled=True, domain="d", tls_port=free_port(), bind=("127.0.0.1",))
    config = replace(CONFIG, turn=options)
    with pytest.raises(ConfigError, match=r"turn\.tls_port needs external_tls, or a certificate"):
        check_turn(config)
    with pytest.raises(ConfigError, match=r"turn\.tls_port needs external_tls, or a certificate"):
        check_turn(replace(config, port=443, turn=replace(options, tls_port=443, tls=authority.write(tmp_path))))
    with pytest.raises(ConfigError, match="No such file"):
        check_turn(replace(config, turn=replace(options, tls=TlsOptions("/none", "/none"))))
    config = replace(config, tls=authority.write(tmp_path))
    check_turn(config)
    with bound(socket.SOCK_STREAM) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=f"turn: cannot listen on 127.0.0.1 TCP port {port}: Address already"):
            check_turn(replace(config, turn=replace(options, tls_port=port)))


def test_a_port_that_is_taken_for_ipv6_alone_is_an_error_too() -> None:
    with taken_on_ipv6(socket.SOCK_DGRAM) as port:
        text = f"turn: cannot listen on :: UDP port {port}: Address already in use"
        with pytest.raises(PortInUse, match=text):
            check_turn(replace(CONFIG, turn=TurnOptions(enabled=True, udp_port=port)))


def test_behind_a_load_balancer_that_ends_tls_its_port_is_plain() -> None:
    options = TurnOptions(enabled=True, domain="d", tls_port=free_port(), external_tls=True, bind=("127.0.0.1",))
    sockets = bind_turn_sockets(replace(CONFIG, turn=options))
    assert [len(each) for each in (sockets.udp, sockets.tcp, sockets.tls)] == [0, 1, 0]
    for each in sockets.tcp:
        each.close()


def test_a_port_that_is_shared_with_http_is_not_bound_again() -> None:
    options = TurnOptions(enabled=True, domain="d", tls_port=443, tcp_port=443, bind=("127.0.0.1",))
    sockets = bind_turn_sockets(replace(CONFIG, port=443, turn=options))
    assert [*sockets.udp, *sockets.tcp, *sockets.tls] == []
