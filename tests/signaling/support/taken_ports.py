"""Ports that another program has."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def taken_on_ipv6(kind: socket.SocketKind) -> Iterator[int]:
    """Take a port of ::1 and of no other address, for TCP or for UDP. A machine without IPv6 skips the test."""
    with socket.socket(socket.AF_INET6, kind) as taken:
        try:
            taken.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        if kind is socket.SOCK_STREAM:
            taken.listen()
        yield taken.getsockname()[1]
