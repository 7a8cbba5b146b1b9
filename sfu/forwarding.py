"""Receivers and subscriptions on the control thread: their rows, SSRCs and who hangs on whom.

A receiver belongs to the transport that publishes, a subscription to a receiver and to the transport that it goes
to. Closing one closes what hangs on it; rows come back with the media thread's CLOSED notices.
"""

import itertools
from dataclasses import dataclass, field

from sfu.errors import EngineError
from sfu.mailbox import Notice
from sfu.parameters import (
    Kind,
    LocalSubscription,
    PublishParameters,
    ReceiverId,
    SubscribeParameters,
    SubscriptionId,
)
from sfu.rows import StreamRow, random_ssrc
from sfu.tables import (
    CLOSE_SUBSCRIPTION,
    CLOSE_TRACK,
    OPEN_SUBSCRIPTION,
    OPEN_TRACK,
    REQUEST_KEY_FRAME,
    SET_LAYERS,
    SET_PAUSED,
)
from sfu.transports import MediaLink, Transport, TransportState

MAX_SPATIAL, MAX_TEMPORAL = 2, 3
"""Highest layers that SET_LAYERS knows; both mean everything."""


@dataclass(slots=True, eq=False)
class Receiver:
    """One published m-section."""

    id: ReceiverId
    row: int
    generation: int
    transport: Transport
    kind: Kind
    streams: tuple[StreamRow, ...]
    ssrcs: frozenset[int]
    """Those that the publisher announced."""
    subscriptions: dict[SubscriptionId, "Subscription"] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Subscription:
    """One receiver forwarded to one transport."""

    id: SubscriptionId
    row: int
    generation: int
    receiver: Receiver
    transport: Transport
    ssrcs: tuple[int, int]


