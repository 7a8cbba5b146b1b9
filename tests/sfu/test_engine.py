"""The whole engine, compiled loop included, with aiortc's peer connections as clients over real sockets."""

import asyncio
import gc
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from av import AudioFrame

from sfu.engine import Engine, EngineOptions
from sfu.events import ChannelOpened, DataReceived, Event, StreamStarted, TransportConnected, TransportFailed
from sfu.parameters import (
    Channel,
    Codec,
    DtlsRole,
    Encoding,
    Kind,
    PublishParameters,
    SubscribeParameters,
    TrackId,
)
from tests.sfu.support.interpreter import run
from tests.sfu.support.webrtc_client import OPUS, WebRtcClient

pytestmark = pytest.mark.timeout(600)  # kernels that are not in the cache are compiled first

EMPTY = {
    "transports": 0,
    "tracks": 0,
    "streams": 0,
    "subscriptions": 0,
    "connections": 0,
    "paths": 0,
    "sources": 0,
    "packet_cache_bytes": 0,
}


@pytest.fixture(params=[1, 2, 4])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    """With one media thread, and with several: then publisher and subscriber have different ones."""
    made = Engine(EngineOptions(udp_ports=(0,) * request.param, node_ips=("127.0.0.1",)))
    await made.start()
    yield made
    await made.stop()


def test_data_channels_are_imported_when_they_are_asked_for(tmp_path: Path) -> None:
    """Their library takes longer than everything else of a start but numba; nobody has to wait for it to listen."""
    code = """
import sys
from sfu.engine import Engine
print("aiortc" in sys.modules)
Engine.load_data_channels()
print("aiortc" in sys.modules)
"""
    assert run(code, Path(__file__).parents[2], tmp_path) == "False\nTrue"


@pytest.fixture
async def clients(engine: Engine) -> AsyncIterator[tuple[WebRtcClient, WebRtcClient]]:
    pair = WebRtcClient(engine, audio=True), WebRtcClient(engine, audio=True)
    yield pair
    for each in pair:
        await each.close()


async def next_of(engine: Engine, kind: type[Event]) -> Event:
    """The next event of one type; others are skipped."""
    async with asyncio.timeout(20):
        while True:
            event = await engine.next_event()
            if isinstance(event, kind):
                return event


async def empty(engine: Engine) -> bool:
    """Whether the media thread soon gives back every row."""
    for _ in range(200):
        if engine.usage() == EMPTY:
            return True
        await asyncio.sleep(0.01)
    return False


def forward(engine: Engine, publisher: WebRtcClient, subscriber: WebRtcClient) -> TrackId:
    mid, encoding = publisher.encodings(Kind.AUDIO)
    track = engine.publish(publisher.transport, PublishParameters(Kind.AUDIO, mid, (encoding,)))
    engine.subscribe(track, subscriber.transport, SubscribeParameters(mid, OPUS, cname="publisher"))
    return track


@pytest.mark.parametrize("role", DtlsRole)
async def test_audio_flows_between_two_clients_both_ways(
    engine: Engine, clients: tuple[WebRtcClient, WebRtcClient], role: DtlsRole
) -> None:
    one, other = clients
    await one.connect(role)
    await other.connect(role)
    tracks = {forward(engine, one, other), forward(engine, other, one)}
    started = [await next_of(engine, StreamStarted) for _ in range(2)]
    assert {(each.track, each.codec) for each in started if isinstance(each, StreamStarted)} == {
        (track, Codec.OPUS) for track in tracks
    }
    for each in clients:
        received = await each.tracks.get()
        frames = [await asyncio.wait_for(received.recv(), 20) for _ in range(10)]
        assert all(isinstance(frame, AudioFrame) and frame.sample_rate == 48_000 for frame in frames)
    for track in tracks:
        assert engine.track_statistics(track).packets >= 10
        assert engine.track_statistics(track).lost == 0
    assert engine.drops()["srtp_auth"] == engine.drops()["unknown_payload_type"] == 0
    totals = engine.totals()
    assert min(totals.traffic.packets_received, totals.traffic.packets_sent) >= 20
    assert totals.traffic.bytes_received > 20 * totals.traffic.packets_received
    assert totals.traffic.retransmissions_sent == totals.traffic.firs_received == 0
    assert totals.subscriptions == {Kind.AUDIO: 2, Kind.VIDEO: 0}
    assert totals.rows_used["transports"] >= 2, "and those that stand for publishers in other threads"
    assert [thread.cpu_seconds > 0 for thread in totals.threads] == [True] * len(engine.shards)
    for each in clients:
        engine.close_transport(each.transport)
    assert await empty(engine)


