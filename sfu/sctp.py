"""Data channels (RFC 8831, 8832) of one transport: LiveKit's three labels over SCTP over DTLS.

The SCTP is aiortc's, over an object with the five members that it asks for. Its coroutines never wait for anything
but our `_send_data`, which does not wait either, so they run to their end at once here: no task per datagram, and
what they raise is caught where it belongs. Everything private of aiortc that aiosfu touches is in this file.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol, cast

from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcsctptransport import (
    WEBRTC_BINARY,
    WEBRTC_BINARY_EMPTY,
    DataChunk,
    ForwardTsnChunk,
    InboundStream,
    RTCSctpCapabilities,
    RTCSctpTransport,
    SackChunk,
)

from sfu.errors import TransportFailure
from sfu.parameters import CHANNEL_LABELS, Channel, DtlsRole

logger = logging.getLogger(__name__)

LOCAL_PORT = 5000
"""Our `a=sctp-port` (RFC 8841 section 5.2)."""
MAX_MESSAGE_BYTES = 256 << 10
"""Largest message in either direction: our `a=max-message-size`, as browsers announce it."""
MAX_QUEUED_BYTES = 8 << 20
"""Reliable bytes that wait for a slow peer. A peer that lets more wait is cut off: reliable cannot mean "some"."""
MAX_LOSSY_QUEUED_BYTES = 8 << 10
"""Lossy messages are dropped while this much waits: old news is of no use (LiveKit has the same number)."""
MAX_STREAMS = 64
"""SCTP streams that a peer may use; LiveKit's clients open three channels."""
MAX_HELD_BYTES = 2 << 20
"""Received fragments that wait for the rest of their message; twice the window that we announce."""
MAX_HELD_CHUNKS = 4096
"""The same, counted: small fragments cost far more memory than they carry."""
MAX_MISORDERED = 1024
"""Received TSNs beyond a gap; aiortc sorts them for every chunk. More are dropped, and the peer sends them again."""
TIMER_SLACK_S = 0.002
"""A timer that fires this much early is due: loops count in milliseconds."""
MAX_ERRORS = 32
"""Datagrams that the stack choked on, before the transport is given up."""

LABELS = {label: channel for channel, label in CHANNEL_LABELS.items()}


class DataListener(Protocol):
    """Who owns the channels: a transport."""

    def send_application_data(self, data: bytes) -> None:
        """Send one SCTP packet over DTLS."""

    def channel_opened(self, channel: Channel) -> None:
        """A channel can be written to."""

    def message_received(self, channel: Channel, payload: bytes) -> None:
        """One whole message came."""


class _Wire:
    """What RTCSctpTransport wants of an RTCDtlsTransport."""

    state = "connected"

    def __init__(self, role: DtlsRole, send: Callable[[bytes], None]) -> None:
        self._role = role.value
        self._send = send

    def _register_data_receiver(self, receiver: Any) -> None:
        """The owner feeds the receiver itself."""

    def _unregister_data_receiver(self, receiver: Any) -> None:
        """Nothing was registered."""

    async def _send_data(self, data: bytes) -> None:
        self._send(data)