class Forwarding:
    """All receivers and subscriptions of one media thread.

    `receivers` and `subscriptions` hold what signalling may name; rows of closed ones wait in the `_by_row` maps.
    """

    def __init__(self, link: MediaLink) -> None:
        self.receivers: dict[ReceiverId, Receiver] = {}
        self.subscriptions: dict[SubscriptionId, Subscription] = {}
        self.receiver_of_row: dict[int, Receiver] = {}
        self.subscription_of_row: dict[int, Subscription] = {}
        self._link = link
        self._numbers = itertools.count(1)
        self._last_number = 0

    # --- receivers --------------------------------------------------------------------------------------------------
    def publish(self, transport: Transport, parameters: PublishParameters) -> Receiver:
        """Open a receiver on an open transport. Raises EngineError (values out of range), TableFull."""
        row, generation, streams = self._link.tables.take_track(transport.row, parameters)
        announced = {ssrc for each in parameters.encodings for ssrc in (each.ssrc, each.rtx_ssrc) if ssrc}
        # One that another receiver of the transport announced too stays with that one.
        ssrcs = frozenset(announced - transport.ssrcs)
        transport.ssrcs |= ssrcs
        number = ReceiverId(self._number())
        receiver = Receiver(number, row, generation, transport, parameters.kind, streams, ssrcs)
        self.receivers[number] = self.receiver_of_row[row] = transport.receivers[number] = receiver
        self._link.mailbox.push(OPEN_TRACK, row, generation)
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
        self._link.mailbox.push(CLOSE_TRACK, receiver.row, receiver.generation)

    def request_key_frame(self, number: ReceiverId) -> None:
        """Ask the publisher for a key frame on every layer; the media thread throttles."""
        receiver = self.receivers.get(number)
        if receiver is None:
            self._check_past(number, "receiver")
        else:
            self._link.mailbox.push(REQUEST_KEY_FRAME, receiver.row, receiver.generation)

    # --- subscriptions ----------------------------------------------------------------------------------------------
    def subscribe(self, number: ReceiverId, transport: Transport, parameters: SubscribeParameters) -> LocalSubscription:
        """Forward a receiver to an open transport, everything of it. Raises EngineError, TableFull."""
        receiver = self.receivers.get(number)
        if receiver is None:
            raise EngineError(f"no receiver {number}")
        ssrc = random_ssrc(transport.ssrcs)
        rtx_ssrc = random_ssrc(transport.ssrcs) if parameters.rtx_payload_type >= 0 else 0
        try:
            row, generation = self._link.tables.take_subscription(
                receiver.row, transport.row, receiver.kind, (ssrc, rtx_ssrc), parameters
            )
        except EngineError:
            transport.ssrcs -= {ssrc, rtx_ssrc}
            raise
        mine = SubscriptionId(self._number())
        subscription = Subscription(mine, row, generation, receiver, transport, (ssrc, rtx_ssrc))
        self.subscriptions[mine] = self.subscription_of_row[row] = subscription
        receiver.subscriptions[mine] = transport.subscriptions[mine] = subscription
        self._link.mailbox.push(OPEN_SUBSCRIPTION, row, generation)
        return LocalSubscription(mine, ssrc, rtx_ssrc)

    def unsubscribe(self, number: SubscriptionId) -> None:
        """Stop forwarding; a subscription that is closed already: nothing. Raises EngineError."""
        subscription = self.subscriptions.pop(number, None)
        if subscription is None:
            self._check_past(number, "subscription")
            return
        subscription.receiver.subscriptions.pop(number, None)
        subscription.transport.subscriptions.pop(number, None)
        self._link.mailbox.push(CLOSE_SUBSCRIPTION, subscription.row, subscription.generation)

    def set_layers(self, number: SubscriptionId, spatial: int, temporal: int) -> None:
        """Highest layers to forward, from 0. Raises EngineError."""
        if not (0 <= spatial <= MAX_SPATIAL and 0 <= temporal <= MAX_TEMPORAL):
            raise EngineError(f"no layers ({spatial}, {temporal})")
        self._change(number, SET_LAYERS, spatial, temporal)

    def set_paused(self, number: SubscriptionId, paused: bool) -> None:
        """Stop or go on without giving up the SSRCs. Raises EngineError."""
        self._change(number, SET_PAUSED, int(paused), 0)

    # --- closing with a transport, and notices ----------------------------------------------------------------------
    def close_all_of(self, transport: Transport) -> None:
        """Close the subscriptions to a transport, and its receivers with theirs."""
        for subscription in list(transport.subscriptions):
            self.unsubscribe(subscription)
        for receiver in list(transport.receivers):
            self.unpublish(receiver)

    def track_closed(self, notice: Notice) -> None:
        """CLOSED_TRACK: the rows are ours again."""
        receiver = self.receiver_of_row.get(notice.row)
        if receiver is None or receiver.generation != notice.generation:
            return
        del self.receiver_of_row[notice.row]
        self.receivers.pop(receiver.id, None)
        for subscription in list(receiver.subscriptions):  # the media thread closed it of its own accord
            self.unsubscribe(subscription)
        receiver.transport.receivers.pop(receiver.id, None)
        receiver.transport.ssrcs -= receiver.ssrcs
        self._link.tables.give_back_track(receiver.row, receiver.streams)

    def subscription_closed(self, notice: Notice) -> None:
        """CLOSED_SUBSCRIPTION: the row and its SSRCs are ours again."""
        subscription = self.subscription_of_row.get(notice.row)
        if subscription is None or subscription.generation != notice.generation:
            return
        del self.subscription_of_row[notice.row]
        self.subscriptions.pop(subscription.id, None)
        subscription.receiver.subscriptions.pop(subscription.id, None)
        subscription.transport.subscriptions.pop(subscription.id, None)
        subscription.transport.ssrcs.difference_update(subscription.ssrcs)
        self._link.tables.subscriptions.give_back(subscription.row)

    def receiver_of(self, notice: Notice) -> Receiver | None:
        """The open receiver that a notice is about."""
        receiver = self.receiver_of_row.get(notice.row)
        fits = receiver is not None and receiver.generation == notice.generation and receiver.id in self.receivers
        return receiver if fits else None

    def subscription_of(self, notice: Notice) -> Subscription | None:
        """The open subscription that a notice is about."""
        found = self.subscription_of_row.get(notice.row)
        fits = found is not None and found.generation == notice.generation and found.id in self.subscriptions
        return found if fits else None

    def _change(self, number: SubscriptionId, kind: int, a: int, b: int) -> None:
        subscription = self.subscriptions.get(number)
        if subscription is None:
            self._check_past(number, "subscription")
        else:
            self._link.mailbox.push(kind, subscription.row, subscription.generation, a, b)

    def _number(self) -> int:
        self._last_number = next(self._numbers)
        return self._last_number

    def _check_past(self, number: int, name: str) -> None:
        """What closed a moment ago may still be named, and nothing happens; what never was is a mistake."""
        if not 0 < number <= self._last_number:
            raise EngineError(f"no {name} {number}")


def check_open(transport: Transport | None, number: int) -> Transport:
    """The transport, if signalling may still use it. A failed one can be used, to no effect. Raises EngineError."""
    if transport is None or transport.state is TransportState.CLOSING:
        raise EngineError(f"no transport {number}")
    return transport
