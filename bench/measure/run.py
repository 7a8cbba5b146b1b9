"""Runs scenarios: systems in turns, each in a session of its own, under a fixed load or up to the highest one.

This process only waits and prints. Each session (`bench.measure.session`) is a process that lives for one system and
one repeat, so that nothing is left over from the one before.
"""

import asyncio
import contextlib
import multiprocessing
import os
import resource
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Self

from bench import accounting
from bench.accounting import cores
from bench.generator.send import KEY_INTERVAL_FRAMES, KEY_WEIGHT
from bench.measure.readings import BUSY
from bench.measure.session import serve
from bench.results import Knee, Latency, Measurement, Report, command_line, now
from bench.scenarios import Scenario

MAX_LOSS = 0.001
MAX_P99_US, BURST_FACTOR = 20_000.0, 1.5
"""A load is carried if p99 stays below the first, or below so many times the drain time of a key frame to everybody."""
GROWTH, BISECTIONS = 1.5, 4
MAX_LOAD = 100.0
CEILING_LOAD, CEILING_N, CEILING_SECONDS = 2.0, 100, 2.0
BASELINE_SECONDS = 3.0
ANSWER_SLACK_S = 60.0
"""On top of a window's own time: warm-up, drain, and a machine that is busy."""
START_TIMEOUT_S = 900.0
"""Of a session: a first start compiles kernels, and thousands may have to join."""

Say = Callable[[str], None]


class RunFailed(Exception):
    """A session ended with an error; the text is what it said."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A target with its options."""

    name: str
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        options = ",".join(f"{key}={value}" for key, value in self.options)
        return f"{self.name}:{options}" if options else self.name

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `name` or `name:key=value,key=value`. Raises ValueError."""
        name, _, rest = text.partition(":")
        pairs = [pair.partition("=") for pair in rest.split(",") if pair]
        if not name or any(not key or not equals for key, equals, _ in pairs):
            raise ValueError(f"{text!r} is not like name or name:key=value,key=value")
        return cls(name, tuple((key, value) for key, _, value in pairs))


class SessionProcess:
    """A session at the other end of a pipe; a context manager."""

    def __init__(self, subject: Subject, scenario: Scenario, server_cores: tuple[int, ...] = ()) -> None:
        """Starts it and waits until everybody is in. server_cores: of the system; empty: all but the generator's.

        Raises RunFailed.
        """
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (subject.name, dict(subject.options), scenario, server_cores or cores()[0])
        # not a daemon: those may have no children
        self._process = context.Process(target=session_main, args=(theirs, cores()[1], arguments))
        self._seconds = scenario.seconds
        self._process.start()
        theirs.close()
        try:
            self.profile, self.versions, self.pid = self._receive(START_TIMEOUT_S)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def measure(self, load: float = 1.0, repeat: int = 0) -> Measurement:
        """One window. Raises RunFailed."""
        self._pipe.send((load, repeat))
        measured = self._receive(self._seconds + ANSWER_SLACK_S)
        assert isinstance(measured, Measurement)
        return measured

    def _receive(self, timeout_s: float) -> Any:
        try:
            if not self._pipe.poll(timeout_s):
                raise RunFailed(f"the session did not answer in {timeout_s:.0f} s")
            answer = self._pipe.recv()
        except (EOFError, ConnectionError) as error:
            raise RunFailed("the session's process died") from error
        if isinstance(answer, Failure):
            raise RunFailed(answer.text)
        return answer

    def close(self) -> None:
        """End the session and what it started."""
        with contextlib.suppress(OSError):  # it has ended already
            self._pipe.send(None)
        self._process.join(ANSWER_SLACK_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


@dataclass(frozen=True, slots=True)
class Failure:
    """What a session says before it ends by an error."""

    text: str


def session_main(pipe: Connection, core: int, arguments: tuple[Any, ...]) -> None:
    """Entry of a session's process."""
    os.sched_setaffinity(0, {core})
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    warnings.filterwarnings("ignore", module="jwt")  # development secrets are short
    try:
        asyncio.run(serve(pipe, arguments))
    except Exception as error:
        pipe.send(Failure(_explain(error)))


def _explain(error: BaseException) -> str:
    """The first error of a group in one line if it is one of ours, with its traceback if it is not."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if type(error).__module__.startswith("bench."):
        return str(error)
    return "".join(traceback.format_exception(error))


def carried(measured: Measurement, scenario: Scenario) -> bool:
    """Whether a load was within the bounds of loss and latency."""
    return measured.loss < MAX_LOSS and measured.latency.p99 < max(
        MAX_P99_US, BURST_FACTOR * drain_us(measured, scenario)
    )


def drain_us(measured: Measurement, scenario: Scenario) -> float:
    """How long the system takes for the largest regular burst: one publisher's key frame to all its viewers, or one
    message."""
    if scenario.counts == "message":
        return scenario.n * measured.cpu_us_per_packet
    video = [track for track in scenario.tracks if track.kind == "video"]
    if not video:
        return 0.0
    packets = 1.0
    if video[0].frames_per_second:
        frame = measured.load * video[0].layers[-1].packets_per_second / video[0].frames_per_second
        packets = frame * KEY_WEIGHT * KEY_INTERVAL_FRAMES / (KEY_INTERVAL_FRAMES - 1 + KEY_WEIGHT)
    viewers = scenario.n if scenario.unit != "rooms" else scenario.room_size - 1
    return packets * viewers * measured.cpu_us_per_packet


class Ramp:
    """Raises a session's load until it is not carried any more, then bisects."""

    def __init__(self, session: SessionProcess, repeat: int, passes: Callable[[Measurement], bool], say: Say) -> None:
        """`passes`: whether a measured load is carried."""
        self._session, self._repeat, self._passes, self._say = session, repeat, passes, say
        self.steps: list[Measurement] = []
        self.best: Measurement | None = None
        """The highest that passed."""

    def climb(self, first: float) -> None:
        """From load `first` upwards, in steps of GROWTH."""
        low, high = 0.0, first
        while high <= MAX_LOAD and self._carries(high):
            low, high = high, high * GROWTH
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._carries(middle) else (low, middle)

    def _carries(self, load: float) -> bool:
        """Try a load, and once more if it does not pass: one stall of the machine must not decide."""
        for _ in range(2):
            measured = self._session.measure(load, self._repeat)
            self._say(_in_words(measured))
            if self._passes(measured):
                break
        self.steps.append(measured)
        if not self._passes(measured):
            return False
        self.best = measured
        return True


