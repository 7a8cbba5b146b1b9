"""`python -m bench publish`: measures what is published, and writes the tables into the document.

Each section writes its figures as JSON into a folder, and its table into the document. A section that fails leaves its
old table as it is, and the others go on.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.accounting import machine
from bench.measure.run import Run, Say, Subject, find_baseline
from bench.publish.suite import Section, Variation
from bench.report import markdown
from bench.report.section_tables import section_sheet
from bench.report.sheets import Sheet, knees, number
from bench.results import Latency, Report, command_line, write_figures
from bench.targets.base import MayBeMissing
from bench.targets.registry import make

ROOT = Path(__file__).parents[2]
UNSAID = "..."
"""Stands in the document for the values of `--target-option`, which are specific to one machine."""


class SectionFailed(Exception):
    """A section was not measured; the text says why."""


@dataclass(slots=True)
class Outcome:
    """The result of a section."""

    section: Section
    sheet: Sheet | None = None
    """The table; None: there was nothing to measure."""
    figures: dict[str, Any] = field(default_factory=dict)
    """The content of the JSON file."""
    failures: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    """Systems that cannot be started here, with the reason."""

    def write(self, folder: Path) -> None:
        """Write the figures as JSON into a file named like the section."""
        facts = {"name": self.section.name, "missing": self.missing, "failures": self.failures}
        write_figures(folder / f"{self.section.name}.json", {**facts, **self.figures})


class Publisher:
    """Measures sections one after the other."""

    def __init__(self, options: list[Subject], folder: Path, document: Path | None, say: Say) -> None:
        """Prepare to publish.

        Args:
            options: options of targets, which are added to those of the sections.
            folder: where the JSON files go.
            document: where the tables go; None: nowhere.
            say: is called with each line of progress.
        """
        self._options, self._folder, self._document, self._say = options, folder, document, say
        self.failures: list[str] = []
        """What went wrong, one line each."""

    def publish(self, sections: list[Section], show: Callable[[Sheet], None]) -> None:
        """Measure and write all sections; `show` is called with each table.

        Raises:
            markdown.NoPlace: the document lacks the place of a table. Nothing was measured then.
        """
        if self._document is not None:
            markdown.check(self._document.read_text(encoding="utf-8"), [each.name for each in sections])
        self._folder.mkdir(parents=True, exist_ok=True)
        for place, section in enumerate(sections, 1):
            self._say(f"[{place}/{len(sections)}] {section.name}: {section.windows} windows")
            try:
                outcome = self._measure(section)
            except Exception as error:  # whatever it was, the other sections have nothing to do with it
                self._fail(f"{section.name}: {type(error).__name__}: {error}")
                continue
            outcome.write(self._folder)
            for failure in outcome.failures:
                self._fail(f"{section.name}: {failure}")
            if outcome.sheet is not None:
                if section.command != "forward":  # which prints its own
                    show(outcome.sheet)
                self._put(outcome, outcome.sheet)

    def _fail(self, text: str) -> None:
        self.failures.append(text)
        self._say(text)

    def _put(self, outcome: Outcome, sheet: Sheet) -> None:
        if self._document is None or outcome.failures:
            return
        text = self._document.read_text(encoding="utf-8")
        self._document.write_text(markdown.replace(text, outcome.section.name, markdown.table(sheet)), encoding="utf-8")
        self._say(f"{outcome.section.name} is in {self._document}")

    def _measure(self, section: Section) -> Outcome:
        return self._forward(section) if section.command == "forward" else self._run(section)

    def _forward(self, section: Section) -> Outcome:
        """Run `forward` in its own process: it pins itself, and its generator must not share Python with others."""
        from bench.report.against_floor import floor_sheet

        words = section.forward_words()
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            path = Path(folder) / "forward.json"
            done = subprocess.run([sys.executable, "-m", "bench", *words, "--json", str(path)], cwd=ROOT, check=False)
            if done.returncode:
                raise SectionFailed(f"{command_line(words)} ended with status {done.returncode}")
            report = replace(Report.read(path), command=command_line(words))
        sheet = floor_sheet(report)
        note = _joined(sheet.note, _note([report.command], report.date, section.repeats))
        return Outcome(section, replace(sheet, note=note), asdict(report))

    def _run(self, section: Section) -> Outcome:
        outcome = Outcome(section)
        subjects = self._subjects(section, outcome)
        if not subjects:
            return outcome
        baseline = find_baseline() if section.baseline else None
        shown = [self._shown(Subject.parse(text)) for text in section.targets]
        shown = [each for each in shown if each.name not in outcome.missing]
        runs = {each: Run(self._say, section.command_line(each, shown)) for each in section.variations()}
        for repeat in range(section.repeats):
            for variation, run in runs.items():
                self._turn(section, variation, run, subjects, repeat)
        reports = [(variation, run.report(baseline)) for variation, run in runs.items()]
        outcome.failures = [failure for run in runs.values() for failure in run.failures]
        outcome.figures = {"reports": [{"changes": asdict(each), "report": asdict(report)} for each, report in reports]}
        outcome.sheet = self._sheet(section, reports, outcome, baseline)
        return outcome

    def _turn(self, section: Section, variation: Variation, run: Run, subjects: list[Subject], repeat: int) -> None:
        if len(list(section.variations())) > 1:
            self._say(str(variation))
        for scenario in section.sized(variation):
            run.turn(scenario, subjects, repeat, {"load": variation.load, "knee": section.knee})

    def _sheet(
        self,
        section: Section,
        reports: list[tuple[Variation, Report]],
        outcome: Outcome,
        baseline: Latency | None,
    ) -> Sheet:
        if section.knee:
            sheet = replace(knees([knee for _, report in reports for knee in report.knees]), title=section.name)
        else:
            sheet = section_sheet(section.name, section.columns, [(asdict(each), report) for each, report in reports])
        note = _note([report.command for _, report in reports], reports[-1][1].date, section.repeats)
        if baseline is not None:
            note += (
                f"\nThe generator against a plain reflector, without load: p50 {number(baseline.p50)} us, "
                f"p99 {number(baseline.p99)} us."
            )
        if outcome.missing:
            note += f"\nNot installed and left out: {', '.join(outcome.missing)}."
        return replace(sheet, note=_joined(sheet.note, note))

    def _subjects(self, section: Section, outcome: Outcome) -> list[Subject]:
        """Return the systems of a section that can be started here, with options. Note the others in `outcome`."""
        found = []
        for subject in section.subjects():
            complete = self._complete(subject)
            target = make(complete.name, dict(complete.options))
            reason = target.missing() if isinstance(target, MayBeMissing) else ""
            if reason:
                outcome.missing[subject.name] = reason
                self._say(f"{section.name}: {subject.name} is left out: {reason}")
            else:
                found.append(complete)
        return found

    def _complete(self, subject: Subject) -> Subject:
        """Add the options that were given for this target on the command line."""
        given = [pair for each in self._options if each.name == subject.name for pair in each.options]
        return Subject(subject.name, tuple({**dict(subject.options), **dict(given)}.items()))

    def _shown(self, subject: Subject) -> Subject:
        """Return the system as the document names it, without values that are specific to this machine."""
        given = {key: UNSAID for each in self._options if each.name == subject.name for key, _ in each.options}
        return Subject(subject.name, tuple({**dict(subject.options), **given}.items()))


def _joined(*notes: str) -> str:
    """Join the notes that are not empty, each on its own lines."""
    return "\n".join(note for note in notes if note)


def _note(commands: list[str], date: str, repeats: int) -> str:
    """Say where a table comes from: its command lines, date, machine, and how repeats were combined."""
    of = f"Medians of {repeats} alternating repeats (lowest..highest)." if repeats > 1 else "One run."
    return " and\n".join(f"`{each}`" for each in commands) + f",\n{date[:10]}, {machine()}. {of}"
