"""How rows lie in memory: what a packet needs of a row shares as few cache lines as it can."""

from enum import Enum
from typing import Any

import numpy as np

CACHE_LINE = 64


class Layout(Enum):
    """Where the columns of a row lie, in the order in which they are given."""

    CLOSE = "close"
    """Each where its type may lie, as in C."""
    WHOLE_LINES = "whole lines"
    """So, and each row takes whole cache lines: what every packet needs of it, its first columns, shares the fewest."""
    OWN_LINES = "own lines"
    """Each column begins a cache line: the state, whose columns are tables."""


def row_dtype(columns: list[Any], layout: Layout) -> Any:
    """The type of rows with these columns."""
    packed: Any = np.dtype(columns, align=True)
    if layout is Layout.CLOSE:
        return packed
    formats = [(packed[name].base, packed[name].shape) for name in packed.names]
    offsets = [packed.fields[name][1] for name in packed.names]
    end = packed.itemsize
    if layout is Layout.OWN_LINES:
        sizes = [_whole_lines(packed[name].itemsize) for name in packed.names]
        offsets, end = [sum(sizes[:k]) for k in range(len(sizes))], sum(sizes)
    placed: Any = {"names": packed.names, "formats": formats, "offsets": offsets, "itemsize": _whole_lines(end)}
    return np.dtype(placed, align=True)


def _whole_lines(size: int) -> int:
    return (size + CACHE_LINE - 1) // CACHE_LINE * CACHE_LINE
