"""signaling/due_work.py: work for many does not keep others waiting for all of it."""

import asyncio

from signaling.due_work import TURN_S, DueWork
from tests.signaling.support.call import settle

COST_S = TURN_S / 2


class World:
    """A clock that moves with work, and somebody who wants a turn now and then."""

    def __init__(self) -> None:
        self.now = 0.0
        self.done: list[str] = []
        self.due_work = DueWork(lambda: self.now)

    def work(self, name: str, room: str = "") -> None:
        self.due_work.put(room, lambda: self.do(name))

    def do(self, name: str) -> None:
        self.now += COST_S
        self.done.append(name)

    async def others(self, number: int) -> None:
        for _ in range(number):
            await asyncio.sleep(0)
            self.done.append("-")


async def test_work_is_done_in_its_order_with_turns_of_others_in_between() -> None:
    world = World()
    for name in "abcde":
        world.work(name)
    assert world.done == []
    await world.others(5)
    assert "".join(world.done) == "ab-cd-e---"


async def test_work_that_is_put_in_by_work_comes_last() -> None:
    world = World()
    world.due_work.put("", lambda: world.work("later"))
    world.work("first")
    await settle()
    assert world.done == ["first", "later"]


async def test_work_of_one_room_does_not_hold_up_that_of_another() -> None:
    world = World()
    for name in "abcdef":
        world.work(name, "large")
    world.work("x", "small")
    world.work("y", "small")
    await world.others(8)
    assert "".join(world.done).replace("-", "") == "axbycdef"


async def test_work_that_fails_keeps_nobody_from_his_turn() -> None:
    world = World()
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    error = RuntimeError("a bug")

    def fail() -> None:
        raise error

    world.due_work.put("", fail)
    world.work("next")
    await settle()
    assert (world.done, told) == (["next"], [error])
