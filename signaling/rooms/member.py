"""What a room needs of a participant: `signaling/participants/participant.py` has it all.

The participants' files import the room's. Rooms, tracks and the node see participants through this.
"""

from collections.abc import Iterable
from typing import Protocol

from livekit.protocol.models import DisconnectReason, ParticipantInfo
from livekit.protocol.rtc import LeaveRequest

from sfu.parameters import SubscriptionId, TrackId, TransportId
from signaling.rooms.allowance import Allowance
from signaling.rooms.capacity import Needs
from signaling.rooms.tracks import Publisher, Track


class Subscriber(Protocol):
    """A participant's choice among the tracks of its room."""

    @property
    def takes_all(self) -> bool:
        """Whether tracks that it never heard of will be subscribed to."""

    def consider(self, track: Track) -> None:
        """Start or stop a subscription so that it matches choices, permissions and access."""

    def engine_tracks_changed(self, track: Track) -> None:
        """A codec of the track came or went, or another one takes its place."""

    def forget(self, track: Track) -> None:
        """The track has ended."""

    def repeat(self) -> None:
        """Say again to a resumed client which tracks it may have."""


class Member(Publisher, Protocol):
    """One participant of a room."""

    @property
    def info(self) -> ParticipantInfo:
        """What clients are told; treat it as a constant."""

    @property
    def joined(self) -> bool:
        """The client has its join response."""

    @property
    def active(self) -> bool:
        """Media has been connected once."""

    @property
    def removed(self) -> bool:
        """It has left."""

    @property
    def is_publisher(self) -> bool:
        """It has published in this stay."""

    @property
    def expires_at(self) -> float | None:
        """When to give up on a client whose media failed, in seconds of the node's clock."""

    @property
    def update_allowance(self) -> Allowance:
        """How many bytes the room may be told of it."""

    @property
    def subscriptions(self) -> Subscriber:
        """Its choice among the room's tracks."""

    @property
    def track_count(self) -> int:
        """How many tracks it publishes or has announced."""

    @property
    def data_transport(self) -> TransportId:
        """Where data packets for it go."""

    def needs(self, tracks: int) -> Needs:
        """What it has or wants of the engine's tables in a room with so many tracks."""

    def engine_tracks(self) -> Iterable[TrackId]:
        """Return the engine tracks of everything that it publishes."""

    def subscription_ids(self) -> Iterable[SubscriptionId]:
        """Return the subscriptions to everything that is sent to it."""

    def set_disconnected(self, reason: DisconnectReason) -> None:
        """Enter the last state, without telling anybody."""

    def leave(self, reason: DisconnectReason, action: LeaveRequest.Action) -> None:
        """Tell the client that it leaves, and close its socket."""

    def close(self) -> None:
        """End everything of it in the engine and in the node's maps."""

    def let_go(self) -> None:
        """Drop its parts, after everything has ended."""

    def tick(self, now: float) -> None:
        """Look after its timeouts. now: the node's clock, in seconds."""
