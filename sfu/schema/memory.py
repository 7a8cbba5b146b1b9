"""Allocates the state and fills in the addresses that system calls and libsrtp need. Runs once, at start."""

import contextlib
import mmap
import os
import select
from collections.abc import Sequence
from typing import Any

import numpy as np

from sfu.schema.capacities import (
    ARENA_BYTES,
    RX_BYTES,
    RX_CONTROL_BYTES,
    RX_SLOTS,
    SOURCES,
    STAGING_PATH,
    TX_BYTES,
    TX_SLOTS,
)
from sfu.schema.tables import state_t
from sfu.schema.thread_tables import THREAD

HUGE = ("history", "media", "transports", "paths", "subscriptions")
"""What egress goes through row by row: with small pages, each subscriber costs it several TLB misses."""
HUGE_BYTES = 2 << 20
USED_UP = ("commands", "slow", "path_slots", "source_slots", "outgoing_slots", "ufrag_slots")
"""Queues that are written from end to end before they begin again, and hash tables: after some 900 participants have
come and gone they would be resident all the same, and until then each would look like a leak of 10 KiB."""


STREAMED = ("epoll_events", "stream", "half_frames", "frame_queues", "frame_message")
"""What system calls on TCP connections read and write."""


def _offset(name: str) -> int:
    fields = state_t.fields
    assert fields is not None
    return int(fields[name][1])


class StateRecord(np.void):  # type: ignore[misc]  # final for numpy's stubs only
    """The state as kernels take it, with the attribute `data` replaced.

    numba asks a record for `data` to learn its address. numpy's own answer describes every field of every nested table
    anew, which took 30 ms a call; a plain view of the bytes takes none of that (a call is about 1 us).
    """

    data: memoryview = memoryview(b"")


_STATE_RECORD_T = np.dtype((StateRecord, state_t))  # one object: numba remembers types by it


def _allocate() -> tuple[Any, Any]:
    """The state (shape (1,), `state_t`) and the arena (shape (ARENA_BYTES,), u1), zeroed and untouched.

    Anonymous maps and not `np.zeros`: numpy asks for huge pages, and then one byte written costs 2 MiB.
    """
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # private: reading an untouched page costs no memory
    state = np.frombuffer(mmap.mmap(-1, state_t.itemsize, flags), state_t, 1)
    arena = np.frombuffer(mmap.mmap(-1, ARENA_BYTES, flags), np.uint8, ARENA_BYTES)
    return state, arena


class Memory:
    """One media thread's state. `record` is what kernels take; `state[...]` are the same bytes as numpy views."""

    def __init__(self) -> None:
        self.state, self.arena = _allocate()
        self.record: Any = self.state.view(_STATE_RECORD_T)[0]
        self.record.data = memoryview(self.state.view(np.uint8))
        self._ask_for_huge_pages()
        self._take_pages()
        self.state["thread"][0][0] = THREAD.blank
        self._set_addresses()
        self._set_messages()
        self._set_free_lists()
        self.join((self,))

    def table(self, name: str) -> Any:
        """A view of one table: `memory.table("transports")[row]["packets_in"]`."""
        return self.state[name][0]

    @property
    def thread(self) -> Any:
        """The one row of `thread`."""
        return self.state["thread"][0][0]

    def _ask_for_huge_pages(self) -> None:
        """Ask for huge pages where egress goes from row to row."""
        place: mmap.mmap = self.state.base.obj
        for name in HUGE:
            first = _offset(name) & -HUGE_BYTES
            end = (_offset(name) + self.table(name).nbytes + HUGE_BYTES - 1) & -HUGE_BYTES
            with contextlib.suppress(OSError):  # a kernel without them
                place.madvise(mmap.MADV_HUGEPAGE, first, min(end, len(place)) - first)

    def _take_pages(self) -> None:
        """Make what will be used up anyway resident now, by writing a byte of each page; everything is 0 still."""
        whole = self.state.view(np.uint8)
        for name in USED_UP:
            first, end = _offset(name), _offset(name) + self.table(name).nbytes
            whole[first : end : mmap.PAGESIZE] = whole[end - 1] = 0

    def _address(self, name: str) -> int:
        return int(self.state.ctypes.data) + _offset(name)

    def _set_addresses(self) -> None:
        thread = self.thread
        thread["state_at"] = self.state.ctypes.data
        thread["arena_at"] = self.arena.ctypes.data
        for name in (
            "rx",
            "rx_messages",
            "tx",
            "tx_messages",
            "tx_iov",
            "tx_control",
            "scratch",
            "poll",
            "paths",
            *STREAMED,
        ):
            thread[f"{name}_at"] = self._address(name)

    def _set_messages(self) -> None:
        rx_iov, rx_messages = self.table("rx_iov"), self.table("rx_messages")
        slots = np.arange(RX_SLOTS, dtype=np.uint64)
        rx_iov["base"] = self._address("rx") + slots * RX_BYTES
        rx_iov["bytes"] = RX_BYTES
        rx_messages["name"] = self._address("rx_names") + slots * 28
        rx_messages["iov"] = self._address("rx_iov") + slots * 16
        rx_messages["iov_count"] = 1
        rx_messages["control"] = self._address("rx_control") + slots * RX_CONTROL_BYTES
        self.table("frame_message")["iov"] = self._address("frame_iov")
        self.table("tx_iov")["base"] = self._address("tx") + np.arange(TX_SLOTS, dtype=np.uint64) * TX_BYTES

    def _set_free_lists(self) -> None:
        """Rows that the media thread hands out itself, chained by `next`."""
        for name, count in (("paths", STAGING_PATH), ("sources", SOURCES)):
            following = self.table(name)["next"]
            following[:count] = np.arange(1, count + 1)
            following[count - 1 :] = -1

    def join(self, memories: Sequence["Memory"]) -> None:
        """Be one of these media threads; all of them must be told the same list before any of them starts."""
        thread = self.thread
        thread["number"] = next(number for number, each in enumerate(memories) if each is self)
        thread["thread_count"] = len(memories)
        for number, each in enumerate(memories):
            thread["states_at"][number] = each.state.ctypes.data

    def open_wakeups(self) -> None:
        """Create the two eventfds and the epoll descriptor; `close_wakeups` closes them."""
        self.thread["wake_fd"] = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.thread["control_fd"] = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll(flags=select.EPOLL_CLOEXEC)
        self.thread["epoll_fd"] = self._epoll.fileno()

    def close_wakeups(self) -> None:
        """Close both eventfds and the epoll descriptor."""
        for name in ("wake_fd", "control_fd"):
            os.close(int(self.thread[name]))
        self._epoll.close()
