"""Data channels of the load generator: who sends messages on an absolute schedule, and who receives them.

They are written in Python and run beside the generator's kernel; each participant has a socket that asyncio reads. SCTP
is aiortc's, as in the server, so receiving a message costs here about as much as there; `generator_busy` shows it.
aiortc acknowledges every message, whereas browsers acknowledge every second one.

The loop is open: a message leaves when it is due or, if this process was too busy, as soon as it can. Its latency is
measured from just before it is written until the kernel has received the datagram that completes it. So it contains the
sender's own Python, and not the receiver's.
"""

import asyncio
import gc
import heapq
import struct
import time
from array import array
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import numpy as np
from livekit.protocol.models import DataPacket, UserPacket
from OpenSSL import SSL

from bench.clients.arrivals import DATAGRAM_BYTES, is_dtls
from bench.clients.endpoint import Endpoint
from bench.generator.generator import SO_TIMESTAMPNS, prepare
from bench.generator.histogram import BUCKETS, bucket_of, latency
from bench.results import Latency
from sfu.control.data.backlog import Ledger, Message
from sfu.control.data.sctp import MAX_MESSAGE_BYTES, DataChannels
from sfu.errors import TransportFailure
from sfu.parameters import Channel, DtlsRole

OPEN_TIMEOUT_S = 30.0
CHECK_S = 4.0
"""The time between connectivity checks. Servers give up after 15 s without one."""
DATAGRAMS_AT_ONCE = 8
"""Datagrams that are read from one socket before the others have their turn."""
CONTROL_BYTES = 64
CHANNELS = {"reliable": Channel.RELIABLE, "lossy": Channel.LOSSY}

_HEAD = struct.Struct("!QQ")
"""The beginning of a message's payload: its send time in ns of the monotonic clock, and its number, from 1."""
_TIME = struct.Struct("@qq")
"""SCM_TIMESTAMPNS: a timespec of the real-time clock."""


class ChannelsFailed(Exception):
    """The server did not open a participant's data channels."""


@dataclass(frozen=True, slots=True)
class DataWindow:
    """What was counted of the messages that were sent in one window."""

    offered: int
    """Messages that were due, times the receivers of each."""
    delivered: int
    latency: Latency
    late_us: float
    """The largest delay of a message behind its schedule."""
    dropped: int
    """Messages that the generator's own SCTP refused, and packets that it did not understand."""


class Tally:
    """Counts what is sent between `start_ns` and `end_ns`, at all participants."""

    def __init__(self, start_ns: int, end_ns: int) -> None:
        self._start_ns, self._end_ns = start_ns, end_ns
        self.sent = self.late_ns = 0
        self.latencies = array("q")

    def note_sent(self, due_ns: int, sent_ns: int) -> None:
        """Count a message that was due at `due_ns` and sent, or refused, at `sent_ns`."""
        if self._start_ns <= sent_ns < self._end_ns:
            self.sent += 1
            self.late_ns = max(self.late_ns, sent_ns - due_ns)

    def note_received(self, sent_ns: int, received_ns: int) -> None:
        """Count a message that reached a receiver."""
        if self._start_ns <= sent_ns < self._end_ns:
            self.latencies.append(received_ns - sent_ns)


class Messenger:
    """One participant with data channels."""

    def __init__(self, name: str, endpoint: Endpoint, between: Callable[[], None]) -> None:
        """Prepare a participant; `open` opens its channels.

        Args:
            name: for errors.
            endpoint: is connected and keeps DTLS. Its socket is read here from `open` on.
            between: is called before each read, for what must not wait until all sockets are read.
        """
        self.name = name
        self._between = between
        self.failure = ""
        """What ended it, if anything did."""
        self.drops: Counter[str] = Counter()
        self.tally = Tally(0, 0)
        self._endpoint = endpoint
        self._channels = DataChannels(self, self.drops)
        self._ledger = Ledger()
        self._opened: set[Channel] = set()
        self._all_open = asyncio.Event()
        self._number = 0
        self._arrival_ns = 0

    async def open(self, port: int) -> None:
        """Open both channels to the server's SCTP `port`.

        Raises:
            ChannelsFailed: they do not open.
        """
        prepare(self._endpoint.socket)
        asyncio.get_running_loop().add_reader(self._endpoint.fd, self._readable)
        self._channels.start(DtlsRole.CLIENT, port, MAX_MESSAGE_BYTES, open_ours=True)
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await self._all_open.wait()
        except TimeoutError:
            why = self.failure or "no answer"
            raise ChannelsFailed(
                f"{self.name}: its data channels did not open in {OPEN_TIMEOUT_S:.0f} s: {why}"
            ) from None

    def check(self) -> None:
        """Send a connectivity check, which keeps the server's consent."""
        self._endpoint.check()

    def send(self, channel: Channel, size: int, due_ns: int) -> None:
        """Send the next message, with a payload of `size` bytes, that was due at `due_ns`."""
        if self.failure:
            return
        self._number += 1
        sent_ns = time.monotonic_ns()
        packet = DataPacket(user=UserPacket(payload=_HEAD.pack(sent_ns, self._number).ljust(size, b"\0")))
        if channel is Channel.RELIABLE:
            packet.sequence = self._number  # as SDKs do, for repetition after a resume
        self.tally.note_sent(due_ns, sent_ns)
        self._channels.send(channel, Message(packet.SerializeToString(), self._ledger, None))

    def close(self) -> None:
        """Stop reading and end the association; the socket stays open."""
        if self._endpoint.fd >= 0:
            asyncio.get_running_loop().remove_reader(self._endpoint.fd)
        self._channels.close()

    def _readable(self) -> None:
        wall_offset_ns = time.time_ns() - time.monotonic_ns()
        try:
            for _ in range(DATAGRAMS_AT_ONCE):
                self._between()
                datagram, control, _, _ = self._endpoint.socket.recvmsg(DATAGRAM_BYTES, CONTROL_BYTES)
                if is_dtls(datagram):
                    self._arrival_ns = _received_ns(control) - wall_offset_ns
                    for packet in self._endpoint.receive_data(datagram):
                        self._channels.receive(packet)
        except BlockingIOError:
            return
        except (OSError, SSL.Error, TransportFailure) as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.failure = self.failure or f"{self.name}: {type(error).__name__} {error}"
        asyncio.get_running_loop().remove_reader(self._endpoint.fd)

    # What the data channels tell.

    def send_application_data(self, data: bytes) -> None:
        """Implement `sfu.control.data.sctp.DataListener`."""
        try:
            self._endpoint.send_data(data)
        except BlockingIOError:
            self.drops["socket full"] += 1
        except (OSError, SSL.Error) as error:
            self._fail(error)

    def channel_opened(self, channel: Channel) -> None:
        """Implement `sfu.control.data.sctp.DataListener`."""
        self._opened.add(channel)
        if self._opened.issuperset(CHANNELS.values()):
            self._all_open.set()

    def message_received(self, channel: Channel, payload: bytes) -> None:
        """Implement `sfu.control.data.sctp.DataListener`."""
        sent_ns, _ = _HEAD.unpack_from(DataPacket.FromString(payload).user.payload)
        self.tally.note_received(sent_ns, self._arrival_ns)


