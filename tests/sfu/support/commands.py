"""Commands as they lie in the queue, for tests that stand for the control thread."""

from typing import Any

import numpy as np

from sfu.queues import control
from sfu.schema.memory import Memory
from sfu.schema.queue_tables import command_t


def push_command(memory: Memory, kind: int, row: int, generation: int, **fields: int) -> bool:
    """Append a command; fields that are not given are 0. False: the queue is full."""
    packed: Any = np.zeros(1, command_t)
    for name, value in {"kind": kind, "row": row, "generation": generation, **fields}.items():
        packed[name] = value
    return bool(control.push_command(memory.record, packed))
