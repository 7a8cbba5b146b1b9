"""The tracks that one client is to receive. Each has one object, which says what is wanted and how it is being sent.

Who calls it: the two kinds of peer connection, which assign tracks to m-sections. The participant's
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
    """How one track is forwarded to one client, as long as the client wants it without a break.

    A client announces a track again only after its m-section was inactive. So an m-section with the forwarding of a
    track that was unwanted meanwhile must become inactive, even if the track is wanted again and has another
    forwarding.
    """

    wanted: WantedTrack
    sent: Sent | None = None
    """How it is being sent; None: it is not sent now."""
    answered: bool = True
    """False: the client has not yet answered the offer with this track. The track is subscribed, since the offer names
    its SSRCs, but paused. Media that arrives before libwebrtc has settled its answer can take the renderer from the
    receiver that it just negotiated; the track is then decoded and never shown."""
    declined: bool = False
    """The client refused it although it has the codec."""
    refused: bool = False
    """The engine refused it: it had no room, or the engine track had just ended."""

    # The participant's subscriptions keep these.
    id: SubscriptionId | None = None
    """The engine's subscription that they know of; None until it is negotiated."""
    ready: bool = False
    """Whether they have started the media, after the client's answer."""
    lacking: frozenset[Codec] = frozenset()
    """Codecs of this track that the client cannot decode."""

    @property
    def track_sid(self) -> str:
        """The track's sid."""
        return self.wanted.track_sid

    @property
    def subscription(self) -> SubscriptionId | None:
        """The engine's subscription; None while the track is not sent."""
        return self.sent.local.id if self.sent is not None else None


class Forwardings:
    """All tracks that one connection is to send. They are tracks of one room, which bounds their number."""

    def __init__(self, engine: Engine, transport: TransportId) -> None:
        """Start without tracks."""
        self._engine = engine
        self._transport = transport
        self.by_sid: dict[str, Forwarding] = {}
        """The wanted tracks by sid, in the order in which they were wanted."""

    def want(self, track: WantedTrack) -> Forwarding:
        """Add a track, or change it. A subscription stays while the track has that engine track with that codec."""
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
        """Stop forwarding a track. An unknown sid is ignored."""
        forwarding = self.by_sid.pop(track_sid, None)
        if forwarding is not None:
            self.stop(forwarding)

    def holds(self, forwarding: Forwarding | None) -> bool:
        """Tell whether the track was wanted without a break since this forwarding began; False for None."""
        return forwarding is not None and self.by_sid.get(forwarding.track_sid) is forwarding

    def start(self, forwarding: Forwarding, mid: str, selection: Selection, *, paused: bool = False) -> bool:
        """Subscribe to a track for this m-section; return whether the engine accepted that.

        It refuses if it has no room or the engine track has just ended; then only `want` makes it try again. If
        `paused`, nothing is sent before the engine's `set_paused`.
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
        """Return those that are not sent, and have engine tracks that the engine has not refused."""
        return [each for each in self.by_sid.values() if each.sent is None and not each.refused and each.wanted.sources]

    def by_mid(self) -> Iterable[tuple[str, str]]:
        """Return (mid, track sid) of everything that is sent."""
        return [(each.sent.mid, sid) for sid, each in self.by_sid.items() if each.sent is not None]


def what_is_sent(forwarding: Forwarding | None) -> tuple[Sent | None, WantedTrack | None]:
    """Return how a track is being sent, and the track; (None, None): nothing is sent."""
    if forwarding is None or forwarding.sent is None:
        return None, None
    return forwarding.sent, forwarding.wanted


def unsubscribe(engine: Engine, subscription: SubscriptionId) -> None:
    """End a subscription, which may already have ended together with its engine track."""
    try:
        engine.unsubscribe(subscription)
    except EngineError as error:
        log.debug("subscription had ended", subscription=subscription, reason=str(error))
