"""DTLS datagrams of many transports: who is served when, and what counts against whom."""

import numpy as np
import pytest

from sfu.control import inbox
from sfu.control.inbox import Inbox
from sfu.control.mailbox import SLOW_BATCH, Mailbox
from sfu.queues import control
from sfu.schema.capacities import CROWDED_SLOW, SLOW_PER_TRANSPORT, SLOW_QUEUE
from sfu.schema.memory import Memory
from tests.sfu.support.ice import drop_counts


class Queue:
    """A queue that a media thread would fill, and the inbox behind it."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.inbox = Inbox(Mailbox(self.memory, lambda: None))

    def push(self, transport: int, number: int) -> None:
        self.memory.table("rx")[0][:4] = np.frombuffer(number.to_bytes(4, "big"), np.uint8)
        control.push_slow(self.memory.record, transport, 0, 0, 4)

    def take(self) -> tuple[int, int] | None:
        datagram = self.inbox.take()
        return None if datagram is None else (datagram.transport, int.from_bytes(datagram.data, "big"))


@pytest.fixture
def queue() -> Queue:
    return Queue()


def test_single_datagrams_pass_through(queue: Queue) -> None:
    for number in range(3 * SLOW_PER_TRANSPORT):
        queue.push(7, number)
        assert queue.take() == (7, number)
    assert queue.take() is None
    assert drop_counts(queue.memory) == {}


def test_transports_are_served_in_turn_and_each_in_order(queue: Queue) -> None:
    for number in range(10):
        queue.push(1, number)
    queue.push(2, 0)
    queue.push(2, 1)
    queue.push(3, 0)
    taken = [queue.take() for _ in range(13)]
    assert taken[:5] == [(1, 0), (2, 0), (3, 0), (1, 1), (2, 1)]
    assert taken[5:] == [(1, number) for number in range(2, 10)]
    assert queue.take() is None


def test_datagram_behind_many_of_another_transport_is_served_soon(queue: Queue) -> None:
    for number in range(SLOW_PER_TRANSPORT):
        queue.push(1, number)
    queue.push(2, 0)
    turns = next(turn for turn in range(SLOW_PER_TRANSPORT) if queue.take() == (2, 0))
    assert turns <= SLOW_PER_TRANSPORT // SLOW_BATCH + 2


def test_what_waits_counts_against_its_transport_until_it_is_handed_out(queue: Queue) -> None:
    for number in range(SLOW_PER_TRANSPORT):
        queue.push(1, number)
    for _ in range(SLOW_PER_TRANSPORT // 2):
        queue.take()
    for number in range(SLOW_PER_TRANSPORT):
        queue.push(1, number)
    assert drop_counts(queue.memory) == {"dtls_quota": SLOW_PER_TRANSPORT // 2}
    queue.push(2, 0)
    assert drop_counts(queue.memory) == {"dtls_quota": SLOW_PER_TRANSPORT // 2}


def test_every_transport_may_send_what_its_window_lets_it(queue: Queue) -> None:
    for transport in range(CROWDED_SLOW // SLOW_PER_TRANSPORT):
        for number in range(SLOW_PER_TRANSPORT):
            queue.push(transport, number)
    assert drop_counts(queue.memory) == {}


def test_what_many_transports_send_at_once_stays_in_the_queue_when_there_is_no_room(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "MAX_WAITING", 2 * SLOW_BATCH)
    for transport in range(3):
        for number in range(2 * SLOW_BATCH):
            queue.push(transport, number)
    queue_row = queue.memory.table("queues")[SLOW_QUEUE]
    taken = [queue.take() for _ in range(4)]
    assert queue_row["written"] - queue_row["read"] >= 6 * SLOW_BATCH - 4 - 2 * SLOW_BATCH
    taken += [queue.take() for _ in range(6 * SLOW_BATCH - 4)]
    assert all(taken)
    assert len(set(taken)) == len(taken)
    assert queue.take() is None
    assert drop_counts(queue.memory) == {}
