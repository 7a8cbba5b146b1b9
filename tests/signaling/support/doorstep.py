"""A server with real sockets whose acceptor a test looks into; rooms and engine are played."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from signaling.config.configuration import Config
from signaling.http import http_server
from signaling.http.acceptor import Acceptor
from signaling.http.http_protocol import Intake
from tests.signaling.http.test_server import PlayedEngine, PlayedRooms, running_on

DEADLINE_S = 20
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@dataclass
class Doorstep:
    rooms: PlayedRooms
    port: int
    intake: Intake
    acceptor: Acceptor

    @property
    def dropped(self) -> dict[str, int]:
        """What was closed or refused, by reason."""
        return {reason: count for reason, count in self.intake.dropped.items() if count}

    @property
    def connections(self) -> set[Any]:
        """The protocols of those that were recognized."""
        served = self.acceptor._services.open_http.__self__  # type: ignore[attr-defined]
        return set(served.server_state.connections)

    async def open(self, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect; `options` are those of `asyncio.open_connection`."""
        return await asyncio.open_connection("127.0.0.1", self.port, **options)

    async def ask(self, *pieces: bytes, **options: Any) -> bytes:
        """Send the pieces, each a moment after the one before, and return what came back until the server closed."""
        reader, writer = await self.open(**options)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01 if len(pieces) > 1 else 0)
            return await answer(reader)
        finally:
            await hang_up(writer)


async def answer(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server closes, orderly or not."""
    received = b""
    async with asyncio.timeout(DEADLINE_S):
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while piece := await reader.read(65536):
                received += piece
    return received


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close from the client's side."""
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(1):
            await writer.wait_closed()


async def until(true: Callable[[], object]) -> None:
    """Wait until something is so on the server's side, which tells nobody."""
    async with asyncio.timeout(DEADLINE_S):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def doorstep(
    config: Config, monkeypatch: pytest.MonkeyPatch, rooms: PlayedRooms | None = None
) -> AsyncIterator[Doorstep]:
    """Run a server of `config` while the block lasts."""
    intakes: list[Intake] = []
    acceptors: list[Acceptor] = []

    class KeptIntake(Intake):
        def __init__(self) -> None:
            super().__init__()
            intakes.append(self)

    class KeptAcceptor(Acceptor):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            acceptors.append(self)

    monkeypatch.setattr(http_server, "Intake", KeptIntake)
    monkeypatch.setattr(http_server, "Acceptor", KeptAcceptor)
    rooms = rooms or PlayedRooms()
    async with running_on(config, PlayedEngine(), rooms) as addresses:
        yield Doorstep(rooms, addresses[0][1], intakes[0], acceptors[0])
