"""A transport on the control thread: ICE credentials, DTLS, keys for SRTP, data channels.

Packets of media never come here. The media thread checks connectivity and protects packets; this object hands it
credentials, number maps and keys by commands, and gets DTLS datagrams and notices from it.
"""

import asyncio
import contextlib
import logging
import secrets
import string
from collections import Counter
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from sfu.control.data.backlog import Message
from sfu.control.event_queue import EventQueue
from sfu.control.media_maps import MediaMaps
from sfu.control.rows import pack_ufrag
from sfu.control.security.dtls import DtlsConnection, is_one_data_record
from sfu.control.security.dtls import State as DtlsState
from sfu.control.shards import Shard
from sfu.control.ssrcs import Ssrcs
from sfu.errors import EngineError, TransportFailure
from sfu.events import ChannelOpened, DataReceived, TransportConnected, TransportFailed
from sfu.parameters import (
    Channel,
    IceCredentials,
    MediaParameters,
    RemoteTransport,
    SubscriptionId,
    TrackId,
    TransportId,
)
from sfu.schema.codes import Command, RowState

if TYPE_CHECKING:
    from sfu.control.security.dtls import SrtpSessions

logger = logging.getLogger(__name__)

ICE_CHARACTERS = string.ascii_letters + string.digits
"""A part of RFC 8839's ice-char that needs no care in URLs and logs."""
UFRAG_CHARACTERS = 8
PASSWORD_CHARACTERS = 24
"""142 bits; RFC 8445 section 5.3 asks for 128."""
MAX_EARLY_DATAGRAMS = 8
"""DTLS that arrives before the peer's answer does: a ClientHello in two datagrams, a few times."""
MAX_RECORDS_PER_DATAGRAM = 4
"""Records of application data in one datagram, each an SCTP packet that may be answered. Honest stacks send one."""
SHORTEST_TIMER_S = 0.01
KEPT_UFRAGS = 3
"""With ICE restarts: the ufrag in force, the one before, and one that the media thread has not taken yet."""


def new_credentials() -> IceCredentials:
    """Fresh random ICE credentials of ours."""
    characters = ""
    # One number, read digit by digit: a random number for each character costs thirty times as much.
    number = secrets.randbelow(len(ICE_CHARACTERS) ** (UFRAG_CHARACTERS + PASSWORD_CHARACTERS))
    for _ in range(UFRAG_CHARACTERS + PASSWORD_CHARACTERS):
        number, digit = divmod(number, len(ICE_CHARACTERS))
        characters += ICE_CHARACTERS[digit]
    return IceCredentials(characters[:UFRAG_CHARACTERS], characters[UFRAG_CHARACTERS:])


class TransportState(Enum):
    """FAILED: signalling has been told and must close it. CLOSING: it did."""

    OPEN = "open"
    FAILED = "failed"
    CLOSING = "closing"


class Follower(Protocol):
    """What stands for a transport elsewhere and has the same number maps."""

    def set_media(self, media: MediaParameters) -> None:
        """Take over what the publisher's transport has negotiated."""

    def settle(self) -> bool:
        """Hand over what had to wait. True: all done."""


