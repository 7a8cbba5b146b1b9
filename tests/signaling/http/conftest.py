"""Sockets behave differently under uvloop, which serves, and under asyncio's own loop, so their tests run on both."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

ON_BOTH = frozenset(("test_acceptor.py", "test_moved_tls.py", "test_tls.py", "test_turn_sockets.py"))

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, LoopFactory]:
    factories: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
    return factories | ({"uvloop": uvloop.new_event_loop} if item.path.name in ON_BOTH else {})
