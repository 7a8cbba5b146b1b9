"""`python -m bench forward`: the media engine beside the floor, one publisher to N subscribers, in one run.

Each figure is the median of alternating repeats (floor, engine, floor, engine, ...): the machine's speed drifts, the
ratio of neighbours does not. Both are up all the time, on the first core; the generators, of which one works at a time,
are on the last.
"""

from collections.abc import Callable, Iterable

from bench import scenarios
from bench.accounting import cores, machine, versions
from bench.measure.run import SessionProcess, Subject
from bench.results import Measurement, Report, now
from bench.scenarios import Scenario

SMOOTH, FRAMES, RECORDED = "smooth", "frames", "recorded"


def load(name: str, n: int, rate: int, seconds: float) -> Scenario:
    """One of the three loads for `n` subscribers. rate: packets a second out, in all. Raises BadScenario."""
    return scenarios.find(name).sized(n, seconds, None, packets_out=rate)


def floor_of(scenario: Scenario) -> Subject:
    """The least that a load could cost: packets that come one by one gain nothing by UDP_SEGMENT."""
    return Subject("floor", (("segments", "0"),) if scenario.per_burst == 1 else ())


def engine(threads: int = 1) -> Subject:
    """This server, without signalling. threads: of media, all on its core."""
    return Subject("engine", (("threads", str(threads)),) if threads > 1 else ())


def alternate(
    scenario: Scenario, subjects: Iterable[Subject], repeats: int, progress: Callable[[int], None]
) -> list[Measurement]:
    """Measure two systems in turns, on one core. progress: is told how many more windows are done. Raises RunFailed."""
    first, second = subjects
    core = cores()[0][:1]
    with SessionProcess(first, scenario, core) as one, SessionProcess(second, scenario, core) as other:
        measured = []
        for repeat in range(repeats):
            for session in (one, other):
                measured.append(session.measure(repeat=repeat))
                progress(1)
    return measured


def report(measurements: Iterable[Measurement], command: str) -> Report:
    """What was measured, with where it comes from. command: as it was typed."""
    profile = "SRTP_AEAD_AES_128_GCM"
    return Report(machine(), now(), command, versions(), profile, None, None, tuple(measurements))
