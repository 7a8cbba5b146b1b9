"""signaling/turn/service.py: what clients are told, and who may use the server."""

import asyncio
import queue
import socket
import sys
import time
from collections.abc import Iterator

import pytest

from signaling.config.turn_options import TurnOptions
from signaling.turn import service as module
from signaling.turn.allocation import ports as ports_module
from signaling.turn.allocation.credentials import Credentials
from signaling.turn.service import GUEST_S, TurnService, told_urls
from signaling.turn.thread import Sockets
from signaling.turn.wire.stun_messages import Address
from tests.signaling.support.running_turn import CHANNEL, CHECK, PATIENCE_S, DatagramEnd, bound, until

OPTIONS = TurnOptions(enabled=True, udp_port=3478)
ANN = ("key", "ann")
V4, V6 = bytes((192, 0, 2, 1)), bytes.fromhex("20010db8000000000000000000000001")
EVERYTHING = TurnOptions(
    enabled=True, domain="turn.example.org", udp_port=3478, tcp_port=3479, advertised_tcp_port=80, tls_port=5349
)


class PlayedEngine:
    def __init__(self) -> None:
        self.taken: queue.SimpleQueue[tuple[socket.socket, str, tuple[str, int] | None, str]] = queue.SimpleQueue()

    def media_addresses(self) -> tuple[tuple[str, int], ...]:
        return (("192.0.2.1", 7882), ("192.0.2.9", 7882))

    def take_connection(
        self, connection: socket.socket, client: str = "", peer: tuple[str, int] | None = None, protocol: str = "tcp"
    ) -> None:
        self.taken.put((connection, client, peer, protocol))


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    made = Sockets([bound(socket.SOCK_DGRAM)], [bound(socket.SOCK_STREAM)], [bound(socket.SOCK_STREAM)])
    yield made
    for each in (*made.udp, *made.tcp, *made.tls):
        each.close()


def test_clients_are_told_what_costs_least_first(sockets: Sockets) -> None:
    assert told_urls(EVERYTHING, {4: V4}, sockets) == (
        "turn:192.0.2.1:3478?transport=udp",
        "turn:192.0.2.1:80?transport=tcp",
        "turns:turn.example.org:443?transport=tcp",
    )


def test_a_family_without_a_socket_is_not_told_and_a_shared_port_is(sockets: Sockets) -> None:
    both = {4: V4, 6: V6}
    assert told_urls(EVERYTHING, both, sockets)[:2] == told_urls(EVERYTHING, {4: V4}, sockets)[:2]
    shared = Sockets(udp=sockets.udp)
    assert told_urls(EVERYTHING, both, shared)[1:3] == (
        "turn:192.0.2.1:80?transport=tcp",
        "turn:[2001:db8::1]:80?transport=tcp",
    )


async def test_a_server_that_is_off_serves_nobody() -> None:
    turn = TurnService(TurnOptions())
    assert turn.ice_servers("PA_a", 0.0) == []
    assert not turn.is_told
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert not turn.take(ours, ("192.0.2.7", 1))
    turn.admit("PA_a", "room", ANN)
    turn.expel("PA_a")
    assert turn.drops() == {}
    turn.stop()


