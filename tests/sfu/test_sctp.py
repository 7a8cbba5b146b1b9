"""Two ends of data channels joined in memory, and peers that misbehave."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator

import pytest
from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters
from aiortc.rtcsctptransport import DataChunk, SackChunk, serialize_packet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfu import sctp
from sfu.errors import TransportFailure
from sfu.parameters import Channel, DtlsRole

FIRST, LAST, UNORDERED = 2, 1, 4


class End:
    """One listener with its channels; what it sends waits in `outbox`."""

    def __init__(self) -> None:
        self.outbox: deque[bytes] = deque()
        self.opened: list[Channel] = []
        self.messages: list[tuple[Channel, bytes]] = []
        self.drops: Counter[str] = Counter()
        self.data = sctp.DataChannels(self, self.drops)

    def send_application_data(self, data: bytes) -> None:
        self.outbox.append(data)

    def channel_opened(self, channel: Channel) -> None:
        self.opened.append(channel)

    def message_received(self, channel: Channel, payload: bytes) -> None:
        self.messages.append((channel, payload))


async def exchange(one: End, other: End) -> None:
    """Carry packets until neither end has any; aiortc's own tasks get their turns."""
    for _ in range(5):
        await asyncio.sleep(0)
        while one.outbox or other.outbox:
            for sender, receiver in ((one, other), (other, one)):
                while sender.outbox:
                    receiver.data.receive(sender.outbox.popleft())


@pytest.fixture
async def ends() -> AsyncIterator[tuple[End, End]]:
    """(ours, which opens the channels; the peer's), connected."""
    ours, peer = End(), End()
    ours.data.start(DtlsRole.SERVER, 5000, 0, True)
    peer.data.start(DtlsRole.CLIENT, 5000, 65_536, False)
    await exchange(ours, peer)
    yield ours, peer
    ours.data.close()
    peer.data.close()
    await asyncio.sleep(0)


async def test_channels_open_on_both_ends(ends: tuple[End, End]) -> None:
    for end in ends:
        assert sorted(end.opened) == sorted(Channel)


@pytest.mark.parametrize("channel", Channel)
async def test_messages_go_both_ways(ends: tuple[End, End], channel: Channel) -> None:
    ours, peer = ends
    for payload in (b"", b"small", bytes(range(256)) * 100):
        ours.data.send(channel, payload)
        peer.data.send(channel, payload)
        await exchange(ours, peer)
        assert peer.messages.pop() == (channel, payload)
        assert ours.messages.pop() == (channel, payload)


async def test_reliable_messages_wait_for_the_channel_and_lossy_ones_do_not() -> None:
    ours, peer = End(), End()
    ours.data.send(Channel.RELIABLE, b"first")
    ours.data.send(Channel.LOSSY, b"lost")
    ours.data.start(DtlsRole.CLIENT, 5000, 0, False)
    ours.data.send(Channel.RELIABLE, b"second")
    peer.data.start(DtlsRole.SERVER, 5000, 0, True)
    await exchange(ours, peer)
    assert peer.messages == [(Channel.RELIABLE, b"first"), (Channel.RELIABLE, b"second")]
    assert ours.drops["data_not_open"] == 1
    ours.data.close()
    peer.data.close()


async def test_lossy_messages_are_dropped_while_8_kib_wait(ends: tuple[End, End]) -> None:
    ours, peer = ends
    for _ in range(200):
        ours.data.send(Channel.LOSSY, bytes(1000))
    dropped = ours.drops["data_lossy_full"]
    assert dropped > 150
    await exchange(ours, peer)
    assert len(peer.messages) == 200 - dropped


def send_much(end: End) -> None:
    for _ in range(200):
        end.data.send(Channel.RELIABLE, bytes(1000))


async def test_peer_that_does_not_read_reliable_messages_is_given_up(
    ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, _ = ends
    monkeypatch.setattr(sctp, "MAX_QUEUED_BYTES", 100_000)
    with pytest.raises(TransportFailure, match="too slowly"):
        send_much(ours)


async def test_bytes_waiting_for_the_channel_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sctp, "MAX_QUEUED_BYTES", 100_000)
    end = End()
    with pytest.raises(TransportFailure, match="too slowly"):
        send_much(end)


async def test_message_beyond_the_peers_maximum_is_dropped(ends: tuple[End, End]) -> None:
    ours, peer = ends
    peer.data.send(Channel.RELIABLE, bytes(65_537))
    await exchange(ours, peer)
    assert peer.drops["data_too_large"] == 1
    assert ours.messages == []


async def test_closed_channels_leave_no_timer_and_no_task(ends: tuple[End, End]) -> None:
    ours, peer = ends
    for channel in Channel:
        ours.data.send(channel, bytes(5000))
    ours.data.close()
    peer.data.close()
    for _ in range(3):
        await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    assert [handle for handle in loop._scheduled if not handle.cancelled()] == []  # type: ignore[attr-defined]
    assert asyncio.all_tasks() == {asyncio.current_task()}


