"""The whole engine over TCP, compiled loop included: DTLS, media and data of aiortc's clients through a bridge."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable

import pytest
from av import AudioFrame

from sfu.engine import Engine, EngineOptions
from sfu.events import DataReceived, TransportConnected
from sfu.parameters import Channel, Kind, PublishParameters, SubscribeParameters
from tests.sfu.support.tcp_bridge import TcpBridge, tcp_bridge
from tests.sfu.support.webrtc_client import OPUS, WebRtcClient
from tests.sfu.test_engine import next_of

pytestmark = pytest.mark.timeout(600)  # kernels that are not in the cache are compiled first

PATIENCE_S = 20.0
LARGE = 60_000
"""As much as aiortc takes in one message."""


@pytest.fixture(params=[1, 2])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    made = Engine(EngineOptions(udp_ports=(0,) * request.param, node_ips=("127.0.0.1",), tcp_port=0))
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def bridge(engine: Engine) -> AsyncIterator[TcpBridge]:
    assert engine.tcp_port is not None
    async with tcp_bridge(engine.tcp_port) as made:
        yield made


@pytest.fixture
async def clients(engine: Engine, bridge: TcpBridge) -> AsyncIterator[tuple[WebRtcClient, WebRtcClient]]:
    pair = tuple(WebRtcClient(engine, audio=True, port=bridge.port) for _ in range(2))
    for each in pair:
        await each.connect()
    for _ in pair:
        await next_of(engine, TransportConnected)
    yield pair[0], pair[1]
    for each in pair:
        await each.close()


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():  # noqa: ASYNC110 - what is waited for happens in another thread
            await asyncio.sleep(0.01)


async def test_media_and_data_go_both_ways_over_tcp(
    engine: Engine, bridge: TcpBridge, clients: tuple[WebRtcClient, WebRtcClient]
) -> None:
    one, other = clients
    for sender, receiver in ((one, other), (other, one)):
        mid, encoding = sender.encodings(Kind.AUDIO)
        track = engine.publish(sender.transport, PublishParameters(Kind.AUDIO, mid, (encoding,)))
        engine.subscribe(track, receiver.transport, SubscribeParameters(mid, OPUS, cname="sender"))
    for each in clients:
        received = await each.tracks.get()
        frames = [await asyncio.wait_for(received.recv(), PATIENCE_S) for _ in range(10)]
        assert all(isinstance(frame, AudioFrame) for frame in frames)
    await until(lambda: one.channels["_reliable"].readyState == "open")
    one.channels["_reliable"].send(bytes(LARGE))
    event = await next_of(engine, DataReceived)
    assert isinstance(event, DataReceived)
    assert event.payload == bytes(LARGE)
    engine.send_data([other.transport], Channel.RELIABLE, event.payload, one.transport)
    assert (await asyncio.wait_for(other.messages.get(), PATIENCE_S))[1] == bytes(LARGE)
    assert bridge.connections == 2
    assert {engine.transport_statistics(each.transport).protocol for each in clients} == {"tcp"}
    assert {engine.drops()[name] for name in ("tcp_unproven", "srtp_auth", "send_failed", "garbage")} == {0}


async def test_a_connection_is_called_what_was_said_when_it_was_handed_over(engine: Engine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)

        async def accept() -> None:
            connection, _ = await asyncio.get_running_loop().sock_accept(listening)
            engine.take_connection(connection, protocol="turn_tls")

        async with tcp_bridge(listening.getsockname()[1]) as bridge:
            client = WebRtcClient(engine, audio=True, port=bridge.port)
            await asyncio.gather(client.connect(), accept())
            await next_of(engine, TransportConnected)
            assert engine.transport_statistics(client.transport).protocol == "turn_tls"
            await client.close()


async def test_call_goes_on_over_another_connection(
    engine: Engine, bridge: TcpBridge, clients: tuple[WebRtcClient, WebRtcClient]
) -> None:
    one, _ = clients
    await until(lambda: one.channels["_reliable"].readyState == "open")
    bridge.reset()
    await until(lambda: engine.usage()["connections"] < 2)
    await until(lambda: bridge.connections == 2)
    await until(lambda: engine.usage()["connections"] == 2)
    engine.send_data([one.transport], Channel.RELIABLE, b"still here")
    assert (await asyncio.wait_for(one.messages.get(), PATIENCE_S))[1] == b"still here"


async def test_closing_a_transport_ends_its_connection_and_gives_everything_back(
    engine: Engine, bridge: TcpBridge, clients: tuple[WebRtcClient, WebRtcClient]
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    assert engine.usage()["connections"] == 2
    for each in clients:
        engine.close_transport(each.transport)
    await until(lambda: engine.usage()["connections"] == 0)
    await until(lambda: bridge.connections == 0)
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before - 2)


async def test_engine_that_stops_leaves_no_connection_open() -> None:
    engine = Engine(EngineOptions(udp_ports=(0,), node_ips=("127.0.0.1",), tcp_port=0))
    await engine.start()
    assert engine.tcp_port is not None
    async with tcp_bridge(engine.tcp_port) as bridge:
        client = WebRtcClient(engine, port=bridge.port)
        await client.connect()
        await next_of(engine, TransportConnected)
        silent = socket.create_connection(("127.0.0.1", engine.tcp_port))
        await asyncio.sleep(0.05)
        await engine.stop()
        await until(lambda: bridge.connections == 0)
        silent.settimeout(PATIENCE_S)
        assert silent.recv(1) == b""
        silent.close()
        await client.close()


async def test_port_that_is_taken_is_an_error_and_binds_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        engine = Engine(EngineOptions(udp_ports=(0,), bind=("127.0.0.1",), tcp_port=port))
        with pytest.raises(OSError, match="in use"):
            await engine.start()
