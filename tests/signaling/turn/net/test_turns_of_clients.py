"""signaling/turn/net/streams.py and below: what one client costs the others, and what it leaves when it ends."""

import contextlib
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from signaling.turn.allocation.records import Flow
from signaling.turn.net import poller
from signaling.turn.net.paths import READ_BYTES, Buffer
from signaling.turn.net.streams import ENCRYPTED_BYTES, STRANGERS_BYTES, StreamClient
from signaling.turn.net.tls import TlsEnd
from signaling.turn.wire import framing
from signaling.turn.wire.framing import RUNS_AT_ONCE
from signaling.turn.wire.stun_messages import Address, Kind, Method, build
from tests.signaling.support.authority import Authority
from tests.signaling.support.running_turn import (
    CHECK,
    End,
    RunningTurn,
    until,
    until_it_waits,
)
from tests.signaling.support.turn_client import allocate, code, send_indication


@contextlib.contextmanager
def held(turn: RunningTurn) -> Iterator[None]:
    """Let the thread serve nobody meanwhile, so that everything has come when it goes on."""
    begun, free = threading.Event(), threading.Event()
    turn.thread._poller.call(begun.set)
    turn.thread._poller.call(lambda: free.wait(10))
    begun.wait(10)
    try:
        yield
    finally:
        free.set()


