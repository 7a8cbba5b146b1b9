"""What is published: a TOML file with a list of sections, each of which is one table in the document.

A section has `command = "forward"` or `command = "run"`, and that command's options. Where a section of `run` gives
several loads or rates, each combination is a separate command, and they are measured in turns.
"""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any, Self

from bench import scenarios
from bench.measure.run import Subject
from bench.report.section_tables import COLUMNS
from bench.results import command_line
from bench.scenarios import BadScenario, Scenario
from bench.targets import registry

PUBLISHED = Path(__file__).parents[1] / "published.toml"
DOCUMENT = Path(__file__).parents[2] / "docs" / "benchmarks.md"
COMMANDS = ("forward", "run")
QUICK_SECONDS, QUICK_SIZE = 1.0, 20
"""Seconds and size of a run that only shows that everything works."""
FORWARD_SECONDS = 4.0
RATES = ("messages_per_second", "churn_per_second", "calls_per_second")
"""Fields of a scenario of which a section can give several values."""
_LISTS = {
    **dict.fromkeys(("sizes", "loads", *RATES), (int, float)),
    **dict.fromkeys(("targets", "columns"), (str,)),
}
_SINGLE = {
    **dict.fromkeys(("name", "command", "scenario"), (str,)),
    **dict.fromkeys(("seconds", "repeats"), (int, float)),
    **dict.fromkeys(("baseline", "knee"), (bool,)),
}


class BadSuite(ValueError):
    """The file is malformed; the text names section and key."""


@dataclass(frozen=True, slots=True)
class Variation:
    """Load and rates of one command of a section; None: as the scenario says."""

    load: float
    messages_per_second: float | None = None
    churn_per_second: float | None = None
    calls_per_second: float | None = None

    @property
    def rates(self) -> dict[str, float | None]:
        """The rates by the names of the scenario's fields."""
        return {name: getattr(self, name) for name in RATES}

    def __str__(self) -> str:
        words = "messages a second", "visitors a second", "calls a second"
        named = dict(zip(words, self.rates.values(), strict=True))
        return ", ".join([f"load {self.load:g}", *(f"{v:g} {name}" for name, v in named.items() if v is not None)])


@dataclass(frozen=True, slots=True)
class Section:
    """One section, which is one table."""

    name: str
    command: str
    scenario: str = ""
    targets: tuple[str, ...] = ("aiosfu",)
    sizes: tuple[int, ...] = ()
    """Sizes of the scenario; empty: its own."""
    loads: tuple[float, ...] = (1.0,)
    messages_per_second: tuple[float, ...] = ()
    churn_per_second: tuple[float, ...] = ()
    calls_per_second: tuple[float, ...] = ()
    seconds: float = 0.0
    """Seconds of each window; 0: as the scenario says."""
    repeats: int = 5
    baseline: bool = False
    """Also measure the generator against a plain reflector, for the note below the table."""
    knee: bool = False
    """Ramp each system up to the highest load that it carries; the table then has columns of its own."""
    columns: tuple[str, ...] = ("system", "N", "delivered/s", "CPU us", "loss", "p50 us", "p99 us")

    @classmethod
    def check(cls, values: dict[str, Any]) -> Self:
        """Make a section from a table of the file.

        Raises:
            BadSuite: a key is unknown, missing, or has a wrong value.
        """
        where = f"section {values.get('name', '')!r}"
        known = {field.name for field in fields(cls)}
        for key, value in values.items():
            if key not in known:
                raise BadSuite(f"{where}: unknown key {key!r}")
            if not _right(key, value):
                raise BadSuite(f"{where}: {key} has the wrong type")
        if lacking := {"name", "command"} - values.keys():
            raise BadSuite(f"{where}: lacks {', '.join(sorted(lacking))}")
        frozen: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        section = cls(**frozen)
        section._check_values(where)
        return section

    def _check_values(self, where: str) -> None:
        checks = {
            f"command must be one of {', '.join(COMMANDS)}": self.command in COMMANDS,
            "repeats must be positive": self.repeats >= 1,
            "forward needs sizes": self.command != "forward" or bool(self.sizes),
            f"columns are {', '.join(COLUMNS)}": set(self.columns) <= set(COLUMNS),
        }
        wrong = [text for text, good in checks.items() if not good]
        try:
            for subject in self.subjects():
                registry.check(subject.name)
            if self.command == "run":
                for variation in self.variations():
                    self.sized(variation)
        except (BadScenario, ValueError) as error:
            wrong.append(str(error))
        if wrong:
            raise BadSuite(f"{where}: {wrong[0]}")

    def subjects(self) -> list[Subject]:
        """Return the systems.

        Raises:
            ValueError: a text names none.
        """
        return [Subject.parse(text) for text in self.targets] if self.command == "run" else []

    def variations(self) -> Iterator[Variation]:
        """Iterate over the commands of `run`."""
        for values in product(self.loads, *(getattr(self, name) or (None,) for name in RATES)):
            yield Variation(*values)

    def sized(self, variation: Variation) -> list[Scenario]:
        """Return the scenario in every size.

        Raises:
            BadScenario: its values do not fit together.
        """
        found = scenarios.find(self.scenario)
        return [found.sized(n, self.seconds or None, None, **variation.rates) for n in self.sizes or (found.n,)]

    def quick(self) -> Self:
        """Return the section in one small size, with short windows and one repeat."""
        smallest = min(self.sizes or (scenarios.find(self.scenario).n,))
        return replace(self, sizes=(min(smallest, QUICK_SIZE),), seconds=QUICK_SECONDS, repeats=1)

    @property
    def windows(self) -> int:
        """The number of windows that are measured if no target is missing."""
        if self.command == "forward":
            return 6 * len(self.sizes) * self.repeats  # floor and server; smooth, in frames, recorded
        return len(list(self.variations())) * len(self.sizes or (1,)) * len(self.targets) * self.repeats

    def forward_words(self) -> list[str]:
        """Return the words of the command `forward`."""
        words = ["forward", *(word for n in self.sizes for word in ("-n", str(n)))]
        return [*words, "--seconds", f"{self.seconds or FORWARD_SECONDS:g}", "--repeats", str(self.repeats)]

    def command_line(self, variation: Variation, subjects: list[Subject]) -> str:
        """Return the command that measures one variation with these systems."""
        words = ["run", self.scenario, *(word for each in subjects for word in ("--target", str(each)))]
        words += [word for n in self.sizes for word in ("-n", str(n))]
        words += ["--seconds", f"{self.seconds:g}"] if self.seconds else []
        words += ["--load", f"{variation.load:g}"] if variation.load != 1 else []
        words += ["--knee"] if self.knee else []
        for name, value in variation.rates.items():
            words += [f"--{name.replace('_', '-')}", f"{value:g}"] if value is not None else []
        return command_line([*words, "--repeats", str(self.repeats), "--no-harness"])


def _right(key: str, value: Any) -> bool:
    """Tell whether a value has the type of its key."""
    if key in _LISTS:
        return isinstance(value, list) and all(isinstance(each, _LISTS[key]) for each in value)
    return isinstance(value, _SINGLE[key]) and isinstance(value, bool) == (_SINGLE[key] == (bool,))


def read(path: Path) -> list[Section]:
    """Read the sections of a file.

    Raises:
        BadSuite: the file cannot be read or is malformed.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSuite(f"{path}: {error}") from error
    sections = [Section.check(each) for each in values.get("section", [])]
    names = [each.name for each in sections]
    if not sections or len(set(names)) != len(names) or values.keys() != {"section"}:
        raise BadSuite(f"{path}: a list of [[section]], each with another name, is all there may be")
    return sections
