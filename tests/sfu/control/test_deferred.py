"""Actions that come later, once by name, and what is tried again until nothing waits."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sfu.control import deferred
from sfu.control.deferred import Deferred, Retries


@pytest.fixture
async def later() -> Deferred:
    found = Deferred()
    found.begin(asyncio.get_running_loop())
    return found


async def test_an_action_comes_once_however_often_it_is_asked_for(later: Deferred) -> None:
    done: list[str] = []
    for _ in range(3):
        later("first", 0, lambda: done.append("first"))
        later("second", 0, lambda: done.append("second"))
    await asyncio.sleep(0)
    assert done == ["first", "second"]
    later("first", 0, lambda: done.append("again"))
    await asyncio.sleep(0)
    assert done == ["first", "second", "again"]


async def test_an_action_may_ask_for_itself_and_is_forgotten_when_all_ends(later: Deferred) -> None:
    done: list[int] = []

    def again() -> None:
        done.append(len(done))
        later("again", 0, again)

    again()
    for _ in range(3):
        await asyncio.sleep(0)
    assert done == [0, 1, 2, 3]
    later("late", 60, again)
    later.cancel()
    await asyncio.sleep(0)
    assert done == [0, 1, 2, 3]


class Settling:
    """A transport that settles at the last of so many tries."""

    def __init__(self, tries: int) -> None:
        self.tries = tries

    def settle(self) -> bool:
        self.tries -= 1
        return self.tries <= 0


async def test_what_waits_is_tried_again_until_nothing_waits(later: Deferred, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferred, "RETRY_S", 0)
    mailbox = SimpleNamespace(waiting=2)

    def flush() -> None:
        mailbox.waiting = max(mailbox.waiting - 1, 0)

    mailbox.flush = flush
    retries = Retries([cast("Any", SimpleNamespace(mailbox=mailbox))], later)
    quick, slow, closing = (cast("Any", Settling(tries)) for tries in (1, 4, 1_000))
    for transport in (quick, slow, closing):
        retries.watch(transport)
    retries.forget(closing)
    for _ in range(10):
        await asyncio.sleep(0)
    assert (mailbox.waiting, quick.tries, slow.tries, closing.tries) == (0, 0, 0, 999)
    retries.schedule()
    await asyncio.sleep(0)
    assert (quick.tries, slow.tries) == (0, 0), "there is nothing to try"
