"""The narrow interface between signalling and media: `Engine`. Control thread only; not thread-safe.

All calls are synchronous and quick: they write rows and push commands, the media thread acts a moment later. What
happens on the network comes back as events, through `next_event`.
"""

import asyncio
import atexit
import contextlib
import itertools
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sfu import statistics
from sfu.addresses import Sockets, candidates
from sfu.certificate import LocalCertificate
from sfu.dtls import SRTP_PROFILES
from sfu.errors import EngineError, TableFull
from sfu.event_queue import EventQueue
from sfu.events import Event, LayersChanged, StreamStarted, SubscriptionStarted, TransportFailed
from sfu.fanout import Fanout
from sfu.forwarding import Forwarding, check_open
from sfu.mailbox import Datagram, Mailbox, Notice
from sfu.media_thread import MediaThread
from sfu.memory import Memory
from sfu.parameters import (
    Candidate,
    Channel,
    Codec,
    LocalSubscription,
    LocalTransport,
    MediaParameters,
    PublishParameters,
    ReceiverId,
    RemoteTransport,
    SubscribeParameters,
    SubscriptionId,
    TransportId,
)
from sfu.rows import Tables
from sfu.statistics import LayerStatistics, ReceiverStatistics, SubscriptionStatistics
from sfu.tables import (
    CLOSED_SUBSCRIPTION,
    CLOSED_TRACK,
    CLOSED_TRANSPORT,
    CONSENT_EXPIRED,
    LAYERS_CHANGED,
    PATH_SELECTED,
    STREAM_STARTED,
    SUBSCRIPTION_STARTED,
    TRANSPORT_BROKEN,
)
from sfu.transports import MediaLink, Transport, TransportState

__all__ = [
    "Engine",
    "EngineError",
    "EngineOptions",
    "LayerStatistics",
    "ReceiverStatistics",
    "SubscriptionStatistics",
    "TableFull",
]

logger = logging.getLogger(__name__)

SLICE_S = 0.005
"""Longest time that one turn of the event loop spends on notices and DTLS: a crowd that joins is served in pieces."""
RETRY_S = 0.005
"""How soon what the media thread had no room for is tried again."""
FIRST_TURN_POLL_S = 0.01
STOP_TIMEOUT_S = 2.0
"""How long `stop` waits for the media thread to close everything."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Where the engine is reached."""

    udp_ports: tuple[int, ...] = (7882,)
    """In order of media threads; one thread uses the first. 0: any free port."""
    bind: tuple[str, ...] = ()
    """Local addresses to bind; empty: all, IPv4 and IPv6."""
    node_ips: tuple[str, ...] = ()
    """Addresses to advertise as candidates; empty: those bound, or every address of the machine."""


class RunsMedia(Protocol):
    """What the engine uses of `media_thread.MediaThread`."""

    failed: bool

    def start(self) -> None:
        """Begin."""

    def wake(self) -> None:
        """Look into the command ring."""

    def stop(self) -> None:
        """End; raises RuntimeError when it cannot."""


