"""The floor: copy, `srtp_protect`, `sendmmsg`, and nothing of what makes a forwarding unit.

Sends the same packets at the same pace to the same live receivers, so that "server CPU / floor CPU" is what
forwarding logic costs. With segments it uses UDP_SEGMENT for packets of one burst to one receiver.
"""

import os
import socket
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numba import njit, types
from pylibsrtp import Policy, Session, ffi

from bench.load import SLOT_BYTES, ends_burst, load_t, packet_t, write_packet
from sfu.compiler.native import clock_gettime
from sfu.media.net.srtp import send_rtp
from sfu.media.net.udp import copy_to_slot, flush, take_slot
from sfu.schema.memory import Memory

TIMER_ABSTIME, CLOCK_MONOTONIC = 1, 1
PATH_FAMILY_IPV4 = 4
clock_nanosleep = types.ExternalFunction(
    "clock_nanosleep", types.int32(types.int32, types.int32, types.uint64, types.uint64)
)


@njit(nogil=True, cache=True)
def pace(state, arena, load, packets, sizes, receivers):
    """Send a burst of packets to each of `receivers` transports every load.interval_ns until load.end_ns.

    The packets are built once in the arena and copied for each receiver, as a forwarding unit does. packets: (P,)
    packet_t; sizes: i8, room for the sizes of one burst.
    """
    scratch = state.scratch
    at = state.thread[0].scratch_at
    due = load.start_ns
    while due < load.end_ns:
        scratch[0], scratch[1] = due // 1_000_000_000, due % 1_000_000_000
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, at, 0)
        clock_gettime(CLOCK_MONOTONIC, at)
        now = scratch[0] * 1_000_000_000 + scratch[1]
        count, complete = 0, False
        while not complete:
            sizes[count] = write_packet(arena[count * SLOT_BYTES : (count + 1) * SLOT_BYTES], load, packets, now)
            count += 1
            complete = ends_burst(load, packets, count)
        for row in range(receivers):
            for k in range(count):
                slot = take_slot(state)
                copy_to_slot(state, arena, slot, 0, k * SLOT_BYTES, sizes[k])
                send_rtp(state, row, slot, sizes[k], 0)
        flush(state)
        load.sent += count * receivers
        if now >= load.measure_ns:
            load.offered += count * receivers
        due += load.interval_ns


def _open(memory: Memory, sender: socket.socket, receivers: list[tuple[int, bytes]], segments: bool) -> list[Session]:
    memory.table("sockets")[0] = (sender.fileno(), PATH_FAMILY_IPV4, 0, 0)
    memory.thread["segment_offload"] = segments
    sessions = []
    for row, (port, key) in enumerate(receivers):
        path = memory.table("paths")[row]
        address = np.frombuffer(
            socket.AF_INET.to_bytes(2, "little") + port.to_bytes(2, "big") + socket.inet_aton("127.0.0.1"), np.uint8
        )
        path["address"][: len(address)] = address
        path["address_bytes"], path["family"], path["socket"] = 16, PATH_FAMILY_IPV4, 0
        policy = Policy(key=key, ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=Policy.SRTP_PROFILE_AEAD_AES_128_GCM)
        sessions.append(Session(policy))
        transport = memory.table("transports")[row]
        transport["srtp_out"] = int(ffi.cast("uintptr_t", sessions[-1]._srtp[0]))
        transport["path"] = row
    return sessions


def main(pipe: Connection, core: int) -> None:
    """Entry of the child process: receives (load record, packets, [(port, SRTP key)], segments), answers what it sent.

    packets: (P,) packet_t, of which a burst has at most P.
    """
    os.sched_setaffinity(0, {core})
    memory, nothing = Memory(), np.zeros(1, load_t)
    # ends at once; compiles the kernel before any schedule begins
    pace(memory.record, memory.arena, nothing[0], np.zeros(1, packet_t), np.zeros(1, np.int64), 0)
    pipe.send((os.getpid(), 0))
    while (request := pipe.recv()) is not None:
        record, packets, receivers, segments = request
        memory = Memory()
        load: Any = np.zeros(1, load_t)
        sizes = np.zeros(len(packets), np.int64)
        for name, value in record.items():
            load[name] = value
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind(("127.0.0.1", 0))
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
            sessions = _open(memory, sender, receivers, segments)
            pipe.send("ready")
            pace(memory.record, memory.arena, load[0], packets, sizes, len(receivers))
            pipe.send((int(load[0]["sent"]), int(load[0]["offered"])))
        del sessions
