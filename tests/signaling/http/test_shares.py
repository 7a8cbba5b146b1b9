"""signaling/http/shares.py: a client that keeps the control thread busy may have all of it, until somebody else
waits."""

import asyncio
import itertools

import pytest
from livekit.protocol import models, rtc

from sfu.events import ChannelOpened
from sfu.parameters import Channel
from signaling.http import shares
from signaling.http.shares import (
    ENTRANCE_S,
    MAX_EXCESS_S,
    SETTLED_AFTER,
    SHARE,
    TURN_S,
    WINDOW_S,
    Callers,
    Entrances,
    ExcessiveUse,
    Share,
    Shares,
)
from signaling.participants import renegotiation
from tests.signaling.support.call import Call, Client, sdp, settle

COST_S = 0.05
"""What one request of the client that wants much costs, in seconds."""

LOOP_S = 0.0001
"""One turn of the event loop in which nothing happens."""


class World:
    """A clock that only work and sleep move, and what others do meanwhile."""

    def __init__(self) -> None:
        self.now = 100.0
        self.others_every_s: float | None = None
        self.served = 0
        self.shares = Shares(lambda: self.now, self.sleep)
        self.other = Share(self.shares)
        self._other_at = self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds or LOOP_S
        while self.others_every_s is not None and self._other_at <= self.now:
            self._other_at += self.others_every_s
            self.other.note()
            self.served += 1
        await asyncio.sleep(0)

    async def flood(self, share: Share, seconds: float, cost_s: float = COST_S) -> int:
        """Requests of this cost, one after the other, for so long: how many of them were served."""
        end, served = self.now + seconds, 0
        while self.now < end:
            share.note()
            self.now += cost_s
            share.spend(cost_s)
            served += 1
            if share.turn_is_over:
                await share.give_way()
        return served


@pytest.fixture
def world() -> World:
    return World()


async def test_who_is_alone_may_have_all_of_it(world: World) -> None:
    assert await world.flood(Share(world.shares), 60) == pytest.approx(60 / COST_S, rel=0.01)


async def test_who_makes_others_wait_has_a_fifth_of_it(world: World) -> None:
    world.others_every_s = 0.01
    served = await world.flood(Share(world.shares), 8)
    assert served * COST_S <= SHARE * 8 + 2 * COST_S
    assert served * COST_S >= SHARE * 8 * 0.8


async def test_small_requests_count_together(world: World) -> None:
    world.others_every_s = TURN_S
    served = await world.flood(Share(world.shares), 8, cost_s=TURN_S / 20)
    assert SHARE * 8 * 0.8 <= served * TURN_S / 20 <= SHARE * 8 * 1.1


async def test_who_comes_seldom_is_not_held(world: World) -> None:
    world.others_every_s = 0.01
    share = Share(world.shares)
    for _ in range(100):
        share.note()
        world.now += COST_S
        share.spend(COST_S)
        await world.sleep(0.3)
        before = world.now
        await share.give_way()
        assert world.now - before <= 4 * LOOP_S


async def test_who_has_waited_goes_on_when_nobody_else_is_there_any_more(world: World) -> None:
    world.others_every_s = 0.01
    share = Share(world.shares)
    share.note()
    world.now += 5.0
    share.spend(5.0)
    task = asyncio.create_task(share.give_way())
    await settle()
    world.others_every_s = None
    before = world.now
    await task
    assert world.now - before <= 2 * WINDOW_S


async def test_ten_seconds_without_a_pause_are_too_much(world: World) -> None:
    world.others_every_s = 0.01
    share, began = Share(world.shares), world.now
    with pytest.raises(ExcessiveUse):
        await world.flood(share, 60)
    assert MAX_EXCESS_S <= world.now - began <= MAX_EXCESS_S + 2


async def test_a_pause_forgives(world: World) -> None:
    world.others_every_s = 0.01
    share = Share(world.shares)
    for _ in range(5):
        await world.flood(share, MAX_EXCESS_S * 0.8)
        await world.sleep(1.0)
        await world.flood(share, 0.001, cost_s=0.01)


