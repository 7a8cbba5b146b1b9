"""Receivers and subscriptions on the control thread: their rows, SSRCs and who hangs on whom.

A receiver belongs to the transport that publishes, a subscription to a receiver and to the transport that it goes
to. Closing one closes what hangs on it; rows come back with the media thread's CLOSED notices.
"""

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from sfu.control.mailbox import Notice
from sfu.control.mirrors import mirror_closed, release_mirror, take_mirror
from sfu.control.receivers import Mirror, Owners, Receiver, Subscription
from sfu.control.rows import codec_mask
from sfu.control.shards import Shard
from sfu.control.transports import Transport, TransportState
from sfu.errors import EngineError
from sfu.parameters import (
    MAX_SPATIAL,
    MAX_TEMPORAL,
    Codec,
    LocalSubscription,
    PublishParameters,
    ReceiverId,
    SubscribeParameters,
    SubscriptionId,
)
from sfu.schema.codes import Command, NoticeKind


class Forwarding:
    """All receivers and subscriptions.

    `receivers` and `subscriptions` hold what signalling may name; rows of closed ones wait in `owners`.
    """

    def __init__(self, owners: Mapping[Shard, Owners], drops: Counter[str]) -> None:
        """owners: of each shard. drops: where rings are counted that a layer was not given."""
        self._owners = owners
        self._drops = drops
        self.receivers: dict[ReceiverId, Receiver] = {}
        self.subscriptions: dict[SubscriptionId, Subscription] = {}
        self._numbers = itertools.count(1)
        self._last_number = 0

    # --- receivers --------------------------------------------------------------------------------------------------
    def publish(self, transport: Transport, parameters: PublishParameters) -> Receiver:
        """Open a receiver on an open transport. Raises EngineError (values out of range), TableFull."""
        shard = transport.shard
        row, generation, streams = shard.tables.take_track(transport.row, parameters)
        announced = {ssrc for each in parameters.encodings for ssrc in (each.ssrc, each.rtx_ssrc) if ssrc}
        # One that another receiver of the transport announced too stays with that one.
        ssrcs = transport.ssrcs.claim(announced)
        number = ReceiverId(self._number())
        receiver = Receiver(number, row, generation, transport, parameters.kind, streams, ssrcs, parameters)
        self.receivers[number] = self._owners[shard].receivers[row] = receiver
        transport.receivers[number] = None
        shard.mailbox.push(Command.OPEN_TRACK, row, generation)
        return receiver

    def unpublish(self, number: ReceiverId) -> None:
        """Close a receiver and its subscriptions; one that is closed already: nothing. Raises EngineError."""
        receiver = self.receivers.pop(number, None)
        if receiver is None:
            self._check_past(number, "receiver")
            return
        for subscription in list(receiver.subscriptions):
            self.unsubscribe(subscription)
        receiver.transport.receivers.pop(number, None)
        receiver.transport.shard.mailbox.push(Command.CLOSE_TRACK, receiver.row, receiver.generation)

    def set_codecs(self, number: ReceiverId, codecs: frozenset[Codec]) -> None:
        """Change what the m-section of a receiver may carry. Raises EngineError."""
        receiver = self.receivers.get(number)
        if receiver is None:
            self._check_past(number, "receiver")
        elif codecs != receiver.parameters.codecs:
            receiver.parameters = replace(receiver.parameters, codecs=codecs)
            mask = codec_mask(codecs)
            receiver.transport.shard.mailbox.push(Command.SET_CODECS, receiver.row, receiver.generation, codecs=mask)

    def request_key_frame(self, number: ReceiverId) -> None:
        """Ask the publisher for a key frame on every layer; the media thread throttles."""
        receiver = self.receivers.get(number)
        if receiver is None:
            self._check_past(number, "receiver")
        else:
            receiver.transport.shard.mailbox.push(Command.REQUEST_KEY_FRAME, receiver.row, receiver.generation)

    # --- subscriptions ----------------------------------------------------------------------------------------------
    def subscribe(self, number: ReceiverId, transport: Transport, parameters: SubscribeParameters) -> LocalSubscription:
        """Forward a receiver to an open transport. Raises EngineError, TableFull."""
        receiver = self.receivers.get(number)
        if receiver is None:
            raise EngineError(f"no receiver {number}")
        _check_layers(parameters.spatial, parameters.temporal)
        shard = transport.shard
        owners = self._owners[shard]
        mirror = take_mirror(receiver, shard, owners) if receiver.transport.shard is not shard else None
        track = receiver.row if mirror is None else mirror.row
        ssrc = transport.ssrcs.take()
        rtx_ssrc = transport.ssrcs.take() if parameters.rtx_payload_type >= 0 else 0
        try:
            row, generation = shard.tables.take_subscription(
                track, transport.row, receiver.kind, (ssrc, rtx_ssrc), parameters
            )
        except EngineError:
            transport.ssrcs.give_back((ssrc, rtx_ssrc))
            if mirror is not None:
                release_mirror(mirror, owners)
            raise
        mine = SubscriptionId(self._number())
        subscription = Subscription(mine, row, generation, receiver, transport, (ssrc, rtx_ssrc), mirror)
        self.subscriptions[mine] = owners.subscriptions[row] = receiver.subscriptions[mine] = subscription
        transport.subscriptions[mine] = None
        shard.mailbox.push(
            Command.OPEN_SUBSCRIPTION,
            row,
            generation,
            paused=parameters.paused,
            silent=parameters.silence,
            spatial=parameters.spatial,
            temporal=parameters.temporal,
        )
        return LocalSubscription(mine, ssrc, rtx_ssrc)

    def unsubscribe(self, number: SubscriptionId) -> None:
        """Stop forwarding; a subscription that is closed already: nothing. Raises EngineError."""
        subscription = self.subscriptions.pop(number, None)
        if subscription is None:
            self._check_past(number, "subscription")
            return
        subscription.transport.shard.mailbox.push(Command.CLOSE_SUBSCRIPTION, subscription.row, subscription.generation)
        self._part(subscription)

    def set_layers(self, number: SubscriptionId, spatial: int, temporal: int) -> None:
        """Highest layers to forward, from 0. Raises EngineError."""
        _check_layers(spatial, temporal)
        self._change(number, Command.SET_LAYERS, spatial=spatial, temporal=temporal)

    def set_paused(self, number: SubscriptionId, paused: bool) -> None:
        """Stop or go on without giving up the SSRCs. Raises EngineError."""
        self._change(number, Command.SET_PAUSED, paused=paused)

    # --- closing with a transport, and notices ----------------------------------------------------------------------
    def close_all_of(self, transport: Transport) -> None:
        """Close the subscriptions to a transport, and its receivers with theirs."""
        for subscription in list(transport.subscriptions):
            self.unsubscribe(subscription)
        for receiver in list(transport.receivers):
            self.unpublish(receiver)

    def track_closed(self, shard: Shard, notice: Notice) -> None:
        """CLOSED_TRACK: the rows are ours again."""
        owners = self._owners[shard]
        mirror = owners.mirrors.get(notice.row)
        if mirror is not None and mirror.generation == notice.generation:
            mirror_closed(mirror, owners)
            return
        receiver = owners.receivers.get(notice.row)
        if receiver is None or receiver.generation != notice.generation:
            return
        del owners.receivers[notice.row]
        self.receivers.pop(receiver.id, None)
        for subscription in list(receiver.subscriptions):  # the media thread closed it of its own accord
            self.unsubscribe(subscription)
        receiver.transport.receivers.pop(receiver.id, None)
        receiver.transport.ssrcs.give_back(receiver.ssrcs)
        shard.tables.give_back_track(receiver.row, receiver.streams)

    def ring_changes(self, shard: Shard, notice: Notice) -> None:
        """RING_WANTED: give a layer another packet ring if there is one. RING_LEFT: the one before is ours again."""
        owners = self._owners[shard]
        track = owners.mirrors.get(notice.row) or owners.receivers.get(notice.row)
        if track is None or track.generation != notice.generation:
            return
        stream = track.streams[notice.value]
        if notice.kind == NoticeKind.RING_LEFT:
            shard.tables.ring_left(stream)
        elif shard.mailbox.has_room and shard.tables.change_ring(stream, notice.extra, self._ring_bytes(track, shard)):
            shard.mailbox.push(
                Command.CHANGE_RING,
                track.row,
                track.generation,
                layer=notice.value,
                ring_bytes=notice.extra,
                ring_start=stream.ring_start,
            )
        else:
            self._drops["ring_refused"] += 1

    def subscription_closed(self, shard: Shard, notice: Notice) -> None:
        """CLOSED_SUBSCRIPTION: the row and its SSRCs are ours again."""
        owners = self._owners[shard]
        subscription = owners.subscriptions.get(notice.row)
        if subscription is None or subscription.generation != notice.generation:
            return
        if self.subscriptions.pop(subscription.id, None) is not None:  # the media thread closed it of its own accord
            self._part(subscription)
        del owners.subscriptions[notice.row]
        subscription.transport.ssrcs.give_back(subscription.ssrcs)
        shard.tables.give_back_subscription(subscription.row)

    def receiver_of(self, shard: Shard, notice: Notice) -> Receiver | None:
        """The open receiver that a notice is about; None for a mirror's, whose receiver speaks for itself."""
        receiver = self._owners[shard].receivers.get(notice.row)
        fits = receiver is not None and receiver.generation == notice.generation and receiver.id in self.receivers
        return receiver if fits else None

    def subscription_of(self, shard: Shard, notice: Notice) -> Subscription | None:
        """The open subscription that a notice is about."""
        found = self._owners[shard].subscriptions.get(notice.row)
        fits = found is not None and found.generation == notice.generation and found.id in self.subscriptions
        return found if fits else None

    def _change(self, number: SubscriptionId, kind: Command, **fields: int) -> None:
        subscription = self.subscriptions.get(number)
        if subscription is None:
            self._check_past(number, "subscription")
        else:
            subscription.transport.shard.mailbox.push(kind, subscription.row, subscription.generation, **fields)

    def _ring_bytes(self, track: Receiver | Mirror, shard: Shard) -> int:
        """Bytes of the packet rings that a publisher has in a shard."""
        publisher = track.receiver.transport if isinstance(track, Mirror) else track.transport
        receivers = (self.receivers[number] for number in publisher.receivers)
        there = (each if publisher.shard is shard else each.mirrors.get(shard) for each in receivers)
        return sum(stream.ring_bytes for each in there if each is not None for stream in each.streams)

    def _part(self, subscription: Subscription) -> None:
        """Take a subscription from its receiver and its transport."""
        subscription.receiver.subscriptions.pop(subscription.id, None)
        subscription.transport.subscriptions.pop(subscription.id, None)
        if subscription.mirror is not None:
            release_mirror(subscription.mirror, self._owners[subscription.transport.shard])

    def _number(self) -> int:
        self._last_number = next(self._numbers)
        return self._last_number

    def _check_past(self, number: int, name: str) -> None:
        """What closed a moment ago may still be named, and nothing happens; what never was is a mistake."""
        if not 0 < number <= self._last_number:
            raise EngineError(f"no {name} {number}")


def _check_layers(spatial: int, temporal: int) -> None:
    if not (0 <= spatial <= MAX_SPATIAL and 0 <= temporal <= MAX_TEMPORAL):
        raise EngineError(f"no layers ({spatial}, {temporal})")


def check_open(transport: Transport | None, number: int) -> Transport:
    """The transport, if signalling may still use it. A failed one can be used, to no effect. Raises EngineError."""
    if transport is None or transport.state is TransportState.CLOSING:
        raise EngineError(f"no transport {number}")
    return transport
