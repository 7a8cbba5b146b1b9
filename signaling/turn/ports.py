"""The ports of relayed addresses. Nothing listens there: a port only makes the address of an allocation unique.

Who calls it: `allocations.py`. A port rests after its allocation has ended, so that what is on its way to the old one
is not taken for the new one's.
"""

import random
from collections import Counter, deque
from collections.abc import Sequence

REST_S = 120.0
"""How long a port is not given to another allocation."""
MAX_OF_HOLDER = 64
"""Ports that one participant has in use or resting: who allocates again and again takes the others nothing."""


class RelayPorts:
    """Ports that are free, taken, or rest."""

    def __init__(self, ports: Sequence[int]) -> None:
        """Begin with all of them free, in an order that nobody can foresee."""
        self._free = deque(random.sample(ports, len(ports)))
        self._resting: deque[tuple[float, int, str]] = deque()
        self._of_holder: Counter[str] = Counter()

    def take(self, holder: str, now: float) -> int | None:
        """Take a port for a participant; None: all are taken or rest. `now` is in seconds, as everywhere here."""
        self._wake(now)
        if not self._free:
            return None
        self._of_holder[holder] += 1
        return self._free.popleft()

    def may_take(self, holder: str, now: float) -> bool:
        """Tell whether a participant has not used up its share."""
        self._wake(now)
        return self._of_holder.get(holder, 0) < MAX_OF_HOLDER

    def give_back(self, port: int, holder: str, now: float) -> None:
        """Let a port rest."""
        self._resting.append((now + REST_S, port, holder))

    def _wake(self, now: float) -> None:
        while self._resting and self._resting[0][0] <= now:
            _, port, holder = self._resting.popleft()
            self._free.append(port)
            self._of_holder[holder] -= 1
            if not self._of_holder[holder]:
                del self._of_holder[holder]
