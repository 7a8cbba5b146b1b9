"""Clients that join, stay a while and leave again while others are measured.

Each is a complete endpoint that gets everything in the room. Nothing that reaches them is in a figure: what is asked is
what their coming and going does to the others.
"""

import asyncio
import itertools
from types import TracebackType
from typing import Self

from bench.generator.generator import Generator
from bench.plans import Plan
from bench.scenarios import Scenario
from bench.targets.base import Target, TargetFailed


class Visits:
    """An asynchronous context manager: they come as long as it is open, and the last have left when it closes."""

    def __init__(self, target: Target, generator: Generator, scenario: Scenario) -> None:
        """scenario: says how many come a second and how long they stay."""
        self._target, self._generator, self._scenario = target, generator, scenario
        self._group = asyncio.TaskGroup()
        self._over = asyncio.Event()
        self.completed = 0
        """Joined, got media, stayed as long as they wanted, left."""
        self.unserved = 0
        """Stayed as long as they wanted without getting anything."""
        self.failures: list[str] = []
        """Why others could not join."""

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        if self._scenario.visits_per_second:
            self._group.create_task(self._come())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        await self._group.__aexit__(kind, error, trace)

    async def _come(self) -> None:
        """Open loop: whoever is due comes, however many are still on their way."""
        loop = asyncio.get_running_loop()
        begin, interval_s = loop.time(), 1 / self._scenario.visits_per_second
        for number in itertools.count():
            if await self._over_within(begin + number * interval_s - loop.time()):
                return
            self._group.create_task(self._visit(self._scenario.visitor(number)))

    async def _over_within(self, seconds: float) -> bool:
        """Wait so long, or until no visit is wanted any more; returns whether that is so."""
        try:
            async with asyncio.timeout(seconds):
                await self._over.wait()
        except TimeoutError:
            pass
        return self._over.is_set()

    async def _visit(self, plan: Plan) -> None:
        try:
            participant = await self._target.join(plan)
        except (TargetFailed, OSError) as error:
            self.failures.append(str(error))
            return
        row = self._generator.add(participant, counted=False)
        cut_short = await self._over_within(self._scenario.visit_s)
        await self._generator.remove(row)
        await self._target.leave(participant)
        if cut_short:
            return
        if self._generator.first_media_ns(row):
            self.completed += 1
        else:
            self.unserved += 1

    def notes(self) -> list[str]:
        """What there is to say of them; nothing if none were wanted."""
        scenario, found = self._scenario, []
        if scenario.visits_per_second:
            found.append(
                f"{self.completed} visits of {scenario.visit_s:g} s were completed, "
                f"{scenario.visits_per_second:g} came a second"
            )
        if self.unserved:
            found.append(f"{self.unserved} visits got no media")
        if self.failures:
            found.append(f"{len(self.failures)} visits could not join: {self.failures[0]}")
        return found
