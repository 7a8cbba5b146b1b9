"""Write docs/tables.md from the schema: every table, its columns, and who writes them.

    .venv/bin/python -m scripts.table_reference

A test compares the document with what this would write.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from scripts.api_reference import class_of, fields_of, row
from sfu.schema.columns import Column, RowType, Writer
from sfu.schema.tables import STATE

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "tables.md"
HEAD = """# The tables

Written by `make docs` from `sfu/schema/`. What a media thread knows is one record, the state; its columns are tables,
and the columns of these are below. A table's rows are numbered from 0. [design.md](design.md) says how the threads
share them.

"""


def row_types(row_type: RowType = STATE) -> Iterator[RowType]:
    """The state and every type of rows in it, each once, in the order in which they are named."""
    found: dict[str, RowType] = {row_type.name: row_type}
    waiting = [row_type]
    while waiting:
        for column in waiting.pop(0).columns:
            if isinstance(column.type, RowType) and column.type.name not in found:
                found[column.type.name] = column.type
                waiting.append(column.type)
    yield from found.values()


def document() -> str:
    """The whole text of docs/tables.md."""
    meanings = fields_of(class_of(Writer).body)
    writers = "\n".join(f"* **{Writer[name].value}**: {meaning}" for name, _, meaning in meanings)
    return f"{HEAD}Who writes a column:\n\n{writers}\n\n" + "\n\n".join(_describe(each) for each in row_types()) + "\n"


def _describe(row_type: RowType) -> str:
    rows = [_row(column) for column in row_type.columns if not column.name.startswith("_")]
    size = f"A row has {row_type.dtype.itemsize:,} bytes." if row_type is not STATE else ""
    return "\n".join(
        (
            f"## {row_type.name}",
            "",
            f"{row_type.meaning} {size}".rstrip(),
            "",
            "| column | type | writer | at first | meaning |",
            "|---|---|---|---|---|",
            *rows,
        )
    )


def _row(column: Column) -> str:
    meaning = column.meaning + (f" Stays when a row opens: {column.kept}." if column.kept else "")
    initial = str(column.initial) if column.is_reset and column.initial else ""
    return row(f"`{column.name}`", _type(column), column.writer.value, initial, meaning.replace("|", "\\|"))


def _type(column: Column) -> str:
    if isinstance(column.type, RowType):
        kind = f"[{column.type.name}](#{column.type.name})"
    else:
        kind = f"`{column.type}`" if isinstance(column.type, str) else "of the operating system"
    shape = column.shape if isinstance(column.shape, tuple) else (column.shape,)
    return kind if np.prod(shape) == 1 else f"{kind} x {' x '.join(f'{each:,}' for each in shape)}"


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
