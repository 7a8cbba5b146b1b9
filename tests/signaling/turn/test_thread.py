"""signaling/turn/thread.py and below: clients over TCP, TLS and UDP, their paths to the media, and what ends them."""

import socket
import struct
import time
from collections.abc import Callable

import pytest

from signaling.turn.allocation.allowances import NetworkAllowances
from signaling.turn.net import clients, connections, streams
from signaling.turn.wire.framing import MAX_PAYLOAD_BYTES
from signaling.turn.wire.stun_messages import Address, Attribute, Method
from tests.signaling.support.authority import Authority
from tests.signaling.support.running_turn import (
    CHANNEL,
    CHECK,
    MEDIA,
    MEDIA2,
    End,
    RunningTurn,
    running_turn,
    until,
    until_it_waits,
)
from tests.signaling.support.turn_client import code


def test_packets_go_both_ways_in_a_channel(turn: RunningTurn, client: End) -> None:
    assert client.allocate() == 0
    assert client.bind() == 0
    client.say(CHECK)
    engine = turn.engine()
    assert engine.relayed == client.relayed
    assert engine.client.port == client.socket.getsockname()[1]
    assert engine.frame() == CHECK
    packets = [bytes([size % 251]) * size for size in (1, 2, 3, 4, 5, 1200, MAX_PAYLOAD_BYTES)]
    for sizes in (packets, packets[::-1]):
        client.say(*sizes)
        assert [engine.frame() for _ in sizes] == sizes
        engine.send(*sizes)
        assert [client.heard() for _ in sizes] == sizes
    assert turn.counts() == {}


def test_packets_go_both_ways_without_a_channel(turn: RunningTurn, client: End) -> None:
    assert client.allocate() == 0
    assert client.permit() == 0
    client.indicate(CHECK)
    engine = turn.engine()
    assert engine.frame() == CHECK
    client.indicate(b"media")
    assert engine.frame() == b"media"
    engine.send(b"answer", b"more")
    assert [client.indicated() for _ in range(2)] == [(MEDIA, b"answer"), (MEDIA, b"more")]
    assert client.bind() == 0
    engine.send(b"in the channel")
    assert client.heard() == b"in the channel"


def test_each_peer_has_a_path(turn: RunningTurn, client: End) -> None:
    assert client.allocate() == 0
    assert client.bind(MEDIA) == 0
    assert client.bind(MEDIA2, CHANNEL + 1) == 0
    client.say(CHECK)
    first = turn.engine()
    client.say(CHECK, channel=CHANNEL + 1)
    second = turn.engine()
    client.say(b"two", channel=CHANNEL + 1)
    client.say(b"one")
    assert [first.frame(), first.frame()] == [CHECK, b"one"]
    assert [second.frame(), second.frame()] == [CHECK, b"two"]
    assert first.relayed == second.relayed


def test_a_path_begins_with_a_check(turn: RunningTurn, client: End) -> None:
    assert client.allocate() == 0
    client.say(CHECK)
    until(lambda: turn.counts() == {"turn_forbidden": 1})
    assert client.bind() == 0
    client.say(b"\x16\xfe\xfd")
    until(lambda: turn.counts() == {"turn_forbidden": 1, "turn_early": 1})
    client.say(CHECK)
    assert turn.engine().frame() == CHECK


def test_a_path_that_the_engine_closes_can_be_opened_again(turn: RunningTurn, client: End) -> None:
    assert client.allocate() == 0
    assert client.bind() == 0
    client.say(CHECK)
    turn.engine().socket.close()
    until(lambda: not next(iter(turn.thread._allocations)).flow.paths)  # type: ignore[attr-defined]
    client.say(CHECK)
    assert turn.engine().frame() == CHECK


def test_paths_that_are_refused_again_and_again_are_bounded(
    turn: RunningTurn, client: End, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "PATHS_AT_ONCE", 2.0)
    monkeypatch.setattr(clients, "PATHS_PER_S", 0.0)
    with turn.over_tcp() as late:
        assert late.allocate() == 0
        assert late.bind() == 0
        for _ in range(2):
            late.say(CHECK)
            turn.engine().socket.close()
            until(lambda: not next(iter(turn.thread._allocations)).flow.paths)  # type: ignore[attr-defined]
        late.say(CHECK)
        until(lambda: turn.counts() == {"turn_paths": 1})


