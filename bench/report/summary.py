"""Repeats taken together: medians with their spread, and ratios of systems that were measured in turn.

What the terminal tables, the comparison and the HTML report have in common, so that they show the same figures.
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
"""Fields of `Latency`, with what they are called in tables and plots."""
LOAD_DIGITS = 3
"""Loads that differ by less are one load: a ramp computes them anew in each repeat."""

Figure = Callable[[Measurement], float]


def cpu(measurement: Measurement) -> float:
    """Microseconds of CPU per delivered packet or message."""
    return measurement.cpu_us_per_packet


def cores(measurement: Measurement) -> float:
    """How many cores the server kept busy."""
    return measurement.cpu_us_per_packet * measurement.packets_per_second / 1e6


def memory(measurement: Measurement) -> float:
    """KiB per subscriber."""
    return measurement.memory_per_subscriber / 1024


def main_thread(measurement: Measurement) -> float:
    """Share of one core that the server's main thread used; 0 in reports from before it was measured."""
    return measurement.main_thread_busy


def percentile(name: str) -> Figure:
    """The latency in microseconds that a field of `Latency` holds."""
    return lambda measurement: float(getattr(measurement.latency, name))


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with the lowest and the highest of the values, in their unit."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Of at least one value."""
        ordered = sorted(values)
        return cls(statistics.median(ordered), ordered[0], ordered[-1])

    @property
    def undecided(self) -> bool:
        """Of ratios: the repeats do not agree on which of the two is larger."""
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
    """By number of the repeat; never empty."""

    def spread(self, figure: Figure) -> Spread:
        """Median and extremes of one figure over the repeats."""
        return Spread.of(figure(measurement) for measurement in self.repeats)

    @property
    def latency(self) -> Latency:
        """Each percentile's median over the repeats, in microseconds; the count is of all repeats together."""
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
        """How many were to join, in all repeats together; 0: there were no joins to measure."""
        return sum(each.joins_due for each in self.repeats)

    @property
    def drops(self) -> dict[str, int]:
        """Of all repeats together, by reason; reasons that never occurred are left out."""
        total: Counter[str] = Counter()
        for each in self.repeats:
            total.update(each.drops)
        return {reason: count for reason, count in total.items() if count}

    @property
    def notes(self) -> tuple[str, ...]:
        """What any repeat noted, once each."""
        return tuple(dict.fromkeys(note for each in self.repeats for note in each.notes))

    @property
    def generator_limited(self) -> bool:
        """In some repeat the generator was too busy for the figures to be the server's alone."""
        return any(each.generator_busy > BUSY for each in self.repeats)


def summarize(measurements: Sequence[Measurement]) -> list[Summary]:
    """One summary per scenario, size, load and system; scenarios and systems in the order of their first appearance."""
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
    """Distinct values of a text field, in the order of their first appearance."""
    return list(dict.fromkeys(str(getattr(each, field)) for each in measurements))


def ratio(above: Summary, below: Summary, figure: Figure) -> Spread | None:
    """`above` / `below`: the ratio of their medians, and the extremes over repeats of the same number.

    Neighbours are compared because the machine's speed drifts and the ratio of neighbours does not. None when a
    divisor is zero: there is no ratio to nothing.
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
    """CPU per packet (or message) in relation to the floor under the same load; None: the floor was not measured."""
    for each in summaries:
        same = (each.scenario, each.n, each.load) == (summary.scenario, summary.n, summary.load)
        if same and each.system == FLOOR and summary.system != FLOOR:
            return ratio(summary, each, cpu)
    return None


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` of a sorted, non-empty sequence lies (nearest rank)."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
