"""Runs scenarios: systems in turns, each in its own session, under a fixed load or up to the highest that it carries.

This process only waits and prints. Each session (`bench.measure.session`) is a process for one system and one repeat,
so that nothing remains of the one before.
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
"""A load is carried if p99 stays below the first, or below the second times the time to send a key frame to all."""
GROWTH, BISECTIONS = 1.5, 4
MAX_LOAD = 100.0
CEILING_LOAD, CEILING_N, CEILING_SECONDS = 2.0, 100, 2.0
BASELINE_SECONDS = 3.0
ANSWER_SLACK_S = 60.0
"""Time beyond the window's own: for warm-up, drain, and a busy machine."""
START_TIMEOUT_S = 900.0
"""The time a session may take to start: kernels may have to be compiled, and thousands may have to join."""

Say = Callable[[str], None]


class RunFailed(Exception):
    """A session ended with an error, whose text this has."""


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
        """Read `name` or `name:key=value,key=value`.

        Raises:
            ValueError: the text has another form.
        """
        name, _, rest = text.partition(":")
        pairs = [pair.partition("=") for pair in rest.split(",") if pair]
        if not name or any(not key or not equals for key, equals, _ in pairs):
            raise ValueError(f"{text!r} is not like name or name:key=value,key=value")
        return cls(name, tuple((key, value) for key, _, value in pairs))


class SessionProcess:
    """A session at the other end of a pipe; a context manager."""

    def __init__(self, subject: Subject, scenario: Scenario, server_cores: tuple[int, ...] = ()) -> None:
        """Start the session and wait until everybody has joined.

        Args:
            subject: the system.
            scenario: what is measured.
            server_cores: the system's cores; empty: all but the generator's.

        Raises:
            RunFailed: the session ended with an error.
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
        """Measure one window.

        Raises:
            RunFailed: the session ended with an error.
        """
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
    """The last message of a session that ends with an error."""

    text: str


def session_main(pipe: Connection, core: int, arguments: tuple[Any, ...]) -> None:
    """Run a session in its process."""
    os.sched_setaffinity(0, {core})
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    warnings.filterwarnings("ignore", module="jwt")  # development secrets are short
    try:
        asyncio.run(serve(pipe, arguments))
    except Exception as error:
        pipe.send(Failure(_explain(error)))


def _explain(error: BaseException) -> str:
    """Describe the first error of a group: in one line if it is one of ours, else with its traceback."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if type(error).__module__.startswith("bench."):
        return str(error)
    return "".join(traceback.format_exception(error))


def carried(measured: Measurement, scenario: Scenario) -> bool:
    """Tell whether loss and latency were within their bounds."""
    return measured.loss < MAX_LOSS and measured.latency.p99 < max(
        MAX_P99_US, BURST_FACTOR * drain_us(measured, scenario)
    )


def drain_us(measured: Measurement, scenario: Scenario) -> float:
    """Return how long the system takes for the largest regular burst, in microseconds.

    That is one publisher's key frame to all its viewers, or one message to all its receivers.
    """
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
        """`passes` tells whether a measured load is carried."""
        self._session, self._repeat, self._passes, self._say = session, repeat, passes, say
        self.steps: list[Measurement] = []
        self.best: Measurement | None = None
        """The highest load that passed."""

    def climb(self, first: float) -> None:
        """Raise the load from `first`, by GROWTH each time, until one is not carried; then bisect."""
        low, high = 0.0, first
        while high <= MAX_LOAD and self._carries(high):
            low, high = high, high * GROWTH
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._carries(middle) else (low, middle)

    def _carries(self, load: float) -> bool:
        """Try a load, and once more if it does not pass, so that one stall of the machine does not decide."""
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
    """Return the knee that a ramp has found; it has no packets if no load was carried."""
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
    """Measure the latency of generator, kernel and a plain reflector alone, from one publisher to one viewer."""
    with SessionProcess(REFLECTOR, _ONE) as session:
        return session.measure().latency


def find_ceiling(say: Say) -> float:
    """Measure how many packets a second the generator takes without loss from a plain reflector."""
    with SessionProcess(REFLECTOR, _MANY) as session:
        found = Ramp(session, 0, lambda step: step.loss < MAX_LOSS and step.generator_busy < BUSY, say)
        found.climb(CEILING_LOAD)
    return found.best.packets_per_second if found.best is not None else 0.0


class Run:
    """Measures scenarios with systems and collects the results."""

    def __init__(self, say: Say, command: str = "") -> None:
        """`say` is called with each line of progress. The report names `command` as its origin; empty: ours."""
        self._say = say
        self._command = command or command_line(sys.argv[1:])
        self._measurements: list[Measurement] = []
        self._knees: list[Knee] = []
        self._profiles: dict[str, str] = {}
        self._versions: dict[str, str] = {}
        self.failures: list[str] = []
        """What could not be measured, one line each."""

    def all(self, sized: list[Scenario], subjects: list[Subject], options: dict[str, Any]) -> Report:
        """Measure every scenario with every system, with harness, repeats, load and knee of the command line."""
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
        """Measure one repeat of a scenario with each system, with load and knee of the command line."""
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
        """Make the report of everything measured so far, with the harness's own figures if there are any."""
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
