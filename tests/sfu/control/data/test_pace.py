"""Data beside video for which the path is too narrow: they leave no faster than video may."""

import asyncio

import pytest
from aiortc.rtcsctptransport import SackChunk

from sfu.control.data.pace import FALLS_S, FIRST_SHARE, IDLE_S, MIN_BPS, RISES_S, SAVED_S, Pace, Share, share_of
from sfu.parameters import Channel
from tests.sfu.support.data_ends import End, association_of, exchange, joined, packet_to

BPS = 800_000
WHOLE_S = 10 * RISES_S
"""After so long data have the whole share."""


class Path:
    """What media know of a path, and a pace that follows it by a hand clock."""

    def __init__(self, is_short: bool = True, bps: int = BPS) -> None:
        self.share = Share(is_short, bps)
        self.pace = Pace(lambda: self.share)
        self.now = 100.0

    def leaves(self, seconds: float, packet: int = 1_200) -> int:
        """Bytes that leave in so long of an endless message, in packets."""
        total, end = 0, self.now + seconds
        while self.now < end:
            credit = self.pace.credit(self.now)
            assert credit is not None
            while credit > 0:
                self.pace.spend(packet)
                total += packet
                credit -= packet
            self.now += self.pace.wait_s()
        return total


def test_data_that_take_nothing_from_video_are_not_limited() -> None:
    assert Path(is_short=False).pace.credit(1.0) is None


def test_data_come_to_what_video_may_have() -> None:
    path = Path()
    path.leaves(WHOLE_S)
    assert path.leaves(10) == pytest.approx(10 * BPS / 8, rel=0.05)


def test_data_begin_with_a_part_of_it() -> None:
    first = Path().leaves(RISES_S / 8)
    assert 1 <= first / (FIRST_SHARE * BPS / 8 * RISES_S / 8) <= 1.7


def test_they_follow_what_the_path_carries() -> None:
    path = Path()
    path.leaves(WHOLE_S)
    path.share = Share(True, BPS // 4)
    path.leaves(10 * FALLS_S)
    assert path.leaves(10) == pytest.approx(10 * BPS / 4 / 8, rel=0.05)


def test_a_path_that_carries_nothing_but_audio_lets_some_through() -> None:
    assert Path(bps=0).leaves(20) == pytest.approx(20 * MIN_BPS / 8, rel=0.1)


def test_data_are_limited_no_more_when_there_is_no_estimate_any_more() -> None:
    path = Path()
    path.leaves(WHOLE_S)
    path.share = share_of({"estimate_bps": 0, "limited": 0, "audio_bps": 60_000})
    assert path.pace.credit(path.now) is None
    path.share = share_of({"estimate_bps": BPS, "limited": 1, "audio_bps": 0})
    assert path.pace.credit(path.now) is not None


def test_data_are_limited_to_their_end_and_nothing_is_saved_up() -> None:
    path = Path()
    path.leaves(WHOLE_S)
    path.share = Share(False, BPS)
    path.now += IDLE_S / 2
    assert path.pace.credit(path.now) == pytest.approx(BPS / 8 * SAVED_S, rel=0.01)
    path.now += IDLE_S + 0.1
    assert path.pace.credit(path.now) is None, "these are others"


async def test_a_long_message_waits_for_its_pace_and_comes_whole() -> None:
    message = bytes(range(256)) * 100
    async with joined() as (ours, peer):
        limit(ours, Share(True, BPS))
        before = len(ours.outbox)
        ours.send(Channel.RELIABLE, message)
        assert sum(map(len, list(ours.outbox)[before:])) < len(message) / 4
        async with asyncio.timeout(20):
            while not peer.messages:
                await exchange(ours, peer)
                await asyncio.sleep(0.002)
        assert peer.messages == [(Channel.RELIABLE, message)]


async def test_a_peer_without_a_window_is_asked_for_news_when_the_pace_allows_it() -> None:
    def told(acknowledged: int, window: int) -> SackChunk:
        sack = SackChunk()
        sack.cumulative_tsn, sack.advertised_rwnd = acknowledged % (1 << 32), window
        return sack

    async with joined() as (ours, _):
        limit(ours, Share(True, 0))
        association = association_of(ours)
        ours.data.receive(packet_to(ours, told(association._last_sacked_tsn, 1_000)))
        ours.send(Channel.RELIABLE, bytes(100_000))
        async with asyncio.timeout(20):
            while not association._flight_size:  # noqa: ASYNC110  # its timer tells nobody
                await asyncio.sleep(0.002)
        assert association._paced is None, "the window is full"
        ours.outbox.clear()
        ours.data.receive(packet_to(ours, told(association._local_tsn - len(association._outbound_queue) - 1, 0)))
        assert association._flight_size == 0
        async with asyncio.timeout(20):
            while not ours.outbox:  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.002)
        assert association._flight_size > 0


async def test_an_association_that_ends_leaves_no_timer() -> None:
    async with joined() as (ours, _):
        limit(ours, Share(True, 0))
        ours.send(Channel.RELIABLE, bytes(100_000))
        timer = ours.data._association._paced if ours.data._association is not None else None
        assert timer is not None
        ours.data.close()
        assert timer.cancelled()


def limit(end: End, share: Share) -> None:
    """Let the path of an end carry so much."""
    end.data._pace._share = lambda: share
