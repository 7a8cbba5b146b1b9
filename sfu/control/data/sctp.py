"""Data channels (RFC 8831, 8832) of one transport: LiveKit's three labels over SCTP over DTLS."""

import asyncio
import logging
from collections import Counter, deque
from functools import partial
from typing import Protocol

from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters
from aiortc.rtcsctptransport import RTCSctpCapabilities

from sfu.control.data.association import Association, Wire, run_now
from sfu.control.data.backlog import Backlog, Message
from sfu.control.data.sctp_fence import is_bare_sack, refusal
from sfu.errors import TransportFailure
from sfu.parameters import CHANNEL_LABELS, Channel, DtlsRole

logger = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 256 << 10
"""Largest message in either direction: our `a=max-message-size`, as browsers announce it."""
MAX_LOSSY_QUEUED_BYTES = 8 << 10
"""Lossy messages are dropped while this much waits: old news is of no use (LiveKit has the same number)."""
MAX_FRAMES_QUEUED_BYTES = 64 << 10
"""Packets of data tracks are dropped while this much waits. One frame may have several: less would break frames."""
MAX_QUEUED: dict[Channel, int] = {Channel.LOSSY: MAX_LOSSY_QUEUED_BYTES, Channel.DATA_TRACK: MAX_FRAMES_QUEUED_BYTES}
STALL_POLL_S, STALL_POLLS = 1.0, 10
"""A receiver that holds a sender back is looked at each second, this many times."""
MIN_TAKEN_CHUNKS = 16
"""When it has taken fewer chunks than this (of 1,160 bytes) in all that time, its reliable channel is closed: it would
hold everybody back for good."""
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