def _in_words(measured: Measurement) -> str:
    return "; ".join(
        (
            f"load {measured.load:.2f}: {measured.packets_per_second:,.0f} {measured.unit}s/s, "
            f"loss {measured.loss:.3%}, "
            f"p99 {measured.latency.p99 / 1e3:.1f} ms, server {measured.server_busy:.0%}, "
            f"generator {measured.generator_busy:.0%}",
            *measured.notes,
        )
    )


def _knee(found: Ramp, scenario: Scenario) -> Knee:
    """What a ramp has found; no packets if nothing was carried."""
    best = found.best
    above = [step for step in found.steps if best is None or step.load >= best.load]
    limited = any(step.generator_busy >= BUSY for step in above)
    rate, busy = (best.packets_per_second, best.server_busy) if best is not None else (0.0, 0.0)
    return Knee(found.steps[0].system, scenario.name, scenario.n, rate, busy, limited, scenario.counts)


REFLECTOR = Subject("reflector")
_ONE = Scenario("baseline", "One publisher, one viewer", "viewers", 1, BASELINE_SECONDS, audio=True, video="single")
_MANY = Scenario(
    "ceiling",
    "One publisher, many viewers, small bursts",
    "viewers",
    CEILING_N,
    CEILING_SECONDS,
    video="single",
    frames_per_second=120,
)


def find_baseline() -> Latency:
    """What the generator, the kernel and a plain reflector take: from one publisher to one viewer."""
    with SessionProcess(REFLECTOR, _ONE) as session:
        return session.measure().latency


def find_ceiling(say: Say) -> float:
    """Packets a second that one generator process receives, decrypts and counts without loss from a plain reflector."""
    with SessionProcess(REFLECTOR, _MANY) as session:
        found = Ramp(session, 0, lambda step: step.loss < MAX_LOSS and step.generator_busy < BUSY, say)
        found.climb(CEILING_LOAD)
    return found.best.packets_per_second if found.best is not None else 0.0


class Run:
    """Measures scenarios with systems and collects what comes of it."""

    def __init__(self, say: Say, command: str = "") -> None:
        """say: is told what goes on, a line at a time. command: what the report names as its origin; empty: ours."""
        self._say = say
        self._command = command or command_line(sys.argv[1:])
        self._measurements: list[Measurement] = []
        self._knees: list[Knee] = []
        self._profiles: dict[str, str] = {}
        self._versions: dict[str, str] = {}
        self.failures: list[str] = []
        """What could not be measured, a line each; the rest is in the report."""

    def all(self, sized: list[Scenario], subjects: list[Subject], options: dict[str, Any]) -> Report:
        """Measure every scenario with every system. options: harness, repeats, load and knee of the command line."""
        baseline, ceiling = None, None
        if options["harness"] and any(scenario.tracks for scenario in sized):
            baseline = find_baseline()
            self._say(f"a reflector alone: p50 {baseline.p50:,.0f} us, p99 {baseline.p99:,.0f} us")
            ceiling = find_ceiling(self._say)
            self._say(f"the generator's own ceiling: {ceiling:,.0f} packets/s")
        for scenario in sized:
            for repeat in range(options["repeats"]):
                self.turn(scenario, subjects, repeat, options)
        return self.report(baseline, ceiling)

    def turn(self, scenario: Scenario, subjects: Iterable[Subject], repeat: int, options: dict[str, Any]) -> None:
        """One repeat of a scenario with each system. options: load and knee of the command line."""
        for subject in subjects:
            what = f"{scenario.name}, n = {scenario.n}: {subject.name}, run {repeat + 1}"
            self._say(what)
            try:
                self._one(scenario, subject, repeat, options)
            except RunFailed as error:
                self.failures.append(f"{what}: {error}")
                self._say(self.failures[-1])

    def _one(self, scenario: Scenario, subject: Subject, repeat: int, options: dict[str, Any]) -> None:
        with SessionProcess(subject, scenario) as session:
            if options["knee"]:
                passes = partial(carried, scenario=scenario)
                found = Ramp(session, repeat, passes, self._say)
                found.climb(options["load"])
                self._measurements += found.steps
                self._knees.append(_knee(found, scenario))
            else:
                self._measurements.append(session.measure(options["load"], repeat))
            self._profiles[subject.name] = session.profile
            self._versions |= session.versions

    def report(self, baseline: Latency | None = None, ceiling: float | None = None) -> Report:
        """Everything that was measured so far, with what the harness itself adds if that was measured."""
        return Report(
            machine=accounting.machine(),
            date=now(),
            command=self._command,
            versions=accounting.versions() | self._versions,
            profile=", ".join(dict.fromkeys(self._profiles.values())),
            baseline=baseline,
            ceiling=ceiling,
            measurements=tuple(self._measurements),
            knees=tuple(self._knees),
        )
