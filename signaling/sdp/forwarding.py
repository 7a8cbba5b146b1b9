"""The tracks that one client is to receive: for each one object, which says what is wanted and how it is being sent.

Who calls it: the two kinds of peer connection, which decide on which m-section a track goes and when. The participant's
subscriptions read the same objects, and keep there what they have made of them.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from sfu.engine import Engine, EngineError
from sfu.parameters import Codec, LocalSubscription, SubscriptionId, TransportId
from signaling.sdp.negotiation import Selection, WantedTrack

log = structlog.get_logger("signaling.forwarding")


@dataclass(frozen=True, slots=True)
class Sent:
    """How a track is being sent."""

    mid: str
    selection: Selection
    local: LocalSubscription


@dataclass(slots=True, eq=False)
class Forwarding:
    """One track's way to one client, for as long as it is wanted without a break.

    A client announces a track anew only after its m-section was quiet. So an m-section that holds the way of a track
    that was unwanted meanwhile is to become quiet, even if the track is wanted again now and has another way.
    """

    wanted: WantedTrack
    sent: Sent | None = None
    """None: not now."""
    answered: bool = True
    """False: only the outstanding offer tells of it. It is subscribed, since its SSRCs stand there, but paused. Media
    that comes before libwebrtc has settled its answer can take the renderer from the receiver that it just negotiated:
    all of the track is decoded then, and none of it shown."""
    declined: bool = False
    """The client did not take it although it has the codec."""
    refused: bool = False
    """The engine had no room for it, or its engine track had just ended."""

    # what the participant's subscriptions keep here
    id: SubscriptionId | None = None
    """The engine's, as far as they have taken it over; None until it is negotiated."""
    ready: bool = False
    """Whether they have let the media go, since the client has answered."""
    lacking: frozenset[Codec] = frozenset()
    """Codecs of this track that the client cannot decode."""

    @property
    def track_sid(self) -> str:
        """The track's name."""
        return self.wanted.track_sid

    @property
    def subscription(self) -> SubscriptionId | None:
        """The engine's id, while the track is sent."""
        return self.sent.local.id if self.sent is not None else None


class Forwardings:
    """The ways of all tracks that one connection is to send. They are tracks of one room, which bounds their number."""

    def __init__(self, engine: Engine, transport: TransportId) -> None:
        """Nothing is wanted."""
        self._engine = engine
        self._transport = transport
        self.by_sid: dict[str, Forwarding] = {}
        """First wanted first."""

    def want(self, track: WantedTrack) -> Forwarding:
        """Add a track, or change it. A subscription stays while the track has its engine track with that codec."""
        forwarding = self.by_sid.get(track.track_sid)
        if forwarding is None:
            forwarding = self.by_sid[track.track_sid] = Forwarding(track)
            return forwarding
        if forwarding.wanted != track:
            forwarding.declined = False
        forwarding.wanted, forwarding.refused = track, False
        if forwarding.sent is not None and forwarding.sent.selection.source not in track.sources:
            self.stop(forwarding)
        return forwarding

    def unwant(self, track_sid: str) -> None:
        """Stop forwarding a track; unknown sids are fine."""
        forwarding = self.by_sid.pop(track_sid, None)
        if forwarding is not None:
            self.stop(forwarding)

    def holds(self, forwarding: Forwarding | None) -> bool:
        """Whether the track has been wanted all the time since this was its way; False for None."""
        return forwarding is not None and self.by_sid.get(forwarding.track_sid) is forwarding

    def start(self, forwarding: Forwarding, mid: str, selection: Selection, *, paused: bool = False) -> bool:
        """Subscribe; False when the engine has no room or the engine track just ended: then only `want` tries again.

        `paused`: nothing is sent before the engine's `set_paused`.
        """
        track = forwarding.wanted
        parameters = selection.parameters(mid, track.cname, paused=paused, begin=track.begin())
        try:
            local = self._engine.subscribe(selection.engine_track, self._transport, parameters)
        except EngineError as error:
            log.warning("subscription refused", track=track.track_sid, reason=str(error))
            forwarding.refused = True
            return False
        forwarding.sent = Sent(mid, selection, local)
        return True

    def stop(self, forwarding: Forwarding) -> None:
        """Unsubscribe, if subscribed; the track may stay wanted."""
        sent, forwarding.sent = forwarding.sent, None
        if sent is not None:
            unsubscribe(self._engine, sent.local.id)

    def waiting(self) -> list[Forwarding]:
        """Those that are not sent and could be."""
        return [each for each in self.by_sid.values() if each.sent is None and not each.refused and each.wanted.sources]

    def by_mid(self) -> Iterable[tuple[str, str]]:
        """(mid, track sid) of everything that is sent."""
        return [(each.sent.mid, sid) for sid, each in self.by_sid.items() if each.sent is not None]


def unsubscribe(engine: Engine, subscription: SubscriptionId) -> None:
    """End a subscription that may already have ended together with its engine track."""
    try:
        engine.unsubscribe(subscription)
    except EngineError as error:
        log.debug("subscription had ended", subscription=subscription, reason=str(error))
