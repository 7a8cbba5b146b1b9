"""What every room of this process shares: the engine, the clock, and who owns which row of the engine.

The maps are the only way from an engine event to a participant. Code that opens a row adds it here, and removes it when
it closes the row. So nothing refers here to a participant that has left.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog
from livekit.protocol.rtc import ICEServer

from sfu.parameters import GROUPS, SubscriptionId, TrackId, TransportId
from signaling import identifiers
from signaling.due_work import DueWork
from signaling.http.shares import Callers, Entrances, Shares
from signaling.records.fallbacks import Fallbacks
from signaling.records.kept_bytes import KeptBytes
from signaling.records.revocations import Revocations
from signaling.rooms.calls import Calls
from signaling.rooms.capacity import Capacity
from signaling.rooms.events import Events
from signaling.rooms.member import Member
from signaling.rooms.path_memory import PathMemory
from signaling.rooms.tracks import Track
from signaling.turn.ice_servers import ice_servers
from signaling.turn.service import TurnService

if TYPE_CHECKING:
    from sfu.engine import Engine
    from signaling.config.configuration import Config

log = structlog.get_logger("signaling.node")


@dataclass(slots=True)
class Node:
    """What all rooms of a process share. `Rooms` makes it."""

    config: "Config"
    engine: "Engine"
    clock: Callable[[], float] = time.monotonic
    """Seconds, monotonic. Tests set it by hand."""
    id: str = field(default_factory=identifiers.node_id)
    participants: dict[TransportId, Member] = field(default_factory=dict)
    tracks: dict[TrackId, Track] = field(default_factory=dict)
    subscribers: dict[SubscriptionId, tuple[Member, str]] = field(default_factory=dict)
    """Subscription -> (subscriber, track sid)."""
    capacity: Capacity = field(init=False)
    """Checks whether the engine has rows for joins and publications."""
    shares: Shares = field(init=False)
    """How the control thread's time is shared among clients."""
    callers: Callers = field(init=False)
    """The shares of those who ask by HTTP."""
    entrances: Entrances = field(init=False)
    """What joins and resumes used of the control thread's time."""
    due_work: DueWork = field(init=False)
    """Work for many participants, which leaves requests their turns."""
    paths: PathMemory = field(init=False)
    """What the paths to those who left were known to carry."""
    fallbacks: Fallbacks = field(init=False)
    """How clients are to connect whose connection failed."""
    turn: TurnService = field(init=False)
    """The TURN server of this process."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Counts messages and requests of clients that were dropped, by reason."""
    api_calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Counts calls of the server API: (call, code of the answer)."""
    events: Events = field(init=False)
    """Distributes the events of all rooms."""
    calls: Calls = field(init=False)
    """The server's calls to participants that wait for an answer."""
    revocations: Revocations = field(init=False)
    """Tokens that are no longer good for a room."""
    kept: KeptBytes = field(init=False)
    """The bytes that all rooms keep because applications said so."""
    _groups: set[int] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Make what depends on the engine and on the clock."""
        self.capacity = Capacity(self.engine, lambda: self.clock())
        self.shares = Shares(lambda: self.clock())
        self.callers = Callers(self.shares)
        self.events = Events(self.dropped)
        self.calls = Calls(self.engine, self.dropped)
        self.events.subscribe(self.calls.note)
        self.revocations = Revocations(self.dropped)
        self.kept = KeptBytes(self.dropped)
        self.entrances = Entrances(lambda: self.clock())
        self.due_work = DueWork(lambda: self.clock())
        self.paths = PathMemory(self.engine, lambda: self.clock())
        secret = next(iter(self.config.keys.values())).get_secret_value()
        self.turn = TurnService(self.config.turn, secret)
        self.fallbacks = Fallbacks(self.config.ice, lambda: self.clock(), lambda: self.has_relay)

    @property
    def has_relay(self) -> bool:
        """Whether clients are told of a TURN server."""
        return self.turn.is_told or bool(self.config.ice_servers.turn_servers)

    def ice_servers(self, sid: str) -> list[ICEServer]:
        """Return the STUN and TURN servers that the participant with this sid is told: our own come first."""
        now = time.time()
        return [*self.turn.ice_servers(sid, now), *ice_servers(self.config.ice_servers, sid, now)]

    def take_group(self) -> int:
        """Return a number for a room that forwards only its loudest voices; 0, which is no group, if all are taken."""
        group = next((number for number in range(1, GROUPS) if number not in self._groups), 0)
        self._groups |= {group} - {0}
        return group

    def give_back_group(self, group: int) -> None:
        """Free the group of a room that has ended."""
        self._groups.discard(group)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` as a task. An exception of it is logged."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    async def finish(self) -> None:
        """Wait until all tasks of `spawn` are done."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background work failed", exc_info=error)