def test_paths_of_a_client_are_bounded(turn: RunningTurn, client: End, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "MAX_PATHS", 1)
    assert client.allocate() == 0
    assert client.permit() == 0
    client.indicate(CHECK, MEDIA)
    assert turn.engine().frame() == CHECK
    client.indicate(CHECK, MEDIA2)
    until(lambda: turn.counts() == {"turn_paths": 1})


def test_everything_ends_with_the_participant(turn: RunningTurn, client: End) -> None:
    assert client.allocate() == 0
    assert client.bind() == 0
    client.say(CHECK)
    engine = turn.engine()
    turn.thread.expel("PA_ann")
    engine.frame()
    assert engine.socket.recv(1) == b""
    until(lambda: turn.thread.allocations() == 0)
    client.say(b"more")
    until(lambda: turn.counts() == {"turn_forbidden": 1})
    assert code(client.ask(client.turn.request(Method.REFRESH))) == 401


def test_everything_ends_with_the_connection(turn: RunningTurn, over_tcp: End) -> None:
    assert over_tcp.allocate() == 0
    assert over_tcp.bind() == 0
    over_tcp.say(CHECK)
    engine = turn.engine()
    over_tcp.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    over_tcp.socket.close()
    engine.frame()
    assert engine.socket.recv(1) == b""
    until(lambda: turn.thread.allocations() == 0)
    until(lambda: len(turn.thread._connections) == 0)


def test_paths_end_with_their_permission(turn: RunningTurn, client: End) -> None:
    assert client.allocate() == 0
    assert client.bind() == 0
    client.say(CHECK)
    engine = turn.engine()
    (allocation,) = turn.thread._allocations
    allocation.permissions.update(dict.fromkeys(allocation.permissions, 0.0))
    engine.frame()
    assert engine.socket.recv(1) == b""
    assert client.permit() == 0
    client.say(CHECK)
    assert turn.engine().frame() == CHECK


def test_a_client_that_takes_nothing_fills_the_way_of_the_media_and_nothing_else(
    turn: RunningTurn, over_tcp: End
) -> None:
    assert over_tcp.allocate() == 0
    assert over_tcp.bind() == 0
    over_tcp.say(CHECK)
    engine = turn.engine()
    engine.socket.settimeout(0.3)
    packet = bytes(1200)
    sent = until_it_waits(lambda number: engine.send(packet))
    assert sent < 8000  # what the sockets between us hold
    (client,) = turn.thread._connections._all
    assert len(client._unsent) < streams.MAX_UNSENT_BYTES
    with turn.over_tcp() as other:
        assert other.allocate() == 0
    engine.socket.settimeout(10)
    assert [over_tcp.heard() for _ in range(sent)] == [packet] * sent


def test_a_media_thread_that_takes_nothing_lets_the_client_wait(turn: RunningTurn, over_tcp: End) -> None:
    assert over_tcp.allocate() == 0
    assert over_tcp.bind() == 0
    over_tcp.say(CHECK)
    engine = turn.engine()
    over_tcp.socket.settimeout(0.3)
    sent = until_it_waits(lambda number: over_tcp.say(number.to_bytes(4) * 300))
    with turn.over_tcp() as other:
        assert other.allocate() == 0
    assert engine.frame() == CHECK
    assert [engine.frame()[:4] for _ in range(sent)] == [number.to_bytes(4) for number in range(sent)]
    assert turn.counts() == {}


def test_a_media_thread_that_takes_nothing_loses_datagrams(turn: RunningTurn) -> None:
    with turn.over_udp() as client:
        assert client.allocate() == 0
        assert client.bind() == 0
        client.say(CHECK)
        engine = turn.engine()
        for _ in range(1000):
            client.say(bytes(1000))
            if turn.counts():
                break
        until(lambda: turn.counts().keys() == {"turn_backed_up"})
        assert engine.frame() == CHECK
        engine.socket.settimeout(0.3)
        assert until_it_waits(lambda number: engine.frame()) < 1000
        client.say(b"again")
        assert engine.frame() == b"again"


