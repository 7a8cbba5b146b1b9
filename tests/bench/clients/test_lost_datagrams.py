"""Transports of the load generator come up although datagrams are lost and others come between."""

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from aioice import stun
from OpenSSL import SSL

from bench.clients import arrivals
from bench.clients.arrivals import Arrivals, answers, is_dtls, is_stun
from bench.clients.dtls_server import server_context
from bench.clients.endpoint import Endpoint, make_context
from bench.clients.passive_endpoint import PassiveEndpoint
from sfu.parameters import DtlsRole, IceCredentials

PROFILE = "SRTP_AEAD_AES_128_GCM"
RETRY_S, CHATTER_S = 0.1, 0.02
"""When the endpoints send again, and how often other datagrams come, so that no endpoint is without one for RETRY_S."""
FLIGHT = 5
"""Records of a DTLS server's first flight: hello, certificate, key exchange, request, done."""

Lost = Callable[[str, int], bool]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "RETRY_S", RETRY_S)


class Server:
    """A server that loses some of what is said to it or of what it says, and repeats nothing of its own accord."""

    def __init__(self, role: DtlsRole, lost: Lost, chatter: bytes = b"") -> None:
        """lost: whether one of a kind is (`check`, `response`, and `heard` of DTLS), by its number from 0.

        chatter: a datagram that is said all the time.
        """
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        context, self.fingerprint = server_context(PROFILE)
        self.connection = SSL.Connection(context, None)
        self.connection.set_ciphertext_mtu(1200)
        self.role, self.chatter, self._chatting = role, chatter, False
        self._lost, self._counts = lost, {kind: itertools.count() for kind in ("check", "response", "heard")}
        if role is DtlsRole.CLIENT:
            self.connection.set_connect_state()
        else:
            self.connection.set_accept_state()

    def _passes(self, kind: str) -> bool:
        return not self._lost(kind, next(self._counts[kind]))

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                datagram, peer = await loop.sock_recvfrom(self.socket, 4096)
                if self.chatter and not self._chatting:
                    self._chatting = True
                    group.create_task(self._chat(peer))
                if is_stun(datagram) and self._passes("check"):
                    self._answer(datagram, peer)
                elif is_dtls(datagram) and self._passes("heard"):
                    self.connection.bio_write(datagram)
                    self._step(peer)

    async def _chat(self, peer: Any) -> None:
        while True:
            self.socket.sendto(self.chatter, peer)
            await asyncio.sleep(CHATTER_S)

    def _answer(self, check: bytes, peer: Any) -> None:
        if self._passes("response"):
            response = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, stun.parse_message(check).transaction_id)
            self.socket.sendto(bytes(response), peer)
            self._step(peer)

    def _step(self, peer: Any) -> None:
        with contextlib.suppress(SSL.WantReadError):
            self.connection.do_handshake()
        with contextlib.suppress(SSL.WantReadError):
            for record in _records(self.connection.bio_read(1 << 16)):
                self.socket.sendto(record, peer)


def _records(data: bytes) -> Iterator[bytes]:
    while data:
        size = 13 + int.from_bytes(data[11:13], "big")
        yield data[:size]
        data = data[size:]


def first(kind: str, count: int = 1) -> Lost:
    """The first `count` of a kind are lost."""
    return lambda lost, number: lost == kind and number < count


@contextlib.asynccontextmanager
async def serving(server: Server) -> AsyncIterator[Server]:
    task = asyncio.get_running_loop().create_task(server.run())
    try:
        yield server
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.socket.close()


Connecting = Callable[[Server], Awaitable[None]]


async def connect(server: Server) -> None:
    """Bring up the endpoint that suits the server's role."""
    role = DtlsRole.SERVER if server.role is DtlsRole.CLIENT else DtlsRole.CLIENT
    endpoint = Endpoint(make_context()[0], server.socket.getsockname(), role=role)
    try:
        await endpoint.connect(IceCredentials("abcd", "efgh"))
        assert endpoint.outgoing
    finally:
        endpoint.close()


async def connect_passive(server: Server) -> None:
    """Bring up the endpoint that answers a server's DTLS, as Janus's does."""
    endpoint = PassiveEndpoint("127.0.0.1")
    context, _ = server_context(PROFILE)
    try:
        await endpoint.connect(server.socket.getsockname(), ("abcd", "efgh"), context, server.fingerprint)
        assert endpoint.outgoing
    finally:
        endpoint.close()


CHECK_OF_THE_SERVER = bytes(stun.Message(stun.Method.BINDING, stun.Class.REQUEST))
CHATTER = {"silence": b"", "checks": CHECK_OF_THE_SERVER, "media": b"\x80\x60nobody has keys yet"}
LOST = ("check", "3 checks", "response", "DTLS")
with_chatter = pytest.mark.parametrize("chatter", CHATTER.values(), ids=CHATTER)
with_each = pytest.mark.parametrize("connecting", [connect, connect_passive])


@with_chatter
@pytest.mark.parametrize("lost", [first("check"), first("check", 3), first("response"), first("heard")], ids=LOST)
async def test_a_dtls_client_repeats_what_is_lost(lost: Lost, chatter: bytes) -> None:
    async with serving(Server(DtlsRole.SERVER, lost, chatter)) as server:
        await connect(server)


@with_chatter
@with_each
@pytest.mark.parametrize(
    "lost", [first("check"), first("check", 3), first("response"), first("heard", FLIGHT)], ids=LOST
)
async def test_a_dtls_server_repeats_what_is_lost(lost: Lost, connecting: Connecting, chatter: bytes) -> None:
    async with serving(Server(DtlsRole.CLIENT, lost, chatter)) as server:
        await connecting(server)


@pytest.mark.alone
@with_each
@pytest.mark.parametrize(("lost", "said"), [("check", "answer to the connectivity check"), ("heard", "DTLS handshake")])
async def test_what_never_comes_is_named(
    monkeypatch: pytest.MonkeyPatch, connecting: Connecting, lost: str, said: str
) -> None:
    monkeypatch.setattr(arrivals, "CONNECT_TIMEOUT_S", 0.3)
    async with serving(Server(DtlsRole.CLIENT, first(lost, 1000))) as server:
        with pytest.raises(TimeoutError, match=f"^no {said} in"):
            await connecting(server)


@pytest.mark.alone
async def test_where_nobody_listens_no_more_checks_are_sent_than_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "CONNECT_TIMEOUT_S", 0.3)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        address = closed.getsockname()
    endpoint = Endpoint(make_context()[0], address)
    sent = []

    def check() -> None:
        sent.append(endpoint.check_datagram)
        Endpoint.check(endpoint)

    monkeypatch.setattr(endpoint, "check", check)
    with pytest.raises(TimeoutError, match="connectivity check"):
        await endpoint.connect(IceCredentials("abcd", "efgh"))
    endpoint.close()
    assert 1 < len(sent) <= 0.3 / RETRY_S + 1


async def test_datagrams_do_not_put_off_what_is_due() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    waiting, datagrams = Arrivals(ours), 0
    with ours, theirs:
        theirs.send(b"more")
        while await waiting.next():
            datagrams += 1
            theirs.send(b"more")
    assert datagrams


def test_only_the_response_to_the_check_answers_it() -> None:
    check = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
    mine = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, check.transaction_id)
    another = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE)
    refused = stun.Message(stun.Method.BINDING, stun.Class.ERROR, check.transaction_id)
    assert answers(bytes(mine), bytes(check))
    assert not any(answers(bytes(each), bytes(check)) for each in (another, refused, check))
    assert not answers(b"", bytes(check))
