"""A media thread in slow, obvious Python, on the event loop: commands, connectivity checks, DTLS; no media.

For tests of the control thread that need no compiled loop, and can stop it at will.
"""

import asyncio
import os
import socket
from collections.abc import Callable

from aioice import stun

from sfu.control.net.sockets import source_control
from sfu.queues.control import push_slow
from sfu.queues.notices import notice
from sfu.schema.capacities import COMMAND_QUEUE, COMMANDS, MEDIA_PER_TRANSPORT
from sfu.schema.codes import Command, NoticeKind, RowState
from sfu.schema.memory import Memory
from sfu.schema.queue_tables import COMMAND_FIELDS
from tests.sfu.support.ice import socket_address
from tests.sfu.support.table_sockets import duplicate

TABLE_OF_COMMAND = {
    **dict.fromkeys(
        (
            Command.OPEN_TRANSPORT,
            Command.START_SRTP,
            Command.NEW_CREDENTIALS,
            Command.SET_MEDIA,
            Command.CLOSE_TRANSPORT,
        ),
        "transports",
    ),
    **dict.fromkeys((Command.OPEN_TRACK, Command.CLOSE_TRACK), "tracks"),
    **dict.fromkeys((Command.OPEN_SUBSCRIPTION, Command.CLOSE_SUBSCRIPTION), "subscriptions"),
}
NOTICE_OF_CLOSING = {
    Command.CLOSE_TRANSPORT: NoticeKind.CLOSED_TRANSPORT,
    Command.CLOSE_TRACK: NoticeKind.CLOSED_TRACK,
    Command.CLOSE_SUBSCRIPTION: NoticeKind.CLOSED_SUBSCRIPTION,
}