def association_of(end: End) -> sctp._Association:
    association = end.data._association
    assert association is not None
    return association


async def test_message_waits_behind_those_that_wait_already(ends: tuple[End, End]) -> None:
    ours, peer = ends
    reliable = ours.data._channels[Channel.RELIABLE]
    ours.data.send(Channel.RELIABLE, b"small")
    assert reliable.bufferedAmount == 0
    payloads = [bytes(200_000), b"second", b"", b"fourth"]
    for payload in payloads:
        ours.data.send(Channel.RELIABLE, payload)
    assert reliable.bufferedAmount == len(b"second") + 1 + len(b"fourth")  # an empty message is sent as one byte
    await exchange(ours, peer)
    assert peer.messages == [(Channel.RELIABLE, payload) for payload in [b"small", *payloads]]
    assert reliable.bufferedAmount == 0


async def test_lifetime_that_the_peer_gave_its_channel_is_kept_to(ends: tuple[End, End]) -> None:
    ours, peer = ends
    ours.data._channels.clear()
    RTCDataChannel(association_of(peer), RTCDataChannelParameters(label="_lossy", ordered=False, maxPacketLifeTime=500))
    await exchange(ours, peer)
    now = time.time()
    ours.data.send(Channel.LOSSY, b"x")
    (chunk,) = association_of(ours)._sent_queue
    assert chunk._expiry is not None
    assert now + 0.5 <= chunk._expiry <= now + 1


RTO_S = 0.2


def with_short_timeout(end: End, monkeypatch: pytest.MonkeyPatch) -> sctp._Association:
    """The association of an end, which from now on takes a packet for lost after RTO_S."""
    association = association_of(end)
    monkeypatch.setattr(association, "_update_rto", lambda measured_s: None)
    association._rto = RTO_S
    return association


async def until_sent(end: End) -> float:
    """Wait until an end sends something; returns when that was."""
    for _ in range(1000):
        if end.outbox:
            break
        await asyncio.sleep(0.005)
    assert end.outbox
    return time.monotonic()


