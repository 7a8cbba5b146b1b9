"""Two ends of data channels joined in memory."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters

from sfu.control.data import backlog, sctp
from sfu.control.data.association import Association
from sfu.parameters import Channel, DtlsRole
from tests.sfu.support.data_ends import End, association_of, exchange, joined


@pytest.fixture
async def ends() -> AsyncIterator[tuple[End, End]]:
    """(ours, which opens the channels; the peer's), connected."""
    async with joined() as both:
        yield both


async def test_channels_open_on_both_ends(ends: tuple[End, End]) -> None:
    for end in ends:
        assert sorted(end.opened) == sorted(Channel)


@pytest.mark.parametrize("channel", Channel)
async def test_messages_go_both_ways(ends: tuple[End, End], channel: Channel) -> None:
    ours, peer = ends
    for payload in (b"", b"small", bytes(range(256)) * 100):
        ours.send(channel, payload)
        peer.send(channel, payload)
        await exchange(ours, peer)
        assert peer.messages.pop() == (channel, payload)
        assert ours.messages.pop() == (channel, payload)


async def test_reliable_messages_wait_for_the_channel_and_lossy_ones_do_not() -> None:
    ours, peer = End(), End()
    ours.send(Channel.RELIABLE, b"first")
    ours.send(Channel.LOSSY, b"lost")
    ours.data.start(DtlsRole.CLIENT, 5000, 0, False)
    ours.send(Channel.RELIABLE, b"second")
    peer.data.start(DtlsRole.SERVER, 5000, 0, True)
    await exchange(ours, peer)
    assert peer.messages == [(Channel.RELIABLE, b"first"), (Channel.RELIABLE, b"second")]
    assert ours.drops["data_not_open"] == 1
    ours.data.close()
    peer.data.close()


async def test_lossy_messages_are_dropped_while_8_kib_wait(ends: tuple[End, End]) -> None:
    ours, peer = ends
    for _ in range(200):
        ours.send(Channel.LOSSY, bytes(1000))
    dropped = ours.drops["data_lossy_full"]
    assert dropped > 150
    await exchange(ours, peer)
    assert len(peer.messages) == 200 - dropped


class Sender:
    """The window of who sends messages."""

    def __init__(self) -> None:
        self.held = 0

    def hold_window(self, size: int) -> None:
        self.held += size

    def release_window(self, size: int) -> None:
        self.held -= size


LAG = 100_000
"""What a receiver may lag in these tests."""


@pytest.fixture
def small_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    """LAG is the most that a receiver may lag."""
    monkeypatch.setattr(backlog, "MAX_LAG_BYTES", LAG)


def numbered(count: int, size: int = 1000) -> list[bytes]:
    return [number.to_bytes(size, "big") for number in range(count)]


def send_numbered(end: End, count: int = 200) -> Sender:
    """Send reliable messages that come from one sender. Returns that sender."""
    sender = Sender()
    for message in numbered(count):
        end.send(Channel.RELIABLE, message, sender)
    return sender


async def test_slow_receiver_holds_its_sender_back_and_gets_everything(ends: tuple[End, End], small_lag: None) -> None:
    ours, peer = ends
    sender = send_numbered(ours)
    assert ours.data._backlog.size > LAG
    assert sender.held == ours.data._backlog.size - LAG // 1256 * 1256
    await exchange(ours, peer)
    assert sender.held == ours.ledger.total == 0
    assert [payload for _, payload in peer.messages] == numbered(200)
    assert not ours.drops


async def test_receiver_that_is_not_far_behind_holds_nobody_back(ends: tuple[End, End]) -> None:
    ours, _ = ends
    sender = send_numbered(ours)
    assert (sender.held, ours.ledger.total > 100_000) == (0, True)


async def test_messages_that_wait_for_the_channel_hold_their_sender_back_too(small_lag: None) -> None:
    end = End()
    sender = send_numbered(end)
    assert sender.held > 0
    end.data.close()
    assert sender.held == end.ledger.total == 0


async def test_what_nobody_can_be_held_back_for_is_dropped_beyond_the_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "MAX_LAG_BYTES", 4_000)
    end = End()
    for _ in range(10):
        end.send(Channel.RELIABLE, bytes(1_000))
    assert 4_000 < end.ledger.total < 6_000
    assert end.drops["data_beyond_lag"] > 0
    end.data.close()


