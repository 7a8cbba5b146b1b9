"""How a table is said: its columns, who writes them, what they hold when a row opens.

From this come the types that kernels and numpy take, the reset of a row that opens, and docs/tables.md.
"""

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

import numpy as np

from sfu.schema.layout import Layout, row_dtype


class Writer(Enum):
    """The one thread that writes a column of a row."""

    MEDIA = "media"
    """The media thread, always: with each use of a row it begins with its initial value, unless it says that it
    stays."""
    CONTROL = "control"
    """The control thread, while the row is not open, that is before its OPEN command and after its CLOSED notice; or
    before the command that puts the value in force."""
    HANDED = "control, then media"
    """The control thread before the OPEN command, the media thread from then until the CLOSED notice."""
    ROWS = "as its columns say"
    """A column of rows, each of whose columns has its writer."""
    ENDS = "either end"
    """A queue: the counter `written` has the writing thread, `read` the reading one."""


MEDIA, CONTROL, HANDED, ROWS, ENDS = Writer.MEDIA, Writer.CONTROL, Writer.HANDED, Writer.ROWS, Writer.ENDS


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    name: str
    type: Any
    """What numpy takes as a type (`"i4"`), or the `RowType` of rows inside the row."""
    writer: Writer
    meaning: str
    shape: int | tuple[int, ...] = ()
    initial: int | float = 0
    """What each element of a MEDIA column holds when a row opens."""
    kept: str = ""
    """Why a MEDIA column keeps what it held when a row opens."""

    @property
    def is_reset(self) -> bool:
        """Whether it takes its initial value when a row opens."""
        return self.writer is MEDIA and not self.kept


@dataclass(frozen=True)
class RowType:
    """The rows of a table."""

    name: str
    meaning: str
    columns: tuple[Column, ...]
    layout: Layout = Layout.CLOSE

    @cached_property
    def dtype(self) -> Any:
        """The type of a row, for numpy and numba."""
        listed = []
        for each in self.columns:
            kind = each.type.dtype if isinstance(each.type, RowType) else each.type
            listed.append((each.name, kind, each.shape))
        return row_dtype(listed, self.layout)

    @cached_property
    def blank(self) -> Any:
        """One row in which every column holds its initial value."""
        row = np.zeros(1, self.dtype)
        for column in self.columns:
            if column.is_reset:
                row[column.name] = column.initial
        return row[0]

    def reset_parts(self) -> list[tuple[int, bytes]]:
        """(offset in a row, bytes that belong there) of the columns that are reset; neighbours make one part."""
        blank, parts, goes_on = self.blank.tobytes(), list[tuple[int, int]](), False
        for column in self.columns:
            if column.is_reset:
                kind, offset = self.dtype.fields[column.name][:2]
                start = parts.pop()[0] if goes_on else offset
                parts.append((start, offset + kind.itemsize))
            goes_on = column.is_reset
        return [(start, blank[start:end]) for start, end in parts]
