"""`python -m bench forward`: the media engine beside the floor, one publisher to N subscribers, in one run.

Each figure is the median of alternating repeats (floor, engine, floor, engine, and so on), because the machine's speed
drifts and the ratio of neighbours does not. Both run all the time on the first core. Each has a generator on the last
core, of which one works at a time.
"""

from collections.abc import Callable, Iterable

from bench import scenarios
from bench.accounting import cores, machine, versions
from bench.measure.run import SessionProcess, Subject
from bench.results import Measurement, Report, now
from bench.scenarios import Scenario

SMOOTH, FRAMES, RECORDED = "smooth", "frames", "recorded"


def load(name: str, n: int, rate: int, seconds: float) -> Scenario:
    """Return one of the three loads for `n` subscribers.

    Args:
        name: the scenario's.
        n: subscribers.
        rate: packets a second to all subscribers together.
        seconds: how long to measure.

    Raises:
        BadScenario: the numbers do not fit the scenario.
    """
    return scenarios.find(name).sized(n, seconds, None, packets_out=rate)


def floor_of(scenario: Scenario) -> Subject:
    """Return the floor of a load; it uses UDP_SEGMENT unless packets come one by one, which would gain nothing."""
    return Subject("floor", (("segments", "0"),) if scenario.per_burst == 1 else ())


def engine(threads: int = 1) -> Subject:
    """Return this server without signalling; all its media threads share one core."""
    return Subject("engine", (("threads", str(threads)),) if threads > 1 else ())


def alternate(
    scenario: Scenario, subjects: Iterable[Subject], repeats: int, progress: Callable[[int], None]
) -> list[Measurement]:
    """Measure two systems in turns on one core. `progress` is called with the number of windows that were completed.

    Raises:
        RunFailed: a session failed.
    """
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
    """Make the report of these measurements; `command` is the command line as it was typed."""
    profile = "SRTP_AEAD_AES_128_GCM"
    return Report(machine(), now(), command, versions(), profile, None, None, tuple(measurements))
