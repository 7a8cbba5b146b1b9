"""What the state takes of the machine's memory, and when."""

import ctypes
import mmap

import numpy as np
import pytest

from sfu.schema.memory import USED_UP, Memory

_MINCORE = ctypes.CDLL(None, use_errno=True).mincore


def _resident_pages(memory: Memory, name: str) -> tuple[int, int]:
    """(resident, all) pages of a table."""
    table = memory.table(name)
    first = table.ctypes.data & -mmap.PAGESIZE
    count = (table.ctypes.data + table.nbytes - first + mmap.PAGESIZE - 1) // mmap.PAGESIZE
    found = np.zeros(count, np.uint8)
    size = ctypes.c_size_t(count * mmap.PAGESIZE)
    assert _MINCORE(ctypes.c_void_p(first), size, ctypes.c_void_p(found.ctypes.data)) == 0
    return int((found & 1).sum()), count


@pytest.mark.parametrize("name", USED_UP)
def test_what_is_written_from_end_to_end_is_resident_from_the_start(name: str) -> None:
    resident, count = _resident_pages(Memory(), name)
    assert resident == count


@pytest.mark.parametrize("name", ["packets", "history", "streams"])
def test_rows_and_packets_that_nobody_used_are_not_resident(name: str) -> None:
    resident, count = _resident_pages(Memory(), name)
    assert resident < count / 10