def test_a_flood_of_one_client_lets_others_have_their_turn(turn: RunningTurn, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[int] = []
    receive = turn.thread._allocations.receive

    def noting(flow: Flow, data: bytes, now: float) -> object:
        heard.append(flow.client.port)
        return receive(flow, data, now)

    monkeypatch.setattr(turn.thread._allocations, "receive", noting)
    with turn.over_tcp() as flooding, turn.over_tcp() as other:
        assert flooding.allocate() == other.allocate() == 0
        heard.clear()
        with held(turn):
            flooding.send(send_indication(Address(bytes(4), 1), b"") * 1000)
            other.send(other.turn.request(Method.REFRESH))
        assert code(other.turn.heard(other.receive())) == 0
        until(lambda: len(heard) == 1001)
        assert heard.index(other.socket.getsockname()[1]) <= 2 * RUNS_AT_ONCE
        assert turn.counts() == {"turn_forbidden": 1000}
        assert flooding.bind() == 0


def test_handshakes_wait_for_everybody_else(
    turn: RunningTurn, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller, "LATER_S", 0.0)
    order: list[str] = []
    receive, shake = turn.thread._allocations.receive, TlsEnd.receive

    def shaking(end: TlsEnd, data: memoryview) -> bytes:
        order.append("handshake")
        return shake(end, data)

    def receiving(flow: Flow, data: bytes, now: float) -> object:
        order.append("request")
        return receive(flow, data, now)

    monkeypatch.setattr(TlsEnd, "receive", shaking)
    incoming, hello = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        authority.client_context().wrap_bio(incoming, hello, server_hostname="127.0.0.1").do_handshake()
    first = hello.read()
    with turn.over_tcp() as other, contextlib.ExitStack() as stack:
        assert other.allocate() == 0
        connecting = [stack.enter_context(socket.create_connection(turn.tls, 10)) for _ in range(20)]
        until(lambda: len(turn.thread._connections) == 21)
        monkeypatch.setattr(turn.thread._allocations, "receive", receiving)
        with held(turn):
            for each in connecting:
                each.sendall(first)
            other.send(other.turn.request(Method.REFRESH))
        assert code(other.turn.heard(other.receive())) == 0
        for each in connecting:
            assert each.recv(1) == b"\x16"
        assert order.count("handshake") == 20
        assert order.index("request") <= 2


def test_what_waits_for_its_turn_can_wait_for_the_media_too(
    turn: RunningTurn, over_tcp: End, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(framing, "PACKETS_AT_ONCE", 2)
    assert over_tcp.allocate() == 0
    assert over_tcp.bind() == 0
    over_tcp.say(CHECK)
    engine = turn.engine()
    assert engine.frame() == CHECK
    over_tcp.socket.settimeout(0.3)
    sent = until_it_waits(lambda number: over_tcp.say(*[number.to_bytes(4) * 250] * 5))
    over_tcp.socket.settimeout(10)
    for number in range(sent):
        assert [engine.frame()[:4] for _ in range(5)] == [number.to_bytes(4)] * 5
    assert turn.counts() == {}


def test_a_connection_that_has_ended_makes_no_allocation(
    turn: RunningTurn, authority: Authority, over_tcp: End, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end is noticed when the handshake is answered, and an Allocate came together with its last part."""
    assert code(over_tcp.ask(over_tcp.turn.unsigned(Method.ALLOCATE, *allocate()))) == 401
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    end = authority.client_context().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with socket.create_connection(turn.tls, 10) as connection:
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
        connection.sendall(outgoing.read())
        while True:
            incoming.write(connection.recv(65536))
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
                break
        end.write(over_tcp.turn.request(Method.ALLOCATE, *allocate()))
        monkeypatch.setattr(StreamClient, "_write", lambda client, data: client.close())
        connection.sendall(outgoing.read())
        assert End(connection).ended()
    with held(turn):
        assert turn.thread.allocations() == 0


@pytest.mark.parametrize("secured", [False, True])
def test_little_is_read_at_once_of_who_has_no_allocation(
    turn: RunningTurn,
    secure: Callable[[socket.socket], socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    secured: bool,
) -> None:
    sizes: list[int] = []
    read = Buffer.read

    def noting(buffer: Buffer, source: socket.socket, rest: bytes, most: int = READ_BYTES) -> memoryview | None:
        data = read(buffer, source, rest, most)
        sizes.append(len(data or b"") - len(rest))
        return data

    said = build(Method.BINDING, Kind.INDICATION, bytes(12)) * 1000
    with turn.over_tcp(*((secure,) if secured else ())) as client:
        assert code(client.ask(client.turn.unsigned(Method.BINDING))) == 0
        monkeypatch.setattr(Buffer, "read", noting)
        with held(turn):
            client.send(said)
        until(lambda: sum(sizes) >= len(said))
        assert max(sizes) == STRANGERS_BYTES
        assert client.allocate() == 0
        sizes.clear()
        with held(turn):
            client.send(said)
        until(lambda: sum(sizes) >= len(said))
        assert STRANGERS_BYTES < max(sizes) <= (ENCRYPTED_BYTES if secured else READ_BYTES)
        assert client.bind() == 0


def test_a_datagram_is_its_clients_by_whichever_interface_it_comes(turn: RunningTurn) -> None:
    (server,) = turn.thread._datagrams
    with turn.over_udp() as client:
        assert client.allocate() == 0
        assert client.bind() == 0
        with held(turn):
            ((address, local),) = server._clients
            for interface in (1, 2):
                info = interface.to_bytes(4, sys.byteorder) + bytes(4) + local
                server._take(build(Method.BINDING, Kind.INDICATION, bytes(12)), [(0, 8, info)], address, 0.0)
                server._take(b"\x40\0\0\1a\0\0\0", [(0, 8, info)], address, 0.0)
            assert len(server._clients) == 1
        assert client.bind() == 0
    assert turn.counts() == {"turn_early": 2}


def test_who_is_admitted_before_its_request_comes_is_known_then(
    turn: RunningTurn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a datagram is served a participant joins, and sends one that is read in the same turn."""
    server, order = turn.thread._datagrams[0], list[str]()
    take = server._take

    with turn.over_udp() as first, turn.over_udp() as other:

        def noting(*arguments: Any) -> None:
            order.append("request")
            if len(order) == 1:
                turn.thread._poller.call(lambda: order.append("admitted"))
                other.send(other.turn.unsigned(Method.BINDING))
            take(*arguments)

        monkeypatch.setattr(server, "_take", noting)
        first.send(first.turn.unsigned(Method.BINDING))
        other.receive()
    assert order == ["request", "admitted", "request"]
