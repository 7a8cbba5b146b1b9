"""A running TURN thread, and clients of it over each way."""

import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from signaling.http.certificates import load_context
from signaling.turn.net import poller
from signaling.turn.net.tls import TlsContext
from tests.signaling.support.authority import Authority
from tests.signaling.support.running_turn import (
    End,
    RunningTurn,
    running_turn,
)

WAYS = ("udp", "tcp", "tls")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def context(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> TlsContext:
    return load_context(authority.write(tmp_path_factory.mktemp("turn")))


@pytest.fixture
def turn(context: TlsContext, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningTurn]:
    monkeypatch.setattr(poller, "TICK_S", 0.05)
    with running_turn(context) as running:
        yield running


@pytest.fixture
def secure(authority: Authority) -> Callable[[socket.socket], socket.socket]:
    trusting = authority.client_context()

    def wrap(plain: socket.socket) -> socket.socket:
        return trusting.wrap_socket(plain, server_hostname="127.0.0.1")

    return wrap


@pytest.fixture(params=WAYS)
def client(
    request: pytest.FixtureRequest, turn: RunningTurn, secure: Callable[[socket.socket], socket.socket]
) -> Iterator[End]:
    ways: dict[str, Callable[[], AbstractContextManager[End]]] = {
        "udp": turn.over_udp,
        "tcp": turn.over_tcp,
        "tls": lambda: turn.over_tcp(secure),
    }
    with ways[request.param]() as end:
        yield end


@pytest.fixture
def over_tcp(turn: RunningTurn) -> Iterator[End]:
    with turn.over_tcp() as end:
        yield end
