"""A session: one system, its participants and the generator, started once and measured under any number of loads.

It is the generator's process, which is pinned to the last core; the system has the others. All readings are made here.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from bench.accounting import tree_resident_bytes
from bench.clients.endpoint import Endpoint
from bench.generator.data_channels import Messages
from bench.generator.generator import Generator
from bench.generator.offered import offered
from bench.measure.calls import ApiCalls, Called
from bench.measure.churn import Churn
from bench.measure.readings import Readings, Sample, Surroundings
from bench.plans import Connected, Plan
from bench.results import Measurement
from bench.scenarios import Change, Choice, Scenario
from bench.targets.base import Target, TargetFailed, is_foreign
from bench.targets.registry import make

JOINS_AT_ONCE = 16
"""Joins at a time before the window. Joins in the window begin when they are due, however many are under way."""
LATE_JOIN_TIMEOUT_S = 30.0
"""The time for a join in the window."""
SERVED_TIMEOUT_S, SERVED_POLL_S = 10.0, 0.1
"""The time, after the last join, in which those who joined in the window get their first media packet."""
SETTLED_S = 1.0
"""The time from the last subscription to the first measurement, in which key frames come and stored packets fill up."""
WARM_UP_S, LEAD_S, DRAIN_S = 1.0, 0.05, 0.5
"""Seconds at the new load before the window; between opening and begin of it; for packets on their way at its end."""
WATCH_S = 2.0
FILLED = 250
"""The number of transports after which a server's pools are full, so that memory grows by the cost of one more."""
IDLE_REPORT_S = 3.0
"""The time between RTCP reports where systems are measured in turns: rare enough not to matter for the figures."""
JOINING_LOAD = 0.2
"""The share of the scenario's rates that is sent while participants join. It is enough for every track to be noticed,
and no join competes with a load that the system may not carry."""
ZOMBIE, DEAD = "Z", "X"
"""States of processes that have ended; see proc(5)."""


@runtime_checkable
class ChoosesLayers(Protocol):
    """A target whose viewers can ask for a layer."""

    async def choose_layer(self, participant: Connected, publisher: str, quality: str) -> None:
        """Ask for the LOW, MEDIUM or HIGH layer of the video of `publisher`, an identity."""


@runtime_checkable
class Mutes(Protocol):
    """A target whose participants can say that they are muted."""

    async def mute(self, participant: Connected, muted: bool) -> None:
        """Say that all tracks of a participant are muted or not. The generator stops sending by itself."""


@runtime_checkable
class CarriesData(Protocol):
    """A target whose participants can have data channels."""

    def data_path(self, participant: Connected) -> tuple[Endpoint, int]:
        """Return the endpoint of a participant planned with data channels, and the server's SCTP port."""


@runtime_checkable
class CanFail(Protocol):
    """The owner of a participant that notices when the system disconnects it."""

    failure: str
    """Why it was disconnected; empty while it is connected."""


class SessionFailed(Exception):
    """A measurement could not be made; the text says why."""


@dataclass(slots=True)
class Member:
    """A participant that the generator serves."""

    participant: Connected
    row: int
    asked_ns: int
    """When its join began, in ns of the monotonic clock."""
    tracks: list[list[int]] = field(default_factory=list)
    """Rows of the generator's streams by track, lowest layer first."""