class DataChannels:
    """The channels of one transport. Only `receive` raises, and only TransportFailure."""

    def __init__(self, listener: DataListener, drops: Counter[str]) -> None:
        """drops: where lost messages are counted, by reason."""
        self._listener = listener
        self._drops = drops
        self._errors = 0
        self._max_message_bytes = MAX_MESSAGE_BYTES
        self._channels: dict[Channel, RTCDataChannel] = {}
        self._backlog = Backlog()
        self._lost = False
        """The peer took nothing for too long: it gets no reliable messages (until the channel opens, or any more)."""
        self._stall: asyncio.TimerHandle | None = None
        self._taken: deque[int] = deque(maxlen=STALL_POLLS)
        self._association: Association | None = None

    def start(self, role: DtlsRole, remote_port: int, max_message_bytes: int, open_ours: bool) -> None:
        """Begin the association; DTLS must be up. Later calls change nothing.

        role: ours in DTLS, it decides on stream numbers (RFC 8832 section 6). max_message_bytes: the peer's
        `a=max-message-size`, 0: any. open_ours: whether to create the channels from our side.
        """
        if self._association is None:
            self._max_message_bytes = min(max_message_bytes or MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES)
            wire = Wire(role, self._listener.send_application_data)
            self._association = Association(wire, self._backlog, self._drops)
            self._association.on("datachannel", self._accept)
            run_now(self._association.start(RTCSctpCapabilities(self._max_message_bytes), remote_port))
        if open_ours:
            self._open_ours(self._association)

    def _open_ours(self, association: Association) -> None:
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
                opening.on("close", partial(self._closed, channel, opening))

    def receive(self, packet: bytes) -> None:
        """Take one SCTP packet. One that breaks the rules is counted; too many of them raise TransportFailure."""
        if self._association is None:
            self._drops["sctp_early"] += 1
            return
        is_sack = is_bare_sack(packet)
        if not is_sack and (reason := refusal(packet)):
            self._refuse("sctp_refused", reason)
            return
        try:
            if not (is_sack and self._association.take_bare_sack(packet)):
                self._association.take(packet)
        except TransportFailure:
            raise
        except Exception as error:  # assertions, struct errors: the peer's bytes, so any exception may come
            self._refuse("sctp_error", repr(error))

    def _refuse(self, drop: str, reason: str) -> None:
        self._drops[drop] += 1
        self._errors += 1
        logger.debug("SCTP packet refused: %s", reason)
        if self._errors > MAX_ERRORS:
            raise TransportFailure("data: too many bad packets")

    def send(self, channel: Channel, message: Message) -> None:
        """Send one message, or let it wait or drop it, as the channel is reliable or not."""
        if len(message.payload) > self._max_message_bytes:
            self._drops["data_too_large"] += 1
        elif channel is Channel.RELIABLE:
            self._send_reliable(message)
        else:
            self._send_lossy(channel, message.payload)

    def hold_window(self, size: int) -> None:
        """Make the receive window that the peer is told smaller by `size` bytes."""
        if self._association is not None:
            self._association.hold_window(size)

    def release_window(self, size: int) -> None:
        """Give `size` bytes back to the receive window."""
        if self._association is not None:
            self._association.release_window(size)

    def close(self) -> None:
        """Abort the association, end its timers, and hold no sender back any more. Idempotent."""
        association, self._association = self._association, None
        if association is not None:
            association.end()
        self._channels.clear()
        self._backlog.clear()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _send_reliable(self, message: Message) -> None:
        through = self._channels.get(Channel.RELIABLE)
        state = through.readyState if through is not None else "connecting"
        if self._lost or state not in ("open", "connecting"):
            self._drops["data_stalled" if self._lost else "data_not_open"] += 1
            return
        if not message.has_sender and self._backlog.size > message.ledger.allowance:
            self._drops["data_beyond_lag"] += 1
            return
        association = self._association
        if association is None or through is None or state != "open":
            self._backlog.append(message)
        elif association.send_at_once(through, message.payload):
            return
        else:
            self._backlog.append(message)
            association.flush()
        if self._stall is None and self._backlog.holds_back:
            self._taken.clear()
            self._look_after_stall()

    def _send_lossy(self, channel: Channel, payload: bytes) -> None:
        through = self._channels.get(channel)
        if self._association is None or through is None or through.readyState != "open":
            self._drops["data_not_open"] += 1
        elif through.bufferedAmount > MAX_QUEUED[channel]:
            self._drops["data_lossy_full"] += 1
        else:
            self._association.send_binary(through, payload)

    def _look_after_stall(self) -> None:
        """See each second whether a peer that holds senders back takes anything."""
        self._stall = None
        if not self._backlog.holds_back:
            return
        taken = self._association.acknowledged if self._association is not None else 0
        if len(self._taken) == STALL_POLLS and (taken - self._taken[0]) % (1 << 32) < MIN_TAKEN_CHUNKS:
            self._lose()
            return
        self._taken.append(taken)
        self._stall = asyncio.get_running_loop().call_later(STALL_POLL_S, self._look_after_stall)

    def _lose(self) -> None:
        """Give up the reliable channel of a peer that takes nothing; what waited for one that opens later is lost."""
        logger.info("a peer takes no data: %d messages dropped", len(self._backlog))
        self._drops["data_stalled"] += len(self._backlog)
        self._lost = True
        self._backlog.clear()
        through = self._channels.get(Channel.RELIABLE)
        if self._association is not None and through is not None and through.readyState == "open":
            self._association.close_channel(through)

    def _accept(self, opened: RTCDataChannel) -> None:
        """Take a channel that the peer opened."""
        channel = LABELS.get(opened.label)
        if channel is None:
            return
        opened.on("message", partial(self._message, channel))
        opened.on("close", partial(self._closed, channel, opened))
        current = self._channels.get(channel)
        if current is None or current.readyState != "open":
            self._channels[channel] = opened
            self._opened(channel)

    def _opened(self, channel: Channel) -> None:
        if channel is Channel.RELIABLE and self._association is not None:
            self._lost = False
            self._association.reliable = self._channels[channel]
            self._association.flush()
        self._listener.channel_opened(channel)

    def _closed(self, channel: Channel, closed: RTCDataChannel) -> None:
        """The peer has closed a channel, or the association has ended."""
        if channel is Channel.RELIABLE and self._channels.get(channel) is closed:
            self._drops["data_not_open"] += len(self._backlog)
            self._backlog.clear()

    def _message(self, channel: Channel, message: bytes | str) -> None:
        payload = message.encode() if isinstance(message, str) else message
        if len(payload) > MAX_MESSAGE_BYTES:
            self._drops["data_too_large"] += 1
            return
        self._listener.message_received(channel, payload)
