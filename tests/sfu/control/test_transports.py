"""Transports against aiortc as the client, over real sockets; media is left to others."""

import asyncio
import struct
from collections.abc import AsyncIterator

import pytest

from sfu.addresses import machine_addresses
from sfu.control.mailbox import Datagram
from sfu.control.transports import ICE_CHARACTERS, MAX_RECORDS_PER_DATAGRAM, new_credentials
from sfu.engine import Engine, EngineOptions
from sfu.events import ChannelOpened, DataReceived, Event, TransportConnected, TransportFailed
from sfu.parameters import CHANNEL_LABELS, Channel, DtlsRole
from sfu.schema.codes import Command, NoticeKind
from tests.sfu.support.stand_in import StandIn
from tests.sfu.support.webrtc_client import WebRtcClient


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    made = Engine(EngineOptions(udp_ports=(0,), node_ips=("127.0.0.1",)), StandIn)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def client(engine: Engine) -> AsyncIterator[WebRtcClient]:
    made = WebRtcClient(engine)
    yield made
    await made.close()


async def next_of(engine: Engine, kind: type[Event]) -> Event:
    """The next event of one type; others are skipped."""
    async with asyncio.timeout(15):
        while True:
            event = await engine.next_event()
            if isinstance(event, kind):
                return event


def test_credentials_are_random_characters_of_the_grammar() -> None:
    made = [new_credentials() for _ in range(2000)]
    for texts, length in (([each.ufrag for each in made], 8), ([each.password for each in made], 24)):
        assert len(set(texts)) == len(made)
        assert {len(text) for text in texts} == {length}
        for place in range(length):
            assert len({text[place] for text in texts}) == len(ICE_CHARACTERS), "each of them comes 32 times on average"


@pytest.mark.parametrize("role", DtlsRole)
async def test_dtls_comes_up_in_either_role(engine: Engine, client: WebRtcClient, role: DtlsRole) -> None:
    await client.connect(role)
    assert await next_of(engine, TransportConnected) == TransportConnected(client.transport)
    record = engine.shards[0].memory.table("transports")[0]
    await asyncio.sleep(0)
    assert (record["secure"], record["srtp_in"] != record["srtp_out"]) == (1, True)


