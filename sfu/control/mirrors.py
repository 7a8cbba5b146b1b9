"""Tracks with subscribers in other shards: a mirror in each of them, for as long as somebody there is subscribed.

A mirror is a track row of the subscriber's shard, on a transport row there that stands for the publisher. The
publisher's media thread is told to relay the track to it (`sfu/media/send/relay_out.py`). `owners` are those of the
subscriber's shard.
"""

from sfu.control.shards import Shard
from sfu.control.tracks import Mirror, Owners, RelayedTransport, Track
from sfu.errors import EngineError
from sfu.schema.codes import Command


def take_mirror(track: Track, shard: Shard, owners: Owners) -> Mirror:
    """The mirror of a track in a shard that is not its own, for one more subscription.

    Raises:
        TableFull: the other shard has no room for the track.
    """
    mirror = track.mirrors.get(shard) or _open_mirror(track, shard, owners)
    mirror.subscriptions += 1
    return mirror


def release_mirror(mirror: Mirror, owners: Owners) -> None:
    """One subscription less; after the last one nothing is relayed any more."""
    mirror.subscriptions -= 1
    if mirror.subscriptions:
        return
    track, shard, publisher = mirror.track, mirror.shard, mirror.publisher
    del track.mirrors[shard]
    track.transport.shard.mailbox.push(Command.REMOVE_MIRROR, track.row, track.generation, thread=shard.number)
    shard.mailbox.push(Command.CLOSE_TRACK, mirror.row, mirror.generation)
    _leave(publisher, shard, owners)


def mirror_closed(mirror: Mirror, owners: Owners) -> None:
    """CLOSED_TRACK: the rows are ours again."""
    del owners.mirrors[mirror.row]
    mirror.shard.tables.give_back_track(mirror.row, mirror.streams)


def _open_mirror(track: Track, shard: Shard, owners: Owners) -> Mirror:
    home = track.transport.shard
    publisher = owners.stand_ins.get(track.transport)
    if publisher is None:
        publisher = owners.stand_ins[track.transport] = RelayedTransport(track.transport, shard)
        owners.relayed[publisher.row] = track.transport.followers[shard] = publisher
    publisher.mirrors += 1
    try:
        row, generation, streams = shard.tables.take_track(
            publisher.row, track.parameters, (home.number, track.row, track.generation)
        )
    except EngineError:
        _leave(publisher, shard, owners)
        raise
    mirror = Mirror(track, shard, publisher, row, generation, streams)
    owners.mirrors[row] = track.mirrors[shard] = mirror
    # in this order: what is relayed finds the track open
    shard.mailbox.push(Command.OPEN_TRACK, row, generation)
    shard.mailbox.push(Command.SET_RESTING, row, generation, layers=track.resting)
    home.mailbox.push(
        Command.ADD_MIRROR,
        track.row,
        track.generation,
        thread=shard.number,
        other_row=row,
        other_generation=generation,
    )
    return mirror


def _leave(publisher: RelayedTransport, shard: Shard, owners: Owners) -> None:
    publisher.mirrors -= 1
    if publisher.mirrors == 0:
        del publisher.publisher.followers[shard]
        del owners.stand_ins[publisher.publisher]
        publisher.close()
