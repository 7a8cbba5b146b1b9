"""Sockets under a clock that a test moves by hand."""

import os
import socket

from sfu.control.net.sockets import SO_TIMESTAMPNS
from sfu.schema.memory import Memory


def without_arrival_times(memory: Memory) -> None:
    """Let datagrams arrive when the test's clock says. The operating system would tell its own time, and a machine that
    was started less than the simulation's first second ago would make all of them look old."""
    for row in memory.table("sockets")[: memory.thread["socket_count"]]:
        with socket.socket(fileno=os.dup(row["fd"])) as each:
            each.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 0)