async def test_lossy_messages_do_not_wait_for_the_reliable_backlog(ends: tuple[End, End]) -> None:
    ours, peer = ends
    for message in numbered(2000):
        ours.send(Channel.RELIABLE, message)
    ours.send(Channel.LOSSY, b"news")
    await exchange(ours, peer)
    assert peer.messages.index((Channel.LOSSY, b"news")) < 40
    assert [payload for channel, payload in peer.messages if channel is Channel.RELIABLE] == numbered(2000)


async def test_reliable_backlog_does_not_wait_for_lossy_messages(ends: tuple[End, End]) -> None:
    ours, peer = ends
    for message in numbered(20):
        ours.send(Channel.RELIABLE, message)
    for _ in range(1000):  # always as many lossy messages as are taken
        ours.send(Channel.LOSSY, bytes(1000))
        if ours.outbox:
            peer.data.receive(ours.outbox.popleft())
        while peer.outbox:
            ours.data.receive(peer.outbox.popleft())
    assert [payload for channel, payload in peer.messages if channel is Channel.RELIABLE] == numbered(20)


class Stalling:
    """A clock of seconds at which a receiver that holds a sender back is looked at."""

    def __init__(self, end: End) -> None:
        self._end = end

    def pass_seconds(self, count: int) -> None:
        for _ in range(count):
            timer = self._end.data._stall
            if timer is None:
                return
            timer.cancel()
            self._end.data._look_after_stall()


async def test_receiver_that_takes_nothing_loses_its_reliable_channel_only(
    ends: tuple[End, End], small_lag: None
) -> None:
    ours, peer = ends
    sender = send_numbered(ours)
    clock = Stalling(ours)
    clock.pass_seconds(sctp.STALL_POLLS - 1)
    assert sender.held > 0
    clock.pass_seconds(1)
    assert sender.held == ours.ledger.total == 0
    waited = ours.drops["data_stalled"]
    assert waited > 100
    ours.send(Channel.RELIABLE, b"nobody waits for it", sender)
    assert (sender.held, ours.drops["data_stalled"]) == (0, waited + 1)
    ours.send(Channel.LOSSY, b"still there")
    await exchange(ours, peer)
    assert (Channel.LOSSY, b"still there") in peer.messages
    assert peer.data._channels[Channel.RELIABLE].readyState == "closed"
    assert peer.data._channels[Channel.LOSSY].readyState == "open"


async def test_receiver_that_takes_a_chunk_now_and_then_is_no_better(ends: tuple[End, End], small_lag: None) -> None:
    ours, peer = ends
    sender = send_numbered(ours)
    clock = Stalling(ours)
    for _ in range(sctp.STALL_POLLS):
        clock.pass_seconds(1)
        peer.data.receive(ours.outbox.popleft())
        ours.data.receive(peer.outbox.popleft())
    clock.pass_seconds(1)
    assert sender.held == 0
    assert ours.drops["data_stalled"] > 100


async def test_slow_receiver_that_goes_on_taking_is_waited_for(ends: tuple[End, End], small_lag: None) -> None:
    ours, peer = ends
    sender = send_numbered(ours, 1000)
    clock = Stalling(ours)
    for _ in range(3 * sctp.STALL_POLLS):
        clock.pass_seconds(1)
        for _ in range(3):
            peer.data.receive(ours.outbox.popleft())
            while peer.outbox:
                ours.data.receive(peer.outbox.popleft())
    assert sender.held > 0
    await exchange(ours, peer)
    assert (sender.held, len(peer.messages), sum(ours.drops.values())) == (0, 1000, 0)
    assert ours.data._stall is None or not ours.data._backlog.holds_back


async def test_peer_whose_channel_does_not_open_misses_what_waited_and_gets_what_comes_then(
    small_lag: None,
) -> None:
    ours, peer = End(), End()
    sender = send_numbered(ours)
    Stalling(ours).pass_seconds(sctp.STALL_POLLS)
    assert (sender.held, ours.drops["data_stalled"]) == (0, 200)
    ours.data.start(DtlsRole.SERVER, 5000, 0, True)
    peer.data.start(DtlsRole.CLIENT, 5000, 0, False)
    await exchange(ours, peer)
    ours.send(Channel.RELIABLE, b"now")
    await exchange(ours, peer)
    assert peer.messages == [(Channel.RELIABLE, b"now")]
    ours.data.close()
    peer.data.close()


async def test_backlog_of_a_peer_that_aborts_is_forgotten(ends: tuple[End, End], small_lag: None) -> None:
    ours, peer = ends
    sender = send_numbered(ours)
    peer.data.close()
    await exchange(ours, peer)
    assert sender.held == ours.ledger.total == 0


