"""What is published and forwarded, as values: tracks, their mirrors in other shards, subscriptions; and whose rows
they have."""

from dataclasses import dataclass, field

from sfu.control.media_maps import MediaMaps
from sfu.control.rows import StreamRow
from sfu.control.shards import Shard
from sfu.control.ssrcs import Ssrcs
from sfu.control.transports import Transport
from sfu.parameters import Kind, MediaParameters, PublishParameters, SubscriptionId, TrackId
from sfu.schema.codes import Command


class RelayedTransport:
    """A publisher's transport as another shard has it: number maps and clock, nothing of the network."""

    def __init__(self, publisher: Transport, shard: Shard) -> None:
        """Takes a row and opens it.

        Raises:
            TableFull: no row is free.
        """
        self.publisher = publisher
        self.mirrors = 0
        self._shard = shard
        self.row, self.generation = shard.tables.take_transport(publisher.ice, Ssrcs().take())
        self._maps = MediaMaps(shard.tables, self.row, shard.memory.table("transports")[self.row], self._send_media)
        self._push(Command.OPEN_TRANSPORT, relayed=1)
        self.set_media(publisher.media)

    def set_media(self, media: MediaParameters) -> None:
        """Take over what the publisher has negotiated anew."""
        self._maps.set(media)

    def settle(self) -> bool:
        """Hand over maps that had to wait. True: all done."""
        return self._maps.settle()

    def close(self) -> None:
        """Close the row; `closed` must follow when the media thread has answered."""
        self._push(Command.CLOSE_TRANSPORT)

    def closed(self) -> None:
        """The media thread no longer uses the row."""
        self._shard.tables.transports.give_back(self.row)

    def _send_media(self, row: int) -> None:
        self._push(Command.SET_MEDIA, other_row=row)

    def _push(self, kind: Command, **fields: int) -> None:
        self._shard.mailbox.push(kind, self.row, self.generation, **fields)


@dataclass(slots=True, eq=False)
class Track:
    """One published m-section."""

    id: TrackId
    row: int
    generation: int
    transport: Transport
    kind: Kind
    streams: tuple[StreamRow, ...]
    ssrcs: frozenset[int]
    """Those that the publisher announced."""
    parameters: PublishParameters
    subscriptions: dict[SubscriptionId, "Subscription"] = field(default_factory=dict)
    resting: int = 0
    """Bit mask of layers that the publisher was told to stop, because nobody prefers them."""
    mirrors: dict[Shard, "Mirror"] = field(default_factory=dict)
    """The track's mirrors in other shards, while somebody there is subscribed."""


@dataclass(slots=True, eq=False)
class Mirror:
    """One track in one other shard."""

    track: Track
    shard: Shard
    publisher: RelayedTransport
    row: int
    generation: int
    streams: tuple[StreamRow, ...]
    subscriptions: int = 0


@dataclass(slots=True, eq=False)
class Subscription:
    """One track forwarded to one transport."""

    id: SubscriptionId
    row: int
    generation: int
    track: Track
    transport: Transport
    ssrcs: tuple[int, int]
    mirror: Mirror | None
    """The mirror from which it is forwarded, when the track is another shard's."""


@dataclass(slots=True, eq=False)
class Owners:
    """Who has which row of one shard, from the row to its owner, until the notice that the media thread has let go of
    the row."""

    transports: dict[int, Transport] = field(default_factory=dict)
    relayed: dict[int, RelayedTransport] = field(default_factory=dict)
    """Transport rows that stand for publishers of other shards."""
    stand_ins: dict[Transport, RelayedTransport] = field(default_factory=dict)
    """Those by publisher, while somebody in the shard is subscribed to it."""
    tracks: dict[int, Track] = field(default_factory=dict)
    mirrors: dict[int, Mirror] = field(default_factory=dict)
    """Track rows that mirror tracks of other shards."""
    subscriptions: dict[int, Subscription] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """No transport row is in use."""
        return not self.transports and not self.relayed