async def test_lost_message_is_sent_again_after_the_timeout_of_its_own(
    ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, peer = ends
    with_short_timeout(ours, monkeypatch)
    ours.data.send(Channel.RELIABLE, b"arrives")
    await exchange(ours, peer)
    await asyncio.sleep(RTO_S / 2)  # the timer of the first message still runs
    ours.data.send(Channel.RELIABLE, b"lost at first")
    ours.outbox.clear()
    sent = time.monotonic()
    assert await until_sent(ours) - sent >= RTO_S - 0.01  # not when the timer of the first message fires
    await exchange(ours, peer)
    assert peer.messages == [(Channel.RELIABLE, b"arrives"), (Channel.RELIABLE, b"lost at first")]


async def test_message_that_is_lost_twice_is_sent_a_third_time(
    ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, peer = ends
    with_short_timeout(ours, monkeypatch)
    ours.data.send(Channel.RELIABLE, b"lost twice")
    for _ in range(2):
        ours.outbox.clear()
        await until_sent(ours)
    await exchange(ours, peer)
    assert peer.messages == [(Channel.RELIABLE, b"lost twice")]


async def test_lost_lossy_message_is_given_up_and_the_next_one_comes(
    ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, peer = ends
    association = with_short_timeout(ours, monkeypatch)
    ours.data.send(Channel.LOSSY, b"lost")
    ours.outbox.clear()
    await until_sent(ours)
    ours.data.send(Channel.LOSSY, b"next")
    await exchange(ours, peer)
    assert peer.messages == [(Channel.LOSSY, b"next")]
    assert (len(association._sent_queue), association._flight_size) == (0, 0)


async def test_nothing_is_sent_again_and_no_timer_is_left_once_all_is_acknowledged(
    ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, peer = ends
    association = with_short_timeout(ours, monkeypatch)
    for _ in range(3):
        ours.data.send(Channel.RELIABLE, b"x")
        await exchange(ours, peer)
    await asyncio.sleep(1.5 * RTO_S)
    assert not ours.outbox
    assert association._t3_kept is None


async def test_timer_does_not_outlive_the_peers_abort(ends: tuple[End, End]) -> None:
    ours, peer = ends
    ours.data.send(Channel.RELIABLE, b"never acknowledged")
    ours.outbox.clear()
    association = association_of(ours)
    assert association._t3_kept is not None
    peer.data.close()
    await exchange(ours, peer)
    assert association._t3_kept is None


def packet_to(end: End, chunk: DataChunk | SackChunk) -> bytes:
    """A packet that the stack of `end` takes for its peer's."""
    association = end.data._association
    assert association is not None
    return serialize_packet(5000, 5000, association._local_verification_tag, chunk)


def fragment(end: End, ahead: int, flags: int, data: bytes = b"x", *, stream: int = 1, protocol: int = 53) -> bytes:
    """A DATA chunk `ahead` of the last TSN that `end` has received."""
    association = end.data._association
    assert association is not None
    assert association._last_received_tsn is not None
    chunk = DataChunk(flags=flags)
    chunk.tsn = (association._last_received_tsn + ahead) % (1 << 32)
    chunk.stream_id, chunk.protocol, chunk.user_data = stream, protocol, data
    return packet_to(end, chunk)


def receive_fragments(end: End, count: int, flags: int, data: bytes) -> None:
    for _ in range(count):
        end.data.receive(fragment(end, 1, flags, data))


async def test_message_without_end_costs_the_transport(ends: tuple[End, End]) -> None:
    ours, _ = ends
    ours.data.receive(fragment(ours, 1, FIRST | UNORDERED))
    with pytest.raises(TransportFailure, match="without end"):
        receive_fragments(ours, sctp.MAX_HELD_CHUNKS + 1, UNORDERED, b"x")


async def test_messages_without_end_are_counted_over_all_streams(
    ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, _ = ends
    monkeypatch.setattr(sctp, "MAX_HELD_CHUNKS", 20)

    def hold(fragments: range) -> None:
        for k in fragments:
            ours.data.receive(fragment(ours, 1, FIRST | UNORDERED, stream=10 + k))
            ours.data.receive(fragment(ours, 1, FIRST | LAST | UNORDERED, stream=1))  # whole: nothing of it is held

    hold(range(20))
    with pytest.raises(TransportFailure, match="without end"):
        hold(range(20, 21))


async def test_message_without_end_is_bounded_in_bytes_too(ends: tuple[End, End]) -> None:
    ours, _ = ends
    with pytest.raises(TransportFailure, match="without end"):
        receive_fragments(ours, sctp.MAX_HELD_BYTES // 1100 + 1, 0, bytes(1100))


async def test_data_beyond_a_gap_is_bounded(ends: tuple[End, End]) -> None:
    ours, peer = ends
    for ahead in range(2, 2 * sctp.MAX_MISORDERED):
        ours.data.receive(fragment(ours, ahead, FIRST | LAST))
    association = ours.data._association
    assert association is not None
    assert len(association._sack_misordered) == sctp.MAX_MISORDERED
    peer.outbox.clear()


async def test_stream_number_out_of_range_costs_the_transport(ends: tuple[End, End]) -> None:
    ours, _ = ends
    with pytest.raises(TransportFailure, match="out of range"):
        ours.data.receive(fragment(ours, 1, FIRST | LAST, stream=sctp.MAX_STREAMS))


async def test_sack_that_acknowledges_what_was_never_sent_is_ignored(ends: tuple[End, End]) -> None:
    ours, peer = ends
    association = ours.data._association
    assert association is not None
    sack = SackChunk()
    sack.cumulative_tsn = association._last_sacked_tsn
    sack.advertised_rwnd = 1 << 20
    sack.gaps = [(1, 65_535)] * 250
    ours.data.receive(packet_to(ours, sack))
    ours.data.send(Channel.RELIABLE, b"still alive")
    await exchange(ours, peer)
    assert peer.messages == [(Channel.RELIABLE, b"still alive")]


def not_utf8(end: End) -> bytes:
    """A string message that aiortc cannot decode."""
    return fragment(end, 1, FIRST | LAST | UNORDERED, b"\xff", protocol=51)


async def test_stack_that_chokes_on_a_packet_goes_on_and_is_given_up_after_many(ends: tuple[End, End]) -> None:
    ours, peer = ends
    for _ in range(sctp.MAX_ERRORS):
        ours.data.receive(not_utf8(ours))
    ours.data.send(Channel.RELIABLE, b"still alive")
    await exchange(ours, peer)
    assert peer.messages == [(Channel.RELIABLE, b"still alive")]
    with pytest.raises(TransportFailure, match="too many bad packets"):
        ours.data.receive(not_utf8(ours))
    assert ours.drops["sctp_error"] == sctp.MAX_ERRORS + 1


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=100), kind=st.sampled_from([0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 14, 130, 192]))
async def test_any_chunk_raises_nothing_but_transport_failure(body: bytes, kind: int) -> None:
    end = End()
    end.data.start(DtlsRole.SERVER, 5000, 0, True)
    association = end.data._association
    assert association is not None
    chunk = SackChunk()

    class AnyChunk(SackChunk):
        def __bytes__(self) -> bytes:
            raw = bytes([kind, 3]) + (len(body) + 4).to_bytes(2, "big") + body
            return raw + bytes(-len(raw) % 4)

    chunk = AnyChunk()
    tag = 0 if kind == 1 else association._local_verification_tag
    try:
        end.data.receive(serialize_packet(5000, 5000, tag, chunk))
    except TransportFailure:
        pass
    finally:
        end.data.close()
        await asyncio.sleep(0)
