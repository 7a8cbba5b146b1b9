"""`python -m bench`: the benchmarks by name."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench import scenarios
from bench.accounting import machine
from bench.measure.run import Run, RunFailed, Subject
from bench.results import Report, command_line
from bench.targets import registry

MIN_WIDTH = 120
console = Console(width=max(Console().width, MIN_WIDTH))

LEAST_US = 0.005
"""Places that take less of a packet's time are not listed."""


@click.group()
def main() -> None:
    """Benchmarks of forwarding. They measure and report; they never fail because of a figure."""


@main.command("compile")
def compile_kernels() -> None:
    """Compile the load generator on all cores. Every command that measures does it first."""
    _compile()
    console.print("the benchmark's kernels are compiled")


def _compile() -> None:
    from bench.compile import compile_all

    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("compiling kernels", total=None, visible=False)
        compile_all(lambda done, total, _: progress.update(task, completed=done, total=total, visible=True))


@main.command()
@click.option("--subscribers", "-n", type=int, multiple=True, default=(50, 300, 1000), help="Repeat for several.")
@click.option("--rate", type=int, default=60_000, show_default=True, help="Packets a second out, in all.")
@click.option("--seconds", type=float, default=4.0, show_default=True, help="Measured seconds of each run.")
@click.option("--repeats", type=int, default=5, show_default=True, help="Alternating runs of floor and server.")
@click.option("--threads", type=int, default=1, show_default=True, help="Media threads of the server, on one core.")
@click.option("--frames/--no-frames", default=True, help="Also frame-shaped load against the UDP_SEGMENT floor.")
@click.option("--recorded/--no-recorded", default=True, help="Also recorded video of Chromium, against the same floor.")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Write the figures here.")
def forward(
    subscribers: tuple[int, ...],
    rate: int,
    seconds: float,
    repeats: int,
    threads: int,
    frames: bool,
    recorded: bool,
    output: Path | None,
) -> None:
    """One publisher to N subscribers: CPU per forwarded packet against the floor, in one run."""
    from bench.measure.forward import FRAMES, RECORDED, SMOOTH, alternate, engine, floor_of, load, report
    from bench.report.against_floor import load_title, print_against_floor

    names = [SMOOTH, *[FRAMES] * frames, *[RECORDED] * recorded]
    found = []
    try:
        loads = [load(name, n, rate, seconds) for name in names for n in sorted(subscribers)]
        _compile()
        with Progress(console=console) as progress:
            for each in loads:
                task = progress.add_task(f"{each.n} subscribers, {load_title(each)}", total=2 * repeats)
                advance = partial(progress.advance, task)
                found += alternate(each, (floor_of(each), engine(threads)), repeats, advance)
    except (scenarios.BadScenario, RunFailed) as error:
        raise click.ClickException(str(error)) from error
    measured = report(found, command_line(sys.argv[1:]))
    print_against_floor(measured, console)
    if output is not None:
        measured.write(output)


@main.command("profile")
@click.option("--subscribers", "-n", type=int, default=300, show_default=True)
@click.option("--rate", type=int, default=60_000, show_default=True, help="Packets a second out, in all.")
@click.option("--burst", type=int, default=1, show_default=True, help="Packets that arrive back to back.")
@click.option("--seconds", type=float, default=5.0, show_default=True)
def profile_packet(subscribers: int, rate: int, burst: int, seconds: float) -> None:
    """Show where the CPU time of a forwarded packet goes: system calls, encryption, each kernel. Needs perf."""
    from bench.measure.forward import SMOOTH, load
    from bench.measure.profile import ProfileFailed, profile

    try:
        smooth = replace(load(SMOOTH, subscribers, rate, seconds), per_burst=burst)
        _compile()
        measured = profile(smooth)
    except (ProfileFailed, scenarios.BadScenario, RunFailed) as error:
        raise click.ClickException(str(error)) from error
    table = Table("where", "us a packet", "share", title=f"{subscribers} subscribers, {burst} at once", box=None)
    for place, spent in measured.places:
        if spent >= LEAST_US:
            table.add_row(place, f"{spent:.3f}", f"{spent / measured.total_us:.1%}")
    table.add_row("all", f"{measured.total_us:.3f}", "")
    console.print(table)
    console.print(machine())


