"""The engine against a stand-in for its media thread: rows, commands, notices, events."""

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from sfu.control import serving
from sfu.engine import Engine, EngineError, EngineOptions, TableFull
from sfu.events import Event, LayersChanged, StreamStarted, SubscriptionPaused, SubscriptionStarted, TransportFailed
from sfu.parameters import (
    Channel,
    Codec,
    DtlsRole,
    Encoding,
    Extension,
    IceCredentials,
    Kind,
    LocalSubscription,
    MediaParameters,
    PayloadType,
    PublishParameters,
    RemoteTransport,
    SubscribeParameters,
    SubscriptionId,
    TrackId,
    TransportId,
)
from sfu.queues.control import push_slow
from sfu.queues.notices import notice
from sfu.schema.bandwidth_codes import Reason, Rung
from sfu.schema.capacities import COMMANDS, NOTICE_ROWS
from sfu.schema.codes import Command, NoticeKind, RowState
from sfu.schema.memory import Memory
from tests.sfu.support.stand_in import StandIn

AUDIO = PublishParameters(Kind.AUDIO, "0", (Encoding(ssrc=1000),))
VIDEO = PublishParameters(Kind.VIDEO, "1", (Encoding("q"), Encoding("h"), Encoding("f")))
SUBSCRIBE = SubscribeParameters("2", 96, 97, cname="somebody")
REMOTE = RemoteTransport(IceCredentials("peer", "p" * 22), (("sha-256", "AA:BB"),), DtlsRole.SERVER, 5000)
TABLES = ("transports", "tracks", "streams", "subscriptions", "connections", "paths", "sources")
EMPTY = dict.fromkeys((*TABLES, "packet_cache_bytes"), 0)


class Bench:
    """A started engine and its stand-in."""

    def __init__(self) -> None:
        self.engine = Engine(EngineOptions(udp_ports=(0,), node_ips=("127.0.0.1",)), self._make_thread)
        self.thread: StandIn

    def _make_thread(self, memory: Memory, on_exception: Callable[[BaseException], None]) -> StandIn:
        self.thread = StandIn(memory, on_exception)
        return self.thread

    def open_call(self) -> tuple[TransportId, TransportId, TrackId, LocalSubscription]:
        """Publisher's and subscriber's transport, the track, its subscription."""
        publisher, subscriber = self.engine.open_transport().id, self.engine.open_transport().id
        track = self.engine.publish(publisher, VIDEO)
        return publisher, subscriber, track, self.engine.subscribe(track, subscriber, SUBSCRIBE)

    async def settle(self) -> None:
        """Let commands reach the stand-in and its notices come back."""
        for _ in range(5):
            await asyncio.sleep(0.002)

    def announce(self, stream: int, announced: int) -> None:
        """What the media thread does when an SSRC is bound to a stream's row."""
        self.thread.memory.table("streams")[stream]["announced"] = announced
        self.thread.notice(NoticeKind.STREAM_STARTED, stream)

    def set_live(self, layers: int) -> None:
        """The layers of track 0 that advance."""
        self.thread.memory.table("tracks")[0]["live"] = layers
        self.thread.notice(NoticeKind.LAYERS_CHANGED, 0)

    def want_cache(self, size: int) -> None:
        """Another cache for stream 0."""
        self.thread.memory.table("streams")[0]["requested_bytes"] = size
        self.thread.notice(NoticeKind.CACHE_REQUESTED, 0)

    async def event(self) -> Event:
        return await asyncio.wait_for(self.engine.next_event(), 5)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    await made.engine.start()
    yield made
    await made.engine.stop()


async def test_transport_is_described_for_sdp(bench: Bench) -> None:
    one, other = bench.engine.open_transport(), bench.engine.open_transport()
    assert one.id != other.id
    assert (len(one.ice.ufrag), len(one.ice.password)) == (8, 24)
    assert (one.ice.ufrag + one.ice.password).isalnum()
    assert one.ice != other.ice
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint[0] == "sha-256"
    assert [(each.address, each.port) for each in one.candidates] == [("127.0.0.1", bench.engine.udp_port)]


