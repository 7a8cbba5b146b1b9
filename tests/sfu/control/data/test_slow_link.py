"""aiortc's peers over real sockets, one of them behind a link with a bit rate and a short queue."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator

import pytest

from sfu.control.data import association, backlog
from sfu.engine import Engine, EngineOptions
from sfu.events import ChannelOpened, DataReceived, TransportFailed
from sfu.parameters import Channel, DtlsRole, TransportId
from tests.sfu.support.stand_in import StandIn
from tests.sfu.support.webrtc_client import WebRtcClient

CHUNK = 15_000
LAG = 512 << 10
DATAGRAMS_PER_MS = 2
QUEUE = 200
"""Datagrams that the slow link holds; more are lost."""


class SlowLink:
    """Stands between an engine's sockets and one transport's peer."""

    def __init__(self, engine: Engine, transport: TransportId, monkeypatch: pytest.MonkeyPatch) -> None:
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._sockets = engine.shards[0].sockets
        self._send = self._sockets.send
        self._owner = engine._transports[transport]
        monkeypatch.setattr(self._sockets, "send", self._queue)
        self._task = asyncio.create_task(self._drain())

    def _queue(self, path: int, datagram: bytes) -> bool:
        if path != self._owner._path():
            return self._send(path, datagram)
        if len(self._waiting) < QUEUE:
            self._waiting.append((path, datagram))
        return True

    async def _drain(self) -> None:
        while True:
            await asyncio.sleep(0.001)
            for _ in range(min(DATAGRAMS_PER_MS, len(self._waiting))):
                self._send(*self._waiting.popleft())

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    made = Engine(EngineOptions(udp_ports=(0,), node_ips=("127.0.0.1",)), StandIn)
    await made.start()
    yield made
    await made.stop()


async def forward(engine: Engine, opened: asyncio.Queue[TransportId], failed: list[str]) -> None:
    """Send every message on to all other transports, as signalling does."""
    while True:
        event = await engine.next_event()
        if isinstance(event, DataReceived):
            others = [number for number in engine._transports if number != event.transport]
            engine.send_data(others, event.channel, event.payload, event.transport)
        elif isinstance(event, ChannelOpened) and event.channel is Channel.RELIABLE:
            opened.put_nowait(event.transport)
        elif isinstance(event, TransportFailed):
            failed.append(event.reason)


async def test_file_reaches_the_fast_receiver_soon_and_the_slow_one_whole(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "MAX_LAG_BYTES", LAG)
    clients = [WebRtcClient(engine) for _ in range(3)]
    for client in clients:
        await client.connect(DtlsRole.SERVER)
    sender, fast, slow = clients
    opened: asyncio.Queue[TransportId] = asyncio.Queue()
    failed: list[str] = []
    forwarding = asyncio.create_task(forward(engine, opened, failed))
    async with asyncio.timeout(20):
        assert {await opened.get() for _ in clients} == {client.transport for client in clients}
        for channel in [client.channels["_reliable"] for client in clients]:
            if channel.readyState != "open":
                is_open = asyncio.Event()
                channel.on("open", is_open.set)
                await is_open.wait()
    link = SlowLink(engine, slow.transport, monkeypatch)
    messages = [number.to_bytes(4, "big") * (CHUNK // 4) for number in range(3_000_000 // CHUNK)]
    for message in messages:
        sender.channels["_reliable"].send(message)
    async with asyncio.timeout(120):
        got = [(await fast.messages.get())[1] for _ in messages]
        behind = len(messages) - slow.messages.qsize()
        assert got == messages
        assert [(await slow.messages.get())[1] for _ in messages] == messages
    assert behind * CHUNK < LAG + 2 * association.WINDOW_BYTES + association.MAX_CONGESTION_BYTES
    assert failed == []
    dropped = {reason for reason, count in engine.drops().items() if count}
    assert dropped <= {"sctp_beyond_window", "sctp_beyond_gap"}, "of a sender that does not heed its window; sent again"
    await link.close()
    forwarding.cancel()
    await asyncio.wait([forwarding])
    for client in clients:
        await client.close()