async def test_message_beyond_the_peers_maximum_is_dropped(ends: tuple[End, End]) -> None:
    ours, peer = ends
    peer.send(Channel.RELIABLE, bytes(65_537))
    await exchange(ours, peer)
    assert peer.drops["data_too_large"] == 1
    assert ours.messages == []


async def test_closed_channels_leave_no_timer_and_no_task(ends: tuple[End, End]) -> None:
    ours, peer = ends
    for channel in Channel:
        ours.send(channel, bytes(5000))
    ours.data.close()
    peer.data.close()
    for _ in range(3):
        await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    assert [handle for handle in loop._scheduled if not handle.cancelled()] == []  # type: ignore[attr-defined]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_message_waits_behind_those_that_wait_already(ends: tuple[End, End]) -> None:
    ours, peer = ends
    ours.send(Channel.RELIABLE, b"small")
    assert not ours.data._backlog
    payloads = [bytes(200_000), b"second", b"", b"fourth"]
    for payload in payloads:
        ours.send(Channel.RELIABLE, payload)
    assert len(ours.data._backlog) == 3
    await exchange(ours, peer)
    assert peer.messages == [(Channel.RELIABLE, payload) for payload in [b"small", *payloads]]
    assert (len(ours.data._backlog), ours.data._backlog.size) == (0, 0)


async def test_lifetime_that_the_peer_gave_its_channel_is_kept_to(ends: tuple[End, End]) -> None:
    ours, peer = ends
    ours.data._channels.clear()
    RTCDataChannel(association_of(peer), RTCDataChannelParameters(label="_lossy", ordered=False, maxPacketLifeTime=500))
    await exchange(ours, peer)
    now = time.time()
    ours.send(Channel.LOSSY, b"x")
    (chunk,) = association_of(ours)._sent_queue
    assert chunk._expiry is not None
    assert now + 0.5 <= chunk._expiry <= now + 1


RTO_S = 0.2


def with_short_timeout(end: End, monkeypatch: pytest.MonkeyPatch) -> Association:
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


@pytest.mark.alone
async def test_lost_message_is_sent_again_after_the_timeout_of_its_own(
    ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, peer = ends
    with_short_timeout(ours, monkeypatch)
    ours.send(Channel.RELIABLE, b"arrives")
    await exchange(ours, peer)
    await asyncio.sleep(RTO_S / 2)  # the timer of the first message still runs
    ours.send(Channel.RELIABLE, b"lost at first")
    ours.outbox.clear()
    sent = time.monotonic()
    assert await until_sent(ours) - sent >= RTO_S - 0.01  # not when the timer of the first message fires
    await exchange(ours, peer)
    assert peer.messages == [(Channel.RELIABLE, b"arrives"), (Channel.RELIABLE, b"lost at first")]


@pytest.mark.alone
async def test_message_that_is_lost_twice_is_sent_a_third_time(
    ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, peer = ends
    with_short_timeout(ours, monkeypatch)
    ours.send(Channel.RELIABLE, b"lost twice")
    for _ in range(2):
        ours.outbox.clear()
        await until_sent(ours)
    await exchange(ours, peer)
    assert peer.messages == [(Channel.RELIABLE, b"lost twice")]


@pytest.mark.alone
async def test_lost_lossy_message_is_given_up_and_the_next_one_comes(
    ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, peer = ends
    association = with_short_timeout(ours, monkeypatch)
    ours.send(Channel.LOSSY, b"lost")
    ours.outbox.clear()
    await until_sent(ours)
    ours.send(Channel.LOSSY, b"next")
    await exchange(ours, peer)
    assert peer.messages == [(Channel.LOSSY, b"next")]
    assert (len(association._sent_queue), association._flight_size) == (0, 0)


@pytest.mark.alone
async def test_nothing_is_sent_again_and_no_timer_is_left_once_all_is_acknowledged(
    ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, peer = ends
    association = with_short_timeout(ours, monkeypatch)
    for _ in range(3):
        ours.send(Channel.RELIABLE, b"x")
        await exchange(ours, peer)
    await asyncio.sleep(1.5 * RTO_S)
    assert not ours.outbox
    assert association._t3_kept is None


async def test_timer_does_not_outlive_the_peers_abort(ends: tuple[End, End]) -> None:
    ours, peer = ends
    ours.send(Channel.RELIABLE, b"never acknowledged")
    ours.outbox.clear()
    association = association_of(ours)
    assert association._t3_kept is not None
    peer.data.close()
    await exchange(ours, peer)
    assert association._t3_kept is None
