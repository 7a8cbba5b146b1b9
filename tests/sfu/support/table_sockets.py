"""The UDP sockets of the tables, as tests reach them beside the media thread."""

import os
import socket

from sfu.control.net.sockets import SO_TIMESTAMPNS
from sfu.schema.memory import Memory


def duplicate(memory: Memory, index: int = 0) -> socket.socket:
    """One of the sockets under a descriptor of its own, which the caller closes."""
    return socket.socket(fileno=os.dup(int(memory.table("sockets")[index]["fd"])))


def port_of(memory: Memory, index: int = 0) -> int:
    """The port to which one of the sockets is bound."""
    with duplicate(memory, index) as opened:
        return int(opened.getsockname()[1])


def without_arrival_times(memory: Memory) -> None:
    """Let datagrams arrive when the test's clock says. The operating system would tell its own time, and a machine that
    was started less than the simulation's first second ago would make all of them look old."""
    for index in range(int(memory.thread["socket_count"])):
        with duplicate(memory, index) as each:
            each.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 0)
