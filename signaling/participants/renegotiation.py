"""When and how SDP is exchanged with one client. It has one connection on which it offers, or two with one offerer
each.

Changes are collected and negotiated together. Of several offers that wait, only the newest is answered.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial

import structlog
from livekit.protocol.models import MEDIA_FAILURE, ClientInfo
from livekit.protocol.rtc import (
    PUBLISHER,
    SUBSCRIBER,
    LeaveRequest,
    MediaSectionsRequirement,
    SessionDescription,
    SignalResponse,
    SignalTarget,
    TrickleRequest,
)

from sfu.parameters import TransportId
from signaling.errors import SessionEnded
from signaling.participants.owner import Owner
from signaling.participants.publishing import Publishing
from signaling.participants.subscriptions import Subscriptions
from signaling.records.fallbacks import Way
from signaling.sdp.candidates import Trickled
from signaling.sdp.forwarding import Forwarding
from signaling.sdp.peer_connection import (
    AnsweringConnection,
    AnswerResult,
    OfferingConnection,
    SdpError,
    WantedTrack,
)

COLLECT_S = 0.02
"""Changes within this time share one negotiation. It is too short to be noticed, and long enough for a burst."""
MAX_COLLECT_S = 1.0
"""The longest time that changes are collected. In a large room one join makes everybody negotiate."""
ANSWER_TIMEOUT_S = 15.0
"""The time, as in livekit-server, after which a client that has not answered has to reconnect."""
ANNOUNCES_ONCE = frozenset(
    {ClientInfo.RUST, ClientInfo.PYTHON, ClientInfo.NODE, ClientInfo.CPP, ClientInfo.UNITY, ClientInfo.UNREAL}
)
"""Clients on LiveKit's Rust SDK. With two connections it announces each pair of track and m-section only once: a track
that is unsubscribed and comes back on its m-section is received and never shown."""
MAX_SAME_REQUIREMENTS = 5
"""How often a client is asked for the same m-sections before the server waits for a change."""

log = structlog.get_logger("signaling.renegotiation")


class Renegotiation(ABC):
    """The SDP negotiations of one participant."""

    def __init__(self, participant: Owner, publishing: Publishing, subscriptions: Subscriptions) -> None:
        """Open the transports."""
        self._participant = participant
        self._publishing = publishing
        self._subscriptions = subscriptions
        self._answering = AnsweringConnection(
            participant.node.engine,
            may_pause=participant.allow_pause,
            path_memory=participant.path_memory,
            only_tcp=participant.way is Way.TCP,
        )
        self._trickled: dict[SignalTarget, str] = {}
        """Our ufrag of each connection with which the client was last sent candidates."""
        self._waiting: SessionDescription | None = None
        self._timer: asyncio.TimerHandle | None = None
        """The next negotiation, until its turn has come."""
        self._cost_s = 0.0
        """The time that answering the last offer took."""
        self._answers = 0
        """The number of offers that were answered or refused."""
        self._waiting_handle: asyncio.Handle | None = None
        self.closed = False

    @property
    @abstractmethod
    def transports(self) -> tuple[TransportId, ...]:
        """The client's transports, the primary one first. Media counts as connected when that one is."""

    @property
    @abstractmethod
    def data_transport(self) -> TransportId:
        """The transport over which data packets for the client go."""

    @abstractmethod
    def want(self, track: WantedTrack) -> None:
        """Forward a track from the next negotiation on, and request that negotiation."""

    @abstractmethod
    def unwant(self, track_sid: str) -> None:
        """Stop forwarding a track."""

    @property
    @abstractmethod
    def forwardings(self) -> Mapping[str, Forwarding]:
        """The wanted tracks as they are forwarded, by sid."""

    @abstractmethod
    def unsupported(self) -> frozenset[str]:
        """Return the sids of wanted tracks that the client has no codec for."""

    @abstractmethod
    def start(self) -> None:
        """Begin to negotiate, after the join is answered."""

    @abstractmethod
    def resume(self) -> None:
        """Go on after the client came back on a new socket. What was under way on the old one is lost."""

    @abstractmethod
    def receive_answer(self, answer: SessionDescription) -> None:
        """Handle a client's answer.

        Raises:
            SessionEnded: the answer cannot be used.
        """

    @abstractmethod
    def tick(self, now: float) -> None:
        """Check the timeouts. `now` is the node's clock, in seconds.

        Raises:
            SessionEnded: the client has not answered in time.
        """

    @abstractmethod
    def _negotiate(self) -> None: ...

    @abstractmethod
    def _answered(self) -> None: ...

    def receive_offer(self, offer: SessionDescription) -> None:
        """Answer a client's offer in the next turn of the event loop. It replaces one that still waits."""
        self._waiting = offer
        if self._waiting_handle is None:
            self._waiting_handle = asyncio.get_running_loop().call_soon(self._answer_waiting)

    def answer(self, offer: SessionDescription) -> None:
        """Answer an offer at once.

        Raises:
            SessionEnded: the offer is malformed or too large.
        """
        try:
            self._take(offer.sdp, partial(self._send_answer, offer.id))
        except SdpError as error:
            raise _unusable("offer", error) from error

    def _send_answer(self, id: int, result: AnswerResult) -> None:
        description = SessionDescription(type="answer", sdp=result.sdp, id=id, mid_to_track_id=result.mid_to_track_id)
        self._participant.send(SignalResponse(answer=description))
        if result.candidates is not None:
            self._trickle(result.candidates, PUBLISHER)

    def _trickle(self, candidates: Trickled, target: SignalTarget) -> None:
        """Send the candidates of a description once more one by one, unless the client has them so."""
        if self._trickled.get(target) == candidates.ufrag:
            return
        self._trickled[target] = candidates.ufrag
        messages = candidates.messages()
        for number, message in enumerate(messages, 1):
            trickle = TrickleRequest(candidateInit=message, target=target, final=number == len(messages))
            self._participant.send(SignalResponse(trickle=trickle))

    def _take(self, offer: str, tell: Callable[[AnswerResult], None]) -> None:
        """Answer an offer: `tell` takes the answer before others are told of what the offer changed.

        Raises:
            SdpError: the offer cannot be used; nothing was changed.
        """
        participant = self._participant
        began = participant.node.clock()
        self._answers += 1
        result = self._answering.answer(offer, self._publishing.decide)
        participant.room.before_description()
        tell(result)
        self._publishing.apply(result)
        self._answered()
        self._cost_s = participant.node.clock() - began

    def request(self) -> None:
        """Negotiate soon."""
        if self._timer is None and not self.closed:
            whole_room_s = self._cost_s * len(self._participant.room.participants)
            delay_s = COLLECT_S + min(MAX_COLLECT_S, whole_room_s)
            due_work, room = self._participant.node.due_work, self._participant.room
            self._timer = asyncio.get_running_loop().call_later(delay_s, due_work.put, room, self._run)

    def close(self) -> None:
        """Close the connections."""
        self.closed = True
        self._waiting = None
        for handle in (self._timer, self._waiting_handle):
            if handle is not None:
                handle.cancel()
        self._answering.close()

    def _run(self) -> None:
        self._timer = None
        self._participant.room.guard(self._participant, self._negotiate)

    def _answer_waiting(self) -> None:
        self._waiting_handle = None
        offer, self._waiting = self._waiting, None
        if offer is None or self.closed:
            return
        participant = self._participant
        began = participant.share.clock()
        participant.room.guard(participant, partial(self.answer, offer))
        took_s = participant.share.clock() - began
        if self._answers > 1:
            participant.share.spend(took_s)
        else:  # it belongs to the join
            participant.node.entrances.charge(participant.who, took_s)