@pytest.mark.parametrize("piece", [1, 3, 7])
def test_a_stream_may_come_in_pieces(turn: RunningTurn, over_tcp: End, piece: int) -> None:
    assert over_tcp.allocate() == 0
    assert over_tcp.bind() == 0
    over_tcp.say(CHECK)
    engine = turn.engine()
    assert engine.frame() == CHECK
    over_tcp.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    packets = [b"a", b"bc" * 20, b"d" * 33]
    data = b"".join(CHANNEL.to_bytes(2) + len(each).to_bytes(2) + each + bytes(-len(each) % 4) for each in packets)
    data += over_tcp.turn.request(Method.REFRESH)
    for at in range(0, len(data), piece):
        over_tcp.send(data[at : at + piece])
        time.sleep(0.0005)
    assert [engine.frame() for _ in packets] == packets
    assert code(over_tcp.turn.heard(over_tcp.receive())) == 0


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x00\x05hello",
        b"\x40\0\xff\xff",
        b"\0\1\xff\xff",
        b"\xff" * 100,
    ],
)
def test_what_is_no_turn_ends_a_connection(turn: RunningTurn, over_tcp: End, said: bytes) -> None:
    over_tcp.send(said)
    assert over_tcp.ended()
    assert turn.counts() == {"turn_malformed": 1}


@pytest.mark.parametrize("said", [b"", b"\x40\0\0", b"\xff" * 50, b"\x40\0\0\x09abc", b"\x40\0\0\0", b"\0\1"])
def test_datagrams_that_are_no_turn_are_dropped(turn: RunningTurn, said: bytes) -> None:
    with turn.over_udp() as client:
        assert client.allocate() == 0
        client.send(said)
        until(lambda: turn.counts() == {"turn_malformed": 1})
        assert client.bind() == 0


