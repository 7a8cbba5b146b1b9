"""signaling/turn/net/poller.py: what is served when, and what one failure ends."""

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from signaling.turn.net.poller import Poller


@dataclass
class Noting:
    """Notes what it is told, and does what a test wants."""

    does: Callable[[], object] = lambda: None
    events: list[int] = field(default_factory=list)

    def ready(self, events: int) -> None:
        self.events.append(events)
        self.does()

    def close(self) -> None:
        pass


@pytest.fixture
def poller() -> Iterator[Poller]:
    made = Poller()
    yield made
    made.close()


def test_events_of_a_closed_descriptor_are_not_those_of_the_next_one_with_its_number(poller: Poller) -> None:
    pairs = [socket.socketpair() for _ in range(3)]
    new = Noting(poller.stop)

    def replace() -> None:
        """Close both that are ready, and open one that takes the number of the other."""
        for ours, theirs in pairs[:2]:
            if ours.fileno() >= 0:
                poller.forget(ours.fileno())
                number = ours.fileno()
                ours.close()
                theirs.close()
                if not new.events and number not in poller._served:
                    os.dup2(pairs[2][0].fileno(), number)
                    poller.watch(number, new)
                    opened.append(number)
        poller.call(poller.stop)

    opened: list[int] = []
    for ours, theirs in pairs[:2]:
        theirs.shutdown(socket.SHUT_RDWR)
        poller.watch(ours.fileno(), Noting(replace))
    poller.run(lambda now: None)
    assert len(opened) == 2
    assert new.events == []
    for number in opened:
        poller.forget(number)
        os.close(number)
    for each in pairs[2]:
        each.close()


def test_what_cannot_be_watched_is_not_kept(poller: Poller) -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        poller.watch(1 << 20, Noting())
    assert poller._served == {}


def test_what_the_control_thread_asks_for_is_done_before_clients_are_served(poller: Poller) -> None:
    order: list[str] = []

    def serve() -> None:
        order.append("client")
        poller.stop()

    ours, theirs = socket.socketpair()
    with ours, theirs:
        poller.watch(ours.fileno(), Noting(serve))
        theirs.send(b"request")
        poller.call(lambda: order.append("work"))
        poller.run(lambda now: None)
        poller.forget(ours.fileno())
    assert order == ["work", "client"]
