"""The ports of relayed addresses. Nothing listens there: a port only makes the address of an allocation unique.

Who calls it: `allocations.py`. A port rests after its allocation has ended, so that what is on its way to the old one
is not taken for the new one's.
"""

import random
from collections import Counter, deque
from collections.abc import Hashable, Sequence

REST_S = 120.0
"""How long a port is not given to another allocation."""
MAX_OF_OWNER = 256
"""Ports that one API key and identity has in use or resting: who allocates or joins again and again, in however many
rooms, takes the others nothing. It is no more than one in `OWNERS` of all ports."""
OWNERS = 4


class RelayPorts:
    """Ports that are free, taken, or rest."""

    def __init__(self, ports: Sequence[int]) -> None:
        """Begin with all of them free, in an order that nobody can foresee."""
        self._free = deque(random.sample(ports, len(ports)))
        self._resting: deque[tuple[float, int, Hashable]] = deque()
        self._most = min(MAX_OF_OWNER, len(ports) // OWNERS)
        self._of_owner: Counter[Hashable] = Counter()

    def take(self, owner: Hashable, now: float) -> int | None:
        """Take a port for an owner; None: all are taken or rest. `now` is in seconds, as everywhere here."""
        self._wake(now)
        if not self._free:
            return None
        self._of_owner[owner] += 1
        return self._free.popleft()

    def may_take(self, owner: Hashable, now: float) -> bool:
        """Tell whether an owner has not used up its share."""
        self._wake(now)
        return self._of_owner.get(owner, 0) < self._most

    def give_back(self, port: int, owner: Hashable, now: float) -> None:
        """Let a port rest."""
        self._resting.append((now + REST_S, port, owner))

    def _wake(self, now: float) -> None:
        while self._resting and self._resting[0][0] <= now:
            _, port, owner = self._resting.popleft()
            self._free.append(port)
            self._of_owner[owner] -= 1
            if not self._of_owner[owner]:
                del self._of_owner[owner]
