"""How rows lie in memory: what a packet needs of a row shares as few cache lines as it can."""

from typing import Any

import numpy as np

CACHE_LINE = 64


def in_lines(columns: list[Any], whole_rows: bool = True) -> Any:
    """The type of rows with these columns, in this order.

    whole_rows: each row takes whole cache lines, so what every packet needs of it, its first columns, shares the
    fewest. Otherwise each column begins a line: the state, whose columns are tables.
    """
    packed: Any = np.dtype(columns, align=True)
    formats = [(packed[name].base, packed[name].shape) for name in packed.names]
    offsets = [packed.fields[name][1] for name in packed.names]
    end = packed.itemsize
    if not whole_rows:
        sizes = [_whole_lines(packed[name].itemsize) for name in packed.names]
        offsets, end = [sum(sizes[:k]) for k in range(len(sizes))], sum(sizes)
    layout: Any = {"names": packed.names, "formats": formats, "offsets": offsets, "itemsize": _whole_lines(end)}
    return np.dtype(layout, align=True)


def _whole_lines(size: int) -> int:
    return (size + CACHE_LINE - 1) // CACHE_LINE * CACHE_LINE
