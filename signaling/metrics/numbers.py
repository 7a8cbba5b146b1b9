"""The numbers of signalling that metrics show, and where they come from.

Who uses it: rooms and the HTTP side fill these in; `collector.py` reads them.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from sfu.parameters import Kind

if TYPE_CHECKING:
    from sfu.engine import Totals

ADMITTED, RESUMED = "admitted", "resumed"
REFUSALS = {400: "malformed", 401: "unauthorized", 404: "no_room", 503: "full"}
"""Status of the answer to a join that is refused -> its result in the metrics."""
OTHER = "other"
"""The result of a join that is refused with any other status."""
JOIN_RESULTS = (ADMITTED, RESUMED, *REFUSALS.values(), OTHER)


@dataclass(frozen=True, slots=True)
class Census:
    """What rooms there are at the moment, and what applications asked of them."""

    rooms: int
    participants: int
    tracks: Mapping[Kind, int]
    """Published tracks by kind."""
    api_calls: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Calls of the server API since the start: (call, code of the answer) -> their number."""


class Joins:
    """Counts joins by their result."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter(dict.fromkeys(JOIN_RESULTS, 0))
        """By each of `JOIN_RESULTS`."""

    def accepted(self, resumed: bool) -> None:
        """Count a client that was admitted, or that came back with `resumed`."""
        self.counts[RESUMED if resumed else ADMITTED] += 1

    def refused(self, status: int) -> None:
        """Count a client that was answered with this HTTP status."""
        self.counts[REFUSALS.get(status, OTHER)] += 1


class Engine(Protocol):
    """The part of `sfu.engine.Engine` that metrics show."""

    def drops(self) -> Mapping[str, int]:
        """Return what was dropped since the start, by reason."""

    def totals(self) -> "Totals":
        """Return packets and bytes, and how full tables and queues are."""

    def estimates(self) -> list[tuple[int, int]]:
        """Return what the path to each client is believed to carry, and what is allocated of it, in bits a second."""


class Rooms(Protocol):
    """The part of `signaling.registry.Rooms` that metrics show."""

    def drops(self) -> Mapping[str, int]:
        """Return the number of clients' messages and requests dropped since the start, by reason."""

    def census(self) -> Census:
        """Count rooms, participants, tracks and calls of the server API."""
