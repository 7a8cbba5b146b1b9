"""The narrow interface between signalling and media: `Engine`.

Every call is made from the event loop in which `start` ran; nothing here is thread-safe. All calls but `start`, `stop`
and `next_event` are synchronous and quick: they write rows and push commands, and the media thread acts a moment later.
What happens on the network comes back as events, through `next_event`.
"""

import asyncio
import atexit
import contextlib
import itertools
import logging
import socket
import time
from collections import Counter
from collections.abc import Iterable, Sequence

from sfu.control.deferred import Deferred, Retries
from sfu.control.event_queue import EventQueue
from sfu.control.fanout import Fanout
from sfu.control.forwarding import Forwarding, check_open
from sfu.control.media_thread import MediaThread
from sfu.control.net.tcp import TcpConnections
from sfu.control.observing import statistics
from sfu.control.observing.explain import Explanations, LayerUse, layer_uses
from sfu.control.observing.scores import Scores
from sfu.control.observing.statistics import (
    LayerStatistics,
    SubscriptionStatistics,
    ThreadLoad,
    Totals,
    TrackStatistics,
    Traffic,
    TransportStatistics,
)
from sfu.control.security.certificate import LocalCertificate
from sfu.control.security.dtls import SRTP_PROFILES
from sfu.control.serving import Serving
from sfu.control.shards import MakeThread, Shard, first_turns, open_all
from sfu.control.tracks import Owners
from sfu.control.transports import Transport
from sfu.errors import EngineError, TableFull
from sfu.events import Event
from sfu.parameters import (
    MAX_THREADS,
    Candidate,
    Channel,
    Codec,
    EngineOptions,
    LocalSubscription,
    LocalTransport,
    MediaParameters,
    PublishParameters,
    RemoteTransport,
    SubscribeParameters,
    SubscriptionId,
    TrackId,
    TransportId,
)

__all__ = ["Engine", "EngineError", "EngineOptions", "LayerStatistics", "LayerUse", "SubscriptionStatistics"]
__all__ += ["TableFull", "ThreadLoad", "Totals", "TrackStatistics", "Traffic", "TransportStatistics"]

logger = logging.getLogger(__name__)

STOP_TIMEOUT_S = 2.0
"""How long `stop` waits for the media thread to close everything."""


