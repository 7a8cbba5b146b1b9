"""The control thread's end: commands and datagrams for TCP connections to the media thread, its notices and DTLS
datagrams back.

Nothing here waits: commands that do not fit stay here until `flush` finds room.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from sfu.errors import TableFull
from sfu.queues.control import push_command, push_frame, take_slow
from sfu.queues.notices import take_notices
from sfu.schema.capacities import SLOW_BYTES, SLOW_QUEUE
from sfu.schema.codes import Command
from sfu.schema.connection_tables import frame_t
from sfu.schema.memory import Memory
from sfu.schema.queue_tables import COMMAND_FIELDS, command_t, notice_t, slow_t

MAX_WAITING_COMMANDS = 65_536
"""Commands beside the queue's own; only opening and closing ones may pass it, and those are bounded by the rows."""
NOTICE_BATCH = 1024
SLOW_BATCH = 64
"""DTLS datagrams that are taken out of the queue at once: a kernel's call costs as much as the work on one of them."""

_ROWS = frozenset(
    (
        Command.OPEN_TRANSPORT,
        Command.OPEN_TRACK,
        Command.OPEN_SUBSCRIPTION,
        Command.CLOSE_TRANSPORT,
        Command.CLOSE_TRACK,
        Command.CLOSE_SUBSCRIPTION,
        Command.OPEN_CONNECTION,
    )
)
"""A row whose opening was refused would be in use for ever: nobody tells that it is closed."""
_SETTINGS = frozenset(
    (Command.FOLLOW_PATH, Command.REQUEST_KEY_FRAME, Command.SET_RESTING, Command.SET_LAYERS, Command.SET_PAUSED)
)
"""What clients can ask for at will: of a row's, only the newest waits, beside the others and refusing none of them."""


_EMPTY = bytes(command_t.itemsize)


class Notice(NamedTuple):
    """One `notice_t`; kinds and what value and extra mean: `NoticeKind`."""

    kind: int
    row: int
    generation: int
    value: int
    extra: int


class Datagram(NamedTuple):
    """One DTLS datagram from the slow queue."""

    transport: int
    generation: int
    path: int
    data: bytes


class Mailbox:
    """Commands out, notices and slow datagrams in."""

    def __init__(self, memory: Memory, wake: Callable[[], None]) -> None:
        """wake: makes the media thread look into its queue soon."""
        self._state = memory.record
        self._wake = wake
        self._command = np.zeros(1, command_t)
        self._command_bytes = memoryview(self._command.view(np.uint8))  # type: ignore[arg-type]
        self._frame = np.zeros(1, frame_t)
        self._waiting: deque[bytes] = deque()
        self._settings: dict[tuple[Command, int], bytes] = {}
        self._notices = np.zeros(NOTICE_BATCH, notice_t)
        self._given, self._taken = memory.table("thread")["notices"], 0
        queues = memory.table("queues")
        self._read, self._written = queues["read"], queues["written"]
        self._slow = np.zeros(SLOW_BATCH, slow_t)
        # Views, made once: a record of numpy's, and each of its fields, costs as much as the datagram.
        self._slow_heads = self._slow[["transport", "generation", "path", "size"]]
        self._slow_data = [memoryview(data) for data in self._slow["data"]]
        self._handled = memory.table("transports")["slow_taken"]

    @property
    def waiting(self) -> int:
        """Commands that are not in the queue yet."""
        return len(self._waiting) + len(self._settings)

    @property
    def has_room(self) -> bool:
        """Whether `push` takes one more command of any kind."""
        return len(self._waiting) < MAX_WAITING_COMMANDS

    def push(self, kind: Command, row: int, generation: int, **fields: int) -> None:
        """Send one command with the fields of its kind (`COMMAND_FIELDS`), in order; settings may come after others
        that follow them.

        Raises:
            TableFull: too many commands wait; never for a setting or a command that opens or closes a row.
        """
        if fields.keys() != COMMAND_FIELDS[kind]:
            raise TypeError(f"{kind.name} takes {sorted(COMMAND_FIELDS[kind])}, not {sorted(fields)}")
        self._pack(kind, row, generation, fields)
        if not self._waiting and not self._settings and push_command(self._state, self._command):
            self._wake()
            return
        packed = bytes(self._command_bytes)
        if kind in _SETTINGS:
            self._settings[kind, row] = packed
        elif self.has_room or kind in _ROWS:
            self._waiting.append(packed)
        else:
            raise TableFull("too many commands wait for the media thread")
        self.flush()

    def flush(self) -> None:
        """Move waiting commands into the queue, as far as there is room."""
        if self._move():
            self._wake()

    def push_frame(self, transport: int, generation: int, path: int, datagram: bytes) -> bool:
        """Send a datagram to a transport row over the TCP connection of a path row. False: it cannot be sent now."""
        size = len(datagram)
        if size > SLOW_BYTES:
            return False
        frame = self._frame[0]
        frame["transport"], frame["generation"], frame["path"], frame["size"] = transport, generation, path, size
        frame["data"][:size] = np.frombuffer(datagram, np.uint8)
        if not push_frame(self._state, self._frame):
            return False
        self._wake()
        return True

    def _pack(self, kind: Command, row: int, generation: int, fields: dict[str, int]) -> None:
        """Write one command into `_command`, as it lies in the queue."""
        self._command_bytes[:] = _EMPTY
        command = self._command[0]
        command["kind"], command["row"], command["generation"] = kind, row, generation
        for name, value in fields.items():
            command[name] = value

    def _put(self, packed: bytes) -> bool:
        """Put one command into the queue; False when it is full."""
        self._command_bytes[:] = packed
        return bool(push_command(self._state, self._command))

    def _move(self) -> bool:
        """Move what waits into the queue. Returns whether anything was moved."""
        moved = False
        while self._waiting:
            if not self._put(self._waiting[0]):
                return moved
            self._waiting.popleft()
            moved = True
        while self._settings:
            which, packed = next(iter(self._settings.items()))
            if not self._put(packed):
                break
            del self._settings[which]
            moved = True
        return moved

    def take_notices(self) -> Sequence[Notice]:
        """The next notices, at most NOTICE_BATCH."""
        given = self._given.item(0)
        if given == self._taken:
            return ()
        count = take_notices(self._state, self._notices)
        if count == 0:  # all that had been told before
            self._taken = given
        return [
            Notice(kind, row, generation, value, extra)
            for kind, row, generation, value, extra in self._notices[:count].tolist()
        ]

    def take_datagrams(self) -> Sequence[Datagram]:
        """The next DTLS datagrams, at most SLOW_BATCH. `handled` must follow for each."""
        # Without a kernel's call when nothing waits. What comes a moment later wakes this thread anyway.
        if self._read.item(SLOW_QUEUE) == self._written.item(SLOW_QUEUE):
            return ()
        heads = self._slow_heads[: take_slow(self._state, self._slow)].tolist()
        return [
            Datagram(transport, generation, path, data[:size].tobytes())
            for (transport, generation, path, size), data in zip(heads, self._slow_data, strict=False)
        ]

    def handled(self, transport: int) -> None:
        """A datagram of a transport row is done with: there is room for one more of it."""
        self._handled[transport] += 1
