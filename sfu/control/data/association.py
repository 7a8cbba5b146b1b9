"""aiortc's SCTP association (RFC 9260, 8831), bounded and with a receive window of its own.

The SCTP is aiortc's, over an object with the five members that it asks for. Its coroutines never wait for anything
but our `_send_data`, which does not wait either, so they run to their end at once here: no task per datagram, and
what they raise is caught where it belongs. What is private of aiortc is touched in this file, in `retransmission`, in
`reassembly` and in `sctp_packets`.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, cast

from aiortc.rtcdatachannel import RTCDataChannel
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcsctptransport import (
    SCTP_DATA_UNORDERED,
    USERDATA_MAX_LENGTH,
    WEBRTC_BINARY,
    WEBRTC_BINARY_EMPTY,
    Chunk,
    DataChunk,
    ForwardTsnChunk,
    InitAckChunk,
    InitChunk,
    SackChunk,
)

from sfu.control.data.backlog import Backlog
from sfu.control.data.reassembly import WHOLE, Held, Stream
from sfu.control.data.retransmission import Retransmission
from sfu.control.data.sctp_packets import SentChunk, common_header, data_packet, read_bare_sack
from sfu.errors import TransportFailure
from sfu.parameters import DtlsRole
from sfu.schema.capacities import SLOW_PER_TRANSPORT

LOCAL_PORT = 5000
"""Our `a=sctp-port` (RFC 8841 section 5.2)."""
WINDOW_BYTES = SLOW_PER_TRANSPORT << 10
"""The receive window that we announce (RFC 9260 section 6.2). What a peer sends within it waits in the queue of DTLS
datagrams at most, and that holds it: 1 KiB is what a stack puts into a datagram when more waits."""
MAX_UNREAD_BYTES = 4 * WINDOW_BYTES
"""Messages that keep the window closed, with what each costs beside its payload. Peers that heed the window stay below;
more is not acknowledged, and so is sent again."""
MAX_STREAMS = 64
"""SCTP streams that a peer may use; LiveKit's clients open three channels."""
MAX_HELD_BYTES = 2 * WINDOW_BYTES
"""Received fragments that wait for the rest of their message."""
MAX_HELD_CHUNKS = 2048
"""Fragments of messages that are not whole yet: small ones cost far more memory than they carry."""
MAX_MISORDERED = 1024
"""Received TSNs beyond a gap. More are dropped, and the peer sends them again."""
MAX_TSN_AHEAD = (1 << 16) - 1
"""How far beyond a gap a TSN may be: a SACK has no words for more (RFC 9260 section 3.3.4)."""
MAX_GAPS, MAX_DUPLICATES = 256, 32
"""Blocks in one SACK, so that it fits into a datagram; the next one tells the others."""
MAX_CONGESTION_BYTES = 1 << 20
"""Largest congestion window: each SACK costs a walk over what is under way."""
MAX_UNDER_WAY = 1024
"""Chunks sent and not acknowledged; more wait. aiortc walks over them with each message and each SACK, and small ones
are many: a window of 1 MiB has room for as many as it has bytes."""


class Wire:
    """What RTCSctpTransport wants of an RTCDtlsTransport."""

    state = "connected"

    def __init__(self, role: DtlsRole, send: Callable[[bytes], None]) -> None:
        self._role = role.value
        self.send = send

    def _register_data_receiver(self, receiver: Any) -> None:
        """The owner feeds the receiver itself."""

    def _unregister_data_receiver(self, receiver: Any) -> None:
        """Nothing was registered."""

    async def _send_data(self, data: bytes) -> None:
        self.send(data)


class Outlet(NamedTuple):
    """A channel as its messages need it. None of this changes once it has a stream number."""

    number: int
    ordered: bool
    max_retransmits: int | None
    is_timed: bool
    """Messages have a lifetime. aiortc knows the time."""