def _received_ns(control: list[tuple[int, int, bytes]]) -> int:
    """Return the kernel's receive time on the real-time clock, or the time now for a datagram that has none."""
    for _, kind, data in control:
        if kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = _TIME.unpack(data)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return time.time_ns()


class Messages:
    """All participants with data channels, which are in one room. Nothing is sent before `set_load`."""

    def __init__(self, channel: str, size: int) -> None:
        """`channel` is `reliable` or `lossy`; `size` is the bytes of a message's payload."""
        self._channel, self._size = CHANNELS[channel], size
        self._messengers: list[Messenger] = []
        self._senders: list[tuple[Messenger, float]] = []
        self._due: list[tuple[int, int]] = []
        """A heap of (time at which the next message is due, its sender)."""
        self._tasks: list[asyncio.Task[None]] = []
        self._load = 0.0
        self._tally = Tally(0, 0)

    async def add(self, name: str, endpoint: Endpoint, port: int, per_second: float) -> None:
        """Open the channels of a connected endpoint, which sends `per_second` messages once there is a load.

        Raises:
            ChannelsFailed: they do not open.
        """
        messenger = Messenger(name, endpoint, self._send_due)
        self._messengers.append(messenger)
        await messenger.open(port)
        if not self._tasks:
            self._spawn(self._check())
        if per_second > 0:
            self._senders.append((messenger, per_second))

    def set_load(self, load: float) -> None:
        """Multiply every sender's rate by `load`, from its next message on. The first call starts them."""
        begins, self._load = self._load == 0, load
        if begins and self._senders:
            gc.collect()
            gc.freeze()  # what lives now lives on, and to look at it again would hold up the schedule
            now = time.monotonic_ns()
            for place, (_, per_second) in enumerate(self._senders):
                phase = place / len(self._senders)  # not all at the same moment
                heapq.heappush(self._due, (now + int(phase * 1e9 / per_second / load), place))
            self._spawn(self._keep_sending())

    def open_window(self, start_ns: int, end_ns: int) -> None:
        """Count what is sent from `start_ns` to `end_ns`; forget the window before."""
        self._tally = Tally(start_ns, end_ns)
        for each in self._messengers:
            each.tally = self._tally
            each.drops.clear()

    def window(self) -> DataWindow:
        """What the window has counted so far."""
        histogram = np.zeros(BUCKETS, np.int64)
        for each in self._tally.latencies:
            histogram[bucket_of(each)] += 1
        return DataWindow(
            offered=self._tally.sent * (len(self._messengers) - 1),
            delivered=len(self._tally.latencies),
            latency=latency(histogram),
            late_us=self._tally.late_ns / 1e3,
            dropped=sum(each.drops.total() for each in self._messengers),
        )

    def failures(self) -> list[str]:
        """Return why participants and tasks ended, one text each; nothing if none did."""
        ended = [task.exception() for task in self._tasks if task.done() and not task.cancelled()]
        return [each.failure for each in self._messengers if each.failure] + [repr(each) for each in ended]

    async def close(self) -> None:
        """End everything. The sockets stay open; whoever made them closes them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for each in self._messengers:
            each.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))

    async def _check(self) -> None:
        while True:
            for each in list(self._messengers):
                each.check()
                await asyncio.sleep(CHECK_S / len(self._messengers))

    async def _keep_sending(self) -> None:
        while True:
            self._send_due()
            await asyncio.sleep(max(0.0, (self._due[0][0] - time.monotonic_ns()) / 1e9))

    def _send_due(self) -> None:
        """Send one message if one is due. Also called before each read: full sockets must not hold up the schedule."""
        if not self._due or self._due[0][0] > time.monotonic_ns():
            return
        due_ns, place = self._due[0]
        messenger, per_second = self._senders[place]
        heapq.heapreplace(self._due, (due_ns + int(1e9 / per_second / self._load), place))
        messenger.send(self._channel, self._size, due_ns)
