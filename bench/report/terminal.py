"""A report as tables in a terminal: first the harness, then each system under each load."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.report.sheets import WORDS, Sheet, sheets
from bench.results import Report

WARNING_STYLE = "yellow"


def print_report(report: Report, console: Console) -> None:
    """Print all tables of a report and its origin. CPU and latency are in microseconds, memory in KiB."""
    console.print(f"[bold]{len(report.measurements)} runs[/], {report.date}, SRTP profile {report.profile}")
    for sheet in sheets(report):
        console.print()
        print_sheet(sheet, console)
    console.print()
    console.print(report.machine)
    console.print(", ".join(f"{name} {version}" for name, version in report.versions.items()), highlight=False)
    console.print(f"$ {report.command}", style="dim", markup=False, highlight=False)


def print_sheet(sheet: Sheet, console: Console) -> None:
    """Print one table with its note below."""
    console.print(sheet.title, style="bold", markup=False, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), caption=sheet.note or None, caption_justify="left")
    for column in sheet.columns:
        table.add_column(column, justify="left" if column in WORDS else "right", overflow="fold")
    for row in sheet.rows:
        table.add_row(*(Text(cell) for cell in row.cells), style=WARNING_STYLE if row.warn else None)
    console.print(table)
