"""Receivers with subscribers in other shards: a mirror in each of them, for as long as somebody there is subscribed.

A mirror is a track row of the subscriber's shard, on a transport row there that stands for the publisher. The
publisher's media thread is told to relay the track to it (`sfu/media/send/relay_out.py`).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sfu.control.media_maps import MediaMaps
from sfu.control.rows import StreamRow
from sfu.control.shards import Shard
from sfu.control.ssrcs import Ssrcs
from sfu.errors import EngineError
from sfu.parameters import MediaParameters
from sfu.schema.tables import (
    ADD_MIRROR,
    CLOSE_TRACK,
    CLOSE_TRANSPORT,
    OPEN_TRACK,
    OPEN_TRANSPORT,
    REMOVE_MIRROR,
    SET_MEDIA,
)

if TYPE_CHECKING:
    from sfu.control.forwarding import Receiver
    from sfu.control.transports import Transport

ROW_SHIFT = 8
"""ADD_MIRROR carries the shard's number below the row."""


class RelayedTransport:
    """A publisher's transport as another shard has it: number maps and clock, nothing of the network."""

    def __init__(self, publisher: "Transport", shard: Shard) -> None:
        """Takes a row and opens it. Raises TableFull."""
        self.publisher = publisher
        self.mirrors = 0
        self._shard = shard
        self.row, self.generation = shard.tables.take_transport(publisher.ice, Ssrcs().take())
        shard.relayed[self.row] = self
        self._maps = MediaMaps(shard.tables, self.row, shard.memory.table("transports")[self.row], self._send_media)
        self._push(OPEN_TRANSPORT, 1)
        self.set_media(publisher.media)

    def set_media(self, media: MediaParameters) -> None:
        """The publisher negotiated anew."""
        self._maps.set(media)

    def settle(self) -> bool:
        """Hand over maps that had to wait. True: all done."""
        return self._maps.settle()

    def close(self) -> None:
        """Close the row; `closed` must follow when the media thread has answered."""
        self._push(CLOSE_TRANSPORT)

    def closed(self) -> None:
        """The media thread no longer uses the row."""
        del self._shard.relayed[self.row]
        self._shard.tables.transports.give_back(self.row)

    def _send_media(self, row: int) -> None:
        self._push(SET_MEDIA, row)

    def _push(self, kind: int, a: int = 0) -> None:
        self._shard.mailbox.push(kind, self.row, self.generation, a)


@dataclass(slots=True, eq=False)
class Mirror:
    """One receiver in one other shard."""

    receiver: "Receiver"
    shard: Shard
    publisher: RelayedTransport
    row: int
    generation: int
    streams: tuple[StreamRow, ...]
    subscriptions: int = 0


def take_mirror(receiver: "Receiver", shard: Shard) -> Mirror:
    """The mirror of a receiver in a shard that is not its own, for one more subscription. Raises TableFull."""
    mirror = receiver.mirrors.get(shard) or _open_mirror(receiver, shard)
    mirror.subscriptions += 1
    return mirror


def release_mirror(mirror: Mirror) -> None:
    """One subscription less; after the last one nothing is relayed any more."""
    mirror.subscriptions -= 1
    if mirror.subscriptions:
        return
    receiver, shard, publisher = mirror.receiver, mirror.shard, mirror.publisher
    del receiver.mirrors[shard]
    receiver.transport.shard.mailbox.push(REMOVE_MIRROR, receiver.row, receiver.generation, shard.number)
    shard.mailbox.push(CLOSE_TRACK, mirror.row, mirror.generation)
    _leave(publisher, shard)


def mirror_closed(mirror: Mirror) -> None:
    """CLOSED_TRACK: the rows are ours again."""
    del mirror.shard.mirrors[mirror.row]
    mirror.shard.tables.give_back_track(mirror.row, mirror.streams)


def _open_mirror(receiver: "Receiver", shard: Shard) -> Mirror:
    home = receiver.transport.shard
    publisher = receiver.transport.relayed.get(shard)
    if publisher is None:
        publisher = receiver.transport.relayed[shard] = RelayedTransport(receiver.transport, shard)
    publisher.mirrors += 1
    try:
        row, generation, streams = shard.tables.take_track(
            publisher.row, receiver.parameters, (home.number, receiver.row, receiver.generation)
        )
    except EngineError:
        _leave(publisher, shard)
        raise
    mirror = Mirror(receiver, shard, publisher, row, generation, streams)
    shard.mirrors[row] = receiver.mirrors[shard] = mirror
    # in this order: what is relayed finds the track open
    shard.mailbox.push(OPEN_TRACK, row, generation)
    home.mailbox.push(ADD_MIRROR, receiver.row, receiver.generation, shard.number | row << ROW_SHIFT, generation)
    return mirror


def _leave(publisher: RelayedTransport, shard: Shard) -> None:
    publisher.mirrors -= 1
    if publisher.mirrors == 0:
        del publisher.publisher.relayed[shard]
        publisher.close()