class Transport:
    """One ICE/DTLS/SRTP association. Exceptions of the peer's making end in a TransportFailed event."""

    def __init__(
        self,
        number: TransportId,
        shard: Shard,
        events: EventQueue,
        drops: Counter[str],
        may_pause: bool = False,
        resumed_bps: int = 0,
        beside: "Transport | None" = None,
    ) -> None:
        """Takes a row and opens it; resumed_bps: what its client's last path carried, 0: not known; beside: the
        transport of the same shard on which its client publishes.

        Raises:
            TableFull: no row is free.
        """
        from sfu.control.data.sctp import DataChannels  # imports aiortc, which no engine needs to start

        self.id = number
        self.state = TransportState.OPEN
        self.ice = new_credentials()
        self.ssrcs = Ssrcs()
        self.tracks: dict[TrackId, None] = {}
        self.subscriptions: dict[SubscriptionId, None] = {}
        """What hangs on it, in order."""
        self.followers: dict[Shard, Follower] = {}
        """What stands for it in other shards, where somebody is subscribed to it."""
        self.shard = shard
        self._events = events
        self._drops = drops
        self._remote: RemoteTransport | None = None
        self._dtls: DtlsConnection | None = None
        self._sessions: SrtpSessions | None = None
        self._data: DataChannels | None = DataChannels(self, drops)
        self._wants_channels = False
        self._early: list[bytes] = []
        self._last_path = -1
        self._newest_record = -1
        self._timer: asyncio.TimerHandle | None = None
        self._waiting_ice: IceCredentials | None = None
        self.row: int
        self.generation: int
        other = beside.row if beside is not None else -1
        taken = shard.tables.take_transport(self.ice, self.ssrcs.take(), may_pause, resumed_bps, other)
        self.row, self.generation = taken
        self._ufrag_in_force = pack_ufrag(self.ice.ufrag)
        self._ufrags = [self.ice.ufrag]
        """Those with which checks are answered, or will be soon: at most KEPT_UFRAGS, the newest last."""
        shard.ufrags.add(self.ice.ufrag)
        self._record = shard.memory.table("transports")[self.row]
        self._maps = MediaMaps(shard.tables, self.row, self._record, self._send_media)
        self._push(Command.OPEN_TRANSPORT, relayed=0)

    # What signalling asks.

    def connect(self, remote: RemoteTransport) -> None:
        """Take the peer's half.

        Raises:
            EngineError: a later call changes fingerprints or role.
        """
        if self._remote is not None:
            if set(remote.fingerprints) != set(self._remote.fingerprints) or remote.role is not self._remote.role:
                raise EngineError("the peer changed its DTLS fingerprint or role")
            self._remote = remote
            self._start_data()
            return
        self._remote = remote
        if self.state is not TransportState.OPEN:
            return
        self._dtls = DtlsConnection(self.shard.certificate.context, remote.role, remote.fingerprints)
        early, self._early = self._early, []
        for datagram in early:
            self.receive_datagram(datagram, self._last_path)
        self._start_dtls()

    def restart_ice(self) -> IceCredentials:
        """New local credentials; those in force stay valid until a check with the new ones passes."""
        self.ice = self._waiting_ice = new_credentials()
        self._ufrags.append(self.ice.ufrag)
        self.shard.ufrags.add(self.ice.ufrag)
        self.shard.ufrags.difference_update(self._ufrags[:-KEPT_UFRAGS])
        del self._ufrags[:-KEPT_UFRAGS]
        self.settle()
        return self.ice

    def set_media(self, media: MediaParameters) -> None:
        """Replace what payload types and extension ids mean.

        Raises:
            EngineError: a number is out of range.
        """
        self._maps.set(media)
        for follower in self.followers.values():
            follower.set_media(media)

    @property
    def media(self) -> MediaParameters:
        """The media parameters that were set last."""
        return self._maps.newest

    def settle(self) -> bool:
        """Hand over what had to wait because the media thread has not taken what came before it. True: all done."""
        if self.state is TransportState.CLOSING:
            return True
        if self._waiting_ice is not None and self._record["ufrag"][0] == self._ufrag_in_force:
            self._ufrag_in_force = pack_ufrag(self._waiting_ice.ufrag)
            self.shard.tables.write_credentials(self.row, self._waiting_ice)
            self._waiting_ice = None
            self._push(Command.NEW_CREDENTIALS)
        followers = [each.settle() for each in self.followers.values()]
        return self._maps.settle() and all(followers) and self._waiting_ice is None

    def open_channels(self) -> None:
        """Create LiveKit's data channels from our side, now or once SCTP is up."""
        self._wants_channels = True
        self._start_data()

    def send_data(self, channel: Channel, message: Message) -> None:
        """Send, queue or drop one message."""
        if self._data is None or (self._remote is not None and self._remote.sctp_port is None):
            self._drops["data_not_open"] += 1
        else:
            try:
                self._data.send(channel, message)
            except Exception as error:
                self._fail_on_data(error)

    def hold_window(self, size: int) -> None:
        """Announce so many bytes less to the peer: what it sent has not reached everybody."""
        if self._data is not None:
            self._data.hold_window(size)

    def release_window(self, size: int) -> None:
        """Announce to the peer bytes that `hold_window` held back."""
        if self._data is not None:
            try:
                self._data.release_window(size)
            except Exception as error:
                self._fail_on_data(error)

    def _fail_on_data(self, error: Exception) -> None:
        """End this transport after an error in its data channels.

        The error surfaced while another transport was being served, which goes on.
        """
        logger.error("transport %d failed on data", self.id, exc_info=error)
        self.fail("internal error")

    def close(self) -> None:
        """Say goodbye and close the row; `closed` must follow when the media thread has answered."""
        if self.state is TransportState.CLOSING:
            return
        if self.state is TransportState.OPEN:
            self._end()
        self.state = TransportState.CLOSING
        self._push(Command.CLOSE_TRANSPORT)

    def closed(self) -> None:
        """The media thread no longer uses the row: its keys may go."""
        self.state = TransportState.CLOSING
        self._cancel_timer()
        self._sessions = None
        self.shard.ufrags.difference_update(self._ufrags)
        self.shard.tables.transports.give_back(self.row)

    # What the media thread tells.

    def path_selected(self) -> None:
        """There is a path to the peer, or another than before."""
        self._start_dtls()

    def receive_datagram(self, datagram: bytes, path: int) -> None:
        """A DTLS datagram that came over path row `path`."""
        if self.state is not TransportState.OPEN:
            return
        self._last_path = path
        dtls = self._dtls
        if dtls is None:
            if len(self._early) < MAX_EARLY_DATAGRAMS:
                self._early.append(datagram)
            return
        try:
            if self._sessions is not None and is_one_data_record(datagram):
                # Of data nothing follows. A repeated flight of the handshake, which may come later, must be answered.
                self._receive_record(dtls, datagram, path)
                return
            packets = dtls.receive(datagram)
            self._secure(path)
            for packet in packets[:MAX_RECORDS_PER_DATAGRAM]:
                if self._data is not None:
                    self._data.receive(packet)
        except TransportFailure as error:
            self.fail(str(error))
            return
        if len(packets) > MAX_RECORDS_PER_DATAGRAM:
            self._drops["dtls_records"] += len(packets) - MAX_RECORDS_PER_DATAGRAM
        self._flush()

    def fail(self, reason: str) -> None:
        """End the association and tell signalling, once. The row stays until `close`."""
        if self.state is TransportState.OPEN:
            self.state = TransportState.FAILED
            # Not now: this may run inside the SCTP stack, which would start its timers again after its end.
            self.shard.loop.call_soon(self._end)
            self._events.put(TransportFailed(self.id, reason))

    # What the data channels tell.

    def send_application_data(self, data: bytes) -> None:
        """Send one SCTP packet over DTLS."""
        if self._dtls is None or self.state is not TransportState.OPEN:
            return
        try:
            self._dtls.send(data)
        except TransportFailure as error:
            self.fail(str(error))
            return
        self._send_waiting(self._dtls)  # and no timer: of the handshake's flights nothing has changed

    def channel_opened(self, channel: Channel) -> None:
        """A channel can be written to."""
        self._events.put(ChannelOpened(self.id, channel))

    def message_received(self, channel: Channel, payload: bytes) -> None:
        """One whole message came."""
        self._events.put(DataReceived(self.id, channel, payload))

    # Inside.

    def _push(self, kind: Command, **fields: int) -> None:
        self.shard.mailbox.push(kind, self.row, self.generation, **fields)

    def _send_media(self, row: int) -> None:
        self._push(Command.SET_MEDIA, other_row=row)

    def _path(self) -> int:
        """The path row to send on, -1 when there is none."""
        shard = self.shard
        for path in (shard.selected_paths.item(self.row), self._last_path):
            if path >= 0 and shard.path_states.item(path) == RowState.OPEN and shard.path_owners.item(path) == self.row:
                return int(path)
        return -1

    def _receive_record(self, dtls: DtlsConnection, datagram: bytes, path: int) -> None:
        """Take one record of data. Follow it to its path, if it is authentic and newer than all before: its epoch and
        number, which RFC 6347 section 4.1 puts first, say that."""
        packet = dtls.receive_record(datagram)
        if packet is None:
            self._flush()
            return
        number = int.from_bytes(datagram[3:11])
        if number > self._newest_record:
            self._newest_record = number
            self._follow(path)
        if self._data is not None:
            self._data.receive(packet)

    def _follow(self, path: int) -> None:
        """Let the media thread send where an authentic datagram came from that is newer than all before."""
        if path != self.shard.selected_paths.item(self.row):
            self._push(Command.FOLLOW_PATH, other_row=path)

    def _start_dtls(self) -> None:
        dtls = self._dtls
        if dtls is None or dtls.state is not DtlsState.NEW or self.state is not TransportState.OPEN or self._path() < 0:
            return
        try:
            dtls.start()
        except TransportFailure as error:
            self.fail(str(error))
            return
        self._flush()

    def _secure(self, path: int) -> None:
        """If a datagram over `path` has just ended the handshake: keys to the media thread, then data channels."""
        if self._dtls is None or self._sessions is not None or self._dtls.state is not DtlsState.CONNECTED:
            return
        self._sessions = self._dtls.sessions
        assert self._sessions is not None
        self.shard.tables.write_cipher(self.row, self._sessions.cipher)
        srtp_in, srtp_out = self._sessions.addresses()
        self._push(Command.START_SRTP, srtp_in=srtp_in, srtp_out=srtp_out)
        self._events.put(TransportConnected(self.id))
        self._start_data()
        self._follow(path)

    def _start_data(self) -> None:
        """Begin SCTP when DTLS is up and data channels were negotiated; idempotent."""
        remote = self._remote
        if self._data is None or self._sessions is None or remote is None:
            return
        if remote.sctp_port is not None:
            self._data.start(remote.role, remote.sctp_port, remote.max_message_size, self._wants_channels)

    def _flush(self) -> None:
        """Send what DTLS has to send, and set its timer."""
        if self._dtls is None:
            return
        self._send_waiting(self._dtls)
        self._cancel_timer()
        seconds = self._dtls.timeout_s()
        if seconds is not None and self.state is TransportState.OPEN:
            self._timer = self.shard.loop.call_later(max(seconds, SHORTEST_TIMER_S), self._timer_expired)

    def _send_waiting(self, dtls: DtlsConnection) -> None:
        datagrams = dtls.datagrams_to_send()
        if datagrams:
            path = self._path()
            for datagram in datagrams:
                if path < 0 or not self.shard.send(self.row, self.generation, path, datagram):
                    self._drops["dtls_unsent"] += 1

    def _timer_expired(self) -> None:
        self._timer = None
        if self._dtls is None or self.state is not TransportState.OPEN:
            return
        try:
            self._dtls.handle_timeout()
        except TransportFailure as error:
            self.fail(str(error))
            return
        self._flush()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        """Stop data channels and DTLS; idempotent. Their last words are sent."""
        self._early.clear()
        if self._data is not None:
            with contextlib.suppress(TransportFailure):
                self._data.close()
            self._data = None
        if self._dtls is not None:
            self._dtls.close()
            self._flush()
            self._dtls = None
        self._cancel_timer()