async def test_rows_come_back_with_the_notice_and_not_before(bench: Bench) -> None:
    publisher, subscriber, _, _ = bench.open_call()
    await bench.settle()
    bench.thread.held = True
    used = bench.engine.usage()
    bench.engine.close_transport(publisher)
    bench.engine.close_transport(subscriber)
    await bench.settle()
    assert bench.engine.usage() == used
    assert used["streams"] == 3
    bench.thread.apply()
    await bench.settle()
    assert bench.engine.usage() == EMPTY


async def test_closing_a_transport_closes_what_hangs_on_it_first(bench: Bench) -> None:
    publisher, _, _, _ = bench.open_call()
    own = bench.engine.subscribe(bench.engine.publish(publisher, AUDIO), publisher, SUBSCRIBE)
    await bench.settle()
    bench.thread.commands.clear()
    bench.engine.close_transport(publisher)
    await bench.settle()
    kinds = [kind for kind, _, _ in bench.thread.commands]
    assert kinds == [
        Command.CLOSE_SUBSCRIPTION,
        Command.CLOSE_SUBSCRIPTION,
        Command.CLOSE_TRACK,
        Command.CLOSE_TRACK,
        Command.CLOSE_TRANSPORT,
    ]
    assert bench.engine.usage()["transports"] == 1
    with pytest.raises(EngineError):
        bench.engine.subscription_statistics(own.id)


async def test_unpublishing_closes_the_subscriptions(bench: Bench) -> None:
    _, _, track, subscription = bench.open_call()
    bench.engine.unpublish(track)
    await bench.settle()
    assert (bench.engine.usage()["subscriptions"], bench.engine.usage()["tracks"]) == (0, 0)
    bench.engine.unsubscribe(subscription.id)  # what signalling had not noticed yet
    bench.engine.unpublish(track)
    bench.engine.set_layers(subscription.id, 0, 0)
    bench.engine.request_key_frame(track)
    bench.engine.set_codecs(track, frozenset())


async def test_datagrams_of_transports_are_handled_in_turn(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "SLICE_S", 60.0)  # a first call of a kernel takes longer than a slice
    handled: list[int] = []
    for transport in [bench.engine._transports[bench.engine.open_transport().id] for _ in range(2)]:
        row = transport.row
        monkeypatch.setattr(transport, "receive_datagram", lambda _, __, row=row: handled.append(row))
    await bench.settle()
    for row in (0, 0, 0, 1):
        push_slow(bench.thread.memory.record, row, 0, 0, 4)
    bench.engine._serving.serve(bench.engine.shards[0])
    assert handled == [0, 1, 0, 0]