class Engine:
    """Transports, tracks, subscriptions and data channels of this process.

    A transport that is unknown or closed raises EngineError wherever it is named, except in `close_transport` and
    `send_data`. So does a track or subscription that never was. One that has been closed may still be named, to no
    effect, because events about it may be on their way; only `subscribe` and the statistics refuse it.
    """

    def __init__(self, options: EngineOptions, media_thread: MakeThread = MediaThread) -> None:
        """Make an engine that does nothing until `start`.

        Args:
            options: the ports, and what holds for all clients.
            media_thread: called for each port with the memory that the thread shares with the control thread, and with
                a function that takes its exceptions; returns the thread. Tests give one without media.

        Raises:
            EngineError: there is no port, or there are more than MAX_THREADS.
        """
        if not 0 < len(options.udp_ports) <= MAX_THREADS:
            raise EngineError(f"1 to {MAX_THREADS} media threads, not {len(options.udp_ports)}")
        self.udp_ports = options.udp_ports
        """The ports that are really bound, after `start`: one for each media thread."""
        self.tcp_port = options.tcp_port
        """The port of ICE over TCP that clients are told, after `start`; None: there is none."""
        self._options = options
        self._drops: Counter[str] = Counter()
        self._events = EventQueue(self._drops)
        self.shards = tuple(Shard(media_thread, self._kernel_failed, self._wake) for _ in options.udp_ports)
        for shard in self.shards:
            shard.memory.join([each.memory for each in self.shards])
        self._owners = {shard: Owners() for shard in self.shards}
        self._forwarding = Forwarding(self._owners, self._drops)
        self._scores = Scores(self._owners)
        self._explanations = Explanations(self._owners, time.monotonic)
        self._transports: dict[TransportId, Transport] = {}
        self._numbers = itertools.count(1)
        self._later = Deferred()
        self._retries = Retries(self.shards, self._later)
        queues = self._events, self._later, self._retries
        self._serving = Serving(self._owners, self._transports, self._forwarding, *queues, time.monotonic)
        self._candidates: dict[Shard, tuple[Candidate, ...]] = {}

    @property
    def udp_port(self) -> int:
        """The port of the first media thread."""
        return self.udp_ports[0]

    # Beginning and end.

    async def start(self) -> None:
        """Once: bind the sockets, start the media threads, wait until they work. Kernels that are not in the cache are
        compiled.

        Raises:
            OSError: an address cannot be bound.
            RuntimeError: a thread fails.
        """
        self._loop = asyncio.get_running_loop()
        self._later.begin(self._loop)
        certificate = LocalCertificate(tuple(profile.name for profile in SRTP_PROFILES))
        self._fingerprint = certificate.fingerprint
        self._fanout = Fanout(self._drops, time.monotonic)
        self._tcp = TcpConnections(self.shards, self._drops)
        self._open_shards(certificate)
        for shard in self.shards:
            self._loop.add_reader(int(shard.memory.thread["control_fd"]), self._serving.readable, shard)
            shard.thread.start()
        atexit.register(self._end_threads)  # keys must not be freed under a thread that still runs
        try:
            await first_turns(self.shards)
            self._explanations.repeat(self._later)
        except BaseException:
            await self.stop()
            raise

    @staticmethod
    def load_data_channels() -> None:
        """Import what data channels are made with, which takes 0.2 s. Otherwise the first transport waits for it."""
        import sfu.control.data.sctp  # noqa: F401

    async def stop(self) -> None:
        """Close everything, end the media threads, close the sockets. No event comes any more."""
        self._candidates = {}
        self._fanout.stop()
        self._tcp.stop()
        for number in list(self._transports):
            self.close_transport(number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._serving.all_closed(), STOP_TIMEOUT_S)
        for shard in self.shards:
            self._loop.remove_reader(int(shard.memory.thread["control_fd"]))
        self._later.cancel()
        if self._end_threads():
            for shard in self.shards:
                shard.close()

    def _open_shards(self, certificate: LocalCertificate) -> None:
        open_all(self.shards, self.udp_ports, self._options, certificate, self._tcp)
        self.udp_ports = tuple(shard.sockets.port for shard in self.shards)
        self.tcp_port = self._tcp.port or self._options.shared_tcp_port
        self._candidates = {each: each.candidates(self._options.node_ips, self.tcp_port) for each in self.shards}

    def _end_threads(self) -> bool:
        """End the media threads, then forget the keys that they used. False: one does not end, so everything stays."""
        atexit.unregister(self._end_threads)
        for shard in self.shards:
            try:
                shard.thread.stop()
            except RuntimeError:
                logger.critical("a media thread does not stop")
                return False
        for owners in self._owners.values():
            for transport in owners.transports.values():
                transport.closed()
            owners.transports.clear()
        return True

    async def next_event(self) -> Event:
        """The next event, as soon as there is one. One task calls this, again and again: up to 65,536 events wait, more
        are dropped and counted."""
        return await self._events.get()

    # Transports.

    def open_transport(
        self, may_pause: bool = False, path_memory: int = 0, beside: TransportId | None = None
    ) -> LocalTransport:
        """Make a transport, whose ICE checks are answered from now on.

        Args:
            may_pause: a video is paused where its path does not carry even key frames.
            path_memory: what `path_memory` said of the client's last transport, a moment ago.
            beside: the transport on which the client publishes, if it only receives here.

        Raises:
            TableFull: there is no room for one more.
            EngineError: the engine has not started, or it has stopped.
        """
        if not self._candidates:
            raise EngineError("the engine does not run")
        number = TransportId(next(self._numbers))
        other = self._transport(beside) if beside is not None else None
        shard = other.shard if other is not None else min(self.shards, key=lambda each: each.tables.transports.used)
        queues = self._events, self._drops
        transport = self._transports[number] = Transport(number, shard, *queues, may_pause, path_memory, other)
        self._owners[shard].transports[transport.row] = transport
        return self._local(transport)

    def media_addresses(self) -> tuple[tuple[str, int], ...]:
        """The addresses and UDP ports that clients are told, of all media threads; none before `start`."""
        found = (each for candidates in self._candidates.values() for each in candidates if not each.tcp)
        return tuple((each.address, each.port) for each in found)

    def take_connection(
        self, connection: socket.socket, client: str = "", peer: tuple[str, int] | None = None, protocol: str = "tcp"
    ) -> None:
        """Take over a connected TCP socket of which nothing has been read, and which is to begin with a connectivity
        check in a frame (RFC 6544). It is closed when it does not prove to be a client's, and when it ends.

        Args:
            connection: a socket that nobody else uses any more. With `client` and `peer` it may be one of a pair, in
                which a relay writes what its client sends.
            client: the client's IP address if a proxy told it, under which the connection counts until its check came.
            peer: the address and port from which the client seems to come, such as that of its relay. Checks are told
                this address.
            protocol: what statistics call the way of the client.
        """
        self._tcp.take(connection, client, peer, protocol)

    def connect(self, transport: TransportId, remote: RemoteTransport) -> None:
        """Take the peer's ICE credentials and fingerprints; start DTLS, and SCTP with a `sctp_port`. Later calls bring
        new credentials or the `sctp_port`.

        Raises:
            EngineError: a later call changes the fingerprints or the role.
        """
        self._transport(transport).connect(remote)

    def restart_ice(self, transport: TransportId) -> LocalTransport:
        """Make new local ICE credentials; the old ones work until a check with the new ones passes. The peer's new
        ones come by `connect`."""
        restarted = self._transport(transport)
        restarted.restart_ice()
        self._retries.watch(restarted)
        return self._local(restarted)

    def set_media(self, transport: TransportId, media: MediaParameters) -> None:
        """Replace the meaning of payload types and header extensions, after each negotiation.

        Raises:
            EngineError: a payload type, associated payload type, clock rate or extension id is out of range.
        """
        changed = self._transport(transport)
        changed.set_media(media)
        self._retries.watch(changed)

    def close_transport(self, transport: TransportId) -> None:
        """Close a transport with its tracks and subscriptions. One that is closed or unknown: nothing happens."""
        closing = self._transports.pop(transport, None)
        if closing is not None:
            self._forwarding.close_all_of(closing)
            closing.close()
            self._retries.forget(closing)
            self._retries.schedule()

    def path_memory(self, transport: TransportId) -> int:
        """What is known of the path to a client, for when it soon comes again; 0: nothing."""
        return statistics.path_memory(self._transport(transport))

    # Publishing.

    def publish(self, transport: TransportId, parameters: PublishParameters) -> TrackId:
        """Expect media on an m-section of a transport. `StreamStarted` tells of each layer when its first packet comes.

        Raises:
            TableFull: there is no room for one more.
            EngineError: there is no encoding or more than three, an SSRC is out of range, or a mid or rid has more than
                16 ASCII characters.
        """
        return self._forwarding.publish(self._transport(transport), parameters).id

    def unpublish(self, track: TrackId) -> None:
        """Stop receiving; its subscriptions are closed too."""
        self._forwarding.unpublish(track)
        self._retries.schedule()

    def set_codecs(self, track: TrackId, codecs: frozenset[Codec]) -> None:
        """Say which codecs a later answer accepts on the track's m-section; empty: whatever the transport's payload
        types mean, `NO_CODECS`: none."""
        self._forwarding.set_codecs(track, codecs)
        self._retries.schedule()

    def request_key_frame(self, track: TrackId) -> None:
        """Ask the publisher for a key frame of every layer. It is sent one request in 500 ms at most, however often
        this is called; new subscribers, layer switches and losses request one by themselves."""
        self._forwarding.request_key_frame(track)
        self._retries.schedule()

    def set_resting(self, track: TrackId, layers: Iterable[int]) -> None:
        """Say which layers of a simulcast track the publisher was told to stop. They count as ones that it could send,
        with what they cost last, so that `layer_uses` tells when a subscriber may have one."""
        self._forwarding.set_resting(track, sum({1 << layer for layer in layers}))
        self._retries.schedule()

    # Subscribing.

    def subscribe(self, track: TrackId, transport: TransportId, parameters: SubscribeParameters) -> LocalSubscription:
        """Forward a track to a transport, up to the layers in `parameters` until `set_layers` says otherwise.

        Raises:
            TableFull: there is no room for one more.
            EngineError: the track is not open, layers or a payload type are out of range, or a mid has more than 16 or
                a cname more than 32 ASCII characters.
        """
        subscription = self._forwarding.subscribe(track, self._transport(transport), parameters)
        self._retries.schedule()
        return subscription

    def unsubscribe(self, subscription: SubscriptionId) -> None:
        """Stop forwarding at once."""
        self._forwarding.unsubscribe(subscription)
        self._retries.schedule()

    def set_layers(
        self, subscription: SubscriptionId, spatial: int, temporal: int, priority: int = 0, pixels: int = 0
    ) -> None:
        """Forward up to these layers, counted from 0: the best one that is live, from its next key frame on.

        Args:
            subscription: what `subscribe` returned.
            spatial, temporal: the highest layers that the subscriber prefers.
            priority: 1 is the highest, 0 none.
            pixels: how large the video is shown, width times height; 0: unknown.

        Raises:
            EngineError: the layers are out of range.
        """
        self._forwarding.set_layers(subscription, spatial, temporal, priority, pixels)
        self._retries.schedule()

    def set_paused(self, subscription: SubscriptionId, paused: bool) -> None:
        """Stop sending, keeping SSRCs and numbering, or go on (video: at the next key frame)."""
        self._forwarding.set_paused(subscription, paused)
        self._retries.schedule()

    # Data.

    def open_channels(self, transport: TransportId) -> None:
        """Create the data channels of CHANNEL_LABELS from our side once SCTP is up. Not needed if the peer creates
        them; `ChannelOpened` tells of either."""
        self._transport(transport).open_channels()

    def send_data(
        self,
        transports: Sequence[TransportId],
        channel: Channel,
        payload: bytes,
        sender: TransportId | None = None,
    ) -> None:
        """Send one message of up to 256 KiB to each transport; unknown transports are skipped. Reliable messages wait
        for a channel that is not open yet and for a slow one; others are dropped, also when 8 KiB wait already, or
        64 KiB of data tracks.

        sender: the transport from which the message came. It is held back through its SCTP window while messages of it
        lie more than 16 MiB back at a receiver.
        """
        present = [self._transports[number] for number in transports if number in self._transports]
        source = self._transports.get(sender) if sender is not None else None
        self._fanout.send(source, present, channel, payload)

    # Observing.

    def audio_levels(self) -> list[tuple[TrackId, float]]:
        """(track, linear level 0 to 1) of every track that counts as speaking, from the audio level extension."""
        return [level for shard in self.shards for level in statistics.audio_levels(shard, self._owners[shard])]

    def track_statistics(self, track: TrackId) -> TrackStatistics:
        """What was received of a track since it was opened.

        Raises:
            EngineError: it is not open.
        """
        return statistics.track_statistics(self._forwarding.open_track(track))

    def subscription_statistics(self, subscription: SubscriptionId) -> SubscriptionStatistics:
        """What was sent on a subscription since it was opened.

        Raises:
            EngineError: it is not open.
        """
        return self._explanations.statistics(self._forwarding.open_subscription(subscription))

    def transport_statistics(self, transport: TransportId) -> TransportStatistics:
        """What the path to a client is believed to carry, and what is sent over it."""
        return statistics.transport_statistics(self._transport(transport))

    def scores(self, muted: Iterable[TrackId]) -> dict[TransportId, float]:
        """How good what each client publishes and is sent has been since the last call, from 0 to 100: its worst track
        counts. Transports without media are left out. Call it every few seconds. muted: the tracks that publishers have
        muted; those that are not open are ignored."""
        tracks = self._forwarding.open_tracks(muted)
        return self._scores.measure(tracks, time.monotonic_ns())

    def layer_uses(self) -> dict[TrackId, LayerUse]:
        """Which layers of each simulcast track somebody is sent or may be sent, where one has not paused it."""
        return layer_uses(self._owners)

    def drops(self) -> dict[str, int]:
        """What was dropped since the start, by reason: packets, data messages, events."""
        return statistics.drops(self.shards, self._drops)

    def limits(self) -> dict[str, int]:
        """The most rows in use of `transports`, `tracks`, `streams` and `subscriptions`. With several media threads,
        `tracks` and `streams` are those of one, because a track needs rows in each thread that has a subscriber; and an
        eighth of the others is left out, because one thread is full before the rest."""
        return statistics.limits(len(self.shards))

    def usage(self) -> dict[str, int]:
        """Rows in use per table, and bytes of packet caches handed out, of all media threads together."""
        return statistics.usage(self.shards)

    def totals(self) -> Totals:
        """Packets, bytes and feedback each way since the start, how full tables and queues are, and how much processor
        time each media thread took."""
        return statistics.totals(self.shards, self._events.fill)

    def estimates(self) -> list[tuple[int, int]]:
        """What the path to each client that gives transport-cc feedback is believed to carry, and what is allocated of
        it, in bits a second."""
        return statistics.estimates(self.shards)

    # Inside.

    def _transport(self, number: TransportId) -> Transport:
        return check_open(self._transports.get(number), number)

    def _local(self, transport: Transport) -> LocalTransport:
        return LocalTransport(transport.id, transport.ice, self._fingerprint, self._candidates[transport.shard])

    def _wake(self, shard: Shard) -> None:
        self._later(f"wake {shard.number}", 0, shard.thread.wake)

    def _kernel_failed(self, error: BaseException) -> None:
        """Tell the control thread of an exception in a kernel. The media thread calls it."""
        logger.error("exception in the media thread", exc_info=error)
