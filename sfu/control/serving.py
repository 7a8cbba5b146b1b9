"""Serves the media threads: takes their notices and DTLS datagrams, a little at a time, and acts on them."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Mapping
from functools import partial

from sfu.control.deferred import Deferred, Retries
from sfu.control.event_queue import EventQueue
from sfu.control.forwarding import Forwarding
from sfu.control.mailbox import Datagram, Notice
from sfu.control.shards import Shard
from sfu.control.tracks import Owners
from sfu.control.transports import Transport, TransportState
from sfu.events import Event, TransportFailed
from sfu.parameters import TransportId
from sfu.schema.codes import NoticeKind

logger = logging.getLogger(__name__)

SLICE_S = 0.005
"""Longest time that one turn of the event loop spends on notices and DTLS: a crowd that joins is served in pieces."""


class Serving:
    """What media threads tell, and what becomes of it."""

    def __init__(
        self,
        owners: Mapping[Shard, Owners],
        transports: dict[TransportId, Transport],
        forwarding: Forwarding,
        events: EventQueue,
        later: Deferred,
        retries: Retries,
        clock: Callable[[], float],
    ) -> None:
        """Serve nobody yet.

        Args:
            owners: whose rows each shard has.
            transports: those that are open or failed. One that a media thread closed is taken out.
            forwarding: has tracks and subscriptions.
            events: takes what signalling is told.
            later, retries: for what does not fit into one turn of the event loop, or into a queue.
            clock: tells seconds, to end a turn in time.
        """
        self._owners = owners
        self._transports = transports
        self._forwarding = forwarding
        self._events = events
        self._later = later
        self._retries = retries
        self._clock = clock
        self._all_closed = asyncio.Event()

    def readable(self, shard: Shard) -> None:
        """Serve a media thread that has written to its event descriptor."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(int(shard.memory.thread["control_fd"]))
        self.serve(shard)

    def serve(self, shard: Shard) -> None:
        """Handle what a media thread has put into the queues, for SLICE_S at most."""
        end = self._clock() + SLICE_S
        while True:
            notices = shard.mailbox.take_notices()
            for notice in notices:
                self._handle(shard, notice)
            datagram = shard.inbox.take()
            if datagram is not None:
                self._receive(shard, datagram)
            elif not notices:
                break
            if self._clock() >= end:
                self._later(f"serve {shard.number}", 0, partial(self.serve, shard))
                break
        self._retries.schedule()

    async def all_closed(self) -> None:
        """Wait until no media thread uses a row any more."""
        if not self._is_empty():
            self._all_closed.clear()
            await self._all_closed.wait()

    def _receive(self, shard: Shard, datagram: Datagram) -> None:
        transport = self._owners[shard].transports.get(datagram.transport)
        if transport is None or transport.generation != datagram.generation:
            return
        try:
            transport.receive_datagram(datagram.data, datagram.path)
        except Exception:  # a bug here costs this transport, not the loop
            logger.exception("transport %d failed on a DTLS datagram", transport.id)
            transport.fail("internal error")

    def _handle(self, shard: Shard, notice: Notice) -> None:
        match notice.kind:
            case NoticeKind.CLOSED_SUBSCRIPTION:
                self._forwarding.subscription_closed(shard, notice)
            case NoticeKind.CLOSED_CONNECTION:
                shard.connection_closed(notice.row)
            case NoticeKind.CLOSED_TRACK:
                self._forwarding.track_closed(shard, notice)
            case (
                NoticeKind.CLOSED_TRANSPORT
                | NoticeKind.PATH_SELECTED
                | NoticeKind.CONSENT_EXPIRED
                | NoticeKind.TRANSPORT_BROKEN
            ):
                self._handle_transport(shard, notice)
            case NoticeKind.CACHE_REQUESTED | NoticeKind.CACHE_LEFT:
                self._forwarding.cache_changes(shard, notice)
            case NoticeKind.STREAM_STARTED | NoticeKind.LAYERS_CHANGED:
                self._tell(self._forwarding.track_event(shard, notice))
            case NoticeKind.SUBSCRIPTION_STARTED | NoticeKind.ALLOWANCE_CHANGED:
                self._tell(self._forwarding.subscription_event(shard, notice))

    def _tell(self, event: Event | None) -> None:
        if event is not None:
            self._events.put(event)

    def _handle_transport(self, shard: Shard, notice: Notice) -> None:
        owners = self._owners[shard]
        relayed = owners.relayed.get(notice.row)
        if relayed is not None and relayed.generation == notice.generation:
            if notice.kind == NoticeKind.CLOSED_TRANSPORT:
                del owners.relayed[notice.row]
                relayed.closed()
                self._note_closed()
            else:  # a kernel failed on what the publisher sent
                relayed.publisher.fail("internal error")
            return
        transport = owners.transports.get(notice.row)
        if transport is None or transport.generation != notice.generation:
            return
        if notice.kind == NoticeKind.PATH_SELECTED:
            transport.path_selected()
        elif notice.kind == NoticeKind.CONSENT_EXPIRED:
            transport.fail("consent expired")
        elif notice.kind == NoticeKind.TRANSPORT_BROKEN:
            transport.fail("internal error")
        else:
            self._transport_closed(transport)

    def _transport_closed(self, transport: Transport) -> None:
        if transport.state is TransportState.OPEN:  # the media thread closed it of its own accord
            self._events.put(TransportFailed(transport.id, "internal error"))
        self._transports.pop(transport.id, None)
        self._retries.forget(transport)
        self._owners[transport.shard].transports.pop(transport.row, None)
        transport.closed()
        self._note_closed()

    def _is_empty(self) -> bool:
        return all(owners.is_empty for owners in self._owners.values())

    def _note_closed(self) -> None:
        if self._is_empty():
            self._all_closed.set()