async def told(turn: TurnService, sid: str, udp: socket.socket) -> DatagramEnd:
    """A client over UDP with the credentials that the participant with this sid is told."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.settimeout(PATIENCE_S)
    made.connect(udp.getsockname())
    client = DatagramEnd(made)
    (server,) = turn.ice_servers(sid, time.time())
    client.turn.credentials = Credentials(server.username, server.credential)
    return client


async def test_a_participant_reaches_the_media_until_it_leaves(sockets: Sockets) -> None:
    engine, turn = PlayedEngine(), TurnService(OPTIONS, "secret")
    turn.start(engine, sockets, lambda: None)
    client = await told(turn, "PA_a", sockets.udp[0])
    try:
        assert turn.is_told
        assert await asyncio.to_thread(client.allocate) == 401
        turn.admit("PA_a", "room", ANN)
        assert await asyncio.to_thread(client.allocate) == 0
        media = Address(V4, 7882)
        assert await asyncio.to_thread(client.bind, media) == 0
        client.say(CHECK, channel=CHANNEL)
        async with asyncio.timeout(PATIENCE_S):
            while engine.taken.empty():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        connection, host, peer, protocol = engine.taken.get()
        with connection:
            assert connection.recv(100) == len(CHECK).to_bytes(2) + CHECK
            assert (host, protocol) == ("127.0.0.1", "turn_udp")
            assert client.relayed is not None
            assert peer == ("192.0.2.1", client.relayed.port)
            turn.expel("PA_a")
            connection.setblocking(True)
            assert await asyncio.to_thread(connection.recv, 1) == b""
        assert await asyncio.to_thread(client.allocate) == 401
        assert turn.drops()["turn_unauthorized"] == 2
    finally:
        client.socket.close()
        turn.stop()
    assert not turn.is_told


async def test_who_has_not_joined_yet_may_have_allocations_for_a_while(
    sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    turn = TurnService(OPTIONS, "secret", lambda: now[0])
    turn.start(PlayedEngine(), sockets, lambda: None)
    clients = []
    try:
        sid = turn.guest("room", ANN)
        assert turn.guest("room", ANN) == sid
        other = turn.guest("room", ("key", "bob"))
        for each in (sid, other):
            clients.append(await told(turn, each, sockets.udp[0]))
            assert await asyncio.to_thread(clients[-1].allocate) == 0
        assert turn._thread is not None
        thread = turn._thread
        turn.admit("PA_a", "room", ANN)
        now[0] += GUEST_S
        turn.tick()
        await asyncio.to_thread(until, lambda: thread.allocations() == 1)
        turn.expel("PA_a")
        await asyncio.to_thread(until, lambda: thread.allocations() == 0)
        assert turn.guest("room", ANN) != sid
        monkeypatch.setattr(module, "MAX_GUESTS", 3)
        assert len({turn.guest("room", ("key", str(number))) for number in range(10)}) == 10
        assert len(turn._guests) == 3
    finally:
        for client in clients:
            client.socket.close()
        turn.stop()


async def test_a_token_for_any_room_uses_up_its_own_share_only(
    sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_GUESTS_OF_OWNER", 2)
    monkeypatch.setattr(ports_module, "MAX_OF_OWNER", 2)
    turn = TurnService(OPTIONS, "secret")
    turn.start(PlayedEngine(), sockets, lambda: None)
    clients = []
    try:
        bob = turn.guest("room", ("key", "bob"))
        for number in range(10):
            turn.guest(f"room {number}", ANN)
        assert [room for room, owner in turn._guests if owner == ANN] == ["room 8", "room 9"]
        assert turn.guest("room", ("key", "bob")) == bob
        for number in range(3):
            turn.admit(f"PA_{number}", f"room {number}", ANN)
            clients.append(await told(turn, f"PA_{number}", sockets.udp[0]))
        assert [await asyncio.to_thread(each.allocate) for each in clients] == [0, 0, 486]
        clients.append(await told(turn, bob, sockets.udp[0]))
        assert await asyncio.to_thread(clients[-1].allocate) == 0
    finally:
        for client in clients:
            client.socket.close()
        turn.stop()


async def test_a_secret_of_another_api_key_makes_other_passwords(sockets: Sockets) -> None:
    first, second = (TurnService(OPTIONS, secret) for secret in ("one", "two"))
    for each in (first, second):
        each._urls = ("turn:x",)
    a, b = (each.ice_servers("PA_a", 0.0)[0] for each in (first, second))
    assert a.username == b.username == "300:PA_a"
    assert a.credential != b.credential
    assert "one" not in a.credential


async def test_the_thread_need_not_wait_long_for_the_interpreter_while_it_runs(sockets: Sockets) -> None:
    before = sys.getswitchinterval()
    turn = TurnService(OPTIONS, "secret")
    turn.stop()
    assert sys.getswitchinterval() == before
    turn.start(PlayedEngine(), sockets, lambda: None)
    assert sys.getswitchinterval() == pytest.approx(module.SWITCH_S)
    turn.stop()
    assert sys.getswitchinterval() == before