@main.command("list")
def list_names() -> None:
    """The scenarios and the systems that can be measured."""
    table = Table("scenario", "n", "seconds", "what it is", box=None)
    for name in scenarios.names():
        scenario = scenarios.find(name)
        table.add_row(name, str(scenario.n), f"{scenario.seconds:g}", scenario.title)
    console.print(table)
    console.print(f"\ntargets: {', '.join(registry.names())}")


class SubjectName(click.ParamType[Subject]):
    """A target with options, such as `floor` or `livekit:url=ws://127.0.0.1:7880,pid=4711`.

    A target that is not in `bench/targets` is named by its module, such as `examples.bench_target`.
    """

    name = "target"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Subject:
        """Read the text."""
        try:
            subject = Subject.parse(str(value))
            registry.check(subject.name)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return subject


@main.command()
@click.option("--target", "subject", type=SubjectName(), default="aiosfu", show_default=True)
@click.option("--warm-up", type=int, default=800, show_default=True, help="Visitors before memory is first read.")
@click.option("--visitors", type=int, default=2_000, show_default=True, help="Visitors that count.")
def growth(subject: Subject, warm_up: int, visitors: int) -> None:
    """Measure how much memory a server keeps of each participant that joined, published and left."""
    import asyncio

    from bench.measure.growth import Growth, measure
    from bench.targets.registry import make

    async def run() -> Growth:
        target = make(subject.name, dict(subject.options))
        await target.start(())
        try:
            with Progress(console=console) as progress:
                task = progress.add_task("visitors", total=warm_up + visitors)
                return await measure(target, warm_up, visitors, partial(progress.advance, task))
        finally:
            await target.stop()

    found = asyncio.run(run())
    console.print(
        f"{found.warm_up:,} visitors, then {found.visitors:,}: {found.before / 1024:,.0f} KiB, "
        f"{found.after / 1024:,.0f} KiB: {found.bytes_each / 1024:.2f} KiB each"
    )
    console.print(machine())


@main.command()
@click.argument("scenario")
@click.option(
    "--target",
    "targets",
    type=SubjectName(),
    multiple=True,
    default=("aiosfu",),
    help="A name from `list`, with options as in livekit:binary=/path/to/livekit-server; repeat for several.",
)
@click.option("-n", "sizes", type=int, multiple=True, help="Size of the scenario; repeat for several.")
@click.option("--seconds", type=float, help="Measured seconds of each window.")
@click.option("--loss", type=float, help="Share of the packets that viewers lose, 0 to 1.")
@click.option("--messages-per-second", type=float, help="Data messages of each sender; 0: none.")
@click.option("--churn-per-second", type=float, help="Clients that come and go beside the others; 0: none.")
@click.option("--calls-per-second", type=float, help="Calls of the server API beside the media; 0: none.")
@click.option("--repeats", type=int, default=1, show_default=True, help="Alternating runs of each target.")
@click.option("--load", type=float, default=1.0, show_default=True, help="Times the scenario's rates.")
@click.option("--knee", is_flag=True, help="Ramp up from --load to the highest load that is carried.")
@click.option("--harness/--no-harness", default=True, help="First measure the generator against a plain reflector.")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Write the report here.")
@click.option("--html", "page", type=click.Path(path_type=Path), help="Write the report as a page here.")
def run(scenario: str, targets: tuple[Subject, ...], sizes: tuple[int, ...], **options: Any) -> None:
    """Measure a scenario: a name from `list`, or a TOML file."""
    try:
        found = scenarios.find(scenario)
        rates = {name: options[name] for name in ("messages_per_second", "churn_per_second", "calls_per_second")}
        sized = [found.sized(n, options["seconds"], options["loss"], **rates) for n in sizes or (found.n,)]
        if options["knee"] and found.late:
            raise click.ClickException("joins have no load to ramp; give other --seconds or another -n")
        _compile()
        runs = Run(_say)
        measured = runs.all(sized, list(targets), options)
    except (scenarios.BadScenario, RunFailed) as error:
        raise click.ClickException(str(error)) from error
    if options["output"] is not None:
        measured.write(options["output"])
    if options["page"] is not None:
        from bench.report.html import write_html

        write_html(measured, options["page"])
    from bench.report.terminal import print_report

    if measured.measurements:
        print_report(measured, console)
    if runs.failures:
        raise click.ClickException("\n".join(runs.failures))