class SingleConnection(Renegotiation):
    """`/rtc/v1`: one connection for both directions. The client offers; the server asks for offers that it needs."""

    def __init__(self, participant: Owner, publishing: Publishing, subscriptions: Subscriptions) -> None:
        """Open the transport."""
        super().__init__(participant, publishing, subscriptions)
        self._offered = False
        self._asked: tuple[int, int] | None = None
        self._before: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
        """The mids of the client's receiving m-sections when it was asked for more: audio, video."""
        self._times_asked = 0
        self._asked_at: float | None = None
        """When the client was asked for an offer; None: no such offer is due."""

    @property
    def transports(self) -> tuple[TransportId, ...]:
        """The client's only transport."""
        return (self._answering.transport,)

    @property
    def data_transport(self) -> TransportId:
        """The client's only transport."""
        return self._answering.transport

    def want(self, track: WantedTrack) -> None:
        """Forward a track from the next negotiation on, and request that negotiation."""
        self._answering.want(track)
        self._times_asked = 0
        self.request()

    def unwant(self, track_sid: str) -> None:
        """Stop forwarding a track."""
        self._answering.unwant(track_sid)
        self.request()

    @property
    def forwardings(self) -> Mapping[str, Forwarding]:
        """The wanted tracks as they are forwarded, by sid."""
        return self._answering.forwardings

    def unsupported(self) -> frozenset[str]:
        """Return the sids of wanted tracks that the client has no codec for."""
        return self._answering.unsupported()

    def start(self) -> None:
        """Do nothing: the client's first offer comes with the join or right after it."""

    def resume(self) -> None:
        """Forget what was asked on the old socket. The client restarts ICE by an offer of its own."""
        self._asked_at = None
        self.request()

    def receive_answer(self, answer: SessionDescription) -> None:
        """Do nothing: the server never offers on this connection."""

    def tick(self, now: float) -> None:
        """Ask again if the client did not react."""
        if self._asked_at is not None and now - self._asked_at > ANSWER_TIMEOUT_S:
            self._asked_at = None
            self._negotiate()

    def _negotiate(self) -> None:
        if not self._offered or self._asked_at is not None:
            return
        missing = self._answering.missing_sections()
        if missing is None:
            return
        self._times_asked = self._times_asked + 1 if missing == self._asked else 1
        if self._times_asked > MAX_SAME_REQUIREMENTS:
            log.warning("client does not add the media sections it was asked for", sections=missing)
            return
        self._asked, self._before = missing, self._answering.receiving_sections()
        self._asked_at = self._participant.node.clock()
        requirement = MediaSectionsRequirement(num_audios=missing[0], num_videos=missing[1])
        self._participant.send(SignalResponse(media_sections_requirement=requirement))

    def _answered(self) -> None:
        self._offered = True
        if not self._still_owes():
            self._asked_at = None
        self._subscriptions.negotiated()
        self.request()

    def _still_owes(self) -> bool:
        """Tell whether the offer that was just answered was on its way when the client was asked for m-sections.

        Then they will come with its next offer. If it were asked again, it would add them twice and never remove one. A
        receiving m-section on which it publishes now does not count as missing.
        """
        if self._asked_at is None or self._asked is None:
            return False
        now = self._answering.receiving_sections()
        return any(len(have - had) < more for have, had, more in zip(now, self._before, self._asked, strict=True))


