"""Work that becomes due for many participants at once, a part of it in each turn of the event loop.

One change in a room may need a negotiation with everybody there. Done in one turn, all of them would keep requests and
joins waiting for as long as they take together.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable

TURN_S = 0.01
"""How long such work goes on until others have their turn. One negotiation takes a few milliseconds."""


class DueWork:
    """The work that waits: of each room in the order in which it became due, and of one room after the other.

    Whoever puts work in waits for it before putting in more, so there is no more than one piece for each of them.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives seconds, monotonic."""
        self._clock = clock
        self._waiting: OrderedDict[Hashable, deque[Callable[[], None]]] = OrderedDict()
        """Room -> its work. The room whose turn it is comes first."""
        self._next: asyncio.Handle | None = None

    def put(self, room: Hashable, work: Callable[[], None]) -> None:
        """Do `work` in one of the next turns of the event loop. What waits for a large room does not hold up others."""
        self._waiting.setdefault(room, deque()).append(work)
        self._continue()

    def _continue(self) -> None:
        if self._next is None and self._waiting:
            self._next = asyncio.get_running_loop().call_soon(self._take)

    def _take(self) -> None:
        self._next = None
        ends = self._clock() + TURN_S
        try:
            while self._waiting:
                self._first()()
                if self._clock() >= ends:
                    break
        finally:
            self._continue()

    def _first(self) -> Callable[[], None]:
        room, waiting = next(iter(self._waiting.items()))
        work = waiting.popleft()
        if waiting:
            self._waiting.move_to_end(room)
        else:
            del self._waiting[room]
        return work