class Engine:
    """Transports, receivers, subscriptions and data channels of this process.

    Closing something that has just been closed is no error; naming what never was raises EngineError.
    """

    def __init__(
        self,
        options: EngineOptions,
        media_thread: Callable[[Memory, Callable[[BaseException], None]], RunsMedia] = MediaThread,
    ) -> None:
        """media_thread: makes the thread from (memory, what to call with an exception in it)."""
        self.udp_port = options.udp_ports[0]
        """Really bound, after `start`."""
        self._options = options
        self._memory = Memory()
        self._tables = Tables(self._memory)
        self._drops: Counter[str] = Counter()
        self._events = EventQueue(self._drops)
        self._mailbox = Mailbox(self._memory, self._wake)
        self._thread = media_thread(self._memory, self._kernel_failed)
        self._transports: dict[TransportId, Transport] = {}
        self._transport_of_row: dict[int, Transport] = {}
        self._unsettled: set[Transport] = set()
        self._numbers = itertools.count(1)
        self._handles: dict[str, asyncio.Handle] = {}
        self._all_closed = asyncio.Event()
        self._candidates: tuple[Candidate, ...] = ()

    # --- life ---------------------------------------------------------------------------------------------------------
    async def start(self) -> None:
        """Bind the sockets, start the media thread and wait until it works (kernels that are not in the cache are
        compiled then). Raises OSError when an address cannot be bound, RuntimeError when the thread fails."""
        self._loop = asyncio.get_running_loop()
        self._sockets = Sockets(self._memory, self.udp_port, self._options.bind)
        self.udp_port = self._sockets.port
        self._memory.open_wakeups()
        certificate = LocalCertificate(tuple(profile.name for profile in SRTP_PROFILES))
        self._fingerprint = certificate.fingerprint
        self._candidates = self._find_candidates()
        link = MediaLink(self._memory, self._tables, self._mailbox, self._sockets, certificate)
        self._link = link
        self._forwarding = Forwarding(link)
        self._fanout = Fanout(self._drops, time.monotonic)
        self._loop.add_reader(int(self._memory.thread["control_fd"]), self._readable)
        self._thread.start()
        atexit.register(self._end_thread)  # keys must not be freed under a thread that still runs
        try:
            await self._first_turn()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close everything, end the media thread, close sockets."""
        self._fanout.stop()
        for number in list(self._transports):
            self.close_transport(number)
        if self._transport_of_row:
            self._all_closed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_closed.wait(), STOP_TIMEOUT_S)
        self._loop.remove_reader(int(self._memory.thread["control_fd"]))
        for handle in self._handles.values():
            handle.cancel()
        self._handles.clear()
        if self._end_thread():
            self._sockets.close()
            self._memory.close_wakeups()

    def _end_thread(self) -> bool:
        """End the media thread, then forget the keys that it used. False: it does not end, so everything stays."""
        atexit.unregister(self._end_thread)
        try:
            self._thread.stop()
        except RuntimeError:
            logger.critical("the media thread does not stop")
            return False
        for transport in self._transport_of_row.values():
            transport.closed()
        self._transport_of_row.clear()
        return True

    async def next_event(self) -> Event:
        """The next event, as soon as there is one. For one consumer."""
        return await self._events.get()

    # --- transports ---------------------------------------------------------------------------------------------------
    def open_transport(self) -> LocalTransport:
        """Make a transport; its checks are answered from now on. Raises TableFull."""
        number = TransportId(next(self._numbers))
        transport = Transport(number, self._link, self._events, self._drops)
        self._transports[number] = self._transport_of_row[transport.row] = transport
        return self._local(transport)

    def connect(self, transport: TransportId, remote: RemoteTransport) -> None:
        """Take the peer's half; starts DTLS, and SCTP with a `sctp_port`. Later calls bring new ICE credentials or
        the `sctp_port`. Raises EngineError for another fingerprint or role."""
        self._transport(transport).connect(remote)

    def restart_ice(self, transport: TransportId) -> LocalTransport:
        """New local credentials; the old ones work until a check with the new ones passes."""
        restarted = self._transport(transport)
        restarted.restart_ice()
        self._watch(restarted)
        return self._local(restarted)

    def set_media(self, transport: TransportId, media: MediaParameters) -> None:
        """Replace the meaning of payload types and header extensions, after each negotiation."""
        changed = self._transport(transport)
        changed.set_media(media)
        self._watch(changed)

    def close_transport(self, transport: TransportId) -> None:
        """Close it with its receivers and subscriptions. Unknown: nothing."""
        closing = self._transports.pop(transport, None)
        if closing is not None:
            self._forwarding.close_all_of(closing)
            closing.close()
            self._unsettled.discard(closing)
            self._retry_if_needed()

    # --- publishing ---------------------------------------------------------------------------------------------------
    def publish(self, transport: TransportId, parameters: PublishParameters) -> ReceiverId:
        """Expect media on an m-section."""
        return self._forwarding.publish(self._transport(transport), parameters).id

    def unpublish(self, receiver: ReceiverId) -> None:
        """Stop receiving; its subscriptions are closed too."""
        self._forwarding.unpublish(receiver)
        self._retry_if_needed()

    def request_key_frame(self, receiver: ReceiverId) -> None:
        """Ask the publisher for a key frame; asking often costs nothing."""
        self._forwarding.request_key_frame(receiver)
        self._retry_if_needed()

    # --- subscribing --------------------------------------------------------------------------------------------------
    def subscribe(
        self, receiver: ReceiverId, transport: TransportId, parameters: SubscribeParameters
    ) -> LocalSubscription:
        """Forward a receiver to a transport, all layers until `set_layers` says less."""
        subscription = self._forwarding.subscribe(receiver, self._transport(transport), parameters)
        self._retry_if_needed()
        return subscription

    def unsubscribe(self, subscription: SubscriptionId) -> None:
        """Stop forwarding at once."""
        self._forwarding.unsubscribe(subscription)
        self._retry_if_needed()

    def set_layers(self, subscription: SubscriptionId, spatial: int, temporal: int) -> None:
        """Highest layers wanted, from 0; (2, 3) is everything."""
        self._forwarding.set_layers(subscription, spatial, temporal)
        self._retry_if_needed()

    def set_paused(self, subscription: SubscriptionId, paused: bool) -> None:
        """Stop sending, keeping SSRCs and numbering, or go on at the next key frame."""
        self._forwarding.set_paused(subscription, paused)
        self._retry_if_needed()

    # --- data ---------------------------------------------------------------------------------------------------------
    def open_channels(self, transport: TransportId) -> None:
        """Create `_reliable`, `_lossy` and `_data_track` from our side once SCTP is up."""
        self._transport(transport).open_channels()

    def send_data(self, transports: Sequence[TransportId], channel: Channel, payload: bytes) -> None:
        """Send one message to each transport; unknown ones are skipped. Reliable messages wait for a channel that is
        not open yet, up to `sctp.MAX_QUEUED_BYTES`; others are dropped, also when 8 KiB wait already."""
        present = [self._transports[number] for number in transports if number in self._transports]
        self._fanout.send(present, channel, payload)

    # --- observing ----------------------------------------------------------------------------------------------------
    def audio_levels(self) -> list[tuple[ReceiverId, float]]:
        """(receiver, linear level 0 to 1) of every receiver that counts as speaking."""
        return statistics.audio_levels(self._memory, self._forwarding.receiver_of_row)

    def receiver_statistics(self, receiver: ReceiverId) -> ReceiverStatistics:
        """Raises EngineError for a receiver that is not open."""
        if receiver not in self._forwarding.receivers:
            raise EngineError(f"no receiver {receiver}")
        return statistics.receiver_statistics(self._memory, self._forwarding.receivers[receiver])

    def subscription_statistics(self, subscription: SubscriptionId) -> SubscriptionStatistics:
        """Raises EngineError for a subscription that is not open."""
        if subscription not in self._forwarding.subscriptions:
            raise EngineError(f"no subscription {subscription}")
        return statistics.subscription_statistics(self._memory, self._forwarding.subscriptions[subscription])

    def drops(self) -> dict[str, int]:
        """What was dropped since the start, by reason: packets, data messages, events."""
        return statistics.drops(self._memory) | dict(self._drops)

    def usage(self) -> dict[str, int]:
        """Rows in use per table, and bytes of packet rings handed out."""
        return {
            "transports": self._tables.transports.used,
            "receivers": self._tables.tracks.used,
            "streams": self._tables.streams.used,
            "subscriptions": self._tables.subscriptions.used,
            "paths": statistics.rows_in_use(self._memory, "paths"),
            "sources": statistics.rows_in_use(self._memory, "sources"),
            "rings_bytes": self._tables.rings.used_bytes,
        }

    # --- inside -------------------------------------------------------------------------------------------------------
    async def _first_turn(self) -> None:
        while self._memory.thread["turns"] == 0:
            if self._thread.failed:
                raise RuntimeError("the media thread does not run")
            await asyncio.sleep(FIRST_TURN_POLL_S)

    def _transport(self, number: TransportId) -> Transport:
        return check_open(self._transports.get(number), number)

    def _local(self, transport: Transport) -> LocalTransport:
        return LocalTransport(transport.id, transport.ice, self._fingerprint, self._candidates)

    def _find_candidates(self) -> tuple[Candidate, ...]:
        addresses = self._options.node_ips or self._sockets.local_addresses()
        return candidates(addresses, self._sockets.families, self.udp_port)

    def _later(self, name: str, seconds: float, action: Callable[[], None]) -> None:
        """Call `action` after some time, once however often it is asked for in between."""
        if name in self._handles:
            return

        def run() -> None:
            del self._handles[name]
            action()

        self._handles[name] = self._loop.call_later(seconds, run) if seconds else self._loop.call_soon(run)

    def _wake(self) -> None:
        self._later("wake", 0, self._thread.wake)

    def _watch(self, transport: Transport) -> None:
        if not transport.settle():
            self._unsettled.add(transport)
        self._retry_if_needed()

    def _retry_if_needed(self) -> None:
        if self._mailbox.waiting or self._unsettled:
            self._later("retry", RETRY_S, self._retry)

    def _retry(self) -> None:
        self._mailbox.flush()
        self._unsettled = {transport for transport in self._unsettled if not transport.settle()}
        self._retry_if_needed()

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(int(self._memory.thread["control_fd"]))
        self._serve()

    def _serve(self) -> None:
        """Handle what the media thread has put into the rings, for SLICE_S at most."""
        end = time.monotonic() + SLICE_S
        while True:
            notices = self._mailbox.take_notices()
            for notice in notices:
                self._handle(notice)
            datagram = self._mailbox.take_datagram()
            if datagram is not None:
                self._receive(datagram)
            elif not notices:
                break
            if time.monotonic() >= end:
                self._later("serve", 0, self._serve)
                break
        self._retry_if_needed()

    def _receive(self, datagram: Datagram) -> None:
        transport = self._transport_of_row.get(datagram.transport)
        if transport is None or transport.generation != datagram.generation:
            return
        try:
            transport.receive_datagram(datagram.data, datagram.path)
        except Exception:  # a bug here costs this transport, not the loop
            logger.exception("transport %d failed on a DTLS datagram", transport.id)
            transport.fail("internal error")

    def _handle(self, notice: Notice) -> None:
        match notice.kind:
            case kind if kind == CLOSED_SUBSCRIPTION:
                self._forwarding.subscription_closed(notice)
            case kind if kind == CLOSED_TRACK:
                self._forwarding.track_closed(notice)
            case kind if kind in (CLOSED_TRANSPORT, PATH_SELECTED, CONSENT_EXPIRED, TRANSPORT_BROKEN):
                self._handle_transport(notice)
            case kind if kind in (STREAM_STARTED, LAYERS_CHANGED):
                self._handle_receiver(notice)
            case kind if kind == SUBSCRIPTION_STARTED:
                subscription = self._forwarding.subscription_of(notice)
                if subscription is not None:
                    self._events.put(SubscriptionStarted(subscription.id))

    def _handle_transport(self, notice: Notice) -> None:
        transport = self._transport_of_row.get(notice.row)
        if transport is None or transport.generation != notice.generation:
            return
        if notice.kind == PATH_SELECTED:
            transport.path_selected()
        elif notice.kind == CONSENT_EXPIRED:
            transport.fail("consent expired")
        elif notice.kind == TRANSPORT_BROKEN:
            transport.fail("internal error")
        else:
            self._transport_closed(transport)

    def _transport_closed(self, transport: Transport) -> None:
        if transport.state is TransportState.OPEN:  # the media thread closed it of its own accord
            self._events.put(TransportFailed(transport.id, "internal error"))
        self._transports.pop(transport.id, None)
        self._unsettled.discard(transport)
        del self._transport_of_row[transport.row]
        transport.closed()
        if not self._transport_of_row:
            self._all_closed.set()

    def _handle_receiver(self, notice: Notice) -> None:
        receiver = self._forwarding.receiver_of(notice)
        if receiver is None:
            return
        if notice.kind == LAYERS_CHANGED:
            self._events.put(LayersChanged(receiver.id, notice.value))
            return
        ssrc, codec = notice.extra & 0xFFFFFFFF, notice.extra >> 32
        try:
            self._events.put(StreamStarted(receiver.id, notice.value, ssrc, Codec(codec)))
        except ValueError:
            logger.error("the media thread named an unknown codec %d", codec)

    def _kernel_failed(self, error: BaseException) -> None:
        """Called in the media thread."""
        logger.error("exception in the media thread", exc_info=error)
