"""Who may subscribe to what a participant publishes (LiveKit's subscription_permission)."""

from dataclasses import dataclass, field
from typing import NamedTuple

from livekit.protocol.rtc import RequestResponse, SubscriptionPermission, TrackPermission

from signaling.errors import RequestRefused
from signaling.limits import MAX_TRACK_PERMISSIONS


class _Permission(NamedTuple):
    """What one participant may have. A set, as each member of a room is looked for with each track."""

    all_tracks: bool
    track_sids: frozenset[str]

    @classmethod
    def of(cls, entry: TrackPermission) -> "_Permission":
        return cls(entry.all_tracks, frozenset(entry.track_sids))


@dataclass(frozen=True, slots=True)
class SubscriptionAccess:
    """A publisher's list of who may subscribe. By default everybody may subscribe to everything."""

    everyone: bool = True
    _by_sid: dict[str, _Permission] = field(default_factory=dict)
    _by_identity: dict[str, _Permission] = field(default_factory=dict)

    @classmethod
    def parse(cls, message: SubscriptionPermission) -> "SubscriptionAccess":
        """Read a client's list.

        Raises:
            RequestRefused: it is longer than `MAX_TRACK_PERMISSIONS`.
        """
        if len(message.track_permissions) > MAX_TRACK_PERMISSIONS:
            raise RequestRefused(RequestResponse.LIMIT_EXCEEDED, f"more than {MAX_TRACK_PERMISSIONS} track permissions")
        entries = message.track_permissions
        return cls(
            everyone=message.all_participants,
            _by_sid={each.participant_sid: _Permission.of(each) for each in entries if each.participant_sid},
            _by_identity={
                each.participant_identity: _Permission.of(each) for each in entries if each.participant_identity
            },
        )

    def allows(self, sid: str, identity: str, track_sid: str) -> bool:
        """Tell whether the participant with this sid and identity may have a track."""
        if self.everyone:
            return True
        entry = self._by_sid.get(sid) or self._by_identity.get(identity)
        return entry is not None and (entry.all_tracks or track_sid in entry.track_sids)
