"""Tables as Markdown, and their places in a document: between `<!-- bench: NAME -->` and `<!-- /bench -->`."""

import re
from collections.abc import Iterable

from bench.report.sheets import WORDS, Sheet

END = "<!-- /bench -->"


class NoPlace(ValueError):
    """A document has no place for a table, or more than one; the text names it."""


def begin(name: str) -> str:
    """Return the line before the table `name`."""
    return f"<!-- bench: {name} -->"


def table(sheet: Sheet) -> str:
    """Write a sheet's columns and rows, with its note as a paragraph below. The document has a title of its own."""
    lines = [_line(sheet.columns), _line("---" if column in WORDS else "---:" for column in sheet.columns)]
    lines += [_line(row.cells) for row in sheet.rows]
    return "\n".join([*lines, *(["", sheet.note] if sheet.note else [])])


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def replace(document: str, name: str, text: str) -> str:
    """Return the document with `text` in the place `name` and nothing else changed.

    Raises:
        NoPlace: there is no such place, or more than one.
    """
    start, end = _place(document, name)
    return f"{document[:start]}\n{text}\n{document[end:]}"


def check(document: str, names: list[str]) -> None:
    """Check that the document has one place for each of these tables.

    Raises:
        NoPlace: it lacks one, or has more than one.
    """
    for name in names:
        _place(document, name)


def _place(document: str, name: str) -> tuple[int, int]:
    """Return where the old table begins (the end of the line before it) and where it ends."""
    lines = list(re.finditer(rf"^{re.escape(begin(name))}$", document, re.MULTILINE))
    if len(lines) != 1:
        raise NoPlace(f"the line {begin(name)!r} occurs {len(lines)} times")
    start = lines[0].end()
    end, following = document.find(f"\n{END}", start), document.find("<!-- bench:", start)
    if end < 0 or 0 <= following < end:
        raise NoPlace(f"after {begin(name)!r} there is no {END!r}")
    return start, end + 1
