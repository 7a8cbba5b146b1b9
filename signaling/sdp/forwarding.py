"""The tracks that one client is to receive, and the engine's subscriptions for those that it does receive.

Who calls it: the two kinds of peer connection, which decide on which m-section a track goes and when.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from sfu.engine import Engine, EngineError
from sfu.parameters import LocalSubscription, SubscriptionId, TransportId
from signaling.sdp.negotiation import Selection, WantedTrack

log = structlog.get_logger("signaling.forwarding")


@dataclass(frozen=True, slots=True)
class Forwarding:
    """One wanted track that is being sent."""

    mid: str
    selection: Selection
    local: LocalSubscription


class Forwardings:
    """Wanted tracks by sid, first wanted first. The caller bounds their number: they are the tracks of one room."""

    def __init__(self, engine: Engine, transport: TransportId) -> None:
        """Nothing is wanted."""
        self._engine = engine
        self._transport = transport
        self.wanted: dict[str, WantedTrack] = {}
        self.active: dict[str, Forwarding] = {}
        self._refused: set[str] = set()
        self._told: set[str] = set()
        """Wanted tracks that were started, and so stand in a description."""
        self.left: set[str] = set()
        """Tracks that stand in a description and have been unwanted since, even if they are wanted again now: a client
        announces a track anew only after its m-section was quiet. Whoever writes the next description clears it."""

    def want(self, track: WantedTrack) -> None:
        """Add a track, or change it. A subscription stays as long as the track has its receiver with the same codec."""
        self.wanted[track.track_sid] = track
        self._refused.discard(track.track_sid)
        current = self.active.get(track.track_sid)
        if current is not None and current.selection.source not in track.receivers:
            self.stop(track.track_sid)

    def unwant(self, track_sid: str) -> None:
        """Stop forwarding a track; unknown sids are fine."""
        self.wanted.pop(track_sid, None)
        if track_sid in self._told:
            self._told.discard(track_sid)
            self.left.add(track_sid)
        self._refused.discard(track_sid)
        self.stop(track_sid)

    def start(self, track_sid: str, mid: str, selection: Selection, *, paused: bool = False) -> bool:
        """Subscribe; False when the engine has no room or the receiver just ended: then only `want` tries again.

        `paused`: nothing is sent before the engine's `set_paused`.
        """
        track = self.wanted[track_sid]
        parameters = selection.parameters(mid, track.cname, paused=paused, begin=track.begin())
        try:
            local = self._engine.subscribe(selection.receiver, self._transport, parameters)
        except EngineError as error:
            log.warning("subscription refused", track=track_sid, reason=str(error))
            self._refused.add(track_sid)
            return False
        self.active[track_sid] = Forwarding(mid, selection, local)
        self._told.add(track_sid)
        return True

    def stop(self, track_sid: str) -> None:
        """Unsubscribe, if subscribed; the track may stay wanted."""
        current = self.active.pop(track_sid, None)
        if current is not None:
            unsubscribe(self._engine, current.local.id)

    def waiting(self) -> list[WantedTrack]:
        """Wanted tracks that are not sent and could be."""
        idle = (track for sid, track in self.wanted.items() if sid not in self.active and sid not in self._refused)
        return [track for track in idle if track.receivers]

    def subscription(self, track_sid: str) -> SubscriptionId | None:
        """The engine's id, while the track is sent."""
        current = self.active.get(track_sid)
        return current.local.id if current is not None else None

    def by_mid(self) -> Iterable[tuple[str, str]]:
        """(mid, track sid) of everything that is sent."""
        return [(current.mid, sid) for sid, current in self.active.items()]


def unsubscribe(engine: Engine, subscription: SubscriptionId) -> None:
    """End a subscription that may already have ended together with its receiver."""
    try:
        engine.unsubscribe(subscription)
    except EngineError as error:
        log.debug("subscription had ended", subscription=subscription, reason=str(error))
