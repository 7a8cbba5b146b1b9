"""How a case is run again, and what is kept of what clients said."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.measure.run import Subject
from bench.network import command, run
from bench.network.bottleneck import LATE_MS
from bench.network.case import Case, ViewerPlan
from bench.network.counts import Record
from bench.network.link import Conditions
from bench.network.run import Outcome
from bench.targets.aiosfu import Aiosfu
from bench.targets.livekit import LiveKit

CASE = Case("c", "t", 10, Conditions(), Conditions(), (ViewerPlan("v"),))


class Stages:
    """Stands for bottleneck, server and clients; each run takes the next lateness."""

    def __init__(self, late: Iterator[float]) -> None:
        self.late = late
        self.servers: list[LiveKit] = []

    @contextlib.asynccontextmanager
    async def bottleneck(self, *_: Any) -> AsyncIterator[None]:
        yield None

    @contextlib.asynccontextmanager
    async def serving(self, target: LiveKit) -> AsyncIterator[LiveKit]:
        self.servers.append(target)
        yield target

    def run(self, case: Case, *_: Any) -> "Stages":
        return self

    async def measure(self) -> Outcome:
        return Outcome(CASE, "s", Record(late_ms=next(self.late)), {}, [])


@pytest.mark.parametrize(
    ("late", "tries", "measured"),
    [([1.0], 1, True), ([9.0, 1.0], 2, True), ([9.0, 9.0, LATE_MS], 3, True), ([9.0, 9.0, 9.0], 3, False)],
)
async def test_a_case_in_which_the_bottleneck_was_late_is_run_twice_more(
    late: list[float], tries: int, measured: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stages = Stages(iter(late))
    for name, stage in (("bottleneck", stages.bottleneck), ("serving", stages.serving), ("Run", stages.run)):
        monkeypatch.setattr(run, name, stage)
    outcome = await run.run_case(CASE, lambda: Aiosfu({}), tmp_path)
    assert (outcome.tries, outcome.measured) == (tries, measured)
    assert len({id(server) for server in stages.servers}) == tries


def test_what_was_said_long_before_or_after_the_case_is_left_out_and_times_count_from_its_begin() -> None:
    said = [
        {"at": 98.4, "pictures": [[98.3, 720, 5]]},
        {"at": 99.9, "pictures": [[99.8, 720, 5]]},
        {"at": 100.1, "pictures": [[99.95, 720, 5], [100.05, 360, 6]]},
        {"at": 105.0, "event": "reconnecting"},
        {"at": 110.1, "pictures": []},
    ]
    before, first, second = run.since(said, 100.0, 10)
    assert before["at"] == pytest.approx(-0.1)
    assert first["at"] == pytest.approx(0.1)
    assert [at for at, *_ in first["pictures"]] == pytest.approx([-0.05, 0.05])
    assert second == {"at": pytest.approx(5.0), "event": "reconnecting"}


@pytest.mark.parametrize("text", ["floor", "livekit:url=ws://127.0.0.1:7880", "livekit:binary=there-is-none"])
def test_a_system_that_cannot_be_put_behind_a_bottleneck_is_refused_before_anything_runs(text: str) -> None:
    with pytest.raises(command.NothingToMeasure):
        command.measure([CASE], [Subject.parse(text)], 1, print)