def test_callers_are_bounded_and_who_has_not_called_for_longest_goes_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "MAX_CALLERS", 2)
    ann, ben, cleo = (("devkey", name) for name in ("ann", "ben", "cleo"))
    known = Callers(world.shares)
    first, second = known.share(ann), known.share(ben)
    assert known.share(ann) is first
    known.share(cleo)
    assert known.share(ann) is first
    assert known.share(ben) is not second


async def test_clients_that_had_to_wait_go_on_one_after_the_other(world: World) -> None:
    world.others_every_s = LOOP_S
    waiting = [Share(world.shares) for _ in range(5)]
    turns: list[int] = []

    async def go_on(share: Share) -> None:
        share.spend(1.0)
        await share.give_way()
        turns.append(world.served)

    await asyncio.gather(*map(go_on, waiting))
    assert len(turns) == 5, turns
    assert all(later > earlier for earlier, later in itertools.pairwise(turns)), "others are served in between"


async def test_many_requests_of_one_client_hold_others_up_like_one(world: World) -> None:
    world.others_every_s = LOOP_S
    greedy, modest = Share(world.shares), Share(world.shares)
    order: list[Share] = []

    async def go_on(share: Share) -> None:
        share.spend(2 * TURN_S)
        await share.give_way()
        order.append(share)

    many = [asyncio.create_task(go_on(greedy)) for _ in range(100)]
    while not order:  # noqa: ASYNC110
        await asyncio.sleep(0)
    modest.spend(2 * SHARE * WINDOW_S)
    await go_on(modest)
    assert order.index(modest) <= 2
    await asyncio.gather(*many)


async def test_what_waits_behind_a_request_that_is_refused_is_refused_with_it(world: World) -> None:
    world.others_every_s = LOOP_S
    share, began = Share(world.shares), world.now
    share.spend(5.0)
    waiting = [asyncio.create_task(share.give_way()) for _ in range(20)]
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in ended] == [ExcessiveUse] * 20
    assert world.now - began <= MAX_EXCESS_S + 1
    world.now += 20
    share.spend(TURN_S)
    await share.give_way()


# in a room