class _Association(RTCSctpTransport):
    """aiortc's association, bounded against peers that send what no honest stack sends."""

    def __init__(self, wire: _Wire) -> None:
        super().__init__(cast(RTCDtlsTransport, wire), port=LOCAL_PORT)
        self._inbound_streams_max = MAX_STREAMS
        self._t3_kept: asyncio.TimerHandle | None = None
        self._t3_kept_until = self._t3_due = 0.0

    def _get_inbound_stream(self, stream_id: int) -> InboundStream:
        if stream_id >= MAX_STREAMS:
            raise TransportFailure("data: stream number out of range")
        return super()._get_inbound_stream(stream_id)

    async def _receive_data_chunk(self, chunk: DataChunk) -> None:
        if self._last_received_tsn is None:
            return  # DATA before INIT
        following = chunk.tsn == (self._last_received_tsn + 1) % (1 << 32)
        if not following and (len(self._sack_misordered) >= MAX_MISORDERED or self._advertised_rwnd <= 0):
            return  # not acknowledged, so it comes again
        await super()._receive_data_chunk(chunk)
        held, stream = 0, self._inbound_streams.get(chunk.stream_id)
        if stream is not None and stream.reassembly:  # otherwise no more is held than before
            held = sum(len(each.reassembly) for each in self._inbound_streams.values())
        if held > MAX_HELD_CHUNKS or self._advertised_rwnd < (1 << 20) - MAX_HELD_BYTES:
            raise TransportFailure("data: message without end")

    async def _receive_forward_tsn_chunk(self, chunk: ForwardTsnChunk) -> None:
        if self._last_received_tsn is not None:
            await super()._receive_forward_tsn_chunk(chunk)

    async def _receive_sack_chunk(self, chunk: SackChunk) -> None:
        # Gap blocks are expanded one by one, so they must not say more than was sent (RFC 9260 section 3.3.4).
        if chunk.gaps:
            spans = [end - start + 1 for start, end in chunk.gaps]
            if not all(span > 0 for span in spans) or sum(spans) > len(self._sent_queue) + MAX_MISORDERED:
                return
        await super()._receive_sack_chunk(chunk)

    async def _data_channel_flush(self) -> None:
        if self._data_channel_queue or self._reconfig_queue:
            await super()._data_channel_flush()

    async def _transmit(self) -> None:
        if self._outbound_queue or self._sent_queue or self._forward_tsn_chunk is not None:
            await super()._transmit()

    # T3 starts with almost every message and stops with its SACK, so the loop's timer is left to run instead: one that
    # fires too early waits for the rest. aiortc takes `_t3_handle` for the answer to whether T3 runs.
    def _t3_start(self) -> None:
        self._t3_due = asyncio.get_running_loop().time() + self._rto
        if self._t3_kept is None or self._t3_kept_until > self._t3_due:
            self._t3_drop()
            self._t3_arm(self._rto)
        self._t3_handle = self._t3_kept

    def _t3_restart(self) -> None:
        self._t3_start()

    def _t3_cancel(self) -> None:
        self._t3_handle = None
        if self._association_state is self.State.CLOSED:
            self._t3_drop()

    def _t3_arm(self, seconds: float) -> None:
        self._t3_kept = asyncio.get_running_loop().call_later(seconds, self._t3_fired)
        self._t3_kept_until = self._t3_due

    def _t3_drop(self) -> None:
        if self._t3_kept is not None:
            self._t3_kept.cancel()
            self._t3_kept = None

    def _t3_fired(self) -> None:
        self._t3_kept = None
        if self._t3_handle is None:
            return
        rest = self._t3_due - asyncio.get_running_loop().time()
        if rest > TIMER_SLACK_S:
            self._t3_arm(rest)
            self._t3_handle = self._t3_kept
        else:
            self._t3_expired()

    def send_binary(self, channel: RTCDataChannel, payload: bytes) -> None:
        """What `RTCDataChannel.send` does, but sent at once and not in a task of its own for every message."""
        kind, data = (WEBRTC_BINARY, payload) if payload else (WEBRTC_BINARY_EMPTY, b"\x00")
        number = channel.id
        waits = self._data_channel_queue or self._outbound_queue or self._reconfig_queue
        if number is None or channel.maxPacketLifeTime or waits or not self._is_established():
            channel._addBufferedAmount(len(data))
            self._data_channel_queue.append((channel, kind, data))
            run_now(self._data_channel_flush())
        else:  # what the flush would do with this one message; what is buffered would go up and down again
            run_now(self._send(number, kind, data, None, channel.maxRetransmits, channel.ordered))

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
        self._forward_tsn_chunk = None


