import contextlib
from collections.abc import Iterator

import pytest

from tests.sfu.support.tcp_node import TcpNode


@pytest.fixture
def tcp_node() -> Iterator[TcpNode]:
    """A media thread with TCP connections."""
    with contextlib.closing(TcpNode()) as node:
        yield node
