"""How many requests are answered in a second.

Who calls it: `allocations.py`. Who has no allocation is counted by network: the sender's address of a datagram may be
another's, who must not be flooded with our answers.
"""

from collections import OrderedDict

from signaling.allowance import Allowance

MAX_NETWORKS = 8192
"""Networks without an allocation of which it is known how much they asked; beyond it those that asked longest ago are
forgotten."""


class NetworkAllowances:
    """One `Allowance` for each network."""

    def __init__(self, rate: float, burst: float) -> None:
        """All networks get the same `rate` and `burst`."""
        self._rate, self._burst = rate, burst
        self._of: OrderedDict[bytes, Allowance] = OrderedDict()

    def __len__(self) -> int:
        """Return of how many networks something is known."""
        return len(self._of)

    def take(self, ip: bytes, now: float) -> bool:
        """Tell whether one more request from a packed IP address may be answered, and count it."""
        network = ip[:8]  # a line with IPv6 has 64 bits to choose from
        allowance = self._of.get(network)
        if allowance is None:
            while len(self._of) >= MAX_NETWORKS:
                self._of.popitem(last=False)
            allowance = self._of[network] = Allowance(self._rate, self._burst, now)
        else:
            self._of.move_to_end(network)
        return allowance.take(now)
