"""What every room of this process shares: the engine, the clock, and who owns which row of the engine.

The maps are the only way from an engine event to a participant. Whoever opens a row enters it here and takes it out
again when the row is closed, so that after a participant has left nothing here mentions it.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from sfu.parameters import GROUPS, SubscriptionId, TrackId, TransportId
from signaling import identifiers
from signaling.http.shares import Entrances, Shares
from signaling.rooms.capacity import Capacity
from signaling.rooms.events import Events
from signaling.rooms.member import Member
from signaling.rooms.tracks import Track

if TYPE_CHECKING:
    from sfu.engine import Engine
    from signaling.config.configuration import Config

log = structlog.get_logger("signaling.node")


@dataclass(slots=True)
class Node:
    """One per process, made by `Rooms`."""

    config: "Config"
    engine: "Engine"
    clock: Callable[[], float] = time.monotonic
    """Seconds, monotonic; a test drives it by hand."""
    id: str = field(default_factory=identifiers.node_id)
    participants: dict[TransportId, Member] = field(default_factory=dict)
    tracks: dict[TrackId, Track] = field(default_factory=dict)
    subscribers: dict[SubscriptionId, tuple[Member, str]] = field(default_factory=dict)
    """Subscription -> (subscriber, track sid)."""
    capacity: Capacity = field(init=False)
    """What may still be promised to joins and publications."""
    shares: Shares = field(init=False)
    """How the control thread's time is shared among clients."""
    entrances: Entrances = field(init=False)
    """What joins and resumes took of it."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Messages of clients that were dropped on purpose, by reason."""
    events: Events = field(init=False)
    """What happens in all rooms."""
    _groups: set[int] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Ask the engine what it holds."""
        self.capacity = Capacity(self.engine, lambda: self.clock())
        self.shares = Shares(lambda: self.clock())
        self.events = Events(self.dropped)
        self.entrances = Entrances(lambda: self.clock())

    def take_group(self) -> int:
        """A number for a room that forwards its loudest voices only; 0, which is no group, when all are taken."""
        group = next((number for number in range(1, GROUPS) if number not in self._groups), 0)
        self._groups |= {group} - {0}
        return group

    def give_back_group(self, group: int) -> None:
        """The room has ended."""
        self._groups.discard(group)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` beside everything else; what it raises is logged."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    async def finish(self) -> None:
        """Wait for all work that was spawned."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background work failed", exc_info=error)
