"""A process that copies what publishers send to receivers: the floor of forwarding, or the plain reflector.

The floor takes plaintext RTP and does the least that forwarding needs: copy, `srtp_protect` and `sendmmsg`. The
reflector sends each datagram on as it came. Both take the receivers from a table: stream FIRST_SSRC + n goes to those
in row n.
"""

import os
import socket
import threading
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numba import njit
from pylibsrtp import Policy, Session, ffi

from sfu.compiler.atomics import load_acquire, store_release
from sfu.compiler.native import ppoll
from sfu.media.net.srtp import send_rtp
from sfu.media.net.udp import commit, copy_to_arena, copy_to_slot, flush, receive, take_slot
from sfu.media.wire.numbers import get_u32
from sfu.schema.codes import Scratch
from sfu.schema.memory import Memory

FIRST_SSRC = 0x10000
STREAMS, RECEIVERS = 4096, 4096
PATH_FAMILY_IPV4 = 4
SOCKET_BYTES = 4 << 20
SO_RCVBUFFORCE, SO_SNDBUFFORCE = 33, 32
FIRST_RTCP_TYPE, LAST_RTCP_TYPE = 192, 223
ARENA_SLOT_BYTES = 2048
WAIT_NS = 10_000_000
POLLIN = 1
KEY_PROFILE = Policy.SRTP_PROFILE_AEAD_AES_128_GCM

routes_t = np.dtype(
    [
        ("stop", "u1", 1),
        ("protect", "u1", 1),
        ("forwarded", "i8", 1),
        ("unknown", "i8", 1),
        ("count", "i4", STREAMS),
        ("receivers", "i4", (STREAMS, RECEIVERS)),
    ],
    align=True,
)


@njit(cache=True)
def _stream_of(state, k):
    """Return the row of the stream of receive slot k; -1: it is no RTP, or of an unknown stream."""
    packet = state.rx[k]
    if state.rx_messages[k].bytes < 12 or packet[0] >> 6 != 2:
        return -1
    if FIRST_RTCP_TYPE <= packet[1] <= LAST_RTCP_TYPE:
        return -1
    row = get_u32(packet, 8) - FIRST_SSRC
    return row if 0 <= row < STREAMS else -1


@njit(cache=True)
def _forward(state, arena, routes, stream, first, end):
    """Send receive slots first to end - 1, all of one stream, to each of its receivers."""
    for k in range(first, end):
        copy_to_arena(state, arena, k * ARENA_SLOT_BYTES, k, 0, np.int64(state.rx_messages[k].bytes))
    for n in range(load_acquire(routes.count, stream)):
        row = np.int64(routes.receivers[stream, n])
        for k in range(first, end):
            size = np.int64(state.rx_messages[k].bytes)
            slot = take_slot(state)
            copy_to_slot(state, arena, slot, 0, k * ARENA_SLOT_BYTES, size)
            if routes.protect[0]:
                send_rtp(state, row, slot, size, 0)
            else:
                commit(state, slot, row, size)
            routes.forwarded[0] += 1


@njit(nogil=True, cache=True)
def run(state, arena, routes):
    """Forward until `routes.stop` is set. `routes` is a routes_t record."""
    thread = state.thread[0]
    while load_acquire(routes.stop, 0) == 0:
        count = receive(state, 0)
        k = 0
        while k < count:
            stream, first = _stream_of(state, k), k
            k += 1
            if stream < 0:
                routes.unknown[0] += 1
                continue
            while k < count and _stream_of(state, k) == stream:
                k += 1
            _forward(state, arena, routes, stream, first, k)
        flush(state)
        if count == 0:
            state.poll[0].fd = state.sockets[0].fd
            state.poll[0].events = POLLIN
            state.scratch[Scratch.TIMEOUT], state.scratch[Scratch.TIMEOUT + 1] = 0, WAIT_NS
            ppoll(thread.poll_at, np.uint64(1), thread.scratch_at + np.uint64(8 * Scratch.TIMEOUT), np.uint64(0))


