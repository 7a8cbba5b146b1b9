"""Ends of data channels that can be joined in memory, and packets that no honest stack sends."""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator

from aiortc.rtcsctptransport import DataChunk, SackChunk, serialize_packet

from sfu.control.data import sctp
from sfu.control.data.association import Association
from sfu.control.data.backlog import Ledger, Message, Window
from sfu.parameters import Channel, DtlsRole

FIRST, LAST, UNORDERED = 2, 1, 4


class End:
    """One listener with its channels; what it sends waits in `outbox`."""

    def __init__(self) -> None:
        self.outbox: deque[bytes] = deque()
        self.opened: list[Channel] = []
        self.messages: list[tuple[Channel, bytes]] = []
        self.drops: Counter[str] = Counter()
        self.data = sctp.DataChannels(self, self.drops)
        self.ledger = Ledger()

    def send(self, channel: Channel, payload: bytes, sender: Window | None = None) -> None:
        self.data.send(channel, Message(payload, self.ledger, sender))

    def send_application_data(self, data: bytes) -> None:
        self.outbox.append(data)

    def channel_opened(self, channel: Channel) -> None:
        self.opened.append(channel)

    def message_received(self, channel: Channel, payload: bytes) -> None:
        self.messages.append((channel, payload))


async def exchange(one: End, other: End) -> None:
    """Carry packets until neither end has any; aiortc's own tasks get their turns."""
    for _ in range(5):
        await asyncio.sleep(0)
        while one.outbox or other.outbox:
            for sender, receiver in ((one, other), (other, one)):
                while sender.outbox:
                    receiver.data.receive(sender.outbox.popleft())


@contextlib.asynccontextmanager
async def joined() -> AsyncIterator[tuple[End, End]]:
    """(ours, which opens the channels; the peer's), connected."""
    ours, peer = End(), End()
    ours.data.start(DtlsRole.SERVER, 5000, 0, True)
    peer.data.start(DtlsRole.CLIENT, 5000, 65_536, False)
    await exchange(ours, peer)
    yield ours, peer
    ours.data.close()
    peer.data.close()
    await asyncio.sleep(0)


def association_of(end: End) -> Association:
    association = end.data._association
    assert association is not None
    return association


def packet_to(end: End, chunk: DataChunk | SackChunk) -> bytes:
    """A packet that the stack of `end` takes for its peer's."""
    association = end.data._association
    assert association is not None
    return serialize_packet(5000, 5000, association._local_verification_tag, chunk)


def fragment(
    end: End, ahead: int, flags: int, data: bytes = b"x", *, stream: int = 1, protocol: int = 53, sequence: int = 0
) -> bytes:
    """A DATA chunk `ahead` of the last TSN that `end` has received."""
    association = end.data._association
    assert association is not None
    assert association._last_received_tsn is not None
    chunk = DataChunk(flags=flags)
    chunk.tsn = (association._last_received_tsn + ahead) % (1 << 32)
    chunk.stream_id, chunk.stream_seq, chunk.protocol, chunk.user_data = stream, sequence, protocol, data
    return packet_to(end, chunk)
