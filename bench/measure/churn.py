"""Churn: participants that join, stay a while and leave again while others are measured.

Each is a complete endpoint that receives everything in the room. Its own packets are in no figure: the question is how
its joining and leaving affects the others.
"""

import asyncio
import itertools
from types import TracebackType
from typing import Self

from bench.generator.generator import Generator
from bench.plans import Plan
from bench.scenarios import Scenario
from bench.targets.base import Target, TargetFailed


class Churn:
    """An asynchronous context manager: visitors join while it is open, and have all left when it has closed."""

    def __init__(self, target: Target, generator: Generator, scenario: Scenario) -> None:
        """`scenario` says how many visitors join per second and how long each stays."""
        self._target, self._generator, self._scenario = target, generator, scenario
        self._group = asyncio.TaskGroup()
        self._closing = asyncio.Event()
        self.completed = 0
        """Visitors that joined, received media, stayed for `stay_s` and left."""
        self.unserved = 0
        """Visitors that stayed for `stay_s` and received no media."""
        self.failures: list[str] = []
        """Why visitors could not join, one text each."""

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        if self._scenario.churn_per_second:
            self._group.create_task(self._join_visitors())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        await self._group.__aexit__(kind, error, trace)

    async def _join_visitors(self) -> None:
        """Start each visitor when it is due, however many earlier ones are still joining (an open loop)."""
        loop = asyncio.get_running_loop()
        begin, interval_s = loop.time(), 1 / self._scenario.churn_per_second
        for number in itertools.count():
            if await self._closes_within(begin + number * interval_s - loop.time()):
                return
            self._group.create_task(self._visit(self._scenario.visitor(number)))

    async def _closes_within(self, seconds: float) -> bool:
        """Wait for `seconds`, or until the context manager closes; return whether it closes."""
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            pass
        return self._closing.is_set()

    async def _visit(self, plan: Plan) -> None:
        try:
            participant = await self._target.join(plan)
        except (TargetFailed, OSError) as error:
            self.failures.append(str(error))
            return
        row = self._generator.add(participant, counted=False)
        cut_short = await self._closes_within(self._scenario.stay_s)
        await self._generator.remove(row)
        await self._target.leave(participant)
        if cut_short:
            return
        if self._generator.first_media_ns(row):
            self.completed += 1
        else:
            self.unserved += 1

    def notes(self) -> list[str]:
        """Return one sentence for each thing that the report has to say; none for a scenario without churn."""
        scenario, found = self._scenario, []
        if scenario.churn_per_second:
            found.append(
                f"{scenario.churn_per_second:g} visitors a second joined for {scenario.stay_s:g} s each; "
                f"{self.completed} stays were completed"
            )
        if self.unserved:
            found.append(f"{self.unserved} visitors got no media")
        if self.failures:
            found.append(f"{len(self.failures)} visitors could not join: {self.failures[0]}")
        return found