@pytest.mark.parametrize("said", [b"", b"\0", b"\0\3\0\x08\x21\x12\xa4\x42half a request"])
@pytest.mark.parametrize("secured", [False, True])
def test_who_has_no_allocation_is_closed_after_a_while(
    turn: RunningTurn,
    secure: Callable[[socket.socket], socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    said: bytes,
    secured: bool,
) -> None:
    monkeypatch.setattr(streams, "WITHOUT_ALLOCATION_S", 0.2)
    with turn.over_tcp(*((secure,) if secured else ())) as slow, turn.over_tcp() as good:
        assert good.allocate() == 0
        if said:
            slow.send(said)
        assert slow.ended()
        assert turn.counts() == {"turn_late": 1}
        assert good.bind() == 0
        assert code(good.ask(good.turn.request(Method.REFRESH, (Attribute.LIFETIME, bytes(4))))) == 0
        assert good.ended()


def test_half_a_handshake_is_closed_after_a_while(turn: RunningTurn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "WITHOUT_ALLOCATION_S", 0.2)
    with socket.create_connection(turn.tls, 10) as half:
        half.sendall(b"\x16\x03\x01\x02\x00\x01")
        assert half.recv(100) == b""
    assert turn.counts() == {"turn_late": 1}


@pytest.mark.parametrize("said", [b"\0\3\0\0\x21\x12\xa4\x42" + bytes(99), b"GET / HTTP/1.1\r\n\r\n", b"\x16" * 300])
def test_garbage_in_place_of_tls_is_closed(turn: RunningTurn, said: bytes) -> None:
    with socket.create_connection(turn.tls, 10) as garbage:
        garbage.sendall(said)
        End(garbage).ended()
    assert turn.counts() == {"turn_tls_failed": 1}


def test_garbage_inside_of_tls_is_closed(turn: RunningTurn, secure: Callable[[socket.socket], socket.socket]) -> None:
    with turn.over_tcp(secure) as client:
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        assert client.ended()
    assert turn.counts() == {"turn_malformed": 1}


def test_without_a_certificate_there_is_no_tls() -> None:
    with running_turn() as turn, socket.create_connection(turn.tls, 10) as client:
        End(client).ended()
        assert turn.counts() == {"turn_tls_failed": 1}


def test_one_network_does_not_keep_others_out(turn: RunningTurn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_STRANGERS_OF_NETWORK", 3)
    with turn.over_tcp() as settled:
        assert settled.allocate() == 0
        silent = [socket.create_connection(turn.tcp, 10) for _ in range(3)]
        until(lambda: len(turn.thread._connections) == 4)
        with turn.over_tcp() as newest:
            assert newest.allocate() == 0
            assert silent[0].recv(1) == b""
        assert settled.bind() == 0
        for each in silent:
            each.close()
    assert turn.counts() == {"turn_connections": 1}


def test_connections_are_bounded_in_all(turn: RunningTurn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 1)
    with turn.over_tcp() as first:
        assert first.allocate() == 0
        with turn.over_tcp() as second:
            assert second.ended()
        assert first.bind() == 0
    assert turn.counts() == {"turn_connections": 1}


def test_connections_that_come_one_after_the_other_are_bounded(
    turn: RunningTurn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn.thread._connections, "_arrivals", NetworkAllowances(0.0, 2.0))
    for _ in range(2):
        with turn.over_tcp() as client:
            assert client.allocate() == 0
    with turn.over_tcp() as third:
        assert third.ended()
    assert turn.counts() == {"turn_connections": 1}


def test_who_does_not_read_answers_is_closed(turn: RunningTurn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_UNSENT_BYTES", 1000)
    with socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        made.settimeout(10)
        made.connect(turn.tcp)
        client = End(made)
        request = client.turn.unsigned(Method.BINDING)
        try:
            for _ in range(2000):
                client.send(request)
        except OSError:
            pass
        until(lambda: turn.counts().get("turn_unread") == 1)


def test_a_lack_of_descriptors_is_waited_out(turn: RunningTurn) -> None:
    (listener, _) = turn.thread._listeners
    failing = [True]

    class Exhausted(socket.socket):
        def accept(self) -> tuple[socket.socket, object]:
            if failing.pop() if failing else False:
                raise OSError(24, "Too many open files")
            return super().accept()

    listener._socket = Exhausted(fileno=listener._socket.detach())
    with turn.over_tcp() as client:
        assert client.allocate() == 0
    assert turn.counts() == {"turn_connections": 1}


def test_an_error_ends_one_client_alone(turn: RunningTurn, monkeypatch: pytest.MonkeyPatch) -> None:
    with turn.over_tcp() as unlucky, turn.over_tcp() as other:
        assert other.allocate() == 0
        monkeypatch.setattr(turn.thread._allocations, "receive", lambda *arguments: 1 // 0)
        unlucky.send(unlucky.turn.unsigned(Method.BINDING))
        assert unlucky.ended()
        monkeypatch.undo()
        assert other.bind() == 0


def test_addresses_of_ipv6_are_told(authority: Authority) -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    six.bind(("::1", 0))
    with running_turn() as turn:
        from signaling.turn.net.datagrams import DatagramServer

        DatagramServer(turn.thread._common, turn.thread._allocations, six)
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as made:
            made.settimeout(10)
            made.connect(six.getsockname())
            client = End(made)
            client.send(client.turn.unsigned(Method.BINDING))
            from tests.signaling.support.turn_client import address_of

            told = address_of(client.turn.heard(made.recv(1000)), Attribute.XOR_MAPPED_ADDRESS)
            assert told == Address(bytes(15) + b"\1", made.getsockname()[1])


def test_an_error_ends_no_socket_that_serves_others(turn: RunningTurn, monkeypatch: pytest.MonkeyPatch) -> None:
    with turn.over_udp() as unlucky, turn.over_udp() as other:
        assert other.allocate() == 0
        monkeypatch.setattr(turn.thread._allocations, "receive", lambda *arguments: 1 // 0)
        unlucky.send(unlucky.turn.unsigned(Method.BINDING))
        monkeypatch.setattr(connections, "StreamClient", lambda *arguments: 1 // 0)
        with turn.over_tcp() as refused:
            assert refused.ended()
        monkeypatch.undo()
        assert other.bind() == 0
    with turn.over_tcp() as next_one:
        assert next_one.allocate() == 0


def test_a_packet_that_is_too_long_for_the_media_is_dropped(turn: RunningTurn, client: End) -> None:
    assert client.allocate() == 0
    assert client.permit() == 0
    client.indicate(CHECK)
    engine = turn.engine()
    assert engine.frame() == CHECK
    client.indicate(bytes(MAX_PAYLOAD_BYTES + 1))
    client.indicate(bytes(MAX_PAYLOAD_BYTES))
    assert engine.frame() == bytes(MAX_PAYLOAD_BYTES)
    assert turn.counts() == {"turn_malformed": 1}