class Association(Retransmission):
    """aiortc's association, bounded against peers that send what no honest stack sends."""

    def __init__(self, wire: Wire, backlog: Backlog, drops: Counter[str]) -> None:
        """backlog: reliable messages, sent as `reliable` takes them. drops: where chunks not taken are counted."""
        self._drops = drops
        self._held = Held()
        self._unread = 0
        self._announced = self._promised = WINDOW_BYTES
        self._arrived = 0
        """Payload bytes taken since the start; `_promised` is how far they may get by all that was ever announced."""
        super().__init__(cast(RTCDtlsTransport, wire), port=LOCAL_PORT)
        self._inbound_streams_max = MAX_STREAMS
        self._peer_window = MAX_CONGESTION_BYTES
        self._send_packet = wire.send
        self._header = b""
        """The first bytes of each packet, made when they are needed."""
        self._outlets: dict[RTCDataChannel, Outlet] = {}
        self._backlog = backlog
        self._backlog_first = False
        self.reliable: RTCDataChannel | None = None
        """Where the backlog goes, once it is open."""

    # Receiving.

    @property
    def _advertised_rwnd(self) -> int:
        """The receive window: less what is held here, and what has not reached all its receivers."""
        return WINDOW_BYTES - self._held.size - self._unread

    @_advertised_rwnd.setter
    def _advertised_rwnd(self, value: int) -> None:
        """aiortc keeps count of a window of its own; ours is computed."""

    def hold_window(self, size: int) -> None:
        """Take bytes out of the receive window, which a SACK tells in its time."""
        self._unread += size

    def release_window(self, size: int) -> None:
        """Give them back; a peer that waits for it is told at once."""
        self._unread -= size
        grown = self._advertised_rwnd - self._announced
        waits = self._announced < WINDOW_BYTES // 2 and grown >= WINDOW_BYTES // 4
        if waits and self._last_received_tsn is not None and self._is_established():
            run_now(self._send_sack())

    def _get_inbound_stream(self, stream_id: int) -> Stream:
        stream = self._inbound_streams.get(stream_id)
        if stream is None:
            if stream_id >= MAX_STREAMS:
                raise TransportFailure("data: stream number out of range")
            stream = self._inbound_streams[stream_id] = Stream(self._held)
        return cast(Stream, stream)

    def _mark_received(self, tsn: int) -> bool:
        """Note a TSN; True when it was noted before. aiortc's sorts all those beyond a gap."""
        assert self._last_received_tsn is not None
        ahead = (tsn - self._last_received_tsn) % (1 << 32)
        if not 0 < ahead < 1 << 31 or tsn in self._sack_misordered:
            if len(self._sack_duplicates) < MAX_DUPLICATES:
                self._sack_duplicates.append(tsn)
            return True
        if ahead > 1:
            self._sack_misordered.add(tsn)
            return False
        while (following := (tsn + 1) % (1 << 32)) in self._sack_misordered:
            self._sack_misordered.remove(following)
            tsn = following
        self._last_received_tsn = tsn
        return False

    async def _receive_chunk(self, chunk: Chunk) -> None:
        """One that begins the association anew says where TSNs begin: what came beyond a gap before lies nowhere then.
        Once it is established such a chunk is late, or nothing that an honest stack sends (RFC 9260 section 5.2)."""
        if isinstance(chunk, InitChunk | InitAckChunk):
            if self._is_established():
                self._drops["sctp_refused"] += 1
                return
            self._header = b""
            self._sack_misordered.clear()
            self._sack_duplicates.clear()
        await super()._receive_chunk(chunk)

    async def _receive_data_chunk(self, chunk: DataChunk) -> None:
        if self._last_received_tsn is None:
            return  # DATA before INIT
        ahead = (chunk.tsn - self._last_received_tsn) % (1 << 32)
        beyond = self._arrived + len(chunk.user_data) > self._promised
        if 1 < ahead < 1 << 31 and (beyond or ahead > MAX_TSN_AHEAD or len(self._sack_misordered) >= MAX_MISORDERED):
            self._drops["sctp_beyond_gap"] += 1
            return  # not acknowledged, so it comes again
        self._sack_needed = True
        if self._unread and (beyond or self._unread > MAX_UNREAD_BYTES):
            self._drops["sctp_beyond_window"] += 1
            return  # as above
        if self._mark_received(chunk.tsn):
            return
        self._arrived += len(chunk.user_data)
        for message in self._get_inbound_stream(chunk.stream_id).take(chunk):
            await self._receive(*message)
        if self._held.chunks > MAX_HELD_CHUNKS or self._held.size > MAX_HELD_BYTES:
            raise TransportFailure("data: message without end")
        if self._reconfig_deferred is not None:
            await self._reset_deferred_streams()

    async def _reset_deferred_streams(self) -> None:
        before = dict(self._inbound_streams) if self._reconfig_deferred is not None else {}
        await super()._reset_deferred_streams()
        for number, stream in before.items():
            if number not in self._inbound_streams:
                cast(Stream, stream).clear()

    async def _receive_forward_tsn_chunk(self, chunk: ForwardTsnChunk) -> None:
        if self._last_received_tsn is not None:
            await super()._receive_forward_tsn_chunk(chunk)

    async def _send_sack(self) -> None:
        assert self._last_received_tsn is not None
        sack = SackChunk()
        sack.cumulative_tsn = self._last_received_tsn
        sack.advertised_rwnd = self._announced = max(0, self._advertised_rwnd)
        self._promised = max(self._promised, self._arrived + self._announced)
        sack.duplicates, self._sack_duplicates = self._sack_duplicates, []
        if self._sack_misordered:
            sack.gaps = self._gaps(self._last_received_tsn)
        self._sack_needed = False
        await self._send_chunk(sack)

    def _gaps(self, acknowledged: int) -> list[tuple[int, int]]:
        """The first rows of TSNs beyond a gap, as (first, last) distances from the acknowledged one."""
        gaps: list[list[int]] = []
        for distance in sorted((tsn - acknowledged) % (1 << 32) for tsn in self._sack_misordered):
            if gaps and distance == gaps[-1][1] + 1:
                gaps[-1][1] = distance
            elif len(gaps) < MAX_GAPS:
                gaps.append([distance, distance])
            else:
                break
        return [(first, last) for first, last in gaps]

    async def _receive_sack_chunk(self, chunk: SackChunk) -> None:
        # Gap blocks are expanded one by one, so they must not say more than was sent (RFC 9260 section 3.3.4).
        if chunk.gaps:
            spans = [end - start + 1 for start, end in chunk.gaps]
            if not all(span > 0 for span in spans) or sum(spans) > len(self._sent_queue) + MAX_MISORDERED:
                return
        if (chunk.cumulative_tsn - self._last_sacked_tsn) % (1 << 32) < 1 << 31:
            self._peer_window = chunk.advertised_rwnd
        await super()._receive_sack_chunk(chunk)
        if not self._sent_queue:
            self._resending = False

    def take_bare_sack(self, packet: bytes) -> bool:
        """Take a packet that `is_bare_sack`, if all is as it mostly is: it acknowledges what is under way or the
        beginning of it, nothing is lost and nothing waits. False: it has to be taken as any other."""
        told = read_bare_sack(packet)
        sent: Any = self._sent_queue
        if (
            told is None
            or told[0] != self._local_verification_tag
            or not self._is_calm()
            or self._something_waits()
            or self._backlog
            or self._flight_size >= self._cwnd
            or self._association_state is not self.State.ESTABLISHED
        ):
            return False
        done = (told[1] - self._last_sacked_tsn) % (1 << 32)
        if done > len(sent):
            return False  # it is old, or acknowledges what was never sent
        self._peer_window = told[2]
        self._last_sacked_tsn = self._advanced_peer_ack_tsn = told[1]
        if done and sent[0]._sent_count == 1:
            self._update_rto(time.time() - sent[0]._sent_time)
        for _ in range(done):
            chunk = sent.popleft()
            if chunk._in_flight:
                chunk._in_flight = False
                self._flight_size -= chunk._book_size
        if not sent:
            self._t3_cancel()
        elif done:
            self._t3_restart()
        return True

    def _is_calm(self) -> bool:
        """Whether no loss is being repaired, and no message given up that the peer must be told of."""
        return (
            self._fast_recovery_exit is None
            and not self._resending
            and self._forward_tsn_chunk is None
            and self._advanced_peer_ack_tsn == self._last_sacked_tsn
        )

    # Sending.

    async def _data_channel_flush(self) -> None:
        """Send what waits as soon as aiortc takes more: other channels and the reliable backlog by turns."""
        if self._backlog and not self._outbound_queue:
            self._backlog_first = not self._backlog_first
            if self._backlog_first:
                await self._send_oldest()
        if self._data_channel_queue or self._reconfig_queue:
            await super()._data_channel_flush()
        while self._backlog and not self._outbound_queue and await self._send_oldest():
            pass

    async def _send_oldest(self) -> bool:
        """Send the oldest message of the backlog, if its channel takes it."""
        channel = self.reliable
        if channel is None or channel.id is None or channel.readyState != "open" or not self._is_established():
            return False
        kind, data = as_binary(self._backlog.popleft().payload)
        if channel.maxPacketLifeTime:  # aiortc knows the time
            channel._addBufferedAmount(len(data))
            self._data_channel_queue.append((channel, kind, data))
            await super()._data_channel_flush()
        else:
            await self._send(channel.id, kind, data, None, channel.maxRetransmits, channel.ordered)
        return True

    async def _transmit(self) -> None:
        if self._outbound_queue or self._sent_queue or self._forward_tsn_chunk is not None:
            # aiortc does not look at the peer's window. With none of it left, one chunk may be under way, which asks
            # for news (RFC 9260 section 6.1 A).
            window = min(self._cwnd, MAX_CONGESTION_BYTES)
            if window > self._peer_window:
                self._cwnd = max(self._peer_window, USERDATA_MAX_LENGTH)
            if len(self._sent_queue) + len(self._outbound_queue) > MAX_UNDER_WAY:
                await self._transmit_few()
            else:
                await super()._transmit()
            self._cwnd = window

    async def _transmit_few(self) -> None:
        """Send no more than may be under way. What is too much is out of aiortc's sight meanwhile."""
        waiting = self._outbound_queue
        room = max(0, MAX_UNDER_WAY - len(self._sent_queue))
        few = self._outbound_queue = deque(waiting.popleft() for _ in range(min(room, len(waiting))))
        try:
            await super()._transmit()
        finally:
            waiting.extendleft(reversed(few))
            self._outbound_queue = waiting

    def send_binary(self, channel: RTCDataChannel, payload: bytes) -> None:
        """What `RTCDataChannel.send` does, but sent at once and not in a task of its own for every message."""
        kind, data = as_binary(payload)
        outlet = self._outlets.get(channel) or self._open_outlet(channel)
        if outlet is None or outlet.is_timed or self._something_waits() or not self._is_established():
            channel._addBufferedAmount(len(data))
            self._data_channel_queue.append((channel, kind, data))
            run_now(self._data_channel_flush())
        else:  # what the flush would do with this one message; what is buffered would go up and down again
            self._send_first(outlet, kind, data)

    def _something_waits(self) -> bool:
        return bool(self._data_channel_queue or self._outbound_queue or self._reconfig_queue)

    def send_at_once(self, channel: RTCDataChannel, payload: bytes) -> bool:
        """Send a message on the reliable channel if nothing waits before it; otherwise it belongs into the backlog."""
        outlet = self._outlets.get(channel) or self._open_outlet(channel)
        if (
            self._backlog
            or self._outbound_queue
            or self._data_channel_queue
            or self._reconfig_queue
            or outlet is None
            or not payload
            or outlet.is_timed
            or self._association_state is not self.State.ESTABLISHED
        ):
            return False
        self._send_first(outlet, WEBRTC_BINARY, payload)
        return True

    def _open_outlet(self, channel: RTCDataChannel) -> Outlet | None:
        if channel.id is None:
            return None
        timed = bool(channel.maxPacketLifeTime)
        outlet = self._outlets[channel] = Outlet(channel.id, channel.ordered, channel.maxRetransmits, timed)
        return outlet

    def _data_channel_closed(self, stream_id: int) -> None:
        self._outlets.clear()  # those of other channels are made again
        super()._data_channel_closed(stream_id)

    def _send_first(self, outlet: Outlet, kind: int, data: bytes) -> None:
        """Send a message before which no other waits; what cannot go yet waits."""
        number, ordered, most, _ = outlet
        flight = self._flight_size
        if (
            len(data) > USERDATA_MAX_LENGTH
            or flight >= min(self._cwnd, self._peer_window)
            or len(self._sent_queue) >= MAX_UNDER_WAY
            or not self._is_calm()
        ):
            run_now(self._send(number, kind, data, None, most, ordered))
            return
        # What aiortc would do with one chunk of which nothing has to be looked up or waited for.
        tsn = self._local_tsn
        self._local_tsn = (tsn + 1) % (1 << 32)
        sequence = 0
        if ordered:
            sequence = self._outbound_stream_seq.get(number, 0)
            self._outbound_stream_seq[number] = (sequence + 1) % (1 << 16)
        flags = WHOLE if ordered else WHOLE | SCTP_DATA_UNORDERED
        chunk = SentChunk(flags, tsn, number, sequence, kind, data, most, time.time())
        self._sent_queue.append(chunk)
        self._flight_size = flight + len(data)
        if not self._header:
            self._header = common_header(self._local_port, self._remote_port or 0, self._remote_verification_tag)
        self._send_packet(data_packet(self._header, chunk))
        if self._t3_handle is None:
            self._t3_start()

    def flush(self) -> None:
        """Send what waits and may be sent."""
        run_now(self._data_channel_flush())

    def close_channel(self, channel: RTCDataChannel) -> None:
        """Reset its stream; what of it is under way already is sent all the same."""
        self._data_channel_close(channel)

    def take(self, packet: bytes) -> None:
        """Take one packet that has passed the fence.

        Raises:
            Exception: whatever the peer's bytes make aiortc raise.
        """
        run_now(self._handle_data(packet))

    @property
    def acknowledged(self) -> int:
        """The last of our TSNs that the peer has, with all before it."""
        return self._last_sacked_tsn

    def _is_established(self) -> bool:
        return self._association_state is self.State.ESTABLISHED

    def end(self) -> None:
        """Abort; nothing of the association lives on in the loop."""
        self.remove_all_listeners()
        run_now(self.stop())
        # Tasks that aiortc has already started find nothing to send, and so set no timer again.
        self._sent_queue.clear()
        self._outbound_queue.clear()
        self._data_channel_queue.clear()
        self._outlets.clear()
        self._forward_tsn_chunk = None


def as_binary(payload: bytes) -> tuple[int, bytes]:
    """Protocol number and data of a message; nothing is sent as one byte (RFC 8831 section 6.6)."""
    return (WEBRTC_BINARY, payload) if payload else (WEBRTC_BINARY_EMPTY, b"\x00")


def run_now(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run to its end a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError("the SCTP stack waited for something")