class StandIn:
    """What `sfu.control.media_thread.MediaThread` offers. `commands` are those applied; `held` leaves them in the
    queue."""

    def __init__(self, memory: Memory, on_exception: Callable[[BaseException], None]) -> None:
        self.memory = memory
        self.commands: list[tuple[Command, int, dict[str, int]]] = []
        self.held = False
        self.started = self.stopped = self.failed = False
        self._sockets: list[socket.socket] = []
        self._path_of_address: dict[tuple[int, bytes], int] = {}

    def start(self) -> None:
        self.started = True
        self.memory.thread["turns"] = 1
        self._loop = asyncio.get_running_loop()
        for index in range(int(self.memory.thread["socket_count"])):
            own = duplicate(self.memory, index)
            self._sockets.append(own)
            self._loop.add_reader(own.fileno(), self._receive, index)

    def stop(self) -> None:
        self.stopped = True
        for each in self._sockets:
            self._loop.remove_reader(each.fileno())
            each.close()

    def wake(self) -> None:
        if not self.held:
            self.apply()

    def cpu_seconds(self) -> float:
        return 0.0

    def apply(self) -> None:
        """Apply every command in the queue, as `sfu.media.commands` does."""
        queue = self.memory.table("queues")[COMMAND_QUEUE]
        while queue["read"] < queue["written"]:
            command = self.memory.table("commands")[int(queue["read"]) & (COMMANDS - 1)]
            queue["read"] += 1
            kind = Command(int(command["kind"]))
            fields = {name: int(command[name]) for name in COMMAND_FIELDS[kind]}
            self._apply(kind, int(command["row"]), int(command["generation"]), fields)
        self.notify()

    def notice(self, kind: int, row: int) -> None:
        notice(self.memory.record, kind, row)
        self.notify()

    def notify(self) -> None:
        if self.memory.thread["notify"]:
            self.memory.thread["notify"] = 0
            os.eventfd_write(int(self.memory.thread["control_fd"]), 1)

    def _apply(self, kind: Command, row: int, generation: int, fields: dict[str, int]) -> None:
        self.commands.append((kind, row, fields))
        table = TABLE_OF_COMMAND.get(kind)
        if table is None:
            return
        record = self.memory.table(table)[row]
        assert record["generation"] == generation
        if kind in (Command.OPEN_TRANSPORT, Command.OPEN_TRACK, Command.OPEN_SUBSCRIPTION):
            assert record["state"] == RowState.FREE
            record["state"] = RowState.OPEN
        if kind == Command.OPEN_TRANSPORT:
            record["path"] = -1
            record["secure"] = 0
            record["media"] = row * MEDIA_PER_TRANSPORT
        elif kind == Command.SET_MEDIA:
            record["media"] = fields["other_row"]
        elif kind == Command.START_SRTP:
            record["srtp_in"], record["srtp_out"], record["secure"] = fields["srtp_in"], fields["srtp_out"], 1
        elif kind == Command.NEW_CREDENTIALS:
            record["ufrag"][1], record["ufrag"][0] = record["ufrag"][0], record["next_ufrag"]
            record["password"][1] = record["password"][0]
            record["password"][0] = record["next_password"]
        elif kind in NOTICE_OF_CLOSING:
            assert record["state"] == RowState.OPEN
            record["state"] = RowState.FREE
            if kind == Command.CLOSE_TRANSPORT:
                self._free_paths(row)
            notice(self.memory.record, NOTICE_OF_CLOSING[kind], row)

    def _free_paths(self, row: int) -> None:
        for address, path in list(self._path_of_address.items()):
            if self.memory.table("paths")[path]["transport"] == row:
                self.memory.table("paths")[path]["state"] = RowState.FREE
                del self._path_of_address[address]

    def _receive(self, index: int) -> None:
        while True:
            try:
                data, control, _, name = self._sockets[index].recvmsg(2048, 256)
            except BlockingIOError:
                return
            if data[0] < 4:
                self._check(index, data, control, name)
            elif 20 <= data[0] < 64:
                path = self._path_of_address.get((index, socket_address(*name[:2])))
                if path is not None:
                    self.memory.table("rx")[0][: len(data)] = list(data)
                    row = int(self.memory.table("paths")[path]["transport"])
                    push_slow(self.memory.record, row, path, 0, len(data))
                    self.notify()

    def _check(self, index: int, data: bytes, control: list[tuple[int, int, bytes]], name: tuple[str, int]) -> None:
        message = stun.parse_message(data)
        ufrag = int.from_bytes(message.attributes["USERNAME"].split(":")[0].encode(), "little")
        transports = self.memory.table("transports")
        for row in range(64):
            if transports[row]["state"] == RowState.OPEN and ufrag in transports[row]["ufrag"].tolist():
                which = transports[row]["ufrag"].tolist().index(ufrag)
                password = transports[row]["password"][which].tobytes()
                assert message.check_message_integrity(password)
                path = self._select(index, row, control, name)
                self._answer(index, message, password, name, path)

    def _answer(self, index: int, message: stun.Message, password: bytes, name: tuple[str, int], path: int) -> None:
        response = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, message.transaction_id)
        response.attributes["XOR-MAPPED-ADDRESS"] = name[:2]
        response.add_message_integrity(password)
        control = source_control(self.memory.table("paths")[path])
        self._sockets[index].sendmsg([bytes(response)], control, 0, name)

    def _select(self, index: int, row: int, control: list[tuple[int, int, bytes]], name: tuple[str, int]) -> int:
        address = socket_address(*name[:2])
        path = self._path_of_address.setdefault((index, address), len(self._path_of_address))
        record = self.memory.table("paths")[path]
        record["state"] = RowState.OPEN
        record["family"] = 4 if len(address) == 16 else 6
        record["socket"] = index
        record["transport"] = row
        record["address"] = list(address.ljust(28, b"\0"))
        record["address_bytes"] = len(address)
        for level, kind, value in control:
            if (level, kind) == (socket.IPPROTO_IP, 8):
                record["local"] = list(value[4:8].ljust(16, b"\0"))
            elif (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
                record["local"] = list(value[:16])
        transport = self.memory.table("transports")[row]
        if transport["path"] != path:
            transport["path"] = path
            self.notice(NoticeKind.PATH_SELECTED, row)
        return path