async def test_a_message_is_on_its_senders_account(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    senders: list[object] = []
    monkeypatch.setattr(bench.engine._fanout, "send", lambda sender, *_: senders.append(sender))
    one, other = bench.engine.open_transport().id, bench.engine.open_transport().id
    bench.engine.send_data([other], Channel.RELIABLE, b"x", one)
    bench.engine.send_data([other], Channel.RELIABLE, b"x")
    assert senders == [bench.engine._transports[one], None]


async def test_what_never_was_is_an_error(bench: Bench) -> None:
    publisher, _, track, _ = bench.open_call()
    engine = bench.engine
    nobody, nothing, none = TransportId(99), TrackId(99), SubscriptionId(99)
    engine.close_transport(nobody)
    engine.send_data([nobody], Channel.RELIABLE, b"x")
    for call in (
        lambda: engine.connect(nobody, REMOTE),
        lambda: engine.restart_ice(nobody),
        lambda: engine.set_media(nobody, MediaParameters()),
        lambda: engine.open_channels(nobody),
        lambda: engine.publish(nobody, AUDIO),
        lambda: engine.unpublish(nothing),
        lambda: engine.request_key_frame(nothing),
        lambda: engine.set_codecs(nothing, frozenset()),
        lambda: engine.subscribe(nothing, publisher, SUBSCRIBE),
        lambda: engine.subscribe(track, nobody, SUBSCRIBE),
        lambda: engine.unsubscribe(none),
        lambda: engine.set_layers(none, 0, 0),
        lambda: engine.set_paused(none, True),
        lambda: engine.track_statistics(nothing),
        lambda: engine.subscription_statistics(none),
    ):
        with pytest.raises(EngineError):
            call()


async def test_layers_out_of_range_are_refused(bench: Bench) -> None:
    subscription = bench.open_call()[3].id
    for spatial, temporal in ((3, 0), (0, 4), (-1, 0), (0, -1)):
        with pytest.raises(EngineError, match="layers"):
            bench.engine.set_layers(subscription, spatial, temporal)


async def test_settings_become_commands(bench: Bench) -> None:
    _, _, track, subscription = bench.open_call()
    await bench.settle()
    bench.thread.commands.clear()
    bench.engine.set_layers(subscription.id, 2, 3, 1, 1 << 40)
    bench.engine.set_paused(subscription.id, True)
    bench.engine.request_key_frame(track)
    for _ in range(2):
        bench.engine.set_codecs(track, frozenset({Codec.VP8, Codec.AV1}))
    for _ in range(2):
        bench.engine.set_resting(track, [2, 1, 7])
    await bench.settle()
    codecs = 1 << Codec.VP8 | 1 << Codec.AV1
    assert bench.thread.commands == [
        (Command.SET_LAYERS, 0, {"spatial": 2, "temporal": 3, "priority": 1, "pixels": 0x7FFFFFFF}),
        (Command.SET_PAUSED, 0, {"paused": 1}),
        (Command.REQUEST_KEY_FRAME, 0, {}),
        (Command.SET_CODECS, 0, {"codecs": codecs}),
        (Command.SET_RESTING, 0, {"layers": 0b110}),
    ]


async def test_a_subscription_can_begin_paused(bench: Bench) -> None:
    _, subscriber, track, _ = bench.open_call()
    await bench.settle()
    bench.thread.commands.clear()
    bench.engine.subscribe(track, subscriber, SUBSCRIBE)
    bench.engine.subscribe(track, subscriber, replace(SUBSCRIBE, paused=True))
    await bench.settle()
    assert [(kind, fields["paused"]) for kind, _, fields in bench.thread.commands] == [
        (Command.OPEN_SUBSCRIPTION, 0),
        (Command.OPEN_SUBSCRIPTION, 1),
    ]


async def test_a_subscription_begins_with_the_layers_that_are_wanted(bench: Bench) -> None:
    _, subscriber, track, _ = bench.open_call()
    await bench.settle()
    pushed = []
    for parameters in (SUBSCRIBE, replace(SUBSCRIBE, spatial=0, temporal=1, silence=True, paused=True)):
        bench.engine.subscribe(track, subscriber, parameters)
        await bench.settle()
        kind, _, fields = bench.thread.commands[-1]
        pushed.append((kind, {name: fields[name] for name in ("paused", "silent", "spatial", "temporal")}))
    assert pushed == [
        (Command.OPEN_SUBSCRIPTION, {"paused": 0, "silent": 0, "spatial": 2, "temporal": 3}),
        (Command.OPEN_SUBSCRIPTION, {"paused": 1, "silent": 1, "spatial": 0, "temporal": 1}),
    ]
    used = bench.engine.usage()
    for wrong in (replace(SUBSCRIBE, spatial=3), replace(SUBSCRIBE, temporal=-1)):
        with pytest.raises(EngineError):
            bench.engine.subscribe(track, subscriber, wrong)
    assert bench.engine.usage() == used


async def test_full_tables_refuse_and_leave_no_trace(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher, subscriber, track, _ = bench.open_call()
    used = bench.engine.usage()
    for table in (
        bench.engine.shards[0].tables.subscriptions,
        bench.engine.shards[0].tables.tracks,
        bench.engine.shards[0].tables.transports,
    ):
        monkeypatch.setattr(table, "_capacity", 0)
    ssrcs = [set(transport.ssrcs.taken) for transport in bench.engine._transports.values()]
    with pytest.raises(TableFull):
        bench.engine.subscribe(track, subscriber, SUBSCRIBE)
    with pytest.raises(TableFull):
        bench.engine.publish(publisher, AUDIO)
    with pytest.raises(TableFull):
        bench.engine.open_transport()
    assert bench.engine.usage() == used
    assert [transport.ssrcs.taken for transport in bench.engine._transports.values()] == ssrcs


async def test_ssrcs_differ_from_each_other_and_from_the_clients(bench: Bench) -> None:
    publisher, subscriber, track, first = bench.open_call()
    bench.engine.publish(subscriber, AUDIO)
    second = bench.engine.subscribe(track, subscriber, SUBSCRIBE)
    third = bench.engine.subscribe(track, subscriber, SubscribeParameters("3", 96))
    assert third.rtx_ssrc == 0
    ours = {first.ssrc, first.rtx_ssrc, second.ssrc, second.rtx_ssrc, third.ssrc}
    assert len(ours - {0}) == 5
    transport = bench.engine._transports[subscriber]
    assert ours | {1000} < transport.ssrcs.taken
    bench.engine.unpublish(track)
    await bench.settle()
    assert ours.isdisjoint(transport.ssrcs.taken)
    assert 1000 in transport.ssrcs.taken
    assert publisher in bench.engine._transports


async def test_commands_that_the_queue_cannot_take_are_sent_later(bench: Bench) -> None:
    subscription = bench.open_call()[3].id
    await bench.settle()
    bench.thread.commands.clear()
    bench.thread.held = True
    _, subscriber, track, _ = bench.open_call()
    for k in range(COMMANDS + 50):
        bench.engine.set_paused(subscription, bool(k & 1))  # of what waits, only the newest
    opened = [bench.engine.subscribe(track, subscriber, SUBSCRIBE) for _ in range(50)]
    bench.thread.held = False
    bench.thread.apply()
    await bench.settle()
    assert [kind for kind, _, _ in bench.thread.commands].count(Command.OPEN_SUBSCRIPTION) == 1 + len(opened)
    assert bench.thread.commands[-1] == (Command.SET_PAUSED, 0, {"paused": 1})
    assert len(bench.thread.commands) == COMMANDS + len(opened) + 1


async def test_media_maps_are_never_written_where_they_are_in_use(bench: Bench) -> None:
    transport = bench.engine.open_transport().id
    await bench.settle()
    bench.thread.held = True
    for number in range(100, 110):
        bench.engine.set_media(transport, MediaParameters({number: PayloadType(Codec.VP8, 90_000)}, {1: Extension.MID}))
    media = bench.engine.shards[0].memory.table("media")
    assert not media[0]["codec_of_pt"].any()  # the row in use
    assert [media[row]["codec_of_pt"].nonzero()[0].tolist() for row in (1, 2, 3)] == [[100], [101], [102]]
    bench.thread.held = False
    bench.thread.apply()
    await bench.settle()
    in_use = int(bench.engine.shards[0].memory.table("transports")[0]["media"])
    assert media[in_use]["codec_of_pt"].nonzero()[0].tolist() == [109]


async def test_media_that_does_not_change_costs_no_command(bench: Bench) -> None:
    transport = bench.engine.open_transport().id
    media = MediaParameters({100: PayloadType(Codec.VP8, 90_000)})
    bench.engine.set_media(transport, media)
    await bench.settle()
    bench.thread.commands.clear()
    bench.engine.set_media(transport, media)
    await bench.settle()
    assert bench.thread.commands == []


async def test_ice_restarts_in_quick_succession_end_with_the_last_credentials(bench: Bench) -> None:
    transport = bench.engine.open_transport()
    await bench.settle()
    bench.thread.held = True
    restarts = [bench.engine.restart_ice(transport.id) for _ in range(3)]
    record = bench.engine.shards[0].memory.table("transports")[0]
    assert record["next_ufrag"] == int.from_bytes(restarts[0].ice.ufrag.encode(), "little")
    bench.thread.held = False
    bench.thread.apply()
    await bench.settle()
    assert record["ufrag"][0] == int.from_bytes(restarts[2].ice.ufrag.encode(), "little")
    assert record["password"][0].tobytes() == restarts[2].ice.password.encode()
    assert len({each.ice.ufrag for each in restarts} | {transport.ice.ufrag}) == 4


async def test_changed_fingerprint_or_role_is_refused_and_new_ice_is_not(bench: Bench) -> None:
    transport = bench.engine.open_transport().id
    bench.engine.connect(transport, REMOTE)
    bench.engine.connect(transport, RemoteTransport(IceCredentials("new", "n" * 22), REMOTE.fingerprints, REMOTE.role))
    for fingerprints, role in ((("sha-256", "CC"),), REMOTE.role), (REMOTE.fingerprints, DtlsRole.CLIENT):
        with pytest.raises(EngineError, match="fingerprint or role"):
            bench.engine.connect(transport, RemoteTransport(REMOTE.ice, fingerprints, role))


async def test_notices_become_events_of_signallings_numbers(bench: Bench) -> None:
    publisher, subscriber, track, subscription = bench.open_call()
    await bench.settle()
    bench.announce(2, 77 | Codec.VP8 << 32 | 96 << 40)
    assert await bench.event() == StreamStarted(track, 2, 77, Codec.VP8, 96)
    bench.set_live(0b101)
    assert await bench.event() == LayersChanged(track, 0b101)
    bench.thread.notice(NoticeKind.SUBSCRIPTION_STARTED, 0)
    assert await bench.event() == SubscriptionStarted(subscription.id)
    for rung in (Rung.PAUSED, Rung.LOWEST):
        bench.thread.memory.table("subscriptions")[0]["rung"] = rung
        bench.thread.notice(NoticeKind.ALLOWANCE_CHANGED, 0)
        assert await bench.event() == SubscriptionPaused(subscription.id, rung == Rung.PAUSED)
    bench.thread.notice(NoticeKind.CONSENT_EXPIRED, 0)
    assert await bench.event() == TransportFailed(publisher, "consent expired")
    bench.thread.notice(NoticeKind.CONSENT_EXPIRED, 0)  # once is enough
    bench.thread.notice(NoticeKind.TRANSPORT_BROKEN, 1)
    assert await bench.event() == TransportFailed(subscriber, "internal error")


async def test_notices_about_an_earlier_use_of_a_row_are_ignored(bench: Bench) -> None:
    memory = bench.thread.memory
    for kind in (
        NoticeKind.STREAM_STARTED,
        NoticeKind.CACHE_REQUESTED,
        NoticeKind.CACHE_LEFT,
        NoticeKind.LAYERS_CHANGED,
        NoticeKind.SUBSCRIPTION_STARTED,
    ):
        notice(memory.record, kind, 0)
    for kind in (NoticeKind.PATH_SELECTED, NoticeKind.CONSENT_EXPIRED, NoticeKind.TRANSPORT_BROKEN):
        notice(memory.record, kind, 0)  # and the control thread has not looked yet
    _, _, track, _ = bench.open_call()
    await bench.settle()
    used = bench.engine.usage()
    for kind in (
        NoticeKind.SUBSCRIPTION_STARTED,
        NoticeKind.ALLOWANCE_CHANGED,
        NoticeKind.CLOSED_SUBSCRIPTION,
        *range(NoticeKind.LAYERS_CHANGED, len(NOTICE_ROWS)),
    ):
        bench.thread.notice(kind, 3000)  # nobody has it
    bench.announce(0, 77 | 200 << 32)  # no such codec
    bench.set_live(1)
    assert await bench.event() == LayersChanged(track, 1)
    assert bench.engine.usage() == used


async def test_rows_that_the_media_thread_closes_itself_are_freed(bench: Bench) -> None:
    publisher, subscriber, _, _ = bench.open_call()
    await bench.settle()
    bench.engine.shards[0].memory.table("tracks")[0]["state"] = 0
    bench.engine.shards[0].memory.table("transports")[0]["state"] = 0
    bench.thread.notice(NoticeKind.CLOSED_TRACK, 0)
    bench.thread.notice(NoticeKind.CLOSED_TRANSPORT, 0)
    assert await bench.event() == TransportFailed(publisher, "internal error")
    bench.engine.close_transport(publisher)
    bench.engine.close_transport(subscriber)
    await bench.settle()
    assert bench.engine.usage() == EMPTY


async def test_speaking_tracks_are_listed(bench: Bench) -> None:
    publisher = bench.engine.open_transport().id
    tracks = [bench.engine.publish(publisher, PublishParameters(Kind.AUDIO, mid, (Encoding(),))) for mid in "abc"]
    await bench.settle()
    streams = bench.engine.shards[0].memory.table("streams")
    streams["state"][:3] = RowState.OPEN
    streams["level"][:3] = (0.5, 0.0, 0.25)
    bench.engine.shards[0].memory.thread["stream_end"] = 3
    assert bench.engine.audio_levels() == [(tracks[0], 0.5), (tracks[2], 0.25)]
    streams["state"][0] = 0
    assert bench.engine.audio_levels() == [(tracks[2], 0.25)]


async def test_statistics_read_the_columns(bench: Bench) -> None:
    _, _, track, subscription = bench.open_call()
    memory = bench.engine.shards[0].memory
    memory.table("tracks")[0]["live"] = 0b010
    for row, (received, lost) in enumerate(((10, 1), (20, 0), (30, -2))):
        stream = memory.table("streams")[row]
        stream["received"], stream["lost"], stream["bytes"], stream["bitrate_bps"] = received, lost, 100, 1000 * row
    memory.table("streams")[1]["jitter"], memory.table("streams")[1]["clock_rate"] = 16 * 900, 90_000
    numbers = bench.engine.track_statistics(track)
    assert (numbers.packets, numbers.bytes, numbers.lost, numbers.jitter_ms) == (60, 300, -1, 10.0)
    assert [(layer.live, layer.bitrate_bps) for layer in numbers.layers] == [(False, 0), (True, 1000), (False, 2000)]
    row = memory.table("subscriptions")[0]
    row["own_fraction"], row["packets"], row["layer"], row["temporal"], row["retransmitted"] = 64, 5, 1, 2, 3
    memory.table("transports")[1]["rtt_ns"] = 20_000_000
    row["preferred_spatial"], row["preferred_temporal"], row["allowed_spatial"], row["allowed_temporal"] = 2, 3, 2, 3
    sent = bench.engine.subscription_statistics(subscription.id)
    assert (sent.lost_fraction, sent.rtt_ms, sent.layer, sent.temporal, sent.retransmitted) == (0.25, 20.0, 1, 2, 3)
    assert (sent.preferred, sent.allowed, sent.reason) == ((2, 3), (2, 3), "key_frame")
    row["allowed_spatial"], row["target_layer"], row["reason"] = 1, 1, Reason.BANDWIDTH
    sent = bench.engine.subscription_statistics(subscription.id)
    assert (sent.allowed, sent.reason) == ((1, 3), "bandwidth")
    assert bench.engine.drops()["srtp_auth"] == 0


@pytest.mark.parametrize(("codec", "layer"), [(Codec.VP9, 2), (Codec.AV1, 2), (Codec.VP8, 0)])
async def test_the_layer_of_a_single_stream_is_the_spatial_one_inside_it(
    bench: Bench, codec: Codec, layer: int
) -> None:
    publisher, subscriber = bench.engine.open_transport().id, bench.engine.open_transport().id
    track = bench.engine.publish(publisher, PublishParameters(Kind.VIDEO, "1", (Encoding(),)))
    subscription = bench.engine.subscribe(track, subscriber, SUBSCRIBE)
    memory = bench.engine.shards[0].memory
    memory.table("streams")[0]["codec"] = codec
    row = memory.table("subscriptions")[0]
    row["stream"], row["spatial"], row["layer"] = 0, 2, -1
    assert bench.engine.subscription_statistics(subscription.id).layer == -1
    row["layer"] = 0
    assert bench.engine.subscription_statistics(subscription.id).layer == layer


async def test_port_in_use_is_an_os_error(bench: Bench) -> None:
    second = Engine(EngineOptions(udp_ports=(bench.engine.udp_port,)), StandIn)
    with pytest.raises(OSError, match="in use"):
        await second.start()


async def test_there_are_no_transports_before_the_start_and_after_the_end() -> None:
    bench = Bench()
    with pytest.raises(EngineError, match="does not run"):
        bench.engine.open_transport()
    await bench.engine.start()
    transport = bench.engine.open_transport()
    await bench.engine.stop()
    bench.engine.close_transport(transport.id)
    with pytest.raises(EngineError, match="does not run"):
        bench.engine.open_transport()
    assert bench.engine.usage() == EMPTY


async def test_200_calls_leave_nothing_behind(bench: Bench) -> None:
    async def call() -> None:
        publisher, subscriber, track, _ = bench.open_call()
        bench.engine.connect(publisher, REMOTE)
        bench.engine.open_channels(publisher)
        bench.engine.send_data([publisher, subscriber], Channel.RELIABLE, bytes(1000))
        bench.engine.request_key_frame(track)
        bench.engine.restart_ice(subscriber)
        await asyncio.sleep(0)
        bench.engine.close_transport(publisher)
        bench.engine.close_transport(subscriber)

    def held() -> tuple[int, set[asyncio.Task[object]], int]:
        gc.collect()
        return len(os.listdir("/proc/self/fd")), asyncio.all_tasks(), len(gc.get_objects())

    for _ in range(20):
        await call()
    await bench.settle()
    descriptors, tasks, objects = held()
    for _ in range(200):
        await call()
    await bench.settle()
    bench.thread.commands.clear()
    after = held()
    assert after[:2] == (descriptors, tasks)
    assert after[2] < objects + 200  # less than one object for each call
    assert bench.engine.usage() == EMPTY
    owners = bench.engine._owners[bench.engine.shards[0]]
    assert not owners.transports
    assert not owners.tracks
    assert not owners.subscriptions


async def test_stop_closes_what_is_open_and_every_descriptor() -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    bench = Bench()
    await bench.engine.start()
    bench.open_call()
    await bench.settle()
    await bench.engine.stop()
    assert bench.thread.stopped
    assert bench.engine.usage() == EMPTY
    assert len(os.listdir("/proc/self/fd")) == before
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_thread_that_does_not_answer_cannot_hold_up_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfu.engine.STOP_TIMEOUT_S", 0.05)
    bench = Bench()
    await bench.engine.start()
    bench.open_call()
    bench.thread.held = True
    await bench.engine.stop()
    assert bench.thread.stopped


async def test_thread_that_fails_to_start_is_an_error_and_leaves_nothing_open() -> None:
    class Failing(StandIn):
        def start(self) -> None:
            self.failed = True

    before = len(os.listdir("/proc/self/fd"))
    engine = Engine(EngineOptions(udp_ports=(0,)), Failing)
    with pytest.raises(RuntimeError, match="media thread"):
        await engine.start()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_stream_gets_another_cache_and_the_old_one_comes_back(bench: Bench) -> None:
    bench.open_call()
    await bench.settle()
    shard = bench.engine.shards[0]
    caches, stream = shard.tables.caches, bench.engine._owners[shard].tracks[0].streams[0]
    before = stream.cache_bytes
    others = caches.used_bytes - before
    bench.want_cache(4 * before)
    await bench.settle()
    bench.want_cache(8 * before)  # the first change is on its way
    await bench.settle()
    assert (stream.cache_bytes, caches.used_bytes) == (4 * before, 5 * before + others)
    kind, row, fields = bench.thread.commands[-1]
    assert (kind, row, fields["layer"], fields["cache_bytes"]) == (Command.CHANGE_CACHE, 0, 0, 4 * before)
    assert fields["cache_start"] == stream.cache_start
    bench.thread.notice(NoticeKind.CACHE_LEFT, 0)
    await bench.settle()
    assert caches.used_bytes == 4 * before + others
    bench.want_cache(before)
    await bench.settle()
    bench.engine.unpublish(next(iter(bench.engine._owners[shard].tracks.values())).id)
    await bench.settle()
    assert caches.used_bytes == 0
