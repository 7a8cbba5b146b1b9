"""A row that is reset: what belongs to it is written, its neighbours and the rest of it are not."""

import numpy as np
import pytest
from numba import njit
from numba.core.errors import TypingError

from sfu.compiler.rows import row_reset

row_t = np.dtype([("mine", "u1"), ("theirs", "u1"), ("first", "i4"), ("level", "f4"), ("log", "u2", 3)], align=True)
table_t = np.dtype([("rows", row_t, 3)], align=True)
_blank = np.zeros(1, row_t)
_blank["first"] = -1
_CONTENT = _blank.tobytes()
reset = row_reset([(0, _CONTENT[:1]), (4, _CONTENT[4:12])], row_t.itemsize)
wrong = row_reset([(0, b"\0")], row_t.itemsize + 1)


@njit
def reset_second(table):  # type: ignore[no-untyped-def]
    """Reset the second row."""
    reset(table.rows[1])


@njit
def reset_wrong(table):  # type: ignore[no-untyped-def]
    """Reset a row as if it were of another type."""
    wrong(table.rows[1])


def test_only_the_parts_of_the_row_are_written() -> None:
    table = np.frombuffer(bytearray(b"\xa5" * table_t.itemsize), table_t, 1)
    reset_second(table[0])
    before, row, after = (table["rows"][0][k] for k in range(3))
    assert (row["mine"], row["first"], row["level"]) == (0, -1, 0.0)
    assert (row["theirs"], row["log"].tolist()) == (0xA5, [0xA5A5] * 3)
    assert before.tobytes() == after.tobytes() == b"\xa5" * row_t.itemsize


def test_a_row_of_another_size_is_refused() -> None:
    with pytest.raises(TypingError, match="bytes is reset"):
        reset_wrong(np.zeros(1, table_t)[0])
