"""Cases one after another, each with every system in turn: what `python -m bench network` does."""

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench.measure.run import Subject
from bench.network.bottleneck import OUTSIDE
from bench.network.case import Case
from bench.network.namespaces import NetworkUnavailable, enter_new_namespace
from bench.network.report import Judged, judged
from bench.network.run import CaseFailed, Outcome, run_case
from bench.targets.base import TargetFailed
from bench.targets.livekit import LiveKit
from bench.targets.registry import make


class NothingToMeasure(Exception):
    """A system cannot be measured behind a bottleneck."""


def _server(subject: Subject) -> LiveKit:
    target = make(subject.name, {"address": OUTSIDE, **dict(subject.options)})
    if not isinstance(target, LiveKit):
        raise NothingToMeasure(f"{subject.name} does not speak LiveKit's protocol")
    if target.url:
        raise NothingToMeasure(f"{subject}: a server that runs elsewhere cannot be put behind a bottleneck")
    if missing := target.missing():
        raise NothingToMeasure(missing)
    return target


def measure(cases: Sequence[Case], subjects: Sequence[Subject], seed: int, say: Callable[[str], None]) -> list[Judged]:
    """Run every case with every system and judge the runs.

    This process moves into a network namespace of its own and stays there. A run that fails is reported through `say`
    and left out.

    Raises:
        NothingToMeasure: a system cannot be measured this way.
        NetworkUnavailable: this machine has no network namespaces.
    """
    for subject in subjects:
        _server(subject)
    enter_new_namespace()
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="bench-network-") as folder:
        for case in cases:
            for subject in subjects:
                say(f"{case.name}, {subject}: {case.seconds:g} s")
                try:
                    outcome = asyncio.run(run_case(case, partial(_server, subject), Path(folder), seed))
                except (CaseFailed, TargetFailed, NetworkUnavailable) as error:
                    say(f"{case.name}, {subject} failed: {error}")
                    continue
                outcomes.append(outcome)
    return judged(outcomes)