async def test_data_channel_messages_go_both_ways(engine: Engine, clients: tuple[WebRtcClient, WebRtcClient]) -> None:
    for each in clients:
        each.channels["_reliable"].on("open", lambda each=each: each.channels["_reliable"].send(b"hello"))
        await each.connect()
    transports = [each.transport for each in clients]
    for _ in clients:
        received = await next_of(engine, DataReceived)
        assert isinstance(received, DataReceived)
        assert (received.channel, received.payload) == (Channel.RELIABLE, b"hello")
        engine.send_data([other for other in transports if other != received.transport], Channel.RELIABLE, b"relayed")
    for each in clients:
        assert await asyncio.wait_for(each.messages.get(), 20) == ("_reliable", b"relayed")


@pytest.mark.parametrize("role", DtlsRole)
async def test_fingerprint_mismatch_lets_no_media_in(
    engine: Engine, clients: tuple[WebRtcClient, WebRtcClient], role: DtlsRole
) -> None:
    client = clients[0]
    await client.connect(role, fingerprints=(("sha-256", ":".join(["AB"] * 32)),))
    assert await next_of(engine, TransportFailed) == TransportFailed(client.transport, "fingerprint mismatch")
    assert engine.shards[0].memory.table("transports")[0]["secure"] == 0


async def test_client_that_leaves_is_noticed_and_everything_of_it_freed(
    engine: Engine, clients: tuple[WebRtcClient, WebRtcClient]
) -> None:
    one, other = clients
    await one.connect()
    await other.connect()
    forward(engine, one, other)
    missing = {ChannelOpened, StreamStarted}  # both ends are up; in whichever order
    async with asyncio.timeout(20):
        while missing:
            missing.discard(type(await engine.next_event()))
    await one.close()
    assert await next_of(engine, TransportFailed) == TransportFailed(one.transport, "closed by peer")
    engine.close_transport(one.transport)
    engine.close_transport(other.transport)
    assert await empty(engine)


async def test_address_of_a_closed_transport_serves_the_next_one(engine: Engine) -> None:
    for _ in range(3):
        client = WebRtcClient(engine)
        await client.connect()
        await next_of(engine, TransportConnected)
        engine.close_transport(client.transport)
        await client.close()
        assert await empty(engine)


async def test_200_joins_and_leaves_leave_nothing_behind(engine: Engine) -> None:
    async def join_and_leave() -> None:
        publisher, subscriber = engine.open_transport().id, engine.open_transport().id
        video = PublishParameters(Kind.VIDEO, "1", (Encoding("q"), Encoding("h"), Encoding("f")))
        track = engine.publish(publisher, video)
        subscription = engine.subscribe(track, subscriber, SubscribeParameters("1", 96, 97))
        engine.set_layers(subscription.id, 0, 0)
        await asyncio.sleep(0)
        engine.close_transport(publisher)
        engine.close_transport(subscriber)

    def held() -> tuple[int, set[asyncio.Task[object]]]:
        gc.collect()
        return len(os.listdir("/proc/self/fd")), asyncio.all_tasks()

    await join_and_leave()
    assert await empty(engine)
    before = held()
    for _ in range(200):
        await join_and_leave()
    assert await empty(engine)
    assert held() == before
    assert int(engine.shards[0].memory.thread["transport_end"]) <= 400