def run_now(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run to its end a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError("the SCTP stack waited for something")


class DataChannels:
    """The channels of one transport. Only `receive` and `send` raise, and those only TransportFailure."""

    def __init__(self, listener: DataListener, drops: Counter[str]) -> None:
        """drops: where lost messages are counted, by reason."""
        self._listener = listener
        self._drops = drops
        self._errors = 0
        self._max_message_bytes = MAX_MESSAGE_BYTES
        self._channels: dict[Channel, RTCDataChannel] = {}
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._association: _Association | None = None

    def start(self, role: DtlsRole, remote_port: int, max_message_bytes: int, open_ours: bool) -> None:
        """Begin the association; DTLS must be up. Later calls change nothing.

        role: ours in DTLS, it decides on stream numbers (RFC 8832 section 6). max_message_bytes: the peer's
        `a=max-message-size`, 0: any. open_ours: whether to create the channels from our side.
        """
        if self._association is None:
            self._max_message_bytes = min(max_message_bytes or MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES)
            self._association = _Association(_Wire(role, self._listener.send_application_data))
            self._association.on("datachannel", self._accept)
            run_now(self._association.start(RTCSctpCapabilities(self._max_message_bytes), remote_port))
        if open_ours:
            self._open_ours(self._association)

    def _open_ours(self, association: _Association) -> None:
        """Create those of LiveKit's channels that do not exist yet; they open when the peer has answered."""
        for channel, label in CHANNEL_LABELS.items():
            if channel not in self._channels:
                ordered = channel is Channel.RELIABLE
                parameters = RTCDataChannelParameters(
                    label=label, ordered=ordered, maxRetransmits=None if ordered else 0
                )
                opening = RTCDataChannel(association, parameters)
                self._channels[channel] = opening
                opening.on("open", partial(self._opened, channel))
                opening.on("message", partial(self._message, channel))

    def receive(self, packet: bytes) -> None:
        """Take one SCTP packet. A packet that the stack chokes on is counted; too many raise TransportFailure."""
        if self._association is None:
            self._drops["sctp_early"] += 1
            return
        try:
            run_now(self._association._handle_data(packet))
        except TransportFailure:
            raise
        except Exception as error:  # assertions, struct errors: the peer's bytes, so any exception may come
            self._drops["sctp_error"] += 1
            self._errors += 1
            logger.debug("SCTP packet refused: %r", error)
            if self._errors > MAX_ERRORS:
                raise TransportFailure("data: too many bad packets") from error

    def send(self, channel: Channel, payload: bytes) -> None:
        """Send one message, or queue or drop it as the channel's nature asks. Raises TransportFailure when more than
        MAX_QUEUED_BYTES wait on the reliable channel."""
        if len(payload) > self._max_message_bytes:
            self._drops["data_too_large"] += 1
            return
        through = self._channels.get(channel)
        reliable = channel is Channel.RELIABLE
        if reliable and self._queued_bytes(through) + len(payload) > MAX_QUEUED_BYTES:
            raise TransportFailure("data: peer reads too slowly")
        if self._association is not None and through is not None and through.readyState == "open":
            if not reliable and through.bufferedAmount > MAX_LOSSY_QUEUED_BYTES:
                self._drops["data_lossy_full"] += 1
            else:
                self._association.send_binary(through, payload)
        elif reliable and (through is None or through.readyState == "connecting"):
            self._waiting.append(payload)
            self._waiting_bytes += len(payload)
        else:
            self._drops["data_not_open"] += 1

    def close(self) -> None:
        """Abort the association; its timers end. Idempotent."""
        association, self._association = self._association, None
        if association is not None:
            association.end()
        self._channels.clear()
        self._waiting.clear()

    def _queued_bytes(self, through: RTCDataChannel | None) -> int:
        return self._waiting_bytes + (through.bufferedAmount if through is not None else 0)

    def _accept(self, opened: RTCDataChannel) -> None:
        """The peer opened a channel."""
        channel = LABELS.get(opened.label)
        if channel is None:
            return
        opened.on("message", partial(self._message, channel))
        current = self._channels.get(channel)
        if current is None or current.readyState != "open":
            self._channels[channel] = opened
            self._opened(channel)

    def _opened(self, channel: Channel) -> None:
        through = self._channels[channel]
        if channel is Channel.RELIABLE:
            while self._waiting and self._association is not None and through.readyState == "open":
                payload = self._waiting.popleft()
                self._waiting_bytes -= len(payload)
                self._association.send_binary(through, payload)
        self._listener.channel_opened(channel)

    def _message(self, channel: Channel, message: bytes | str) -> None:
        payload = message.encode() if isinstance(message, str) else message
        if len(payload) > MAX_MESSAGE_BYTES:
            self._drops["data_too_large"] += 1
            return
        self._listener.message_received(channel, payload)