async def test_lost_flights_are_sent_again(
    engine: Engine, client: WebRtcClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    send = engine.shards[0].sockets.send

    def lossy(path: int, datagram: bytes) -> bool:
        sent.append(datagram)
        return send(path, datagram) if len(sent) > 1 else True

    monkeypatch.setattr(engine.shards[0].sockets, "send", lossy)
    await client.connect(DtlsRole.CLIENT)
    assert await next_of(engine, TransportConnected) == TransportConnected(client.transport)
    record_sequence = slice(5, 11)
    assert sent[1][13:25] == sent[0][13:25]  # the same handshake message
    assert sent[1][record_sequence] != sent[0][record_sequence]


async def test_last_flight_is_sent_again_when_the_client_missed_it(
    engine: Engine, client: WebRtcClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[bytes] = []
    send = engine.shards[0].sockets.send

    def lossy(path: int, datagram: bytes) -> bool:
        transport = engine._transports[client.transport]
        if transport._sessions is not None and not lost:
            lost.append(datagram)
            return True
        return send(path, datagram)

    monkeypatch.setattr(engine.shards[0].sockets, "send", lossy)
    await client.connect(DtlsRole.SERVER)
    await next_of(engine, ChannelOpened)  # over a handshake that the client has ended, too
    change_cipher_spec, handshake = 20, 22
    assert {lost[0][0]} <= {change_cipher_spec, handshake}


@pytest.mark.parametrize("role", DtlsRole)
async def test_wrong_fingerprint_fails_in_either_role(engine: Engine, client: WebRtcClient, role: DtlsRole) -> None:
    await client.connect(role, fingerprints=(("sha-256", ":".join(["00"] * 32)),))
    failed = await next_of(engine, TransportFailed)
    assert failed == TransportFailed(client.transport, "fingerprint mismatch")
    assert engine.shards[0].memory.table("transports")[0]["secure"] == 0


@pytest.mark.parametrize("role", DtlsRole)
async def test_data_goes_both_ways_on_the_clients_channels(
    engine: Engine, client: WebRtcClient, role: DtlsRole
) -> None:
    for channel in client.channels.values():
        channel.on("open", lambda channel=channel: channel.send(channel.label.encode()))
    await client.connect(role)
    engine.send_data([client.transport], Channel.RELIABLE, b"sent before there was a channel")
    assert await client.messages.get() == ("_reliable", b"sent before there was a channel")
    received = [await next_of(engine, DataReceived) for _ in range(2)]
    assert {(each.channel, each.payload) for each in received if isinstance(each, DataReceived)} == {
        (Channel.RELIABLE, b"_reliable"),
        (Channel.LOSSY, b"_lossy"),
    }
    engine.send_data([client.transport], Channel.LOSSY, b"now")
    assert await client.messages.get() == ("_lossy", b"now")


async def test_channels_that_we_open_work_both_ways(engine: Engine) -> None:
    client = WebRtcClient(engine, labels=())
    await client.connect()
    engine.open_channels(client.transport)
    opened = [await next_of(engine, ChannelOpened) for _ in Channel]
    assert {event.channel for event in opened if isinstance(event, ChannelOpened)} == set(Channel)
    for channel in Channel:
        engine.send_data([client.transport], channel, b"to the client")
        assert await client.messages.get() == (CHANNEL_LABELS[channel], b"to the client")
        client.channels[CHANNEL_LABELS[channel]].send(b"to the engine")
        assert await next_of(engine, DataReceived) == DataReceived(client.transport, channel, b"to the engine")
    assert client.channels["_reliable"].ordered
    assert client.channels["_lossy"].maxRetransmits == 0
    await client.close()


@pytest.mark.parametrize("name", ["send", "release_window"])
async def test_what_fails_in_the_turn_of_another_transport_ends_this_one_alone(
    engine: Engine, client: WebRtcClient, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def choke(*_: object) -> None:
        raise struct.error("the peer's doing")

    await client.connect(DtlsRole.CLIENT)
    await next_of(engine, TransportConnected)
    monkeypatch.setattr(f"sfu.control.data.sctp.DataChannels.{name}", choke)
    transport = engine._transports[client.transport]
    if name == "send":
        engine.send_data([client.transport], Channel.RELIABLE, b"x")
    else:
        transport.release_window(1)
    assert await next_of(engine, TransportFailed) == TransportFailed(client.transport, "internal error")


async def test_channel_of_an_unknown_label_is_ignored(engine: Engine, client: WebRtcClient) -> None:
    client.stranger.on("open", lambda: client.stranger.send(b"to nobody"))
    client.channels["_reliable"].on("open", lambda: client.channels["_reliable"].send(b"to us"))
    await client.connect()
    assert await next_of(engine, DataReceived) == DataReceived(client.transport, Channel.RELIABLE, b"to us")


async def test_client_hello_before_the_answer_is_kept(engine: Engine, client: WebRtcClient) -> None:
    """Dual PC: we offered, and the client's DTLS is faster than its answer."""
    await client.connect(DtlsRole.SERVER, late=True)
    transport = engine._transports[client.transport]
    for _ in range(1000):
        if transport._early:
            break
        await asyncio.sleep(0.01)
    assert transport._early
    client.accept()
    assert await next_of(engine, TransportConnected) == TransportConnected(client.transport)


async def test_client_that_leaves_is_reported_once(engine: Engine, client: WebRtcClient) -> None:
    await client.connect()
    await next_of(engine, ChannelOpened)  # the client is up, too
    await client.close()
    assert await next_of(engine, TransportFailed) == TransportFailed(client.transport, "closed by peer")
    transport = engine._transports[client.transport]
    transport.fail("a second time")
    assert not engine._events._events


async def test_closing_tells_the_client(engine: Engine, client: WebRtcClient) -> None:
    await client.connect()
    await next_of(engine, ChannelOpened)  # the client is up, too
    closed = asyncio.Event()

    def changed() -> None:
        if client.pc.connectionState == "closed":
            closed.set()

    client.pc.on("connectionstatechange", changed)
    engine.close_transport(client.transport)
    await asyncio.wait_for(closed.wait(), 10)


async def test_keys_live_until_the_media_thread_has_let_go(engine: Engine, client: WebRtcClient) -> None:
    await client.connect()
    await next_of(engine, TransportConnected)
    transport = engine._transports[client.transport]
    thread = engine.shards[0].thread
    assert isinstance(thread, StandIn)
    thread.held = True
    engine.close_transport(client.transport)
    await asyncio.sleep(0.02)
    assert transport._sessions is not None
    thread.apply()
    await asyncio.sleep(0.02)
    assert transport._sessions is None


async def test_a_newer_record_of_data_says_where_the_client_is(engine: Engine, client: WebRtcClient) -> None:
    await client.connect()
    engine.send_data([client.transport], Channel.RELIABLE, b"hello")
    await asyncio.wait_for(client.messages.get(), 10)
    transport, thread = engine._transports[client.transport], engine.shards[0].thread
    assert isinstance(thread, StandIn)
    held: list[bytes] = []
    receive = transport.receive_datagram
    transport.receive_datagram = lambda datagram, path: held.append(datagram)  # type: ignore[method-assign]
    async with asyncio.timeout(10):
        while len(held) < 3:
            client.channels["_lossy"].send("x")
            await asyncio.sleep(0.01)

    def followed(datagram: bytes, path: int) -> list[int]:
        """Paths that the media thread is told to follow."""
        thread.commands.clear()
        receive(datagram, path)
        thread.apply()
        return [fields["other_row"] for kind, _, fields in thread.commands if kind == Command.FOLLOW_PATH]

    selected = engine.shards[0].selected_paths.item(transport.row)
    first, second, third = held[:3]
    assert followed(second, 7) == [7]
    assert followed(second, 8) == [], "a repetition"
    assert followed(first, 8) == [], "it is new to OpenSSL, but older"
    assert followed(third[:-1] + bytes([third[-1] ^ 1]), 8) == [], "not authentic"
    assert followed(third, selected) == [], "nothing to change"
    assert followed(third, 8) == []


async def test_records_of_data_in_one_datagram_are_bounded(
    engine: Engine, client: WebRtcClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.connect()
    engine.send_data([client.transport], Channel.RELIABLE, b"hello")
    await asyncio.wait_for(client.messages.get(), 10)
    transport = engine._transports[client.transport]
    held: list[bytes] = []
    receive = transport.receive_datagram
    monkeypatch.setattr(transport, "receive_datagram", lambda datagram, path: held.append(datagram))
    async with asyncio.timeout(10):
        while len(held) < MAX_RECORDS_PER_DATAGRAM + 2:
            client.channels["_lossy"].send("x")
            await asyncio.sleep(0.01)
    taken: list[bytes] = []
    monkeypatch.setattr(transport._data, "receive", taken.append)
    receive(b"".join(held[: MAX_RECORDS_PER_DATAGRAM + 2]), 0)
    assert len(taken) == MAX_RECORDS_PER_DATAGRAM
    assert transport._drops["dtls_records"] == 2


async def test_the_end_of_the_handshake_says_where_the_client_is(
    engine: Engine, client: WebRtcClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread = engine.shards[0].thread
    assert isinstance(thread, StandIn)
    take = engine.shards[0].mailbox.take_datagrams

    def elsewhere() -> list[Datagram]:
        return [datagram._replace(path=9) for datagram in take()]

    monkeypatch.setattr(engine.shards[0].mailbox, "take_datagrams", elsewhere)
    await client.connect(data=False)
    await next_of(engine, TransportConnected)
    assert [fields["other_row"] for kind, _, fields in thread.commands if kind == Command.FOLLOW_PATH] == [9]


async def test_expired_consent_ends_data_channels_and_timers(engine: Engine, client: WebRtcClient) -> None:
    await client.connect()
    await next_of(engine, ChannelOpened)
    thread = engine.shards[0].thread
    assert isinstance(thread, StandIn)
    engine.send_data([client.transport], Channel.RELIABLE, bytes(100_000))
    thread.notice(NoticeKind.CONSENT_EXPIRED, 0)
    assert await next_of(engine, TransportFailed) == TransportFailed(client.transport, "consent expired")
    await asyncio.sleep(0)
    transport = engine._transports[client.transport]
    assert (transport._data, transport._dtls, transport._timer) == (None, None, None)
    engine.send_data([client.transport], Channel.RELIABLE, b"into the void")


@pytest.mark.skipif(not any(":" in text for text in machine_addresses()), reason="this machine has no IPv6 address")
async def test_client_is_served_over_ipv6() -> None:
    engine = Engine(EngineOptions(udp_ports=(0,), node_ips=("::1",)), StandIn)
    await engine.start()
    client = WebRtcClient(engine)
    await client.connect()
    assert await next_of(engine, TransportConnected) == TransportConnected(client.transport)
    await client.close()
    await engine.stop()


async def test_one_message_reaches_many_in_pieces(engine: Engine) -> None:
    clients = [WebRtcClient(engine) for _ in range(4)]
    for each in clients:
        await each.connect()
    transports = [each.transport for each in clients]
    messages = [b"%d" % k for k in range(20)]
    for message in messages:
        engine.send_data(transports, Channel.RELIABLE, message)
    for each in clients:
        assert [(await each.messages.get())[1] for _ in messages] == messages
    for each in clients:
        await each.close()