@main.command("network")
@click.argument("cases", nargs=-1, metavar="[CASE]...")
@click.option(
    "--target",
    "targets",
    type=SubjectName(),
    multiple=True,
    default=("aiosfu",),
    help="aiosfu, or livekit:binary=/path/to/livekit-server; repeat for several.",
)
@click.option("--seconds", type=float, help="End each case after so many.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of losses and jitter.")
@click.option("--client", help="Let all viewers be native or chromium.  [default: as the case says]")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Write figures and what they come from here.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Write the tables as Markdown here.")
@click.option("--html", "page", type=click.Path(path_type=Path), help="Write plots and tables as a page here.")
def behind_a_bottleneck(cases: tuple[str, ...], targets: tuple[Subject, ...], seed: int, **options: Any) -> None:
    """What clients see and hear behind a narrow, long or lossy link.  [default: every case of bench/network]

    Needs Linux, root or user namespaces, /dev/net/tun, and the package livekit.
    """
    from bench.network import command, report
    from bench.network.case import CLIENTS, BadCase, find, names
    from bench.network.namespaces import NetworkUnavailable
    from bench.report.terminal import print_sheet

    try:
        found = [find(name).cut(options["seconds"]) for name in cases or names()]
        if options["client"] is not None:
            if options["client"] not in CLIENTS:
                raise BadCase(f"no client {options['client']!r}; there are {', '.join(CLIENTS)}")
            found = [case.seen_by(options["client"]) for case in found]
        runs = command.measure(found, targets, seed, _say)
    except (BadCase, command.NothingToMeasure, NetworkUnavailable) as error:
        raise click.ClickException(str(error)) from error
    for sheet in report.sheets(runs):
        console.print()
        print_sheet(sheet, console)
    if options["output"] is not None:
        report.write_json(runs, command_line(sys.argv[1:]), options["output"])
    if options["markdown"] is not None:
        report.write_markdown(runs, command_line(sys.argv[1:]), options["markdown"])
    if options["page"] is not None:
        report.write_page(runs, command_line(sys.argv[1:]), options["page"])
    if len(runs) < len(found) * len(targets):
        raise click.ClickException("not every case could be run")


@main.command("publish")
@click.option("--only", multiple=True, metavar="NAME", help="A section; repeat for several.  [default: all]")
@click.option("--quick", is_flag=True, help="Small and short, once; writes no document unless --docs names one.")
@click.option(
    "--docs", type=click.Path(path_type=Path, exists=True), help="The document.  [default: docs/benchmarks.md]"
)
@click.option("--output", type=click.Path(path_type=Path), default="bench-results", show_default=True, help="For JSON.")
@click.option("--target-option", "extra", type=SubjectName(), multiple=True, help="As in janus:root=/x,srtp=/y")
@click.option("--suite", type=click.Path(path_type=Path, exists=True), help="The sections.  [default: published.toml]")
def publish_all(only: tuple[str, ...], quick: bool, docs: Path | None, output: Path, **options: Any) -> None:
    """Run everything that docs/benchmarks.md publishes, and rewrite its tables. Exit status 1: a section failed."""
    from bench.publish import suite
    from bench.publish.publish import Publisher
    from bench.report import markdown
    from bench.report.terminal import print_sheet

    try:
        sections = suite.read(options["suite"] or suite.PUBLISHED)
        if unknown := set(only) - {each.name for each in sections}:
            names = ", ".join(each.name for each in sections)
            raise click.ClickException(f"no section {min(unknown)!r}; there are {names}")
        chosen = [each.quick() if quick else each for each in sections if not only or each.name in only]
        document = docs or (None if quick else suite.DOCUMENT)
        publisher = Publisher(list(options["extra"]), output, document, _say)
        _compile()
        publisher.publish(chosen, lambda sheet: print_sheet(sheet, console))
    except (suite.BadSuite, markdown.NoPlace) as error:
        raise click.ClickException(str(error)) from error
    if publisher.failures:
        raise click.ClickException("\n".join(publisher.failures))


@main.command("compare")
@click.argument("a", type=click.Path(path_type=Path, exists=True))
@click.argument("b", type=click.Path(path_type=Path, exists=True))
def compare_reports(a: Path, b: Path) -> None:
    """Compare two reports that `run --json` wrote."""
    from bench.report.compare import print_comparison

    try:
        print_comparison(Report.read(a), Report.read(b), console)
    except ValueError as error:
        raise click.ClickException(str(error)) from error


def _say(text: str) -> None:
    console.print(text, style="dim", markup=False, highlight=False)


if __name__ == "__main__":
    main()