async def test_offers_are_charged_except_the_first(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = await call.join("ann", publisher_offer=None)
    spent: list[float] = []
    monkeypatch.setattr(ann.participant.share, "spend", spent.append)
    real = renegotiation.Renegotiation.answer

    def slow(self: renegotiation.Renegotiation, offer: rtc.SessionDescription) -> None:
        real(self, offer)
        call.now += 0.03

    monkeypatch.setattr(renegotiation.Renegotiation, "answer", slow)
    await ann.offer()
    assert spent == []
    await ann.offer()
    assert spent == [pytest.approx(0.03)]


async def test_the_first_answer_is_not_charged(call: Call) -> None:
    ann = await call.join("ann", single_pc=False)
    share = ann.participant.share
    answer = rtc.SessionDescription(type="answer", sdp=sdp(), id=1)
    ann.participant.renegotiation.receive_answer(answer)
    share.spend(0.5)
    assert not share.turn_is_over
    share.spend(0.5)
    assert share.turn_is_over


async def test_events_and_joins_count_as_somebody_elses_turn(call: Call) -> None:
    ann = await call.join("ann")
    shares = call.rooms.node.shares
    before = shares.turns
    bob = await call.join("bob")
    assert shares.turns > before
    before, own = shares.turns, ann.participant.share._others()
    await call.emit(ChannelOpened(bob.transport, Channel.RELIABLE))
    assert ann.participant.share._others() == own + 1
    await call.emit(ChannelOpened(ann.transport, Channel.RELIABLE))
    assert ann.participant.share._others() == own + 1
    assert shares.turns == before + 2


async def test_a_resume_earns_nothing(call: Call) -> None:
    ann = await call.join("ann")
    await ann.connect()
    share = ann.participant.share
    await ann.lose_socket()
    again = await call.resume(ann)
    assert again.participant.share is share


async def test_who_wants_too_much_for_too_long_is_sent_away(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    ann.connection.put(ExcessiveUse())
    await settle()
    assert ann.of("leave")[0].reason == models.STATE_MISMATCH
    assert call.rooms.node.dropped["clients_beyond_their_share"] == 1
    assert list(call.room.participants) == ["bob"]
    assert bob.connection.code is None


async def test_entering_seldom_or_cheaply_waits_for_nothing(world: World) -> None:
    entrances, ann = Entrances(lambda: world.now, world.sleep), ("key", "ann")
    for _ in range(30):
        before = world.now
        await entrances.wait(ann)
        assert world.now == before
        entrances.charge(ann, ENTRANCE_S / 40)
    for number in range(500):
        await entrances.wait(("key", f"client {number}"))
        entrances.charge(("key", f"client {number}"), COST_S)
        world.now += COST_S
    assert world.served == 0


async def test_entering_again_and_again_has_a_fifth_of_the_thread(world: World) -> None:
    entrances, began, entered = Entrances(lambda: world.now, world.sleep), world.now, 0
    while world.now < began + 60:
        await entrances.wait(("key", "ann"))
        world.now += 0.3
        entrances.charge(("key", "ann"), 0.3)
        entered += 1
    assert (entered - 2) * 0.3 <= ENTRANCE_S + SHARE * 60 <= (entered + 2) * 0.3
    before = world.now
    await entrances.wait(("key", "bob"))
    assert world.now == before


async def test_who_would_have_to_wait_too_long_to_enter_is_refused(world: World) -> None:
    entrances = Entrances(lambda: world.now, world.sleep)
    entrances.charge(("key", "ann"), ENTRANCE_S + SHARE * (MAX_EXCESS_S + 1))
    with pytest.raises(ExcessiveUse):
        await entrances.wait(("key", "ann"))
    world.now += 2
    await entrances.wait(("key", "ann"))


async def test_what_was_taken_for_entering_is_forgotten_when_it_is_earned(world: World) -> None:
    entrances = Entrances(lambda: world.now, world.sleep)
    for number in range(SETTLED_AFTER * 3):
        entrances.charge(("key", f"client {number}"), 0.001)
        world.now += 0.001
    assert len(entrances._earned_at) <= SETTLED_AFTER + 10


@pytest.mark.parametrize("reconnect", [False, True])
async def test_joins_and_resumes_that_cost_much_are_charged_to_who_comes(
    call: Call, monkeypatch: pytest.MonkeyPatch, reconnect: bool
) -> None:
    answer = renegotiation.Renegotiation.answer

    def costly(self: renegotiation.Renegotiation, offer: rtc.SessionDescription) -> None:
        call.now += 3.0
        answer(self, offer)

    earned = asyncio.Event()

    async def sleep(seconds: float) -> None:
        await earned.wait()

    monkeypatch.setattr(renegotiation.Renegotiation, "answer", costly)
    monkeypatch.setattr(call.rooms.node.entrances, "_sleep", sleep)
    offer = rtc.SessionDescription(type="offer", sdp=sdp(), id=1)

    async def enter() -> Client:
        return await (call.resume(ann, publisher_offer=offer) if reconnect else call.join("ann"))

    ann = await call.join("ann", publisher_offer=None)
    await ann.connect()
    await ann.offer()
    call.now += 1.0
    late = await enter()
    assert not late.connection.sent, "it waits"
    assert (await call.join("bob", publisher_offer=None)).kinds()[0] == "join"
    call.now += 10.0
    earned.set()
    await settle()
    assert late.kinds()[0] == ("reconnect" if reconnect else "join")
    assert (await enter()).kinds() == ["leave"]
    assert call.rooms.node.dropped["entrances_beyond_their_share"] == 1
    assert call.room.occupancy.expected == 0