@njit(cache=True)
def publish_count(routes, stream, count):
    """Publish that the first `count` receivers of a stream are valid."""
    store_release(routes.count, stream, count)


class Reflector:
    """The tables and the thread of the child process."""

    def __init__(self, protect: bool, segments: bool) -> None:
        self._memory = Memory()
        self._routes: Any = np.zeros(1, routes_t)
        self._routes["protect"] = protect
        self._memory.thread["segment_offload"] = segments
        self._sessions: list[Session] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        for forced, plain in ((SO_RCVBUFFORCE, socket.SO_RCVBUF), (SO_SNDBUFFORCE, socket.SO_SNDBUF)):
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, forced, SOCKET_BYTES)
            except PermissionError:
                self._socket.setsockopt(socket.SOL_SOCKET, plain, SOCKET_BYTES)
        self._memory.table("sockets")[0] = (self._socket.fileno(), PATH_FAMILY_IPV4, 0)
        self._receivers = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def port(self) -> int:
        """The UDP port to which publishers send."""
        return int(self._socket.getsockname()[1])

    def start(self) -> None:
        """Compile, then start the thread."""
        self._routes["stop"] = 1
        self._run()
        self._routes["stop"] = 0
        self._thread.start()

    def _run(self) -> None:
        run(self._memory.record, self._memory.arena, self._routes[0])

    def stop(self) -> None:
        """End the thread."""
        self._routes["stop"] = 1
        self._thread.join()
        self._socket.close()

    def add_receiver(self, port: int, key: bytes) -> int:
        """Add a receiver on loopback; return its row. `key` is SRTP key and salt, which a plain reflector ignores."""
        row = self._receivers
        if row == RECEIVERS:
            raise ValueError(f"no more than {RECEIVERS} receivers")
        self._receivers += 1
        path = self._memory.table("paths")[row]
        address = socket.AF_INET.to_bytes(2, "little") + port.to_bytes(2, "big") + socket.inet_aton("127.0.0.1")
        path["address"][: len(address)] = np.frombuffer(address, np.uint8)
        path["address_bytes"], path["family"], path["socket"] = 16, PATH_FAMILY_IPV4, 0
        transport = self._memory.table("transports")[row]
        transport["path"] = row
        if key:
            policy = Policy(key=key, ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=KEY_PROFILE)
            self._sessions.append(Session(policy))
            transport["srtp_out"] = int(ffi.cast("uintptr_t", self._sessions[-1]._srtp[0]))
        return row

    def subscribe(self, stream: int, receiver: int) -> None:
        """Send a stream to a receiver."""
        count = int(self._routes[0]["count"][stream])
        self._routes[0]["receivers"][stream][count] = receiver
        publish_count(self._routes[0], stream, count + 1)

    def unsubscribe(self, stream: int, receiver: int) -> None:
        """Stop sending a stream to a receiver. The last one takes its entry, and may miss or repeat a packet."""
        count = int(self._routes[0]["count"][stream])
        receivers = self._routes[0]["receivers"][stream]
        places = np.flatnonzero(receivers[:count] == receiver)
        if len(places):
            receivers[places[0]] = receivers[count - 1]
            publish_count(self._routes[0], stream, count - 1)

    def drops(self) -> dict[str, int]:
        """Return how many packets could not be protected or sent."""
        return {"reflector": int(self._memory.table("drops").sum())}


def main(pipe: Connection, protect: bool, segments: bool) -> None:
    """Run the child process: send (pid, port), then answer requests (verb, arguments) until "stop"."""
    reflector = Reflector(protect, segments)
    reflector.start()
    pipe.send((os.getpid(), reflector.port))
    while True:
        verb, arguments = pipe.recv()
        if verb == "stop":
            break
        pipe.send(getattr(reflector, verb)(*arguments))
    reflector.stop()
    pipe.send(None)
