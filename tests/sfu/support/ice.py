"""A peer's side of ICE for kernel tests: rows as the control thread writes them, and checks made by aioice."""

import socket
import struct
from typing import Any

import numpy as np
from aioice import stun

from sfu.queues.notices import take_notices
from sfu.schema.capacities import NOTICE_BLOCK
from sfu.schema.codes import Drop
from sfu.schema.memory import Memory
from sfu.schema.queue_tables import notice_t

UFRAG, PASSWORD = "abcdEFGH", "0123456789abcdefghijklmn"
TRANSACTION = bytes(range(12))
SECOND = 1_000_000_000


def ufrag_number(ufrag: str) -> int:
    return int.from_bytes(ufrag.encode(), "little")


def write_credentials(memory: Memory, row: int, ufrag: str = UFRAG, password: str = PASSWORD) -> None:
    """What the control thread writes into a free transport row."""
    transport = memory.table("transports")[row]
    transport["ufrag"][0] = ufrag_number(ufrag)
    transport["password"][0] = np.frombuffer(password.encode(), np.uint8)


def binding_request(
    *,
    ufrag: str = UFRAG,
    password: str = PASSWORD,
    nominate: bool = False,
    priority: int = 100,
    controlled: bool = False,
    fingerprint: bool = True,
) -> bytes:
    message = stun.Message(stun.Method.BINDING, stun.Class.REQUEST, TRANSACTION)
    message.attributes["USERNAME"] = f"{ufrag}:remote"
    message.attributes["PRIORITY"] = priority
    message.attributes["ICE-CONTROLLED" if controlled else "ICE-CONTROLLING"] = 1
    if nominate:
        message.attributes["USE-CANDIDATE"] = None
    message.add_message_integrity(password.encode())
    if not fingerprint:
        del message.attributes["FINGERPRINT"]
    return bytes(message)


def socket_address(host: str, port: int, *, flow: int = 0, scope: int = 0) -> bytes:
    """The sockaddr that the kernel gives for a peer."""
    if ":" in host:
        return struct.pack("=H", socket.AF_INET6) + struct.pack(
            "!HI16sI", port, flow, socket.inet_pton(socket.AF_INET6, host), scope
        )
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, socket.inet_aton(host))


def fill_slot(memory: Memory, k: int, data: bytes, address: bytes) -> int:
    """Put a datagram into receive slot k as `udp.receive` does; returns its size."""
    memory.table("rx")[k][: len(data)] = np.frombuffer(data, np.uint8)
    names = memory.table("rx_names")
    names[k] = 0
    names[k][: len(address)] = np.frombuffer(address, np.uint8)
    message = memory.table("rx_messages")[k]
    message["bytes"] = len(data)
    message["name_bytes"] = len(address)
    message["flags"] = 0
    return len(data)


def sent(memory: Memory) -> list[tuple[int, bytes]]:
    """(path row, packet) of every send slot that is queued."""
    slots = range(int(memory.thread["tx_count"]))
    tx, sizes, paths = memory.table("tx"), memory.table("tx_size"), memory.table("tx_path")
    return [(int(paths[slot]), tx[slot][: sizes[slot]].tobytes()) for slot in slots]


def drop_counts(memory: Memory) -> dict[str, int]:
    """Drop counters that are not zero, by name."""

    counts = memory.table("drops").tolist()
    return {drop.name.lower(): counts[drop] for drop in Drop if counts[drop]}


def all_notices(memory: Memory) -> list[tuple[int, int, int, int, int]]:
    """(kind, row, generation, value, extra) of the notices that wait, taken out."""
    out: Any = np.zeros(NOTICE_BLOCK, notice_t)
    taken: list[tuple[int, int, int, int, int]] = []
    while count := take_notices(memory.record, out):
        taken += out[:count].tolist()
    return taken


def notices(memory: Memory) -> list[tuple[int, int, int]]:
    """(kind, row, value) of the notices that wait, taken out."""
    return [(kind, row, value) for kind, row, _, value, _ in all_notices(memory)]
