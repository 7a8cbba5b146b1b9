"""What clients hold that have shown no token yet, by the network that counts as one client.

Who calls it: `http/acceptor.py`, `http/http_protocol.py`, `turn/connections.py`: they take places from who has most.
"""

import ipaddress
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

Held = TypeVar("Held", bound=Hashable)


def network_of(host: str) -> str:
    """Return what counts as one client: an IPv4 address, or the 64 bits that a line with IPv6 has."""
    if ":" not in host:
        return host
    return str(ipaddress.ip_network((host.partition("%")[0], 64), strict=False))


class ByNetwork(Generic[Held]):
    """Everything that all networks hold, in each of them the oldest first."""

    def __init__(self) -> None:
        self._held: dict[str, dict[Held, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        """Return how much there is of all networks together."""
        return self._count

    def __iter__(self) -> Iterator[Held]:
        """Yield everything that is held now, whatever is added or removed meanwhile."""
        yield from [each for held in self._held.values() for each in held]

    def add(self, network: str, held: Held) -> None:
        """Note that a network holds one more, which is its newest."""
        self._held.setdefault(network, {})[held] = None
        self._count += 1

    def discard(self, network: str, held: Held) -> None:
        """Note that a network does not hold it any more; nothing happens if it did not."""
        of_network = self._held.get(network, {})
        if held not in of_network:
            return
        del of_network[held]
        self._count -= 1
        if not of_network:
            del self._held[network]

    def counts(self) -> dict[str, int]:
        """Return how much each network holds."""
        return {network: len(held) for network, held in self._held.items()}

    def count(self, network: str) -> int:
        """Return how much a network holds."""
        return len(self._held.get(network, ()))

    def oldest(self, network: str) -> Held:
        """Return the oldest that a network holds, which has some."""
        return next(iter(self._held[network]))

    def oldest_of_most(self) -> Held:
        """Return the oldest of the network that holds most. There must be some."""
        return self.oldest(max(self._held, key=lambda network: len(self._held[network])))
