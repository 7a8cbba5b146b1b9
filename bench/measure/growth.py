"""`python -m bench growth`: how much memory a server keeps of each participant that joined, published and left.

A listener stays in the room. Visitors come in groups: each joins, publishes a microphone, is heard by the listener, and
leaves. Memory is read twice when all visitors have left: after the warm-up, in which pools and arenas fill, and after
the visitors that count.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from bench.accounting import tree_resident_bytes
from bench.clients.arrivals import DATAGRAM_BYTES
from bench.clients.endpoint import Endpoint
from bench.clients.livekit import Participant
from bench.plans import Connected, Plan
from bench.scenarios import AUDIO
from bench.targets.base import Target

AT_ONCE = 10
"""Visitors in the room at a time."""
ROOM = "growth"
REST_S = 3.0
"""The time from the last leave until memory is read, for what servers free later."""
CHECK_S = 3.0
"""The time between connectivity checks of the listener."""
PACKET_S = 0.02
PAYLOAD = b"\xf8\xff\xfe"
"""One Opus frame of silence."""


@dataclass(frozen=True, slots=True)
class Growth:
    """The server's memory before and after the visitors that count."""

    warm_up: int
    visitors: int
    before: int
    """Resident bytes of the server after the warm-up."""
    after: int
    """Resident bytes of the server after the visitors that count."""

    @property
    def bytes_each(self) -> float:
        """Bytes by which each visitor raised the server's memory."""
        return (self.after - self.before) / self.visitors


async def measure(target: Target, warm_up: int, visitors: int, advance: Callable[[int], None]) -> Growth:
    """Let `warm_up` and then `visitors` participants join a started target and leave; tell `advance` of each group."""
    async with _listening(target):
        await _let_come(target, range(warm_up), advance)
        before = tree_resident_bytes(target.pid())
        await _let_come(target, range(warm_up, warm_up + visitors), advance)
        after = tree_resident_bytes(target.pid())
    return Growth(warm_up, visitors, before, after)


@contextlib.asynccontextmanager
async def _listening(target: Target) -> AsyncIterator[None]:
    connected = await target.join(Plan(ROOM, "listener", (AUDIO,)))
    following = asyncio.create_task(_stay(connected))
    try:
        yield
    finally:
        following.cancel()
        await asyncio.wait([following])
        await target.leave(connected)


async def _stay(connected: Connected) -> None:
    while True:
        _endpoint(connected).check()
        _drain(connected)
        await asyncio.sleep(CHECK_S)


async def _let_come(target: Target, numbers: range, advance: Callable[[int], None]) -> None:
    for first in range(numbers.start, numbers.stop, AT_ONCE):
        group = range(first, min(first + AT_ONCE, numbers.stop))
        await asyncio.gather(*(_visit(target, number) for number in group))
        advance(len(group))
    await asyncio.sleep(REST_S)


async def _visit(target: Target, number: int) -> None:
    """Join, send until the server has forwarded packets of this visitor to the listener, and leave."""
    connected = await target.join(Plan(ROOM, f"visitor-{number}", (AUDIO,)))
    participant = connected.owner
    assert isinstance(participant, Participant)
    (stream,) = connected.sends
    for sequence in range(1, 1_000):
        header = bytes((0x80, stream.payload_type)) + sequence.to_bytes(2, "big") + (sequence * 960).to_bytes(4, "big")
        _endpoint(connected).send_rtp(header + stream.ssrc.to_bytes(4, "big") + PAYLOAD)
        if participant.subscribed_to.is_set():
            break
        await asyncio.sleep(PACKET_S)
    await target.leave(connected)


def _endpoint(connected: Connected) -> Endpoint:
    assert isinstance(connected.owner, Participant)
    assert connected.owner.endpoint is not None
    return connected.owner.endpoint


def _drain(connected: Connected) -> None:
    """Read what has arrived, so that the socket's buffer does not fill."""
    with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
        while connected.socket.recv(DATAGRAM_BYTES):
            pass