class DualConnection(Renegotiation):
    """`/rtc`: the client offers what it publishes on one connection; the server offers what it receives on another."""

    def __init__(self, participant: Owner, publishing: Publishing, subscriptions: Subscriptions) -> None:
        """Open both transports, and the data channels on the one where the server offers."""
        super().__init__(participant, publishing, subscriptions)
        engine = participant.node.engine
        renews = participant.client.sdk in ANNOUNCES_ONCE
        self._offering = OfferingConnection(
            engine,
            renews_sections=renews,
            may_pause=participant.allow_pause,
            path_memory=participant.path_memory,
            beside=self._answering.transport,
            only_tcp=participant.way is Way.TCP,
        )
        engine.open_channels(self._offering.transport)
        self._subscriber_primary = participant.subscriber_primary
        self._offer_id = 0
        self._offered_at: float | None = None

    @property
    def transports(self) -> tuple[TransportId, ...]:
        """Both transports, the primary one first."""
        both = (self._offering.transport, self._answering.transport)
        return both if self._subscriber_primary else both[::-1]

    @property
    def data_transport(self) -> TransportId:
        """The transport of the connection on which the server offers."""
        return self._offering.transport

    def want(self, track: WantedTrack) -> None:
        """Forward a track from the next negotiation on, and request that negotiation."""
        self._offering.want(track)
        self.request()

    def unwant(self, track_sid: str) -> None:
        """Stop forwarding a track."""
        self._offering.unwant(track_sid)
        self.request()

    @property
    def forwardings(self) -> Mapping[str, Forwarding]:
        """The wanted tracks as they are forwarded, by sid."""
        return self._offering.forwardings

    def unsupported(self) -> frozenset[str]:
        """Return the sids of wanted tracks that the client has no codec for."""
        return self._offering.unsupported()

    def start(self) -> None:
        """Send the first offer at once."""
        self._negotiate()

    def resume(self) -> None:
        """Offer again with new ICE credentials. An answer that was under way on the old socket is lost."""
        self._send(self._offering.offer(ice_restart=True))

    def receive_answer(self, answer: SessionDescription) -> None:
        """Take the answer to the last offer. An answer to an earlier one is dropped."""
        if self._offered_at is None or answer.id not in (0, self._offer_id):
            return
        if self._offer_id == 1:
            self._participant.share.exempt()  # it belongs to the join
        try:
            self._offering.accept_answer(answer.sdp)
        except SdpError as error:
            raise _unusable("answer", error) from error
        self._offered_at = None
        self._subscriptions.negotiated()
        self.request()

    def tick(self, now: float) -> None:
        """End the session of a client that has a socket and does not answer."""
        if self._participant.connection is None or self._offered_at is None:
            return
        if now - self._offered_at > ANSWER_TIMEOUT_S:
            raise SessionEnded(MEDIA_FAILURE, LeaveRequest.RECONNECT, "no answer to our offer")

    def close(self) -> None:
        """Close both connections."""
        super().close()
        self._offering.close()

    def _negotiate(self) -> None:
        self._send(self._offering.offer())

    def _send(self, offer: tuple[str, dict[str, str]] | None) -> None:
        if offer is None:
            return
        sdp, mid_to_track_id = offer
        self._offer_id += 1
        self._offered_at = self._participant.node.clock()
        description = SessionDescription(type="offer", sdp=sdp, id=self._offer_id, mid_to_track_id=mid_to_track_id)
        self._participant.room.before_description()
        self._participant.send(SignalResponse(offer=description))
        self._trickle(self._offering.candidates(), SUBSCRIBER)
        self._subscriptions.negotiated()

    def _answered(self) -> None:
        pass


def _unusable(what: str, error: SdpError) -> SessionEnded:
    return SessionEnded(MEDIA_FAILURE, LeaveRequest.DISCONNECT, f"unusable {what}: {error}")
