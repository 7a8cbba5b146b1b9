"""What the paths to participants who left a moment ago were known to carry, so that who comes again soon begins there.

Who calls it: participants, when they end and when they begin. The numbers are the engine's, and mean nothing here.
"""

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sfu.engine import EngineError
from signaling.rooms.member import Member

if TYPE_CHECKING:
    from sfu.engine import Engine

KEPT_S = 60.0
"""A path is forgotten after so long: a client that comes later may be anywhere."""
MAX_PATHS = 10_000
"""Participants whose paths are remembered; beyond it the oldest are forgotten."""


@dataclass(slots=True)
class PathMemory:
    """One number for each room and identity."""

    engine: "Engine"
    clock: Callable[[], float]
    _known: OrderedDict[tuple[str, str], tuple[int, float]] = field(default_factory=OrderedDict)
    """(room, identity) -> (number, until when it holds), oldest first."""

    def note(self, member: Member) -> None:
        """Remember what is known of the path to a participant that ends."""
        key, number = (member.room_name, member.identity), 0
        with suppress(EngineError):  # the engine has closed it already
            number = self.engine.path_memory(member.data_transport)
        now = self.clock()
        while self._known and (len(self._known) >= MAX_PATHS or next(iter(self._known.values()))[1] <= now):
            self._known.popitem(last=False)
        self._known.pop(key, None)
        if number:
            self._known[key] = number, now + KEPT_S

    def recall(self, room: str, identity: str, previous: Member | None = None) -> int:
        """Return, once, what is remembered of a participant, or known of `previous`, who has this identity and is still
        here; 0: nothing."""
        if previous is not None:
            self.note(previous)
        number, until = self._known.pop((room, identity), (0, 0.0))
        return number if self.clock() < until else 0
