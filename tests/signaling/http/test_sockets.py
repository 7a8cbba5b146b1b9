"""signaling/http/sockets.py: the sockets on which the server listens."""

import socket

import pytest

from signaling.config.api_keys import hide
from signaling.config.configuration import Config
from signaling.config.values import LOOPBACK
from signaling.http.sockets import PortInUse, bind_sockets
from tests.signaling.support.taken_ports import taken_on_ipv6

KEYS = hide({"devkey": "secret"})


def test_default_addresses_that_the_machine_lacks_are_left_out_and_given_ones_are_errors() -> None:
    missing = ("127.0.0.1", "2001:db8::1")
    bound = bind_sockets(Config(keys=KEYS, port=0, bind_addresses=missing))
    assert [each.getsockname()[0] for each in bound] == ["127.0.0.1"]
    for each in bound:
        each.close()
    with pytest.raises(PortInUse, match="2001:db8::1"):
        bind_sockets(Config(keys=KEYS, port=0, bind_addresses=missing, bind_addresses_given=True))


def test_a_port_that_is_taken_on_a_default_address_is_an_error() -> None:
    """Nobody would find out that half of the clients reach another program."""
    with taken_on_ipv6(socket.SOCK_STREAM) as port:
        text = f"cannot listen on ::1 TCP port {port}: Address already in use"
        with pytest.raises(PortInUse, match=text):
            bind_sockets(Config(keys=KEYS, port=port, bind_addresses=LOOPBACK))


def test_an_accepted_connection_sends_small_answers_at_once() -> None:
    """Head and body of an answer are two writes, and the second would wait for the client's delayed acknowledgement."""
    (bound,) = bind_sockets(Config(keys=KEYS, port=0, bind_addresses=("127.0.0.1",), bind_addresses_given=True))
    with bound:
        bound.listen()
        with socket.create_connection(bound.getsockname()):
            accepted, _ = bound.accept()
            with accepted:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
