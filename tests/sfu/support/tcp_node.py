"""One media thread that is turned by hand, with TCP connections to it."""

from typing import Any

import numpy as np

from sfu.control import rows
from sfu.control.net.sockets import Sockets
from sfu.media import loop
from sfu.queues import control
from sfu.schema.codes import Command
from sfu.schema.connection_tables import frame_t
from sfu.schema.memory import Memory
from sfu.schema.queue_tables import slow_t
from tests.sfu.support.commands import push_command
from tests.sfu.support.ice import SECOND, UFRAG, binding_request, write_credentials
from tests.sfu.support.table_sockets import without_arrival_times
from tests.sfu.support.tcp_end import TcpEnd

NOW = 100 * SECOND
ROW, GENERATION = 3, 5
OTHER, OTHER_UFRAG = 4, "otherOTH"


class TcpNode:
    """One memory with a UDP socket, TCP connections and two transports."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.memory.open_wakeups()
        self.sockets = Sockets(self.memory, 0, ("127.0.0.1",))
        without_arrival_times(self.memory)
        self.tables = rows.Tables(self.memory)
        self.ends: list[TcpEnd] = []
        for row, ufrag in ((ROW, UFRAG), (OTHER, OTHER_UFRAG)):
            write_credentials(self.memory, row, ufrag)
            self.memory.table("transports")[row]["generation"] = GENERATION
            self.command(Command.OPEN_TRANSPORT, row)
        self.turn()

    def command(self, kind: int, row: int = ROW, generation: int = GENERATION, **fields: int) -> None:
        assert push_command(self.memory, kind, row, generation, **fields)

    def turn(self, now: int = NOW) -> None:
        loop.turn(self.memory.record, self.memory.arena, now)

    def connect(self, buffer_bytes: int = 0) -> TcpEnd:
        self.ends.append(TcpEnd(self.tables, self.command, buffer_bytes))
        return self.ends[-1]

    def proven(self, now: int = NOW, buffer_bytes: int = 0, ufrag: str = UFRAG) -> TcpEnd:
        """A connection with a path."""
        end = self.connect(buffer_bytes)
        end.send(binding_request(nominate=True, ufrag=ufrag))
        self.turn(now)
        assert len(end.packets()) == 1
        return end

    def selected(self, row: int = ROW) -> Any:
        """The selected path of a transport; None: there is none."""
        path = int(self.memory.table("transports")[row]["path"])
        return self.memory.table("paths")[path] if path >= 0 else None

    def datagrams(self) -> list[bytes]:
        """What waits for the control thread, taken out."""
        out: Any = np.zeros(64, slow_t)
        count = control.take_slow(self.memory.record, out)
        return [out[k]["data"][: out[k]["size"]].tobytes() for k in range(count)]

    def push(self, data: bytes) -> None:
        """A datagram of the control thread for the selected path, which leaves in the next turn."""
        frame: Any = np.zeros(1, frame_t)
        path = self.memory.table("transports")[ROW]["path"]
        frame[0]["transport"], frame[0]["generation"], frame[0]["path"] = ROW, GENERATION, path
        frame[0]["size"] = len(data)
        frame[0]["data"][: len(data)] = np.frombuffer(data, np.uint8)
        assert control.push_frame(self.memory.record, frame)

    def send(self, data: bytes, now: int = NOW) -> None:
        """Such a datagram, and that turn."""
        self.push(data)
        self.turn(now)

    def close(self) -> None:
        for end in self.ends:
            end.close()
        self.sockets.close()
        self.memory.close_wakeups()
