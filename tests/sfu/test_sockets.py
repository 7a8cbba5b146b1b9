"""sfu/sockets.py: addresses that may be missing, and the options of connections."""

import socket

import pytest

from sfu.sockets import UNACKNOWLEDGED_MS, UNSENT_BYTES, bound_socket, set_stream_options
from tests.sfu.support.tcp_end import connected_pair

FOREIGN_V6 = "2001:db8::1"


def nothing(opened: socket.socket) -> None:
    pass


def test_an_address_of_ipv6_that_is_missing_may_be_left_out() -> None:
    assert bound_socket(socket.SOCK_DGRAM, FOREIGN_V6, 0, nothing, optional_ipv6=True) is None
    with pytest.raises(OSError, match=r"Cannot assign|not supported"):
        bound_socket(socket.SOCK_DGRAM, FOREIGN_V6, 0, nothing, optional_ipv6=False)
    with pytest.raises(OSError, match="Cannot assign"):
        bound_socket(socket.SOCK_STREAM, "192.0.2.1", 0, nothing, optional_ipv6=True)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_port_that_is_taken_is_never_left_out(kind: socket.SocketKind, address: str) -> None:
    first = bound_socket(kind, address, 0, nothing, optional_ipv6=True)
    if first is None:
        pytest.skip("this machine has no IPv6")
    with first, pytest.raises(OSError, match="in use"):
        bound_socket(kind, address, first.getsockname()[1], nothing, optional_ipv6=True)


def test_a_connection_keeps_little_and_sends_at_once() -> None:
    client, server = connected_pair()
    with client, server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 10)
        set_stream_options(server)
        assert server.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1
        assert server.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        for option, value in (
            (socket.TCP_NODELAY, 1),
            (socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS),
            (socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES),
        ):
            assert server.getsockopt(socket.IPPROTO_TCP, option) == value


def test_a_pair_is_read_at_once() -> None:
    for each in socket.socketpair():
        with each:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 10)
            set_stream_options(each)
            assert each.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1
