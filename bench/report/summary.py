"""Repeats taken together: medians with their spread, and ratios of systems that were measured in turn.

The terminal tables, the comparison and the HTML report all use this, so that they show equal figures.
"""

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bench.results import Latency, Measurement

BUSY = 0.9
"""Share of its core above which the generator, and not the server, may be what a run measured."""
FLOOR = "floor"
"""The target that the others are set in relation to."""
PERCENTILES = {"p50": "p50", "p90": "p90", "p99": "p99", "p999": "p99.9", "maximum": "max"}
"""Fields of `Latency` with their names in tables and plots."""
LOAD_DIGITS = 3
"""Decimal digits by which loads are told apart. A ramp computes them anew in each repeat."""

Figure = Callable[[Measurement], float]


def cpu(measurement: Measurement) -> float:
    """Return the microseconds of CPU per delivered packet or message."""
    return measurement.cpu_us_per_packet


def cores(measurement: Measurement) -> float:
    """Return how many cores the server kept busy."""
    return measurement.cpu_us_per_packet * measurement.packets_per_second / 1e6


def memory(measurement: Measurement) -> float:
    """Return the server's memory per subscriber, in KiB."""
    return measurement.memory_per_subscriber / 1024


def main_thread(measurement: Measurement) -> float:
    """Return the share of one core that the server's main thread used; 0 in reports that do not have it."""
    return measurement.main_thread_busy


def percentile(name: str) -> Figure:
    """Return the figure that reads one field of `Latency`, in microseconds."""
    return lambda measurement: float(getattr(measurement.latency, name))


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with the lowest and the highest of the values, in their unit."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Make the spread of at least one value."""
        ordered = sorted(values)
        return cls(statistics.median(ordered), ordered[0], ordered[-1])

    @property
    def undecided(self) -> bool:
        """For a ratio: whether the repeats disagree on which of the two is larger."""
        return self.low < 1 < self.high


@dataclass(frozen=True, slots=True)
class Summary:
    """The repeats of one system under one load."""

    scenario: str
    n: int
    load: float
    """Share of the scenario's full load."""
    system: str
    repeats: tuple[Measurement, ...]
    """The measurements in the order of their repeats; never empty."""

    def spread(self, figure: Figure) -> Spread:
        """Return median and extremes of one figure over the repeats."""
        return Spread.of(figure(measurement) for measurement in self.repeats)

    @property
    def latency(self) -> Latency:
        """The median of each percentile over the repeats, in microseconds, and the count of all repeats together."""
        medians = {name: self.spread(percentile(name)).median for name in PERCENTILES}
        return Latency(**medians, count=sum(each.latency.count for each in self.repeats))

    @property
    def unit(self) -> str:
        """What was counted, `packet` or `message`."""
        return self.repeats[0].unit

    @property
    def joins_ms(self) -> tuple[float, ...]:
        """Join times of all repeats in milliseconds, sorted."""
        return tuple(sorted(time for each in self.repeats for time in each.joins_ms))

    @property
    def joins_due(self) -> int:
        """The number of participants that were to join, in all repeats together; 0: no joins were measured."""
        return sum(each.joins_due for each in self.repeats)

    @property
    def calls_ms(self) -> tuple[float, ...]:
        """The times of all repeats' calls of the server API in milliseconds, sorted."""
        return tuple(sorted(time for each in self.repeats for time in each.calls_ms))

    @property
    def calls_due(self) -> int:
        """The number of calls that were to be made, in all repeats together; 0: none were measured."""
        return sum(each.calls_due for each in self.repeats)

    @property
    def drops(self) -> dict[str, int]:
        """The drops of all repeats together by reason, without reasons that never occurred."""
        total: Counter[str] = Counter()
        for each in self.repeats:
            total.update(each.drops)
        return {reason: count for reason, count in total.items() if count}

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes of all repeats, each once."""
        return tuple(dict.fromkeys(note for each in self.repeats for note in each.notes))

    @property
    def generator_limited(self) -> bool:
        """Whether in some repeat the generator was so busy that it may have been the limit."""
        return any(each.generator_busy > BUSY for each in self.repeats)


def summarize(measurements: Sequence[Measurement]) -> list[Summary]:
    """Return a summary for each scenario, size, load and system, in the order in which these first appear."""
    scenarios, systems = names(measurements, "scenario"), names(measurements, "system")
    groups: dict[tuple[int, int, float, int], list[Measurement]] = {}
    for each in measurements:
        place = scenarios.index(each.scenario), each.n, round(each.load, LOAD_DIGITS), systems.index(each.system)
        groups.setdefault(place, []).append(each)
    return [
        Summary(scenarios[s], n, load, systems[k], tuple(sorted(group, key=lambda each: each.repeat)))
        for (s, n, load, k), group in sorted(groups.items(), key=lambda item: item[0])
    ]


def names(measurements: Iterable[Measurement], field: str) -> list[str]:
    """Return the different values of a text field in the order in which they first appear."""
    return list(dict.fromkeys(str(getattr(each, field)) for each in measurements))


def ratio(above: Summary, below: Summary, figure: Figure) -> Spread | None:
    """Return the ratio `above` / `below` of the medians, with the extremes over the pairs of repeats.

    A pair is two repeats of equal number, which were measured one after the other: the machine's speed drifts, and
    their ratio does not. None if a divisor is zero.
    """
    divisors = {each.repeat: figure(each) for each in below.repeats}
    pairs = [(figure(each), divisors[each.repeat]) for each in above.repeats if each.repeat in divisors]
    divisor = below.spread(figure).median
    if not divisor or not all(b for _, b in pairs):
        return None
    median = above.spread(figure).median / divisor
    ratios = [a / b for a, b in pairs] or [median]
    return Spread(median, min(ratios), max(ratios))


def floor_ratio(summary: Summary, summaries: Iterable[Summary]) -> Spread | None:
    """Return the ratio of its CPU per packet to the floor's under the same load; None: the floor was not measured."""
    for each in summaries:
        same = (each.scenario, each.n, each.load) == (summary.scenario, summary.n, summary.load)
        if same and each.system == FLOOR and summary.system != FLOOR:
            return ratio(summary, each, cpu)
    return None


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which `share` of a sorted, non-empty sequence lies (nearest rank)."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