class Session:
    """A session. Call `start`, then `measure` any number of times, then `close`."""

    def __init__(self, name: str, options: dict[str, str], scenario: Scenario, server_cores: tuple[int, ...]) -> None:
        """`name` and `options` are the target's. `server_cores`: the system's; empty: all but the generator's."""
        self.target: Target = make(name, options)
        self.scenario = scenario
        self._cores = server_cores
        self._generator = Generator(scenario.seed)
        self._messages = Messages(scenario.data or "reliable", scenario.message_bytes)
        self._members: dict[str, Member] = {}
        self._messengers: list[Connected] = []
        self._failed_joins: list[str] = []
        self._slots = asyncio.Semaphore(JOINS_AT_ONCE)
        self._memory = 0.0
        self._notes: list[str] = []

    async def start(self) -> None:
        """Start the system, let its participants join, and wait until all subscriptions exist."""
        if self.scenario.data and not isinstance(self.target, CarriesData):
            raise SessionFailed(f"{self.target.name} has no data channels, which {self.scenario.name} is about")
        self._generator.start(self.scenario.in_turns)
        self._generator.set_load(JOINING_LOAD)
        await self.target.start(self._cores)
        if self.scenario.in_turns:
            await self._join_idle()
        else:
            await self._join_busy()
        await self._choose_all(self.scenario.choices())
        await asyncio.sleep(SETTLED_S)

    async def _join_idle(self) -> None:
        """Let viewers join before publishers, and measure the memory of one more viewer once pools are full."""
        self._generator.set_report_interval(IDLE_REPORT_S)
        viewers = self.scenario.viewers()
        filled = min(FILLED, len(viewers) // 2)
        await self._join_all(viewers[:filled])
        await self.target.settle()
        before = tree_resident_bytes(self.target.pid())
        await self._join_all(viewers[filled:])
        await self.target.settle()
        self._memory = (tree_resident_bytes(self.target.pid()) - before) / (len(viewers) - filled)
        await self._join_all(self.scenario.early())
        await self.target.settle()

    async def _join_busy(self) -> None:
        """Let publishers join and, unless they join during the window, viewers."""
        before = tree_resident_bytes(self.target.pid())
        await self._join_all(self.scenario.early())
        await self.target.settle()
        viewers = self.scenario.viewers()
        if not self.scenario.late:
            before = tree_resident_bytes(self.target.pid()) if viewers else before
            await self._join_all(viewers)
            await self.target.settle()
            self._memory = (tree_resident_bytes(self.target.pid()) - before) / self.scenario.subscribers

    async def close(self) -> None:
        """End everything."""
        await self._messages.close()
        self._generator.stop()
        await self.target.stop()

    # Participants.

    async def _join_all(self, plans: Iterable[Plan]) -> None:
        async with asyncio.TaskGroup() as group:
            for plan in plans:
                group.create_task(self._join_in_turn(plan))

    async def _join_in_turn(self, plan: Plan) -> None:
        async with self._slots:
            await self._join(plan)

    async def _join_late(self, plan: Plan) -> None:
        """Join in the window. A failure of a server of another project is counted.

        Raises:
            TargetFailed: a join failed, and the target is a server of ours.
        """
        try:
            async with asyncio.timeout(LATE_JOIN_TIMEOUT_S):
                await self._join(plan)
        except (TargetFailed, TimeoutError) as error:
            reason = str(error) or f"{self.target.name}: {plan.identity} did not join in {LATE_JOIN_TIMEOUT_S:.0f} s"
            if not is_foreign(self.target):
                raise TargetFailed(reason) from error
            self._failed_joins.append(reason)

    async def _join(self, plan: Plan) -> None:
        self._generator.check()
        asked_ns = time.monotonic_ns()
        participant = await self.target.join(plan)
        if isinstance(self.target, CarriesData) and plan.data:
            path = self.target.data_path(participant)
            await self._messages.add(plan.identity, *path, plan.messages_per_second)
            self._messengers.append(participant)
            return
        row = self._generator.add(participant)
        member = self._members[plan.identity] = Member(participant, row, asked_ns)
        rows = self._generator.rows_of(participant)
        kinds = [stream.kind for stream in participant.sends]
        for kind in dict.fromkeys(kinds):
            member.tracks.append([at for at, each in zip(rows, kinds, strict=True) if each == kind])

    async def _choose_all(self, choices: list[Choice]) -> None:
        if choices and not isinstance(self.target, ChoosesLayers):
            self._notes.append("viewers cannot choose layers here")
            return
        for choice in choices:
            await self._choose(choice)

    async def _choose(self, choice: Choice) -> None:
        if isinstance(self.target, ChoosesLayers):
            viewer = self._members[choice.viewer].participant
            await self.target.choose_layer(viewer, choice.publisher, choice.quality)

    async def _change(self, change: Change) -> None:
        if change.choice is not None:
            await self._choose(change.choice)
            return
        member = self._members[change.participant]
        for rows in member.tracks:
            for row in rows:
                self._generator.mute(row, change.muted)
        if isinstance(self.target, Mutes):
            await self.target.mute(member.participant, change.muted)

    # Measuring.

    async def measure(self, load: float, repeat: int) -> Measurement:
        """Measure one window at `load` times the scenario's rates."""
        self._generator.set_load(load)
        self._messages.set_load(load)
        self._generator.set_loss(self.scenario.loss)
        self._generator.set_key_interval(self.scenario.key_interval_frames)
        self._check_alive()
        earlier_around = Surroundings.take(self.target.pid())
        self._generator.pause(False)
        async with (
            Churn(self.target, self._generator, self.scenario) as churn,
            ApiCalls(self.target, self.scenario) as application,
        ):
            await asyncio.sleep(WARM_UP_S)
            earlier = self._generator.counters()
            before, after = await self._window()
            await self._serve_late()
        await asyncio.sleep(DRAIN_S)
        self._generator.pause(self.scenario.in_turns)
        self._generator.check()
        self._check_alive()
        around = earlier_around, Surroundings.take(self.target.pid())
        own = {name: count - earlier[name] for name, count in self._generator.counters().items()}
        called = application.within(before.at_ns, after.at_ns)
        readings = self._readings((before, after), around, own, called, churn.notes() + application.notes())
        return readings.measurement(self.target.name, self.scenario, load, repeat)

    async def _window(self) -> tuple[Sample, Sample]:
        """Let the window pass; return what was read at its begin and at its end."""
        start_ns = time.monotonic_ns() + int(LEAD_S * 1e9)
        end_ns = start_ns + int(self.scenario.seconds * 1e9)
        self._generator.open_window(start_ns, end_ns)
        self._messages.open_window(start_ns, end_ns)
        async with asyncio.TaskGroup() as group:
            happening = group.create_task(self._happen(start_ns))
            await _sleep_until(start_ns)
            before = self._sample()
            await self._watch_until(end_ns)
            after = self._sample()
            await happening
        return before, after

    async def _serve_late(self) -> None:
        """Wait until all who joined in the window have media, or for SERVED_TIMEOUT_S."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SERVED_TIMEOUT_S):
                while self.scenario.late and len(self._joins_ms()) < len(self._viewers()):  # noqa: ASYNC110
                    await asyncio.sleep(SERVED_POLL_S)

    async def _watch_until(self, end_ns: int) -> None:
        """Sleep, but notice when the generator or the system ends."""
        while (left := (end_ns - time.monotonic_ns()) / 1e9) > 0:
            await asyncio.sleep(min(left, WATCH_S))
            self._generator.check()
            self._check_alive()

    async def _happen(self, start_ns: int) -> None:
        """Make the scenario's changes, and late joins, during the window."""
        plans = self.scenario.viewers() if self.scenario.late else []
        interval_s = self.scenario.seconds / max(len(plans), 1)
        happenings: list[tuple[float, Plan | Change]] = [(k * interval_s, plan) for k, plan in enumerate(plans)]
        happenings += [(change.at_s, change) for change in self.scenario.changes()]
        async with asyncio.TaskGroup() as group:
            for at_s, happening in sorted(happenings, key=lambda each: each[0]):
                await _sleep_until(start_ns + int(at_s * 1e9))
                group.create_task(
                    self._join_late(happening) if isinstance(happening, Plan) else self._change(happening)
                )

    def _check_alive(self) -> None:
        try:
            state = Path(f"/proc/{self.target.pid()}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            state = DEAD
        if state in (ZOMBIE, DEAD):
            raise SessionFailed(f"{self.target.name} died while it was measured")

    def _sample(self) -> Sample:
        self._check_alive()
        return Sample.take(self.target.pid(), self._cores)

    def _readings(
        self,
        samples: tuple[Sample, Sample],
        around: tuple[Surroundings, Surroundings],
        own: dict[str, int],
        calls: list[Called],
        notes: list[str],
    ) -> Readings:
        participants = [member.participant for member in self._members.values()] + self._messengers
        owners = (participant.owner for participant in participants)
        return Readings(
            *samples,
            around,
            len(self._cores),
            self._generator.window(),
            self._messages.window(),
            self._offered(),
            own,
            joins_ms=self._joins_ms(),
            calls=calls,
            failed_joins=self._failed_joins,
            drops=self.target.drops(),
            fallen=[owner.failure for owner in owners if isinstance(owner, CanFail) and owner.failure],
            message_failures=self._messages.failures(),
            notes=(*self._notes, *notes),
            memory_per_subscriber=self._memory,
        )

    def _offered(self) -> int:
        members = self._members.values()
        viewers = Counter(member.participant.plan.room for member in members if member.participant.plan.subscribe)
        tracks, audience = [], []
        for member in members:
            plan = member.participant.plan
            tracks += member.tracks
            audience += [viewers[plan.room] - plan.subscribe] * len(member.tracks)
        return offered(self._generator.sends, self._generator.sources, tracks, audience, not self.scenario.late)

    def _viewers(self) -> list[Member]:
        """Return the members that publish nothing."""
        return [member for member in self._members.values() if not member.participant.plan.publish]

    def _joins_ms(self) -> tuple[float, ...]:
        """Return the times from join to first packet of those who joined in the window and got a packet."""
        if not self.scenario.late:
            return ()
        first = [(self._generator.first_media_ns(member.row), member.asked_ns) for member in self._viewers()]
        return tuple((media_ns - asked_ns) / 1e6 for media_ns, asked_ns in first if media_ns)


async def _sleep_until(at_ns: int) -> None:
    await asyncio.sleep(max(0.0, (at_ns - time.monotonic_ns()) / 1e9))


async def serve(pipe: Any, arguments: tuple[Any, ...]) -> None:
    """Serve the process at the other end of `pipe`: (load, repeat) is answered by a Measurement, None ends."""
    session = Session(*arguments)
    loop = asyncio.get_running_loop()
    try:
        await session.start()
        pipe.send((session.target.profile, session.target.versions(), session.target.pid()))
        while (request := await loop.run_in_executor(None, pipe.recv)) is not None:
            pipe.send(await session.measure(*request))
    finally:
        with contextlib.suppress(Exception):
            await session.close()
