"""A TURN thread with real sockets on loopback, whose engine is the test; and clients that speak to it and wait."""

import contextlib
import queue
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from signaling.turn.allocation.credentials import make_credentials
from signaling.turn.allocation.records import Rules
from signaling.turn.net.tls import TlsContext
from signaling.turn.service import COUNTERS
from signaling.turn.thread import Sockets, TurnThread
from signaling.turn.wire.stun_messages import Address, Attribute, Message, Method, parse
from tests.signaling.support.turn_client import (
    SECRET,
    TurnClient,
    address_of,
    allocate,
    code,
    peer_request,
    send_indication,
)

PATIENCE_S = 10.0
MB = 1 << 20
V4 = bytes((192, 0, 2, 1))
MEDIA, MEDIA2 = Address(V4, 7882), Address(V4, 7883)
RULES = Rules(SECRET, frozenset((MEDIA, MEDIA2)), {4: V4}, range(30_000, 30_100), 12)
CHANNEL = 0x4000
CHECK = b"\0\1\0\0\x21\x12\xa4\x42" + bytes(12)
"""What begins as a connectivity check does."""


def until(true: Callable[[], object]) -> None:
    """Wait for the other thread."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def until_it_waits(send: Callable[[int], object]) -> int:
    """Call `send` with rising numbers until it times out; return how often it did not."""
    for number in range(64 * MB // 1200):
        try:
            send(number)
        except TimeoutError:
            return number
    raise AssertionError("it never waits")


def bound(kind: socket.SocketKind) -> socket.socket:
    made = socket.socket(socket.AF_INET, kind)
    made.bind(("127.0.0.1", 0))
    return made


@dataclass
class Handed:
    """A connection that the engine was given."""

    socket: socket.socket
    client: Address
    relayed: Address
    way: str = ""

    def frame(self) -> bytes:
        """The next packet from the client."""
        return exactly(self.socket, int.from_bytes(exactly(self.socket, 2)))

    def send(self, *packets: bytes) -> None:
        self.socket.sendall(b"".join(len(packet).to_bytes(2) + packet for packet in packets))


def exactly(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = source.recv(size - len(data))
        assert piece
        data += piece
    return data


@dataclass
class RunningTurn:
    """The thread and its ports."""

    context: TlsContext | None = None
    rules: Rules = RULES
    dropped: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(COUNTERS, 0)))
    handed: "queue.SimpleQueue[Handed]" = field(default_factory=queue.SimpleQueue)
    all_handed: list[Handed] = field(default_factory=list)

    def start(self) -> None:
        udp, tcp, tls = (bound(kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM, socket.SOCK_STREAM))
        self.udp, self.tcp, self.tls = (each.getsockname() for each in (udp, tcp, tls))
        self.thread = TurnThread(self.rules, self._hand_over, self.dropped, lambda: self.context)
        self.thread.start(Sockets([udp], [tcp], [tls]))
        self.thread.admit("PA_ann", "ann")

    def _hand_over(self, connection: socket.socket, client: Address, relayed: Address, way: str) -> None:
        connection.settimeout(PATIENCE_S)
        self.all_handed.append(Handed(connection, client, relayed, way))
        self.handed.put(self.all_handed[-1])

    def engine(self) -> Handed:
        """The next connection that the engine is given."""
        return self.handed.get(timeout=PATIENCE_S)

    def counts(self) -> dict[str, int]:
        return {reason: count for reason, count in self.dropped.items() if count}

    @contextlib.contextmanager
    def over_tcp(self, wrap: Callable[[socket.socket], socket.socket] = lambda plain: plain) -> Iterator["StreamEnd"]:
        """A client over TCP, or with `wrap` over TLS."""
        address = self.tcp if wrap.__name__ == "<lambda>" else self.tls
        with socket.create_connection(address, PATIENCE_S) as plain, wrap(plain) as connection:
            yield StreamEnd(connection)

    @contextlib.contextmanager
    def over_udp(self) -> Iterator["DatagramEnd"]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
            made.settimeout(PATIENCE_S)
            made.connect(self.udp)
            yield DatagramEnd(made)


@contextlib.contextmanager
def running_turn(context: TlsContext | None = None, rules: Rules = RULES) -> Iterator[RunningTurn]:
    turn = RunningTurn(context, rules)
    turn.start()
    try:
        yield turn
    finally:
        turn.thread.stop()
        for each in turn.all_handed:
            each.socket.close()


class End:
    """A client with a socket."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.turn = TurnClient(make_credentials(SECRET, "PA_ann", 300, time.time()))
        self.relayed: Address | None = None

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> bytes:
        """The next message or ChannelData, with its padding."""
        raise NotImplementedError

    def say(self, *packets: bytes, channel: int = CHANNEL) -> None:
        """Send packets in a channel."""
        raise NotImplementedError

    def heard(self) -> bytes:
        """The next packet in a channel."""
        data = self.receive()
        assert data[:2] == CHANNEL.to_bytes(2), data
        return data[4 : 4 + int.from_bytes(data[2:4])]

    def ask(self, request: bytes) -> Message:
        self.send(request)
        return self.turn.heard(self.receive())

    def allocate(self) -> int:
        assert code(self.ask(self.turn.unsigned(Method.ALLOCATE, *allocate()))) == 401
        answer = self.ask(self.turn.request(Method.ALLOCATE, *allocate()))
        self.relayed = address_of(answer, Attribute.XOR_RELAYED_ADDRESS)
        return code(answer)

    def bind(self, peer: Address = MEDIA, channel: int = CHANNEL) -> int:
        return code(self.ask(peer_request(self.turn, Method.CHANNEL_BIND, peer, channel=channel)))

    def permit(self, peer: Address = MEDIA) -> int:
        return code(self.ask(peer_request(self.turn, Method.CREATE_PERMISSION, peer)))

    def indicate(self, data: bytes, peer: Address = MEDIA) -> None:
        self.send(send_indication(peer, data))

    def indicated(self) -> tuple[Address | None, bytes | None]:
        """The peer and the data of the next Data indication."""
        message = parse(self.receive())
        assert message.method == Method.DATA
        return address_of(message, Attribute.XOR_PEER_ADDRESS), message.first(Attribute.DATA)

    def ended(self) -> bool:
        """Wait for the server's end of the connection."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while self.socket.recv(65536):
                pass
        return True


class StreamEnd(End):
    def receive(self) -> bytes:
        head = exactly(self.socket, 4)
        size = int.from_bytes(head[2:])
        return head + exactly(self.socket, (size + 3 & ~3) if head[0] & 0xC0 else size + 16)

    def say(self, *packets: bytes, channel: int = CHANNEL) -> None:
        number = channel.to_bytes(2)
        self.send(b"".join(number + len(each).to_bytes(2) + each + bytes(-len(each) % 4) for each in packets))


class DatagramEnd(End):
    def receive(self) -> bytes:
        return self.socket.recv(65536)

    def say(self, *packets: bytes, channel: int = CHANNEL) -> None:
        for each in packets:
            self.send(channel.to_bytes(2) + len(each).to_bytes(2) + each)
